// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {TokenFixture} from "../token/fixture.sol";

/// @notice Races between slashes, exits, rotations and votes, by people who see the transaction of the other side before it is mined.
contract StakeRaceAttack is TokenFixture {
    address private owner = makeAddr("owner");
    address private backer = makeAddr("backer");
    address private loyal = makeAddr("loyal");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
        depositStake(operatorId, owner, 1_000);
        backStake(operatorId, backer, 1_000);
        backStake(operatorId, loyal, 1_000);
    }

    function test_an_exit_sent_before_a_slash_saves_nobody_more_than_those_who_stay() public {
        lockStake(operatorId, 1_500); // of 1,000 + half of 2,000
        vm.startPrank(backer);
        uint256 exitId = vault.requestBackerExit(operatorId, 1_000);
        vm.stopPrank();
        vm.prank(loyal);
        vm.expectPartialRevert(IStakeVault.InsufficientUnlocked.selector);
        vault.requestBackerExit(operatorId, 1);
        vm.prank(owner);
        vm.expectPartialRevert(IStakeVault.InsufficientUnlocked.selector);
        vault.requestExit(operatorId, 1);
        slashStake(operatorId, 1_500); // 1,000 own, 500 of backers
        vm.warp(block.timestamp + DELAY);
        assertEq(vault.finishExit(exitId), 750);
        assertEq(vault.backedBy(operatorId, loyal), 750);
    }

    function test_who_comes_after_a_slash_pays_nothing_of_it_but_rounding_and_gains_nothing() public {
        lockStake(operatorId, 1_500);
        slashStake(operatorId, 1_500);
        address late = makeAddr("late");
        backStake(operatorId, late, 1_000);
        assertEq(vault.backedBy(operatorId, late), 999); // one base unit is the most that rounding takes
        assertEq(vault.backedBy(operatorId, loyal), 750);
    }

    function test_one_token_votes_once_wherever_it_goes() public {
        uint64 second = registerOperator(loyal, loyal);
        uint256 snapshot = block.timestamp;
        vm.warp(snapshot + 1);
        vm.prank(owner);
        uint256 exitId = vault.requestExit(operatorId, 1_000);
        vm.warp(block.timestamp + DELAY);
        vault.finishExit(exitId);
        vm.startPrank(owner);
        token.approve(address(vault), 1_000);
        vault.deposit(second, 1_000);
        vm.stopPrank();
        rotateOwner(operatorId, makeAddr("heir"));
        vault.syncVotes(operatorId);
        uint256 now_ = block.timestamp;
        vm.warp(now_ + 1);
        // at the snapshot only the old place counts, now only the new ones; the sum is the active stake both times
        assertEq(vault.getPastVotes(owner, snapshot), 3_000);
        assertEq(vault.getPastVotes(loyal, snapshot), 0);
        assertEq(vault.getPastTotalSupply(snapshot), 3_000);
        assertEq(vault.getPastVotes(owner, now_), 0);
        assertEq(vault.getPastVotes(loyal, now_), 1_000);
        assertEq(vault.getPastVotes(makeAddr("heir"), now_), 2_000);
        assertEq(vault.getPastTotalSupply(now_), 3_000);
    }

    function test_a_stolen_owner_key_gains_no_exit_that_its_victim_overtakes() public {
        vm.prank(owner);
        uint256 exitId = vault.requestExit(operatorId, 1_000); // by the thief
        rotateOwner(operatorId, makeAddr("heir")); // by the victim, from its safe; shorter than the withdrawal delay
        vm.warp(block.timestamp + DELAY);
        vault.finishExit(exitId);
        assertEq(token.balanceOf(makeAddr("heir")), 1_000);
        assertEq(token.balanceOf(owner), 0);
    }
}
