// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {deployAuditors} from "../deploy/compute.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice Auditors' seats, draws, seals.
contract JobSeatsTest is JobsFixture {
    using JobWork for JobWork.Work;

    uint64 private constant FIRST = 2; // auditor

    function enrolAs(address who, uint64 operatorId, uint32 count) private {
        vm.prank(who);
        auditors.enrol(operatorId, count, ALL_ENGINES);
    }

    function test_seats_lock_stake_until_some_time_after_they_were_left() public {
        address node = nodeOf(FIRST);
        enrolAs(node, FIRST, 2);
        assertEq(seatsOf(FIRST), 3 * AUDIT_SEAT);
        assertEq(auditors.auditorCount(IComputeJobs.Engine.None), 5);
        vm.prank(operators.ownerOf(FIRST));
        auditors.leave(FIRST, 2);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.StillLocked.selector, FIRST, block.timestamp + 1_000, block.timestamp));
        auditors.unlock(FIRST);
        vm.warp(block.timestamp + 1_000);
        auditors.unlock(FIRST);
        assertEq(seatsOf(FIRST), AUDIT_SEAT);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToUnlock.selector, FIRST));
        auditors.unlock(FIRST);
        // Places that were left are taken again, and stake that is still locked is not locked twice.
        vm.prank(node);
        auditors.leave(FIRST, 1);
        assertEq(auditors.auditorCount(IComputeJobs.Engine.None), 4);
        enrolAs(node, FIRST, 2);
        assertEq(seatsOf(FIRST), 2 * AUDIT_SEAT);
        assertEq(auditors.config().leaveSeconds, 1_000);
    }

    function test_only_the_operator_takes_and_leaves_its_seats_and_only_so_many() public {
        address node = nodeOf(FIRST);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NoOperator.selector, address(this)));
        auditors.enrol(FIRST, 1, ALL_ENGINES);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NoOperator.selector, address(this)));
        auditors.leave(FIRST, 1);
        vm.startPrank(node);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadSeatCount.selector, 0, 63));
        auditors.enrol(FIRST, 0, ALL_ENGINES);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadSeatCount.selector, 64, 63));
        auditors.enrol(FIRST, 64, ALL_ENGINES);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadSeatCount.selector, 2, 1));
        auditors.leave(FIRST, 2);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadSeatCount.selector, 0, 1));
        auditors.leave(FIRST, 0);
        vm.stopPrank();
    }

    function makeAuditors(IAuditors.Config memory c) external {
        deployAuditors(c, registry, operators, vault);
    }

    function test_a_configuration_that_could_not_work_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadConfig.selector, "liePenalty", 11, 10));
        this.makeAuditors(IAuditors.Config(10, 11, 1, 1));
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadConfig.selector, "liePenalty", 0, 10));
        this.makeAuditors(IAuditors.Config(10, 0, 0, 1));
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadConfig.selector, "silencePenalty", 6, 5));
        this.makeAuditors(IAuditors.Config(10, 5, 6, 1));
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadConfig.selector, "leaveSeconds", 0, 30 days));
        this.makeAuditors(IAuditors.Config(10, 5, 5, 0));
    }

    /// A seat taken in the second of the commitment, or after it, is not drawn; one left after it is.
    function test_a_draw_sees_the_seats_of_the_second_before() public {
        uint48 now_ = uint48(block.timestamp);
        uint64 late = newAuditor(60);
        vm.prank(nodeOf(FIRST));
        auditors.leave(FIRST, 1);
        bool hasLeft;
        for (uint256 i; i < 10; ++i) {
            uint64[] memory drawn = auditors.draw(keccak256(abi.encode(i)), strictly(5));
            assertEq(drawn.length, 5);
            for (uint256 k; k < 5; ++k) {
                assertTrue(drawn[k] != late);
                hasLeft = hasLeft || drawn[k] == FIRST;
            }
        }
        assertTrue(hasLeft);
        vm.warp(now_ + 1);
        assertEq(auditors.draw("seed", strictly(9)).length, 5); // the late one, and four of five
        assertEq(auditors.drawCommittee("seed", strictly(9)).length, 5);
    }

    /// A seat of six backs one duty of four: two jobs are one too many for whoever has one seat.
    function test_a_duty_is_drawn_only_where_stake_backs_it_and_stays_backed() public {
        IComputeJobs.JobTerms memory t = termsOf(1, 1, 5);
        bytes32 jobId = toAudit(t, honestWork(t));
        assertEq(auditors.draw("seed", strictly(5)).length, 5); // whom it finds full is waited for
        IComputeJobs.JobTerms memory more = termsOf(1, 1, 1);
        openJob(more);
        commitResult(more, honestWork(more));
        uint64 seedTime = jobs.seedTimeOf(jobs.jobIdOf(more));
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        vm.expectPartialRevert(IAuditors.Full.selector);
        jobs.drawAuditors(one(more));
        assertEq(auditors.drawCommittee("seed", strictly(5)).length, 5);
        vm.prank(nodeOf(FIRST));
        auditors.leave(FIRST, 1);
        vm.warp(block.timestamp + 1_000);
        auditors.unlock(FIRST);
        assertEq(seatsOf(FIRST), LIE); // its audit is not settled
        assertEq(auditors.auditor(FIRST).duties, 1);
        settleJob(t, honestWork(t));
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(seatsOf(FIRST), LIE); // nobody spoke, so nobody was silent
        auditors.unlock(FIRST);
        assertEq(seatsOf(FIRST), 0);
    }

    function test_seals_are_their_auditors_once_in_time() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        bytes32 jobId = toAudit(t, honestWork(t));
        (bytes32[] memory ids, uint8[] memory indexes, bytes18[] memory seals) = (new bytes32[](1), new uint8[](1), new bytes18[](1));
        (ids[0], seals[0]) = (jobId, "seal");
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotAuditor.selector, jobId, 0, address(this)));
        auditors.sealAudits(jobs, ids, indexes, seals);
        address node = nodeOf(auditorOf(jobId, 0));
        address other = nodeOf(auditorOf(jobId, 1));
        vm.prank(other);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotAuditor.selector, jobId, 0, other));
        auditors.sealAudits(jobs, ids, indexes, seals);
        vm.startPrank(node);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.LengthMismatch.selector, 0, 1));
        auditors.sealAudits(jobs, ids, new uint8[](0), seals);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.LengthMismatch.selector, 2, 1));
        auditors.sealAudits(jobs, ids, indexes, new bytes18[](2));
        auditors.sealAudits(jobs, ids, indexes, seals);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.AlreadySealed.selector, jobId, auditorOf(jobId, 0)));
        auditors.sealAudits(jobs, ids, indexes, seals);
        vm.stopPrank();
        vm.warp(block.timestamp + AUDIT_SECONDS);
        indexes[0] = 1;
        vm.prank(other);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooLate.selector, jobId, block.timestamp, block.timestamp));
        auditors.sealAudits(jobs, ids, indexes, seals);
    }

    function test_only_what_was_sealed_is_revealed_and_once() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        sealAs(finding(jobId, 0, IAuditors.Finding.None, 0, 0));
        sealAs(right(jobId, 1));
        vm.expectRevert(abi.encodeWithSelector(IAuditors.WrongOpening.selector, jobId, auditorOf(jobId, 0)));
        this.revealExternally(right(jobId, 0)); // another finding
        vm.expectRevert(abi.encodeWithSelector(IAuditors.WrongOpening.selector, jobId, auditorOf(jobId, 0)));
        this.revealExternally(finding(jobId, 0, IAuditors.Finding.None, 0, 0)); // says nothing
        reveal(right(jobId, 1));
        reveal(right(jobId, 1)); // passed over
        assertEq(jobs.job(jobId).revealedCount, 1);
        vm.warp(block.timestamp + 60);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.WrongOpening.selector, jobId, 0));
        this.revealExternally(right(jobId, 7)); // nobody's
    }

    function revealExternally(IAuditors.Reveal memory r) external {
        reveal(r);
    }

    function test_segments_are_distinct_within_the_job_and_each_auditors_own() public view {
        uint256 same;
        for (uint256 i; i < 20; ++i) {
            IAuditors.Sampling memory s = IAuditors.Sampling(keccak256(abi.encode(i)), 1_000, 8);
            (uint32[] memory a, uint32[] memory b) = (auditors.segmentsOf("job", s, 1), auditors.segmentsOf("job", s, 2));
            for (uint256 k; k < 8; ++k) {
                assertLt(a[k], 1_000);
                for (uint256 n; n < k; ++n) {
                    assertTrue(a[k] != a[n]);
                }
                if (a[k] == b[k]) ++same;
            }
        }
        assertLt(same, 10);
        uint32[] memory all = auditors.segmentsOf("job", IAuditors.Sampling("value", 3, 3), 1);
        assertEq(all[0] + 10 * all[1] + 100 * all[2], 210);
    }

    /// A module that was replaced finishes its jobs; the new one has nothing to do with them.
    function test_a_replaced_module_settles_the_audits_that_it_assigned() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        registry.set("computeJobs", address(otherModule), false);
        registry.set("jobDisputes", address(otherModule), false);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        t = wholeTerms();
        openJob(t);
        commitResult(t, honestWork(t));
        uint64 seedTime = jobs.seedTimeOf(jobs.jobIdOf(t));
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotComputeJobs.selector, address(jobs)));
        jobs.drawAuditors(one(t));
    }
}
