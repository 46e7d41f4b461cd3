// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkers} from "../../src/storage/Checkers.sol";
import {ICheckers} from "../../src/storage/ICheckers.sol";
import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {OrderBook} from "../../src/storage/OrderBook.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {deployCheckers, deployOrderBatches, deployOrderBook} from "../deploy/orders.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice The storage network with its order book and checkers; orders of small pieces.
abstract contract OrderFixture is StorageFixture {
    uint32 internal constant BATCH = 60;
    uint32 internal constant MATCH = 20;
    uint128 internal constant DEAL_BOND = 1e16;
    uint128 internal constant CLAIM_BOND = 5e16;
    uint128 internal constant TIP = 1e15;
    uint64 internal constant SIZE = 1000;
    uint8 internal constant HEIGHT = 5;
    uint32 internal constant PERIODS = 20;
    uint128 internal constant ASK_PRICE = 6e21; // per GiB: about 5.6e15 for a piece
    uint128 internal constant BID_PRICE = 8e21;
    uint128 internal constant COLLATERAL_PER_GIB = 1_073_741_824e15; // 1e18 for a piece
    bytes internal constant ROOT_CID = hex"0170122000000000000000000000000000000000000000000000000000000000000000aa";

    Checkers internal checkers;
    OrderBook internal book;
    uint64[] internal providers; // alice, bob and more
    uint256 internal agentSecret;
    address internal agent;
    mapping(uint64 bidId => uint256) internal bidSeeds;
    mapping(uint64 bidId => uint8) internal bidCounts;

    function setUp() public virtual override {
        super.setUp();
        checkers = deployCheckers(checkersConfig(), market, operators, vault, rails, randomness);
        address batches = address(deployOrderBatches(market, possession, operators, vault, rails));
        book = deployOrderBook(bookConfig(), market, possession, operators, vault, rails, checkers, batches);
        registry.set("checkers", address(checkers), true);
        registry.set("orderBook", address(book), true);
        (agent, agentSecret) = makeAddrAndKey("agent");
        providers = [alice, bob];
        approveBook(client);
    }

    function bookConfig() internal view virtual returns (IOrderBook.Config memory) {
        return IOrderBook.Config({
            genesis: uint64(block.timestamp),
            batchSeconds: BATCH,
            matchSeconds: MATCH,
            feeBps: 500,
            bountySeconds: 1000,
            dealBond: DEAL_BOND,
            claimBond: CLAIM_BOND,
            matcherTip: TIP
        });
    }

    function checkersConfig() internal pure virtual returns (ICheckers.Config memory) {
        return ICheckers.Config({seatStake: 5e18, fee: 1e15, leaveSeconds: 1 days, drawn: 3, threshold: 2, missesMax: 2});
    }

    function approveBook(address account) internal {
        vm.prank(account);
        rails.approve(address(book), address(token), type(uint256).max);
    }

    function addProviders(uint256 count) internal {
        while (providers.length < count) providers.push(newOperator(string.concat("provider ", vm.toString(providers.length))));
    }

    // ------------------------------------------------------------------------------------------------------------------ orders

    function askFor(uint64 operatorId) internal returns (IOrderBook.Ask memory) {
        return IOrderBook.Ask({
            operatorId: operatorId,
            minPrice: ASK_PRICE,
            collateralPerGiB: COLLATERAL_PER_GIB,
            capacityBytes: 4 * SIZE,
            minBytes: 1,
            maxBytes: 1 << 40,
            minPeriods: 2,
            maxPeriods: 1000,
            maxDeals: 4,
            networkPrefix: keccak256(abi.encode(operatorId)),
            nonce: ++nonces,
            expiry: uint64(block.timestamp + 10 days)
        });
    }

    function postAsk(IOrderBook.Ask memory a) internal returns (uint64) {
        bytes memory signature = sign(nodeSecret[a.operatorId], book.askDigest(a));
        return book.postAsk(a, signature);
    }

    function postAsks(uint256 count) internal returns (uint64[] memory ids) {
        addProviders(count);
        ids = new uint64[](count);
        for (uint256 i; i < count; ++i) {
            ids[i] = postAsk(askFor(providers[i]));
        }
    }

    function cidOf(uint256 seed) internal pure returns (bytes memory) {
        return abi.encodePacked(hex"01551220", keccak256(abi.encode("cid", seed)));
    }

    function shardsOf(uint256 seed, uint8 count) internal pure returns (IOrderBook.Shard[] memory shards) {
        shards = new IOrderBook.Shard[](count);
        for (uint256 i; i < count; ++i) {
            shards[i] = IOrderBook.Shard(pieceRootOf(seed + i, HEIGHT), cidOf(seed + i));
        }
    }

    function bidFor(uint256 seed, uint8 count, uint8 needed) internal returns (IOrderBook.Bid memory) {
        return IOrderBook.Bid({
            client: client,
            agent: agent,
            contentHash: keccak256(ROOT_CID),
            shardsHash: keccak256(abi.encode(shardsOf(seed, count))),
            shardSize: SIZE,
            pieceHeight: HEIGHT,
            count: count,
            needed: needed,
            repairBelow: needed < count ? count : 0,
            periods: PERIODS,
            maxPrice: BID_PRICE,
            collateralPerGiB: COLLATERAL_PER_GIB,
            distinctNetworks: false,
            regionMax: 0,
            excludedHash: keccak256(abi.encode(new uint64[](0))),
            reserve: 1e18,
            bountyMax: 15e16,
            challengeBudget: 1e16,
            nonce: ++nonces,
            expiry: uint64(block.timestamp + 1 days)
        });
    }

    function postBid(IOrderBook.Bid memory b, uint256 seed, uint64[] memory excluded) internal returns (uint64 bidId) {
        bytes memory signature = sign(clientSecret, book.bidDigest(b));
        (bidId,) = book.postBid(b, excluded, shardsOf(seed, b.count), ROOT_CID, signature);
        (bidSeeds[bidId], bidCounts[bidId]) = (seed, b.count);
    }

    function postBid(IOrderBook.Bid memory b, uint256 seed) internal returns (uint64) {
        return postBid(b, seed, new uint64[](0));
    }

    // ----------------------------------------------------------------------------------------------------------------- batches

    function matchingOf(uint64[] memory bids, uint64[] memory asks, uint16[] memory places)
        internal
        pure
        returns (IOrderBook.Matching memory)
    {
        bytes memory assignment;
        for (uint256 i; i < places.length; ++i) {
            assignment = bytes.concat(assignment, bytes2(places[i]));
        }
        uint64[] memory copy = new uint64[](asks.length);
        for (uint256 i; i < asks.length; ++i) {
            copy[i] = asks[i];
        }
        return IOrderBook.Matching(bids, copy, assignment);
    }

    /// Shard i to ask i.
    function straight(uint64 bidId, uint64[] memory asks) internal pure returns (IOrderBook.Matching memory) {
        uint64[] memory bids = new uint64[](1);
        bids[0] = bidId;
        uint16[] memory places = new uint16[](asks.length);
        for (uint16 i; i < asks.length; ++i) {
            places[i] = i;
        }
        return matchingOf(bids, asks, places);
    }

    /// Goes to the close of the running batch.
    function close() internal returns (uint64 batch) {
        batch = book.batchAt(block.timestamp);
        vm.warp(book.batchStart(batch + 1));
    }

    function toSettlement(uint64 batch) internal {
        vm.warp(book.batchStart(batch + 1) + MATCH);
    }

    function settle(uint64 batch, IOrderBook.Matching memory m, uint256 index) internal {
        uint64 bidId = m.bids[index];
        uint64 before = market.dealCount();
        book.settle(batch, m, index, shardsOf(bidSeeds[bidId], bidCounts[bidId]));
        for (uint64 i = 1; i <= bidCounts[bidId]; ++i) {
            pieceSeeds[before + i] = bidSeeds[bidId] + i - 1;
        }
    }

    /// A bid of `count` shards at `count` providers, settled.
    function filledFile(uint256 seed, uint8 count, uint8 needed) internal returns (IStorageFile file) {
        return fill(bidFor(seed, count, needed), seed);
    }

    function fill(IOrderBook.Bid memory b, uint256 seed) internal returns (IStorageFile file) {
        uint64[] memory asks = postAsks(b.count);
        uint64 bidId = postBid(b, seed);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        settle(batch, m, 0);
        return fileOf(bidId);
    }

    function fileOf(uint64 bidId) internal view returns (IStorageFile) {
        return IStorageFile(book.bid(bidId).file);
    }

    function activateAll(IStorageFile file) internal {
        IStorageFile.ShardAccount[] memory list = file.shards();
        for (uint256 i; i < list.length; ++i) {
            activate(list[i].dealId);
        }
    }

    /// Empty acknowledgement, for repairs.
    function activateWith(uint64 dealId, bytes memory acknowledgement) internal {
        uint64 seedAt = market.activationSeedTime(dealId);
        if (block.timestamp < seedAt) vm.warp(seedAt);
        uint64 operatorId = market.deal(dealId).operatorId;
        IPossession.Leaf memory leaf = leafOf(dealId);
        bytes memory openings = openPiece(leaf, pieceSeeds[dealId], seedOf(seedAt), marketConfig().activationLeaves);
        uint32 slot = freeSlot(operatorId);
        bytes memory path = tablePath(tables[operatorId], slot);
        vm.prank(nodeKey(operatorId));
        market.activate(dealId, acknowledgement, openings, slot, path);
        put(operatorId, slot, leaf);
    }

    function surrender(IStorageFile file, uint8 shard) internal {
        uint64 dealId = file.shard(shard).dealId;
        address key = nodeKey(market.deal(dealId).operatorId);
        vm.prank(key);
        market.surrender(dealId);
    }

    function claim(IStorageFile file, uint8 shard, uint64 operatorId) internal returns (uint64 dealId) {
        uint64 bidId = book.bidOfFile(address(file));
        vm.prank(nodeKey(operatorId));
        dealId = file.claimRepair(shard, cidOf(bidSeeds[bidId] + shard), keccak256(abi.encode(operatorId)));
        pieceSeeds[dealId] = bidSeeds[bidId] + shard;
    }
}
