// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRailMeter, IRails} from "../token/IRails.sol";
import {ComputeFees} from "./ComputeFees.sol";
import {DeviceCalendar} from "./DeviceCalendar.sol";
import {IComputeMarket} from "./IComputeMarket.sol";

/// @title ComputeMarket: see IComputeMarket for the rules. A lease's number is its slot's.
contract ComputeMarket is IComputeMarket, IRailMeter, ComputeFees, DeviceCalendar, EIP712 {
    bytes32 private constant METER_TYPEHASH = keccak256("MeterStatement(uint64 leaseId,uint8 side,uint32 word,uint256 spoken,uint256 up)");
    uint256 private constant HOUR = 3_600;
    /// @notice Longest lease, in words of 256 intervals: measuring all of it at once stays far below a block's gas.
    uint256 public constant WORDS_MAX = 64;

    IOperators public immutable operators;
    uint32 public immutable meterSeconds;
    uint32 public immutable speakSeconds;

    /// @notice Devices are numbered from 1.
    uint64 public deviceCount;
    mapping(uint64 deviceId => Offer) private _offers;
    mapping(uint64 leaseId => Lease) private _leases;
    mapping(uint256 railId => uint64) private _leaseOfRail;
    mapping(uint64 leaseId => mapping(Side => mapping(uint32 word => Statement))) private _statements;

    /// What the reservation that runs asks of a device; for _isOffered, within one call.
    bytes32 private transient _wantedClass;
    address private transient _wantedToken;
    uint128 private transient _wantedPriceMax;

    constructor(
        uint32 meterSeconds_,
        uint32 speakSeconds_,
        IOperators operators_,
        IRails rails_,
        address native_,
        address stable_,
        address auction_
    ) ComputeFees(rails_, native_, stable_, auction_) EIP712("Millrace Compute Market", "1") {
        if (meterSeconds_ == 0 || speakSeconds_ == 0) revert BadMeter(meterSeconds_, speakSeconds_);
        (meterSeconds, speakSeconds, operators) = (meterSeconds_, speakSeconds_, operators_);
    }

    // ------------------------------------------------------------------------------------------------------------- offers

    /// @inheritdoc IComputeMarket
    function setOffer(uint64 deviceId, Offer calldata offer_) external returns (uint64) {
        if (deviceId > deviceCount) revert UnknownDevice(deviceId);
        if (!_isOperator(offer_.operatorId, msg.sender)) revert NotOperator(offer_.operatorId, msg.sender);
        if (deviceId == 0) deviceId = ++deviceCount;
        else if (_offers[deviceId].operatorId != offer_.operatorId) revert NotOperator(_offers[deviceId].operatorId, msg.sender);
        _offers[deviceId] = offer_;
        emit OfferSet(deviceId, offer_.operatorId, offer_.deviceClass, offer_);
        return deviceId;
    }

    function _isOffered(uint64 deviceId, uint64 from, uint64 until) internal view override returns (bool) {
        Offer storage o = _offers[deviceId];
        uint128 price = _priceIn(o, _wantedToken);
        return o.deviceClass == _wantedClass && price != 0 && price <= _wantedPriceMax && o.from <= from && until <= o.until;
    }

    function _priceIn(Offer storage o, address token) private view returns (uint128) {
        return token == stable ? o.stablePrice : token == native ? o.nativePrice : 0;
    }

    // ------------------------------------------------------------------------------------------------------------- leases

    /// @inheritdoc IComputeMarket
    function reserve(Request calldata request, Candidate[] calldata candidates, uint256 wanted)
        external
        returns (uint64[] memory leaseIds)
    {
        (uint64 from, uint64 until) = (request.from, request.until);
        uint64 secondsMax = uint64(Math.min(WORDS_MAX * 256 * meterSeconds, type(uint32).max));
        if (from < block.timestamp || until <= from || until - from > secondsMax) {
            revert LeaseTimeOutOfBounds(from, until, block.timestamp, secondsMax);
        }
        (_wantedClass, _wantedToken, _wantedPriceMax) = (request.deviceClass, request.token, request.priceMax);
        leaseIds = _reserveGang(candidates, wanted, from, until);
        for (uint256 i; i < wanted; ++i) {
            _open(leaseIds[i], request);
        }
    }

    /// The rail pays the price less the supplier's fee for the whole time, so its escrow ends with the lease.
    function _open(uint64 leaseId, Request calldata request) private {
        uint64 deviceId = _deviceOf(leaseId);
        Offer storage o = _offers[deviceId];
        uint64 operatorId = o.operatorId;
        uint32 time = uint32(request.until - request.from);
        uint256 price = Math.mulDiv(_priceIn(o, request.token), time, HOUR, Math.Rounding.Ceil);
        uint128 net = _takeReservationFees(leaseId, msg.sender, request.token, price);
        uint256 railId = rails.open(msg.sender, operatorId, request.token, net, time, 0, net);
        address agent = request.agent == address(0) ? msg.sender : request.agent;
        _leases[leaseId] = Lease(msg.sender, deviceId, agent, operatorId, request.token, request.from, request.until, false, railId);
        _leaseOfRail[railId] = leaseId;
        emit LeaseOpened(leaseId, msg.sender, operatorId, deviceId, railId, uint128(price)); // fits: the fees were taken on it
        rails.begin(railId, request.from, request.until);
    }

    /// @inheritdoc IComputeMarket
    function end(uint64 leaseId) external returns (uint64 until) {
        Lease storage l = _known(leaseId);
        if (msg.sender != l.renter && !_isOperator(l.operatorId, msg.sender)) revert NotParty(leaseId, msg.sender);
        uint64 from = l.from;
        uint256 passed = block.timestamp > from ? block.timestamp - from : 0;
        until = uint64(from + Math.ceilDiv(passed, meterSeconds) * meterSeconds);
        if (until >= l.until) revert LeaseIsOver(leaseId, l.until);
        l.until = until;
        emit LeaseEnded(leaseId, msg.sender, until);
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
    }

    // -------------------------------------------------------------------------------------------------------------- meter

    /// @inheritdoc IComputeMarket
    function state(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up, bytes calldata signature) external {
        Lease storage l = _known(leaseId);
        address signer = side == Side.Node ? operators.nodeKeyOf(l.operatorId) : l.agent;
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, meterDigest(leaseId, side, word, spoken, up), signature)) {
            revert BadSignature(signer);
        }
        spoken &= _range(word, _sureIntervals(l), _passedIntervals(l, block.timestamp));
        _say(leaseId, side, word, spoken, up);
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
        provenSeconds = uint64(_secondsUp(leaseId, from - start, settledTo - start));
    }

    /// Seconds up in [from, to), counted from the lease's beginning. Both are where an interval ends: rails ask from where they were settled.
    function _secondsUp(uint64 leaseId, uint256 from, uint256 to) private view returns (uint256 time) {
        uint256 length = meterSeconds;
        uint256 first = Math.ceilDiv(from, length);
        uint256 last = Math.ceilDiv(to, length);
        for (uint256 word = first / 256; word * 256 < last; ++word) {
            uint256 up = _bothUp(leaseId, uint32(word)) & _range(word, first, last);
            time += _countBits(up) * length;
            // The lease's last interval may be shorter than the others.
            if (last <= (word + 1) * 256 && up >> ((last - 1) % 256) & 1 == 1) time -= last * length - to;
        }
    }

    /// @inheritdoc IComputeMarket
    function meterDigest(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(METER_TYPEHASH, leaseId, side, word, spoken, up)));
    }

    function _bothUp(uint64 leaseId, uint32 word) private view returns (uint256) {
        return _statements[leaseId][Side.Node][word].up & _statements[leaseId][Side.Renter][word].up;
    }

    /// Intervals whose end is `speakSeconds` ago: nothing is said of them any more.
    function _sureIntervals(Lease storage l) private view returns (uint256) {
        return _passedIntervals(l, block.timestamp - speakSeconds);
    }

    /// Intervals that were over at a time: whole ones, and at the lease's end also the last.
    function _passedIntervals(Lease storage l, uint256 time) private view returns (uint256) {
        (uint64 from, uint64 until) = (l.from, l.until);
        if (time <= from) return 0;
        return time >= until ? Math.ceilDiv(until - from, meterSeconds) : (time - from) / meterSeconds;
    }

    /// Bits of a word whose intervals lie in [first, last).
    function _range(uint256 word, uint256 first, uint256 last) private pure returns (uint256) {
        return _below(last, word) & ~_below(first, word);
    }

    function _below(uint256 interval, uint256 word) private pure returns (uint256) {
        if (interval <= word * 256) return 0;
        return interval >= (word + 1) * 256 ? type(uint256).max : (1 << (interval - word * 256)) - 1;
    }

    function _countBits(uint256 bits) private pure returns (uint256 count) {
        for (; bits != 0; ++count) {
            bits &= bits - 1;
        }
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

    function _isOperator(uint64 operatorId, address caller) private view returns (bool) {
        return caller == operators.ownerOf(operatorId) || caller == operators.nodeKeyOf(operatorId);
    }

    function _known(uint64 leaseId) private view returns (Lease storage l) {
        l = _leases[leaseId];
        if (l.renter == address(0)) revert UnknownLease(leaseId);
    }
}
