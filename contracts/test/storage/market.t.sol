// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "./fixture.sol";

contract StorageMarketTest is StorageFixture {
    function test_a_deal_is_opened_activated_proven_paid_and_dropped() public {
        uint256 before = funds(client);
        uint64 id = openDeal(alice, 1 << 100, 3);
        assertEq(funds(client), before - 3 * PRICE - BOND);
        assertEq(vault.lockedBy(address(market)), COLLATERAL + BOND);
        activate(id);
        assertEq(vault.lockedBy(address(market)), COLLATERAL);
        uint64 first = market.deal(id).firstPeriod;
        assertEq(first, period() + 1);
        proveNext(alice);
        for (uint64 p = first; p < first + 3; ++p) {
            toWindow(p);
            prove(alice);
        }
        toStart(first + 3);
        market.settle(id);
        assertEq(uint8(market.deal(id).state), uint8(IStorageMarket.State.Ended));
        assertEq(funds(makeAddr("alice")), 3 * PRICE);
        assertEq(funds(client), before - 3 * PRICE);
        drop(id);
        assertEq(vault.lockedBy(address(market)), 0);
        assertEq(possession.table(alice).leaves, 0);
        assertEq(possession.table(alice).root, 0);
    }
}
