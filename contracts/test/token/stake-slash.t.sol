// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {TokenFixture} from "./fixture.sol";

/// @notice The waterfall of a slash, what it pays, and what becomes of those who are leaving.
contract StakeSlashTest is TokenFixture {
    address private owner = makeAddr("owner");
    address private backer = makeAddr("backer");
    address private client = makeAddr("client");
    address private reporter = makeAddr("reporter");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
    }

    function stakeAndLock(uint256 own, uint256 backed, uint256 locked) private {
        if (own != 0) depositStake(operatorId, owner, own);
        if (backed != 0) backStake(operatorId, backer, backed);
        lockStake(operatorId, locked);
    }

    function payout(uint256 compensation, uint256 reward) private view returns (IStakeVault.Payout memory) {
        return IStakeVault.Payout(client, compensation, reporter, reward);
    }

    function test_OwnStakeIsTakenFirstThenBackers() public {
        stakeAndLock(1_000, 4_000, 2_500);
        uint256 supply = token.totalSupply();
        vm.expectEmit(address(vault));
        emit IStakeVault.Slashed(operatorId, module, 1_500, 1_000, 500, 1_230, 200, 70);
        vm.prank(module);
        (uint256 fromOwn, uint256 compensation, uint256 reward) = vault.slash(operatorId, 1_500, payout(200, 70));
        assertEq(abi.encode(fromOwn, compensation, reward), abi.encode(1_000, 200, 70));
        assertEq(ownActive(operatorId), 0);
        assertEq(vault.pool(operatorId).activeAssets, 3_500);
        assertEq(token.totalSupply(), supply - 1_230, "the rest is burnt");
        assertEq(vault.lockedOfModule(operatorId, module), 1_000, "the lock falls by the amount");
        assertEq(vault.obligations(), token.balanceOf(address(vault)));
    }

    function testFuzz_TheWaterfallForAnyAmountsAndAnyWishes(
        uint96 own,
        uint96 backed,
        uint96 locked,
        uint96 amount,
        uint256 compensation,
        uint256 reward
    ) public {
        own = uint96(bound(own, 1, 1e27));
        backed = uint96(bound(backed, 0, 1e27 - 1));
        depositStake(operatorId, owner, own);
        if (backed != 0) backStake(operatorId, backer, backed);
        locked = uint96(bound(locked, 0, vault.availableOf(operatorId)));
        amount = uint96(bound(amount, 0, locked));
        lockStake(operatorId, locked);
        uint256 supply = token.totalSupply();
        vm.prank(module);
        (uint256 fromOwn, uint256 paid, uint256 rewarded) = vault.slash(operatorId, amount, payout(compensation, reward));
        assertEq(fromOwn, amount < own ? amount : own, "own first");
        assertEq(vault.pool(operatorId).activeAssets, backed - (amount - fromOwn), "then backers, and never short of the amount");
        uint256 half = fromOwn / 2;
        assertEq(paid, compensation < half ? compensation : half, "compensation first");
        assertEq(rewarded, reward < half - paid ? reward : half - paid, "then the reward");
        assertEq(supply - token.totalSupply(), uint256(amount) - paid - rewarded, "all else is burnt");
        assertGe((supply - token.totalSupply()) * 2, amount, "at least half is burnt");
        assertEq(vault.claimableOf(client), paid);
        assertEq(vault.claimableOf(reporter), rewarded);
        assertLe(vault.lockedOf(operatorId), vault.slashableOf(operatorId), "what is still locked is still covered");
        assertEq(vault.obligations(), token.balanceOf(address(vault)));
    }

    function test_APayoutToNobodyIsBurnt() public {
        stakeAndLock(1_000, 0, 1_000);
        vm.prank(module);
        (, uint256 paid, uint256 rewarded) = vault.slash(operatorId, 1_000, IStakeVault.Payout(address(0), 300, address(0), 200));
        assertEq(paid + rewarded, 0);
        assertEq(token.totalSupply(), 0);
    }

    function test_WhatComesFromBackersIsNeverPaidToAnyone() public {
        stakeAndLock(1_000, 10_000, 5_000);
        slashStake(operatorId, 1_000);
        vm.prank(module);
        (uint256 fromOwn, uint256 paid, uint256 rewarded) = vault.slash(operatorId, 4_000, payout(4_000, 4_000));
        assertEq(fromOwn + paid + rewarded, 0);
        assertEq(vault.pool(operatorId).activeAssets, 6_000);
    }

    function test_NoEventTakesMoreOfBackersThanTheCapEvenWhenItHasBeenLowered() public {
        stakeAndLock(1_000, 10_000, 5_000);
        parameters.set("vault.backerLossCapBps", 1_000);
        slashStake(operatorId, 5_000);
        assertEq(vault.pool(operatorId).activeAssets, 9_000);
        assertEq(vault.lockedOf(operatorId), 0);
    }

    function test_AnOperatorWhoLostItsOwnShareTakesNoNewWorkButKeepsWhatItHas() public {
        stakeAndLock(1_000, 4_000, 3_000);
        slashStake(operatorId, 900);
        // 100 are left of its own, 2,100 locked: they need 420.
        assertEq(vault.availableOf(operatorId), 0);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.OwnStakeTooSmall.selector, operatorId, 100, 420));
        vm.prank(module);
        vault.lock(operatorId, 0);
        assertEq(vault.lockedOf(operatorId), 2_100);
        depositStake(operatorId, owner, 340);
        assertEq(vault.availableOf(operatorId), 100);
    }

    function testFuzz_NoModuleSlashesMoreThanItLocked(uint96 locked, uint96 others) public {
        depositStake(operatorId, owner, 2e27);
        locked = uint96(bound(locked, 0, 1e27));
        lockStake(operatorId, locked);
        vm.startPrank(otherModule);
        vault.lock(operatorId, bound(others, 0, 1e27));
        vm.startPrank(module);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLock.selector, operatorId, module, uint256(locked) + 1, locked));
        vault.slash(operatorId, uint256(locked) + 1, payout(0, 0));
    }

    function testFuzz_LeavingStakeIsSlashedAtTheRatioOfTheRest(uint96 deposited, uint96 leaving, uint96 amount) public {
        deposited = uint96(bound(deposited, 2, 1e27));
        leaving = uint96(bound(leaving, 1, deposited - 1));
        depositStake(operatorId, owner, deposited);
        vm.prank(owner);
        uint256 exitId = vault.requestExit(operatorId, leaving);
        lockStake(operatorId, deposited - leaving);
        amount = uint96(bound(amount, 0, deposited - leaving));
        slashStake(operatorId, amount);
        uint256 left = uint256(deposited) - amount;
        assertEq(ownActive(operatorId), (deposited - leaving) * left / deposited);
        vm.warp(block.timestamp + DELAY);
        uint256 paid = vault.finishExit(exitId);
        assertEq(paid, leaving * left / deposited);
        assertEq(vault.obligations(), token.balanceOf(address(vault)));
    }

    function test_LeavingBackersLoseAtTheRatioOfThoseWhoStay() public {
        depositStake(operatorId, owner, 100);
        backStake(operatorId, backer, 600);
        backStake(operatorId, client, 200);
        vm.prank(client);
        uint256 exitId = vault.requestBackerExit(operatorId, 200);
        lockStake(operatorId, 400);
        slashStake(operatorId, 300);
        assertEq(vault.backedBy(operatorId, backer), 450);
        vm.warp(block.timestamp + DELAY);
        assertEq(vault.finishExit(exitId), 150);
    }

    /// An attacker opens with one unit in an operator that was slashed hard, hoping that the next backer's shares round to nothing.
    function testFuzz_BackingAfterASlashLosesAtMostOneUnit(uint96 first, uint96 burnt, uint96 amount) public {
        first = uint96(bound(first, 2, 1e27 - 1));
        amount = uint96(bound(amount, 1, 1e27));
        parameters.set("vault.backerLossCapBps", 10_000);
        parameters.set("vault.ownShareMinBps", 0);
        backStake(operatorId, backer, first);
        lockStake(operatorId, first);
        slashStake(operatorId, bound(burnt, 0, first - 1));
        uint256 before = vault.backedBy(operatorId, backer);
        backStake(operatorId, client, amount);
        assertGe(vault.backedBy(operatorId, client) + 1, amount);
        assertLe(vault.backedBy(operatorId, client), amount);
        assertGe(vault.backedBy(operatorId, backer), before, "nobody is diluted");
    }

    function test_APoolOfTinySharesStartsANewGenerationAndNobodyLosesByIt() public {
        parameters.set("vault.backerLossCapBps", 10_000);
        parameters.set("vault.ownShareMinBps", 0);
        backStake(operatorId, backer, 6e26);
        backStake(operatorId, client, 4e26);
        vm.prank(client);
        uint256 exitId = vault.requestBackerExit(operatorId, 3e26);
        // Each event takes 70 % (what is active) of what is left, until a share is below 1e-12.
        while (vault.pool(operatorId).generation == 0) {
            uint256 locked = vault.availableOf(operatorId);
            lockStake(operatorId, locked);
            slashStake(operatorId, locked);
        }
        IStakeVault.Pool memory pool = vault.pool(operatorId);
        uint256 left = pool.activeAssets + pool.exitingAssets;
        assertEq(pool.generation, 1);
        assertGt(left, 0);
        assertApproxEqAbs(vault.backedBy(operatorId, backer), left * 6 / 10, 2);
        assertApproxEqAbs(vault.backedBy(operatorId, client), left / 10, 2);
        vm.warp(block.timestamp + DELAY);
        assertApproxEqAbs(vault.finishExit(exitId), left * 3 / 10, 2);
        backStake(operatorId, reporter, 5e18);
        assertApproxEqAbs(vault.backedBy(operatorId, reporter), 5e18, 1);
        uint256 shares = vault.sharesOf(operatorId, backer);
        vm.prank(backer);
        vault.requestBackerExit(operatorId, shares);
    }

    function test_OldSharesOfAPoolSlashedToZeroAreWorthNothingToStakeOrExit() public {
        parameters.set("vault.backerLossCapBps", 10_000);
        parameters.set("vault.ownShareMinBps", 0);
        backStake(operatorId, backer, 1_000);
        lockStake(operatorId, 1_000);
        vm.expectEmit(address(vault));
        emit IStakeVault.PoolClosed(operatorId, 0);
        vm.prank(module);
        vault.slash(operatorId, 1_000, payout(0, 0));
        assertEq(vault.pool(operatorId).generation, 1);
        assertEq(vault.sharesOf(operatorId, backer), 0);
        assertFalse(vault.isBackedBy(operatorId, [backer, backer, backer]));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.PoolDepleted.selector, operatorId));
        vm.prank(backer);
        vault.requestBackerExit(operatorId, 1);
        assertEq(backStake(operatorId, client, 40), 40);
        assertEq(backStake(operatorId, backer, 60), 60, "who lost all can back again");
        assertEq(vault.backedBy(operatorId, backer), 60);
    }

    function test_AnExitThatWasSlashedToZeroPaysNothingAndIsOver() public {
        depositStake(operatorId, owner, 1_000);
        parameters.set("vault.backerLossCapBps", 10_000);
        vm.prank(owner);
        uint256 exitId = vault.requestExit(operatorId, 400);
        backStake(operatorId, backer, 400);
        lockStake(operatorId, 1_000);
        slashStake(operatorId, 1_000);
        depositStake(operatorId, owner, 77);
        vm.warp(block.timestamp + DELAY);
        assertEq(vault.finishExit(exitId), 0);
        assertEq(ownActive(operatorId), 77, "new stake is not reached by old shares");
    }

    function testFuzz_ClaimsPayOnceAndOnlyWhatWasCredited(uint96 compensation, uint96 reward, address to) public {
        vm.assume(to != address(0) && to != address(vault) && to != owner);
        stakeAndLock(2e24, 0, 2e24);
        compensation = uint96(bound(compensation, 1, 5e23));
        reward = uint96(bound(reward, 0, 5e23));
        vm.prank(module);
        vault.slash(operatorId, 2e24, payout(compensation, reward));
        vm.startPrank(client);
        vm.expectEmit(address(vault));
        emit StakeVault.Claimed(client, to, compensation);
        assertEq(vault.claim(to), compensation);
        assertEq(token.balanceOf(to), compensation);
        vm.expectRevert(IStakeVault.ZeroAmount.selector);
        vault.claim(to);
        vm.stopPrank();
        assertEq(vault.obligations(), reward);
    }

    /// Operator, client, reporter and backer are one: its loss is at least half of what is slashed, and all that its backing loses.
    function testFuzz_NobodyGainsBySlashingItself(uint96 own, uint96 backed, uint96 honest, uint96 amount, uint256 wish) public {
        own = uint96(bound(own, 1, 5e26));
        depositStake(operatorId, owner, own);
        backStake(operatorId, owner, bound(backed, 1, 5e26));
        honest = uint96(bound(honest, 1, 5e26));
        backStake(operatorId, backer, honest);
        amount = uint96(bound(amount, 1, vault.availableOf(operatorId)));
        lockStake(operatorId, amount);
        uint256 before = wealthOfOwner();
        uint256 pool = vault.pool(operatorId).activeAssets;
        vm.startPrank(module);
        vault.slash(operatorId, amount, IStakeVault.Payout(owner, wish, owner, wish));
        vm.startPrank(owner);
        if (vault.claimableOf(owner) != 0) vault.claim(owner);
        vm.stopPrank();
        uint256 fromBackers = pool - vault.pool(operatorId).activeAssets;
        uint256 fromOwn = uint256(amount) - fromBackers;
        assertLe(wealthOfOwner() + (fromOwn - fromOwn / 2), before, "loses at least half of the own part");
        assertGe(vault.backedBy(operatorId, backer) + 1, honest * (pool - fromBackers) / pool, "the other backer loses the ratio, no more");
    }

    function wealthOfOwner() private view returns (uint256) {
        return token.balanceOf(owner) + ownActive(operatorId) + vault.backedBy(operatorId, owner);
    }

    function testFuzz_AnOwnExitAfterASlashKeepsLocksCovered(uint96 own, uint96 slashed, uint96 locked, uint96 wanted) public {
        own = uint96(bound(own, 2, 1e27));
        depositStake(operatorId, owner, own);
        lockStake(operatorId, own);
        slashStake(operatorId, bound(slashed, 1, own - 1));
        uint256 still = vault.lockedOf(operatorId);
        vm.prank(module);
        vault.unlock(operatorId, still);
        uint256 active = ownActive(operatorId);
        lockStake(operatorId, bound(locked, 0, active));
        vm.prank(owner);
        try vault.requestExit(operatorId, bound(wanted, 1, active)) {} catch {}
        assertLe(vault.lockedOf(operatorId), vault.slashableOf(operatorId));
    }

    /// The one case in which rounding shares up costs the base unit that the lock needs.
    function test_AnExitThatWouldTakeTheLastCoveredUnitByRoundingIsRefused() public {
        depositStake(operatorId, owner, 10);
        lockStake(operatorId, 10);
        slashStake(operatorId, 7);
        vm.prank(module);
        vault.unlock(operatorId, 1);
        // 3 units on 10 shares, 2 of them locked: one unit costs 4 shares, which leaves 1.8.
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, 1, 0));
        vm.prank(owner);
        vault.requestExit(operatorId, 1);
    }
}
