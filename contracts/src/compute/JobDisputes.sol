// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../chain/IOperators.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IArbitrable, IArbitrator, IEvidence} from "../governance/IArbitration.sol";
import {IJury} from "../governance/IJury.sol";
import {JuryTerms} from "../governance/JuryTerms.sol";
import {IRails} from "../token/IRails.sol";
import {ComputeJobs} from "./ComputeJobs.sol";
import {IComputeJobs} from "./IComputeJobs.sol";
import {IJobDisputes} from "./IJobDisputes.sol";
import {Segments} from "./Segments.sol";

/// @title JobDisputes: see IJobDisputes for the rules. No owner, no parameter that can change.
/// @notice Money: bonds of open cases are this contract's account at the rails; coins are what cases still owe the jury and what is owed to
/// challengers, who pull it. A ruling never reverts for a case that is before the jury.
contract JobDisputes is IJobDisputes, IArbitrable, IEvidence, IModule {
    uint256 private constant GUILTY = 1;
    uint256 private constant NOT_GUILTY = 2;
    uint256 public constant LEVELS = 4; // of a tree that one move opens
    uint256 private constant MOVES_MAX = 13; // five rounds of two, shown leaves, a jury to wait for, and one to spare
    uint256 private constant EVIDENCE_BYTES_MAX = 2_048;
    uint32 private constant SECONDS_MAX = 30 days;
    uint32 private constant NO_SEGMENT = type(uint32).max;
    string private constant META_EVIDENCE =
        "Does the segment turn the state of its first leaf into the state of its second, as the specification says (segment 0: is leaf 0 the specification's first state; the last one: is the output digest that of the last state)? 1: no, the operator is guilty; 2: yes.";

    ComputeJobs public immutable jobs;
    IOperators public immutable operators;
    IJury public immutable jury;
    IRails public immutable rails;
    address public immutable token;

    Config private _config; // written once, in the constructor
    /// @inheritdoc IJobDisputes
    uint256 public caseCount;
    mapping(uint256 caseId => Case) private _cases;
    mapping(uint256 disputeId => uint256 caseId) private _caseOfDispute;
    mapping(bytes32 jobId => mapping(uint32 segment => uint256 caseId)) private _beforeJury;
    /// @inheritdoc IJobDisputes
    mapping(address account => uint256) public coinsOf;

    constructor(Config memory c, ComputeJobs jobs_) {
        if (c.bond == 0) revert BadConfig("bond", 0, 1);
        if (c.moveSeconds == 0 || c.moveSeconds > SECONDS_MAX) revert BadConfig("moveSeconds", c.moveSeconds, SECONDS_MAX);
        (_config, jobs) = (c, jobs_);
        (operators, jury, rails) = (jobs_.operators(), jobs_.jury(), jobs_.rails());
        token = jobs_.stakeVault().stakeToken();
        emit MetaEvidence(0, META_EVIDENCE);
    }

    // -------------------------------------------------------------------------------------------------------------- challenges

    /// @inheritdoc IJobDisputes
    function challengeSegment(
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata start,
        bytes32[] calldata startProof,
        Segments.Leaf calldata end,
        bytes32[] calldata endProof,
        string calldata evidence
    ) external payable returns (uint256 caseId) {
        bytes32 jobId = jobs.identify(terms, result);
        _requireLeaf(result.root, terms.segments, start, startProof);
        _requireLeaf(result.root, terms.segments, end, endProof);
        if (end.index != start.index + 1) revert NotNeighbours(start.index, end.index);
        if (_beforeJury[jobId][start.index] != 0) revert AlreadyBeforeJury(jobId, start.index);
        caseId = _open(jobId, terms.operatorId);
        _cases[caseId].segment = start.index;
        emit SegmentChallenged(caseId, jobId, msg.sender, start, end);
        _submit(caseId, evidence);
        _waitForJury(caseId, _cases[caseId]);
    }

    /// @inheritdoc IJobDisputes
    function challengeRoot(IComputeJobs.JobTerms calldata terms, IComputeJobs.Result calldata result, bytes32 root)
        external
        payable
        returns (uint256 caseId)
    {
        bytes32 jobId = jobs.identify(terms, result);
        if (root == result.root) revert SameRoot(root);
        caseId = _open(jobId, terms.operatorId);
        Case storage c = _cases[caseId];
        (c.segment, c.segments, c.depth) = (NO_SEGMENT, terms.segments, uint8(Segments.depthOf(terms.segments)));
        (c.operatorNode, c.challengerNode) = (result.root, root);
        _next(c, State.OperatorOpens);
        emit RootChallenged(caseId, jobId, msg.sender, root);
    }

    /// @inheritdoc IJobDisputes
    function proveBrokenChain(
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata start,
        bytes32[] calldata startProof,
        Segments.Leaf calldata end,
        bytes32[] calldata endProof
    ) external {
        bytes32 jobId = jobs.identify(terms, result);
        _requireLeaf(result.root, terms.segments, start, startProof);
        _requireLeaf(result.root, terms.segments, end, endProof);
        if (end.index != start.index + 1) revert NotNeighbours(start.index, end.index);
        if (!_isBroken(terms.specHash, start, end)) revert ChainHolds(end.index);
        jobs.openCase(jobId, msg.sender, IComputeJobs.Matter.Segment);
        jobs.closeCase(jobId, msg.sender, IComputeJobs.Verdict.Guilty, start.index, false, 0);
    }

    /// @dev Takes bond and coins.
    function _open(bytes32 jobId, uint64 operatorId) private returns (uint256 caseId) {
        uint256 fee = juryFee();
        if (msg.value != fee) revert FeeMissing(msg.value, fee);
        caseId = ++caseCount;
        Case storage c = _cases[caseId];
        (c.jobId, c.challenger, c.operatorId, c.coins) = (jobId, msg.sender, operatorId, fee);
        jobs.openCase(jobId, msg.sender, IComputeJobs.Matter.Segment);
        rails.transferFrom(token, msg.sender, address(this), _config.bond);
    }

    function _requireLeaf(bytes32 root, uint32 segments, Segments.Leaf calldata leaf, bytes32[] calldata proof) private pure {
        if (!Segments.holds(root, segments, leaf, proof)) revert LeafNotInRoot(leaf.index);
    }

    /// Whether the specification's chain of states cannot have these leaves.
    function _isBroken(bytes32 specHash, Segments.Leaf calldata start, Segments.Leaf calldata end) private pure returns (bool) {
        if (start.index == 0 && start.chainHash != Segments.firstChainHash(specHash, start.stateHash)) return true;
        return end.chainHash != Segments.nextChainHash(specHash, end.index, start.chainHash, end.stateHash);
    }

    // ---------------------------------------------------------------------------------------------------------- down the trees

    /// @inheritdoc IJobDisputes
    function openNode(uint256 caseId, bytes32[] calldata children) external {
        Case storage c = _requireMove(caseId, State.OperatorOpens);
        if (operators.nodeKeyOf(c.operatorId) != msg.sender) revert NotYourMove(caseId, msg.sender);
        _requireChildren(children, c.operatorNode, c.depth);
        c.opened = keccak256(abi.encode(children));
        _next(c, State.ChallengerOpens);
        emit NodeOpened(caseId, true, c.depth, c.index, children, c.moveUntil);
    }

    /// @inheritdoc IJobDisputes
    function openOwnNode(uint256 caseId, bytes32[] calldata children, bytes32[] calldata operatorChildren) external {
        Case storage c = _requireMove(caseId, State.ChallengerOpens);
        if (c.challenger != msg.sender) revert NotYourMove(caseId, msg.sender);
        bytes32 opened = keccak256(abi.encode(operatorChildren));
        if (opened != c.opened) revert WrongChildren(c.opened, opened);
        uint256 levels = _requireChildren(children, c.challengerNode, c.depth);
        uint256 i;
        while (i < children.length && children[i] == operatorChildren[i]) ++i;
        if (i == children.length) revert NoDifference(caseId);
        emit NodeOpened(caseId, false, c.depth, c.index, children, uint48(block.timestamp) + _config.moveSeconds);
        c.index = uint32((uint256(c.index) << levels) + i);
        c.depth -= uint8(levels);
        (c.operatorNode, c.challengerNode) = (operatorChildren[i], children[i]);
        if (c.depth != 0) return _next(c, State.OperatorOpens);
        _next(c, State.OperatorShows);
        emit DifferenceFound(caseId, c.index, c.moveUntil);
        // Beyond the last leaf there is nothing but zero words: who has something else there has brought no commitment.
        if (c.index > c.segments) _end(caseId, c, c.operatorNode == 0 ? IComputeJobs.Verdict.NotGuilty : IComputeJobs.Verdict.Guilty);
    }

    /// The node that the children hash to, `levels` above them.
    function _requireChildren(bytes32[] calldata children, bytes32 node, uint256 depth) private pure returns (uint256 levels) {
        levels = depth < LEVELS ? depth : LEVELS;
        uint256 count = 1 << levels;
        if (children.length != count) revert WrongChildCount(children.length, count);
        bytes32[] memory nodes = children;
        for (; count > 1; count /= 2) {
            for (uint256 i; i < count / 2; ++i) {
                nodes[i] = Segments.nodeHash(nodes[2 * i], nodes[2 * i + 1]);
            }
        }
        if (nodes[0] != node) revert WrongChildren(node, nodes[0]);
    }

    /// @inheritdoc IJobDisputes
    function show(
        uint256 caseId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata start,
        bytes32[] calldata startProof,
        Segments.Leaf calldata end,
        bytes32[] calldata endProof
    ) external {
        Case storage c = _requireMove(caseId, State.OperatorShows);
        if (operators.nodeKeyOf(c.operatorId) != msg.sender) revert NotYourMove(caseId, msg.sender);
        if (jobs.identify(terms, result) != c.jobId) revert IComputeJobs.WrongResult(c.jobId);
        uint32 segment = c.index == 0 ? 0 : c.index - 1;
        if (start.index != segment || end.index != segment + 1) revert NotNeighbours(start.index, end.index);
        _requireLeaf(result.root, terms.segments, start, startProof);
        _requireLeaf(result.root, terms.segments, end, endProof);
        c.segment = segment;
        emit LeavesShown(caseId, segment, start, end);
        if (_isBroken(terms.specHash, start, end)) return _end(caseId, c, IComputeJobs.Verdict.Guilty);
        _waitForJury(caseId, c);
    }

    function _requireMove(uint256 caseId, State expected) private view returns (Case storage c) {
        c = _inState(caseId, expected);
        if (block.timestamp >= c.moveUntil) revert MoveTooLate(caseId, c.moveUntil, block.timestamp);
    }

    function _next(Case storage c, State state) private {
        (c.state, c.moveUntil) = (state, uint48(block.timestamp) + _config.moveSeconds);
    }

    // ------------------------------------------------------------------------------------------------------------------- jury

    function _waitForJury(uint256 caseId, Case storage c) private {
        _next(c, State.Waiting);
        _callJury(caseId, c);
    }

    /// @inheritdoc IJobDisputes
    function callJury(uint256 caseId) external {
        Case storage c = _requireMove(caseId, State.Waiting);
        if (_beforeJury[c.jobId][c.segment] != 0) revert AlreadyBeforeJury(c.jobId, c.segment);
        if (!_callJury(caseId, c)) revert NoJury(caseId);
    }

    /// Not while another case has the segment before the jury, or too few may judge it.
    function _callJury(uint256 caseId, Case storage c) private returns (bool) {
        if (_beforeJury[c.jobId][c.segment] != 0) return false;
        try jury.createDispute{value: c.coins}(2, _termsFor(c)) returns (uint256 disputeId) {
            (c.state, c.disputeId, c.coins) = (State.Judged, disputeId, 0);
            _caseOfDispute[disputeId] = caseId;
            _beforeJury[c.jobId][c.segment] = caseId;
            emit JuryCalled(caseId, disputeId, c.segment);
            emit Dispute(jury, disputeId, 0, caseId);
            return true;
        } catch {
            return false;
        }
    }

    /// The accused operator and the challenger do not judge; what the jury gives back is the challenger's.
    function _termsFor(Case storage c) private view returns (bytes memory) {
        uint64[] memory parties = new uint64[](1);
        address[] memory accounts = new address[](1);
        (parties[0], accounts[0]) = (c.operatorId, c.challenger);
        return JuryTerms.encode(c.challenger, parties, accounts);
    }

    /// @inheritdoc IJobDisputes
    function submitEvidence(uint256 caseId, string calldata evidence) external {
        if (_cases[caseId].state == State.None) revert WrongState(caseId, State.None, State.Judged);
        if (_cases[caseId].state == State.Closed) revert WrongState(caseId, State.Closed, State.Judged);
        _submit(caseId, evidence);
    }

    function _submit(uint256 caseId, string calldata evidence) private {
        if (bytes(evidence).length > EVIDENCE_BYTES_MAX) revert EvidenceTooLong(bytes(evidence).length, EVIDENCE_BYTES_MAX);
        emit Evidence(jury, caseId, msg.sender, evidence);
    }

    /// @inheritdoc IJobDisputes
    function appeal(uint256 caseId) external payable {
        Case storage c = _inState(caseId, State.Judged);
        jury.appeal{value: msg.value}(c.disputeId, abi.encodePacked(msg.sender));
    }

    /// @inheritdoc IArbitrable
    function rule(uint256 _disputeID, uint256 _ruling) external {
        if (msg.sender != address(jury)) revert NotArbitrator(msg.sender);
        uint256 caseId = _caseOfDispute[_disputeID];
        Case storage c = _inState(caseId, State.Judged);
        delete _beforeJury[c.jobId][c.segment];
        emit Ruling(jury, _disputeID, _ruling);
        _end(
            caseId,
            c,
            _ruling == GUILTY
                ? IComputeJobs.Verdict.Guilty
                : _ruling == NOT_GUILTY ? IComputeJobs.Verdict.NotGuilty : IComputeJobs.Verdict.Refused
        );
    }

    // -------------------------------------------------------------------------------------------------------------------- end

    /// @inheritdoc IJobDisputes
    /// @dev A case of a job that was decided otherwise ends at once, unless the jury has it: nobody has to move for nothing.
    function expire(uint256 caseId) external {
        Case storage c = _cases[caseId];
        State state = c.state;
        if (state == State.None || state >= State.Judged) revert WrongState(caseId, state, State.OperatorOpens);
        IComputeJobs.Job memory j = jobs.job(c.jobId);
        if (j.guilty || j.canary) return _end(caseId, c, IComputeJobs.Verdict.Refused);
        if (block.timestamp < c.moveUntil) revert MoveStillOpen(caseId, c.moveUntil, block.timestamp);
        if (state == State.Waiting) return _end(caseId, c, IComputeJobs.Verdict.Refused);
        _end(caseId, c, state == State.ChallengerOpens ? IComputeJobs.Verdict.NotGuilty : IComputeJobs.Verdict.Guilty);
    }

    function _end(uint256 caseId, Case storage c, IComputeJobs.Verdict verdict) private {
        address challenger = c.challenger;
        c.state = State.Closed;
        coinsOf[challenger] += c.coins;
        c.coins = 0;
        address to = verdict == IComputeJobs.Verdict.NotGuilty ? operators.beneficiaryOf(c.operatorId) : challenger;
        emit CaseEnded(caseId, c.jobId, verdict, to);
        rails.transfer(token, to, _config.bond);
        jobs.closeCase(c.jobId, challenger, verdict, c.segment, false, 0);
    }

    /// @inheritdoc IJobDisputes
    function withdraw(address account) external returns (uint256 coins) {
        coins = coinsOf[account];
        if (coins == 0) revert NothingOwed(account);
        coinsOf[account] = 0;
        emit CoinsWithdrawn(account, coins);
        (bool accepted,) = account.call{value: coins}("");
        if (!accepted) revert CoinsRefused(account, coins);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IJobDisputes
    function caseOf(uint256 caseId) external view returns (Case memory) {
        return _cases[caseId];
    }

    /// @inheritdoc IJobDisputes
    function juryFee() public view returns (uint256) {
        return jury.arbitrationCost("");
    }

    /// @inheritdoc IJobDisputes
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @notice All moves at their latest, and the jury.
    function exposureSeconds() external view returns (uint64) {
        return uint64(MOVES_MAX) * _config.moveSeconds + IModule(address(jury)).exposureSeconds();
    }

    function _inState(uint256 caseId, State expected) private view returns (Case storage c) {
        c = _cases[caseId];
        if (c.state != expected) revert WrongState(caseId, c.state, expected);
    }
}
