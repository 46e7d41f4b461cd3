// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IComputeHealth} from "./IComputeHealth.sol";
import {IComputeMarket} from "./IComputeMarket.sol";

/// @title HealthSeats: which device is on which seat in which hour. Part of ComputeHealth.
/// @notice Seats are drawn from, so a seat costs locked stake for as long as it is held, and a seat that was given up is the next one to be
/// taken: there are never more seats than devices that held stake at one time.
/// @dev All that ever sat on a seat stays known, since figures of hours that are past may be disputed and claimed.
abstract contract HealthSeats is IComputeHealth {
    using Checkpoints for Checkpoints.Trace208;

    /// @notice Most seats: the figures of all of them fit one transaction.
    uint256 public constant SEATS_MAX = 32_768;

    IComputeMarket public immutable market;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    /// @notice Hour 1 begins here.
    uint64 public immutable startTime;
    uint32 public immutable hourSeconds;
    uint96 public immutable deviceStake;

    mapping(uint32 seat => Occupant[]) private _occupants;
    /// Class of the device as it was seated, and its seat plus one.
    mapping(uint64 deviceId => bytes32) private _classes;
    mapping(uint64 deviceId => uint256) private _seats;
    uint32[] private _free;
    /// Number of seats from an hour on.
    Checkpoints.Trace208 private _counts;

    constructor(
        IComputeMarket market_,
        IOperators operators_,
        IStakeVault stakeVault_,
        uint64 startTime_,
        uint32 hourSeconds_,
        uint96 deviceStake_
    ) {
        (market, operators, stakeVault) = (market_, operators_, stakeVault_);
        (startTime, hourSeconds, deviceStake) = (startTime_, hourSeconds_, deviceStake_);
    }

    /// @inheritdoc IComputeHealth
    function enrol(uint64 deviceId, uint32 rate, uint32 memoryMbs) external returns (uint32 seat) {
        IComputeMarket.Offer memory offer = market.offerOf(deviceId);
        _requireOperator(offer.operatorId);
        if (!_isOnOffer(offer)) revert NotOnOffer(deviceId, offer.deviceClass);
        if (rate == 0 || memoryMbs == 0) revert NothingDeclared(rate, memoryMbs);
        if (_seats[deviceId] != 0) revert AlreadySeated(deviceId, uint32(_seats[deviceId] - 1));
        uint32 from = hourAt(block.timestamp) + 1;
        seat = _takeSeat(from);
        _seats[deviceId] = uint256(seat) + 1;
        _classes[deviceId] = offer.deviceClass;
        _occupants[seat].push(Occupant(deviceId, offer.operatorId, from, 0, rate, memoryMbs));
        emit SeatTaken(seat, deviceId, offer.operatorId, from, rate, memoryMbs, offer.deviceClass);
        if (deviceStake != 0) stakeVault.lock(offer.operatorId, deviceStake);
    }

    /// @inheritdoc IComputeHealth
    function leave(uint64 deviceId) external {
        Occupant storage occupant = _occupantOf(deviceId);
        _requireOperator(occupant.operatorId);
        _freeSeat(deviceId, occupant, Reason.Left);
    }

    /// @inheritdoc IComputeHealth
    function expel(uint64 deviceId) external {
        Occupant storage occupant = _occupantOf(deviceId);
        IComputeMarket.Offer memory offer = market.offerOf(deviceId);
        bool isGone = !_isOnOffer(offer);
        if (!isGone && offer.deviceClass == _classes[deviceId]) revert StillOnOffer(deviceId);
        _freeSeat(deviceId, occupant, isGone ? Reason.NotOnOffer : Reason.ClassChanged);
    }

    /// @inheritdoc IComputeHealth
    function occupantAt(uint32 seat, uint32 hour) public view returns (Occupant memory) {
        Occupant[] storage all = _occupants[seat];
        for (uint256 i = all.length; i > 0; --i) {
            Occupant memory o = all[i - 1];
            if (o.from <= hour) {
                if (o.until == 0 || hour < o.until) return o;
                break;
            }
        }
        return Occupant(0, 0, 0, 0, 0, 0);
    }

    /// @inheritdoc IComputeHealth
    function seatOf(uint64 deviceId) external view returns (bool seated, uint32 seat) {
        uint256 held = _seats[deviceId];
        return held == 0 ? (false, 0) : (true, uint32(held - 1));
    }

    /// @inheritdoc IComputeHealth
    function seatsAt(uint32 hour) public view returns (uint32) {
        return uint32(_counts.upperLookupRecent(hour));
    }

    /// @inheritdoc IComputeHealth
    function hourAt(uint256 timestamp) public view returns (uint32) {
        return uint32((timestamp - startTime) / hourSeconds + 1);
    }

    /// @inheritdoc IComputeHealth
    function startOf(uint32 hour) public view returns (uint64) {
        return startTime + (uint64(hour) - 1) * hourSeconds;
    }

    function _requireOperator(uint64 operatorId) internal view {
        if (msg.sender != operators.ownerOf(operatorId) && msg.sender != operators.nodeKeyOf(operatorId)) {
            revert NotOperator(operatorId, msg.sender);
        }
    }

    function _isOnOffer(IComputeMarket.Offer memory offer) private view returns (bool) {
        return offer.operatorId != 0 && offer.from <= block.timestamp && block.timestamp < offer.until;
    }

    function _takeSeat(uint32 from) private returns (uint32 seat) {
        uint256 free = _free.length;
        if (free != 0) {
            seat = _free[free - 1];
            _free.pop();
            return seat;
        }
        seat = uint32(_counts.latest());
        if (seat == SEATS_MAX) revert TooManySeats(SEATS_MAX);
        _counts.push(from, seat + 1);
    }

    /// With the hour that runs. Who leaves before its first hour leaves no trace, so a seat's history grows by one an hour at most.
    function _freeSeat(uint64 deviceId, Occupant storage occupant, Reason reason) private {
        uint32 seat = uint32(_seats[deviceId] - 1);
        uint32 until = hourAt(block.timestamp) + 1;
        uint64 operatorId = occupant.operatorId;
        if (occupant.from == until) _occupants[seat].pop();
        else occupant.until = until;
        delete _seats[deviceId];
        _free.push(seat);
        emit SeatLeft(seat, deviceId, operatorId, until, reason);
        if (deviceStake != 0) stakeVault.unlock(operatorId, deviceStake);
    }

    function _occupantOf(uint64 deviceId) private view returns (Occupant storage) {
        uint256 held = _seats[deviceId];
        if (held == 0) revert NotSeated(deviceId);
        Occupant[] storage all = _occupants[uint32(held - 1)];
        return all[all.length - 1];
    }
}
