// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "./IComputeJobs.sol";
import {JobAudits} from "./JobAudits.sol";

/// @title JobCases: the courts' door to a job. Part of ComputeJobs.
/// @notice A court is a module that the registry calls `jobDisputes` or `stateDemands`; one that was replaced ends the cases that it opened.
abstract contract JobCases is JobAudits {
    /// @inheritdoc IComputeJobs
    function openCase(bytes32 jobId, address accuser, bool isDemand) external returns (bool isAuditor) {
        if (msg.sender != registry.get("jobDisputes") && msg.sender != registry.get("stateDemands")) revert NotACourt(msg.sender);
        Job storage j = _jobs[jobId];
        (Phase phase, uint48 until) = _advance(jobId, j);
        if (j.auditors == 0 || phase == Phase.Settled || phase < (isDemand ? Phase.Sealing : Phase.Window)) {
            revert WrongPhase(jobId, phase, Phase.Window);
        }
        if (block.timestamp >= until) revert TooLate(jobId, until, block.timestamp);
        if (isDemand) {
            isAuditor = auditors.markDemand(jobId, j.auditors, accuser);
        } else {
            isAuditor = auditors.isAccuser(this, jobId, j.auditors, accuser);
            _requireTurn(jobId, _windowFrom(j, until), isAuditor);
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
    function closeCase(bytes32 jobId, address accuser, Verdict verdict, uint32 segment, bool extends) external {
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
        if (extends) _extend(jobId, j, phase);
        else if (verdict == Verdict.NotGuilty) auditors.markLoss(jobId, j.auditors, accuser);
    }

    function _extend(bytes32 jobId, Job storage j, Phase phase) private {
        if (phase != Phase.Window) return;
        uint48 until = uint48(block.timestamp) + j.challengeSeconds;
        (j.until, j.extraSeconds) = (until, j.extraSeconds + uint32(until - j.until));
        emit WindowExtended(jobId, until);
    }
}
