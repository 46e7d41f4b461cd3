// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice A provider whose table is about to fail takes one more deal, so that this one runs on without proofs and without a fault.
contract FailedTableAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint64 private lost; // alice's, in the table that fails
    uint64 private failing; // the period whose miss fails alice's table

    function setUp() public override {
        super.setUp();
        lost = activeDeal(alice, SEED, 100);
        uint64 first = market.deal(lost).firstPeriod;
        toWindow(first - 1);
        prove(alice);
        failing = first + 3; // grace, then three charged misses in a row
    }

    function test_a_deal_activated_in_the_period_whose_miss_fails_the_table_is_terminated_and_refunded() public {
        toStart(failing);
        uint64 late = activeDeal(alice, SEED + 1, 50);
        uint64 twin = activeDeal(bob, SEED + 1, 50);
        toWindow(failing);
        prove(bob);
        toStart(failing + 1);
        possession.sync(alice);
        assertEq(possession.standing(alice).failedAt, failing + 1);
        assertEq(market.deal(late).firstPeriod, failing + 1);

        uint256 before = funds(client);
        market.terminate(late);
        assertEq(uint8(market.deal(late).state), uint8(IStorageMarket.State.Terminated));
        assertEq(claimable(client), 0); // nothing was paid
        assertEq(funds(client) - before, 50 * uint256(PRICE) + BOND);

        // the honest twin of the same minute goes on
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NothingToTerminate.selector, twin));
        market.terminate(twin);
        toWindow(failing + 1);
        prove(bob);
        toStart(failing + 2);
        market.settle(twin);
        assertEq(market.deal(twin).locked, COLLATERAL);
    }

    function test_a_deal_activated_in_the_failing_period_after_its_freeze_is_terminated_too() public {
        toStart(failing);
        uint64 late = openDeal(alice, SEED + 1, 50);
        toWindow(failing);
        activate(late);
        toStart(failing + 1);
        market.terminate(late);
        assertEq(uint8(market.deal(late).state), uint8(IStorageMarket.State.Terminated));
    }

    function test_a_deal_of_the_table_that_started_anew_in_the_next_period_is_not_terminated() public {
        toStart(failing + 1);
        market.terminate(lost);
        drop(lost);
        uint64 fresh = activeDeal(alice, SEED + 2, 50);
        assertEq(market.deal(fresh).firstPeriod, possession.standing(alice).failedAt + 1);
        assertTrue(possession.stands(alice));
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NothingToTerminate.selector, fresh));
        market.terminate(fresh);
        toWindow(failing + 1);
        prove(alice);
        toWindow(failing + 2);
        prove(alice);
        toStart(failing + 3);
        market.settle(fresh);
        assertEq(market.deal(fresh).locked, COLLATERAL);
        assertEq(uint8(market.deal(fresh).state), uint8(IStorageMarket.State.Active));
    }
}
