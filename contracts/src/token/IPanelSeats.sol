// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice Seats from which panels are drawn who say what they saw. A seat is locked stake, so that many seats cost much; nobody is slashed for
/// an opinion. An operator has one seat at most. One that misses too often in a row may be taken away by anybody.
interface IPanelSeats {
    struct Seat {
        uint64 operatorId;
        uint64 enrolledAt;
        uint64 leftAt; // 0: in office
        bool unlocked;
        uint8 missed; // in a row
    }

    event Enrolled(uint64 indexed seatId, uint64 indexed operatorId);
    event Left(uint64 indexed seatId, uint64 indexed operatorId, uint64 unlocksAt);
    event SeatUnlocked(uint64 indexed seatId, uint64 indexed operatorId);

    error BadConfig(string field, uint256 got, uint256 limit);
    error NoOperator(address caller);
    error AlreadyEnrolled(uint64 operatorId, uint64 seatId);
    error NotEnrolled(uint64 operatorId);
    error UnknownSeat(uint64 seatId);
    error StillLocked(uint64 seatId, uint64 unlocksAt, uint256 timestamp);
    error NotMissed(uint64 seatId, uint8 missed, uint8 missesMax);
    error TooFewSeats(uint256 got, uint256 needed);

    /// @notice Node key: takes a seat; locks its stake.
    function enrol(uint64 operatorId) external returns (uint64 seatId);
    /// @notice Node key or owner.
    function leave(uint64 operatorId) external;
    /// @notice Anyone, `leaveSeconds` after the seat was left.
    function unlock(uint64 seatId) external;
    /// @notice Anyone: a seat that missed `missesMax` times in a row has left.
    function removeIdle(uint64 seatId) external;

    function seat(uint64 seatId) external view returns (Seat memory);
    /// @notice Seats ever taken; the last one's number.
    function seatCount() external view returns (uint64);
    /// @return 0: none
    function seatOf(uint64 operatorId) external view returns (uint64);
}
