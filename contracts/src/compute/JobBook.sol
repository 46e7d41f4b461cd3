// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IJury} from "../governance/IJury.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {Auditors} from "./Auditors.sol";
import {ComputeFees} from "./ComputeFees.sol";
import {IAuditors} from "./IAuditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";
import {JobRules} from "./JobRules.sol";

/// @title JobBook: what is written down of jobs, what time makes of it, and what can be read. Part of ComputeJobs.
abstract contract JobBook is IComputeJobs, ComputeFees, EIP712 {
    bytes32 internal constant TERMS_TYPEHASH = keccak256(
        "JobTerms(address renter,uint64 operatorId,bytes32 specHash,address token,uint128 price,uint128 auditFee,uint128 collateral,uint8 determinism,uint8 engine,bool lowerable,uint32 segments,uint32 samples,uint8 auditors,uint48 openUntil,uint32 runSeconds,uint32 auditSeconds,uint32 challengeSeconds,bytes32 flagSeal,uint256 nonce)"
    );
    uint256 internal constant PROBATION_JOBS = 10;
    uint32 internal constant NO_SEGMENT = type(uint32).max;

    /// Who proved it, and where.
    struct Conviction {
        address accuser;
        uint32 segment;
    }

    IRegistry public immutable registry;
    JobRules public immutable rules;
    Auditors public immutable auditors;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    IJury public immutable jury;
    IRandomness public immutable randomness;

    Config internal _config; // written once, in the constructor
    mapping(bytes32 jobId => Job) internal _jobs;
    mapping(bytes32 jobId => bytes32) internal _results; // hash of what was committed to
    mapping(bytes32 jobId => Conviction) internal _convictions;
    mapping(uint64 operatorId => uint256) internal _passed; // audited jobs since the last slash, at most PROBATION_JOBS
    mapping(address => bool) internal _isCourt; // has opened a case
    /// @inheritdoc IComputeJobs
    mapping(address token => uint256) public canaryPool;
    /// @inheritdoc IComputeJobs
    mapping(address token => uint256) public held;

    constructor(IRegistry registry_, JobRules rules_, IRandomness randomness_) {
        (registry, rules, randomness) = (registry_, rules_, randomness_);
        (auditors, jury, operators) = (rules_.auditors(), rules_.jury(), rules_.operators());
        stakeVault = auditors.stakeVault();
        _config = rules_.config();
    }

    // ------------------------------------------------------------------------------------------------------------------- time

    /// The phase by now, and its end.
    function _phaseNow(Job storage j) internal view returns (Phase phase, uint48 until) {
        (phase, until) = (j.phase, j.until);
        if (phase == Phase.Sealing && block.timestamp >= until) (phase, until) = (Phase.Revealing, until + _config.openSeconds);
        if (phase == Phase.Revealing && block.timestamp >= until) (phase, until) = (Phase.Window, until + j.challengeSeconds);
    }

    /// Writes down what time has made of a job.
    function _advance(bytes32 jobId, Job storage j) internal returns (Phase phase, uint48 until) {
        (phase, until) = _phaseNow(j);
        if (phase == j.phase) return (phase, until);
        (j.phase, j.until) = (phase, until);
        if (phase == Phase.Window) emit WindowOpened(jobId, until);
    }

    /// When the window of a job began, which ends at `until`.
    function _windowFrom(Job storage j, uint48 until) internal view returns (uint256) {
        return uint256(until) - j.challengeSeconds - j.extraSeconds;
    }

    /// A job that nobody audits is over at once.
    function _skipWindow(Job storage j) internal {
        (j.phase, j.until, j.auditors) = (Phase.Window, uint48(block.timestamp), 0);
    }

    function _seedTime(uint48 committedAt) internal view returns (uint48) {
        uint256 quantum = _config.seedQuantum;
        return uint48((uint256(committedAt) + _config.drawDelay + quantum - 1) / quantum * quantum);
    }

    // ------------------------------------------------------------------------------------------------------------------ inside

    function _digest(JobTerms calldata terms) internal view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(TERMS_TYPEHASH, terms)));
    }

    function _resultHash(Result calldata result) internal pure returns (bytes32) {
        return keccak256(abi.encode(result.root, result.outputDigest));
    }

    function _requireLength(uint256 got, uint256 expected) internal pure {
        if (got != expected) revert LengthMismatch(got, expected);
    }

    /// By what a job's segments are drawn, once its randomness is fixed.
    function _samplingOf(JobTerms calldata terms, bytes32 jobId) internal view returns (IAuditors.Sampling memory) {
        return IAuditors.Sampling(randomness.valueOf(_seedTime(_jobs[jobId].committedAt)), terms.segments, terms.samples);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IComputeJobs
    function jobIdOf(JobTerms calldata terms) external view returns (bytes32) {
        return _digest(terms);
    }

    /// @inheritdoc IComputeJobs
    function identify(JobTerms calldata terms, Result calldata result) public view returns (bytes32 jobId) {
        jobId = _digest(terms);
        if (_results[jobId] != _resultHash(result)) revert WrongResult(jobId);
    }

    /// @inheritdoc IComputeJobs
    function job(bytes32 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc IComputeJobs
    function phaseOf(bytes32 jobId) external view returns (Phase phase, uint48 until) {
        return _phaseNow(_jobs[jobId]);
    }

    /// @inheritdoc IComputeJobs
    function seedTimeOf(bytes32 jobId) external view returns (uint64) {
        return _seedTime(_jobs[jobId].committedAt);
    }

    /// @inheritdoc IComputeJobs
    function canarySeal(address renter, uint256 nonce, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), renter, nonce, salt));
    }

    /// @inheritdoc IComputeJobs
    function canaryStateHash(bytes32 salt, uint32 leaf) public pure returns (bytes32) {
        return keccak256(abi.encode("millrace canary", salt, leaf));
    }

    /// @inheritdoc IComputeJobs
    function probationOf(uint64 operatorId) public view returns (uint256) {
        return PROBATION_JOBS - _passed[operatorId];
    }
}
