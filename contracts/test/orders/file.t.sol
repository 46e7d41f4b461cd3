// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {OrderFixture} from "./fixture.sol";

contract StorageFileTest is OrderFixture {
    uint256 private constant SEED = 1000;

    function test_aFileIsFilledActivatedLostRepairedAndPaidExactly() public {
        IStorageFile file = filledFile(SEED, 4, 2);
        IStorageFile.Account memory account = file.account();
        assertEq(account.healthy, 4);
        // ceil(1000 * 7e21 / 2^30): the middle of ask and bid
        assertEq(account.pricePerPeriod, 6519258022308350);
        activateAll(file);
        surrender(file, 2);
        file.noteLoss(2);
        assertEq(file.account().healthy, 3);
        vm.warp(block.timestamp + 500);
        addProviders(5);
        uint64 dealId = claim(file, 2, providers[4]);
        activateWith(dealId, "");
        uint256 earned = funds(makeAddr("provider 4"));
        file.finishRepair(2);
        assertEq(file.account().healthy, 4);
        assertGt(funds(makeAddr("provider 4")), earned);
        assertEq(file.shard(2).operatorId, providers[4]);
    }
}
