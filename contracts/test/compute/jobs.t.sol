// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {ComputeFees} from "../../src/compute/ComputeFees.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {deployJobRules} from "../deploy/compute.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice A job from its terms to its receipt.
contract ComputeJobsTest is JobsFixture {
    using JobWork for JobWork.Work;

    uint128 private constant NET = PRICE - PRICE / 400;
    uint256 private constant CHARGED = PRICE + PRICE / 400 + PRICE / 50 + AUDIT_FEE;

    // ------------------------------------------------------------------------------------------------------------------ terms

    function expectBad(IComputeJobs.JobTerms memory t, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadTerms.selector, field, got, limit));
        this.openExternally(t);
    }

    function test_terms_outside_of_the_rules_are_refused_by_name() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        (t.price) = 1;
        expectBad(t, "price", 1, 2);
        t = wholeTerms();
        t.collateral = 1e18 - 1;
        expectBad(t, "collateral", 1e18 - 1, 1e18);
        t = wholeTerms();
        t.runSeconds = 1 days + 1;
        expectBad(t, "runSeconds", 1 days + 1, 1 days);
        t.runSeconds = 0;
        expectBad(t, "runSeconds", 0, 1);
        t = wholeTerms();
        t.auditors = 9;
        expectBad(t, "auditors", 9, 8);
        t.auditors = 0;
        expectBad(t, "auditors", 0, 1);
        t = wholeTerms();
        (t.segments, t.samples) = ((1 << 20) + 1, 1);
        expectBad(t, "segments", (1 << 20) + 1, 1 << 20);
        t = wholeTerms();
        setClass(t, IComputeJobs.Determinism.ExactOutput, IComputeJobs.Engine.Image);
        expectBad(t, "segments", 8, 1);
        t = wholeTerms();
        t.samples = 9;
        expectBad(t, "samples", 9, 8);
        t = termsOf(100, 65, 1);
        expectBad(t, "samples", 65, 64);
        t = wholeTerms();
        t.auditFee = 15_999;
        expectBad(t, "auditFee", 15_999, 16_000);
        t = wholeTerms();
        t.auditSeconds = 601;
        expectBad(t, "auditSeconds", 601, 600);
        t = wholeTerms();
        t.challengeSeconds = 89;
        expectBad(t, "challengeSeconds", 89, 90);
        t = noneTerms();
        t.auditFee = 1;
        expectBad(t, "auditFee", 1, 0);
        t = noneTerms();
        t.auditors = 1;
        expectBad(t, "auditors", 1, 0);
        t = wholeTerms();
        t.token = address(token);
        t.auditFee = 1e18;
        vm.expectRevert(abi.encodeWithSelector(ComputeFees.TokenNotAccepted.selector, address(token)));
        this.openExternally(t);
        t = wholeTerms();
        t.openUntil = uint48(block.timestamp);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TermsExpired.selector, block.timestamp, block.timestamp));
        this.openExternally(t);
    }

    function test_both_sides_must_have_signed_these_terms_for_this_contract() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        IComputeJobs.Signatures memory s = signed(t);
        (s.renter, s.operator) = (s.operator, s.renter);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadSignature.selector, renter));
        jobs.openJobs(one(t), one(s));
        (s.renter, s.operator) = (s.operator, s.renter);
        t.price += 1;
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadSignature.selector, renter));
        jobs.openJobs(one(t), one(s));
        t.price -= 1;
        s.operator = s.renter;
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadSignature.selector, nodeOf(provider)));
        jobs.openJobs(one(t), one(s));
        t.operatorId = 999; // nobody
        s = IComputeJobs.Signatures(signWith(renterSecret, jobs.jobIdOf(t)), "");
        vm.expectRevert(abi.encodeWithSelector(IOperators.UnknownOperator.selector, 999));
        jobs.openJobs(one(t), one(s));
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.LengthMismatch.selector, 0, 1));
        jobs.openJobs(one(t), new IComputeJobs.Signatures[](0));
    }

    function test_a_job_that_is_open_is_passed_over_and_charged_once() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        bytes32 jobId = openJob(t);
        assertEq(openJob(t), jobId);
        assertEq(stableOf(renter), FUNDS - CHARGED);
        assertEq(collateralOf(provider), COLLATERAL);
        assertHeld();
    }

    function test_a_batch_is_open_whole_or_not_at_all() public {
        IComputeJobs.JobTerms[] memory list = new IComputeJobs.JobTerms[](2);
        (list[0], list[1]) = (wholeTerms(), wholeTerms());
        list[1].collateral = 100 * COLLATERAL; // with the first one's: more than there is
        IComputeJobs.Signatures[] memory signatures = new IComputeJobs.Signatures[](2);
        (signatures[0], signatures[1]) = (signed(list[0]), signed(list[1]));
        vm.expectRevert();
        jobs.openJobs(list, signatures);
        assertEq(uint8(jobs.job(jobs.jobIdOf(list[0])).phase), 0);
        assertEq(stableOf(renter), FUNDS);
    }

    // ------------------------------------------------------------------------------------------------------------------ money

    function test_an_honest_job_pays_operator_and_auditors_and_frees_the_collateral() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        bytes32 jobId = openJob(t);
        assertEq(stableOf(renter), FUNDS - CHARGED);
        assertEq(collateralOf(provider), COLLATERAL);
        JobWork.Work memory w = honestWork(t);
        commitResult(t, w);
        drawJob(t);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        uint256 share = AUDIT_FEE * 99 / 100 / 2;
        assertEq(stableOf(beneficiaryOf(auditorOf(jobId, 0))), share);
        assertEq(stableOf(beneficiaryOf(auditorOf(jobId, 1))), share);
        assertEq(jobs.canaryPool(address(stable)), AUDIT_FEE / 100);
        assertEq(stableOf(auction), PRICE / 200 + PRICE / 50);
        assertEq(stableOf(renter), FUNDS - CHARGED);
        assertEq(collateralOf(provider), 0);
        assertEq(jobs.probationOf(provider), 9);
        assertHeld();
        assertEq(jobs.held(address(stable)), AUDIT_FEE / 100);
    }

    function test_a_job_in_the_native_token_has_no_third_fee() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        (t.token, t.price, t.auditFee) = (address(native), 1e18, 1e17);
        complete(t);
        assertEq(rails.balanceOf(address(native), auction), 5e15);
        assertEq(rails.balanceOf(address(native), beneficiaryOf(provider)), 0.9975e18);
        assertEq(rails.balanceOf(address(native), renter), FUNDS * 1e12 - 1.0025e18 - 1e17);
        assertHeld();
    }

    /// Whatever the prices and whatever the auditors do, everything that was taken is somebody's, to the unit.
    /// forge-config: default.fuzz.runs = 64
    function testFuzz_nothing_is_lost(uint120 price, uint96 fee, uint8 count, uint256 acts, bool inNative) public {
        IComputeJobs.JobTerms memory t = termsOf(2, 2, uint8(bound(count, 1, 5)));
        t.token = inNative ? address(native) : address(stable);
        uint256 funds = rails.balanceOf(t.token, renter);
        t.price = uint120(bound(price, 2, funds / 4));
        t.auditFee = uint96(bound(fee, (inNative ? 1e15 : 1_000) * 2 * uint256(t.auditors), funds / 4));
        JobWork.Work memory w = JobWork.run(t.specHash, 2, acts % 3 == 0 ? 1 : JobWork.NONE);
        bytes32 jobId = toAudit(t, w);
        for (uint8 i; i < t.auditors; ++i) {
            uint256 act = acts >> (8 + 2 * i) & 3;
            if (act != 0) sealAs(act == 1 ? right(jobId, i) : finding(jobId, i, IAuditors.Finding(act), 1, 0));
        }
        (IComputeJobs.Phase phase, uint48 until) = jobs.phaseOf(jobId);
        if (phase == IComputeJobs.Phase.Sealing) vm.warp(until);
        for (uint8 i; i < t.auditors; ++i) {
            uint256 act = acts >> (8 + 2 * i) & 3;
            if (act != 0) reveal(act == 1 ? right(jobId, i) : finding(jobId, i, IAuditors.Finding(act), 1, 0));
        }
        vm.warp(block.timestamp + 60);
        settleJob(t, w);
        uint256 sum = rails.balanceOf(t.token, renter) + rails.balanceOf(t.token, auction) + jobs.held(t.token)
            + rails.balanceOf(t.token, beneficiaryOf(provider));
        for (uint64 id = 2; id <= 6; ++id) {
            sum += rails.balanceOf(t.token, beneficiaryOf(id));
        }
        assertEq(sum, funds);
        assertEq(jobs.held(t.token), jobs.canaryPool(t.token));
        assertEq(collateralOf(provider), 0);
        assertHeld();
    }

    // -------------------------------------------------------------------------------------------------------------- probation

    function test_an_operator_on_probation_has_all_of_its_segments_replayed() public {
        IComputeJobs.JobTerms memory t = termsOf(8, 2, 1);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.OnProbation.selector, provider, 2, 8));
        this.openExternally(t);
        for (uint256 i = 10; i > 0; --i) {
            assertEq(jobs.probationOf(provider), i);
            complete(termsOf(1, 1, 1));
        }
        t.openUntil = uint48(block.timestamp) + 1_000;
        openJob(t);
        complete(termsOf(1, 1, 1));
        assertEq(jobs.probationOf(provider), 0);
        // After a slash, ten again.
        t = wholeTerms();
        openJob(t);
        vm.warp(block.timestamp + 600);
        IComputeJobs.Result memory nothing;
        jobs.settle(one(t), one(nothing));
        assertEq(jobs.probationOf(provider), 10);
        t = termsOf(8, 2, 1);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.OnProbation.selector, provider, 2, 8));
        this.openExternally(t);
    }

    // ------------------------------------------------------------------------------------------------------------------ times

    function test_a_job_without_a_result_gives_the_money_back_and_costs_its_operator_a_part() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        bytes32 jobId = openJob(t);
        IComputeJobs.Result memory nothing;
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooEarly.selector, jobId, block.timestamp + 600, block.timestamp));
        jobs.settle(one(t), one(nothing));
        vm.warp(block.timestamp + 600);
        JobWork.Work memory w = honestWork(t);
        address node = nodeOf(provider);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooLate.selector, jobId, block.timestamp, block.timestamp));
        vm.prank(node);
        jobs.commitResults(one(t), one(resultOf(w)));
        jobs.settle(one(t), one(nothing));
        assertOutcome(jobId, IComputeJobs.Outcome.Late);
        assertEq(stableOf(renter), FUNDS - PRICE / 200);
        assertEq(ownActive(provider), 100 * COLLATERAL - COLLATERAL / 10);
        assertEq(vault.claimableOf(renter), COLLATERAL / 20);
        assertEq(collateralOf(provider), 0);
        assertHeld();
    }

    function test_a_result_is_the_operators_node_keys_and_is_committed_to_once() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = openJob(t);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotOperatorsNode.selector, provider, address(this)));
        jobs.commitResults(one(t), one(resultOf(w)));
        vm.expectRevert(
            abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, jobId, IComputeJobs.Phase.Running, IComputeJobs.Phase.Committed)
        );
        jobs.drawAuditors(one(t));
        commitResult(t, w);
        address node = nodeOf(provider);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, jobId, IComputeJobs.Phase.Committed, IComputeJobs.Phase.Running)
        );
        vm.prank(node);
        jobs.commitResults(one(t), one(resultOf(w)));
        assertEq(jobs.identify(t, resultOf(w)), jobId);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.WrongResult.selector, jobId));
        jobs.identify(t, IComputeJobs.Result("other", "output"));
        vm.expectRevert();
        jobs.drawAuditors(one(t)); // no randomness yet
        drawJob(t);
        uint64 first = auditorOf(jobId, 0);
        jobs.drawAuditors(one(t)); // passed over
        assertEq(auditorOf(jobId, 0), first);
    }

    function test_phases_go_on_with_time_alone() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint48 at = uint48(block.timestamp);
        assertPhase(jobId, IComputeJobs.Phase.Sealing, at + AUDIT_SECONDS);
        sealAs(right(jobId, 0));
        vm.warp(at + AUDIT_SECONDS);
        assertPhase(jobId, IComputeJobs.Phase.Revealing, at + AUDIT_SECONDS + 60);
        reveal(right(jobId, 0)); // the last that can be
        assertPhase(jobId, IComputeJobs.Phase.Window, at + AUDIT_SECONDS + CHALLENGE_SECONDS);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeJobs.TooEarly.selector, jobId, at + AUDIT_SECONDS + CHALLENGE_SECONDS, block.timestamp)
        );
        jobs.settle(one(t), one(resultOf(w)));
        settleJob(t, w);
        assertPhase(jobId, IComputeJobs.Phase.Settled, 0);

        t = wholeTerms();
        w = honestWork(t);
        jobId = toAudit(t, w);
        at = uint48(block.timestamp);
        vm.warp(at + AUDIT_SECONDS + 60);
        assertPhase(jobId, IComputeJobs.Phase.Window, at + AUDIT_SECONDS + 60 + CHALLENGE_SECONDS);
    }

    function assertPhase(bytes32 jobId, IComputeJobs.Phase phase, uint256 until) private view {
        (IComputeJobs.Phase got, uint48 end) = jobs.phaseOf(jobId);
        assertEq(uint8(got), uint8(phase));
        assertEq(end, until);
    }

    function test_a_canary_belongs_to_the_grace_of_an_audited_jobs_window() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        t.flagSeal = jobs.canarySeal(renter, t.nonce, CANARY_SALT);
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, jobId, IComputeJobs.Phase.Sealing, IComputeJobs.Phase.Window)
        );
        jobs.openCanary(t, resultOf(w), 8, 0, new bytes32[](4), CANARY_SALT);
    }

    // -------------------------------------------------------------------------------------------------------------------- log

    /// Three jobs in one transaction: one root, of their receipts in the order of their events, chained.
    function test_receipts_go_into_the_task_log_one_root_a_batch() public {
        IComputeJobs.JobTerms[] memory list = new IComputeJobs.JobTerms[](3);
        IComputeJobs.Result[] memory results = new IComputeJobs.Result[](3);
        for (uint256 i; i < 3; ++i) {
            list[i] = noneTerms();
            openJob(list[i]);
            JobWork.Work memory w = JobWork.run(list[i].specHash, 2, JobWork.NONE);
            results[i] = resultOf(w);
            commitResult(list[i], w);
        }
        bytes32[3] memory receipts;
        for (uint256 i; i < 3; ++i) {
            receipts[i] = keccak256(
                abi.encode(
                    jobs.jobIdOf(list[i]),
                    results[i].root,
                    results[i].outputDigest,
                    IComputeJobs.Outcome.Right,
                    IComputeJobs.Evidence.ReputationOnly,
                    uint256(0),
                    uint48(block.timestamp),
                    uint48(block.timestamp)
                )
            );
        }
        bytes32 root = Segments.nodeHash(Segments.nodeHash(receipts[0], receipts[1]), Segments.nodeHash(receipts[2], 0));
        bytes32 head = keccak256(abi.encode(bytes32(0), uint256(1), root));
        vm.expectEmit(address(jobs));
        emit IComputeJobs.TasksLogged(1, root, head);
        jobs.settle(list, results);
        (uint256 batches, bytes32 last) = jobs.taskLog();
        assertEq(batches, 1);
        assertEq(last, head);
        jobs.settle(list, results); // passed over: no batch
        (batches,) = jobs.taskLog();
        assertEq(batches, 1);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.LengthMismatch.selector, 3, 1));
        jobs.settle(one(list[0]), results);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.LengthMismatch.selector, 3, 1));
        jobs.commitResults(one(list[0]), results);
    }

    function test_a_settlement_names_the_result_that_was_committed_to() public {
        IComputeJobs.JobTerms memory t = noneTerms();
        bytes32 jobId = openJob(t);
        commitResult(t, JobWork.run(t.specHash, 1, JobWork.NONE));
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.WrongResult.selector, jobId));
        jobs.settle(one(t), one(IComputeJobs.Result("other", "output")));
    }

    // ------------------------------------------------------------------------------------------------------------------ rules

    function makeRules(IComputeJobs.Config memory c) external {
        deployJobRules(c, auditors, jury, address(stable));
    }

    function expectBadConfig(IComputeJobs.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadConfig.selector, field, got, limit));
        this.makeRules(c);
    }

    function test_a_configuration_that_could_not_work_is_refused() public {
        IComputeJobs.Config memory c = jobsConfig();
        c.rewardBps = 4_001;
        expectBadConfig(c, "rewardBps", 5_001, 5_000);
        c = jobsConfig();
        c.makerBps = 5_001;
        expectBadConfig(c, "makerBps", 5_001, 5_000);
        c = jobsConfig();
        c.latePenaltyBps = 10_001;
        expectBadConfig(c, "latePenaltyBps", 10_001, 10_000);
        c = jobsConfig();
        c.jurorsMin = 0;
        expectBadConfig(c, "jurorsMin", 0, 1);
        c = jobsConfig();
        c.drawDelay = 0;
        expectBadConfig(c, "drawDelay", 0, 90 days);
        c = jobsConfig();
        c.auditSecondsMax = 91 days;
        expectBadConfig(c, "auditSecondsMax", 91 days, 90 days);
        c = jobsConfig();
        c.challengeSecondsMin = 89;
        expectBadConfig(c, "challengeSecondsMin", 89, 90);
        assertEq(rules.config().graceSeconds, GRACE);
    }

    function test_the_withdrawal_delay_covers_audit_window_and_the_longer_court() public view {
        uint64 window = 10 + 5 + 300 + 600 + 60 + 2 * 3_600;
        assertEq(jobs.exposureSeconds(), window + disputes.exposureSeconds());
        assertGt(disputes.exposureSeconds(), demands.exposureSeconds());
        assertEq(auditors.exposureSeconds(), 1_000);
    }
}
