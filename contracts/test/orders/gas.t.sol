// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {OrderFixture} from "./fixture.sol";

/// @notice Whole transactions of orders, batches, repairs and verdicts, for contracts/.gas-snapshot; pieces of 32 leaves.
contract OrdersGasTest is OrderFixture {
    uint256 private constant SEED = 1 << 20;

    function submitAs(string memory name, uint64[] memory bids, uint64[] memory asks, uint16[] memory places)
        private
        returns (uint64 batch)
    {
        batch = close();
        book.submit(batch, matchingOf(bids, asks, places));
        vm.snapshotGasLastCall("OrderBook", name);
        vm.warp(block.timestamp + BATCH);
    }

    function testGas_ordersAndBatches() public {
        addProviders(32);
        uint64[] memory asks = new uint64[](14);
        for (uint256 i; i < 14; ++i) {
            asks[i] = postAsk(askFor(providers[i]));
        }
        vm.snapshotGasLastCall("OrderBook", "postAsk");
        uint64 single = postBid(bidFor(SEED, 1, 1), SEED);
        vm.snapshotGasLastCall("OrderBook", "postBid 1");
        uint64[] memory four = new uint64[](4);
        for (uint256 i; i < 4; ++i) {
            four[i] = postBid(bidFor(SEED, i < 3 ? 14 : 8, 5), SEED);
        }
        vm.snapshotGasLastCall("OrderBook", "postBid 8");
        uint64[] memory one = new uint64[](1);
        one[0] = single;
        uint64[] memory oneAsk = new uint64[](1);
        oneAsk[0] = asks[0];
        submitAs("submit 1 shard", one, oneAsk, new uint16[](1));
        uint16[] memory places = new uint16[](50);
        for (uint16 i; i < 50; ++i) {
            places[i] = i % 14;
        }
        submitAs("submit 50 shards", four, asks, places);
    }

    function testGas_aFileOf14() public {
        uint64[] memory asks = postAsks(14);
        uint64 bidId = postBid(bidFor(SEED, 14, 10), SEED);
        vm.snapshotGasLastCall("OrderBook", "postBid 14");
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        vm.snapshotGasLastCall("OrderBook", "submit 14 shards");
        toSettlement(batch);
        settle(batch, m, 0);
        vm.snapshotGasLastCall("OrderBook", "settle 14");
        IStorageFile file = fileOf(bidId);
        activateAll(file);
        vm.snapshotGasLastCall("StorageFile", "activate a shard of 14");
        surrender(file, 13);
        file.noteLoss(13);
        vm.snapshotGasLastCall("StorageFile", "noteLoss");
        vm.warp(block.timestamp + 400);
        addProviders(15);
        uint64 dealId = claim(file, 13, providers[14]);
        vm.snapshotGasLastCall("StorageFile", "claimRepair");
        activateWith(dealId, "");
        file.finishRepair(13);
        vm.snapshotGasLastCall("StorageFile", "finishRepair");
        vm.prank(client);
        file.withdraw(1e15, client);
        vm.snapshotGasLastCall("StorageFile", "withdraw");
    }

    /// All that makes a settlement dear: the most shards, their networks and regions kept, the longest CIDs.
    function testGas_theLargestFile() public {
        uint64[] memory asks = postAsks(32);
        IOrderBook.Bid memory b = bidFor(SEED, 32, 20);
        (b.distinctNetworks, b.regionMax) = (true, 32);
        IOrderBook.Shard[] memory shards = shardsOf(SEED, 32);
        for (uint256 i; i < 32; ++i) {
            shards[i].cid = abi.encodePacked(shards[i].cid, new bytes(64));
        }
        b.shardsHash = keccak256(abi.encode(shards));
        bytes memory signature = sign(clientSecret, book.bidDigest(b));
        (uint64 bidId,) = book.postBid(b, new uint64[](0), shards, ROOT_CID, signature);
        vm.snapshotGasLastCall("OrderBook", "postBid 32");
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        book.settle(batch, m, 0, shards);
        vm.snapshotGasLastCall("OrderBook", "settle 32");
    }

    function testGas_verdict() public {
        addProviders(8);
        for (uint256 i = 4; i < 8; ++i) {
            vm.prank(nodeKey(providers[i]));
            checkers.enrol(providers[i]);
            vm.snapshotGasLastCall("Checkers", "enrol");
        }
        vm.warp(block.timestamp + 1);
        IStorageFile file = filledFile(SEED, 2, 1);
        uint64 dealId = file.shard(0).dealId;
        vm.warp(market.activationSeedTime(dealId));
        seedOf(market.activationSeedTime(dealId));
        address key = nodeKey(providers[0]);
        fund(key, 1e18);
        vm.startPrank(key);
        rails.approve(address(checkers), address(token), 1e18);
        checkers.request(dealId);
        vm.snapshotGasLastCall("Checkers", "request");
        vm.stopPrank();
        uint64[] memory drawn = checkers.drawOf(dealId);
        bytes[] memory signatures = new bytes[](drawn.length);
        bytes32 digest = checkers.retrievableDigest(dealId);
        for (uint256 i; i < drawn.length; ++i) {
            signatures[i] = sign(nodeSecret[drawn[i]], digest);
        }
        checkers.verdict(dealId, signatures);
        vm.snapshotGasLastCall("Checkers", "verdict of 3");
        activateWith(dealId, abi.encode(dealId));
    }
}
