// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {OrderBatches} from "../../src/storage/OrderBatches.sol";
import {IRails} from "../../src/token/IRails.sol";
import {deployOrderBook} from "../deploy/orders.sol";
import {OrderFixture} from "./fixture.sol";

contract OrderBookTest is OrderFixture {
    uint256 private constant SEED = 1000;
    uint128 private constant PRICE_OF_PIECE = 6_519_258_022_308_350; // ceil(1000 * 7e21 / 2^30)

    // ------------------------------------------------------------------------------------------------------------------- config

    function refuseConfig(IOrderBook.Config memory c, string memory field, uint256 got, uint256 limit) private {
        address batches = book.batches();
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.BadConfig.selector, field, got, limit));
        deployOrderBook(c, market, possession, operators, vault, rails, checkers, batches);
    }

    function test_aConfigurationOutOfBoundsIsRefused() public {
        IOrderBook.Config memory c = book.config();
        c.genesis = uint64(block.timestamp + 1);
        refuseConfig(c, "genesis", c.genesis, block.timestamp);
        c = book.config();
        c.matchSeconds = 0;
        refuseConfig(c, "matchSeconds", 0, 1);
        c = book.config();
        c.matchSeconds = c.batchSeconds;
        refuseConfig(c, "batchSeconds", c.batchSeconds, c.matchSeconds);
        c = book.config();
        c.feeBps = 10_001;
        refuseConfig(c, "feeBps", 10_001, 10_000);
        c = book.config();
        c.bountySeconds = 0;
        refuseConfig(c, "bountySeconds", 0, 1);
        c = book.config();
        c.dealBond = 1e15 - 1;
        refuseConfig(c, "dealBond", 1e15 - 1, 1e15);
        c = book.config();
        c.claimBond = 2 * DEAL_BOND - 1;
        refuseConfig(c, "claimBond", 2 * DEAL_BOND - 1, 2 * DEAL_BOND);
    }

    function test_theBookSaysHowLongItsLocksAreAtStake() public view {
        assertEq(book.exposureSeconds(), 900 + 2 * BATCH);
        assertEq(book.bountyLimit(1e18), 2e17); // the leave fee
    }

    // --------------------------------------------------------------------------------------------------------------------- asks

    function test_anAskLocksForAllThatItMayGive() public {
        uint64 askId = postAsk(askFor(alice));
        IOrderBook.AskState memory s = book.ask(askId);
        assertEq(s.operatorId, alice);
        assertEq(s.locked, 4e18 + 4 * (DEAL_BOND + 1));
        assertEq(vault.lockedOfModule(alice, address(book)), s.locked);
        assertEq(s.region, bytes32("test"));
        assertEq(s.freeBytes, 4 * SIZE);
        assertEq(s.freeDeals, 4);
        assertEq(book.askCount(), 1);
    }

    function refuseAsk(IOrderBook.Ask memory a, bytes memory error) private {
        bytes memory signature = sign(nodeSecret[a.operatorId], book.askDigest(a));
        vm.expectRevert(error);
        book.postAsk(a, signature);
    }

    function badOrder(string memory field, uint256 got, uint256 limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IOrderBook.BadOrder.selector, field, got, limit);
    }

    function test_anAskOutOfBoundsIsRefused() public {
        IOrderBook.Ask memory a = askFor(alice);
        a.capacityBytes = 0;
        refuseAsk(a, badOrder("capacityBytes", 0, 1));
        a = askFor(alice);
        a.maxDeals = 0;
        refuseAsk(a, badOrder("maxDeals", 0, 1));
        a = askFor(alice);
        a.collateralPerGiB = 0;
        refuseAsk(a, badOrder("collateralPerGiB", 0, 1));
        a = askFor(alice);
        (a.minBytes, a.maxBytes) = (2, 1);
        refuseAsk(a, badOrder("maxBytes", 1, 2));
        a = askFor(alice);
        (a.minPeriods, a.maxPeriods) = (3, 2);
        refuseAsk(a, badOrder("maxPeriods", 2, 3));
        a = askFor(alice);
        a.expiry = uint64(block.timestamp);
        refuseAsk(a, abi.encodeWithSelector(IOrderBook.OrderExpired.selector, a.expiry, block.timestamp));
    }

    function test_anAskNeedsTheNodeKeyAndServesOnce() public {
        IOrderBook.Ask memory a = askFor(alice);
        bytes memory foreign = sign(nodeSecret[bob], book.askDigest(a));
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.BadSignature.selector, nodeKey(alice)));
        book.postAsk(a, foreign);
        bytes memory own = sign(nodeSecret[alice], book.askDigest(a));
        book.postAsk(a, own);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NonceUsed.selector, nodeKey(alice), a.nonce));
        book.postAsk(a, own);
        a = askFor(alice);
        vm.prank(nodeKey(alice));
        book.cancelNonce(a.nonce);
        assertTrue(book.isNonceUsed(nodeKey(alice), a.nonce));
        refuseAsk(a, abi.encodeWithSelector(IOrderBook.NonceUsed.selector, nodeKey(alice), a.nonce));
    }

    function test_anAskIsCancelledByItsOperatorOnlyAndReleasedWhenNoBatchCanUseIt() public {
        uint64 askId = postAsk(askFor(alice));
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotOperator.selector, alice, address(this)));
        book.cancelAsk(askId);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.UnknownAsk.selector, askId + 1));
        book.cancelAsk(askId + 1);
        vm.prank(makeAddr("alice"));
        book.cancelAsk(askId);
        uint64 until = book.batchStart(1);
        assertEq(book.ask(askId).validUntil, until);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.StillUsable.selector, until, block.timestamp));
        book.releaseAsk(askId);
        vm.warp(until);
        book.releaseAsk(askId);
        assertEq(vault.lockedOf(alice), 0);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NothingLocked.selector, askId));
        book.releaseAsk(askId);
        askId = postAsk(askFor(alice));
        vm.prank(nodeKey(alice));
        book.cancelAsk(askId);
    }

    /// Whatever the pieces, the lock is enough for all deals that the ask allows.
    function testFuzz_theLockCoversEveryUseOfTheCapacity(uint64 capacity, uint96 perGiB, uint32[] calldata sizes, uint128 demanded) public {
        capacity = uint64(bound(capacity, 1, 1 << 50));
        uint256 collateralPerGiB = bound(perGiB, 1, type(uint96).max);
        uint256 demand = bound(demanded, 1, collateralPerGiB);
        uint256 count = Math.min(sizes.length, 20);
        IOrderBook.Ask memory a = askFor(alice);
        (a.capacityBytes, a.collateralPerGiB, a.maxDeals) = (capacity, uint128(collateralPerGiB), 20);
        uint256 left = book.askLock(a);
        uint256 free = capacity;
        for (uint256 i; i < count; ++i) {
            uint256 size = Math.min(uint256(sizes[i]) + 1, free);
            if (size == 0) break;
            free -= size;
            left -= Math.max(1, Math.ceilDiv(size * demand, 1 << 30)) + DEAL_BOND; // reverts when the lock is too small
        }
    }

    // --------------------------------------------------------------------------------------------------------------------- bids

    function test_aBidPaysForItselfIntoTheAccountOfItsFile() public {
        IOrderBook.Bid memory b = bidFor(SEED, 4, 2);
        uint256 before = funds(client);
        address expected = book.fileAddress(b);
        uint64 bidId = postBid(b, SEED);
        IOrderBook.BidState memory s = book.bid(bidId);
        assertEq(s.file, expected);
        assertEq(book.bidOfFile(expected), bidId);
        assertEq(before - funds(client), book.bidCost(b));
        assertEq(funds(expected), book.bidCost(b));
        // ceil(1000 * 8e21 / 2^30) and its fee of 5 %
        uint256 price = 7_450_580_596_923_829;
        uint256 perShard = (price + price / 20) * PERIODS + DEAL_BOND;
        assertEq(book.bidCost(b), 4 * perShard + TIP + 1e18 + 1e16);
        assertEq(IStorageFile(expected).terms().owner, client);
        assertEq(IStorageFile(expected).reserved(), book.bidCost(b));
        assertEq(IStorageFile(expected).free(), 0);
        assertEq(book.bidCount(), 1);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.UnknownBid.selector, 2));
        book.bid(2);
    }

    function refuseBid(IOrderBook.Bid memory b, bytes memory error) private {
        bytes memory signature = sign(clientSecret, book.bidDigest(b));
        IOrderBook.Shard[] memory shards = shardsOf(SEED, b.count > 40 ? 1 : b.count);
        vm.expectRevert(error);
        book.postBid(b, new uint64[](0), shards, ROOT_CID, signature);
    }

    function test_aBidOutOfBoundsIsRefused() public {
        IOrderBook.Bid memory b = bidFor(SEED, 4, 2);
        b.count = 0;
        refuseBid(b, badOrder("count", 0, 32));
        b.count = 33;
        refuseBid(b, badOrder("count", 33, 32));
        b.count = 4;
        b.needed = 0;
        refuseBid(b, badOrder("needed", 0, 4));
        b.needed = 5;
        refuseBid(b, badOrder("needed", 5, 4));
        b.needed = 2;
        b.repairBelow = 2;
        refuseBid(b, badOrder("repairBelow", 2, 4));
        b.repairBelow = 5;
        refuseBid(b, badOrder("repairBelow", 5, 4));
        b.repairBelow = 4;
        b.periods = 1;
        refuseBid(b, badOrder("periods", 1, 2));
        b.periods = 10_001;
        refuseBid(b, badOrder("periods", 10_001, 10_000));
        b.periods = 20;
        b.collateralPerGiB = 0;
        refuseBid(b, badOrder("collateralPerGiB", 0, 1));
        b.collateralPerGiB = COLLATERAL_PER_GIB;
        b.shardSize = 0;
        refuseBid(b, badOrder("shardSize", 0, 1));
        b.shardSize = 1017; // 33 leaves
        refuseBid(b, badOrder("leaves", 33, 32));
        b.shardSize = SIZE;
        b.pieceHeight = 33;
        refuseBid(b, badOrder("pieceHeight", 33, 32));
        b.pieceHeight = HEIGHT;
        b.bountyMax = 2e17; // the leave fee of the collateral
        refuseBid(b, badOrder("bountyMax", 2e17, 2e17));
        b.bountyMax = 0;
        b.expiry = uint64(block.timestamp);
        refuseBid(b, abi.encodeWithSelector(IOrderBook.OrderExpired.selector, b.expiry, block.timestamp));
    }

    function test_aBidsContentIsWhatWasSigned() public {
        IOrderBook.Bid memory b = bidFor(SEED, 2, 1);
        bytes memory signature = sign(clientSecret, book.bidDigest(b));
        uint64[] memory none = new uint64[](0);
        IOrderBook.Shard[] memory shards = shardsOf(SEED, 2);
        vm.expectRevert(badOrder("cid", 101, 100));
        book.postBid(b, none, shards, new bytes(101), signature);
        vm.expectRevert(badOrder("excluded", 65, 64));
        book.postBid(b, new uint64[](65), shards, ROOT_CID, signature);
        IOrderBook.Shard[] memory three = shardsOf(SEED, 3);
        vm.expectRevert(badOrder("shards", 3, 2));
        book.postBid(b, none, three, ROOT_CID, signature);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.HashMismatch.selector, "cid", keccak256("x"), b.contentHash));
        book.postBid(b, none, shards, "x", signature);
        IOrderBook.Shard[] memory others = shardsOf(SEED + 1, 2);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.HashMismatch.selector, "shards", keccak256(abi.encode(others)), b.shardsHash));
        book.postBid(b, none, others, ROOT_CID, signature);
        uint64[] memory some = new uint64[](1);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.HashMismatch.selector, "excluded", keccak256(abi.encode(some)), b.excludedHash));
        book.postBid(b, some, shards, ROOT_CID, signature);
        others[1].cid = new bytes(101);
        vm.expectRevert(badOrder("cid", 101, 100));
        book.postBid(b, none, others, ROOT_CID, signature);
        bytes memory foreign = sign(agentSecret, book.bidDigest(b));
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.BadSignature.selector, client));
        book.postBid(b, none, shards, ROOT_CID, foreign);
        b.challengeBudget = 2_000e18;
        signature = sign(clientSecret, book.bidDigest(b));
        uint256 cost = book.bidCost(b);
        uint256 available = funds(client);
        vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientBalance.selector, address(token), client, cost, available));
        book.postBid(b, none, shards, ROOT_CID, signature);
    }

    function test_aBidIsCancelledByItsClientOnlyAndItsMoneyIsFreeAfterTheBatch() public {
        uint256 before = funds(client) + token.balanceOf(client);
        uint64 bidId = postBid(bidFor(SEED, 4, 2), SEED);
        IStorageFile file = fileOf(bidId);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotClient.selector, bidId, address(this)));
        book.cancelBid(bidId);
        uint256 held = funds(address(file));
        vm.startPrank(client);
        book.cancelBid(bidId);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, held, 0));
        file.withdraw(held, client);
        vm.warp(book.batchStart(1));
        file.withdraw(held, client);
        vm.stopPrank();
        assertEq(funds(client) + token.balanceOf(client), before);
    }

    function test_anExpiredBidsMoneyIsFree() public {
        uint64 bidId = postBid(bidFor(SEED, 4, 2), SEED);
        vm.warp(book.bid(bidId).validUntil);
        assertEq(fileOf(bidId).free(), funds(address(fileOf(bidId))));
    }

    // ------------------------------------------------------------------------------------------------------------------ batches

    function window(uint256 from, uint256 to) private view returns (bytes memory) {
        return abi.encodeWithSelector(IOrderBook.OutsideWindow.selector, block.timestamp, from, to);
    }

    function test_aMatchingIsSubmittedAndSettledInItsWindowsOnly() public {
        uint64[] memory asks = postAsks(2);
        uint64 bidId = postBid(bidFor(SEED, 2, 1), SEED);
        IOrderBook.Matching memory m = straight(bidId, asks);
        IOrderBook.Shard[] memory shards = shardsOf(SEED, 2);
        uint64 end = book.batchStart(1);
        vm.warp(end - 1);
        vm.expectRevert(window(end, end + MATCH));
        book.submit(0, m);
        vm.warp(end);
        book.submit(0, m);
        vm.expectRevert(window(end + MATCH, end + BATCH));
        book.settle(0, m, 0, shards);
        vm.warp(end + MATCH);
        vm.expectRevert(window(end, end + MATCH));
        book.submit(0, m);
        vm.warp(end + BATCH);
        vm.expectRevert(window(end + MATCH, end + BATCH));
        book.settle(0, m, 0, shards);
        // void, and the orders serve the next batch
        book.submit(1, m);
        toSettlement(1);
        settle(1, m, 0);
        assertTrue(book.bid(bidId).filled);
        uint256 far = type(uint64).max / 2;
        vm.expectRevert(window(far + BATCH, far + BATCH + MATCH));
        book.submit(type(uint64).max, m);
    }

    function test_aFilledBidHasItsDealsItsPriceAndItsFee() public {
        uint64[] memory asks = postAsks(3);
        uint64 bidId = postBid(bidFor(SEED, 3, 2), SEED);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        address matcher = makeAddr("matcher");
        vm.prank(matcher);
        book.submit(batch, m);
        IOrderBook.Best memory top = book.best(batch);
        assertEq(top.price, (uint256(ASK_PRICE) + BID_PRICE) / 2);
        assertEq(top.score, uint256(3) * SIZE * PERIODS * (BID_PRICE - ASK_PRICE + 1));
        assertEq(top.sizeBytes, 3 * SIZE);
        assertEq(top.submitter, matcher);
        toSettlement(batch);
        uint256 supply = token.totalSupply();
        IStorageFile file = fileOf(bidId);
        uint256 held = funds(address(file));
        uint256 locked = vault.lockedOfModule(providers[0], address(book));
        settle(batch, m, 0);
        uint256 fee = uint256(PRICE_OF_PIECE / 20) * PERIODS * 3;
        assertEq(supply - token.totalSupply(), fee);
        assertEq(funds(matcher), TIP);
        assertEq(held - funds(address(file)), fee + TIP + 3 * (uint256(PRICE_OF_PIECE) * PERIODS + DEAL_BOND));
        for (uint8 i; i < 3; ++i) {
            IStorageMarket.Deal memory d = market.deal(file.shard(i).dealId);
            assertEq(d.client, address(file));
            assertEq(d.operatorId, providers[i]);
            assertEq(d.pricePerPeriod, PRICE_OF_PIECE);
            assertEq(d.collateral, 1e18);
            assertEq(d.bond, DEAL_BOND);
            assertEq(d.contentHash, keccak256(cidOf(SEED + i)));
            assertEq(book.feePerPeriod(file.shard(i).dealId), PRICE_OF_PIECE / 20);
        }
        assertEq(locked - vault.lockedOfModule(providers[0], address(book)), 1e18 + DEAL_BOND);
        assertEq(vault.lockedOfModule(providers[0], address(market)), 1e18 + DEAL_BOND);
        assertEq(book.ask(asks[0]).freeDeals, 3);
        assertEq(book.ask(asks[0]).freeBytes, 3 * SIZE);
        assertTrue(book.best(batch).cleared);
        // what the price fell below the bid's is the client's at once
        uint256 surplus = funds(address(file)) - 1e18 - 1e16;
        assertEq(file.free(), surplus);
        vm.prank(client);
        file.withdraw(surplus, client);
        uint64 direct = openDeal(alice, SEED, 10);
        assertEq(book.feePerPeriod(direct), 0);
    }

    function test_aSettlementIsOfTheBestMatchingAndOnce() public {
        uint64[] memory asks = postAsks(2);
        uint64 bidId = postBid(bidFor(SEED, 2, 1), SEED);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        IOrderBook.Matching memory other = matchingOf(m.bids, m.asks, new uint16[](2));
        IOrderBook.Shard[] memory shards = shardsOf(SEED, 2);
        bytes32 hash = keccak256(abi.encode(m));
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.HashMismatch.selector, "matching", keccak256(abi.encode(other)), hash));
        book.settle(batch, other, 0, shards);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.UnknownIndex.selector, 1, 1));
        book.settle(batch, m, 1, shards);
        IOrderBook.Shard[] memory wrong = shardsOf(SEED + 1, 2);
        bytes32 shardsHash = keccak256(abi.encode(shards));
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.HashMismatch.selector, "shards", keccak256(abi.encode(wrong)), shardsHash));
        book.settle(batch, m, 0, wrong);
        settle(batch, m, 0);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.BidAlreadyFilled.selector, bidId));
        book.settle(batch, m, 0, shards);
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.BidAlreadyFilled.selector, bidId));
        book.cancelBid(bidId);
        batch = close();
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.BidAlreadyFilled.selector, bidId));
        book.submit(batch, m);
    }

    function test_severalBidsShareAsksAndOneIsSettledWithoutTheOther() public {
        uint64[] memory asks = postAsks(3);
        uint64[] memory bids = new uint64[](2);
        bids[0] = postBid(bidFor(SEED, 3, 2), SEED);
        bids[1] = postBid(bidFor(SEED + 10, 2, 1), SEED + 10);
        uint16[] memory places = new uint16[](5);
        (places[0], places[1], places[2], places[3], places[4]) = (0, 1, 2, 2, 0);
        uint64 batch = close();
        IOrderBook.Matching memory m = matchingOf(bids, asks, places);
        book.submit(batch, m);
        toSettlement(batch);
        settle(batch, m, 1);
        assertEq(fileOf(bids[1]).shard(0).operatorId, providers[2]);
        assertEq(fileOf(bids[1]).shard(1).operatorId, providers[0]);
        assertFalse(book.bid(bids[0]).filled);
        settle(batch, m, 0);
        assertEq(book.ask(asks[0]).freeDeals, 2);
        assertEq(book.ask(asks[1]).freeDeals, 3);
        assertEq(book.ask(asks[2]).freeDeals, 2);
    }

    function test_copiesOfOnePieceAreAFileThatNeedsOneShard() public {
        IOrderBook.Bid memory b = bidFor(SEED, 3, 1);
        IOrderBook.Shard[] memory shards = new IOrderBook.Shard[](3);
        for (uint256 i; i < 3; ++i) {
            shards[i] = shardsOf(SEED, 1)[0];
        }
        b.shardsHash = keccak256(abi.encode(shards));
        uint64[] memory asks = postAsks(3);
        bytes memory signature = sign(clientSecret, book.bidDigest(b));
        (uint64 bidId, address file) = book.postBid(b, new uint64[](0), shards, ROOT_CID, signature);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        book.settle(batch, m, 0, shards);
        for (uint8 i; i < 3; ++i) {
            uint64 dealId = IStorageFile(file).shard(i).dealId;
            pieceSeeds[dealId] = SEED;
            activate(dealId);
        }
    }

    function test_oneShardAloneIsAFile() public {
        IStorageFile file = filledFile(SEED, 1, 1);
        activateAll(file);
        assertEq(file.account().healthy, 1);
        assertEq(file.openJobs().length, 0);
    }

    // -------------------------------------------------------------------------------------------------------------------- rules

    function refuse(IOrderBook.Matching memory m, bytes memory error) private {
        uint64 batch = close();
        vm.expectRevert(error);
        book.submit(batch, m);
    }

    function test_aMatchingMustBeWellFormed() public {
        uint64[] memory asks = postAsks(2);
        uint64 bidId = postBid(bidFor(SEED, 2, 1), SEED);
        refuse(matchingOf(new uint64[](0), new uint64[](0), new uint16[](0)), abi.encodeWithSelector(IOrderBook.NothingMatched.selector));
        IOrderBook.Matching memory m = straight(bidId, asks);
        m.assignment = hex"000000";
        refuse(m, abi.encodeWithSelector(IOrderBook.AssignmentLength.selector, 3, 4));
        m.assignment = hex"00000002";
        refuse(m, abi.encodeWithSelector(IOrderBook.UnknownIndex.selector, 2, 2));
        m = straight(bidId, asks);
        (m.asks[0], m.asks[1]) = (m.asks[1], m.asks[0]);
        refuse(m, abi.encodeWithSelector(IOrderBook.NotAscending.selector, asks[0], asks[1]));
        m = straight(bidId, postAsks(3));
        refuse(m, abi.encodeWithSelector(IOrderBook.AssignmentLength.selector, 6, 4));
        m.assignment = hex"00000001";
        refuse(m, abi.encodeWithSelector(IOrderBook.AskUnused.selector, m.asks[2]));
        m = straight(bidId, asks);
        m.asks[1] = 99;
        refuse(m, abi.encodeWithSelector(IOrderBook.UnknownAsk.selector, 99));
        m = straight(99, asks);
        refuse(m, abi.encodeWithSelector(IOrderBook.UnknownBid.selector, 99));
        m = straight(bidId, asks);
        m.bids = new uint64[](2);
        (m.bids[0], m.bids[1]) = (bidId, bidId);
        refuse(m, abi.encodeWithSelector(IOrderBook.NotAscending.selector, bidId, bidId));
    }

    function test_anOrderThatCameLateOrEndsEarlyIsNotInTheBatch() public {
        uint64[] memory asks = postAsks(2);
        uint64 bidId = postBid(bidFor(SEED, 2, 1), SEED);
        uint64 batch = close();
        uint64 late = postAsk(askFor(alice));
        IOrderBook.Matching memory m = straight(bidId, asks);
        (m.asks[0], m.asks[1]) = (asks[1], late);
        IOrderBook.AskState memory s = book.ask(late);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotInBatch.selector, late, s.postedAt, s.validUntil));
        book.submit(batch, m);
        vm.prank(nodeKey(alice));
        book.cancelAsk(asks[0]);
        m = straight(bidId, asks);
        book.submit(batch, m); // cancelled after the close: the batch keeps it
        batch = close();
        s = book.ask(asks[0]);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotInBatch.selector, asks[0], s.postedAt, s.validUntil));
        book.submit(batch, m);
        vm.prank(client);
        book.cancelBid(bidId);
        m = straight(bidId, asks);
        m.asks[0] = asks[1];
        m.asks[1] = late;
        batch = close();
        IOrderBook.BidState memory b = book.bid(bidId);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotInBatch.selector, bidId, b.postedAt, b.validUntil));
        book.submit(batch, m);
    }

    function oneAgainst(IOrderBook.Ask memory a, IOrderBook.Bid memory b)
        private
        returns (uint64 bidId, uint64 askId, IOrderBook.Matching memory m)
    {
        askId = postAsk(a);
        bidId = postBid(b, SEED);
        uint64[] memory asks = new uint64[](1);
        asks[0] = askId;
        m = straight(bidId, asks);
    }

    function unfit(IOrderBook.Ask memory a, string memory what) private {
        (uint64 bidId, uint64 askId, IOrderBook.Matching memory m) = oneAgainst(a, bidFor(SEED, 1, 1));
        refuse(m, abi.encodeWithSelector(IOrderBook.DoesNotFit.selector, bidId, askId, what));
    }

    function test_anAskMustFitTheBid() public {
        IOrderBook.Ask memory a = askFor(alice);
        a.minPrice = BID_PRICE + 1;
        unfit(a, "price");
        a = askFor(alice);
        a.collateralPerGiB = COLLATERAL_PER_GIB - 1;
        unfit(a, "collateral");
        a = askFor(alice);
        a.minBytes = SIZE + 1;
        unfit(a, "size");
        a = askFor(alice);
        a.maxBytes = SIZE - 1;
        unfit(a, "size");
        a = askFor(alice);
        a.minPeriods = PERIODS + 1;
        unfit(a, "periods");
        a = askFor(alice);
        a.maxPeriods = PERIODS - 1;
        unfit(a, "periods");
        a = askFor(alice);
        a.capacityBytes = SIZE - 1;
        unfit(a, "capacity");
        a = askFor(alice);
        a.networkPrefix = 0;
        IOrderBook.Bid memory b = bidFor(SEED, 1, 1);
        b.distinctNetworks = true;
        (uint64 bidId, uint64 askId, IOrderBook.Matching memory m) = oneAgainst(a, b);
        refuse(m, abi.encodeWithSelector(IOrderBook.DoesNotFit.selector, bidId, askId, "network"));
    }

    function test_noMoreDealsThanAnAskOffers() public {
        IOrderBook.Ask memory a = askFor(alice);
        a.maxDeals = 1;
        uint64[] memory asks = new uint64[](1);
        asks[0] = postAsk(a);
        uint64[] memory bids = new uint64[](2);
        for (uint256 i; i < 2; ++i) {
            bids[i] = postBid(bidFor(SEED, 1, 1), SEED);
        }
        refuse(matchingOf(bids, asks, new uint16[](2)), abi.encodeWithSelector(IOrderBook.DoesNotFit.selector, bids[1], asks[0], "deals"));
    }

    function test_onePriceMustSuitAll() public {
        addProviders(2);
        IOrderBook.Ask memory a = askFor(alice);
        a.minPrice = 5e21;
        uint64[] memory asks = new uint64[](2);
        asks[0] = postAsk(a);
        a = askFor(bob);
        a.minPrice = 7e21;
        asks[1] = postAsk(a);
        uint64[] memory bids = new uint64[](2);
        IOrderBook.Bid memory b = bidFor(SEED, 1, 1);
        b.maxPrice = 6e21;
        bids[0] = postBid(b, SEED);
        b = bidFor(SEED, 1, 1);
        b.maxPrice = 8e21;
        bids[1] = postBid(b, SEED);
        uint16[] memory places = new uint16[](2);
        places[1] = 1;
        refuse(matchingOf(bids, asks, places), abi.encodeWithSelector(IOrderBook.PriceCrossed.selector, 7e21, 6e21));
    }

    function test_shardsOfOneBidAreApart() public {
        uint64[] memory asks = postAsks(2);
        uint64 twice = postAsk(askFor(alice));
        uint64 bidId = postBid(bidFor(SEED, 2, 1), SEED);
        IOrderBook.Matching memory m = straight(bidId, asks);
        m.assignment = hex"00000000";
        m.asks = new uint64[](1);
        m.asks[0] = asks[0];
        refuse(m, abi.encodeWithSelector(IOrderBook.NotDiverse.selector, bidId, asks[0], asks[0], "operator"));
        m = straight(bidId, asks);
        m.asks[1] = twice;
        refuse(m, abi.encodeWithSelector(IOrderBook.NotDiverse.selector, bidId, twice, asks[0], "operator"));
    }

    function sibling(string memory name, address beneficiary) private returns (uint64 operatorId) {
        operatorId = newOperator(name);
        vm.prank(makeAddr(name));
        operators.requestRotation(operatorId, IOperators.Role.Beneficiary, beneficiary);
        vm.warp(block.timestamp + 2 days);
        vm.prank(makeAddr(name));
        operators.finishRotation(operatorId, IOperators.Role.Beneficiary);
    }

    function test_shardsOfOneBidAreWithDifferentOwnersAndBeneficiaries() public {
        uint64 carol = sibling("carol", makeAddr("alice")); // earns for alice
        uint64[] memory asks = new uint64[](2);
        asks[0] = postAsk(askFor(alice));
        asks[1] = postAsk(askFor(carol));
        uint64 bidId = postBid(bidFor(SEED, 2, 1), SEED);
        refuse(straight(bidId, asks), abi.encodeWithSelector(IOrderBook.NotDiverse.selector, bidId, asks[1], asks[0], "owner"));
    }

    function test_networksAndRegionsAreBoundedWhereTheBidAsksForIt() public {
        addProviders(3);
        uint64[] memory asks = new uint64[](3);
        for (uint256 i; i < 3; ++i) {
            IOrderBook.Ask memory a = askFor(providers[i]);
            if (i != 0) a.networkPrefix = "same";
            asks[i] = postAsk(a);
        }
        IOrderBook.Bid memory b = bidFor(SEED, 3, 2);
        b.distinctNetworks = true;
        uint64 bidId = postBid(b, SEED);
        refuse(straight(bidId, asks), abi.encodeWithSelector(IOrderBook.NotDiverse.selector, bidId, asks[2], asks[1], "network"));
        b = bidFor(SEED, 3, 2);
        b.regionMax = 2;
        bidId = postBid(b, SEED);
        refuse(straight(bidId, asks), abi.encodeWithSelector(IOrderBook.NotDiverse.selector, bidId, asks[2], asks[1], "region"));
        b = bidFor(SEED, 3, 2);
        b.regionMax = 3;
        bidId = postBid(b, SEED);
        uint64 batch = close();
        book.submit(batch, straight(bidId, asks));
    }

    function test_excludedOperatorsAreNotTaken() public {
        uint64[] memory asks = postAsks(2);
        uint64[] memory excluded = new uint64[](1);
        excluded[0] = bob;
        IOrderBook.Bid memory b = bidFor(SEED, 2, 1);
        b.excludedHash = keccak256(abi.encode(excluded));
        uint64 bidId = postBid(b, SEED, excluded);
        assertEq(book.bid(bidId).excluded.length, 1);
        refuse(straight(bidId, asks), abi.encodeWithSelector(IOrderBook.OperatorExcluded.selector, bidId, bob));
    }

    /// The price lies between every ask and every bid that it serves, and a file pays no more than its bid.
    function testFuzz_onePriceBetweenAllAsksAndAllBids(uint128[2] memory askPrices, uint128[2] memory bidPrices) public {
        uint64[] memory asks = new uint64[](2);
        uint64[] memory bids = new uint64[](2);
        for (uint256 i; i < 2; ++i) {
            IOrderBook.Ask memory a = askFor(providers[i]);
            a.minPrice = askPrices[i] = uint128(bound(askPrices[i], 0, 1e22));
            asks[i] = postAsk(a);
            IOrderBook.Bid memory b = bidFor(SEED + i, 1, 1);
            b.maxPrice = bidPrices[i] = uint128(bound(bidPrices[i], 0, 1e22));
            bids[i] = postBid(b, SEED + i);
        }
        uint16[] memory places = new uint16[](2);
        places[1] = 1;
        IOrderBook.Matching memory m = matchingOf(bids, asks, places);
        uint64 batch = close();
        uint256 highest = Math.max(askPrices[0], askPrices[1]);
        uint256 lowest = Math.min(bidPrices[0], bidPrices[1]);
        if (highest > lowest) {
            vm.expectRevert();
            book.submit(batch, m);
            return;
        }
        book.submit(batch, m);
        uint256 price = book.best(batch).price;
        assertEq(price, (highest + lowest) / 2);
        toSettlement(batch);
        for (uint256 i; i < 2; ++i) {
            settle(batch, m, i);
            IStorageMarket.Deal memory d = market.deal(fileOf(bids[i]).shard(0).dealId);
            assertEq(d.pricePerPeriod, Math.max(1, Math.ceilDiv(SIZE * price, 1 << 30)));
            assertGe(fileOf(bids[i]).free(), 0);
            assertGe(funds(address(fileOf(bids[i]))), fileOf(bids[i]).reserved());
        }
    }

    function testFuzz_strangersCannotCallWhatIsForFiles(address stranger, uint64 dealId, bool fulfilled) public {
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 10);
        terms.client = stranger;
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotFile.selector, stranger));
        book.openClaim(terms, CID);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotFile.selector, stranger));
        book.closeClaim(dealId, fulfilled);
        vm.stopPrank();
    }

    function test_theCodeForBatchesCalledDirectlyRefusesEverything() public {
        OrderBatches batches = OrderBatches(book.batches());
        IOrderBook.Matching memory m;
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.OutsideWindow.selector, block.timestamp, 0, 0));
        batches.submit(0, m);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.OutsideWindow.selector, block.timestamp, 0, 0));
        batches.settle(0, m, 0, new IOrderBook.Shard[](0));
    }
}
