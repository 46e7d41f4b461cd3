// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IJury} from "../governance/IJury.sol";
import {Auditors} from "./Auditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";

/// @title JobRules: which terms are accepted. Part of ComputeJobs that holds nothing; apart from it only because
/// the code of one contract is bounded.
contract JobRules {
    uint256 public constant AUDITORS_MAX = 8;
    uint32 public constant SAMPLES_MAX = 64; // unless all are replayed: Shuffle's cost grows with the square
    uint32 public constant SEGMENTS_MAX = 1 << 20;
    uint32 private constant SECONDS_MAX = 90 days;

    IJury public immutable jury;
    Auditors public immutable auditors;
    IOperators public immutable operators;
    address public immutable stable;

    IComputeJobs.Config private _config; // written once, in the constructor

    constructor(IComputeJobs.Config memory c, Auditors auditors_, IJury jury_, address stable_) {
        uint256 shares = uint256(c.rewardBps) + c.compensationBps;
        if (shares > 5_000) revert IComputeJobs.BadConfig("rewardBps", shares, 5_000);
        if (c.makerBps > 5_000) revert IComputeJobs.BadConfig("makerBps", c.makerBps, 5_000);
        if (c.latePenaltyBps > 10_000) revert IComputeJobs.BadConfig("latePenaltyBps", c.latePenaltyBps, 10_000);
        if (c.jurorsMin == 0) revert IComputeJobs.BadConfig("jurorsMin", 0, 1);
        _requireSeconds("drawDelay", c.drawDelay);
        _requireSeconds("seedQuantum", c.seedQuantum);
        _requireSeconds("drawSeconds", c.drawSeconds);
        _requireSeconds("openSeconds", c.openSeconds);
        _requireSeconds("graceSeconds", c.graceSeconds);
        _requireSeconds("runSecondsMax", c.runSecondsMax);
        _requireSeconds("auditSecondsMin", c.auditSecondsMin);
        _requireSeconds("auditSecondsMax", c.auditSecondsMax);
        _requireSeconds("challengeSecondsMax", c.challengeSecondsMax);
        uint256 least = 3 * uint256(c.graceSeconds);
        if (c.challengeSecondsMin < least) revert IComputeJobs.BadConfig("challengeSecondsMin", c.challengeSecondsMin, least);
        (_config, auditors, jury, stable) = (c, auditors_, jury_, stable_);
        operators = auditors_.operators();
    }

    function _requireSeconds(string memory field, uint32 time) private pure {
        if (time == 0 || time > SECONDS_MAX) revert IComputeJobs.BadConfig(field, time, SECONDS_MAX);
    }

    // ------------------------------------------------------------------------------------------------------------------ terms

    /// @notice Reverts unless terms and signatures are good now.
    /// @param digest EIP-712 digest of the terms
    /// @param probation jobs of the operator that are still to be replayed whole
    /// @return isAudited false: nothing can be checked, or jurors or auditors are missing and the terms accept that
    /// @return jurors operators with a juror's seat
    /// @return seated operators with an auditor's seat and the job's engine, likewise
    function judge(IComputeJobs.JobTerms calldata terms, IComputeJobs.Signatures calldata signatures, bytes32 digest, uint256 probation)
        external
        view
        returns (bool isAudited, uint256 jurors, uint256 seated)
    {
        if (block.timestamp >= terms.openUntil) revert IComputeJobs.TermsExpired(terms.openUntil, block.timestamp);
        _requireBounds(terms);
        _requireSigned(terms.renter, digest, signatures.renter);
        _requireSigned(operators.nodeKeyOf(terms.operatorId), digest, signatures.operator);
        if (terms.determinism == IComputeJobs.Determinism.None) return (false, 0, 0);
        _requireAuditBounds(terms);
        if (terms.samples != terms.segments && probation != 0) {
            revert IComputeJobs.OnProbation(terms.operatorId, terms.samples, terms.segments);
        }
        return _hasEnough(terms);
    }

    function _requireBounds(IComputeJobs.JobTerms calldata t) private view {
        _requireWithin("price", t.price, 2, type(uint120).max);
        _requireWithin("collateral", t.collateral, _config.collateralMin[uint256(t.determinism)], type(uint96).max);
        _requireWithin("runSeconds", t.runSeconds, 1, _config.runSecondsMax);
        if (t.determinism != IComputeJobs.Determinism.None) return;
        _requireWithin("engine", uint256(t.engine), 0, 0);
        _requireWithin("auditors", t.auditors, 0, 0);
        _requireWithin("auditFee", t.auditFee, 0, 0);
    }

    function _requireAuditBounds(IComputeJobs.JobTerms calldata t) private view {
        bool isWhole = t.determinism == IComputeJobs.Determinism.ExactOutput;
        bool isStrict = t.determinism == IComputeJobs.Determinism.WasmStrict;
        IComputeJobs.Engine first = isStrict ? IComputeJobs.Engine.Strict : IComputeJobs.Engine.Module;
        IComputeJobs.Engine last = isStrict ? IComputeJobs.Engine.Strict : IComputeJobs.Engine.Image;
        _requireWithin("engine", uint256(t.engine), uint256(first), uint256(last));
        _requireWithin("auditors", t.auditors, 1, AUDITORS_MAX);
        _requireWithin("segments", t.segments, 1, isWhole ? 1 : SEGMENTS_MAX);
        _requireWithin("samples", t.samples, 1, t.segments);
        if (t.samples != t.segments) _requireWithin("samples", t.samples, 1, SAMPLES_MAX);
        uint256 feeMin = t.token == stable ? _config.stableSegmentFeeMin : _config.nativeSegmentFeeMin;
        _requireWithin("auditFee", t.auditFee, feeMin * t.auditors * t.samples, type(uint120).max);
        _requireWithin("auditSeconds", t.auditSeconds, _config.auditSecondsMin, _config.auditSecondsMax);
        _requireWithin("challengeSeconds", t.challengeSeconds, _config.challengeSecondsMin, _config.challengeSecondsMax);
    }

    /// @param field a short name: as a word it costs nothing where all is well
    function _requireWithin(bytes32 field, uint256 got, uint256 min, uint256 max) private pure {
        if (got >= min && got <= max) return;
        uint256 length;
        while (field[length] != 0) ++length;
        string memory name = new string(length);
        assembly ("memory-safe") {
            mstore(add(name, 0x20), field)
        }
        revert IComputeJobs.BadTerms(name, got, got < min ? min : max);
    }

    function _requireSigned(address signer, bytes32 digest, bytes calldata signature) private view {
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, digest, signature)) revert IComputeJobs.BadSignature(signer);
    }

    /// Whether a result could be audited and disputed. The operator's own seats do not count; they are asked for where they decide.
    function _hasEnough(IComputeJobs.JobTerms calldata t) private view returns (bool isEnough, uint256 jurors, uint256 seated) {
        (uint256 jurorsMin, uint256 auditorsMin) = (_config.jurorsMin, Math.max(_config.auditorsMin, t.auditors));
        (jurors, seated) = (jury.jurorCount(), auditors.auditorCount(t.engine));
        if (jurors == jurorsMin && jury.juror(t.operatorId).seats != 0) --jurors;
        if (seated == auditorsMin && auditors.replays(t.operatorId, t.engine)) --seated;
        isEnough = jurors >= jurorsMin && seated >= auditorsMin;
        if (!isEnough && !t.lowerable) revert IComputeJobs.TooFewForClass(jurors, jurorsMin, seated, auditorsMin);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    function config() external view returns (IComputeJobs.Config memory) {
        return _config;
    }

    /// @notice From a commitment to the last verdict on it. Collateral stays locked until its job is settled, however late that is.
    function exposureSeconds() external view returns (uint64) {
        IComputeJobs.Config storage c = _config;
        uint64 window = uint64(c.drawDelay) + c.seedQuantum + c.drawSeconds + c.auditSecondsMax + c.openSeconds + 2 * c.challengeSecondsMax;
        return window + uint64(Math.max(_courtSeconds("jobDisputes"), _courtSeconds("stateDemands")));
    }

    /// 0 before the court is deployed: it needs ComputeJobs first.
    function _courtSeconds(bytes32 name) private view returns (uint64) {
        try auditors.registry().get(name) returns (address court) {
            return IModule(court).exposureSeconds();
        } catch {
            return 0;
        }
    }
}
