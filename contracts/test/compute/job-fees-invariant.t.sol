// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobFeesFixture} from "./job-fees-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice Jobs at any prices in either token, audited or not, in time or late, brought in any order, too early, twice: never is more
/// counted than the auction has got, and in the end exactly that.
contract JobFeesInvariantTest is JobFeesFixture {
    using JobWork for JobWork.Work;

    uint256 private constant JOBS_MAX = 12;

    IComputeJobs.JobTerms[] private terms;

    function setUp() public override {
        super.setUp();
        for (uint64 id = 2; id <= 6; ++id) {
            vm.prank(nodeOf(id));
            auditors.enrol(id, 10, ALL_ENGINES);
        }
        vm.warp(block.timestamp + 1);
        bytes4[] memory selectors = new bytes4[](7);
        selectors[0] = this.open.selector;
        selectors[1] = this.open.selector;
        selectors[2] = this.advance.selector;
        selectors[3] = this.advance.selector;
        selectors[4] = this.advance.selector;
        selectors[5] = this.bring.selector;
        selectors[6] = this.wait.selector;
        targetSelector(FuzzSelector(address(this), selectors));
        targetContract(address(this));
    }

    // ---------------------------------------------------------------------------------------------------------------- actions

    function open(uint256 seed) external {
        if (terms.length == JOBS_MAX) return;
        IComputeJobs.JobTerms memory t = seed % 3 == 0 ? termsOf(1, 1, 1) : noneTerms();
        t.token = seed / 3 % 2 == 0 ? address(stable) : address(native);
        (t.price, t.auditFee) = (uint128(2 + seed / 6 % 1e9), t.auditors == 0 ? 0 : t.token == address(stable) ? AUDIT_FEE : 1e16);
        terms.push(t);
        openJob(t);
    }

    function advance(uint256 seed) external {
        if (terms.length == 0) return;
        step(terms[seed % terms.length]);
    }

    /// One step towards its end, in time or late.
    function step(IComputeJobs.JobTerms memory t) private {
        bytes32 jobId = jobs.jobIdOf(t);
        JobWork.Work memory w = JobWork.run(t.specHash, 1, JobWork.NONE);
        (IComputeJobs.Phase phase, uint48 until) = jobs.phaseOf(jobId);
        if (phase == IComputeJobs.Phase.Running && block.timestamp < until) commitResult(t, w);
        else if (phase == IComputeJobs.Phase.Committed) drawJob(t);
        else if (phase == IComputeJobs.Phase.Sealing) sealAs(right(jobId, 0));
        else if (phase == IComputeJobs.Phase.Revealing && auditors.auditOf(jobs, jobId, 0).seal != 0) reveal(right(jobId, 0));
        else if (block.timestamp >= until) jobs.settle(one(t), one(resultOf(w)));
    }

    /// Any of them, one perhaps twice, settled or not.
    function bring(uint256 seed) external {
        if (terms.length == 0) return;
        IComputeJobs.JobTerms[] memory batch = new IComputeJobs.JobTerms[](1 + seed % 3);
        bool areSettled = true;
        for (uint256 i; i < batch.length; ++i) {
            batch[i] = terms[(seed >> (8 + 8 * i)) % terms.length];
            areSettled = areSettled && jobs.job(jobs.jobIdOf(batch[i])).phase == IComputeJobs.Phase.Settled;
        }
        try fees.sumUp(batch) {
            assertTrue(areSettled);
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), IComputeJobs.WrongPhase.selector);
            assertFalse(areSettled);
        }
    }

    function wait(uint256 seed) external {
        vm.warp(block.timestamp + 1 + seed % 400);
    }

    // ------------------------------------------------------------------------------------------------------------- invariants

    function counted() private view returns (uint256 stableFees, uint256 nativeFees) {
        for (uint64 id = 1; id <= fees.sumCount(); ++id) {
            (uint64 operatorId, uint256 inStable, uint256 inNative) = fees.feesOf(id);
            assertEq(operatorId, provider);
            (stableFees, nativeFees) = (stableFees + inStable, nativeFees + inNative);
        }
    }

    /// forge-config: default.invariant.runs = 4
    function invariant_no_more_is_counted_than_the_auction_received() public view {
        (uint256 stableFees, uint256 nativeFees) = counted();
        assertLe(stableFees, received(address(stable)));
        assertLe(nativeFees, received(address(native)));
    }

    /// Everything is settled and brought by anybody.
    function afterInvariant() public {
        for (uint256 i; i < terms.length; ++i) {
            bytes32 jobId = jobs.jobIdOf(terms[i]);
            while (jobs.job(jobId).phase != IComputeJobs.Phase.Settled) {
                vm.warp(block.timestamp + 600);
                step(terms[i]);
            }
            sumOne(terms[i]);
            assertGt(fees.sumOf(jobId), 0);
        }
        (uint256 stableFees, uint256 nativeFees) = counted();
        assertEq(stableFees, received(address(stable)));
        assertEq(nativeFees, received(address(native)));
    }
}
