// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IModule, IRegistry} from "../chain/IRegistry.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ComputeFees} from "./ComputeFees.sol";
import {IAuditors} from "./IAuditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";
import {JobBook} from "./JobBook.sol";
import {JobCases} from "./JobCases.sol";
import {JobRules} from "./JobRules.sol";
import {Segments} from "./Segments.sol";
import {Totals} from "./Totals.sol";

/// @title ComputeJobs: see IComputeJobs for the rules. No owner, no parameter that can change.
/// @notice Money: what jobs that are not settled have paid, and the canaries' pools, are this contract's accounts at the rails. Collateral is locked in the vault until its job is settled.
contract ComputeJobs is JobCases, IModule {
    using Totals for Totals.List;

    uint256 private constant BPS = 10_000;
    uint256 private constant PAYEES_MAX = 11; // of one job: operator, auction, renter, eight auditors
    uint256 private constant CANARY_POOL_BPS = 100; // of audit fees

    uint256 private _batches;
    bytes32 private _logHead;

    /// What a batch of openings takes: from renters, for the auction, and of stake.
    struct Opening {
        Totals.List charges;
        Totals.List fees;
        Totals.List locks;
    }

    /// What a batch of settlements gives: to accounts, and of stake.
    struct Closing {
        Totals.List payments;
        Totals.List unlocks;
    }

    /// What a settlement has come to.
    struct Ending {
        bytes32 jobId;
        Outcome outcome;
        Evidence evidence;
        uint256 paid;
        uint256 returned;
        uint256 slashed;
        uint256 right; // auditors that found nothing
        uint256 spent; // of what is held
    }

    constructor(IRegistry registry_, JobRules rules_, IRandomness randomness_, IRails rails_, address native_, address auction_)
        ComputeFees(rails_, native_, rules_.stable(), auction_)
        EIP712("Millrace Compute Jobs", "1")
        JobBook(registry_, rules_, randomness_)
    {}

    // ------------------------------------------------------------------------------------------------------------------- open

    /// @inheritdoc IComputeJobs
    function openJobs(JobTerms[] calldata terms, Signatures[] calldata signatures) external returns (bytes32[] memory jobIds) {
        _requireLength(signatures.length, terms.length);
        jobIds = new bytes32[](terms.length);
        Opening memory o = Opening(Totals.create(terms.length), Totals.create(terms.length), Totals.create(terms.length));
        for (uint256 i; i < terms.length; ++i) {
            jobIds[i] = _open(o, terms[i], signatures[i]);
        }
        for (uint256 i; i < o.charges.count; ++i) {
            uint256 key = o.charges.keys[i];
            rails.transferFrom(_tokenOf(key), Totals.accountOf(key), address(this), o.charges.amounts[i]);
        }
        for (uint256 i; i < o.fees.count; ++i) {
            uint256 key = o.fees.keys[i];
            rails.transferFrom(_tokenOf(key), Totals.accountOf(key), auction, o.fees.amounts[i]);
        }
        for (uint256 i; i < o.locks.count; ++i) {
            stakeVault.lock(uint64(o.locks.keys[i]), o.locks.amounts[i]);
        }
    }

    function _open(Opening memory o, JobTerms calldata terms, Signatures calldata signatures) private returns (bytes32 jobId) {
        jobId = _digest(terms);
        Job storage j = _jobs[jobId];
        if (j.phase != Phase.None) return jobId;
        (bool isAudited, uint256 jurors, uint256 seated) = rules.judge(terms, signatures, jobId, probationOf(terms.operatorId));
        uint48 dueAt = uint48(block.timestamp) + terms.runSeconds;
        (j.phase, j.until, j.challengeSeconds) = (Phase.Running, dueAt, terms.challengeSeconds);
        emit JobOpened(jobId, terms.renter, terms.operatorId, terms, dueAt);
        if (isAudited) {
            j.evidence = terms.determinism == Determinism.Fingerprint ? Evidence.Fingerprinted : Evidence.Replayed;
            j.auditors = terms.auditors;
        } else if (terms.determinism != Determinism.None) {
            emit ClassLowered(jobId, Evidence.ReputationOnly, jurors, seated);
        }
        _charge(o, jobId, terms);
    }

    /// The fees are ComputeFees'; that on payments in the stable token waits here, as the price does.
    function _charge(Opening memory o, bytes32 jobId, JobTerms calldata terms) private {
        (uint256 renterFee, uint256 supplierFee, uint256 stableFee) = feesOn(terms.token, terms.price);
        emit ReservationFees(uint256(jobId), terms.token, terms.price, renterFee, supplierFee);
        uint256 amount = terms.price - supplierFee + stableFee + terms.auditFee;
        held[terms.token] += amount;
        uint256 key = Totals.keyOf(terms.token == stable, terms.renter);
        o.charges.add(key, amount);
        o.fees.add(key, renterFee + supplierFee);
        o.locks.add(terms.operatorId, terms.collateral);
    }

    function _tokenOf(uint256 key) private view returns (address) {
        return Totals.isStable(key) ? stable : native;
    }

    // ----------------------------------------------------------------------------------------------------------------- commit

    /// @inheritdoc IComputeJobs
    function commitResults(JobTerms[] calldata terms, Result[] calldata results) external {
        _requireLength(results.length, terms.length);
        for (uint256 i; i < terms.length; ++i) {
            _commit(terms[i], results[i]);
        }
    }

    function _commit(JobTerms calldata terms, Result calldata result) private {
        bytes32 jobId = _digest(terms);
        Job storage j = _jobs[jobId];
        if (j.phase != Phase.Running) revert WrongPhase(jobId, j.phase, Phase.Running);
        if (block.timestamp >= j.until) revert TooLate(jobId, j.until, block.timestamp);
        if (operators.nodeKeyOf(terms.operatorId) != msg.sender) revert NotOperatorsNode(terms.operatorId, msg.sender);
        uint48 seedTime = _seedTime(uint48(block.timestamp));
        _results[jobId] = _resultHash(result);
        j.committedAt = uint48(block.timestamp);
        emit ResultCommitted(jobId, terms.operatorId, result, seedTime);
        if (j.auditors == 0) return _skipWindow(j);
        (j.phase, j.until) = (Phase.Committed, seedTime + _config.drawSeconds);
    }

    // ----------------------------------------------------------------------------------------------------------------- settle

    /// @inheritdoc IComputeJobs
    function settle(JobTerms[] calldata terms, Result[] calldata results) external {
        _requireLength(results.length, terms.length);
        bytes32[] memory receipts = new bytes32[](terms.length);
        Closing memory c = Closing(Totals.create(terms.length * PAYEES_MAX), Totals.create(terms.length));
        uint256 count;
        for (uint256 i; i < terms.length; ++i) {
            bytes32 receipt = _settle(c, terms[i], results[i]);
            if (receipt != 0) receipts[count++] = receipt;
        }
        if (count != 0) _log(receipts, count);
        for (uint256 i; i < c.payments.count; ++i) {
            uint256 key = c.payments.keys[i];
            rails.transfer(_tokenOf(key), Totals.accountOf(key), c.payments.amounts[i]);
        }
        for (uint256 i; i < c.unlocks.count; ++i) {
            stakeVault.unlock(uint64(c.unlocks.keys[i]), c.unlocks.amounts[i]);
        }
    }

    function _settle(Closing memory c, JobTerms calldata terms, Result calldata result) private returns (bytes32 receiptHash) {
        bytes32 jobId = _digest(terms);
        Job storage j = _jobs[jobId];
        if (j.phase == Phase.Settled) return 0;
        Ending memory e;
        e.jobId = jobId;
        (e.outcome, e.evidence) = (_outcomeOf(jobId, j), j.evidence);
        if (j.committedAt != 0 && _results[jobId] != _resultHash(result)) revert WrongResult(jobId);
        (j.phase, j.until, j.outcome) = (Phase.Settled, 0, e.outcome);
        _settlePrice(c, terms, e);
        _settleAudit(c, terms, j, e);
        if (e.right == 0 || e.outcome != Outcome.Right) e.evidence = Evidence.ReputationOnly;
        _settleCollateral(c, terms, e);
        _pay(c, e, terms.token, terms.renter, e.returned);
        held[terms.token] -= e.spent;
        bool isAudited = e.outcome == Outcome.Right && e.evidence != Evidence.ReputationOnly;
        if (isAudited && _passed[terms.operatorId] < PROBATION_JOBS) ++_passed[terms.operatorId];
        receiptHash = keccak256(
            abi.encode(jobId, result.root, result.outputDigest, e.outcome, e.evidence, e.right, j.committedAt, uint48(block.timestamp))
        );
        emit JobSettled(jobId, e.outcome, e.evidence, receiptHash, e.paid, e.returned, e.slashed);
    }

    /// Out of what is held.
    function _pay(Closing memory c, Ending memory e, address token, address account, uint256 amount) private view {
        e.spent += amount;
        c.payments.add(Totals.keyOf(token == stable, account), amount);
    }

    function _outcomeOf(bytes32 jobId, Job storage j) private view returns (Outcome) {
        (Phase phase, uint48 until) = _phaseNow(j);
        if (phase == Phase.Running) {
            if (block.timestamp < until) revert TooEarly(jobId, until, block.timestamp);
            return Outcome.Late;
        }
        if (phase != Phase.Window) revert WrongPhase(jobId, phase, Phase.Window);
        if (j.guilty) return Outcome.Guilty;
        if (j.canary) return Outcome.Canary;
        if (block.timestamp < until) revert TooEarly(jobId, until, block.timestamp);
        if (j.openCases != 0) revert CasesOpen(jobId, j.openCases);
        return j.outcome == Outcome.NotAudited ? Outcome.NotAudited : Outcome.Right;
    }

    function _settlePrice(Closing memory c, JobTerms calldata terms, Ending memory e) private {
        (, uint256 supplierFee, uint256 stableFee) = feesOn(terms.token, terms.price);
        uint256 net = terms.price - supplierFee;
        if (e.outcome != Outcome.Right && e.outcome != Outcome.Canary) {
            e.returned = net + stableFee;
            return;
        }
        e.paid = net;
        _pay(c, e, terms.token, operators.beneficiaryOf(terms.operatorId), net);
        if (stableFee == 0) return;
        emit StableFeeTaken(uint256(e.jobId), stableFee);
        _pay(c, e, terms.token, auction, stableFee);
    }

    // ------------------------------------------------------------------------------------------------------------- audit's end

    /// What no auditor has earned, and what division leaves, goes back to the renter.
    function _settleAudit(Closing memory c, JobTerms calldata terms, Job storage j, Ending memory e) private {
        uint256 fee = terms.auditFee;
        if (e.outcome != Outcome.Late && j.auditors != 0) fee -= _payAuditors(c, terms, e, _endDuties(terms, j, e));
        e.returned += fee;
    }

    function _endDuties(JobTerms calldata terms, Job storage j, Ending memory e) private returns (IAuditors.Share[] memory) {
        IAuditors.Ending memory ending;
        (ending.count, ending.isProven) = (j.auditors, e.outcome != Outcome.Right || j.doubtful);
        (ending.renter, ending.makerBps) = (terms.renter, _config.makerBps);
        ending.wrongSegment = e.outcome == Outcome.Guilty ? _convictions[e.jobId].segment : NO_SEGMENT;
        IAuditors.Sampling memory sampling;
        if (ending.wrongSegment != NO_SEGMENT) sampling = _samplingOf(terms, e.jobId);
        return auditors.settleAudits(e.jobId, sampling, ending);
    }

    /// @return spent of the audit fee
    function _payAuditors(Closing memory c, JobTerms calldata terms, Ending memory e, IAuditors.Share[] memory shares)
        private
        returns (uint256 spent)
    {
        spent = terms.auditFee * CANARY_POOL_BPS / BPS;
        uint256 each = (terms.auditFee - spent) / shares.length;
        uint256 jackpot = _takeJackpot(terms, shares);
        canaryPool[terms.token] += spent;
        for (uint256 i; i < shares.length; ++i) {
            if (shares[i].foundRight) ++e.right;
            if (!shares[i].isPaid) continue;
            uint256 extra = shares[i].sawCanary ? jackpot : 0;
            emit AuditorPaid(e.jobId, shares[i].auditor, each, extra);
            spent += each;
            _pay(c, e, terms.token, operators.beneficiaryOf(shares[i].auditor), each + extra);
        }
    }

    /// What each that saw a canary wins: together at most the audit fee that it has paid itself, and what is in the pool.
    function _takeJackpot(JobTerms calldata terms, IAuditors.Share[] memory shares) private returns (uint256 each) {
        uint256 count;
        for (uint256 i; i < shares.length; ++i) {
            if (shares[i].sawCanary) ++count;
        }
        if (count == 0) return 0;
        each = Math.min(terms.auditFee, canaryPool[terms.token]) / count;
        canaryPool[terms.token] -= each * count;
    }

    // --------------------------------------------------------------------------------------------------------------- collateral

    function _settleCollateral(Closing memory c, JobTerms calldata terms, Ending memory e) private {
        uint256 collateral = terms.collateral;
        if (e.outcome == Outcome.Guilty || e.outcome == Outcome.Late) {
            _passed[terms.operatorId] = 0;
            e.slashed = e.outcome == Outcome.Guilty ? collateral : collateral * _config.latePenaltyBps / BPS;
            if (e.slashed != 0) stakeVault.slash(terms.operatorId, e.slashed, _payoutOf(terms, e));
        }
        c.unlocks.add(terms.operatorId, collateral - e.slashed);
    }

    function _payoutOf(JobTerms calldata terms, Ending memory e) private view returns (IStakeVault.Payout memory payout) {
        payout.client = terms.renter;
        payout.compensation = e.slashed;
        if (e.outcome == Outcome.Late) return payout;
        payout.compensation = e.slashed * _config.compensationBps / BPS;
        payout.reporter = _convictions[e.jobId].accuser;
        payout.reward = e.slashed * _config.rewardBps / BPS;
    }

    // -------------------------------------------------------------------------------------------------------------------- log

    /// The Merkle root of a transaction's receipts, padded with zero words, and the chain of all roots.
    function _log(bytes32[] memory nodes, uint256 count) private {
        while (count > 1) {
            uint256 half = (count + 1) / 2;
            for (uint256 i; i < half; ++i) {
                nodes[i] = Segments.nodeHash(nodes[2 * i], 2 * i + 1 < count ? nodes[2 * i + 1] : bytes32(0));
            }
            count = half;
        }
        uint256 batch = ++_batches;
        bytes32 head = keccak256(abi.encode(_logHead, batch, nodes[0]));
        _logHead = head;
        emit TasksLogged(batch, nodes[0], head);
    }

    /// @inheritdoc IComputeJobs
    function taskLog() external view returns (uint256 batches, bytes32 head) {
        return (_batches, _logHead);
    }

    /// @inheritdoc IModule
    function exposureSeconds() external view returns (uint64) {
        return rules.exposureSeconds();
    }
}
