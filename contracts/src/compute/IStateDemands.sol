// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "./IComputeJobs.sol";
import {Segments} from "./Segments.sol";

/// @title StateDemands: a state, or the work, that was not handed out is demanded in public; a committee takes delivery (decision 0030).
/// @notice Who needs the state of a leaf demands it with a bond and the committee's fee, in the stake token. An auditor of the job that has
/// opened no case yet pays the fee alone, and so does the renter once: else an operator could live on the bonds of those that it keeps waiting.
/// A committee is drawn from the auditors' seats by randomness later than the demand. The operator hands leaf, proof and state to its members, each of which
/// checks them and signs; the signatures of more than half of the members decide, not the word of who demanded. A state of at most
/// `stateBytesMax` can be delivered on the chain itself, which no committee can deny.
/// Delivered in time: the bond is the operator's, the signers share the fee, the job's window is open for another `challengeSeconds`.
/// Not delivered: the operator is guilty, as soon as the canaries' time is over; bond and fee come back. No committee can be drawn: nobody loses.
/// The work is leaf `type(uint32).max`, its chain hash 0, its state hash the specification's: who signs it has the specification and every file
/// that it names. An auditor of the job demands it, for the fee alone and for all of them: once delivered, all have it from the committee. The
/// members have `auditSeconds` more, since files may be large, and the auditors all their time anew. It fits into no transaction.
/// EIP-712, domain "Millrace State Demands" / "1": `Delivered(uint64 demandId,bytes32 jobId,uint32 leaf,bytes32 chainHash,bytes32 stateHash)`.
interface IStateDemands {
    struct Config {
        uint128 bond;
        uint128 fee; // for each member
        uint8 members; // odd
        uint32 drawDelay;
        uint32 seedQuantum;
        uint32 drawSeconds; // in which the committee must be drawn
        uint32 deliverSeconds; // from the draw
        uint32 stateBytesMax; // of a state that is delivered on the chain
    }

    struct Demand {
        bytes32 jobId;
        address from;
        uint64 operatorId;
        uint32 leaf;
        bool closed;
        uint128 bond;
        uint32 workSeconds; // for auditing, where the work is demanded; 0: a state
        uint128 fee; // of all members
        uint48 openedAt;
        uint48 seedTime;
        uint48 deliverUntil; // 0: the committee is not drawn
        uint64[] members;
    }

    event StateDemanded(
        uint64 indexed demandId, bytes32 indexed jobId, address indexed from, uint64 operatorId, uint32 leaf, uint48 seedTime
    );
    event CommitteeDrawn(uint64 indexed demandId, uint64[] members, uint48 deliverUntil);
    /// @notice `signed`: bit i for member i; 0: delivered on the chain, where the transaction has the state.
    event StateDelivered(uint64 indexed demandId, Segments.Leaf leaf, uint256 signed);
    event DemandEnded(uint64 indexed demandId, bytes32 indexed jobId, IComputeJobs.Verdict verdict);

    error BadConfig(string field, uint256 got, uint256 limit);
    error UnknownLeaf(uint32 leaf, uint32 segments);
    error NotTheirAuditor(bytes32 jobId, address caller);
    error WorkIsDemanded(bytes32 jobId, uint64 demandId);
    error WorkIsTooMuch(uint64 demandId);
    error UnknownDemand(uint64 demandId);
    error DemandClosed(uint64 demandId);
    error AlreadyDrawn(uint64 demandId);
    error NotDrawn(uint64 demandId);
    error TooFewMembers(uint256 got, uint256 needed);
    error DemandTooEarly(uint64 demandId, uint256 from, uint256 timestamp);
    error DemandTooLate(uint64 demandId, uint256 until, uint256 timestamp);
    error LeafNotInRoot(uint32 index);
    error BadSignature(address expectedSigner);
    error WrongCount(uint256 got, uint256 expected);
    error TooFewSignatures(uint256 got, uint256 needed);
    error StateTooLong(uint256 length, uint256 max);
    error WrongState(bytes32 got, bytes32 expected);

    /// @notice While auditors replay, and in the job's window. The work: one of its auditors, unless it was demanded already.
    function demand(IComputeJobs.JobTerms calldata terms, IComputeJobs.Result calldata result, uint32 leaf)
        external
        returns (uint64 demandId);
    /// @notice Anybody, once the seed is fixed and within `drawSeconds` of its time.
    function drawMembers(uint64 demandId) external;
    /// @notice Anybody: the leaf, and one entry for each member in the order of the draw; empty: has not signed.
    function confirm(
        uint64 demandId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata leaf,
        bytes32[] calldata proof,
        bytes[] calldata signatures
    ) external;
    /// @notice Anybody, with or without a committee.
    function deliver(
        uint64 demandId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata leaf,
        bytes32[] calldata proof,
        bytes calldata state
    ) external;
    /// @notice Anybody, when the time to deliver, or to draw, is over.
    function expire(uint64 demandId) external;

    function deliveredDigest(uint64 demandId, Segments.Leaf calldata leaf) external view returns (bytes32);
    function demandOf(uint64 demandId) external view returns (Demand memory);
    function demandCount() external view returns (uint64);
    /// @notice The demand for a job's work; 0: it was not demanded, or no committee could be drawn.
    function workDemandOf(bytes32 jobId) external view returns (uint64);
    function config() external view returns (Config memory);
}
