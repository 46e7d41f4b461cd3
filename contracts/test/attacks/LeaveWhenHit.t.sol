// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice Alice deletes a small part of a piece, saves its space, and means to leave for the small fee in the very period whose draws hit
/// the part that is gone: the few leaves that `leave` asks for will probably miss it. Bob, who holds all, leaves at the same times.
contract LeaveWhenHitAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint64 private dealId; // alice's
    uint64 private twin; // bob's
    uint64 private first;

    function setUp() public override {
        super.setUp();
        dealId = activeDeal(alice, SEED, 100);
        twin = activeDeal(bob, SEED, 100);
        first = market.deal(dealId).firstPeriod;
        toWindow(first - 1);
        prove(alice);
        prove(bob);
    }

    function openingsOf(uint64 id) private returns (bytes memory) {
        return openPiece(leafOf(id), SEED, seedOf(market.recentSeedTime()), marketConfig().activationLeaves);
    }

    function leaveExternal(uint64 operatorId, uint64 id, bytes calldata openings) external {
        vm.prank(nodeKey(operatorId));
        market.leave(id, openings);
    }

    function assertRefused(uint64 period_) private {
        bytes memory openings = openingsOf(dealId);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ProofOutstanding.selector, alice, period_));
        this.leaveExternal(alice, dealId, openings);
    }

    function test_nobody_leaves_between_a_draw_and_its_answer() public {
        vm.warp(possession.freezeTime(first));
        assertRefused(first);
        toWindow(first);
        assertRefused(first); // hit, and the leaves of `leave` would not have shown it
        prove(bob);
        this.leaveExternal(bob, twin, openingsOf(twin)); // answered: free to go
        assertEq(uint8(market.deal(twin).state), uint8(IStorageMarket.State.Terminated));
        // silent: the miss stays open and so does the door stay shut, in the next period and after its proof of something else
        toStart(first + 1);
        assertRefused(first);
        toWindow(first + 1);
        assertRefused(first);
        // the way out is to surrender, for all of it
        vm.prank(nodeKey(alice));
        market.surrender(dealId);
        assertEq(market.deal(dealId).locked, 0);
    }

    function test_who_answers_the_miss_may_leave() public {
        toWindow(first + 1);
        IPossession.Leaf[] memory leaves = tables[alice];
        proveWith(alice, bytes.concat(openTable(leaves, alice, first + 1, 2, false), openTable(leaves, alice, first, 1, true)));
        this.leaveExternal(alice, dealId, openingsOf(dealId));
        assertEq(market.deal(dealId).locked, COLLATERAL - COLLATERAL / 5);
    }

    function test_leaves_kept_from_an_older_seed_do_not_leave() public {
        toWindow(first);
        prove(alice);
        bytes memory old = openingsOf(dealId); // kept; then the data is deleted
        toWindow(first + 1);
        possession.sync(alice);
        seedOf(market.recentSeedTime());
        vm.expectPartialRevert(IStorageMarket.ProofOutstanding.selector);
        this.leaveExternal(alice, dealId, old);
        proveWith(alice, openTable(tables[alice], alice, first + 1, 1, false));
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        this.leaveExternal(alice, dealId, old);
    }
}
