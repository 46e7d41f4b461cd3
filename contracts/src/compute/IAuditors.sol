// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "./IComputeJobs.sol";

/// @title Auditors: operators with seats, of whom jobs draw their auditors and demanded states their committee (decision 0030).
/// @notice A seat locks `seatStake`; an operator may hold more of them, and is met in a draw as often as it has seats, so dividing stake among
/// names gains nothing. Its seats say which engines an operator has, and a job draws from those alone that have the job's, so nobody is ever
/// silent because it cannot replay. No operator is drawn twice for one job. Not drawn: the job's operator, whoever shares one of its keys or is
/// the renter, and who backs it. A draw sees the seats of an earlier second, and its seed is of a later one.
/// A duty is an audit that is not settled; each is backed by `liePenalty` of locked stake, and that stays locked until it is settled.
/// Committees have no duties: nobody is slashed for not having seen a delivery.
/// An auditor hides its finding behind a seal that is bound to chain, contract, module, job and auditor, so a copied seal opens nothing, and
/// shows it when nobody can seal any more. Modules (`jobs`: the ComputeJobs that drew the auditors) keep the time and pay; penalties are here.
interface IAuditors {
    enum Finding {
        None, // drawn, or sealed
        Right, // all its segments; of segment 0 also that leaf 0 is the first state, of the last one also the output's digest
        Wrong, // segment `segment` does not end in the state that was committed to
        Withheld // the state in which segment `segment` starts was not handed out
    }

    /// @notice An auditor's duty, one word.
    struct Audit {
        uint64 operatorId;
        bytes18 seal; // the first 144 bits of `sealOf`
        Finding finding;
        uint32 segment; // of Wrong and Withheld
        uint8 marks; // bits: 1 demanded a state; 2 lost a case; 4 missed a canary; 8 saw it; 16 the job's work was demanded
    }

    /// @notice One auditor's finding, as it is revealed. `stateHash`: for Wrong what the auditor has at the segment's end, else 0.
    struct Reveal {
        bytes32 jobId;
        uint8 index; // place among the job's auditors
        Finding finding;
        uint32 segment;
        bytes32 stateHash;
        bytes32 salt;
    }

    /// @notice Who is drawn.
    struct Wanted {
        IComputeJobs.Engine engine; // that all must have; None: any
        uint256 count;
        uint48 seenAt; // seats are those of the second before
        uint64 provider;
        address renter; // or whoever else has a part in it
    }

    /// @notice By what the segments of a job's auditors are drawn.
    struct Sampling {
        bytes32 value; // of the job's randomness
        uint32 segments;
        uint32 samples;
    }

    /// @notice How a job has ended, as far as its auditors are concerned.
    struct Ending {
        uint256 count; // auditors
        bool isProven; // accusations need no proof any more: the operator is guilty, it was a canary, or a court did not rule
        uint32 wrongSegment; // who drew it and found it Right lied; type(uint32).max: none is known
        address renter;
        uint256 makerBps; // of the penalty of a lie, to the renter
    }

    struct Share {
        uint64 auditor;
        bool isPaid;
        bool sawCanary;
        bool foundRight;
    }

    struct Config {
        uint128 seatStake;
        uint128 liePenalty; // at most a seat's stake
        uint128 silencePenalty; // at most liePenalty
        uint32 leaveSeconds; // from leaving a seat to its unlock; longer than from any commitment to its draw
    }

    struct Auditor {
        uint32 seats; // in office
        uint32 duties;
        uint48 unlocksAt;
        uint8 engines; // of all its seats, or of the last ones: bit n stands for engine n
    }

    event SeatsTaken(uint64 indexed operatorId, uint32 count, uint32 seats, uint8 engines);
    event EnginesChanged(uint64 indexed operatorId, uint8 engines);
    event SeatsLeft(uint64 indexed operatorId, uint32 count, uint32 seats, uint48 unlocksAt);
    event SeatsUnlocked(uint64 indexed operatorId, uint256 amount);
    event AuditSealed(bytes32 indexed jobId, uint64 indexed auditor, uint8 index, bytes18 seal);
    event AuditRevealed(bytes32 indexed jobId, uint64 indexed auditor, Finding finding, uint32 segment, bytes32 stateHash);
    event AuditorPunished(bytes32 indexed jobId, uint64 indexed auditor, bool lied, uint256 amount);

    error BadConfig(string field, uint256 got, uint256 limit);
    error NoOperator(address caller);
    error BadSeatCount(uint256 got, uint256 max);
    error BadEngines(uint8 got, uint8 all);
    error NoSeats(uint64 operatorId);
    error OtherEngines(uint64 operatorId, uint8 got, uint8 held);
    error StillLocked(uint64 operatorId, uint64 unlocksAt, uint256 timestamp);
    error NothingToUnlock(uint64 operatorId);
    error NotComputeJobs(address caller);
    error LengthMismatch(uint256 got, uint256 expected);
    error NotAuditor(bytes32 jobId, uint8 index, address caller);
    error AlreadySealed(bytes32 jobId, uint64 auditor);
    error WrongOpening(bytes32 jobId, uint64 auditor);
    error Full(bytes32 jobId, uint64 auditor, uint32 duties);

    /// @notice Node key: takes seats; locks what they cost beyond what is still locked here.
    /// @param engines that it has: bit n stands for engine n; the same as those of the seats that it holds
    function enrol(uint64 operatorId, uint32 count, uint8 engines) external;
    /// @notice Node key: from now on all its seats are those of an operator with these engines; audits that are drawn stay its duty.
    function changeEngines(uint64 operatorId, uint8 engines) external;
    /// @notice Node key or owner.
    function leave(uint64 operatorId, uint32 count) external;
    /// @notice Anyone, `leaveSeconds` after the last seat was left or lost: all that backs neither a seat nor a duty.
    function unlock(uint64 operatorId) external;

    /// @notice Draws up to `count` operators that have the engine and whose stake backs a duty, whether or not it backs others already: what was
    /// drawn before changes nothing. Nobody has a duty by it.
    /// @dev Shuffle.begin(uint256(seed), places ever taken by then, 256), each place's holder of then, in this order.
    function draw(bytes32 seed, Wanted calldata wanted) external view returns (uint64[] memory);
    /// @notice As `draw`, without asking for stake.
    function drawCommittee(bytes32 seed, Wanted calldata wanted) external view returns (uint64[] memory);

    // ------------------------------------------------------------------------------------------------------------------ audits

    /// @notice Node key of the auditor at `indexes[i]` of `jobIds[i]`.
    function sealAudits(IComputeJobs jobs, bytes32[] calldata jobIds, uint8[] calldata indexes, bytes18[] calldata seals) external;
    /// @notice Anybody who knows the openings; those that are revealed already are passed over.
    function revealAudits(IComputeJobs jobs, Reveal[] calldata reveals) external;

    // --------------------------------------------------------------------------------------------------------------- for modules

    /// @notice The module `computeJobs` of the registry: draws by keccak256(abi.encode("auditors", value, jobId)), and where it finds `count`, each
    /// has a duty more. Reverts with Full while the stake of one of them backs no more: nobody is drawn in its place.
    function assign(bytes32 jobId, bytes32 value, Wanted calldata wanted) external returns (uint64[] memory);
    /// @notice The module that assigned them, as for all that follow: the state of leaf `leaf` is a canary's.
    function markCanary(bytes32 jobId, uint256 count, Sampling calldata sampling, uint32 leaf) external;
    /// @param isWork the work is demanded, on behalf of all of them; else a state
    /// @return isTheirs it is the node key of one of them that has not found Right; of a state, and its first demand
    function markDemand(bytes32 jobId, uint256 count, address from, bool isWork) external returns (bool isTheirs);
    /// @notice It has lost a case: it has paid with its bond.
    function markLoss(bytes32 jobId, uint256 count, address accuser) external;
    /// @notice All duties of a job end; who lied, was silent while another spoke, or accused without proof is slashed.
    function settleAudits(bytes32 jobId, Sampling calldata sampling, Ending calldata ending) external returns (Share[] memory);

    // ------------------------------------------------------------------------------------------------------------------- views

    function auditOf(IComputeJobs jobs, bytes32 jobId, uint8 index) external view returns (Audit memory);
    /// @notice Whether it is the node key of one of the job's auditors that found something.
    function isAccuser(IComputeJobs jobs, bytes32 jobId, uint256 count, address who) external view returns (bool);
    /// @notice keccak256(abi.encode(chainid, this, jobs, jobId, auditor, finding, segment, stateHash, salt)), its first 18 bytes.
    function sealOf(IComputeJobs jobs, bytes32 jobId, uint64 auditor_, Finding finding, uint32 segment, bytes32 stateHash, bytes32 salt)
        external
        view
        returns (bytes18);
    /// @notice An auditor's segments: Shuffle.begin(uint256(keccak256(abi.encode("segments", value, jobId, auditor))), segments, samples), each
    /// next; ascending where they are all.
    function segmentsOf(bytes32 jobId, Sampling memory sampling, uint64 auditor_) external pure returns (uint32[] memory);
    function auditor(uint64 operatorId) external view returns (Auditor memory);
    /// @notice Whether an operator has a seat and the engine (None: a seat).
    function replays(uint64 operatorId, IComputeJobs.Engine engine) external view returns (bool);
    /// @notice Operators that have a seat and the engine (None: a seat).
    function auditorCount(IComputeJobs.Engine engine) external view returns (uint256);
    function config() external view returns (Config memory);
}
