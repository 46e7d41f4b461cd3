// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {StakeVotes} from "../../src/token/StakeVotes.sol";
import {TokenFixture} from "./fixture.sol";
import {MeterDouble} from "./rail-doubles.sol";

/// @notice The follower knows only events: each change makes its own, with the values that changed.
contract TokenEventsTest is TokenFixture {
    address private owner = makeAddr("owner");
    address private backer = makeAddr("backer");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
        token.mint(owner, 1_000);
        token.mint(backer, 1_000);
        vm.prank(owner);
        token.approve(address(vault), 1_000);
        vm.prank(backer);
        token.approve(address(vault), 1_000);
    }

    function expectVaultEvent() private {
        vm.expectEmit(true, true, true, true, address(vault));
    }

    function test_StakeThatComesAndGoesIsTold() public {
        expectVaultEvent();
        emit IStakeVault.StakeDeposited(operatorId, owner, 100);
        vm.prank(owner);
        vault.deposit(operatorId, 100);
        expectVaultEvent();
        emit IStakeVault.Backed(operatorId, backer, 40, 40, 0);
        vm.prank(backer);
        vault.back(operatorId, 40);
        uint64 from = uint64(block.timestamp) + DELAY;
        expectVaultEvent();
        emit IStakeVault.ExitRequested(operatorId, owner, 1, 30, from);
        vm.prank(owner);
        vault.requestExit(operatorId, 30);
        expectVaultEvent();
        emit IStakeVault.ExitRequested(operatorId, backer, 2, 40, from);
        vm.prank(backer);
        vault.requestBackerExit(operatorId, 40);
        vm.warp(from);
        expectVaultEvent();
        emit IStakeVault.ExitFinished(operatorId, owner, 1, 30);
        vault.finishExit(1);
        expectVaultEvent();
        emit IStakeVault.ExitFinished(operatorId, backer, 2, 40);
        vault.finishExit(2);
    }

    function test_LocksFreezesAndMovedVotesAreTold() public {
        vm.prank(owner);
        vault.deposit(operatorId, 100);
        vm.startPrank(module);
        expectVaultEvent();
        emit IStakeVault.Locked(operatorId, module, 60);
        vault.lock(operatorId, 60);
        expectVaultEvent();
        emit IStakeVault.Unlocked(operatorId, module, 20);
        vault.unlock(operatorId, 20);
        expectVaultEvent();
        emit IStakeVault.Frozen(operatorId, module, 1);
        vault.freeze(operatorId);
        expectVaultEvent();
        emit IStakeVault.Frozen(operatorId, module, 0);
        vault.unfreeze(operatorId);
        vm.stopPrank();
        rotateOwner(operatorId, backer);
        expectVaultEvent();
        emit StakeVotes.VotesMoved(operatorId, owner, backer, 100);
        vault.syncVotes(operatorId);
    }

    function test_TheLifeOfARailIsTold() public {
        MeterDouble meter = new MeterDouble(uint64(block.timestamp));
        token.mint(address(this), 1_000);
        token.approve(address(rails), 1_000);
        rails.deposit(address(token), backer, 1_000);
        vm.prank(backer);
        rails.approve(address(meter), address(token), 1_000);
        vm.startPrank(address(meter));
        vm.expectEmit(true, true, true, true, address(rails));
        emit IRails.RailOpened(1, backer, operatorId, address(token), address(meter), 5, 10, 100);
        rails.open(backer, operatorId, address(token), 5, 10, 0, 100);
        uint64 start = uint64(block.timestamp);
        vm.expectEmit(true, true, true, true, address(rails));
        emit IRails.RailBegun(1, start, start + 200);
        rails.begin(1, start, start + 200);
        vm.expectEmit(true, true, true, true, address(rails));
        emit IRails.RailToppedUp(1, 50, start + 300);
        rails.topUp(1, 50, start + 300);
    }
}
