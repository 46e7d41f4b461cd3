// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";
import {IComputeRewards, IFeeSource} from "../../src/compute/IComputeRewards.sol";
import {RewardsFixture} from "./compute-rewards-fixture.sol";

contract ComputeRewardsTest is RewardsFixture {
    function setUp() public override {
        super.setUp();
        newDevices(6);
    }

    function test_anHourIsSharedOutByPerformanceAndStability() public {
        bytes memory figures = settleHour(2, goodStatement());
        uint256 whole = rewards.emissionOf(2);
        assertEq(whole, emission.emissionOf(2));
        uint256 sum;
        for (uint32 seat; seat < 6; ++seat) {
            uint256 amount = claimHour(2, seat, figures);
            assertEq(amount, whole * 11_000 * BASE_BPS / (66_000 * 10_000));
            sum += amount;
        }
        assertEq(native.balanceOf(address(rewards)), emission.emitted());
        assertLe(sum, whole * BASE_BPS / 10_000);
        // Each share is rounded down: less than a base unit is lost by each.
        assertLt(whole * BASE_BPS / 10_000 - sum, 6);
    }

    function test_noHourIsClaimedTwiceOrOutOfOrder() public {
        bytes memory second = proposeHour(2, goodStatement());
        bytes memory third = proposeHour(3, goodStatement());
        bytes memory fourth = settleHour(4, goodStatement());
        claimHour(2, 0, second);
        IComputeRewards.Claim[] memory again = claimOf(2, 0, second);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.ClaimedBefore.selector, 1, 2, 1, 1));
        rewards.claim(again);
        claimHour(3, 0, third);
        assertEq(rewards.recordOf(1).streak, 2);
        claimHour(4, 1, fourth);
        assertEq(rewards.recordOf(2).streak, 1); // it left two out
        IComputeRewards.Claim[] memory late = claimOf(3, 1, third);
        vm.expectPartialRevert(IComputeRewards.ClaimedBefore.selector);
        rewards.claim(late);
    }

    function test_stabilityGrowsWithFinalHoursInARowAndHoursPassedOverEndNoStreak() public {
        bytes memory figures = proposeHour(2, goodStatement());
        // Nobody proposes hour 3.
        bytes memory later = settleHour(4, goodStatement());
        claimHour(2, 0, figures);
        assertEq(health.finalHour(4).ordinal, 2);
        claimHour(4, 0, later);
        assertEq(rewards.recordOf(1).streak, 2);
        assertEq(rewards.stabilityBps(1), BASE_BPS);
        assertEq(rewards.stabilityBps(2), BASE_BPS + 8_000 / 4);
        assertEq(rewards.stabilityBps(STREAK + 1), 10_000);
        assertEq(rewards.stabilityBps(1_000), 10_000);
    }

    function test_aDeviceWithoutPerformanceClaimsNothing() public {
        bytes memory figures = settleHour(2, statement(IComputeHealth.Verdict.Missed, 10_000, 1, 5_000));
        IComputeRewards.Claim[] memory claims = claimOf(2, 0, figures);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.NoPerformance.selector, 2, 0, IComputeHealth.Reason.ChallengeMissed));
        rewards.claim(claims);
        bytes memory forged = bytes.concat(figures);
        forged[5] = 0x01;
        claims = claimOf(2, 0, forged);
        vm.expectPartialRevert(IComputeHealth.WrongOpening.selector);
        rewards.claim(claims);
    }

    function test_withoutBurntFeesNothingIsGranted() public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        assertGt(rewards.accountOf(1).entitled, 0);
        assertEq(rewards.grant(1), 0);
        assertEq(rewards.release(1), 0);
    }

    function test_nativeFeesCountAsTheyAreAndAGrantVestsToOperatorAndBackers() public {
        address backer = makeAddr("backer");
        backStake(1, backer, 1_000e18);
        claimHour(2, 0, settleHour(2, goodStatement()));
        uint64 leaseId = rentAndClose(renter, 1, address(native), 3_600);
        countLease(leaseId);
        uint256 fees = 2 * uint256(PRICE) / 400;
        assertEq(rewards.accountOf(1).burntFees, fees);
        uint256 granted = rewards.grant(1);
        assertEq(granted, fees * SHARE_BPS / 10_000);
        assertEq(rewards.obligations(), granted);
        // It begins to vest with the next period, and has vested with that one's end.
        uint256 next = (block.timestamp / VEST + 1) * VEST;
        vm.warp(next);
        assertEq(rewards.releasable(1), 0);
        vm.warp(next + VEST / 2);
        assertEq(rewards.release(1), granted / 2);
        vm.warp(next + VEST);
        assertEq(rewards.release(1), granted - granted / 2);
        assertEq(rewards.obligations(), 0);
        // Own stake lost no bond: a thousand each, after the operator's take.
        uint256 toBackers = income.backersPurse(1, address(native));
        uint256 shared = granted - granted * TAKE_BPS / 10_000;
        assertApproxEqAbs(toBackers, shared / 2, 2);
        assertEq(toBackers + income.operatorClaimable(1, address(native)), granted);
        uint256 claimable = income.claimableOf(1, address(native), backer);
        vm.prank(backer);
        income.claim(1, address(native), backer);
        assertEq(native.balanceOf(backer), claimable);
    }

    function test_stableFeesCountForWhatTheAuctionBurntForThem() public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        countLease(rentAndClose(renter, 1, address(stable), 10 * 3_600));
        uint256 fees = 2 * 10 * uint256(PRICE) / 400;
        (uint256 queued, uint256 unqueued) = rewards.waitingFees(1);
        assertEq(queued + unqueued, fees);
        assertEq(rewards.grant(1), 0); // queued, not sold
        vm.warp(block.timestamp + 1 days);
        uint256 burnt;
        while (auction.sold() < fees) {
            burnt += sellLotTo(makeAddr("buyer"));
            vm.warp(block.timestamp + 1 days);
        }
        uint256 granted = rewards.grant(1);
        assertEq(rewards.accountOf(1).burntFees, burnt);
        assertGt(burnt * SHARE_BPS / 10_000, rewards.accountOf(1).entitled); // lots begin at twice par
        assertEq(granted, rewards.accountOf(1).entitled);
    }

    function test_aLeaseIsCountedOnceAndWhenItIsClosed() public {
        vm.warp(health.startOf(2));
        uint64 leaseId = rentAndClose(renter, 1, address(native), 3_600);
        uint64[] memory ids = new uint64[](1);
        ids[0] = leaseId;
        rewards.countFees(0, ids);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.AlreadyCounted.selector, 0, leaseId));
        rewards.countFees(0, ids);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.UnknownSource.selector, 1, 1));
        rewards.countFees(1, ids);
    }

    /// forge-config: default.fuzz.runs = 32
    /// Prices in either token: what is counted is what was taken, but for the two base units of an ambiguous price.
    function testFuzz_countedFeesAreThoseThatWereTaken(uint32 length, bool inStable) public {
        vm.warp(health.startOf(2));
        uint64 time = uint64(bound(length, 60, 10 days));
        uint256 before = rails.balanceOf(inStable ? address(stable) : address(native), address(auction));
        uint64 leaseId = rentAndClose(renter, 1, inStable ? address(stable) : address(native), time);
        uint256 taken = rails.balanceOf(inStable ? address(stable) : address(native), address(auction)) - before;
        (, uint256 stableFees, uint256 nativeFees) = leaseFees.feesOf(leaseId);
        assertLe(stableFees + nativeFees, taken);
        assertLe(taken - stableFees - nativeFees, 2);
    }

    function test_anHourWhoseEmissionIsNotDueWaits() public {
        // The hour of health is that of the emission, and over before it can be final; a shorter one could be.
        bytes memory figures = settleHour(2, goodStatement());
        vm.warp(health.startOf(3) - 1);
        IComputeRewards.Claim[] memory claims = claimOf(2, 0, figures);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.EmissionNotDue.selector, 2, 2, 1));
        rewards.claim(claims);
    }

    function test_constructionRefusesSharesAndVestingThatBreakTheRule() public {
        IFeeSource[] memory none = new IFeeSource[](0);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.BadConfig.selector, bytes32("shareBps"), 9_001, 9_000));
        newRewards(IComputeRewards.Config(9_001, 0, 1, VEST), none);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.BadConfig.selector, bytes32("vestSeconds"), WINDOW - 1, WINDOW));
        newRewards(IComputeRewards.Config(9_000, 0, 1, WINDOW - 1), none);
        vm.expectRevert(abi.encodeWithSelector(IComputeRewards.BadConfig.selector, bytes32("streakHours"), 0, 1));
        newRewards(IComputeRewards.Config(9_000, 0, 0, VEST), none);
    }

    // ------------------------------------------------------------------------------------------------------------ attacks

    /// forge-config: default.fuzz.runs = 24
    /// Owner, renter and buyer are one. Lots sell at whatever price it picks; the market's is par. Its worth is counted in native at par.
    function testFuzz_rentingFromOneselfNeverPays(uint16 hours_, uint32 waited, bool inStable) public {
        bytes memory figures = settleHour(2, goodStatement());
        claimHour(2, 0, figures);
        uint64 time = uint64(bound(hours_, 1, 16)) * 3_600;
        uint64 leaseId = rentAndClose(renter, 1, inStable ? address(stable) : address(native), time);
        countLease(leaseId);
        (, uint256 stableFees, uint256 nativeFees) = leaseFees.feesOf(leaseId);
        rewards.grant(1);
        uint256 burnt;
        uint256 got;
        vm.warp(block.timestamp + 1 days);
        while (inStable && auction.held() >= 1e6) {
            uint64 lotId = auction.open();
            vm.warp(auction.lot().startsAt + bound(waited, 0, auction.lot().endsAt - auction.lot().startsAt - 1));
            uint256 cost = auction.cost();
            native.approve(address(auction), cost);
            auction.buy(lotId, cost, address(this));
            (burnt, got) = (burnt + cost, got + auction.lot().amount);
            vm.warp(block.timestamp + 1 days);
        }
        uint256 reward = rewards.grant(1);
        // paid: fees, at par, and what was burnt for lots; got: the lots, at par, and the reward
        uint256 spent = stableFees * PAR / 1e18 + nativeFees + burnt;
        assertLt(got * PAR / 1e18 + rewards.accountOf(1).granted, spent + (burnt < got * PAR / 1e18 ? got * PAR / 1e18 - burnt : 0));
        assertLe(rewards.accountOf(1).granted, (burnt + nativeFees) * SHARE_BPS / 10_000);
        assertLe(reward, rewards.accountOf(1).granted);
    }

    function test_theHonestTwinEarnsOnWhatOthersPaid() public {
        bytes memory figures = settleHour(2, goodStatement());
        claimHour(2, 3, figures);
        countLease(rentAndClose(renter, 4, address(native), 100 * 3_600));
        assertEq(rewards.grant(4), 100 * uint256(PRICE) / 200 * SHARE_BPS / 10_000);
    }

    /// What has vested is distributed before anybody's stake changes: as its honest twin without the attack.
    function test_attack_backingJustBeforeARelease() public {
        (address backer, address latecomer) = (makeAddr("backer"), makeAddr("latecomer"));
        backStake(1, backer, 1_000e18);
        claimHour(2, 0, settleHour(2, goodStatement()));
        countLease(rentAndClose(renter, 1, address(native), 3_600));
        uint256 granted = rewards.grant(1);
        vm.warp((block.timestamp / VEST + 2) * VEST);
        assertEq(rewards.releasable(1), granted);
        backStake(1, latecomer, 1_000_000e18);
        assertEq(rewards.releasable(1), 0);
        assertEq(income.claimableOf(1, address(native), latecomer), 0);
        assertApproxEqAbs(income.claimableOf(1, address(native), backer), (granted - granted * TAKE_BPS / 10_000) / 2, 2);
    }

    function test_whoLeavesKeepsItsPartOfWhatHadVested() public {
        address backer = makeAddr("backer");
        uint256 shares = backStake(1, backer, 1_000e18);
        claimHour(2, 0, settleHour(2, goodStatement()));
        countLease(rentAndClose(renter, 1, address(native), 3_600));
        uint256 granted = rewards.grant(1);
        vm.warp((block.timestamp / VEST + 2) * VEST);
        vm.prank(backer);
        vault.requestBackerExit(1, shares);
        assertApproxEqAbs(income.claimableOf(1, address(native), backer), (granted - granted * TAKE_BPS / 10_000) / 2, 2);
    }

    function test_feesOfOneOperatorGrantNothingToAnother() public {
        bytes memory figures = settleHour(2, goodStatement());
        claimHour(2, 0, figures);
        claimHour(2, 1, figures);
        countLease(rentAndClose(renter, 1, address(native), 3_600));
        assertEq(rewards.grant(2), 0);
        assertGt(rewards.grant(1), 0);
    }

    function test_aGiftToTheContractIsNobodys() public {
        claimHour(2, 0, settleHour(2, goodStatement()));
        native.transfer(address(rewards), 1_000e18);
        assertEq(rewards.grant(1), 0);
    }
}
