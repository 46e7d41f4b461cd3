// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title ComputeHealth: what each device did in each hour, measured by others, proposed under a bond, computed again on chain in a dispute
/// (decision 0034).
/// @notice A device that is on offer in the market takes a seat, with the rate and the memory bandwidth that its operator declares, and stake
/// locked behind it. For each hour common randomness pairs every seat with `rounds` others (HealthDraw). The operator of each partner states
/// what it measured: heartbeats answered, latency, bandwidth of the pair, and whether the device passed the hour's hardware challenge, whose
/// work is sized by what was declared. Nobody's word about itself raises its figure. After the hour each operator brings its statements, one
/// signed report for each page of 64 seats that it has a seat on; the chain logs them and keeps their hash, so nothing can be withheld.
/// @notice Anyone with stake proposes the figures of an hour: eight bytes a seat, of which the contract itself makes the Merkle root and the
/// total. Within the window anybody may bring the statements about one seat; the contract computes that figure again (HealthFigures), and
/// where it differs the bond is slashed, the proposal is gone and the next may come. An hour that nobody proposes is passed over.
/// @dev Hours count from 1, have `hourSeconds`, and begin with the emission. A figure is `performance:u48 reason:u16`, big-endian. A chunk is 64 figures (the last
/// one may be shorter); `leaf_i = keccak256(0x00 ‖ chunk_i)`, `node = keccak256(0x01 ‖ left ‖ right)`, padded with zero words to a power of two.
/// A report is entries in the order of seats: `seat % 64: u8`, then for each round a statement of 15 bytes `verdict:u8 upBps:u16
/// latencyUs:u32 bandwidthKbs:u32 receiptTag:u16 doneBps:u16` about the partner of that round; zero where there is none. `upBps` is the
/// part of heartbeats that were answered times `doneBps`, the part of its work that was done in time; `receiptTag` is read by nodes alone.
interface IComputeHealth {
    struct Config {
        uint32 hourSeconds; // divides 3,600
        uint32 reportSeconds; // after the hour's end, in which reports are taken
        uint32 proposeSeconds; // after that, and after a proposal fell, until the hour may be passed over
        uint32 windowSeconds; // in which a proposal may be disputed
        uint8 rounds; // partners of each seat, at most 15
        uint8 statementsMin; // without so many a device has no figure
        uint16 rateWeight; // performance of each million multiplications a second
        uint16 memoryWeight; // performance of each megabyte a second
        uint32 bandwidthRef; // kilobytes a second, from which on more counts no more
        uint32 latencyRef; // microseconds, below which less counts no more
        uint32 slotSeconds; // the challenge is at the beginning of one of the hour's slots, known when its randomness is
        uint32 deadlineMs; // for its answer
        uint16 rateFillBps; // share of the deadline that the multiplications fill at the declared rate
        uint16 memoryFillBps; // and the memory's part; both together over half
        uint96 bond; // stake locked by a proposer
        uint96 deviceStake; // stake locked behind each seat
    }

    /// @notice Who has a seat in the hours [from, until); `until` 0: to this day.
    struct Occupant {
        uint64 deviceId;
        uint64 operatorId;
        uint32 from;
        uint32 until;
        uint32 rate; // millions of multiply-adds in the prime field a second
        uint32 memoryMbs; // megabytes a second
    }

    struct Proposal {
        bytes32 root; // 0: none
        uint64 operatorId;
        uint64 finalFrom;
        uint64 total; // of all seats' performance
    }

    struct FinalHour {
        bytes32 root; // 0: passed over, or not final
        uint64 total;
        uint64 ordinal; // counts final hours from 1
    }

    /// @notice An operator's statements about the partners of its seats on one page. Without a signature only the operator itself may bring it.
    struct Report {
        uint64 operatorId;
        uint32 hour;
        uint32 page; // seats [64 page, 64 page + 64)
        bytes data;
        bytes signature; // of its node key, over `reportDigest`
    }

    /// @notice Where a figure stands in its hour.
    struct Opening {
        bytes chunk;
        bytes32[] proof;
    }

    /// @notice What a partner says of a device. Codes are final: they stand in reports.
    enum Verdict {
        None, // nothing was measured
        Unreachable, // no heartbeat was answered
        Missed, // no answer to the challenge in time
        Wrong, // a wrong answer
        Passed
    }

    /// @notice Why a device has no performance in an hour, or lost its seat. Codes are final: they stand in figures.
    enum Reason {
        None,
        TooFewStatements,
        Unreachable,
        ChallengeMissed,
        ChallengeWrong,
        NoBandwidth,
        NotOnOffer,
        ClassChanged,
        Left,
        Vacant
    }

    event SeatTaken(
        uint32 indexed seat,
        uint64 indexed deviceId,
        uint64 indexed operatorId,
        uint32 fromHour,
        uint32 rate,
        uint32 memoryMbs,
        bytes32 deviceClass
    );
    event SeatLeft(uint32 indexed seat, uint64 indexed deviceId, uint64 indexed operatorId, uint32 untilHour, Reason reason);
    event Reported(uint64 indexed operatorId, uint32 indexed hour, uint32 indexed page, bytes data);
    event FiguresProposed(uint32 indexed hour, uint64 indexed operatorId, bytes32 root, uint64 total, uint64 finalFrom, bytes figures);
    event FiguresRefuted(
        uint32 indexed hour, uint32 indexed seat, uint64 indexed operatorId, address by, uint64 proposed, uint64 computed, uint256 reward
    );
    event HourFinal(uint32 indexed hour, bytes32 root, uint64 total, uint64 ordinal);
    event HourPassedOver(uint32 indexed hour);

    error BadConfig(bytes32 field, uint256 got, uint256 limit);
    error NotOperator(uint64 operatorId, address caller);
    error NotOnOffer(uint64 deviceId, bytes32 deviceClass);
    error StillOnOffer(uint64 deviceId);
    error AlreadySeated(uint64 deviceId, uint32 seat);
    error NotSeated(uint64 deviceId);
    error NothingDeclared(uint32 rate, uint32 memoryMbs);
    error TooManySeats(uint256 limit);
    error NotInReportTime(uint32 hour, uint64 from, uint64 until, uint256 timestamp);
    error BadReport(uint256 length, uint256 entryBytes, uint256 entriesMax);
    error AlreadyReported(uint64 operatorId, uint32 hour, uint32 page);
    error BadSignature(address expectedSigner);
    error ReportsStillOpen(uint32 hour, uint64 until, uint256 timestamp);
    error HourOutOfReach(uint32 hour, uint32 next, uint32 last);
    error AlreadyProposed(uint32 hour, bytes32 root);
    error NotProposed(uint32 hour);
    error WrongLength(uint256 got, uint256 expected);
    error WindowOver(uint32 hour, uint64 finalFrom);
    error WindowOpen(uint32 hour, uint64 finalFrom, uint256 timestamp);
    error NotNextHour(uint32 hour, uint32 next);
    error NotPassable(uint32 hour, uint64 passableFrom, uint256 timestamp);
    error WrongOpening(uint32 hour, uint32 seat, bytes32 root);
    error WrongPage(uint64 operatorId, uint32 page, bytes32 got, bytes32 expected);
    error WrongPageCount(uint256 got, uint256 expected);
    error FigureIsRight(uint32 hour, uint32 seat, uint64 figure);

    /// @notice The operator: takes a seat from the next hour on for a device that it has on offer, and locks the stake behind it.
    function enrol(uint64 deviceId, uint32 rate, uint32 memoryMbs) external returns (uint32 seat);
    /// @notice The operator: gives the seat up with the hour that runs.
    function leave(uint64 deviceId) external;
    /// @notice Anybody: takes the seat of a device that is no longer on offer as it was when it was seated.
    function expel(uint64 deviceId) external;
    /// @notice Anybody: brings reports of an hour that is over. One that is there already is passed over.
    /// @return taken how many were new
    function report(Report[] calldata reports) external returns (uint256 taken);
    /// @notice An operator proposes the figures of all seats of an hour, and locks the bond.
    function propose(uint32 hour, uint64 operatorId, bytes calldata figures) external;
    /// @notice Anybody: shows that a proposed figure is not what the statements give.
    /// @param pages the reports that say something of the seat, as `pagesOf` lists them
    function dispute(uint32 hour, uint32 seat, Opening calldata opening, bytes[] calldata pages) external;
    /// @notice Anybody: makes hours final, or passes them over, in their order; at most `hoursMax`.
    /// @return hours_ how many
    function advance(uint256 hoursMax) external returns (uint256 hours_);

    /// @notice Computes a figure from the reports that `pagesOf` lists. Reverts where a page is not the reported one.
    function compute(uint32 hour, uint32 seat, bytes[] calldata pages) external view returns (uint64 figure);
    /// @notice The reports from which a seat's figure comes: its own operator's first, then those of its partners, in order; each operator's word
    /// counts once. Only reports that were brought are listed.
    function pagesOf(uint32 hour, uint32 seat) external view returns (uint64[] memory operatorIds, uint32[] memory pages);
    /// @notice A seat's partners in an hour; `type(uint32).max` where a round gives none. A seat that is vacant, or of the same operator, does not count.
    function partnersOf(uint32 hour, uint32 seat) external view returns (uint32[] memory partners);
    /// @notice A figure that stands in a final hour. Reverts with WrongOpening otherwise.
    function figureOf(uint32 hour, uint32 seat, Opening calldata opening) external view returns (uint64 performance, Reason reason);
    function occupantAt(uint32 seat, uint32 hour) external view returns (Occupant memory);
    /// @return seated whether it has one
    /// @return seat meaningful only then
    function seatOf(uint64 deviceId) external view returns (bool seated, uint32 seat);
    /// @notice How many seats an hour's draw is over.
    function seatsAt(uint32 hour) external view returns (uint32);
    function proposalOf(uint32 hour) external view returns (Proposal memory);
    function finalHour(uint32 hour) external view returns (FinalHour memory);
    /// @notice The first hour that is neither final nor passed over.
    function nextHour() external view returns (uint32);
    function hourAt(uint256 timestamp) external view returns (uint32);
    function startOf(uint32 hour) external view returns (uint64);
    /// @notice From when on the next hour may be passed over when it is not proposed.
    function passableFrom(uint32 hour) external view returns (uint64);
    function reportHash(uint64 operatorId, uint32 hour, uint32 page) external view returns (bytes32);
    function reportDigest(uint64 operatorId, uint32 hour, uint32 page, bytes calldata data) external view returns (bytes32);
    function config() external view returns (Config memory);
}
