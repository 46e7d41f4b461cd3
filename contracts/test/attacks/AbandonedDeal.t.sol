// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../../src/chain/IRegistry.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice An operator never drops a deal that is over: its lock would keep a market that was replaced from being retired, for ever. After
/// `maxFaultPeriods` anyone may drop it, with the table's path, which is public; before that, and out of a frozen table, nobody else.
contract AbandonedDealAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    address private stranger = makeAddr("stranger");

    function proveTo(uint64 end) private {
        while (period() < end) {
            if (possession.tableOf(alice, period()).leaves != 0) proveNext(alice);
            toStart(period() + 1);
        }
    }

    function pathOf(uint64 dealId) private view returns (bytes memory) {
        return tablePath(tables[alice], market.deal(dealId).slot);
    }

    function refuse(uint64 dealId, bytes memory path, bytes memory reason) private {
        vm.expectRevert(reason);
        vm.prank(stranger);
        market.drop(dealId, path);
    }

    function notProvider(uint64 dealId) private view returns (bytes memory) {
        return abi.encodeWithSelector(IStorageMarket.NotProvider.selector, dealId, stranger);
    }

    function test_a_lock_that_its_operator_never_frees_is_freed_by_anyone_and_the_market_is_retired() public {
        uint64 id = activeDeal(alice, SEED, 3);
        uint64 end = market.deal(id).endPeriod;
        proveTo(end);
        uint256 before = token.balanceOf(address(vault));
        toStart(end + marketConfig().maxFaultPeriods); // the operator is gone: not even settled
        vm.expectRevert(abi.encodeWithSelector(IRegistry.ModuleStillLocks.selector, address(market), uint256(COLLATERAL)));
        registry.retire(address(market));
        bytes memory path = pathOf(id);
        vm.prank(stranger);
        market.drop(id, path);
        assertEq(uint8(market.deal(id).state), uint8(IStorageMarket.State.Dropped));
        assertEq(possession.table(alice).leaves, 0);
        assertEq(vault.lockedBy(address(market)), 0);
        // the stake is the operator's still: nobody earns by it or loses
        assertEq(token.balanceOf(address(vault)), before);
        assertEq(token.balanceOf(stranger), 0);
        assertEq(funds(makeAddr("alice")), 3 * uint256(PRICE));
        registry.retire(address(market));
    }

    function test_a_broken_deal_that_its_operator_leaves_in_the_table_is_taken_out_by_anyone() public {
        uint64 id = activeDeal(alice, SEED, 30);
        toStart(market.deal(id).firstPeriod + 6); // nothing is proven: the table fails
        market.terminate(id);
        bytes memory path = pathOf(id);
        refuse(id, path, notProvider(id));
        toStart(market.deal(id).endPeriod + marketConfig().maxFaultPeriods);
        vm.prank(stranger);
        market.drop(id, path);
        assertEq(possession.table(alice).leaves, 0);
        refuse(id, path, abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Terminated));
    }

    function test_nobody_else_drops_a_deal_that_is_open_runs_or_is_just_over_or_out_of_a_frozen_table() public {
        uint64 id = activeDeal(alice, SEED, 3);
        uint64 long = activeDeal(alice, SEED + 1, 100);
        uint64 end = market.deal(id).endPeriod;
        uint64 grace = marketConfig().maxFaultPeriods;
        refuse(id, pathOf(id), notProvider(id));
        proveTo(end);
        refuse(id, pathOf(id), notProvider(id));
        proveTo(end + grace - 1);
        refuse(id, pathOf(id), notProvider(id));
        proveNext(alice);
        vm.warp(uint256(config().genesis) + uint256(end + grace) * PERIOD - 1);
        refuse(id, pathOf(id), notProvider(id));

        // from here on it could; but not out of a table that is about to be drawn, and not by the path of another deal
        toWindow(end + grace);
        refuse(id, pathOf(id), abi.encodeWithSelector(IPossession.TableFrozen.selector, alice, possession.periodStart(end + grace + 1)));
        prove(alice);
        toStart(end + grace + 1);
        bytes memory other = pathOf(long);
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        vm.prank(stranger);
        market.drop(id, other);
        refuse(long, other, notProvider(long));

        // an open deal has a number of periods where others have their end
        uint64 open = openDeal(alice, SEED + 2, 2);
        refuse(open, "", abi.encodeWithSelector(IStorageMarket.WrongState.selector, open, IStorageMarket.State.Open));
    }

    function test_an_honest_operator_drops_at_once_and_goes_on_proving_what_is_left() public {
        uint64 id = activeDeal(alice, SEED, 3);
        uint64 long = activeDeal(alice, SEED + 1, 100);
        uint64 end = market.deal(id).endPeriod;
        proveTo(end);
        drop(id);
        proveTo(end + marketConfig().maxFaultPeriods + 1);
        refuse(id, "", abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Dropped));
        assertEq(possession.standing(alice).missesInRow, 0);
        assertEq(uint8(market.deal(long).state), uint8(IStorageMarket.State.Active));
    }
}
