// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice What a receipt may claim: never more than was replayed, and never less without saying so.
contract JobClassesTest is JobsFixture {
    uint128 private constant NET = PRICE - PRICE / 400;
    uint256 private constant CHARGED = PRICE + PRICE / 400 + PRICE / 50 + AUDIT_FEE;

    function test_a_job_that_cannot_be_checked_is_paid_at_once_and_its_receipt_says_so() public {
        IComputeJobs.JobTerms memory t = noneTerms();
        bytes32 jobId = openJob(t);
        JobWork.Work memory w = JobWork.run(t.specHash, 1, JobWork.NONE);
        commitResult(t, w);
        vm.expectEmit(true, false, false, false, address(jobs));
        emit IComputeJobs.JobSettled(jobId, IComputeJobs.Outcome.Right, IComputeJobs.Evidence.ReputationOnly, 0, 0, 0, 0);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertEq(jobs.probationOf(provider), 10); // proves nothing
    }

    function test_evidence_is_what_the_class_allows() public {
        IComputeJobs.JobTerms memory t = termsOf(1, 1, 1);
        setClass(t, IComputeJobs.Determinism.Fingerprint, IComputeJobs.Engine.Image);
        assertEq(uint8(jobs.job(openJob(t)).evidence), uint8(IComputeJobs.Evidence.Fingerprinted));
        t = termsOf(1, 1, 1);
        setClass(t, IComputeJobs.Determinism.ExactOutput, IComputeJobs.Engine.Module);
        assertEq(uint8(jobs.job(openJob(t)).evidence), uint8(IComputeJobs.Evidence.Replayed));
    }

    function dismissJurors(uint256 left) private {
        for (uint64 id = 1; id <= operators.operatorCount() && jury.jurorCount() > left; ++id) {
            if (jury.juror(id).seats == 0) continue;
            vm.prank(operators.nodeKeyOf(id));
            jury.leave(id, 1);
        }
    }

    function test_too_few_jurors_refuse_the_job_or_lower_its_class_where_the_terms_accept_that() public {
        dismissJurors(2);
        IComputeJobs.JobTerms memory t = wholeTerms();
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewForClass.selector, 2, 3, 5, 3));
        this.openExternally(t);
        t.lowerable = true;
        bytes32 jobId = jobs.jobIdOf(t);
        vm.expectEmit(address(jobs));
        emit IComputeJobs.ClassLowered(jobId, IComputeJobs.Evidence.ReputationOnly, 2, 5);
        openJob(t);
        JobWork.Work memory w = honestWork(t);
        commitResult(t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(renter), FUNDS - CHARGED + AUDIT_FEE); // nobody has audited
        assertHeld();
    }

    function test_the_operators_own_seat_judges_nothing_of_its_job() public {
        dismissJurors(2);
        vm.prank(nodeOf(provider));
        jury.enrol(provider, 1);
        IComputeJobs.JobTerms memory t = wholeTerms();
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewForClass.selector, 2, 3, 5, 3));
        this.openExternally(t);
    }

    function leaveSeats(uint256 left) private {
        for (uint64 id = 1; id <= operators.operatorCount() && auditors.auditorCount(IComputeJobs.Engine.Strict) > left; ++id) {
            if (auditors.auditor(id).seats == 0 || id == provider) continue;
            vm.prank(operators.nodeKeyOf(id));
            auditors.leave(id, 1);
        }
    }

    function test_too_few_auditors_refuse_the_job_or_lower_its_class() public {
        vm.prank(nodeOf(provider));
        auditors.enrol(provider, 1, ALL_ENGINES);
        leaveSeats(3);
        IComputeJobs.JobTerms memory t = wholeTerms();
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewForClass.selector, 5, 3, 2, 3));
        this.openExternally(t);
        t.lowerable = true;
        assertEq(jobs.job(openJob(t)).auditors, 0);
    }

    /// All leave between opening and commitment.
    function goWithout(bool lowerable) private returns (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) {
        t = wholeTerms();
        t.lowerable = lowerable;
        jobId = openJob(t);
        leaveSeats(1);
        vm.warp(block.timestamp + 1);
        w = honestWork(t);
        commitResult(t, w);
        uint64 seedTime = jobs.seedTimeOf(jobId);
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewAuditors.selector, jobId, 1, 2));
        jobs.drawAuditors(one(t)); // for now
        vm.expectRevert(
            abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, jobId, IComputeJobs.Phase.Committed, IComputeJobs.Phase.Window)
        );
        jobs.settle(one(t), one(resultOf(w)));
        vm.warp(seedTime + 300);
        vm.expectEmit(address(jobs));
        emit IComputeJobs.ClassLowered(jobId, IComputeJobs.Evidence.ReputationOnly, 5, 1);
        jobs.drawAuditors(one(t));
        jobs.settle(one(t), one(resultOf(w)));
    }

    function test_a_draw_that_finds_too_few_lowers_the_class_in_the_end() public {
        (,, bytes32 jobId) = goWithout(true);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertEq(stableOf(renter), FUNDS - CHARGED + AUDIT_FEE);
        assertEq(jobs.probationOf(provider), 10);
        assertHeld();
    }

    function test_or_ends_the_job_without_a_price_and_without_loss_of_stake() public {
        (,, bytes32 jobId) = goWithout(false);
        assertOutcome(jobId, IComputeJobs.Outcome.NotAudited);
        assertEq(stableOf(beneficiaryOf(provider)), 0);
        assertEq(stableOf(renter), FUNDS - PRICE / 200); // but for the reservation
        assertEq(collateralOf(provider), 0);
        assertEq(ownActive(provider), 100 * COLLATERAL);
        assertHeld();
    }
}
