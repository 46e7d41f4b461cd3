// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../chain/IOperators.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {AuditSeats} from "./AuditSeats.sol";
import {IAuditors} from "./IAuditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";

/// @title Auditors: see IAuditors for the rules. No owner, no parameter that can change.
/// @notice What is written down of a job's audits belongs to the module that drew the auditors: none other changes it, so a module that was
/// replaced finishes its jobs.
contract Auditors is AuditSeats {
    using Shuffle for Shuffle.Order;

    uint256 private constant BPS = 10_000;
    uint32 private constant NO_SEGMENT = type(uint32).max;

    // Bits of Audit.marks.
    uint8 private constant DEMANDED = 1;
    uint8 private constant LOST_CASE = 2;
    uint8 private constant MISSED_CANARY = 4;
    uint8 private constant SAW_CANARY = 8;
    uint8 private constant WORK_DEMANDED = 16;

    mapping(IComputeJobs jobs => mapping(bytes32 jobId => mapping(uint256 index => Audit))) private _audits;

    constructor(Config memory c, IRegistry registry_, IOperators operators_, IStakeVault stakeVault_)
        AuditSeats(c, registry_, operators_, stakeVault_)
    {}

    // ---------------------------------------------------------------------------------------------------------------- auditors

    /// @inheritdoc IAuditors
    function sealAudits(IComputeJobs jobs, bytes32[] calldata jobIds, uint8[] calldata indexes, bytes18[] calldata seals) external {
        if (indexes.length != jobIds.length) revert LengthMismatch(indexes.length, jobIds.length);
        if (seals.length != jobIds.length) revert LengthMismatch(seals.length, jobIds.length);
        uint64 operatorId = operators.operatorOfNodeKey(msg.sender);
        for (uint256 i; i < jobIds.length; ++i) {
            Audit storage a = _audits[jobs][jobIds[i]][indexes[i]];
            if (operatorId == 0 || a.operatorId != operatorId) revert NotAuditor(jobIds[i], indexes[i], msg.sender);
            if (a.seal != 0) revert AlreadySealed(jobIds[i], operatorId);
            a.seal = seals[i];
            emit AuditSealed(jobIds[i], operatorId, indexes[i], seals[i]);
            jobs.noteSealed(jobIds[i]);
        }
    }

    /// @inheritdoc IAuditors
    function revealAudits(IComputeJobs jobs, Reveal[] calldata reveals) external {
        for (uint256 i; i < reveals.length; ++i) {
            _reveal(jobs, reveals[i]);
        }
    }

    function _reveal(IComputeJobs jobs, Reveal calldata r) private {
        Audit storage a = _audits[jobs][r.jobId][r.index];
        if (a.finding != Finding.None) return;
        uint64 operatorId = a.operatorId;
        bool isOpening = a.seal != 0 && a.seal == sealOf(jobs, r.jobId, operatorId, r.finding, r.segment, r.stateHash, r.salt);
        if (!isOpening || r.finding == Finding.None) revert WrongOpening(r.jobId, operatorId);
        (a.finding, a.segment) = (r.finding, r.segment);
        emit AuditRevealed(r.jobId, operatorId, r.finding, r.segment, r.stateHash);
        jobs.noteRevealed(r.jobId);
    }

    // ----------------------------------------------------------------------------------------------------------------- modules

    /// @inheritdoc IAuditors
    function assign(bytes32 jobId, bytes32 value, Wanted calldata wanted) external returns (uint64[] memory drawn) {
        if (registry.get("computeJobs") != msg.sender) revert NotComputeJobs(msg.sender);
        drawn = draw(keccak256(abi.encode("auditors", value, jobId)), wanted);
        if (drawn.length < wanted.count) return drawn;
        mapping(uint256 => Audit) storage audits = _own(jobId);
        for (uint256 i; i < drawn.length; ++i) {
            uint32 duties = _auditors[drawn[i]].duties;
            if (_backedDutiesOf(drawn[i]) <= duties) revert Full(jobId, drawn[i], duties);
            audits[i].operatorId = drawn[i];
            _auditors[drawn[i]].duties = duties + 1;
        }
    }

    /// @inheritdoc IAuditors
    /// @dev The segment that ends in the wrong state is found Wrong, the one that would begin there cannot be begun; who had the first and
    /// found it Right has not replayed it.
    function markCanary(bytes32 jobId, uint256 count, Sampling calldata sampling, uint32 leaf) external {
        for (uint256 i; i < count; ++i) {
            Audit storage a = _own(jobId)[i];
            (Finding finding, uint32 segment) = (a.finding, a.segment);
            bool isSeen = (finding == Finding.Wrong && segment == leaf - 1) || (finding == Finding.Withheld && segment == leaf);
            if (isSeen) a.marks |= SAW_CANARY;
            else if (finding == Finding.Right && _replays(jobId, sampling, a.operatorId, leaf - 1)) a.marks |= MISSED_CANARY;
        }
    }

    /// @inheritdoc IAuditors
    function markDemand(bytes32 jobId, uint256 count, address from, bool isWork) external returns (bool isTheirs) {
        uint64 operatorId = operators.operatorOfNodeKey(from);
        for (uint256 i; i < count; ++i) {
            Audit storage a = _own(jobId)[i];
            bool isOwn = a.operatorId == operatorId && a.finding != Finding.Right && (isWork || a.marks & DEMANDED == 0);
            if (isOwn || isWork) a.marks |= isWork ? WORK_DEMANDED : DEMANDED;
            isTheirs = isTheirs || isOwn;
        }
    }

    /// @inheritdoc IAuditors
    function isAccuser(IComputeJobs jobs, bytes32 jobId, uint256 count, address who) external view returns (bool) {
        uint64 operatorId = operators.operatorOfNodeKey(who);
        for (uint256 i; i < count; ++i) {
            Audit storage a = _audits[jobs][jobId][i];
            if (a.operatorId == operatorId && (a.finding == Finding.Wrong || a.finding == Finding.Withheld)) return true;
        }
        return false;
    }

    /// @inheritdoc IAuditors
    function markLoss(bytes32 jobId, uint256 count, address accuser) external {
        uint64 operatorId = operators.operatorOfNodeKey(accuser);
        for (uint256 i; i < count; ++i) {
            Audit storage a = _own(jobId)[i];
            if (a.operatorId == operatorId) a.marks |= LOST_CASE;
        }
    }

    /// @inheritdoc IAuditors
    function settleAudits(bytes32 jobId, Sampling calldata sampling, Ending calldata ending) external returns (Share[] memory shares) {
        shares = new Share[](ending.count);
        bool hasAnyoneSpoken = _hasAnyoneSpoken(jobId, ending.count);
        for (uint256 i; i < ending.count; ++i) {
            Audit storage a = _own(jobId)[i];
            uint64 operatorId = a.operatorId;
            --_auditors[operatorId].duties;
            bool hasLied = a.marks & MISSED_CANARY != 0
                || (ending.wrongSegment != NO_SEGMENT
                    && a.finding == Finding.Right
                    && _replays(jobId, sampling, operatorId, ending.wrongSegment));
            bool isPaid = !hasLied && (a.finding == Finding.Right || (a.finding != Finding.None && ending.isProven));
            shares[i] = Share(operatorId, isPaid, a.marks & SAW_CANARY != 0, a.finding == Finding.Right);
            if (hasLied || (!isPaid && hasAnyoneSpoken && !_hasTried(a, ending.isProven))) _punish(jobId, operatorId, hasLied, ending);
        }
    }

    /// Where nobody could say anything, nobody pays for saying nothing: terms may ask what no machine can do.
    function _hasAnyoneSpoken(bytes32 jobId, uint256 count) private view returns (bool) {
        for (uint256 i; i < count; ++i) {
            if (_own(jobId)[i].finding != Finding.None) return true;
        }
        return false;
    }

    /// Who lost a case has lost its bond; who demanded a state that was delivered has paid the committee, and one of them pays it for all where
    /// the work was kept back. Without the work nobody could say anything.
    function _hasTried(Audit storage a, bool isProven) private view returns (bool) {
        uint8 marks = a.marks;
        if (marks & LOST_CASE != 0) return true;
        if (a.finding == Finding.Withheld) return marks & (DEMANDED | WORK_DEMANDED) != 0;
        return a.finding == Finding.None && isProven && marks & WORK_DEMANDED != 0;
    }

    function _punish(bytes32 jobId, uint64 operatorId, bool lied, Ending calldata ending) private {
        uint256 amount = lied ? _config.liePenalty : _config.silencePenalty;
        emit AuditorPunished(jobId, operatorId, lied, amount);
        uint256 toRenter = lied ? amount * ending.makerBps / BPS : 0;
        _penalise(operatorId, amount, IStakeVault.Payout(ending.renter, toRenter, address(0), 0));
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IAuditors
    function auditOf(IComputeJobs jobs, bytes32 jobId, uint8 index) external view returns (Audit memory) {
        return _audits[jobs][jobId][index];
    }

    /// @inheritdoc IAuditors
    function sealOf(IComputeJobs jobs, bytes32 jobId, uint64 auditor_, Finding finding, uint32 segment, bytes32 stateHash, bytes32 salt)
        public
        view
        returns (bytes18)
    {
        return bytes18(keccak256(abi.encode(block.chainid, address(this), jobs, jobId, auditor_, finding, segment, stateHash, salt)));
    }

    /// @inheritdoc IAuditors
    function segmentsOf(bytes32 jobId, Sampling memory sampling, uint64 auditor_) public pure returns (uint32[] memory drawn) {
        uint256 seed = uint256(keccak256(abi.encode("segments", sampling.value, jobId, auditor_)));
        bool isWhole = sampling.samples == sampling.segments;
        drawn = new uint32[](sampling.samples);
        Shuffle.Order memory order = Shuffle.begin(seed, sampling.segments, isWhole ? 0 : sampling.samples);
        for (uint256 i; i < drawn.length; ++i) {
            drawn[i] = uint32(isWhole ? i : order.next());
        }
    }

    function _replays(bytes32 jobId, Sampling calldata sampling, uint64 operatorId, uint32 segment) private pure returns (bool) {
        if (sampling.samples == sampling.segments) return segment < sampling.segments;
        uint32[] memory drawn = segmentsOf(jobId, sampling, operatorId);
        for (uint256 i; i < drawn.length; ++i) {
            if (drawn[i] == segment) return true;
        }
        return false;
    }

    function _own(bytes32 jobId) private view returns (mapping(uint256 index => Audit) storage) {
        return _audits[IComputeJobs(msg.sender)][jobId];
    }
}
