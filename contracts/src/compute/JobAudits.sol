// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "./IAuditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";
import {JobBook} from "./JobBook.sol";
import {Segments} from "./Segments.sol";

/// @title JobAudits: auditors are drawn, their time runs, canaries are opened. Part of ComputeJobs.
abstract contract JobAudits is JobBook {
    // ------------------------------------------------------------------------------------------------------------------- draw

    /// @inheritdoc IComputeJobs
    function drawAuditors(JobTerms[] calldata terms) external {
        for (uint256 i; i < terms.length; ++i) {
            _drawFor(terms[i]);
        }
    }

    function _drawFor(JobTerms calldata terms) private {
        bytes32 jobId = _digest(terms);
        Job storage j = _jobs[jobId];
        Phase phase = j.phase;
        if (phase > Phase.Committed) return;
        if (phase != Phase.Committed) revert WrongPhase(jobId, phase, Phase.Committed);
        uint48 committedAt = j.committedAt;
        bytes32 value = randomness.valueOf(_seedTime(committedAt));
        uint256 needed = j.auditors;
        IAuditors.Wanted memory wanted = IAuditors.Wanted(terms.engine, needed, committedAt, terms.operatorId, terms.renter);
        uint64[] memory drawn = auditors.assign(jobId, value, wanted);
        if (drawn.length < needed) return _goWithout(jobId, j, terms.lowerable, drawn.length);
        (j.phase, j.until) = (Phase.Sealing, uint48(block.timestamp) + terms.auditSeconds);
        emit AuditorsDrawn(jobId, drawn, uint48(block.timestamp) + terms.auditSeconds);
    }

    /// Too few auditors for the whole time of the draw: the class is lowered, or the job ends without a price.
    function _goWithout(bytes32 jobId, Job storage j, bool lowerable, uint256 found) private {
        if (block.timestamp < j.until) revert TooFewAuditors(jobId, found, j.auditors);
        _skipWindow(j);
        j.evidence = Evidence.ReputationOnly;
        if (!lowerable) j.outcome = Outcome.NotAudited;
        emit ClassLowered(jobId, Evidence.ReputationOnly, jury.jurorCount(), found);
    }

    // ------------------------------------------------------------------------------------------------------------------ findings

    modifier onlyAuditors() {
        if (msg.sender != address(auditors)) revert NotAuditors(msg.sender);
        _;
    }

    /// @inheritdoc IComputeJobs
    function noteSealed(bytes32 jobId) external onlyAuditors {
        Job storage j = _jobs[jobId];
        if (j.phase != Phase.Sealing) revert WrongPhase(jobId, j.phase, Phase.Sealing);
        if (block.timestamp >= j.until) revert TooLate(jobId, j.until, block.timestamp);
        if (++j.sealedCount == j.auditors) (j.phase, j.until) = (Phase.Revealing, uint48(block.timestamp) + _config.openSeconds);
    }

    /// @inheritdoc IComputeJobs
    function noteRevealed(bytes32 jobId) external onlyAuditors {
        Job storage j = _jobs[jobId];
        (Phase phase,) = _advance(jobId, j);
        if (phase != Phase.Revealing) revert WrongPhase(jobId, phase, Phase.Revealing);
        if (++j.revealedCount != j.sealedCount) return;
        uint48 until = uint48(block.timestamp) + j.challengeSeconds;
        (j.phase, j.until) = (Phase.Window, until);
        emit WindowOpened(jobId, until);
    }

    // ---------------------------------------------------------------------------------------------------------------- canaries

    /// @inheritdoc IComputeJobs
    /// @dev Whoever knows the salt may bring it: it is the renter's, or was given away by it.
    function openCanary(
        JobTerms calldata terms,
        Result calldata result,
        uint32 leaf,
        bytes32 chainHash,
        bytes32[] calldata proof,
        bytes32 salt
    ) external {
        bytes32 jobId = identify(terms, result);
        _requireGrace(jobId);
        bool isFlagged = terms.flagSeal == canarySeal(terms.renter, terms.nonce, salt);
        Segments.Leaf memory wrong = Segments.Leaf(leaf, chainHash, canaryStateHash(salt, leaf));
        if (!isFlagged || leaf == 0 || !Segments.holds(result.root, terms.segments, wrong, proof)) revert NotACanary(jobId);
        _jobs[jobId].canary = true;
        emit CanaryOpened(jobId, leaf);
        auditors.markCanary(jobId, _jobs[jobId].auditors, _samplingOf(terms, jobId), leaf);
    }

    /// The time before all cases but demands.
    function _requireGrace(bytes32 jobId) private {
        Job storage j = _jobs[jobId];
        (Phase phase, uint48 until) = _advance(jobId, j);
        if (phase != Phase.Window || j.auditors == 0 || j.canary || j.guilty) revert WrongPhase(jobId, phase, Phase.Window);
        uint256 graceUntil = _windowFrom(j, until) + _config.graceSeconds;
        if (block.timestamp >= graceUntil) revert TooLate(jobId, graceUntil, block.timestamp);
    }
}
