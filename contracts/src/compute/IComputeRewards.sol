// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IIncomeSource} from "../token/IBackerIncome.sol";
import {IComputeHealth} from "./IComputeHealth.sol";

/// @title Something of which fees were burnt, or wait in the auction to be.
interface IFeeSource {
    /// @notice The fees that one piece of work paid, once no more are taken of it; `operatorId` 0 before that. What it gives never changes afterwards.
    function feesOf(uint64 id) external view returns (uint64 operatorId, uint256 stableFees, uint256 nativeFees);
}

/// @title ComputeRewards: shares out the compute network's emission by measured performance, within the fees that were burnt (decision 0034).
/// @notice Each final hour of ComputeHealth shares out that time's part of the emission: a device gets performance / total of it, times its
/// stability, which grows with final hours in a row. That is what its operator is entitled to. What it is granted is never more than a share,
/// below one, of the fees burnt on what it supplied: who rents from itself gets back less than it paid (decision 0012's rule). Fees in
/// the native token are burnt as they are; fees in the stable token count for what was burnt for them in the auction, in the order in which
/// they are counted here. A grant vests over `vestSeconds`, at least the dispute window, and is paid through BackerIncome to the operator and
/// its backers.
/// @notice Every division rounds down. For all that is ever minted to this contract: paid + owed + not granted = received; what no demand has
/// earned stays here, and nobody can take it.
interface IComputeRewards is IIncomeSource {
    struct Config {
        uint16 shareBps; // of burnt fees; at most 9,000
        uint16 baseBps; // stability of a device's first final hour
        uint32 streakHours; // final hours in a row after which it is the whole
        uint32 vestSeconds; // at least the dispute window
    }

    /// @notice A figure to be claimed.
    struct Claim {
        uint32 hour;
        uint32 seat;
        IComputeHealth.Opening opening;
    }

    /// @notice Of an operator, native base units.
    struct Account {
        uint128 entitled; // by performance, ever
        uint128 granted; // of it, within the fees, ever
        uint128 released; // of it, vested and paid to BackerIncome, ever
        uint128 burntFees; // that count, ever
    }

    /// @notice Of a device.
    struct Record {
        uint64 ordinal; // of its last claimed hour among final hours
        uint32 streak; // claimed in a row
    }

    event HourClaimed(
        uint64 indexed operatorId, uint64 indexed deviceId, uint32 indexed hour, uint64 performance, uint16 stabilityBps, uint256 amount
    );
    event FeesCounted(uint64 indexed operatorId, address indexed source, uint64 id, uint256 stableFees, uint256 nativeFees);
    event StableFeesBurnt(uint64 indexed operatorId, uint256 stableFees, uint256 burnt);
    event Granted(uint64 indexed operatorId, uint256 amount, uint256 entitled, uint256 allowed);
    event Released(uint64 indexed operatorId, uint256 amount);

    error BadConfig(bytes32 field, uint256 got, uint256 limit);
    error UnknownSource(uint256 index, uint256 count);
    error NothingToCount(uint256 source, uint64 id);
    error AlreadyCounted(uint256 source, uint64 id);
    error NoPerformance(uint32 hour, uint32 seat, IComputeHealth.Reason reason);
    error ClaimedBefore(uint64 deviceId, uint32 hour, uint64 ordinal, uint64 claimedOrdinal);
    error EmissionNotDue(uint32 hour, uint64 emissionHour, uint64 hoursPassed);

    /// @notice Anybody: claims final figures for their operators, each device's in the order of hours; one left out ends its streak.
    function claim(Claim[] calldata claims) external returns (uint256 amount);
    /// @notice Anybody: counts the fees of works of one source, once each.
    function countFees(uint256 source, uint64[] calldata ids) external;
    /// @notice Anybody: counts what the auction burnt for an operator's stable fees, and grants what entitlement and fees allow.
    function grant(uint64 operatorId) external returns (uint256 amount);

    /// @notice What an hour has to share out: its part of the emission's hour, native base units.
    function emissionOf(uint32 hour) external view returns (uint256);
    function accountOf(uint64 operatorId) external view returns (Account memory);
    function recordOf(uint64 deviceId) external view returns (Record memory);
    /// @notice Stability of a device with so many final hours in a row.
    function stabilityBps(uint256 streak) external view returns (uint16);
    /// @notice Of what is granted, vested and not yet paid on.
    function releasable(uint64 operatorId) external view returns (uint256);
    /// @notice An operator's stable fees that wait for the auction: those in the queue, and those that are counted after them.
    function waitingFees(uint64 operatorId) external view returns (uint256 queued, uint256 unqueued);
    /// @notice Granted and not paid on, of all operators. Never more than the contract holds.
    function obligations() external view returns (uint256);
    function sources() external view returns (IFeeSource[] memory);
    function config() external view returns (Config memory);
}
