// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobFees} from "../../src/compute/JobFees.sol";
import {deployJobFees} from "../deploy/compute.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice JobFees over the contracts of jobs, and jobs that end in every way that there is. The auction's account gets nothing but fees.
abstract contract JobFeesFixture is JobsFixture {
    using JobWork for JobWork.Work;

    /// How a job ends.
    enum End {
        Unchecked, // of the class none: paid
        Right,
        Late,
        Guilty,
        Canary,
        Lowered, // nobody audits it: paid
        NotAudited
    }

    JobFees internal fees;

    function setUp() public virtual override {
        super.setUp();
        fees = deployJobFees(jobs);
    }

    function received(address token_) internal view returns (uint256) {
        return rails.balanceOf(token_, auction);
    }

    /// A settled job. After Lowered and NotAudited there are no auditors any more.
    function endAs(End end, address token_, uint128 price) internal returns (IComputeJobs.JobTerms memory t) {
        t = end == End.Unchecked ? noneTerms() : termsOf(2, 2, 1);
        (t.token, t.price, t.lowerable) = (token_, price, end == End.Lowered);
        if (token_ == address(native) && end != End.Unchecked) t.auditFee = 1e16;
        if (end == End.Right) complete(t);
        else if (end == End.Unchecked) runUnchecked(t);
        else if (end == End.Late) runLate(t);
        else if (end == End.Guilty) runForged(t);
        else if (end == End.Canary) runCanary(t);
        else runWithoutAuditors(t);
    }

    function runUnchecked(IComputeJobs.JobTerms memory t) private {
        openJob(t);
        JobWork.Work memory w = JobWork.run(t.specHash, 1, JobWork.NONE);
        commitResult(t, w);
        settleJob(t, w);
    }

    function runLate(IComputeJobs.JobTerms memory t) private {
        openJob(t);
        vm.warp(block.timestamp + t.runSeconds);
        IComputeJobs.Result memory nothing;
        jobs.settle(one(t), one(nothing));
    }

    function runForged(IComputeJobs.JobTerms memory t) private {
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, true);
        address accuser = nodeOf(auditorOf(jobId, 0));
        judge(challenge(t, w, accuser, auditors.auditOf(jobs, jobId, 0).segment), t, w);
        jobs.settle(one(t), one(resultOf(w)));
    }

    function runCanary(IComputeJobs.JobTerms memory t) private {
        t.flagSeal = jobs.canarySeal(renter, t.nonce, CANARY_SALT);
        JobWork.Work memory w = honestWork(t);
        bytes32[] memory hashes = new bytes32[](3);
        (hashes[0], hashes[1]) = (w.leaves[0].stateHash, w.leaves[1].stateHash);
        hashes[2] = jobs.canaryStateHash(CANARY_SALT, 2);
        w.commitToHashes(hashes);
        toWindow(t, w);
        jobs.openCanary(t, resultOf(w), 2, w.leaves[2].chainHash, w.proofOf(2), CANARY_SALT);
        jobs.settle(one(t), one(resultOf(w)));
    }

    function runWithoutAuditors(IComputeJobs.JobTerms memory t) private {
        bytes32 jobId = openJob(t);
        for (uint64 id = 1; id <= operators.operatorCount(); ++id) {
            if (auditors.auditor(id).seats == 0) continue;
            vm.prank(nodeOf(id));
            auditors.leave(id, 1);
        }
        vm.warp(block.timestamp + 1);
        JobWork.Work memory w = honestWork(t);
        commitResult(t, w);
        vm.warp(jobs.seedTimeOf(jobId) + jobsConfig().drawSeconds);
        drawJob(t);
        settleJob(t, w);
    }

    // ------------------------------------------------------------------------------------------------------------------- sums

    function sumOne(IComputeJobs.JobTerms memory t) internal returns (uint64) {
        return fees.sumUp(one(t));
    }

    function two(IComputeJobs.JobTerms memory a, IComputeJobs.JobTerms memory b)
        internal
        pure
        returns (IComputeJobs.JobTerms[] memory list)
    {
        list = new IComputeJobs.JobTerms[](2);
        (list[0], list[1]) = (a, b);
    }

    function assertFees(uint64 id, uint64 operatorId, uint256 stableFees, uint256 nativeFees) internal view {
        (uint64 gotOperator, uint256 gotStable, uint256 gotNative) = fees.feesOf(id);
        assertEq(gotOperator, operatorId);
        assertEq(gotStable, stableFees);
        assertEq(gotNative, nativeFees);
    }

    function phaseIs(IComputeJobs.JobTerms memory t, IComputeJobs.Phase phase) internal view returns (bytes memory) {
        return abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, jobs.jobIdOf(t), phase, IComputeJobs.Phase.Settled);
    }
}
