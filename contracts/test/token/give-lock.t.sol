// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {TokenFixture} from "./fixture.sol";

/// @notice A lock goes from one slasher to another: an order that was matched becomes a deal.
contract GiveLockTest is TokenFixture {
    address private owner = makeAddr("owner");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
        depositStake(operatorId, owner, 1_000);
        lockStake(operatorId, 600);
    }

    function testFuzz_a_lock_changes_its_holder_and_nothing_else(uint256 amount) public {
        amount = bound(amount, 0, 600);
        uint256 available = vault.availableOf(operatorId);
        vm.expectEmit(address(vault));
        emit IStakeVault.Unlocked(operatorId, module, amount);
        vm.expectEmit(address(vault));
        emit IStakeVault.Locked(operatorId, otherModule, amount);
        vm.prank(module);
        vault.giveLock(operatorId, otherModule, amount);
        assertEq(vault.lockedOf(operatorId), 600);
        assertEq(vault.availableOf(operatorId), available);
        assertEq(vault.lockedOfModule(operatorId, module), 600 - amount);
        assertEq(vault.lockedOfModule(operatorId, otherModule), amount);
        assertEq(vault.lockedBy(module), 600 - amount);
        assertEq(vault.lockedBy(otherModule), amount);
    }

    function test_no_limit_and_no_loss_of_stake_comes_between() public {
        vm.prank(owner);
        vault.setLockLimit(operatorId, 1);
        assertEq(vault.availableOf(operatorId), 0);
        vm.prank(module);
        vault.giveLock(operatorId, otherModule, 600);
        vm.prank(otherModule);
        vault.unlock(operatorId, 600);
        assertEq(vault.lockedOf(operatorId), 0);
    }

    function test_only_a_slasher_gives_what_it_holds_and_only_to_a_slasher() public {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotSlasher.selector, address(this)));
        vault.giveLock(operatorId, otherModule, 1);
        vm.startPrank(module);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotSlasher.selector, owner));
        vault.giveLock(operatorId, owner, 1);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLock.selector, operatorId, module, 601, 600));
        vault.giveLock(operatorId, otherModule, 601);
        vault.giveLock(operatorId, module, 600); // to itself: nothing changes
        vm.stopPrank();
        assertEq(vault.lockedOfModule(operatorId, module), 600);
        assertEq(vault.lockedBy(module), 600);
        // what was given can no longer be unlocked or slashed by the giver
        vm.startPrank(module);
        vault.giveLock(operatorId, otherModule, 600);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLock.selector, operatorId, module, 1, 0));
        vault.unlock(operatorId, 1);
    }
}
