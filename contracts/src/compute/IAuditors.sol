// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Auditors: operators with seats, of whom jobs draw their auditors and demanded states their committee (decision 0030).
/// @notice A seat locks `seatStake`; an operator may hold more of them, and is met in a draw as often as it has seats, so dividing stake among
/// names gains nothing. No operator is drawn twice for one job. Not drawn: the job's operator, whoever shares one of its keys or is the
/// renter, and who backs it. A draw sees the seats of an earlier second, and its seed is of a later one.
/// A duty is an audit that is not settled; each is backed by `liePenalty` of locked stake, and that stays locked until it is settled.
/// Committees have no duties: nobody is slashed for not having seen a delivery.
interface IAuditors {
    struct Config {
        uint128 seatStake;
        uint128 liePenalty; // at most a seat's stake
        uint128 silencePenalty; // at most liePenalty
        uint32 leaveSeconds; // from leaving a seat to its unlock; longer than from any commitment to its draw
    }

    struct Auditor {
        uint32 seats; // in office
        uint32 duties;
        uint48 since; // first of the present seats
        uint48 unlocksAt;
    }

    event SeatsTaken(uint64 indexed operatorId, uint32 count, uint32 seats);
    event SeatsLeft(uint64 indexed operatorId, uint32 count, uint32 seats, uint48 unlocksAt);
    event SeatsUnlocked(uint64 indexed operatorId, uint256 amount);
    event DutyPenalised(uint64 indexed operatorId, uint256 amount);

    error BadConfig(string field, uint256 got, uint256 limit);
    error NoOperator(address caller);
    error BadSeatCount(uint256 got, uint256 max);
    error StillLocked(uint64 operatorId, uint64 unlocksAt, uint256 timestamp);
    error NothingToUnlock(uint64 operatorId);
    error NotComputeJobs(address caller);
    error NoDuty(uint64 operatorId, address module);

    /// @notice Node key: takes seats; locks what they cost beyond what is still locked here.
    function enrol(uint64 operatorId, uint32 count) external;
    /// @notice Node key or owner.
    function leave(uint64 operatorId, uint32 count) external;
    /// @notice Anyone, `leaveSeconds` after the last seat was left or lost: all that backs neither a seat nor a duty.
    function unlock(uint64 operatorId) external;

    /// @notice The module `computeJobs` of the registry: draws up to `count` operators whose stake backs one more duty; nobody has a duty by it.
    /// @param seenAt seats are those of the second before
    function draw(bytes32 seed, uint48 seenAt, uint256 count, uint64 provider, address renter) external view returns (uint64[] memory);
    /// @notice As `draw`, without asking what stake is free.
    function drawCommittee(bytes32 seed, uint48 seenAt, uint256 count, uint64 provider, address renter)
        external
        view
        returns (uint64[] memory);
    /// @notice The module `computeJobs`: a duty more for each.
    function assign(uint64[] calldata operatorIds) external;
    /// @notice Who assigned it: the duty is done.
    function release(uint64 operatorId) external;
    /// @notice Who assigned it: the duty is over, and costs a penalty.
    /// @return amount what was slashed
    function penalise(uint64 operatorId, bool lied, address compensated, uint256 compensationBps) external returns (uint256 amount);

    function auditor(uint64 operatorId) external view returns (Auditor memory);
    /// @notice Operators with a seat.
    function auditorCount() external view returns (uint256);
    function config() external view returns (Config memory);
}
