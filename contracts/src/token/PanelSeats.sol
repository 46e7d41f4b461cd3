// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IPanelSeats} from "./IPanelSeats.sol";
import {IStakeVault} from "./IStakeVault.sol";

/// @title PanelSeats: see IPanelSeats. Part of the contracts that draw panels.
abstract contract PanelSeats is IPanelSeats, IModule {
    using Checkpoints for Checkpoints.Trace208;

    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    uint256 private immutable _stake; // of each seat
    uint64 private immutable _leaveSeconds; // from leaving to the unlock of the stake
    uint8 private immutable _missesMax;

    /// @inheritdoc IPanelSeats
    uint64 public seatCount;
    mapping(uint64 seatId => Seat) internal _seats;
    /// @inheritdoc IPanelSeats
    mapping(uint64 operatorId => uint64) public seatOf;
    Checkpoints.Trace208 private _counts; // seats ever taken, by time

    constructor(uint256 seatStake, uint64 leaveSeconds, uint8 missesMax, IOperators operators_, IStakeVault stakeVault_) {
        if (seatStake == 0) revert BadConfig("seatStake", 0, 1);
        if (leaveSeconds == 0) revert BadConfig("leaveSeconds", 0, 1);
        if (missesMax == 0) revert BadConfig("missesMax", 0, 1);
        (_stake, _leaveSeconds, _missesMax) = (seatStake, leaveSeconds, missesMax);
        (operators, stakeVault) = (operators_, stakeVault_);
    }

    /// @inheritdoc IPanelSeats
    function enrol(uint64 operatorId) external returns (uint64 seatId) {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        if (seatOf[operatorId] != 0) revert AlreadyEnrolled(operatorId, seatOf[operatorId]);
        seatId = ++seatCount;
        seatOf[operatorId] = seatId;
        (_seats[seatId].operatorId, _seats[seatId].enrolledAt) = (operatorId, uint64(block.timestamp));
        _counts.push(uint48(block.timestamp), seatId);
        emit Enrolled(seatId, operatorId);
        stakeVault.lock(operatorId, _stake);
    }

    /// @inheritdoc IPanelSeats
    function leave(uint64 operatorId) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender && operators.ownerOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        uint64 seatId = seatOf[operatorId];
        if (seatId == 0) revert NotEnrolled(operatorId);
        _vacate(seatId, _seats[seatId]);
    }

    /// @inheritdoc IPanelSeats
    function removeIdle(uint64 seatId) external {
        Seat storage s = _knownSeat(seatId);
        if (s.leftAt != 0) revert NotEnrolled(s.operatorId);
        if (s.missed < _missesMax) revert NotMissed(seatId, s.missed, _missesMax);
        _vacate(seatId, s);
    }

    /// @inheritdoc IPanelSeats
    function unlock(uint64 seatId) external {
        Seat storage s = _knownSeat(seatId);
        if (s.leftAt == 0 || s.unlocked) revert NotEnrolled(s.operatorId);
        uint64 unlocksAt = s.leftAt + _leaveSeconds;
        if (block.timestamp < unlocksAt) revert StillLocked(seatId, unlocksAt, block.timestamp);
        s.unlocked = true;
        emit SeatUnlocked(seatId, s.operatorId);
        stakeVault.unlock(s.operatorId, _stake);
    }

    /// @inheritdoc IModule
    /// @dev Nothing is ever slashed; the stake of a seat is locked until `leaveSeconds` after it was left.
    function exposureSeconds() external view returns (uint64) {
        return _leaveSeconds;
    }

    /// @inheritdoc IPanelSeats
    function seat(uint64 seatId) external view returns (Seat memory) {
        return _knownSeat(seatId);
    }

    function _seatsBefore(uint48 time) internal view returns (uint256) {
        return _counts.upperLookup(time - 1);
    }

    function _operatorsOf(uint64[] memory seats) internal view returns (uint64[] memory operatorIds) {
        operatorIds = new uint64[](seats.length);
        for (uint256 i; i < seats.length; ++i) {
            operatorIds[i] = _seats[seats[i]].operatorId;
        }
    }

    /// @dev More than half of those drawn decide, and never more can be drawn than the caller's records hold.
    function _checkPanel(uint8 drawn, uint8 threshold, uint256 drawnMax) internal pure {
        if (drawn == 0 || drawn > drawnMax) revert BadConfig("drawn", drawn, drawnMax);
        if (threshold > drawn || 2 * uint256(threshold) <= drawn) revert BadConfig("threshold", threshold, drawn);
    }

    function _vacate(uint64 seatId, Seat storage s) private {
        s.leftAt = uint64(block.timestamp);
        delete seatOf[s.operatorId];
        emit Left(seatId, s.operatorId, s.leftAt + _leaveSeconds);
    }

    function _knownSeat(uint64 seatId) private view returns (Seat storage s) {
        s = _seats[seatId];
        if (s.operatorId == 0) revert UnknownSeat(seatId);
    }
}
