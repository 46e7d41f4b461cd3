// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ComputeJobs} from "../../src/compute/ComputeJobs.sol";
import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IComputeRewards, IFeeSource} from "../../src/compute/IComputeRewards.sol";
import {JobFees} from "../../src/compute/JobFees.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {deployAuditors, deployComputeJobs, deployJobFees, deployJobRules} from "../deploy/compute.sol";
import {deployJury} from "../deploy/governance.sol";
import {RewardsFixture} from "./compute-rewards-fixture.sol";

/// @notice Rewards within the fees of jobs and leases: the real market, jobs, auction and emission. Jobs are of the class none.
contract JobRewardsTest is RewardsFixture {
    uint256 private constant JOBS = 1; // of the sources
    uint128 private constant JOB_PRICE = 1_000e6;

    ComputeJobs private jobs;
    JobFees private jobFees;
    uint256 private nonces;

    function setUp() public override {
        super.setUp();
        IJury.Config memory court = IJury.Config(1e18, 1e17, 1e15, 3, 2, 1_000, 60, 10, 600, 300, 300, 300);
        IComputeJobs.Config memory c;
        (c.jurorsMin, c.auditorsMin) = (3, 3);
        (c.drawDelay, c.seedQuantum, c.drawSeconds, c.openSeconds, c.graceSeconds) = (10, 5, 300, 60, 30);
        (c.runSecondsMax, c.auditSecondsMin, c.auditSecondsMax) = (1 days, 10, 600);
        (c.challengeSecondsMin, c.challengeSecondsMax) = (90, 3_600);
        jobs = deployComputeJobs(
            registry,
            deployJobRules(
                c,
                deployAuditors(IAuditors.Config(6e18, 4e18, 1e18, 1_000), registry, operators, vault),
                deployJury(court, operators, vault, randomness),
                address(stable)
            ),
            randomness,
            rails,
            address(native),
            address(auction)
        );
        registry.set("computeJobs", address(jobs), true);
        jobFees = deployJobFees(jobs);
        IFeeSource[] memory sources = new IFeeSource[](2);
        (sources[0], sources[JOBS]) = (leaseFees, jobFees);
        rewards = newRewards(IComputeRewards.Config(SHARE_BPS, BASE_BPS, STREAK, VEST), sources);
        registry.set("computeRewards", address(rewards), false);
        vm.startPrank(renter);
        rails.approve(address(jobs), address(stable), type(uint256).max);
        rails.approve(address(jobs), address(native), type(uint256).max);
        vm.stopPrank();
        newDevices(6);
    }

    /// A job that is settled and paid.
    function runJob(uint64 operatorId, address token_, uint128 price) private returns (IComputeJobs.JobTerms[] memory terms) {
        terms = new IComputeJobs.JobTerms[](1);
        IComputeJobs.JobTerms memory t = terms[0];
        (t.renter, t.operatorId, t.token, t.price) = (renter, operatorId, token_, price);
        (t.openUntil, t.runSeconds, t.nonce) = (uint48(block.timestamp) + 600, 600, nonces++);
        bytes32 jobId = jobs.jobIdOf(t);
        (, uint256 renterSecret) = makeAddrAndKey("renter");
        IComputeJobs.Signatures[] memory signatures = new IComputeJobs.Signatures[](1);
        signatures[0] = IComputeJobs.Signatures(signWith(renterSecret, jobId), signWith(secretOf(operatorId), jobId));
        jobs.openJobs(terms, signatures);
        IComputeJobs.Result[] memory results = new IComputeJobs.Result[](1);
        results[0] = IComputeJobs.Result(jobId, jobId);
        vm.prank(operators.nodeKeyOf(operatorId));
        jobs.commitResults(terms, results);
        jobs.settle(terms, results);
    }

    function signWith(uint256 secret, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, digest);
        return abi.encodePacked(r, s, v);
    }

    /// A job whose fees are counted, as its operator's node has them counted.
    function runAndCount(uint64 operatorId, address token_, uint128 price) private {
        countSum(jobFees.sumUp(runJob(operatorId, token_, price)));
    }

    function countSum(uint64 id) private {
        uint64[] memory ids = new uint64[](1);
        ids[0] = id;
        rewards.countFees(JOBS, ids);
    }

    // ----------------------------------------------------------------------------------------------------------------- grants

    function test_nativeFeesOfJobsCountAsTheyAre() public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        runAndCount(1, address(native), 100e18);
        assertEq(rewards.accountOf(1).burntFees, 0.5e18);
        assertEq(rewards.grant(1), 0.5e18 * uint256(SHARE_BPS) / 10_000);
    }

    function test_stableFeesOfJobsCountForWhatTheAuctionBurntForThem() public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        runAndCount(1, address(stable), JOB_PRICE);
        (uint256 queued, uint256 unqueued) = rewards.waitingFees(1);
        assertEq(queued + unqueued, JOB_PRICE / 200 + JOB_PRICE / 50);
        assertEq(rewards.grant(1), 0); // queued, not sold
        vm.warp(block.timestamp + 1 days);
        uint256 burnt = sellLotTo(makeAddr("buyer"));
        assertEq(auction.held(), 0);
        assertEq(rewards.grant(1), burnt * SHARE_BPS / 10_000);
    }

    /// Both are number one of their source.
    function test_aSumOfJobsAndALeaseOfTheSameNumberBothCountAndOnceEach() public {
        vm.warp(health.startOf(2));
        countLease(rentAndClose(renter, 1, address(native), 3_600));
        uint256 ofLease = rewards.accountOf(1).burntFees;
        runAndCount(1, address(native), 100e18);
        assertEq(rewards.accountOf(1).burntFees, ofLease + 0.5e18);
        uint64[] memory ids = new uint64[](1);
        ids[0] = 1;
        for (uint256 source; source < 2; ++source) {
            vm.expectRevert(abi.encodeWithSelector(IComputeRewards.AlreadyCounted.selector, source, 1));
            rewards.countFees(source, ids);
        }
        ids[0] = 2;
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.NothingToCount.selector, JOBS, 2));
        rewards.countFees(JOBS, ids);
    }

    // ---------------------------------------------------------------------------------------------------------------- attacks

    /// forge-config: default.fuzz.runs = 24
    /// Operator, renter and buyer are one, at whatever price it buys its own fees back: it ends with less than it began with.
    function testFuzz_attack_orderingJobsFromOneselfNeverPays(uint128 price, uint8 count, uint32 waited, bool inStable) public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        (uint256 stableBefore, uint256 nativeBefore) = wealth();
        for (uint256 i; i <= count % 3; ++i) {
            runAndCount(1, inStable ? address(stable) : address(native), uint128(bound(price, 2, inStable ? 100_000e6 : 10_000e18)));
        }
        rewards.grant(1);
        vm.warp(block.timestamp + 1 days);
        while (auction.held() >= 1e6) {
            uint64 lotId = auction.open();
            vm.warp(auction.lot().startsAt + bound(waited, 0, auction.lot().endsAt - auction.lot().startsAt - 1));
            native.approve(address(auction), auction.cost());
            auction.buy(lotId, auction.cost(), renter);
            vm.warp(block.timestamp + 1 days);
        }
        rewards.grant(1);
        (uint256 stableAfter, uint256 nativeAfter) = wealth();
        assertLe(stableAfter, stableBefore);
        assertLe(nativeAfter + rewards.accountOf(1).granted, nativeBefore);
        assertTrue(stableAfter < stableBefore || nativeAfter + rewards.accountOf(1).granted < nativeBefore);
        // Half of what was burnt comes back, as far as performance entitles to it; the other half is gone.
        assertLe(rewards.accountOf(1).granted, uint256(rewards.accountOf(1).burntFees) * SHARE_BPS / 10_000);
        if (!inStable) assertLe(rewards.accountOf(1).burntFees, nativeBefore - nativeAfter);
        else assertLe(rewards.accountOf(1).burntFees, auction.paid());
    }

    /// Of one who is operator one, its renter and a buyer of lots.
    function wealth() private view returns (uint256 inStable, uint256 inNative) {
        address beneficiary = operators.beneficiaryOf(1);
        inStable = rails.balanceOf(address(stable), renter) + rails.balanceOf(address(stable), beneficiary) + stable.balanceOf(renter);
        inNative =
            rails.balanceOf(address(native), renter) + rails.balanceOf(address(native), beneficiary) + native.balanceOf(address(this));
    }

    function test_theHonestTwinEarnsOnWhatAnotherPaid() public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        uint256 paidBefore = rails.balanceOf(address(native), operators.beneficiaryOf(1));
        runAndCount(1, address(native), 100e18);
        assertEq(rails.balanceOf(address(native), operators.beneficiaryOf(1)) - paidBefore, 99.75e18);
        assertEq(rewards.grant(1), 0.25e18);
    }

    function test_attack_feesOfAnothersJobsGrantNothing() public {
        bytes memory figures = settleHour(2, goodStatement());
        claimHour(2, 0, figures);
        claimHour(2, 1, figures);
        runAndCount(1, address(native), 100e18);
        assertEq(rewards.grant(2), 0);
        assertGt(rewards.grant(1), 0);
    }

    function test_attack_withoutPerformanceFeesOfOwnJobsGrantNothing() public {
        runAndCount(1, address(native), 100e18);
        assertEq(rewards.grant(1), 0);
    }

    // -------------------------------------------------------------------------------------------------------------------- gas

    function testGasCountSum() public {
        uint64[] memory ids = new uint64[](1);
        ids[0] = jobFees.sumUp(runJob(1, address(native), 100e18));
        rewards.countFees(JOBS, ids);
        vm.snapshotGasLastCall("ComputeRewards", "countFees: one sum of jobs");
    }
}
