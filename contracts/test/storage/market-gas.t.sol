// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "./fixture.sol";

/// @notice Whole transactions of a deal's life, for contracts/.gas-snapshot; pieces of 32 leaves.
contract StorageGasTest is StorageFixture {
    uint256 private constant SEED = 1 << 100;

    function testGas_aDealsLife() public {
        activeDeal(alice, SEED, 20);
        uint64 id = openDeal(alice, SEED + 1, 2);
        vm.snapshotGasLastCall("StorageMarket", "openDeal");
        activate(id);
        vm.snapshotGasLastCall("StorageMarket", "activate");
        vm.prank(client);
        market.challenge(id);
        vm.snapshotGasLastCall("StorageMarket", "challenge");
        uint64 seedAt = market.deal(id).challengedAt;
        vm.warp(seedAt);
        bytes memory openings = openPiece(leafOf(id), SEED + 1, seedOf(seedAt), 4);
        vm.prank(nodeKey(alice));
        market.answer(id, openings);
        vm.snapshotGasLastCall("StorageMarket", "answer");
        vm.prank(client);
        market.demandBytes(id, 0, 32);
        vm.snapshotGasLastCall("StorageMarket", "demandBytes");
        bytes memory range = openRange(SEED + 1, 5, 0, 32);
        vm.prank(nodeKey(alice));
        market.answer(id, range);
        vm.snapshotGasLastCall("StorageMarket", "answer with 32 leaves");
        uint64 first = market.deal(id).firstPeriod;
        proveNext(alice);
        vm.snapshotGasLastCall("Possession", "prove two small pieces");
        toWindow(first);
        prove(alice);
        toStart(first + 1);
        market.settle(id);
        vm.snapshotGasLastCall("StorageMarket", "settle");
        toWindow(first + 1);
        prove(alice);
        toStart(first + 2);
        market.settle(id);
        vm.snapshotGasLastCall("StorageMarket", "settle at the end");
        drop(id);
        vm.snapshotGasLastCall("StorageMarket", "drop");
        possession.sync(bob);
        toStart(first + 5);
        market.settle(1); // two misses, one charged
        vm.snapshotGasLastCall("StorageMarket", "settle with a charged miss");
        uint256 slashed = market.deal(1).collateral - market.deal(1).locked;
        assertGt(slashed, 0);
        vm.prank(nodeKey(alice));
        market.surrender(1);
        vm.snapshotGasLastCall("StorageMarket", "surrender");
        assertEq(uint8(market.deal(1).state), uint8(IStorageMarket.State.Terminated));
    }
}
