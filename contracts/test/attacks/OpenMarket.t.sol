// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {ICheckers} from "../../src/storage/ICheckers.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {OrderFixture} from "../orders/fixture.sol";

/// @notice Attacks on orders, batches, activation and repair, each beside an honest twin who is not punished.
contract OpenMarketAttacks is OrderFixture {
    uint256 private constant SEED = 1000;
    address private matcher = makeAddr("honest matcher");
    address private favourer = makeAddr("favouring matcher");

    function submitAs(address who, uint64 batch, IOrderBook.Matching memory m) private {
        vm.prank(who);
        book.submit(batch, m);
    }

    function refused(uint256 score, uint256 best) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IOrderBook.NotBetter.selector, score, best);
    }

    // --------------------------------------------------------------------------------------------------- the favouring matcher

    /// Leaves out the cheap provider and takes its friend, who asks for more: anybody's better matching replaces it.
    function test_attack_aFavouringMatcherIsReplacedByAnybodyWhoDoesBetter() public {
        uint64[] memory cheap = new uint64[](1);
        uint64[] memory friend = new uint64[](1);
        cheap[0] = postAsk(askFor(alice));
        IOrderBook.Ask memory a = askFor(bob);
        a.minPrice = 79e20;
        friend[0] = postAsk(a);
        uint64 bidId = postBid(bidFor(SEED, 1, 1), SEED);
        uint64 batch = close();
        submitAs(favourer, batch, straight(bidId, friend));
        submitAs(matcher, batch, straight(bidId, cheap));
        uint256 best = book.best(batch).score;
        vm.expectRevert(refused(uint256(SIZE) * PERIODS * (1e20 + 1), best));
        submitAs(favourer, batch, straight(bidId, friend));
        toSettlement(batch);
        settle(batch, straight(bidId, cheap), 0);
        assertEq(market.deal(1).operatorId, alice);
        assertEq(funds(matcher), TIP);
        assertEq(funds(favourer), 0);
    }

    /// A trade without any surplus counts as well, so that leaving it out loses.
    function test_attack_noTradeCanBeLeftOutForNothing() public {
        uint64[] memory asks = postAsks(2);
        uint64[] memory both = new uint64[](2);
        for (uint256 i; i < 2; ++i) {
            IOrderBook.Bid memory b = bidFor(SEED, 1, 1);
            b.maxPrice = ASK_PRICE;
            both[i] = postBid(b, SEED);
        }
        uint64[] memory one = new uint64[](1);
        one[0] = asks[0];
        uint64 batch = close();
        submitAs(favourer, batch, straight(both[0], one));
        uint16[] memory places = new uint16[](2);
        places[1] = 1;
        submitAs(matcher, batch, matchingOf(both, asks, places));
        assertEq(book.best(batch).submitter, matcher);
    }

    /// Orders that the favourer made for itself lift the score of whoever includes them: of the honest matching too.
    function test_attack_ordersMadeToLiftTheScoreLiftEverybodysScore() public {
        addProviders(3);
        uint64[] memory asks = postAsks(2);
        IOrderBook.Ask memory own = askFor(providers[2]);
        own.minPrice = 0;
        uint64 ownAsk = postAsk(own);
        uint64[] memory bids = new uint64[](2);
        bids[0] = postBid(bidFor(SEED, 2, 1), SEED);
        IOrderBook.Bid memory b = bidFor(SEED, 1, 1);
        b.maxPrice = 1e25; // costs the favourer its fee, should it be filled
        bids[1] = postBid(b, SEED);
        uint64 batch = close();
        uint64[] memory alone = new uint64[](1);
        alone[0] = ownAsk;
        submitAs(favourer, batch, straight(bids[1], alone)); // the honest bid left out
        uint64[] memory all = new uint64[](3);
        (all[0], all[1], all[2]) = (asks[0], asks[1], ownAsk);
        uint16[] memory places = new uint16[](3);
        (places[1], places[2]) = (1, 2);
        submitAs(matcher, batch, matchingOf(bids, all, places));
        assertEq(book.best(batch).submitter, matcher);
    }

    // ----------------------------------------------------------------------------------------------------------- front-running

    /// Whoever sees an order in the mempool gains nothing by being earlier in the block, and after the close is too late.
    function test_attack_anOrderAfterTheCloseIsTooLateAndOrderWithinABatchMeansNothing() public {
        addProviders(2);
        uint64 bidId = postBid(bidFor(SEED, 1, 1), SEED);
        uint64[] memory honest = new uint64[](1);
        honest[0] = postAsk(askFor(alice));
        uint64 batch = close();
        IOrderBook.Ask memory a = askFor(bob);
        a.minPrice = ASK_PRICE - 1; // undercuts what it has seen
        uint64[] memory late = new uint64[](1);
        late[0] = postAsk(a);
        IOrderBook.AskState memory s = book.ask(late[0]);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NotInBatch.selector, late[0], s.postedAt, s.validUntil));
        submitAs(favourer, batch, straight(bidId, late));
        submitAs(matcher, batch, straight(bidId, honest));
        // a copy of somebody's matching is no better
        uint256 score = book.best(batch).score;
        vm.expectRevert(refused(score, score));
        submitAs(favourer, batch, straight(bidId, honest));
    }

    /// A signed order that somebody else brings is the same order: same file, same money, once.
    function test_attack_anOrderBroughtBySomebodyElseIsTheSameOrder() public {
        IOrderBook.Bid memory b = bidFor(SEED, 1, 1);
        address expected = book.fileAddress(b);
        bytes memory signature = sign(clientSecret, book.bidDigest(b));
        IOrderBook.Shard[] memory shards = shardsOf(SEED, 1);
        vm.prank(favourer);
        (, address file) = book.postBid(b, new uint64[](0), shards, ROOT_CID, signature);
        assertEq(file, expected);
        assertEq(IStorageFile(file).terms().owner, client);
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.NonceUsed.selector, client, b.nonce));
        book.postBid(b, new uint64[](0), shards, ROOT_CID, signature);
    }

    // ---------------------------------------------------------------------------------------------------------- over-commitment

    function test_attack_anOperatorCannotOfferMoreThanItsStakeCovers() public {
        IOrderBook.Ask memory a = askFor(alice);
        (a.capacityBytes, a.maxDeals) = (60 * SIZE, 60);
        postAsk(a);
        IOrderBook.Ask memory more = askFor(alice);
        (more.capacityBytes, more.maxDeals) = (60 * SIZE, 60);
        uint256 wanted = book.askLock(more);
        uint256 left = 100e18 - vault.lockedOf(alice);
        bytes memory signature = sign(nodeSecret[alice], book.askDigest(more));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, alice, wanted, left));
        book.postAsk(more, signature);
        postAsk(askFor(bob)); // the honest twin
    }

    /// The owner lowers the lock limit and takes what it can out: a match made before is opened all the same.
    function test_attack_noLimitAndNoOtherObligationComesBetweenAMatchAndItsDeal() public {
        uint64[] memory asks = postAsks(1);
        uint64 bidId = postBid(bidFor(SEED, 1, 1), SEED);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        vm.startPrank(makeAddr("alice"));
        vault.setLockLimit(alice, 1);
        (uint256 active,) = vault.ownStake(alice);
        vault.requestExit(alice, active - vault.lockedOf(alice));
        book.cancelAsk(asks[0]);
        vm.stopPrank();
        uint64 until = book.ask(asks[0]).validUntil;
        vm.expectRevert(abi.encodeWithSelector(IOrderBook.StillUsable.selector, until, block.timestamp));
        book.releaseAsk(asks[0]);
        toSettlement(batch);
        settle(batch, m, 0);
        activateAll(fileOf(bidId));
    }

    // ------------------------------------------------------------------------------------------------------------------ reneging

    /// The client takes its money and its allowance back before the settlement: it is not there to be taken.
    function test_attack_aClientCannotRenegeAfterTheMatch() public {
        uint64[] memory asks = postAsks(1);
        uint64 bidId = postBid(bidFor(SEED, 1, 1), SEED);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        IStorageFile file = fileOf(bidId);
        vm.startPrank(client);
        book.cancelBid(bidId);
        rails.approve(address(book), address(token), 0);
        rails.withdraw(address(token), funds(client), client);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, 1, 0));
        file.withdraw(1, client);
        vm.stopPrank();
        toSettlement(batch);
        settle(batch, m, 0);
    }

    /// A provider that never activates loses its bond; the file loses one too, and its shard is repaired.
    function test_attack_aProviderThatRenegesAtActivationPaysAndTheShardIsRepaired() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activate(file.shard(1).dealId); // the honest twin
        uint64 dealId = file.shard(0).dealId;
        vm.warp(block.timestamp + 901);
        market.expire(dealId);
        file.noteLoss(0);
        (uint256 stake,) = vault.ownStake(alice);
        assertEq(stake, 100e18 - DEAL_BOND);
        (stake,) = vault.ownStake(bob);
        assertEq(stake, 100e18);
        addProviders(3);
        uint64 again = claim(file, 0, providers[2]);
        activateWith(again, "");
        file.finishRepair(0);
        assertEq(file.account().healthy, 2);
    }

    // ---------------------------------------------------------------------------------------------------------------- activation

    /// False: a provider without the data has neither a proof nor an acknowledgement of its own making.
    function test_attack_aFalseActivationNeedsAProofAndTheWordOfOthers() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        uint64 dealId = file.shard(0).dealId;
        vm.warp(market.activationSeedTime(dealId));
        IPossession.Leaf memory leaf = leafOf(dealId);
        bytes32 seed = seedOf(market.activationSeedTime(dealId));
        bytes memory good = openPiece(leaf, SEED, seed, 4);
        bytes memory bad = openPiece(leaf, SEED + 1, seed, 4);
        bytes memory own = sign(nodeSecret[alice], typedDigest(keccak256(abi.encode(keccak256("Activation(uint64 dealId)"), dealId))));
        bytes memory acknowledgement = acknowledge(dealId);
        bytes[3] memory words = [own, bytes(""), abi.encode(dealId)];
        vm.startPrank(nodeKey(alice));
        for (uint256 i; i < 3; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, address(file)));
            market.activate(dealId, words[i], good, 0, "");
        }
        vm.expectRevert();
        market.activate(dealId, acknowledgement, bad, 0, "");
        market.activate(dealId, acknowledgement, good, 0, "");
        vm.stopPrank();
    }

    /// Refused: the client is silent to hurt an honest provider, whom drawn checkers acknowledge. Its own seats are never drawn.
    function test_attack_aClientsSilenceDoesNotHurtAnHonestProvider() public {
        addProviders(6);
        for (uint256 i = 2; i < 6; ++i) {
            vm.prank(nodeKey(providers[i]));
            checkers.enrol(providers[i]);
        }
        vm.prank(nodeKey(alice));
        checkers.enrol(alice);
        vm.warp(block.timestamp + 1);
        IStorageFile file = filledFile(SEED, 2, 1);
        uint64 dealId = file.shard(0).dealId;
        vm.warp(market.activationSeedTime(dealId));
        seedOf(market.activationSeedTime(dealId));
        fund(nodeKey(alice), 1e18);
        vm.startPrank(nodeKey(alice));
        rails.approve(address(checkers), address(token), 1e18);
        checkers.request(dealId);
        vm.stopPrank();
        uint64[] memory drawn = checkers.drawOf(dealId);
        bytes32 digest = checkers.retrievableDigest(dealId);
        bytes[] memory signatures = new bytes[](drawn.length);
        for (uint256 i; i < drawn.length; ++i) {
            assertTrue(drawn[i] != alice);
            signatures[i] = sign(nodeSecret[drawn[i]], digest);
        }
        checkers.verdict(dealId, signatures);
        // a verdict on one deal is none on another
        uint64 other = file.shard(1).dealId;
        bytes32 activation = typedDigest(keccak256(abi.encode(keccak256("Activation(uint64 dealId)"), other)));
        assertEq(file.isValidSignature(activation, abi.encode(dealId)), bytes4(0xffffffff));
        activateWith(dealId, abi.encode(dealId));
        (uint256 stake,) = vault.ownStake(alice);
        assertEq(stake, 100e18);
    }

    // -------------------------------------------------------------------------------------------------------------------- repair

    function test_attack_whatWasNeverLostIsNotRepaired() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        addProviders(4);
        vm.prank(nodeKey(providers[2]));
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.WrongShardState.selector, 0, IStorageFile.ShardState.Live));
        file.claimRepair(0, cidOf(SEED), 0);
        // nor what was repaired already
        surrender(file, 0);
        file.noteLoss(0);
        uint64 dealId = claim(file, 0, providers[2]);
        vm.prank(nodeKey(providers[3]));
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.WrongShardState.selector, 0, IStorageFile.ShardState.Claimed));
        file.claimRepair(0, cidOf(SEED), 0);
        activateWith(dealId, "");
        file.finishRepair(0);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.WrongShardState.selector, 0, IStorageFile.ShardState.Live));
        file.finishRepair(0);
    }

    /// One party with two operators breaks a shard with the first, by the cheapest way there is, and repairs it with the second.
    function breakAndRepair(uint8 how) private returns (uint256 stakeLost, uint256 bounty) {
        addProviders(4);
        IStorageFile file = filledFile(SEED, 2, 1);
        uint64 dealId = file.shard(0).dealId;
        if (how != 2) activate(dealId);
        activate(file.shard(1).dealId);
        if (how == 0) surrender(file, 0);
        if (how == 1) leave(dealId);
        if (how == 2) {
            vm.warp(block.timestamp + 901);
            market.expire(dealId);
        }
        file.noteLoss(0);
        vm.warp(block.timestamp + 1000);
        uint64 again = claim(file, 0, providers[3]);
        activateWith(again, "");
        uint256 before = funds(makeAddr("provider 3"));
        file.finishRepair(0);
        bounty = funds(makeAddr("provider 3")) - before;
        (uint256 stake,) = vault.ownStake(alice);
        stakeLost = 100e18 - stake;
    }

    function leave(uint64 dealId) private {
        uint64 seedAt = market.recentSeedTime();
        bytes memory openings = openPiece(leafOf(dealId), SEED, seedOf(seedAt), 4);
        vm.prank(nodeKey(alice));
        market.leave(dealId, openings);
    }

    function test_attack_breakingToRepairLosesMoreThanTheBounty() public {
        for (uint8 how; how < 3; ++how) {
            uint256 before = vm.snapshotState();
            (uint256 stakeLost, uint256 bounty) = breakAndRepair(how);
            assertGt(bounty, 0);
            assertGt(stakeLost, bounty);
            vm.revertToState(before);
        }
    }

    /// Claims that are never fulfilled cost the claimer its bonds, block nobody for longer than the deadline and cost the file nothing.
    function test_attack_claimingWithoutRepairingCostsTheClaimerAndNotTheFile() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        surrender(file, 0);
        file.noteLoss(0);
        addProviders(5);
        file.collect();
        uint256 held = funds(address(file));
        for (uint256 i = 2; i < 4; ++i) {
            claim(file, 0, providers[i]);
            vm.warp(block.timestamp + 901);
            file.failClaim(0);
            file.collect();
            assertGe(funds(address(file)), held);
            (uint256 stake,) = vault.ownStake(providers[i]);
            assertEq(stake, 100e18 - CLAIM_BOND - DEAL_BOND);
        }
        uint64 dealId = claim(file, 0, providers[4]); // the honest twin
        activateWith(dealId, "");
        file.finishRepair(0);
        (uint256 own,) = vault.ownStake(providers[4]);
        assertEq(own, 100e18);
    }

    /// The owner empties its file while a repairer works: the bounty is out of reach.
    function test_attack_anOwnerCannotTakeThePromisedBounty() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        surrender(file, 0);
        file.noteLoss(0);
        addProviders(4);
        vm.warp(block.timestamp + 1000);
        uint64 dealId = claim(file, 0, providers[2]);
        uint256 free = file.free();
        vm.startPrank(client);
        file.withdraw(free, client);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, 1, 0));
        file.withdraw(1, client);
        vm.stopPrank();
        activateWith(dealId, "");
        file.finishRepair(0);
        assertEq(funds(makeAddr("provider 2")), 15e16);
    }

    /// A stolen agent key cannot make the file agree to a deal of its own choice, nor take money out.
    function test_attack_aStolenAgentKeyOpensNoDealsWithTheFilesMoney() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        IStorageMarket.DealTerms memory terms = termsFor(bob, SEED, 5, 1000, 10);
        terms.client = address(file);
        bytes32 digest = desk.dealTermsDigest(terms);
        bytes memory byAgent = sign(agentSecret, digest);
        bytes memory byBob = sign(nodeSecret[bob], digest);
        vm.expectRevert();
        desk.openDeal(terms, CID, byAgent, byBob);
        vm.prank(agent);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotOwner.selector, agent));
        file.withdraw(1, agent);
    }
}
