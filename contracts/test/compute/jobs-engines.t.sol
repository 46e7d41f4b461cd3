// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice Auditors are drawn for jobs whose engine they have, and for no others. Five of the fixture have all engines.
contract JobEnginesTest is JobsFixture {
    uint64 private constant FIRST = 2; // auditor

    function imageTerms(uint8 count) private returns (IComputeJobs.JobTerms memory t) {
        t = termsOf(1, 1, count);
        setClass(t, IComputeJobs.Determinism.ExactOutput, IComputeJobs.Engine.Image);
    }

    function change(uint64 auditor, uint8 engines) private {
        vm.prank(nodeOf(auditor));
        auditors.changeEngines(auditor, engines);
    }

    function countOf(IComputeJobs.Engine engine) private view returns (uint256) {
        return auditors.auditorCount(engine);
    }

    /// Three have the engine, six have not, and these hold most of the stake.
    function test_who_lacks_a_jobs_engine_is_neither_drawn_nor_punished_and_who_has_it_is_paid() public {
        change(FIRST, STRICT | MODULE);
        change(FIRST + 1, MODULE);
        for (uint256 i; i < 4; ++i) {
            newAuditor(9, STRICT | MODULE);
        }
        vm.warp(block.timestamp + 1);
        for (uint256 i; i < 10; ++i) {
            IComputeJobs.JobTerms memory t = imageTerms(3);
            JobWork.Work memory w = honestWork(t);
            bytes32 jobId = toWindow(t, w);
            for (uint8 k; k < 3; ++k) {
                assertTrue(auditors.replays(auditorOf(jobId, k), IComputeJobs.Engine.Image));
            }
            settleJob(t, w);
            assertOutcome(jobId, IComputeJobs.Outcome.Right);
        }
        for (uint64 id = FIRST; id <= operators.operatorCount(); ++id) {
            if (auditors.auditor(id).seats == 0) continue;
            bool hasImage = auditors.replays(id, IComputeJobs.Engine.Image);
            assertEq(stableOf(beneficiaryOf(id)) > 0, hasImage);
            assertEq(seatsOf(id), uint256(auditors.auditor(id).seats) * AUDIT_SEAT); // nobody has lost anything
        }
    }

    function test_too_few_with_the_engine_refuse_the_job_or_lower_its_class_while_others_are_audited() public {
        for (uint64 id = FIRST; id < FIRST + 3; ++id) {
            change(id, STRICT);
        }
        vm.warp(block.timestamp + 1);
        IComputeJobs.JobTerms memory t = imageTerms(2);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewForClass.selector, 5, 3, 2, 3));
        this.openExternally(t);
        t.lowerable = true;
        bytes32 jobId = jobs.jobIdOf(t);
        vm.expectEmit(address(jobs));
        emit IComputeJobs.ClassLowered(jobId, IComputeJobs.Evidence.ReputationOnly, 5, 2);
        openJob(t);
        assertEq(jobs.job(jobId).auditors, 0);
        assertEq(uint8(jobs.job(openJob(wholeTerms())).evidence), uint8(IComputeJobs.Evidence.Replayed));
    }

    /// They have the engine when the job is opened, and have left it when it is committed to.
    function test_engines_that_are_gone_when_auditors_are_drawn_lower_the_class_in_the_end() public {
        IComputeJobs.JobTerms memory t = imageTerms(2);
        t.lowerable = true;
        bytes32 jobId = openJob(t);
        for (uint64 id = FIRST; id < FIRST + 4; ++id) {
            change(id, STRICT);
        }
        vm.warp(block.timestamp + 1);
        JobWork.Work memory w = honestWork(t);
        commitResult(t, w);
        uint64 seedTime = jobs.seedTimeOf(jobId);
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewAuditors.selector, jobId, 1, 2));
        jobs.drawAuditors(one(t));
        vm.warp(seedTime + 300);
        vm.expectEmit(address(jobs));
        emit IComputeJobs.ClassLowered(jobId, IComputeJobs.Evidence.ReputationOnly, 5, 1);
        jobs.drawAuditors(one(t));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        for (uint64 id = FIRST; id < FIRST + 5; ++id) {
            assertEq(seatsOf(id), AUDIT_SEAT);
        }
    }

    function test_the_operators_own_seat_counts_only_where_it_has_the_engine() public {
        vm.prank(nodeOf(provider));
        auditors.enrol(provider, 1, STRICT);
        change(FIRST, STRICT);
        change(FIRST + 1, STRICT);
        openJob(imageTerms(2)); // three others
        change(FIRST + 2, STRICT);
        change(provider, IMAGE);
        IComputeJobs.JobTerms memory t = imageTerms(2);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooFewForClass.selector, 5, 3, 2, 3));
        this.openExternally(t);
    }

    function test_a_draw_sees_the_engines_of_the_second_before() public {
        uint48 before = uint48(block.timestamp);
        vm.warp(before + 10);
        change(FIRST, STRICT);
        IAuditors.Wanted memory w = wanted(IComputeJobs.Engine.Image, 9);
        assertEq(auditors.draw("seed", w).length, 5); // its engines were all in the second before
        w.seenAt = before + 11;
        assertEq(auditors.draw("seed", w).length, 4);
        w.engine = IComputeJobs.Engine.None;
        assertEq(auditors.drawCommittee("seed", w).length, 5); // takes delivery: needs no engine
    }

    function test_engines_are_known_ones_and_the_same_for_all_seats_of_an_operator() public {
        vm.startPrank(nodeOf(FIRST));
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadEngines.selector, 0, ALL_ENGINES));
        auditors.enrol(FIRST, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadEngines.selector, STRICT | 1, ALL_ENGINES));
        auditors.enrol(FIRST, 1, STRICT | 1);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadEngines.selector, 16, ALL_ENGINES));
        auditors.enrol(FIRST, 1, 16);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.OtherEngines.selector, FIRST, STRICT, ALL_ENGINES));
        auditors.enrol(FIRST, 1, STRICT);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.BadEngines.selector, 0, ALL_ENGINES));
        auditors.changeEngines(FIRST, 0);
        vm.expectEmit(address(auditors));
        emit IAuditors.EnginesChanged(FIRST, STRICT);
        auditors.changeEngines(FIRST, STRICT);
        auditors.enrol(FIRST, 1, STRICT);
        assertEq(auditors.auditor(FIRST).engines, STRICT);
        auditors.leave(FIRST, 2);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NoSeats.selector, FIRST));
        auditors.changeEngines(FIRST, IMAGE);
        auditors.enrol(FIRST, 1, IMAGE); // who holds none takes seats for any
        vm.stopPrank();
        assertEq(seatsOf(FIRST), 2 * AUDIT_SEAT); // what was still locked is not locked twice
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NoOperator.selector, address(this)));
        auditors.changeEngines(FIRST, STRICT);
    }

    function test_terms_name_the_engine_of_their_class() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        t.engine = IComputeJobs.Engine.Image;
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadTerms.selector, "engine", 3, 1));
        this.openExternally(t);
        t = imageTerms(2);
        t.engine = IComputeJobs.Engine.Strict;
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadTerms.selector, "engine", 1, 2));
        this.openExternally(t);
        t = noneTerms();
        t.engine = IComputeJobs.Engine.Image;
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.BadTerms.selector, "engine", 3, 0));
        this.openExternally(t);
    }

    /// Whatever engines and seats operators take, leave and take again: the counts are right, and a draw finds all that have an engine, and no other.
    function testFuzz_a_draw_finds_who_has_the_engine_and_nobody_else(uint8[6] memory masks, uint8[6] memory again, uint256 seed) public {
        uint64[6] memory ids;
        for (uint256 i; i < 6; ++i) {
            ids[i] = newAuditor(1 + uint32(masks[i]) % 3, engineMask(masks[i]));
            if (again[i] % 2 == 0) change(ids[i], engineMask(again[i]));
            if (again[i] % 7 == 0) leaveAll(ids[i]);
        }
        vm.warp(block.timestamp + 1);
        for (uint8 e = 1; e <= uint8(type(IComputeJobs.Engine).max); ++e) {
            IComputeJobs.Engine engine = IComputeJobs.Engine(e);
            uint64[] memory drawn = auditors.draw(keccak256(abi.encode(seed)), wanted(engine, 20));
            uint256 expected = 5;
            for (uint256 i; i < 6; ++i) {
                uint8 mask = engineMask(again[i] % 2 == 0 ? again[i] : masks[i]);
                if (again[i] % 7 != 0 && mask >> e & 1 == 1) ++expected;
            }
            assertEq(drawn.length, expected);
            assertEq(countOf(engine), expected);
            for (uint256 i; i < drawn.length; ++i) {
                assertTrue(auditors.replays(drawn[i], engine));
            }
        }
    }

    function leaveAll(uint64 auditor) private {
        uint32 seats = auditors.auditor(auditor).seats;
        vm.prank(nodeOf(auditor));
        auditors.leave(auditor, seats);
    }

    function engineMask(uint8 random) private pure returns (uint8) {
        return (1 + random % 7) << 1;
    }

    /// Whatever happens to a seat, several times in one second too: a draw sees each second as it was at its end.
    function testFuzz_a_draw_sees_every_second_as_it_was(uint8[10] memory steps) public {
        uint48[10] memory times;
        bool[10] memory had;
        uint48 time = uint48(block.timestamp) + 1;
        for (uint256 i; i < 10; ++i) {
            if (steps[i] & 1 == 1) time += 1 + steps[i] / 16;
            vm.warp(time);
            uint8 engines = steps[i] & 4 == 0 ? STRICT : ALL_ENGINES;
            if (auditors.auditor(FIRST).seats == 0) {
                vm.prank(nodeOf(FIRST));
                auditors.enrol(FIRST, 1, engines);
            } else if (steps[i] & 2 == 0) {
                leaveAll(FIRST);
            } else {
                change(FIRST, engines);
            }
            (times[i], had[i]) = (time, auditors.replays(FIRST, IComputeJobs.Engine.Image));
        }
        IAuditors.Wanted memory w = wanted(IComputeJobs.Engine.Image, 9);
        for (uint256 i; i < 10; ++i) {
            if (i < 9 && times[i + 1] == times[i]) continue; // not the end of its second
            w.seenAt = times[i] + 1;
            assertEq(auditors.draw("seed", w).length, had[i] ? 5 : 4);
        }
    }
}
