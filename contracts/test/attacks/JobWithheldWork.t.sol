// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IStateDemands} from "../../src/compute/IStateDemands.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {JobsFixture} from "../compute/jobs-fixture.sol";
import {JobWork} from "../compute/jobs-work.sol";

/// @notice Who keeps its work back, specification or contents, so that nobody can replay what it has forged, beside one that hands it over.
contract JobWithheldWorkAttack is JobsFixture {
    using JobWork for JobWork.Work;

    uint32 private constant WORK = type(uint32).max;
    uint32 private constant DELIVER = 200;
    uint256 private constant FEES = 3 * uint256(MEMBER_FEE);
    uint256 private constant NET = PRICE - PRICE / 400;
    uint256 private constant SHARE = AUDIT_FEE * 99 / 200;

    IComputeJobs.JobTerms private t;
    bytes32 private jobId;

    function setUp() public override {
        super.setUp();
        t = wholeTerms();
    }

    function forgery() private view returns (JobWork.Work memory) {
        return JobWork.makeUp(t.specHash, t.segments);
    }

    function begin(JobWork.Work memory w) private returns (address first) {
        jobId = toAudit(t, w);
        return nodeOf(auditorOf(jobId, 0));
    }

    function demandWork(JobWork.Work memory w, address by) private returns (uint64 demandId) {
        vm.prank(by);
        demandId = demands.demand(t, resultOf(w), WORK);
        assertEq(demands.workDemandOf(jobId), demandId);
    }

    function drawMembers(uint64 demandId) private {
        uint64 seedTime = demands.demandOf(demandId).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        demands.drawMembers(demandId);
    }

    function workLeaf() private view returns (Segments.Leaf memory) {
        return Segments.Leaf(WORK, 0, t.specHash);
    }

    /// The members have got specification and files, and say so.
    function confirm(uint64 demandId, JobWork.Work memory w) private {
        uint64[] memory members = demands.demandOf(demandId).members;
        bytes[] memory list = new bytes[](members.length);
        bytes32 digest = demands.deliveredDigest(demandId, workLeaf());
        for (uint256 i; i < 2; ++i) {
            list[i] = signWith(nodeSecretOf(members[i]), digest);
        }
        demands.confirm(demandId, t, resultOf(w), workLeaf(), new bytes32[](0), list);
    }

    function withheld(uint8 index) private view returns (IAuditors.Reveal memory) {
        return finding(jobId, index, IAuditors.Finding.Withheld, 0, 0);
    }

    function assertWhole(uint8 index) private view {
        assertEq(seatsOf(auditorOf(jobId, index)), AUDIT_SEAT);
    }

    // -------------------------------------------------------------------------------------------------------------- kept back

    /// It delivers any state on the chain, and its specification to nobody.
    function test_a_forger_that_keeps_its_work_back_is_guilty_and_its_auditors_lose_nothing() public {
        JobWork.Work memory w = forgery();
        address auditor = begin(w);
        uint64 demandId = demandWork(w, auditor);
        assertEq(bondsOf(auditor), 1_000e18 - FEES); // no bond
        drawMembers(demandId);
        assertEq(demands.demandOf(demandId).deliverUntil, block.timestamp + DELIVER + AUDIT_SECONDS);
        sealAndReveal(withheld(0), withheld(1));
        vm.warp(demands.demandOf(demandId).deliverUntil);
        demands.expire(demandId);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(collateralOf(provider), 0);
        assertEq(bondsOf(auditor), 1_000e18);
        assertEq(vault.claimableOf(auditor), COLLATERAL * 4 / 10);
        for (uint8 i; i < 2; ++i) {
            assertEq(stableOf(beneficiaryOf(auditorOf(jobId, i))), SHARE);
            assertWhole(i);
        }
        assertHeld();
    }

    function test_who_said_nothing_of_a_work_that_was_kept_back_does_not_pay_for_it() public {
        JobWork.Work memory w = forgery();
        uint64 demandId = demandWork(w, begin(w));
        drawMembers(demandId);
        sealAs(withheld(0)); // the other one waits for the work until its time is over
        vm.warp(block.timestamp + AUDIT_SECONDS);
        reveal(withheld(0));
        vm.warp(demands.demandOf(demandId).deliverUntil);
        demands.expire(demandId);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertWhole(1);
    }

    // ------------------------------------------------------------------------------------------------------------- handed over

    /// An auditor lied, or could not reach it: an operator that hands over its work loses nothing, and its auditors have all their time.
    function test_an_operator_that_hands_its_work_to_the_committee_loses_nothing_and_its_auditors_are_paid() public {
        JobWork.Work memory w = honestWork(t);
        address auditor = begin(w);
        uint256 stake = ownActive(provider);
        uint64 demandId = demandWork(w, auditor);
        drawMembers(demandId);
        vm.warp(block.timestamp + 50);
        confirm(demandId, w);
        (IComputeJobs.Phase phase, uint48 until) = jobs.phaseOf(jobId);
        assertEq(uint8(phase), uint8(IComputeJobs.Phase.Sealing));
        assertEq(until, block.timestamp + AUDIT_SECONDS);
        vm.warp(until - 1);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(ownActive(provider), stake);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertEq(bondsOf(auditor), 1_000e18 - FEES); // who demands pays the committee
        for (uint8 i; i < 2; ++i) {
            assertEq(stableOf(beneficiaryOf(auditorOf(jobId, i))), SHARE);
            assertWhole(i);
        }
    }

    /// It relents when everybody has sealed: what it has forged can still be replayed and challenged, by each of its auditors.
    function test_a_forger_that_hands_its_work_over_too_late_for_the_seals_is_challenged_in_the_window() public {
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 3);
        uint64 demandId = demandWork(w, begin(w));
        drawMembers(demandId);
        sealAndReveal(withheld(0), withheld(1));
        vm.warp(demands.demandOf(demandId).deliverUntil - 1);
        confirm(demandId, w);
        (, uint48 until) = jobs.phaseOf(jobId);
        assertEq(until, block.timestamp + AUDIT_SECONDS + CHALLENGE_SECONDS);
        vm.warp(until - 1);
        judge(challenge(t, w, nodeOf(auditorOf(jobId, 1)), 3), t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
    }

    /// Its twin was away: nobody is paid for what nobody audited, and nobody is punished, neither who demanded nor who did not.
    function test_work_that_came_too_late_for_the_seals_costs_no_auditor_its_stake() public {
        JobWork.Work memory w = honestWork(t);
        uint64 demandId = demandWork(w, begin(w));
        drawMembers(demandId);
        sealAndReveal(withheld(0), withheld(1));
        confirm(demandId, w);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertWhole(0);
        assertWhole(1);
    }

    /// Whenever the work is delivered, there is all the time for a replay and a challenge from then on.
    /// forge-config: default.fuzz.runs = 24
    function testFuzz_delivered_work_leaves_the_time_to_replay_and_to_challenge(uint256 demanded, uint256 delivered, bool seals) public {
        JobWork.Work memory w = honestWork(t);
        address auditor = begin(w);
        vm.warp(block.timestamp + bound(demanded, 0, AUDIT_SECONDS + 60 + CHALLENGE_SECONDS - 1));
        if (seals && block.timestamp < jobs.job(jobId).until) sealAndReveal(withheld(0), withheld(1));
        uint64 demandId = demandWork(w, auditor);
        drawMembers(demandId);
        vm.warp(bound(delivered, block.timestamp, demands.demandOf(demandId).deliverUntil - 1));
        confirm(demandId, w);
        uint256 end = block.timestamp + AUDIT_SECONDS + CHALLENGE_SECONDS;
        (IComputeJobs.Phase phase, uint48 until) = jobs.phaseOf(jobId);
        if (phase == IComputeJobs.Phase.Sealing) until += 60 + CHALLENGE_SECONDS;
        if (phase == IComputeJobs.Phase.Revealing) until += jobs.job(jobId).challengeSeconds;
        assertGe(until, end);
        vm.warp(until);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertHeld();
    }

    // -------------------------------------------------------------------------------------------------------------- who demands

    function test_only_an_auditor_of_the_job_demands_its_work_once_for_all_of_them() public {
        JobWork.Work memory w = honestWork(t);
        address auditor = begin(w);
        fundAccuser(renter);
        address[2] memory strangers = [challenger, renter];
        for (uint256 i; i < 2; ++i) {
            vm.prank(strangers[i]); // private inputs are not for sale
            vm.expectRevert(abi.encodeWithSelector(IStateDemands.NotTheirAuditor.selector, jobId, strangers[i]));
            demands.demand(t, resultOf(w), WORK);
        }
        uint64 demandId = demandWork(w, auditor);
        address other = nodeOf(auditorOf(jobId, 1));
        vm.prank(other);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.WorkIsDemanded.selector, jobId, demandId));
        demands.demand(t, resultOf(w), WORK);
        vm.prank(auditor); // its first state is free as before
        assertEq(demands.demandOf(demands.demand(t, resultOf(w), 3)).bond, 0);
    }

    function test_an_auditor_that_found_it_right_had_the_work() public {
        JobWork.Work memory w = honestWork(t);
        address auditor = begin(w);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        vm.prank(auditor);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.NotTheirAuditor.selector, jobId, auditor));
        demands.demand(t, resultOf(w), WORK);
    }

    /// The specification alone on the chain would be no work, and no leaf of the tree is it.
    function test_work_is_delivered_to_a_committee_only_and_whole() public {
        setClass(t, IComputeJobs.Determinism.Fingerprint, IComputeJobs.Engine.Module);
        t.specHash = sha256("specification");
        JobWork.Work memory w = honestWork(t);
        uint64 demandId = demandWork(w, begin(w));
        drawMembers(demandId);
        IComputeJobs.Result memory r = resultOf(w);
        bytes32[] memory none = new bytes32[](0);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.WorkIsTooMuch.selector, demandId));
        demands.deliver(demandId, t, r, workLeaf(), none, "specification");
        bytes32[] memory proof = w.proofOf(0);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.LeafNotInRoot.selector, 0));
        demands.deliver(demandId, t, r, w.leaves[0], proof, "specification");
        Segments.Leaf memory other = Segments.Leaf(WORK, 0, keccak256("another"));
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.LeafNotInRoot.selector, WORK));
        demands.confirm(demandId, t, r, other, none, new bytes[](3));
    }

    function test_a_demand_for_work_that_finds_no_committee_is_made_again() public {
        JobWork.Work memory w = honestWork(t);
        address auditor = begin(w);
        uint64 demandId = demandWork(w, auditor);
        sealAndReveal(withheld(0), replay(t, w, 1));
        vm.warp(uint256(demands.demandOf(demandId).seedTime) + 100);
        demands.expire(demandId);
        assertEq(demands.workDemandOf(jobId), 0);
        assertEq(bondsOf(auditor), 1_000e18);
        demandWork(w, auditor);
    }
}
