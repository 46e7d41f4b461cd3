// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "./IComputeJobs.sol";
import {JobAudits} from "./JobAudits.sol";

/// @title JobCases: the courts' door to a job. Part of ComputeJobs.
/// @notice A court is a module that the registry calls `jobDisputes` or `stateDemands`; one that was replaced ends the cases that it opened.
abstract contract JobCases is JobAudits {
    /// @inheritdoc IComputeJobs
    function openCase(bytes32 jobId, address accuser, Matter matter) external returns (bool isAuditor) {
        if (msg.sender != registry.get("jobDisputes") && msg.sender != registry.get("stateDemands")) revert NotACourt(msg.sender);
        Job storage j = _jobs[jobId];
        (Phase phase, uint48 until) = _advance(jobId, j);
        if (j.auditors == 0 || phase == Phase.Settled || phase < (matter == Matter.Segment ? Phase.Window : Phase.Sealing)) {
            revert WrongPhase(jobId, phase, Phase.Window);
        }
        if (block.timestamp >= until) revert TooLate(jobId, until, block.timestamp);
        if (matter == Matter.Segment) {
            isAuditor = auditors.isAccuser(this, jobId, j.auditors, accuser);
            _requireTurn(jobId, _windowFrom(j, until), isAuditor);
        } else {
            isAuditor = auditors.markDemand(jobId, j.auditors, accuser, matter == Matter.Work);
        }
        _isCourt[msg.sender] = true;
        ++j.openCases;
        emit CaseOpened(jobId, msg.sender, accuser);
    }

    /// Canaries first, then auditors that found something: nobody takes their reward before them.
    function _requireTurn(bytes32 jobId, uint256 from, bool isAuditor) private view {
        uint256 turn = from + (isAuditor ? 1 : 2) * uint256(_config.graceSeconds);
        if (block.timestamp < turn) revert NotYours(jobId, turn, block.timestamp);
    }

    /// @inheritdoc IComputeJobs
    function closeCase(bytes32 jobId, address accuser, Verdict verdict, uint32 segment, bool extends, uint32 workSeconds) external {
        if (!_isCourt[msg.sender]) revert NotACourt(msg.sender);
        Job storage j = _jobs[jobId];
        --j.openCases;
        emit CaseClosed(jobId, msg.sender, verdict, accuser);
        (Phase phase,) = _advance(jobId, j);
        if (phase == Phase.Settled) return;
        if (verdict == Verdict.Refused && segment != NO_SEGMENT) j.doubtful = true;
        if (verdict == Verdict.Guilty && !j.canary && !j.guilty) {
            j.guilty = true;
            _convictions[jobId] = Conviction(accuser, segment);
        }
        if (extends) _extend(jobId, j, phase, workSeconds);
        else if (verdict == Verdict.NotGuilty) auditors.markLoss(jobId, j.auditors, accuser);
    }

    /// Time to replay what was delivered, and to challenge it. Before the window a state needs none: all of that is still to come.
    function _extend(bytes32 jobId, Job storage j, Phase phase, uint32 workSeconds) private {
        if (phase == Phase.Revealing) {
            j.challengeSeconds += workSeconds;
            return;
        }
        bool isWindow = phase == Phase.Window;
        uint48 until = uint48(block.timestamp) + workSeconds + (isWindow ? j.challengeSeconds : 0);
        uint48 before = j.until;
        if (until <= before) return;
        if (isWindow) j.extraSeconds += uint32(until - before);
        j.until = until;
        emit PhaseExtended(jobId, phase, until);
    }
}
