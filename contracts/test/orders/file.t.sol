// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {OrderFixture} from "./fixture.sol";

/// @notice A contract that owns a file: its word is a secret.
contract Wallet is IERC1271 {
    function isValidSignature(bytes32, bytes calldata signature) external pure returns (bytes4) {
        return keccak256(signature) == keccak256("open sesame") ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

contract StorageFileTest is OrderFixture {
    uint256 private constant SEED = 1000;

    function lost(uint8 count, uint8 needed, uint8 shard) private returns (IStorageFile file) {
        file = filledFile(SEED, count, needed);
        activateAll(file);
        surrender(file, shard);
        file.noteLoss(shard);
        addProviders(count + 4);
    }

    // ------------------------------------------------------------------------------------------------------------ the account

    function test_onlyTheBookMakesAndFillsAFileAndOnce() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        IStorageFile.Terms memory t = file.terms();
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotBook.selector, address(this)));
        file.make(t, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotBook.selector, address(this)));
        file.fill(new IStorageFile.Placement[](0), 1, 1, 1);
        vm.startPrank(address(book));
        vm.expectRevert(IStorageFile.AlreadyMade.selector);
        file.make(t, 0, 0);
        vm.expectRevert(IStorageFile.AlreadyMade.selector);
        file.fill(new IStorageFile.Placement[](0), 1, 1, 1);
        vm.stopPrank();
        IStorageFile implementation = IStorageFile(book.fileImplementation());
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotBook.selector, address(this)));
        implementation.make(t, 0, 0);
    }

    function test_beforeItIsFilledNothingCanBeDoneToAFile() public {
        IStorageFile file = fileOf(postBid(bidFor(SEED, 2, 1), SEED));
        vm.expectRevert(IStorageFile.NotFilled.selector);
        file.noteLoss(0);
        vm.expectRevert(IStorageFile.NotFilled.selector);
        file.finishRepair(0);
        vm.prank(client);
        vm.expectRevert(IStorageFile.NotFilled.selector);
        file.challenge(0);
        assertEq(file.openJobs().length, 0);
        assertEq(file.collect(), 0);
    }

    function testFuzz_strangersMoveNothing(address stranger, uint8 shard, uint128 amount) public {
        IStorageFile file = filledFile(SEED, 2, 1);
        vm.assume(stranger != client && stranger != agent);
        bytes memory notOwner = abi.encodeWithSelector(IStorageFile.NotOwner.selector, stranger);
        bytes memory neither = abi.encodeWithSelector(IStorageFile.NotOwnerOrAgent.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(notOwner);
        file.withdraw(amount, stranger);
        vm.expectRevert(notOwner);
        file.setAgent(stranger);
        vm.expectRevert(notOwner);
        file.endEarly(shard);
        vm.expectRevert(notOwner);
        file.allot(amount, amount);
        vm.expectRevert(neither);
        file.challenge(shard);
        vm.expectRevert(neither);
        file.demandBytes(shard, 0, 1);
        vm.stopPrank();
        vm.prank(agent);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotOwner.selector, agent));
        file.withdraw(1, agent);
    }

    function testFuzz_theOwnerWithdrawsWhatIsFreeAndNoMore(uint256 amount) public {
        IStorageFile file = filledFile(SEED, 3, 2);
        uint256 free = file.free();
        vm.startPrank(client);
        amount = bound(amount, free + 1, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, amount, free));
        file.withdraw(amount, client);
        file.withdraw(free, client);
        vm.stopPrank();
        assertEq(file.free(), 0);
        assertEq(funds(address(file)), file.reserved());
    }

    function test_theOwnerAllotsFreeMoneyToReserveAndBudget() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        IStorageFile.Account memory a = file.account();
        uint256 free = file.free();
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, free + 1, free));
        file.allot(uint128(free), 1);
        file.allot(uint128(free - 10), 10);
        vm.stopPrank();
        assertEq(file.free(), 0);
        assertEq(file.account().reserve, a.reserve + free - 10);
        assertEq(file.account().challengeBudget, a.challengeBudget + 10);
    }

    function test_afterItsEndEverythingThatIsNotPromisedIsFree() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        toStart(file.account().endPeriod);
        assertEq(file.reserved(), 0);
        uint256 held = funds(address(file));
        vm.prank(client);
        file.withdraw(held, client);
        assertEq(funds(address(file)), 0);
    }

    // ------------------------------------------------------------------------------------------------------------ signatures

    function activationOf(uint64 dealId) private view returns (bytes32) {
        return typedDigest(keccak256(abi.encode(keccak256("Activation(uint64 dealId)"), dealId)));
    }

    function accepts(IStorageFile file, bytes32 digest, bytes memory signature) private view returns (bool) {
        bytes4 answer = file.isValidSignature(digest, signature);
        assertTrue(answer == 0x1626ba7e || answer == 0xffffffff);
        return answer == 0x1626ba7e;
    }

    function test_ownerAndAgentAcknowledgeTheFilesOwnDealsAndSignNothingElse() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        uint64 dealId = file.shard(0).dealId;
        bytes32 digest = activationOf(dealId);
        assertTrue(accepts(file, digest, sign(clientSecret, digest)));
        assertTrue(accepts(file, digest, sign(agentSecret, digest)));
        assertFalse(accepts(file, digest, sign(nodeSecret[alice], digest)));
        assertFalse(accepts(file, digest, ""));
        assertFalse(accepts(file, digest, abi.encode(dealId))); // no verdict
        assertFalse(accepts(file, digest, abi.encode(dealId + 1)));
        uint64 foreign = openDeal(alice, SEED, 10);
        bytes32 other = activationOf(foreign);
        assertFalse(accepts(file, other, sign(clientSecret, other)));
        bytes32 anything = keccak256("a transfer of everything");
        assertFalse(accepts(file, anything, sign(clientSecret, anything)));
        // else the owner could have a direct deal take what is reserved
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 10);
        terms.client = address(file);
        bytes32 direct = desk.dealTermsDigest(terms);
        assertFalse(accepts(file, direct, sign(clientSecret, direct)));
        surrenderOpen(file);
        assertFalse(accepts(file, digest, sign(clientSecret, digest))); // the shard is lost
    }

    function surrenderOpen(IStorageFile file) private {
        uint64 dealId = file.shard(0).dealId;
        vm.warp(block.timestamp + 901);
        market.expire(dealId);
        file.noteLoss(0);
    }

    function test_theOwnerMayChangeTheAgent() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        bytes32 digest = activationOf(file.shard(1).dealId);
        vm.prank(client);
        file.setAgent(address(0));
        assertFalse(accepts(file, digest, sign(agentSecret, digest)));
        assertTrue(accepts(file, digest, sign(clientSecret, digest)));
    }

    function test_theOwnerMayBeAContract() public {
        address wallet = address(new Wallet());
        fund(wallet, 10e18);
        approveBook(wallet);
        IOrderBook.Bid memory b = bidFor(SEED, 1, 1);
        b.client = wallet;
        uint64[] memory asks = postAsks(1);
        (uint64 bidId, address at) = book.postBid(b, new uint64[](0), shardsOf(SEED, 1), ROOT_CID, "open sesame");
        (bidSeeds[bidId], bidCounts[bidId]) = (SEED, 1);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        settle(batch, m, 0);
        activateWith(IStorageFile(at).shard(0).dealId, "open sesame");
    }

    // ------------------------------------------------------------------------------------------------------------- challenges

    function test_challengesArePaidFromTheirBudget() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        vm.warp(possession.periodStart(period() + 1));
        vm.prank(agent);
        file.challenge(0);
        assertEq(file.account().challengeBudget, 1e16 - 1e15);
        uint64 dealId = file.shard(0).dealId;
        vm.warp(market.deal(dealId).challengedAt);
        bytes memory openings = openPiece(leafOf(dealId), SEED, seedOf(market.deal(dealId).challengedAt), 4);
        uint256 before = funds(makeAddr("alice"));
        vm.prank(nodeKey(alice));
        market.answer(dealId, openings);
        assertEq(funds(makeAddr("alice")) - before, 1e15);
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.BudgetSpent.selector, 1e16, 9e15));
        file.demandBytes(1, 0, 10);
        file.demandBytes(1, 0, 9);
        assertEq(file.account().challengeBudget, 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.BudgetSpent.selector, 1e15, 0));
        file.challenge(0);
        vm.stopPrank();
        assertEq(market.deal(file.shard(1).dealId).demanded, 9);
    }

    function test_aChallengeThatIsNotAnsweredMakesAJob() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        vm.prank(client);
        file.challenge(0);
        uint64 dealId = file.shard(0).dealId;
        vm.warp(market.deal(dealId).challengedAt + 121);
        market.terminate(dealId);
        file.noteLoss(0);
        assertEq(file.openJobs().length, 1);
    }

    // ----------------------------------------------------------------------------------------------------------- ending early

    function test_aShardThatTheOwnerGivesUpIsNoJob() public {
        IStorageFile file = filledFile(SEED, 3, 2);
        activateAll(file);
        vm.startPrank(client);
        file.endEarly(1);
        assertEq(file.account().healthy, 2);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.WrongShardState.selector, 1, IStorageFile.ShardState.Ended));
        file.endEarly(1);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.UnknownShard.selector, 3));
        file.endEarly(3);
        vm.stopPrank();
        assertEq(file.openJobs().length, 0);
        assertTrue(market.deal(file.shard(1).dealId).endsEarly);
    }

    // ---------------------------------------------------------------------------------------------------------------- losses

    function test_onlyALostShardIsNotedAsLost() public {
        IStorageFile file = filledFile(SEED, 3, 2);
        uint64 dealId = file.shard(0).dealId;
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotLost.selector, 0, dealId));
        file.noteLoss(0);
        activateAll(file);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotLost.selector, 0, dealId));
        file.noteLoss(0);
        surrender(file, 0);
        file.noteLoss(0);
        assertTrue(file.hasFailed(alice));
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.WrongShardState.selector, 0, IStorageFile.ShardState.Lost));
        file.noteLoss(0);
    }

    function test_aFaultThatWasMendedIsNoLoss() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        uint64 dealId = file.shard(0).dealId;
        bytes memory path = tablePath(tables[alice], 0);
        vm.prank(nodeKey(alice));
        market.declareFault(dealId, path);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NotLost.selector, 0, dealId));
        file.noteLoss(0);
    }

    function test_theOwnerCannotTakeWhatALostShardsNextDealNeeds() public {
        IStorageFile file = filledFile(SEED, 3, 2);
        activateAll(file);
        surrender(file, 0);
        uint256 tooMuch = file.free(); // the loss is not noted yet
        uint256 cost = uint256(file.account().pricePerPeriod) * (file.account().endPeriod - period() - 1) + DEAL_BOND;
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, tooMuch, tooMuch - cost));
        file.withdraw(tooMuch, client);
        file.withdraw(tooMuch - cost, client);
        vm.stopPrank();
        assertEq(uint8(file.shard(0).state), uint8(IStorageFile.ShardState.Lost));
        addProviders(4);
        claim(file, 0, providers[3]);
    }

    // ---------------------------------------------------------------------------------------------------------------- repair

    function test_aLostShardIsRepairedAndThoseWhoDidItArePaid() public {
        IStorageFile file = lost(4, 2, 2);
        uint64 failed = providers[2];
        assertEq(file.account().healthy, 3);
        vm.warp(block.timestamp + 500);
        IStorageFile.Job[] memory jobs = file.openJobs();
        assertEq(jobs.length, 1);
        assertEq(jobs[0].shard, 2);
        assertEq(jobs[0].bounty, 75e15); // half of the time, half of the bounty
        assertEq(jobs[0].bountyMax, 15e16);
        uint256 held = funds(address(file));
        uint64 dealId = claim(file, 2, providers[4]);
        IStorageMarket.Deal memory d = market.deal(dealId);
        assertEq(d.pieceRoot, pieceRootOf(SEED + 2, HEIGHT));
        assertEq(d.endPeriod, jobs[0].periods);
        assertEq(held - funds(address(file)), uint256(jobs[0].pricePerPeriod) * jobs[0].periods + DEAL_BOND);
        assertEq(vault.lockedOfModule(providers[4], address(book)), CLAIM_BOND);
        assertEq(book.claimOperator(dealId), providers[4]);
        assertEq(file.account().bounties, 75e15);
        assertEq(file.openJobs().length, 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.ClaimNotFulfilled.selector, 2, dealId));
        file.finishRepair(2);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.DeadlineNotReached.selector, block.timestamp + 900, block.timestamp));
        file.failClaim(2);
        activateWith(dealId, "");
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.ClaimNotOver.selector, 2, dealId));
        file.failClaim(2);
        uint256 earned = funds(makeAddr("provider 4"));
        file.finishRepair(2);
        assertEq(funds(makeAddr("provider 4")) - earned, 75e15);
        IStorageFile.Account memory a = file.account();
        assertEq(a.healthy, 4);
        assertEq(a.belowSince, 0);
        assertEq(a.bounties, 0);
        assertEq(a.reserve, 1e18 - 75e15);
        assertEq(file.shard(2).operatorId, providers[4]);
        assertEq(vault.lockedOfModule(providers[4], address(book)), 0);
        assertEq(book.feePerPeriod(dealId), a.pricePerPeriod / 20);
        assertTrue(file.hasFailed(failed));
        // and again, from the one who repaired
        surrender(file, 2);
        file.noteLoss(2);
        claim(file, 2, providers[5]);
    }

    function testFuzz_theBountyRisesLinearly(uint32 waited) public {
        IStorageFile file = lost(3, 2, 1);
        waited = uint32(bound(waited, 0, 4000));
        vm.warp(block.timestamp + waited);
        uint256 expected = waited >= 1000 ? 15e16 : 15e13 * uint256(waited);
        assertEq(file.openJobs()[0].bounty, expected);
        uint64 dealId = claim(file, 1, providers[5]);
        activateWith(dealId, "");
        uint256 before = funds(makeAddr("provider 5"));
        file.finishRepair(1);
        assertEq(funds(makeAddr("provider 5")) - before, expected);
    }

    function test_compensationPaysTheBountyFirst() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        activateAll(file);
        for (uint256 i; i < 4; ++i) {
            proveNext(alice);
            proveNextSame(bob);
        }
        toStart(period() + 1);
        surrender(file, 0);
        uint256 compensation = vault.claimableOf(address(file));
        assertGt(compensation, 0);
        addProviders(4);
        file.noteLoss(0);
        vm.warp(block.timestamp + 900);
        uint256 reserve = file.account().reserve;
        uint64 dealId = claim(file, 0, providers[3]);
        IStorageFile.Account memory a = file.account();
        uint256 bounty = a.bounties;
        assertEq(bounty, 135e15);
        assertEq(a.compensation, compensation > bounty ? compensation - bounty : 0);
        assertEq(reserve - a.reserve, compensation > bounty ? 0 : bounty - compensation);
        activateWith(dealId, "");
        file.finishRepair(0);
        assertEq(file.collect(), 0);
    }

    function proveNextSame(uint64 operatorId) private {
        prove(operatorId);
    }

    function test_enoughHealthyShardsMakeNoJob() public {
        IOrderBook.Bid memory b = bidFor(SEED, 4, 2);
        b.repairBelow = 3;
        IStorageFile file = fill(b, SEED);
        activateAll(file);
        surrender(file, 0);
        file.noteLoss(0);
        addProviders(6);
        assertEq(file.openJobs().length, 0);
        vm.prank(nodeKey(providers[4]));
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.EnoughHealthy.selector, 3, 3));
        file.claimRepair(0, cidOf(SEED), 0);
        vm.warp(block.timestamp + 100);
        surrender(file, 1);
        file.noteLoss(1);
        IStorageFile.Job[] memory jobs = file.openJobs();
        assertEq(jobs.length, 2);
        assertEq(jobs[0].risesFrom, block.timestamp); // both hold only now
        assertEq(jobs[0].bounty, 0);
    }

    function test_whoMayRepair() public {
        IOrderBook.Bid memory b = bidFor(SEED, 3, 2);
        (b.distinctNetworks, b.regionMax) = (true, 3);
        addProviders(8);
        uint64[] memory excluded = new uint64[](1);
        excluded[0] = providers[7];
        b.excludedHash = keccak256(abi.encode(excluded));
        uint64[] memory asks = postAsks(3);
        uint64 bidId = postBid(b, SEED, excluded);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        settle(batch, m, 0);
        IStorageFile file = fileOf(bidId);
        activateAll(file);
        surrender(file, 0);
        file.noteLoss(0);
        vm.prank(makeAddr("nobody"));
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.NoOperator.selector, makeAddr("nobody")));
        file.claimRepair(0, cidOf(SEED), "n");
        refuseRepair(file, alice, "n", refused(alice, "failed"));
        refuseRepair(file, bob, "n", refused(bob, "operator"));
        refuseRepair(file, providers[3], 0, refused(providers[3], "network"));
        refuseRepair(file, providers[3], keccak256(abi.encode(bob)), refused(providers[3], "network"));
        refuseRepair(file, providers[7], "n", abi.encodeWithSelector(IOrderBook.OperatorExcluded.selector, bidId, providers[7]));
        vm.prank(makeAddr("provider 3"));
        operators.requestRotation(providers[3], IOperators.Role.Beneficiary, makeAddr("bob"));
        uint256 now_ = block.timestamp;
        vm.warp(now_ + 1 days);
        operators.finishRotation(providers[3], IOperators.Role.Beneficiary);
        vm.warp(now_);
        refuseRepair(file, providers[3], "n", refused(providers[3], "owner"));
        vm.prank(nodeKey(providers[4]));
        vm.expectRevert();
        file.claimRepair(0, "another cid", "n");
        claim(file, 0, providers[4]);
        assertEq(file.shard(0).networkPrefix, keccak256(abi.encode(providers[4])));
        surrender(file, 1);
        file.noteLoss(1);
        refuseRepairOf(file, 1, providers[4], "n", refused(providers[4], "operator"));
        vm.prank(nodeKey(providers[5]));
        file.claimRepair(1, cidOf(SEED + 1), "n");
    }

    function test_aRegionIsNotFilledByRepairs() public {
        IOrderBook.Bid memory b = bidFor(SEED, 3, 2);
        b.regionMax = 3;
        IStorageFile file = fill(b, SEED);
        activateAll(file);
        surrender(file, 0);
        file.noteLoss(0);
        addProviders(5);
        // by another route the file has three in the region already: one is claimed again
        claim(file, 0, providers[3]);
        surrender(file, 1);
        file.noteLoss(1);
        claim(file, 1, providers[4]);
        assertEq(file.shard(1).region, "test");
    }

    function test_aRegionThatIsFullTakesNoRepair() public {
        addProviders(6);
        uint64[] memory asks = new uint64[](3);
        for (uint256 i; i < 3; ++i) {
            if (i == 0) {
                vm.prank(nodeKey(providers[0]));
                operators.setEndpoint(providers[0], 0, "https://127.0.0.1:1", "elsewhere");
            }
            asks[i] = postAsk(askFor(providers[i]));
        }
        IOrderBook.Bid memory b = bidFor(SEED, 3, 2);
        b.regionMax = 2;
        uint64 bidId = postBid(b, SEED);
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, asks);
        book.submit(batch, m);
        toSettlement(batch);
        settle(batch, m, 0);
        IStorageFile file = fileOf(bidId);
        activateAll(file);
        surrender(file, 0);
        file.noteLoss(0);
        refuseRepair(file, providers[4], "n", refused(providers[4], "region"));
        vm.prank(nodeKey(providers[4]));
        operators.setEndpoint(providers[4], 0, "https://127.0.0.1:1", "elsewhere");
        claim(file, 0, providers[4]);
    }

    function refused(uint64 operatorId, string memory why) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IStorageFile.OperatorRefused.selector, operatorId, why);
    }

    function refuseRepair(IStorageFile file, uint64 operatorId, bytes32 prefix, bytes memory error) private {
        refuseRepairOf(file, 0, operatorId, prefix, error);
    }

    function refuseRepairOf(IStorageFile file, uint8 shard, uint64 operatorId, bytes32 prefix, bytes memory error) private {
        vm.prank(nodeKey(operatorId));
        vm.expectRevert(error);
        file.claimRepair(shard, cidOf(SEED + shard), prefix);
    }

    function test_aClaimThatIsNotFulfilledLosesItsBondAndTheJobIsOpenAgain() public {
        IStorageFile file = lost(3, 2, 1);
        vm.warp(block.timestamp + 100);
        uint256 stake = ownActive(providers[4]);
        uint256 reserve = file.account().reserve;
        uint256 held = funds(address(file));
        uint64 dealId = claim(file, 1, providers[4]);
        vm.warp(block.timestamp + 901);
        file.failClaim(1);
        assertEq(uint8(market.deal(dealId).state), uint8(IStorageMarket.State.Expired));
        assertEq(stake - ownActive(providers[4]), CLAIM_BOND + DEAL_BOND);
        assertEq(vault.lockedOf(providers[4]), 0);
        assertTrue(file.hasFailed(providers[4]));
        assertEq(file.account().reserve, reserve);
        assertEq(file.account().bounties, 0);
        // the market burnt the file's bond, the claimer's bond makes it whole
        assertEq(file.collect(), DEAL_BOND);
        assertEq(funds(address(file)), held);
        assertEq(file.openJobs().length, 1);
        refuseRepairOf(file, 1, providers[4], "n", refused(providers[4], "failed"));
        dealId = claim(file, 1, providers[5]);
        vm.warp(block.timestamp + 901);
        market.expire(dealId); // anybody may have done it
        file.failClaim(1);
    }

    function test_aRepairerWhoIsThrownOutBeforeItIsPaidHasFailed() public {
        IStorageFile file = lost(3, 2, 1);
        uint64 dealId = claim(file, 1, providers[4]);
        activateWith(dealId, "");
        vm.prank(nodeKey(providers[4]));
        market.surrender(dealId);
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.ClaimNotFulfilled.selector, 1, dealId));
        file.finishRepair(1);
        file.failClaim(1);
        assertEq(file.openJobs().length, 1);
    }

    function test_nearItsEndAFileIsNotRepaired() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        uint64 end = file.account().endPeriod;
        surrenderOpen(file);
        addProviders(4);
        toStart(end - 3);
        assertEq(file.openJobs()[0].periods, 2);
        toStart(end - 2);
        assertEq(file.openJobs().length, 0);
        vm.prank(nodeKey(providers[3]));
        vm.expectRevert(abi.encodeWithSelector(IStorageFile.TooLate.selector, end, end - 2));
        file.claimRepair(0, cidOf(SEED), 0);
    }

    function test_aShardWhoseProviderNeverBeganPaysAtMostHalfOfItsBond() public {
        IStorageFile file = filledFile(SEED, 2, 1);
        surrenderOpen(file);
        assertEq(file.openJobs()[0].bountyMax, DEAL_BOND / 2);
    }

    function test_anEmptySignatureServesOnlyClaims() public {
        IStorageFile file = lost(3, 2, 1);
        uint64 dealId = claim(file, 1, providers[4]);
        assertTrue(accepts(file, activationOf(dealId), ""));
        assertFalse(accepts(file, activationOf(file.shard(0).dealId), ""));
    }

    /// Bonds lost by reneging make a file poorer than its reservations: promised bounties stay whole, later claims wait for money.
    function test_whatIsPromisedIsNotSpentOnAnythingElse() public {
        IOrderBook.Bid memory b = bidFor(SEED, 3, 1);
        (b.reserve, b.bountyMax, b.challengeBudget) = (2e16, 2e16, 1e16);
        IStorageFile file = fill(b, SEED);
        uint256 free = file.free();
        vm.prank(client);
        file.withdraw(free, client);
        activate(file.shard(2).dealId);
        vm.warp(block.timestamp + 901);
        for (uint8 i; i < 2; ++i) {
            market.expire(file.shard(i).dealId);
            file.noteLoss(i);
        }
        addProviders(6);
        vm.warp(block.timestamp + 1000);
        uint256 periods = file.openJobs()[0].periods;
        uint256 cost = file.account().pricePerPeriod * periods + DEAL_BOND;
        uint64 first = claim(file, 0, providers[3]);
        uint256 promised = file.account().bounties;
        assertLe(promised, DEAL_BOND / 2);
        uint256 left = funds(address(file)) - promised;
        if (left < cost) {
            vm.prank(nodeKey(providers[4]));
            vm.expectRevert(abi.encodeWithSelector(IStorageFile.Reserved.selector, cost, left));
            file.claimRepair(1, cidOf(SEED + 1), 0);
        } else {
            claim(file, 1, providers[4]);
        }
        activateWith(first, "");
        file.finishRepair(0);
    }

    function ownActive(uint64 operatorId) private view returns (uint256 active) {
        (active,) = vault.ownStake(operatorId);
    }
}
