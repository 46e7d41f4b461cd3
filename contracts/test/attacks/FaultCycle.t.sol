// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice Alice declares a fault and recovers in every order and at every time that the rules let her, to be paid for periods in which
/// her piece was in no table. Bob proves each period. Anyone settles at odd times.
contract FaultCycleAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint64 private dealId;
    uint64 private twin;
    uint256 private proven; // periods whose frozen table held alice's piece and that she proved, from firstPeriod on

    function setUp() public override {
        super.setUp();
        dealId = activeDeal(alice, SEED, 24);
        twin = activeDeal(bob, SEED, 24);
    }

    function declareExternal() external {
        bytes memory path = tablePath(tables[alice], 0);
        vm.prank(nodeKey(alice));
        market.declareFault(dealId, path);
    }

    function recoverExternal() external {
        bytes memory openings = openPiece(leafOf(dealId), SEED, seedOf(market.recentSeedTime()), 4);
        bytes memory path = tablePath(tables[alice], 0);
        vm.prank(nodeKey(alice));
        market.recoverFault(dealId, openings, 0, path);
    }

    function tryDeclare() private {
        try this.declareExternal() {
            delete tables[alice][0];
        } catch {}
    }

    function tryRecover() private {
        IPossession.Leaf memory leaf = leafOf(dealId);
        try this.recoverExternal() {
            put(alice, 0, leaf);
        } catch {}
    }

    function test_who_declares_nothing_is_paid_for_all() public {
        testFuzz_no_period_is_paid_in_which_the_piece_was_in_no_frozen_table(0);
        assertEq(funds(makeAddr("alice")), 24 * uint256(PRICE));
    }

    /// forge-config: default.fuzz.runs = 16
    function testFuzz_no_period_is_paid_in_which_the_piece_was_in_no_frozen_table(uint256 moves) public {
        (uint64 from, uint64 to) = (market.deal(dealId).firstPeriod, market.deal(dealId).endPeriod);
        for (uint64 p = from - 1; p < to; ++p) {
            if (p >= from) toStart(p);
            uint256 move = uint8(moves >> (8 * (p + 1 - from)));
            if (move & 1 != 0) tryDeclare();
            if (move & 2 != 0) tryRecover();
            if (move & 4 != 0) tryDeclare();
            if (move & 8 != 0) rails.settle(market.deal(dealId).railId);
            vm.warp(possession.freezeTime(p));
            bool frozenWithPiece = tables[alice][0].leaves != 0;
            IPossession.Leaf[] memory frozen = tables[alice];
            if (move & 16 != 0) tryRecover();
            toWindow(p);
            if (frozenWithPiece) {
                proveWith(alice, openTable(frozen, alice, p, 1, false));
                if (p >= from) ++proven;
            }
            prove(bob);
            if (move & 32 != 0) tryRecover();
            if (move & 64 != 0 && market.deal(dealId).state == IStorageMarket.State.Faulty) market.settle(dealId);
            if (market.deal(dealId).state == IStorageMarket.State.Terminated) break;
        }
        toStart(to);
        if (market.deal(dealId).state != IStorageMarket.State.Terminated) market.settle(dealId);
        market.settle(twin);
        assertLe(funds(makeAddr("alice")), proven * PRICE);
        assertEq(funds(makeAddr("bob")), 24 * uint256(PRICE));
        assertEq(market.deal(twin).locked, COLLATERAL);
    }
}
