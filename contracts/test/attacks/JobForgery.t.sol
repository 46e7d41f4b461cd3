// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobsFixture} from "../compute/jobs-fixture.sol";
import {JobWork} from "../compute/jobs-work.sol";

/// @notice Operators that commit to what they have not run, each beside one that has.
contract JobForgeryAttack is JobsFixture {
    using JobWork for JobWork.Work;

    function test_a_forged_result_costs_its_operator_the_collateral_and_its_renter_nothing_but_fees() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toWindow(t, w);
        address accuser = nodeOf(auditorOf(jobId, 0));
        uint256 before = stableOf(renter);
        uint256 supply = token.totalSupply();
        uint256 stake = ownActive(provider);
        toTurn(jobId, true);
        uint256 caseId = challenge(t, w, accuser, auditors.auditOf(jobs, jobId, 0).segment);
        judge(caseId, t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(stableOf(beneficiaryOf(provider)), 0);
        assertEq(stableOf(renter) - before, PRICE - PRICE / 400 + PRICE / 50); // the price and what was aside for its fee
        assertEq(ownActive(provider), stake - COLLATERAL);
        assertEq(collateralOf(provider), 0);
        assertEq(vault.claimableOf(accuser), COLLATERAL * 4 / 10);
        assertEq(vault.claimableOf(renter), COLLATERAL / 10);
        assertEq(supply - token.totalSupply(), COLLATERAL / 2);
        assertEq(bondsOf(accuser), 1_000e18);
        assertGt(stableOf(beneficiaryOf(auditorOf(jobId, 0))), 0); // both are paid for what they found
        assertGt(stableOf(beneficiaryOf(auditorOf(jobId, 1))), 0);
        assertEq(jobs.probationOf(provider), 10);
        assertHeld();
    }

    function test_its_honest_twin_is_paid_and_loses_nothing() public {
        uint256 stake = ownActive(provider);
        bytes32 jobId = complete(wholeTerms());
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), PRICE - PRICE / 400);
        assertEq(ownActive(provider), stake);
        assertEq(vault.availableOf(provider), stake);
    }

    /// 1 - 0.9^2 = 19 % a job: 50 jobs pass with 0.81^50 < 0.003 %.
    function test_who_skips_a_tenth_of_the_segments_is_met_in_a_fifth_of_its_jobs_at_two_samples() public view {
        (uint256 met, uint256 longest, uint256 run) = (0, 0, 0);
        for (uint256 job; job < 200; ++job) {
            bool isMet = meets(keccak256(abi.encode("job", job)), 10);
            met += isMet ? 1 : 0;
            run = isMet ? 0 : run + 1;
            if (run > longest) longest = run;
            assertFalse(meets(keccak256(abi.encode("job", job)), 0)); // its honest twin
            assertTrue(meets(keccak256(abi.encode("job", job)), 100)); // who forges all
        }
        assertApproxEqAbs(met, 38, 18);
        assertLt(longest, 50);
    }

    /// Whether one of two segments drawn of a hundred is among the first `skipped`.
    function meets(bytes32 value, uint32 skipped) private view returns (bool) {
        uint32[] memory drawn = auditors.segmentsOf("job", IAuditors.Sampling(value, 100, 2), 7);
        assertTrue(drawn[0] != drawn[1] && drawn[0] < 100 && drawn[1] < 100);
        return drawn[0] < skipped || drawn[1] < skipped;
    }

    /// One job after the other until a skipped segment is drawn; then the skipper loses more than all that it has skipped.
    function test_a_skipper_is_caught_within_fifty_jobs_and_has_lost_by_it() public {
        passProbation();
        uint256 stake = ownActive(provider);
        uint256 done;
        for (;; ++done) {
            assertLt(done, 50);
            IComputeJobs.JobTerms memory t = termsOf(20, 2, 1);
            JobWork.Work memory w = skipTenth(t);
            bytes32 jobId = toWindow(t, w);
            IAuditors.Audit memory a = auditors.auditOf(jobs, jobId, 0);
            if (a.finding == IAuditors.Finding.Right) {
                settleJob(t, w);
                continue;
            }
            toTurn(jobId, true);
            judge(challenge(t, w, nodeOf(a.operatorId), a.segment), t, w);
            jobs.settle(one(t), one(resultOf(w)));
            assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
            break;
        }
        assertEq(ownActive(provider), stake - COLLATERAL);
        assertEq(jobs.probationOf(provider), 10); // its next ten are replayed whole
    }

    /// Two of twenty segments are made up; what lies between is run from there.
    function skipTenth(IComputeJobs.JobTerms memory t) private pure returns (JobWork.Work memory w) {
        w = honestWork(t);
        for (uint32 i; i < t.segments; ++i) {
            w.states[i + 1] = i % 10 == 5 ? keccak256(abi.encode("skipped", i)) : JobWork.step(t.specHash, i, w.states[i]);
        }
        w.commitTo();
    }

    function test_a_forged_last_segment_or_first_state_is_found_on_probation() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        w.states[0] = keccak256("another beginning");
        for (uint32 i; i < t.segments; ++i) {
            w.states[i + 1] = JobWork.step(t.specHash, i, w.states[i]);
        }
        w.commitTo();
        bytes32 jobId = toWindow(t, w);
        assertEq(uint8(auditors.auditOf(jobs, jobId, 0).finding), uint8(IAuditors.Finding.Wrong));
        assertEq(auditors.auditOf(jobs, jobId, 0).segment, 0);
        toTurn(jobId, true);
        judge(challenge(t, w, nodeOf(auditorOf(jobId, 0)), 0), t, w);
        assertTrue(jobs.job(jobId).guilty);
    }

    /// A chain of states that the specification cannot have needs no jury.
    function test_leaves_that_do_not_follow_from_one_another_convict_at_once() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        w.leaves[5].chainHash = keccak256("not h");
        w.plant();
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, false);
        (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(4), w.proofOf(5));
        vm.prank(challenger);
        disputes.proveBrokenChain(t, resultOf(w), w.leaves[4], a, w.leaves[5], b);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(vault.claimableOf(challenger), COLLATERAL * 4 / 10);
    }

    function test_the_honest_twin_of_a_broken_chain_cannot_be_convicted_by_its_leaves() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, false);
        for (uint32 i; i < t.segments; ++i) {
            (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(i), w.proofOf(i + 1));
            vm.expectRevert();
            disputes.proveBrokenChain(t, resultOf(w), w.leaves[i], a, w.leaves[i + 1], b);
        }
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
    }

    function test_a_convict_is_not_paid_for_the_job_by_settling_it_twice_or_late() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, true);
        judge(challenge(t, w, nodeOf(auditorOf(jobId, 0)), 0), t, w);
        vm.warp(block.timestamp + 30 days);
        jobs.settle(one(t), one(resultOf(w)));
        uint256 held = jobs.held(address(stable));
        jobs.settle(one(t), one(resultOf(w)));
        assertEq(jobs.held(address(stable)), held);
        assertEq(stableOf(beneficiaryOf(provider)), 0);
        // nor by bringing its terms again
        assertEq(openJob(t), jobId);
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(jobs.held(address(stable)), held);
    }
}
