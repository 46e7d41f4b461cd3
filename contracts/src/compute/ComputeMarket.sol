// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule, IRegistry} from "../chain/IRegistry.sol";
import {IRailMeter, IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ComputeFees} from "./ComputeFees.sol";
import {DeviceCalendar} from "./DeviceCalendar.sol";
import {IComputeMarket} from "./IComputeMarket.sol";
import {IntervalBits} from "./IntervalBits.sol";

/// @title ComputeMarket: see IComputeMarket for the rules. A lease's number is its slot's.
contract ComputeMarket is IComputeMarket, IModule, IRailMeter, ComputeFees, DeviceCalendar, EIP712 {
    using IntervalBits for uint256;

    bytes32 private constant METER_TYPEHASH = keccak256("MeterStatement(uint64 leaseId,uint8 side,uint32 word,uint256 spoken,uint256 up)");
    uint256 private constant HOUR = 3_600;
    uint256 private constant BPS = 10_000;
    /// @notice Longest lease, in words of 256 intervals: measuring all of it at once stays far below a block's gas.
    uint256 public constant WORDS_MAX = 64;

    IRegistry public immutable registry;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    uint32 public immutable meterSeconds;
    uint32 public immutable speakSeconds;
    uint32 public immutable noticeSeconds;
    uint16 public immutable downBpsMax;
    uint32 public immutable leadSeconds;
    uint32 public immutable leaseSecondsMin;
    uint32 public immutable collateralSeconds;

    /// @notice Devices are numbered from 1.
    uint64 public deviceCount;
    mapping(uint64 deviceId => Offer) private _offers;
    mapping(uint64 leaseId => Lease) private _leases;
    mapping(uint256 railId => uint64) private _leaseOfRail;
    mapping(uint64 leaseId => mapping(Side => mapping(uint32 word => Statement))) private _statements;

    /// What the reservation that runs asks of a device; for _isOffered and _commit, within one call.
    bytes32 private transient _wantedClass;
    address private transient _wantedToken;
    uint128 private transient _wantedPriceMax;
    uint128 private transient _wantedCollateralMin;
    bool private transient _wantedInterruptible;
    uint64 private transient _wantedSeconds;

    constructor(
        Config memory c,
        IRegistry registry_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        address native_,
        address stable_,
        address auction_
    ) ComputeFees(rails_, native_, stable_, auction_) EIP712("Millrace Compute Market", "1") {
        if (c.meterSeconds == 0 || c.speakSeconds == 0) revert BadMeter(c.meterSeconds, c.speakSeconds);
        if (c.downBpsMax > BPS) revert BadShare(c.downBpsMax, BPS);
        if (c.leaseSecondsMin < c.meterSeconds || c.collateralSeconds < c.leaseSecondsMin) {
            revert BadLeaseSeconds(c.meterSeconds, c.leaseSecondsMin, c.collateralSeconds);
        }
        (meterSeconds, speakSeconds, noticeSeconds, downBpsMax) = (c.meterSeconds, c.speakSeconds, c.noticeSeconds, c.downBpsMax);
        (leadSeconds, leaseSecondsMin, collateralSeconds) = (c.leadSeconds, c.leaseSecondsMin, c.collateralSeconds);
        (registry, operators, stakeVault) = (registry_, operators_, stakeVault_);
    }

    // ------------------------------------------------------------------------------------------------------------- offers

    /// @inheritdoc IComputeMarket
    function setOffer(uint64 deviceId, Offer calldata offer_) external returns (uint64) {
        if (deviceId > deviceCount) revert UnknownDevice(deviceId);
        if (!_isOperator(offer_.operatorId, msg.sender)) revert NotOperator(offer_.operatorId, msg.sender);
        if (offer_.interruptibleBps > BPS) revert BadShare(offer_.interruptibleBps, BPS);
        if (deviceId == 0) deviceId = ++deviceCount;
        else if (_offers[deviceId].operatorId != offer_.operatorId) revert NotOperator(_offers[deviceId].operatorId, msg.sender);
        _offers[deviceId] = offer_;
        emit OfferSet(deviceId, offer_.operatorId, offer_.deviceClass, offer_);
        return deviceId;
    }

    function _isOffered(uint64 deviceId, uint64 from, uint64 until) internal view override returns (bool) {
        Offer storage o = _offers[deviceId];
        uint256 price = _priceOf(o);
        return o.deviceClass == _wantedClass && price != 0 && price <= _wantedPriceMax && o.from <= from && until <= o.until
            && o.collateral >= _wantedCollateralMin;
    }

    /// What the reservation that runs pays an hour; 0: it cannot be had so.
    function _priceOf(Offer storage o) private view returns (uint256) {
        uint128 price = _wantedToken == stable ? o.stablePrice : _wantedToken == native ? o.nativePrice : 0;
        return _wantedInterruptible ? Math.mulDiv(price, o.interruptibleBps, BPS, Math.Rounding.Ceil) : price;
    }

    /// Locks the collateral; an operator whose stake, or whose limit for it, does not reach has nothing on offer.
    function _commit(uint64 deviceId) internal override returns (bool) {
        Offer storage o = _offers[deviceId];
        uint128 collateral = _collateralOf(o);
        if (collateral == 0) return true;
        try stakeVault.lock(o.operatorId, collateral) {
            return true;
        } catch {
            return false;
        }
    }

    /// Of the offer's collateral the part that the reservation that runs puts at risk: less time, less of it; rounded up.
    function _collateralOf(Offer storage o) private view returns (uint128) {
        uint256 time = Math.min(_wantedSeconds, collateralSeconds);
        return uint128(Math.mulDiv(o.collateral, time, collateralSeconds, Math.Rounding.Ceil));
    }

    // ------------------------------------------------------------------------------------------------------------- leases

    /// @inheritdoc IComputeMarket
    function reserve(Request calldata request, Candidate[] calldata candidates, uint256 wanted)
        external
        returns (uint64[] memory leaseIds)
    {
        (uint64 from, uint64 until) = (request.from, request.until);
        uint64 secondsMax = uint64(Math.min(WORDS_MAX * 256 * meterSeconds, type(uint32).max));
        uint256 earliest = block.timestamp + leadSeconds;
        if (from < earliest || until < from || until - from < leaseSecondsMin || until - from > secondsMax) {
            revert LeaseTimeOutOfBounds(from, until, earliest, leaseSecondsMin, secondsMax);
        }
        (_wantedClass, _wantedToken, _wantedPriceMax) = (request.deviceClass, request.token, request.priceMax);
        (_wantedCollateralMin, _wantedInterruptible, _wantedSeconds) = (request.collateralMin, request.interruptible, until - from);
        leaseIds = _reserveGang(candidates, wanted, from, until);
        for (uint256 i; i < wanted; ++i) {
            _open(leaseIds[i], request);
        }
    }

    /// The rail pays the price less the supplier's fee for the whole time, so its escrow ends with the lease.
    function _open(uint64 leaseId, Request calldata request) private {
        uint64 deviceId = _deviceOf(leaseId);
        Offer storage o = _offers[deviceId];
        uint32 time = uint32(request.until - request.from);
        uint256 price = Math.mulDiv(_priceOf(o), time, HOUR, Math.Rounding.Ceil);
        uint128 net = _takeReservationFees(leaseId, msg.sender, request.token, price);
        uint256 railId = rails.open(msg.sender, o.operatorId, request.token, net, time, 0, net);
        Lease storage l = _leases[leaseId];
        (l.renter, l.deviceId, l.interruptible) = (msg.sender, deviceId, request.interruptible);
        (l.agent, l.operatorId) = (request.agent == address(0) ? msg.sender : request.agent, o.operatorId);
        (l.from, l.until, l.collateral) = (request.from, request.until, _collateralOf(o));
        (l.token, l.railId) = (request.token, uint64(railId));
        _leaseOfRail[railId] = leaseId;
        // The price fits: the fees were taken on it.
        emit LeaseOpened(leaseId, msg.sender, o.operatorId, deviceId, railId, uint128(price), l.collateral, request.interruptible);
        rails.begin(railId, request.from, request.until);
    }

    /// @inheritdoc IComputeMarket
    function end(uint64 leaseId) external returns (uint64 until) {
        Lease storage l = _known(leaseId);
        bool bySupplier = msg.sender != l.renter;
        if (bySupplier && !_isOperator(l.operatorId, msg.sender)) revert NotParty(leaseId, msg.sender);
        (uint64 from, uint64 planned) = (l.from, l.until);
        uint256 at = block.timestamp + (bySupplier ? noticeSeconds : 0);
        uint256 passed = at > from ? at - from : 0;
        until = uint64(from + Math.ceilDiv(passed, meterSeconds) * meterSeconds);
        if (until >= planned) revert LeaseIsOver(leaseId, planned);
        uint32 taken = bySupplier && !l.interruptible ? uint32(planned - until) : 0;
        l.until = until;
        if (taken != 0) l.takenSeconds = taken; // it was 0: an end that a supplier gave notice of only the renter can make earlier
        emit LeaseEnded(leaseId, msg.sender, until, taken);
        _cutSlot(leaseId, until);
    }

    /// @inheritdoc IComputeMarket
    function settle(uint64 leaseId) external {
        uint256 railId = _known(leaseId).railId;
        rails.settle(railId);
        _takeStableFee(leaseId, rails.rail(railId).paid);
    }

    /// @inheritdoc IComputeMarket
    function close(uint64 leaseId) external {
        Lease storage l = _known(leaseId);
        if (l.closed) revert LeaseIsClosed(leaseId);
        // One that ended before it began has nothing to be measured.
        uint64 closableFrom = l.until == l.from ? 0 : l.until + speakSeconds;
        if (block.timestamp < closableFrom) revert LeaseNotOver(leaseId, closableFrom);
        l.closed = true;
        uint256 railId = l.railId;
        rails.close(railId, l.until, 0, 0);
        IRails.Rail memory track = rails.rail(railId);
        _closeStableFee(leaseId, track.paid);
        emit LeaseClosed(leaseId, track.paid, track.refunded);
        _freeCollateral(leaseId, l, track.interval);
    }

    /// Time that was taken away, and time that was found down when that is too much, costs collateral in proportion, rounded up.
    function _freeCollateral(uint64 leaseId, Lease storage l, uint256 reserved) private {
        (uint64 operatorId, uint256 collateral) = (l.operatorId, l.collateral);
        if (collateral == 0) return;
        uint256 time = l.until - l.from;
        uint256 down = _secondsFound(leaseId, 0, time, true);
        uint256 lost = l.takenSeconds + (down * BPS > downBpsMax * reserved ? down : 0);
        uint256 amount = Math.mulDiv(collateral, lost, reserved, Math.Rounding.Ceil);
        uint256 compensation;
        if (amount != 0) {
            IStakeVault.Payout memory payout = IStakeVault.Payout(l.renter, amount / 2, address(0), 0);
            (, compensation,) = stakeVault.slash(operatorId, amount, payout);
        }
        if (amount < collateral) stakeVault.unlock(operatorId, collateral - amount);
        emit CollateralFreed(leaseId, operatorId, down, amount, compensation);
    }

    // -------------------------------------------------------------------------------------------------------------- meter

    /// @inheritdoc IComputeMarket
    function state(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up, bytes calldata signature) external {
        Lease storage l = _known(leaseId);
        if (side == Side.Probers) revert NotProbers(msg.sender, address(0));
        address signer = side == Side.Node ? operators.nodeKeyOf(l.operatorId) : l.agent;
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, meterDigest(leaseId, side, word, spoken, up), signature)) {
            revert BadSignature(signer);
        }
        _say(leaseId, side, word, spoken & _speakable(l, word), up);
    }

    /// @inheritdoc IComputeMarket
    function stateOfProbers(uint64 leaseId, uint32 word, uint256 spoken, uint256 up) external {
        address probers = registry.get("leaseProbers");
        if (msg.sender != probers) revert NotProbers(msg.sender, probers);
        _say(leaseId, Side.Probers, word, spoken & _speakable(_known(leaseId), word), up);
    }

    /// What was said before stays: only intervals that this side has not spoken of count.
    function _say(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up) private {
        Statement storage own = _statements[leaseId][side][word];
        spoken &= ~own.spoken;
        if (spoken == 0) revert NothingToState(leaseId, word);
        up &= spoken;
        own.spoken |= spoken;
        own.up |= up;
        Statement storage other = _statements[leaseId][side == Side.Node ? Side.Renter : Side.Node][word];
        emit MeterStated(leaseId, side, word, spoken, up, spoken & other.spoken & (up ^ other.up));
    }

    /// @notice Seconds of the intervals that both sides found up, as far as nothing can be said of them any more.
    /// @inheritdoc IRailMeter
    function measure(uint256 railId, uint64 from, uint64 to) external view returns (uint64 provenSeconds, uint64 settledTo) {
        uint64 leaseId = _leaseOfRail[railId];
        Lease storage l = _leases[leaseId];
        uint64 start = l.from;
        settledTo = uint64(Math.max(from, Math.min(to, Math.min(start + _sureIntervals(l) * meterSeconds, l.until))));
        provenSeconds = uint64(_secondsFound(leaseId, from - start, settledTo - start, false));
    }

    /// Seconds in [from, to), counted from the lease's beginning, that were found up, or down. Both are where an interval ends: rails ask from
    /// where they were settled.
    function _secondsFound(uint64 leaseId, uint256 from, uint256 to, bool isDown) private view returns (uint256 time) {
        uint256 length = meterSeconds;
        uint256 first = Math.ceilDiv(from, length);
        uint256 last = Math.ceilDiv(to, length);
        for (uint256 word = first / 256; word * 256 < last; ++word) {
            uint256 found = isDown ? _down(leaseId, uint32(word)) : _up(leaseId, uint32(word));
            time += (found & word.range(first, last)).secondsOf(word, last, to, length);
        }
    }

    /// The node, and the renter or the probers where it is silent.
    function _up(uint64 leaseId, uint32 word) private view returns (uint256) {
        mapping(Side => mapping(uint32 => Statement)) storage said = _statements[leaseId];
        uint256 node = said[Side.Node][word].up;
        if (node == 0) return 0;
        Statement storage renter = said[Side.Renter][word];
        return node & (renter.up | (said[Side.Probers][word].up & ~renter.spoken));
    }

    /// What the probers deny and the renter does not confirm; what the renter denies and nobody confirms.
    function _down(uint64 leaseId, uint32 word) private view returns (uint256) {
        mapping(Side => mapping(uint32 => Statement)) storage said = _statements[leaseId];
        (Statement memory renter, Statement memory probers) = (said[Side.Renter][word], said[Side.Probers][word]);
        return ~renter.up & ~probers.up & (probers.spoken | (renter.spoken & ~said[Side.Node][word].up));
    }

    /// @inheritdoc IComputeMarket
    function meterDigest(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(METER_TYPEHASH, leaseId, side, word, spoken, up)));
    }

    function _speakable(Lease storage l, uint256 word) private view returns (uint256) {
        return word.range(_sureIntervals(l), block.timestamp.passed(l.from, l.until, meterSeconds));
    }

    /// Intervals whose end is `speakSeconds` ago: nothing is said of them any more.
    function _sureIntervals(Lease storage l) private view returns (uint256) {
        return (block.timestamp - speakSeconds).passed(l.from, l.until, meterSeconds);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IComputeMarket
    function offerOf(uint64 deviceId) external view returns (Offer memory) {
        return _offers[deviceId];
    }

    /// @inheritdoc IComputeMarket
    function lease(uint64 leaseId) external view returns (Lease memory) {
        return _known(leaseId);
    }

    /// @inheritdoc IComputeMarket
    function statementOf(uint64 leaseId, Side side, uint32 word) external view returns (Statement memory) {
        return _statements[leaseId][side][word];
    }

    /// @inheritdoc IComputeMarket
    function speakableOf(uint64 leaseId, uint32 word) external view returns (uint256) {
        return _speakable(_known(leaseId), word);
    }

    /// @inheritdoc IComputeMarket
    function recordOf(uint64 leaseId) external view returns (uint256 upSeconds, uint256 downSeconds) {
        Lease storage l = _known(leaseId);
        uint256 time = l.until - l.from;
        return (_secondsFound(leaseId, 0, time, false), _secondsFound(leaseId, 0, time, true));
    }

    /// @notice Stake is locked for the whole lease, and slashed or freed when nothing can be said of it any more.
    /// @inheritdoc IModule
    function exposureSeconds() external view returns (uint64) {
        return uint64(noticeSeconds) + meterSeconds + speakSeconds;
    }

    function _isOperator(uint64 operatorId, address caller) private view returns (bool) {
        return caller == operators.ownerOf(operatorId) || caller == operators.nodeKeyOf(operatorId);
    }

    function _known(uint64 leaseId) private view returns (Lease storage l) {
        l = _leases[leaseId];
        if (l.renter == address(0)) revert UnknownLease(leaseId);
    }
}
