// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule} from "../chain/IRegistry.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ILeaseProbers} from "./ILeaseProbers.sol";

/// @title ProberSeats: seats with locked stake, and the draw of a panel from them. Part of LeaseProbers.
/// @notice Seats lock stake and are never slashed.
abstract contract ProberSeats is ILeaseProbers, IModule {
    using Checkpoints for Checkpoints.Trace208;
    using Shuffle for Shuffle.Order;

    /// Seats looked at in one draw: those that have left or may not speak are passed over.
    uint256 private constant STEPS_MAX = 128;
    /// Counts of a panel fit three bits (`_atLeast`).
    uint256 internal constant DRAWN_MAX = 7;

    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;

    Config internal _config; // written once, in the constructor
    /// @inheritdoc ILeaseProbers
    uint64 public seatCount;
    mapping(uint64 seatId => Seat) internal _seats;
    /// @inheritdoc ILeaseProbers
    mapping(uint64 operatorId => uint64) public seatOf;
    Checkpoints.Trace208 private _counts; // seats ever taken, by time

    /// Who may not speak of a lease.
    struct Parties {
        uint64 operatorId; // its supplier
        address[5] keys; // the supplier's, the renter's and its agent's
    }

    constructor(Config memory c, IOperators operators_, IStakeVault stakeVault_) {
        if (c.seatStake == 0) revert BadConfig("seatStake", 0, 1);
        if (c.leaveSeconds == 0) revert BadConfig("leaveSeconds", 0, 1);
        if (c.seedQuantum == 0) revert BadConfig("seedQuantum", 0, 1);
        if (c.drawn == 0 || c.drawn > DRAWN_MAX) revert BadConfig("drawn", c.drawn, DRAWN_MAX);
        if (c.threshold > c.drawn || 2 * uint256(c.threshold) <= c.drawn) revert BadConfig("threshold", c.threshold, c.drawn);
        if (c.missesMax == 0) revert BadConfig("missesMax", 0, 1);
        _config = c;
        (operators, stakeVault) = (operators_, stakeVault_);
    }

    /// @inheritdoc ILeaseProbers
    function enrol(uint64 operatorId) external returns (uint64 seatId) {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        if (seatOf[operatorId] != 0) revert AlreadyEnrolled(operatorId, seatOf[operatorId]);
        seatId = ++seatCount;
        seatOf[operatorId] = seatId;
        (_seats[seatId].operatorId, _seats[seatId].enrolledAt) = (operatorId, uint64(block.timestamp));
        _counts.push(uint48(block.timestamp), seatId);
        emit Enrolled(seatId, operatorId);
        stakeVault.lock(operatorId, _config.seatStake);
    }

    /// @inheritdoc ILeaseProbers
    function leave(uint64 operatorId) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender && operators.ownerOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        uint64 seatId = seatOf[operatorId];
        if (seatId == 0) revert NotEnrolled(operatorId);
        _vacate(seatId, _seats[seatId]);
    }

    /// @inheritdoc ILeaseProbers
    function removeIdle(uint64 seatId) external {
        Seat storage s = _knownSeat(seatId);
        if (s.leftAt != 0) revert NotEnrolled(s.operatorId);
        if (s.missed < _config.missesMax) revert NotMissed(seatId, s.missed, _config.missesMax);
        _vacate(seatId, s);
    }

    /// @inheritdoc ILeaseProbers
    function unlock(uint64 seatId) external {
        Seat storage s = _knownSeat(seatId);
        if (s.leftAt == 0 || s.unlocked) revert NotEnrolled(s.operatorId);
        uint64 unlocksAt = s.leftAt + _config.leaveSeconds;
        if (block.timestamp < unlocksAt) revert StillLocked(seatId, unlocksAt, block.timestamp);
        s.unlocked = true;
        emit SeatUnlocked(seatId, s.operatorId);
        stakeVault.unlock(s.operatorId, _config.seatStake);
    }

    /// @inheritdoc IModule
    /// @dev Nothing is ever slashed; the stake of a seat is locked until `leaveSeconds` after it was left.
    function exposureSeconds() external view returns (uint64) {
        return _config.leaveSeconds;
    }

    /// @inheritdoc ILeaseProbers
    function seat(uint64 seatId) external view returns (Seat memory) {
        return _knownSeat(seatId);
    }

    /// @inheritdoc ILeaseProbers
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @dev The first seats that may speak, of a random order of all that were taken before `askedAt`.
    function _drawSeats(uint256 seed, uint48 askedAt, Parties memory parties) internal view returns (uint64[] memory found) {
        Shuffle.Order memory order = Shuffle.begin(seed, _seatsBefore(askedAt), STEPS_MAX);
        found = new uint64[](_config.drawn);
        uint256 count;
        while (count < found.length && !order.isDone()) {
            uint64 seatId = uint64(order.next() + 1);
            if (_maySpeak(_seats[seatId], askedAt, parties)) found[count++] = seatId;
        }
        assembly ("memory-safe") {
            mstore(found, count)
        }
    }

    function _seatsBefore(uint48 time) internal view returns (uint256) {
        return _counts.upperLookup(time - 1);
    }

    function _partiesOf(uint64 operatorId, address renter, address agent) internal view returns (Parties memory) {
        address[3] memory keys = _keysOf(operatorId);
        return Parties(operatorId, [keys[0], keys[1], keys[2], renter, agent]);
    }

    function _maySpeak(Seat storage s, uint48 askedAt, Parties memory parties) private view returns (bool) {
        uint64 operatorId = s.operatorId;
        if ((s.leftAt != 0 && s.leftAt <= askedAt) || operatorId == parties.operatorId) return false;
        address[3] memory keys = _keysOf(operatorId);
        for (uint256 i; i < 3; ++i) {
            for (uint256 k; k < 5; ++k) {
                if (keys[i] == parties.keys[k]) return false;
            }
            if (stakeVault.sharesOf(parties.operatorId, keys[i]) != 0) return false;
        }
        return true;
    }

    function _keysOf(uint64 operatorId) private view returns (address[3] memory) {
        return [operators.ownerOf(operatorId), operators.nodeKeyOf(operatorId), operators.beneficiaryOf(operatorId)];
    }

    function _vacate(uint64 seatId, Seat storage s) private {
        s.leftAt = uint64(block.timestamp);
        delete seatOf[s.operatorId];
        emit Left(seatId, s.operatorId, s.leftAt + _config.leaveSeconds);
    }

    function _knownSeat(uint64 seatId) private view returns (Seat storage s) {
        s = _seats[seatId];
        if (s.operatorId == 0) revert UnknownSeat(seatId);
    }
}
