// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IRails} from "../token/IRails.sol";
import {Auditors} from "./Auditors.sol";
import {ComputeJobs} from "./ComputeJobs.sol";
import {IAuditors} from "./IAuditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";
import {IStateDemands} from "./IStateDemands.sol";
import {Segments} from "./Segments.sol";
import {StrictState} from "./StrictState.sol";

/// @title StateDemands: see IStateDemands for the rules. No owner, no parameter that can change.
/// @notice Money: bonds and fees of open demands are this contract's account at the rails.
contract StateDemands is IStateDemands, IModule, EIP712 {
    bytes32 private constant DELIVERED_TYPEHASH =
        keccak256("Delivered(uint64 demandId,bytes32 jobId,uint32 leaf,bytes32 chainHash,bytes32 stateHash)");
    uint256 private constant MEMBERS_MAX = 31;
    uint32 private constant SECONDS_MAX = 30 days;
    uint32 private constant NO_SEGMENT = type(uint32).max;
    uint32 private constant WORK = type(uint32).max; // as a leaf

    ComputeJobs public immutable jobs;
    Auditors public immutable auditors;
    IOperators public immutable operators;
    IRandomness public immutable randomness;
    IRails public immutable rails;
    address public immutable token;
    uint32 private immutable _graceSeconds; // of the jobs' rules
    uint32 private immutable _auditSecondsMax;

    Config private _config; // written once, in the constructor
    /// @inheritdoc IStateDemands
    uint64 public demandCount;
    mapping(uint64 demandId => Demand) private _demands;
    mapping(bytes32 jobId => bool) private _renterHasDemanded;
    /// @inheritdoc IStateDemands
    mapping(bytes32 jobId => uint64) public workDemandOf;

    constructor(Config memory c, ComputeJobs jobs_) EIP712("Millrace State Demands", "1") {
        if (c.bond == 0) revert BadConfig("bond", 0, 1);
        if (c.fee == 0 || c.fee > type(uint96).max) revert BadConfig("fee", c.fee, type(uint96).max);
        if (c.members % 2 == 0 || c.members > MEMBERS_MAX) revert BadConfig("members", c.members, MEMBERS_MAX);
        _requireSeconds("drawDelay", c.drawDelay);
        _requireSeconds("seedQuantum", c.seedQuantum);
        _requireSeconds("drawSeconds", c.drawSeconds);
        _requireSeconds("deliverSeconds", c.deliverSeconds);
        (_config, jobs) = (c, jobs_);
        (auditors, operators, randomness, rails) = (jobs_.auditors(), jobs_.operators(), jobs_.randomness(), jobs_.rails());
        token = jobs_.stakeVault().stakeToken();
        IComputeJobs.Config memory rules = jobs_.rules().config();
        (_graceSeconds, _auditSecondsMax) = (rules.graceSeconds, rules.auditSecondsMax);
    }

    function _requireSeconds(string memory field, uint32 time) private pure {
        if (time == 0 || time > SECONDS_MAX) revert BadConfig(field, time, SECONDS_MAX);
    }

    // ----------------------------------------------------------------------------------------------------------------- demand

    /// @inheritdoc IStateDemands
    function demand(IComputeJobs.JobTerms calldata terms, IComputeJobs.Result calldata result, uint32 leaf)
        external
        returns (uint64 demandId)
    {
        bytes32 jobId = jobs.identify(terms, result);
        bool isWork = leaf == WORK;
        if (!isWork && leaf > terms.segments) revert UnknownLeaf(leaf, terms.segments);
        demandId = ++demandCount;
        Demand storage d = _demands[demandId];
        if (isWork) {
            if (workDemandOf[jobId] != 0) revert WorkIsDemanded(jobId, workDemandOf[jobId]);
            (workDemandOf[jobId], d.workSeconds) = (demandId, terms.auditSeconds);
        }
        uint256 quantum = _config.seedQuantum;
        d.seedTime = uint48((block.timestamp + _config.drawDelay + quantum - 1) / quantum * quantum);
        (d.jobId, d.from, d.operatorId, d.leaf, d.openedAt) = (jobId, msg.sender, terms.operatorId, leaf, uint48(block.timestamp));
        bool isAuditor = jobs.openCase(jobId, msg.sender, isWork ? IComputeJobs.Matter.Work : IComputeJobs.Matter.State);
        if (isWork && !isAuditor) revert NotTheirAuditor(jobId, msg.sender);
        bool isFree = isAuditor || _isRentersFirst(jobId, terms.renter);
        (d.bond, d.fee) = (isFree ? 0 : _config.bond, _config.fee * _config.members);
        emit StateDemanded(demandId, jobId, msg.sender, terms.operatorId, leaf, d.seedTime);
        rails.transferFrom(token, msg.sender, address(this), d.bond + d.fee);
    }

    /// With a bond, operators could live on renters that they make demand what was paid for.
    function _isRentersFirst(bytes32 jobId, address renter) private returns (bool) {
        if (msg.sender != renter || _renterHasDemanded[jobId]) return false;
        _renterHasDemanded[jobId] = true;
        return true;
    }

    /// @inheritdoc IStateDemands
    function drawMembers(uint64 demandId) external {
        Demand storage d = _open(demandId);
        if (d.deliverUntil != 0) revert AlreadyDrawn(demandId);
        uint256 until = _drawUntil(d);
        if (block.timestamp >= until) revert DemandTooLate(demandId, until, block.timestamp);
        bytes32 seed = keccak256(abi.encode("committee", randomness.valueOf(d.seedTime), demandId));
        IAuditors.Wanted memory wanted = IAuditors.Wanted(IComputeJobs.Engine.None, _config.members, d.openedAt, d.operatorId, d.from);
        uint64[] memory members = auditors.drawCommittee(seed, wanted);
        if (members.length < _config.members) revert TooFewMembers(members.length, _config.members);
        (d.members, d.deliverUntil) = (members, uint48(block.timestamp) + _config.deliverSeconds + d.workSeconds);
        emit CommitteeDrawn(demandId, members, d.deliverUntil);
    }

    // ---------------------------------------------------------------------------------------------------------------- delivery

    /// @inheritdoc IStateDemands
    function confirm(
        uint64 demandId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata leaf,
        bytes32[] calldata proof,
        bytes[] calldata signatures
    ) external {
        Demand storage d = _requireLeaf(demandId, terms, result, leaf, proof);
        if (d.deliverUntil == 0) revert NotDrawn(demandId);
        if (signatures.length != d.members.length) revert WrongCount(signatures.length, d.members.length);
        bytes32 digest = deliveredDigest(demandId, leaf);
        uint256 signed;
        uint256 count;
        for (uint256 i; i < signatures.length; ++i) {
            if (signatures[i].length == 0) continue;
            address nodeKey = operators.nodeKeyOf(d.members[i]);
            if (!SignatureChecker.isValidSignatureNowCalldata(nodeKey, digest, signatures[i])) revert BadSignature(nodeKey);
            signed |= 1 << i;
            ++count;
        }
        uint256 needed = signatures.length / 2 + 1;
        if (count < needed) revert TooFewSignatures(count, needed);
        emit StateDelivered(demandId, leaf, signed);
        _payMembers(d, signed, count);
        _end(demandId, d, IComputeJobs.Verdict.NotGuilty);
    }

    /// @inheritdoc IStateDemands
    function deliver(
        uint64 demandId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata leaf,
        bytes32[] calldata proof,
        bytes calldata state
    ) external {
        Demand storage d = _requireLeaf(demandId, terms, result, leaf, proof);
        if (leaf.index == WORK) revert WorkIsTooMuch(demandId);
        if (state.length > _config.stateBytesMax) revert StateTooLong(state.length, _config.stateBytesMax);
        bool isStrict = terms.determinism == IComputeJobs.Determinism.WasmStrict;
        bytes32 stateHash = isStrict ? StrictState.hashOf(state) : sha256(state);
        if (stateHash != leaf.stateHash) revert WrongState(stateHash, leaf.stateHash);
        emit StateDelivered(demandId, leaf, 0);
        _end(demandId, d, IComputeJobs.Verdict.NotGuilty);
    }

    /// An open demand, in time, and the leaf that it asks for.
    function _requireLeaf(
        uint64 demandId,
        IComputeJobs.JobTerms calldata terms,
        IComputeJobs.Result calldata result,
        Segments.Leaf calldata leaf,
        bytes32[] calldata proof
    ) private view returns (Demand storage d) {
        d = _open(demandId);
        uint256 until = _until(d);
        if (block.timestamp >= until) revert DemandTooLate(demandId, until, block.timestamp);
        if (jobs.identify(terms, result) != d.jobId) revert IComputeJobs.WrongResult(d.jobId);
        bool isRight = leaf.index == WORK
            ? leaf.chainHash == 0 && leaf.stateHash == terms.specHash
            : Segments.holds(result.root, terms.segments, leaf, proof);
        if (leaf.index != d.leaf || !isRight) revert LeafNotInRoot(leaf.index);
    }

    /// Those who signed share the fee of all; what the division leaves goes to the first.
    function _payMembers(Demand storage d, uint256 signed, uint256 count) private {
        uint256 share = d.fee / count;
        uint256 rest = d.fee % count;
        d.fee = 0;
        for (uint256 i; i < d.members.length; ++i) {
            if (signed & (1 << i) == 0) continue;
            rails.transfer(token, operators.beneficiaryOf(d.members[i]), share + rest);
            rest = 0;
        }
    }

    // -------------------------------------------------------------------------------------------------------------------- end

    /// @inheritdoc IStateDemands
    function expire(uint64 demandId) external {
        Demand storage d = _open(demandId);
        uint256 until = _until(d);
        if (block.timestamp < until) revert DemandTooEarly(demandId, until, block.timestamp);
        if (d.deliverUntil == 0) return _end(demandId, d, IComputeJobs.Verdict.Refused);
        _requireCanariesTimeOver(d.jobId);
        _end(demandId, d, IComputeJobs.Verdict.Guilty);
    }

    /// A canary's leaf has no state that could be delivered: who demands it convicts nobody before its maker had the time to open it.
    function _requireCanariesTimeOver(bytes32 jobId) private view {
        IComputeJobs.Job memory j = jobs.job(jobId);
        (IComputeJobs.Phase phase, uint48 until) = jobs.phaseOf(jobId);
        if (phase == IComputeJobs.Phase.Settled || j.guilty || j.canary) return;
        if (phase != IComputeJobs.Phase.Window) revert IComputeJobs.WrongPhase(jobId, phase, IComputeJobs.Phase.Window);
        uint256 graceUntil = uint256(until) - j.challengeSeconds - j.extraSeconds + _graceSeconds;
        if (block.timestamp < graceUntil) revert IComputeJobs.TooEarly(jobId, graceUntil, block.timestamp);
    }

    /// The bond is the operator's only where it has delivered; a fee that nobody has earned goes back.
    function _end(uint64 demandId, Demand storage d, IComputeJobs.Verdict verdict) private {
        bool isDelivered = verdict == IComputeJobs.Verdict.NotGuilty;
        (uint256 bond, uint256 fee, address from) = (d.bond, d.fee, d.from);
        (d.closed, d.bond, d.fee) = (true, 0, 0);
        if (verdict == IComputeJobs.Verdict.Refused && d.leaf == WORK) delete workDemandOf[d.jobId];
        emit DemandEnded(demandId, d.jobId, verdict);
        if (isDelivered && bond != 0) rails.transfer(token, operators.beneficiaryOf(d.operatorId), bond);
        uint256 back = isDelivered ? fee : bond + fee;
        if (back != 0) rails.transfer(token, from, back);
        jobs.closeCase(d.jobId, from, verdict, NO_SEGMENT, isDelivered, d.workSeconds);
    }

    function _drawUntil(Demand storage d) private view returns (uint256) {
        return uint256(d.seedTime) + _config.drawSeconds;
    }

    function _until(Demand storage d) private view returns (uint256) {
        return d.deliverUntil == 0 ? _drawUntil(d) : d.deliverUntil;
    }

    function _open(uint64 demandId) private view returns (Demand storage d) {
        d = _demands[demandId];
        if (d.from == address(0)) revert UnknownDemand(demandId);
        if (d.closed) revert DemandClosed(demandId);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IStateDemands
    function deliveredDigest(uint64 demandId, Segments.Leaf calldata leaf) public view returns (bytes32) {
        bytes32 jobId = _demands[demandId].jobId;
        return _hashTypedDataV4(keccak256(abi.encode(DELIVERED_TYPEHASH, demandId, jobId, leaf.index, leaf.chainHash, leaf.stateHash)));
    }

    /// @inheritdoc IStateDemands
    function demandOf(uint64 demandId) external view returns (Demand memory) {
        return _demands[demandId];
    }

    /// @inheritdoc IStateDemands
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @notice From a demand to its end, and by what the work that is delivered makes a job longer.
    function exposureSeconds() external view returns (uint64) {
        Config storage c = _config;
        return uint64(c.drawDelay) + c.seedQuantum + c.drawSeconds + c.deliverSeconds + 2 * uint64(_auditSecondsMax);
    }
}
