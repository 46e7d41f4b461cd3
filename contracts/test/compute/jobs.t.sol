// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice A job from its terms to its receipt.
contract ComputeJobsTest is JobsFixture {
    using JobWork for JobWork.Work;

    uint128 private constant NET = PRICE - PRICE / 400;

    function test_an_honest_job_pays_operator_and_auditors_and_frees_the_collateral() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        bytes32 jobId = openJob(t);
        assertEq(stableOf(renter), FUNDS - PRICE - PRICE / 400 - PRICE / 50 - AUDIT_FEE);
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
        assertEq(stableOf(renter), FUNDS - PRICE - PRICE / 400 - PRICE / 50 - AUDIT_FEE);
        assertEq(collateralOf(provider), 0);
        assertEq(jobs.probationOf(provider), 9);
        assertHeld();
        assertEq(jobs.held(address(stable)), AUDIT_FEE / 100);
    }
}
