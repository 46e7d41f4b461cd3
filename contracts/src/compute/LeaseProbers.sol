// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IComputeMarket} from "./IComputeMarket.sol";
import {ILeaseProbers} from "./ILeaseProbers.sol";
import {IntervalBits} from "./IntervalBits.sol";
import {ProberSeats} from "./ProberSeats.sol";

/// @title LeaseProbers: see ILeaseProbers for the rules. No owner, no parameter that can change.
/// @notice Money: the fees of open panels are this contract's account at Rails.
contract LeaseProbers is ProberSeats, EIP712 {
    using IntervalBits for uint256;

    bytes32 private constant FINDING_TYPEHASH = keccak256("Finding(uint64 leaseId,uint32 stretch,uint128 spoken,uint128 up)");
    /// @notice Intervals of a stretch: half of the market's word, so that what a prober says fits one slot.
    uint256 public constant STRETCH = 128;

    IComputeMarket public immutable market;
    IRails public immutable rails;
    IRandomness public immutable randomness;
    address public immutable token;

    mapping(uint64 leaseId => mapping(uint32 stretch => Panel)) private _panels;
    mapping(uint64 leaseId => mapping(uint32 stretch => mapping(uint256 index => Bits))) private _findings;

    constructor(
        Config memory c,
        IComputeMarket market_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        IRandomness randomness_,
        address stable_
    ) ProberSeats(c, operators_, stakeVault_) EIP712("Millrace Lease Probers", "1") {
        (market, rails, randomness, token) = (market_, rails_, randomness_, stable_);
    }

    /// @inheritdoc ILeaseProbers
    function ask(uint64 leaseId, uint32 stretch) external returns (uint64 seedTime) {
        (uint256 start, uint256 stop) = _timeOf(market.lease(leaseId), stretch);
        uint256 open = start - Math.min(start, _config.leadSeconds);
        if (stop <= start || block.timestamp < open || block.timestamp >= stop) revert StretchNotOpen(leaseId, stretch, open, stop);
        Panel storage p = _panels[leaseId][stretch];
        if (p.payer != address(0)) revert AlreadyAsked(leaseId, stretch);
        uint256 seats = _seatsBefore(uint48(block.timestamp));
        if (seats < _config.threshold) revert TooFewSeats(seats, _config.threshold);
        uint128 fee = _config.fee * _config.drawn;
        (p.payer, p.askedAt, p.fee) = (msg.sender, uint48(block.timestamp), fee);
        seedTime = _seedTime(p);
        emit PanelAsked(leaseId, stretch, msg.sender, seedTime, fee);
        if (fee != 0) rails.transferFrom(token, msg.sender, address(this), fee);
    }

    /// @inheritdoc ILeaseProbers
    function draw(uint64 leaseId, uint32 stretch) external {
        _drawn(leaseId, stretch);
    }

    /// @inheritdoc ILeaseProbers
    function speak(uint64 leaseId, uint32 stretch, Finding[] calldata findings) external {
        Panel storage p = _drawn(leaseId, stretch);
        uint128 speakable = uint128(market.speakableOf(leaseId, stretch / 2) >> _shiftOf(stretch)) & _coveredOf(leaseId, stretch, p);
        for (uint256 i; i < findings.length; ++i) {
            _hear(leaseId, stretch, p, findings[i], speakable);
        }
        _count(leaseId, stretch, p);
    }

    /// What a prober said before stays: only intervals of which it has not spoken count.
    function _hear(uint64 leaseId, uint32 stretch, Panel storage p, Finding calldata f, uint128 speakable) private {
        if (f.index >= p.seats.length) revert NotOnPanel(leaseId, stretch, f.index);
        uint64 operatorId = _seats[p.seats[f.index]].operatorId;
        address key = operators.nodeKeyOf(operatorId);
        if (!SignatureChecker.isValidSignatureNowCalldata(key, findingDigest(leaseId, stretch, f.spoken, f.up), f.signature)) {
            revert BadSignature(key);
        }
        Bits memory own = _findings[leaseId][stretch][f.index];
        uint128 spoken = f.spoken & speakable & ~own.spoken;
        if (spoken == 0) revert NothingToSay(leaseId, stretch, operatorId);
        _findings[leaseId][stretch][f.index] = Bits(own.spoken | spoken, own.up | (f.up & spoken));
        emit ProberSpoke(leaseId, stretch, operatorId, spoken, f.up & spoken);
    }

    /// Tells the market of what the panel has now found. More than half say it, so what was found never changes.
    function _count(uint64 leaseId, uint32 stretch, Panel storage p) private {
        uint256[3] memory ups;
        uint256[3] memory downs;
        for (uint256 i; i < p.seats.length; ++i) {
            Bits memory said = _findings[leaseId][stretch][i];
            _add(ups, said.up);
            _add(downs, said.spoken & ~said.up);
        }
        uint128 up = uint128(_atLeast(ups, _config.threshold));
        uint128 found = up | uint128(_atLeast(downs, _config.threshold));
        uint128 fresh = found & ~p.found.spoken;
        if (fresh == 0) return;
        p.found = Bits(found, up);
        emit PanelFound(leaseId, stretch, fresh, up & fresh);
        market.stateOfProbers(leaseId, stretch / 2, uint256(fresh) << _shiftOf(stretch), uint256(up) << _shiftOf(stretch));
    }

    /// One more for each interval in `bits`: counts of 128 intervals at once, the i-th word holding the i-th digit of each.
    function _add(uint256[3] memory digits, uint256 bits) private pure {
        for (uint256 i; i < 3; ++i) {
            (digits[i], bits) = (digits[i] ^ bits, digits[i] & bits);
        }
    }

    /// Intervals whose count is `least` or more, found from the highest digit down.
    function _atLeast(uint256[3] memory digits, uint256 least) private pure returns (uint256 more) {
        uint256 equal = type(uint128).max;
        for (uint256 i = 3; i > 0; --i) {
            if (least >> (i - 1) & 1 == 1) {
                equal &= digits[i - 1];
            } else {
                more |= equal & digits[i - 1];
                equal &= ~digits[i - 1];
            }
        }
        more |= equal;
    }

    /// @inheritdoc ILeaseProbers
    function settle(uint64 leaseId, uint32 stretch) external {
        Panel storage p = _asked(leaseId, stretch);
        if (p.settled) revert AlreadySettled(leaseId, stretch);
        (, uint256 stop) = _timeOf(market.lease(leaseId), stretch);
        uint256 settlesFrom = stop + market.speakSeconds();
        if (block.timestamp < settlesFrom) revert NotOver(leaseId, stretch, settlesFrom);
        if (!p.drawn && randomness.isFixed(_seedTime(p))) _drawn(leaseId, stretch);
        p.settled = true;
        uint256 paid = _pay(leaseId, stretch, p);
        emit PanelSettled(leaseId, stretch, p.fee - paid);
        if (p.fee != paid) rails.transfer(token, p.payer, p.fee - paid);
    }

    /// Each prober for the intervals in which it said what the panel found; rounded down.
    function _pay(uint64 leaseId, uint32 stretch, Panel storage p) private returns (uint256 paid) {
        uint256 covered = uint256(_coveredOf(leaseId, stretch, p)).count();
        uint256 found = uint256(p.found.spoken).count();
        for (uint256 i; i < p.seats.length; ++i) {
            Seat storage s = _seats[p.seats[i]];
            Bits memory said = _findings[leaseId][stretch][i];
            _remember(leaseId, stretch, s, 2 * uint256(said.spoken).count() < covered);
            if (found == 0) continue;
            uint256 agreed = uint256(said.spoken & p.found.spoken & ~(said.up ^ p.found.up)).count();
            uint256 amount = _config.fee * agreed / found;
            if (amount == 0) continue;
            paid += amount;
            emit ProberPaid(leaseId, stretch, s.operatorId, amount);
            rails.transfer(token, operators.beneficiaryOf(s.operatorId), amount);
        }
    }

    function _remember(uint64 leaseId, uint32 stretch, Seat storage s, bool hasMissed) private {
        if (!hasMissed) {
            if (s.missed != 0) s.missed = 0;
            return;
        }
        if (s.missed < type(uint8).max) ++s.missed;
        emit ProberMissed(leaseId, stretch, s.operatorId, s.missed);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc ILeaseProbers
    function panelOf(uint64 leaseId, uint32 stretch) external view returns (uint64[] memory operatorIds) {
        Panel storage p = _asked(leaseId, stretch);
        return _operatorsOf(p.drawn ? p.seats : _draw(leaseId, stretch, p));
    }

    /// @inheritdoc ILeaseProbers
    function panel(uint64 leaseId, uint32 stretch) external view returns (Panel memory) {
        return _panels[leaseId][stretch];
    }

    /// @inheritdoc ILeaseProbers
    function seedTimeOf(uint64 leaseId, uint32 stretch) external view returns (uint64) {
        return _seedTime(_asked(leaseId, stretch));
    }

    /// @inheritdoc ILeaseProbers
    function findingOf(uint64 leaseId, uint32 stretch, uint8 index) external view returns (Bits memory) {
        return _findings[leaseId][stretch][index];
    }

    /// @inheritdoc ILeaseProbers
    function findingDigest(uint64 leaseId, uint32 stretch, uint128 spoken, uint128 up) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(FINDING_TYPEHASH, leaseId, stretch, spoken, up)));
    }

    // ---------------------------------------------------------------------------------------------------------------- the draw

    function _drawn(uint64 leaseId, uint32 stretch) private returns (Panel storage p) {
        p = _asked(leaseId, stretch);
        if (p.drawn) return p;
        uint64[] memory seats = _draw(leaseId, stretch, p);
        (p.drawn, p.seats) = (true, seats);
        emit PanelDrawn(leaseId, stretch, _operatorsOf(seats));
    }

    function _draw(uint64 leaseId, uint32 stretch, Panel storage p) private view returns (uint64[] memory) {
        IComputeMarket.Lease memory l = market.lease(leaseId);
        uint256 seed = uint256(keccak256(abi.encode("lease probers", randomness.valueOf(_seedTime(p)), leaseId, stretch)));
        return _drawSeats(seed, p.askedAt, _partiesOf(l.operatorId, l.renter, l.agent));
    }

    /// The first multiple of the quantum after the asking.
    function _seedTime(Panel storage p) private view returns (uint64) {
        uint64 quantum = _config.seedQuantum;
        return (p.askedAt / quantum + 1) * quantum;
    }

    /// Intervals of the stretch, within the lease, that begin when the panel can be known.
    function _coveredOf(uint64 leaseId, uint32 stretch, Panel storage p) private view returns (uint128) {
        IComputeMarket.Lease memory l = market.lease(leaseId);
        uint256 length = market.meterSeconds();
        uint256 seedTime = _seedTime(p);
        uint256 first = seedTime > l.from ? Math.ceilDiv(seedTime - l.from, length) : 0;
        return uint128(uint256(stretch / 2).range(first, Math.ceilDiv(l.until - l.from, length)) >> _shiftOf(stretch));
    }

    /// When a stretch begins and ends; a lease may end in it, or before it.
    function _timeOf(IComputeMarket.Lease memory l, uint32 stretch) private view returns (uint256 start, uint256 stop) {
        uint256 time = STRETCH * market.meterSeconds();
        start = l.from + stretch * time;
        stop = Math.min(l.until, start + time);
    }

    function _shiftOf(uint32 stretch) private pure returns (uint256) {
        return stretch % 2 * STRETCH;
    }

    function _asked(uint64 leaseId, uint32 stretch) private view returns (Panel storage p) {
        p = _panels[leaseId][stretch];
        if (p.payer == address(0)) revert NotAsked(leaseId, stretch);
    }
}
