// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "./IComputeJobs.sol";
import {Segments} from "./Segments.sol";

/// @title JobDisputes: a job's result is contested; the jury replays one segment (decision 0030).
/// @notice Two ways, both with a bond in the stake token and the jury's fee in coins, in a job's challenge window:
///   `challengeSegment` names a segment at once, by its two leaves as the operator committed to them;
///   `challengeRoot` brings another commitment. Both trees are walked down together, four levels a round: the operator opens its node, then the
///   challenger the same node of its own tree; the first child that differs is the next node. Each move has a clock of `moveSeconds`. What is
///   found is the first leaf that differs, so both agree on the leaf before it; the operator then shows both of its leaves (`show`).
/// A leaf whose h does not follow from the leaf before it convicts on the spot (`proveBrokenChain`, and in `show`).
/// The jury is asked one question: does segment i turn the state of leaf i into the state of leaf i + 1, as the specification says; for segment
/// 0 also, is leaf 0 the specification's first state; for the last one also, is the output digest that of the last state. Ruling 1: the operator
/// is guilty, 2: it is not; 0: refused.
/// Guilty: the bond comes back, the operator is slashed at settlement. Not guilty, or the challenger's time is out: the bond is the operator's.
/// Refused, or no jury: the bond comes back, and nobody loses. Coins that no jury was paid with come back.
interface IJobDisputes {
    struct Config {
        uint128 bond; // base units of the stake token, from the challenger's account at the rails
        uint32 moveSeconds;
    }

    enum State {
        None,
        OperatorOpens, // its node
        ChallengerOpens,
        OperatorShows, // its two leaves
        Waiting, // for a jury
        Judged, // by the jury, now
        Closed
    }

    struct Case {
        bytes32 jobId;
        address challenger;
        State state;
        uint8 depth; // levels that are left below the node
        uint32 index; // of the node at its level; with depth 0 the leaf that differs
        uint48 moveUntil;
        uint64 operatorId;
        uint32 segment; // once it is known; type(uint32).max before
        uint32 segments; // T
        bytes32 operatorNode;
        bytes32 challengerNode;
        bytes32 opened; // hash of the children that the operator showed
        uint256 disputeId; // at the jury
        uint256 coins; // for the jury, not paid yet
    }

    event SegmentChallenged(
        uint256 indexed caseId, bytes32 indexed jobId, address indexed challenger, Segments.Leaf start, Segments.Leaf end
    );
    event RootChallenged(uint256 indexed caseId, bytes32 indexed jobId, address indexed challenger, bytes32 root);
    event NodeOpened(uint256 indexed caseId, bool byOperator, uint8 depth, uint32 index, bytes32[] children, uint48 moveUntil);
    /// @notice The first leaf that differs.
    event DifferenceFound(uint256 indexed caseId, uint32 leaf, uint48 moveUntil);
    event LeavesShown(uint256 indexed caseId, uint32 segment, Segments.Leaf start, Segments.Leaf end);
    event JuryCalled(uint256 indexed caseId, uint256 indexed disputeId, uint32 segment);
    event CaseEnded(uint256 indexed caseId, bytes32 indexed jobId, IComputeJobs.Verdict verdict, address bondTo);
    event CoinsWithdrawn(address indexed account, uint256 coins);

    error BadConfig(string field, uint256 got, uint256 limit);
    error WrongState(uint256 caseId, State state, State expected);
    error NotYourMove(uint256 caseId, address caller);
    error MoveTooLate(uint256 caseId, uint256 until, uint256 timestamp);
    error MoveStillOpen(uint256 caseId, uint256 until, uint256 timestamp);
    error FeeMissing(uint256 got, uint256 expected);
    error SameRoot(bytes32 root);
    error AlreadyBeforeJury(bytes32 jobId, uint32 segment);
    error NoJury(uint256 caseId);
    error NotNeighbours(uint32 start, uint32 end);
    error LeafNotInRoot(uint32 index);
    error ChainHolds(uint32 index);
    error WrongChildCount(uint256 got, uint256 expected);
    error WrongChildren(bytes32 node, bytes32 got);
    error NoDifference(uint256 caseId);
    error NotArbitrator(address caller);
    error EvidenceTooLong(uint256 length, uint256 max);
    error NothingOwed(address account);
    error CoinsRefused(address account, uint256 amount);

    /// @notice Exactly the jury's fee (`juryFee`) is sent. A segment is before the jury once at a time.
    function challengeSegment(
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata start,
        bytes32[] calldata startProof,
        Segments.Leaf calldata end,
        bytes32[] calldata endProof,
        string calldata evidence
    ) external payable returns (uint256 caseId);
    /// @notice Exactly the jury's fee is sent. The operator moves first.
    function challengeRoot(IComputeJobs.JobTerms calldata terms, IComputeJobs.Result calldata result, bytes32 root)
        external
        payable
        returns (uint256 caseId);
    /// @notice Anybody: two neighbouring leaves of the operator's commitment with an h that the specification does not give. No bond, no jury; the caller is rewarded as a challenger.
    function proveBrokenChain(
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata start,
        bytes32[] calldata startProof,
        Segments.Leaf calldata end,
        bytes32[] calldata endProof
    ) external;

    /// @notice Node key: the 2^min(4, depth) nodes that many levels below the case's node, from left to right.
    function openNode(uint256 caseId, bytes32[] calldata children) external;
    /// @notice Challenger: the same of its own tree, beside what the operator showed.
    function openOwnNode(uint256 caseId, bytes32[] calldata children, bytes32[] calldata operatorChildren) external;
    /// @notice Node key: the leaf that differs and the one before it (leaf 0: itself and leaf 1).
    function show(
        uint256 caseId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata start,
        bytes32[] calldata startProof,
        Segments.Leaf calldata end,
        bytes32[] calldata endProof
    ) external;
    /// @notice Anybody: calls the jury for a case that waits for one; it is tried by `show` and `challengeSegment` already.
    function callJury(uint256 caseId) external;
    /// @notice Anybody, when a move's time is out: who had to move loses; a case that found no jury ends refused.
    function expire(uint256 caseId) external;
    /// @notice Anybody may say something to the jurors.
    function submitEvidence(uint256 caseId, string calldata evidence) external;
    /// @notice Anybody who pays the jury's fee of a larger round (Jury.appealCost).
    function appeal(uint256 caseId) external payable;
    /// @notice Anybody: pays an account the coins that it is owed.
    function withdraw(address account) external returns (uint256 coins);

    function caseOf(uint256 caseId) external view returns (Case memory);
    function caseCount() external view returns (uint256);
    function juryFee() external view returns (uint256);
    function coinsOf(address account) external view returns (uint256);
    function config() external view returns (Config memory);
}
