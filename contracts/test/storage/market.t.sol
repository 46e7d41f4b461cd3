// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IDealDesk} from "../../src/storage/IDealDesk.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {deployStorageMarket} from "../deploy/storage.sol";
import {StorageFixture} from "./fixture.sol";

contract StorageMarketTest is StorageFixture {
    uint256 private constant SEED = 1 << 100;

    function stateOf(uint64 id) private view returns (uint8) {
        return uint8(market.deal(id).state);
    }

    function assertState(uint64 id, IStorageMarket.State expected) private view {
        assertEq(stateOf(id), uint8(expected));
    }

    function proveTo(uint64 operatorId, uint64 to) private {
        for (uint64 p = period(); p < to; ++p) {
            if (possession.standing(operatorId).provenThrough > p || possession.tableOf(operatorId, p).leaves == 0) continue;
            toWindow(p);
            prove(operatorId);
        }
    }

    function asNode(uint64 operatorId) private {
        vm.prank(nodeKey(operatorId));
    }

    // calls of internal functions that make several external calls, for expectRevert
    function activateExternal(uint64 id) external {
        activate(id);
    }

    function dropExternal(uint64 id) external {
        drop(id);
    }

    // ------------------------------------------------------------------------------------------------ opening

    function test_a_deal_is_opened_activated_proven_paid_and_dropped() public {
        uint256 before = funds(client);
        uint64 id = openDeal(alice, SEED, 3);
        assertEq(funds(client), before - 3 * PRICE - BOND);
        assertEq(vault.lockedBy(address(market)), COLLATERAL + BOND);
        activate(id);
        assertEq(vault.lockedBy(address(market)), COLLATERAL);
        uint64 first = market.deal(id).firstPeriod;
        assertEq(first, period() + 1);
        proveTo(alice, first + 3);
        toStart(first + 3);
        assertTrue(market.isOver(id));
        market.settle(id);
        assertState(id, IStorageMarket.State.Ended);
        assertEq(funds(makeAddr("alice")), 3 * PRICE);
        assertEq(funds(client), before - 3 * PRICE);
        drop(id);
        assertState(id, IStorageMarket.State.Dropped);
        assertEq(vault.lockedBy(address(market)), 0);
        assertEq(possession.table(alice).leaves, 0);
        assertEq(possession.table(alice).root, 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Dropped));
        this.dropExternal(id);
    }

    function refuse(IStorageMarket.DealTerms memory terms, bytes memory error) private {
        bytes32 digest = desk.dealTermsDigest(terms);
        (bytes memory one, bytes memory two) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        vm.expectRevert(error);
        desk.openDeal(terms, CID, one, two);
    }

    function badTerms(string memory field, uint256 got, uint256 limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IStorageMarket.BadTerms.selector, field, got, limit);
    }

    function test_terms_outside_the_limits_are_refused() public {
        IStorageMarket.DealTerms memory t = termsFor(alice, SEED, 5, 1000, 3);
        t.periods = 1;
        refuse(t, badTerms("periods", 1, 2));
        t.periods = 10_001;
        refuse(t, badTerms("periods", 10_001, 10_000));
        t = termsFor(alice, SEED, 5, 1000, 3);
        t.pricePerPeriod = 0;
        refuse(t, badTerms("pricePerPeriod", 0, 1));
        t = termsFor(alice, SEED, 5, 1000, 3);
        t.collateral = 0;
        refuse(t, badTerms("collateral", 0, 1));
        t = termsFor(alice, SEED, 5, 1000, 3);
        t.bond = 1e15 - 1;
        refuse(t, badTerms("bond", 1e15 - 1, 1e15));
        t = termsFor(alice, SEED, 5, 1000, 3);
        t.pieceHeight = 33;
        refuse(t, badTerms("pieceHeight", 33, 32));
        t = termsFor(alice, SEED, 5, 0, 3);
        refuse(t, badTerms("rawSize", 0, 1));
        t = termsFor(alice, SEED, 5, 1017, 3); // 33 leaves
        refuse(t, badTerms("leaves", 33, 32));
        t = termsFor(alice, SEED, 5, 1016, 3);
        t.expiry = uint64(block.timestamp - 1);
        refuse(t, abi.encodeWithSelector(IDealDesk.OfferExpired.selector, t.expiry, block.timestamp));
        t = termsFor(alice, SEED, 5, 1016, 3);
        t.contentHash = 0;
        refuse(t, abi.encodeWithSelector(IStorageMarket.WrongCid.selector, keccak256(CID), bytes32(0)));
        bytes32 digest = desk.dealTermsDigest(t);
        (bytes memory one, bytes memory two) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        vm.expectRevert(badTerms("cid", 101, 100));
        desk.openDeal(t, new bytes(101), one, two);
    }

    function test_the_leaves_of_a_deal_are_those_that_its_bytes_touch() public {
        uint64 id = openDeal(termsFor(alice, SEED, 5, 1016, 3), SEED);
        assertEq(market.deal(id).leaves, 32);
        id = openDeal(termsFor(alice, SEED, 5, 127, 3), SEED);
        assertEq(market.deal(id).leaves, 4);
        id = openDeal(termsFor(alice, SEED, 5, 1, 3), SEED);
        assertEq(market.deal(id).leaves, 1);
    }

    function testFuzz_only_the_signatures_of_both_sides_over_these_terms_open_a_deal(uint256 stranger, uint8 field) public {
        stranger = bound(stranger, 1, type(uint128).max);
        vm.assume(stranger != clientSecret && stranger != nodeSecret[alice]);
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 3);
        bytes32 digest = desk.dealTermsDigest(terms);
        bytes memory ofClient = sign(clientSecret, digest);
        bytes memory ofNode = sign(nodeSecret[alice], digest);
        address node = nodeKey(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, client));
        desk.openDeal(terms, CID, sign(stranger, digest), ofNode);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, node));
        desk.openDeal(terms, CID, ofClient, sign(stranger, digest));
        field = field % 4;
        if (field == 0) ++terms.collateral;
        if (field == 1) ++terms.pricePerPeriod;
        if (field == 2) terms.pieceRoot = ~terms.pieceRoot;
        if (field == 3) ++terms.providerNonce;
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, client));
        desk.openDeal(terms, CID, ofClient, ofNode);
    }

    function test_an_offer_is_used_once_and_can_be_cancelled_by_either_side() public {
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 3);
        openDeal(terms, SEED);
        assertTrue(desk.isNonceUsed(client, terms.clientNonce));
        refuse(terms, abi.encodeWithSelector(IDealDesk.NonceUsed.selector, client, terms.clientNonce));
        ++terms.clientNonce;
        refuse(terms, abi.encodeWithSelector(IDealDesk.NonceUsed.selector, nodeKey(alice), terms.providerNonce));
        terms = termsFor(alice, SEED, 5, 1000, 3);
        vm.expectEmit(address(desk));
        emit IDealDesk.NonceCancelled(client, terms.clientNonce);
        vm.prank(client);
        desk.cancelNonce(terms.clientNonce);
        refuse(terms, abi.encodeWithSelector(IDealDesk.NonceUsed.selector, client, terms.clientNonce));
    }

    function testFuzz_nonces_are_unordered(uint256 one, uint256 two) public {
        vm.assume(one != two);
        vm.prank(client);
        desk.cancelNonce(one);
        assertTrue(desk.isNonceUsed(client, one));
        assertFalse(desk.isNonceUsed(client, two));
        assertFalse(desk.isNonceUsed(address(this), one));
    }

    function test_a_deal_that_neither_side_can_secure_is_refused() public {
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 3);
        terms.collateral = 1000e18;
        bytes32 digest = desk.dealTermsDigest(terms);
        (bytes memory one, bytes memory two) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        vm.expectPartialRevert(IStakeVault.InsufficientUnlocked.selector);
        desk.openDeal(terms, CID, one, two);
        terms = termsFor(alice, SEED, 5, 1000, 3);
        terms.pricePerPeriod = 1000e18;
        digest = desk.dealTermsDigest(terms);
        (one, two) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        vm.expectPartialRevert(IRails.InsufficientBalance.selector);
        desk.openDeal(terms, CID, one, two);
    }

    // ------------------------------------------------------------------------------------------------ activation

    function test_activation_wants_the_node_key_the_client_and_a_later_seed() public {
        uint64 id = openDeal(alice, SEED, 3);
        uint64 seedAt = market.activationSeedTime(id);
        assertGe(seedAt, block.timestamp + 5);
        assertEq(seedAt % 10, 0);
        bytes memory acknowledgement = acknowledge(id);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotProvider.selector, id, address(this)));
        market.activate(id, acknowledgement, "", 0, "");
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, client));
        market.activate(id, "", "", 0, "");
        asNode(alice);
        vm.expectRevert(abi.encodeWithSignature("RandomnessNotFixed(uint64)", seedAt));
        market.activate(id, acknowledgement, "", 0, "");
        vm.warp(seedAt);
        seedOf(seedAt);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IPossession.ProofLength.selector, 0, 4 * 32 * 6));
        market.activate(id, acknowledgement, "", 0, "");
        asNode(alice);
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        market.activate(id, acknowledgement, new bytes(4 * 32 * 6), 0, "");
        activate(id);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Active));
        market.activate(id, acknowledgement, "", 0, "");
    }

    function test_a_deal_that_is_not_active_at_its_deadline_costs_both_sides_their_bond_and_nothing_else() public {
        uint256 clientBefore = funds(client);
        uint256 supply = token.totalSupply();
        (uint256 stake,) = vault.ownStake(alice);
        uint64 id = openDeal(alice, SEED, 3);
        uint64 deadline = uint64(block.timestamp + 900);
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.DeadlineNotReached.selector, deadline, deadline));
        market.expire(id);
        vm.warp(deadline + 1);
        bytes memory acknowledgement = acknowledge(id);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.DeadlinePassed.selector, deadline, deadline + 1));
        market.activate(id, acknowledgement, "", 0, "");
        assertFalse(market.isOver(id));
        market.expire(id);
        assertTrue(market.isOver(id));
        assertState(id, IStorageMarket.State.Expired);
        assertEq(funds(client), clientBefore - BOND);
        (uint256 left,) = vault.ownStake(alice);
        assertEq(left, stake - BOND);
        assertEq(token.totalSupply(), supply - 2 * BOND);
        assertEq(vault.lockedBy(address(market)), 0);
        assertEq(token.balanceOf(address(market)), 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Expired));
        market.expire(id);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Expired));
        market.settle(id);
    }

    function test_unknown_deals_are_refused() public {
        bytes memory unknown = abi.encodeWithSelector(IStorageMarket.UnknownDeal.selector, 77);
        vm.expectRevert(unknown);
        market.deal(77);
        vm.expectRevert(unknown);
        market.settle(77);
        vm.expectRevert(unknown);
        market.terminate(77);
        vm.expectRevert(unknown);
        market.isOver(77);
        vm.expectRevert(unknown);
        market.surrender(77);
        (uint64 proven, uint64 settledTo) = market.measure(77, possession.periodStart(0), possession.periodStart(5));
        assertEq(proven, 0);
        assertEq(settledTo, possession.periodStart(0));
    }

    // ------------------------------------------------------------------------------------------------ pay

    function testFuzz_a_deal_is_paid_exactly_for_the_periods_that_were_proven(uint16 silent, uint8 settlements) public {
        uint32 periods = 12;
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, 7, periods); // equal leaves: cheap
        uint64 first = market.deal(id).firstPeriod;
        toWindow(first - 1);
        prove(alice);
        uint256 paid;
        IPossession.Leaf[] memory leaves = tables[alice];
        for (uint64 p = first; p < first + periods; ++p) {
            toWindow(p);
            possession.sync(alice);
            bool isSilent = (silent >> (p - first)) & 1 == 1 && possession.standing(alice).missesInRow < 2;
            if (!isSilent) {
                uint64 miss = possession.standing(alice).openMiss;
                bytes memory proof = openTable(leaves, alice, p, miss == 0 ? 1 : 2, false);
                if (miss != 0) proof = bytes.concat(proof, openTable(leaves, alice, miss - 1, 1, true));
                proveWith(alice, proof);
                ++paid;
            }
            if (uint256(keccak256(abi.encode(settlements, p))) % 3 == 0) market.settle(id);
            if (uint256(keccak256(abi.encode(settlements, p))) % 5 == 0) rails.settle(market.deal(id).railId);
        }
        toStart(first + periods);
        market.settle(id);
        assertState(id, IStorageMarket.State.Ended);
        assertEq(funds(makeAddr("alice")), paid * PRICE);
        assertEq(funds(client), before - paid * PRICE);
        (uint64 unpaid, uint64 charged) = possession.misses(alice, first, first + periods);
        assertEq(unpaid, periods - paid);
        assertLe(charged, unpaid);
        assertEq(market.deal(id).locked, COLLATERAL - charged * (COLLATERAL / 20));
        assertEq(vault.lockedBy(address(market)), market.deal(id).locked);
    }

    function testFuzz_the_compensation_is_exact_to_the_wei(uint128 price, uint128 collateral, uint8 proven, uint32 periods) public {
        periods = uint32(bound(periods, 2, 10_000));
        price = uint128(bound(price, 1, 1e16));
        collateral = uint128(bound(collateral, 1, 90e18));
        proven = uint8(bound(proven, 0, periods <= 5 ? periods - 1 : 5));
        uint256 before = funds(client);
        IStorageMarket.DealTerms memory terms = termsFor(alice, 7, 5, 1000, periods);
        (terms.pricePerPeriod, terms.collateral) = (price, collateral);
        uint64 id = openDeal(terms, 7);
        activate(id);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + proven);
        toStart(first + proven);
        (uint256 stake,) = vault.ownStake(alice);
        uint256 supply = token.totalSupply();
        uint256 expected = uint256(price) * (periods - proven + 4);
        if (expected > uint256(price) * proven) expected = uint256(price) * proven; // never more than was paid
        if (expected > collateral / 2) expected = collateral / 2;
        asNode(alice);
        market.surrender(id);
        assertEq(claimable(client), expected);
        assertEq(funds(client), before - uint256(price) * proven);
        assertEq(funds(makeAddr("alice")), uint256(price) * proven);
        (uint256 left,) = vault.ownStake(alice);
        assertEq(left, stake - collateral);
        assertEq(token.totalSupply(), supply - (collateral - expected));
        assertEq(vault.lockedBy(address(market)), 0);
        drop(id);
        assertEq(possession.table(alice).slots, 1);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Terminated));
        this.dropExternal(id);
    }

    function test_a_fault_fee_is_burnt_and_pays_nobody() public {
        uint64 id = activeDeal(alice, SEED, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first);
        toStart(first + 2); // grace, then a charged miss
        address reporter = makeAddr("reporter");
        vm.expectEmit(address(market));
        emit IStorageMarket.FaultFee(id, 1, COLLATERAL / 20);
        uint256 supply = token.totalSupply();
        vm.prank(reporter);
        market.settle(id);
        assertEq(token.totalSupply(), supply - COLLATERAL / 20);
        market.settle(id); // nothing more to take
        assertEq(token.totalSupply(), supply - COLLATERAL / 20);
        assertEq(claimable(reporter) + claimable(client), 0);
    }

    // ------------------------------------------------------------------------------------------------ extension, early end

    function extensionDigest(uint64 id, uint32 periods, uint64 endPeriod, uint64 expiry) private view returns (bytes32) {
        return typedDigest(
            keccak256(
                abi.encode(
                    keccak256("Extension(uint64 dealId,uint32 periods,uint64 endPeriod,uint64 expiry)"), id, periods, endPeriod, expiry
                )
            )
        );
    }

    function refuseExtension(uint64 id, uint32 periods, bytes memory error) private {
        bytes32 digest = extensionDigest(id, periods, market.deal(id).endPeriod, uint64(block.timestamp));
        (bytes memory one, bytes memory two) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        vm.expectRevert(error);
        desk.extend(id, periods, uint64(block.timestamp), one, two);
    }

    /// As every slasher must say to the registry.
    function exposureSeconds() external pure returns (uint64) {
        return 0;
    }

    function test_only_the_desks_open_and_extend() public {
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 3);
        uint64 id = activeDeal(alice, SEED, 3);
        registry.set("orderBook", address(this), true);
        bytes memory notDesk = abi.encodeWithSelector(IStorageMarket.NotDesk.selector, client);
        vm.prank(client);
        vm.expectRevert(notDesk);
        market.open(terms, CID, false);
        vm.prank(client);
        vm.expectRevert(notDesk);
        market.extend(id, 3);
        // the order book opens deals, for which it has handed over what secures them; it extends none
        vault.lock(alice, uint256(COLLATERAL) + BOND);
        vault.giveLock(alice, address(market), uint256(COLLATERAL) + BOND);
        uint64 other = market.open(terms, CID, true);
        assertEq(vault.lockedBy(address(market)), uint256(COLLATERAL) * 2 + BOND);
        assertEq(market.deal(other).locked, COLLATERAL + BOND);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotDesk.selector, address(this)));
        market.extend(id, 3);
    }

    function test_both_sides_extend_a_deal_once_per_signature() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, SEED, 2);
        uint64 end = market.deal(id).endPeriod;
        uint64 expiry = uint64(block.timestamp + 60);
        bytes32 digest = extensionDigest(id, 3, end, expiry);
        (bytes memory one, bytes memory two) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        address node = nodeKey(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, client));
        desk.extend(id, 3, expiry, two, two);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, node));
        desk.extend(id, 3, expiry, one, one);
        desk.extend(id, 3, expiry, one, two);
        assertEq(market.deal(id).endPeriod, end + 3);
        assertEq(funds(client), before - 5 * PRICE - BOND);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadSignature.selector, client));
        desk.extend(id, 3, expiry, one, two);
        refuseExtension(id, 0, badTerms("periods", 0, 1));
        refuseExtension(id, 10_000, badTerms("periods", end + 3 + 10_000, period() + 1 + 10_000));
        vm.warp(expiry + 1);
        vm.expectRevert(abi.encodeWithSelector(IDealDesk.OfferExpired.selector, expiry, expiry + 1));
        desk.extend(id, 3, expiry, one, two);
        proveTo(alice, end + 3);
        toStart(end + 3);
        refuseExtension(id, 3, abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Active));
        market.settle(id);
        assertEq(funds(makeAddr("alice")), 5 * PRICE);
        assertEq(funds(client), before - 5 * PRICE);
    }

    function test_a_client_ends_early_and_pays_the_fee_on_what_remains() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, SEED, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + 2);
        toStart(first + 2);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotClient.selector, id, address(this)));
        market.endEarly(id);
        uint128 fee = 17 * PRICE / 10;
        vm.expectEmit(address(market));
        emit IStorageMarket.DealEndsEarly(id, first + 3, fee);
        vm.prank(client);
        market.endEarly(id);
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Active));
        market.endEarly(id);
        // the running period is still proven and paid; nothing of the rest is returned before the fee is paid
        toWindow(first + 2);
        prove(alice);
        toStart(first + 3);
        vm.warp(block.timestamp + 5 * PERIOD);
        rails.settle(market.deal(id).railId);
        market.settle(id);
        assertState(id, IStorageMarket.State.Ended);
        assertEq(funds(makeAddr("alice")), 3 * PRICE + fee);
        assertEq(funds(client), before - 3 * PRICE - fee);
        drop(id);
        assertEq(vault.lockedBy(address(market)), 0);
    }

    function test_a_deal_that_has_not_begun_can_be_ended_too() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, SEED, 20);
        vm.prank(client);
        market.endEarly(id);
        uint64 first = market.deal(id).firstPeriod;
        assertEq(market.deal(id).endPeriod, first);
        toStart(first);
        market.settle(id);
        assertEq(funds(client), before - 2 * PRICE);
        assertEq(funds(makeAddr("alice")), 2 * PRICE);
    }

    // ------------------------------------------------------------------------------------------------ declared faults

    function declare(uint64 id) private {
        IStorageMarket.Deal memory d = market.deal(id);
        bytes memory path = tablePath(tables[d.operatorId], d.slot);
        asNode(d.operatorId);
        market.declareFault(id, path);
        delete tables[d.operatorId][d.slot];
    }

    function recover(uint64 id) private {
        uint64 operatorId = market.deal(id).operatorId;
        bytes memory openings = openPiece(leafOf(id), pieceSeeds[id], seedOf(market.recentSeedTime()), 4);
        uint32 slot = freeSlot(operatorId);
        bytes memory path = tablePath(tables[operatorId], slot);
        asNode(operatorId);
        market.recoverFault(id, openings, slot, path);
        put(operatorId, slot, leafOf(id));
    }

    function recoverExternal(uint64 id) external {
        recover(id);
    }

    function test_a_declared_fault_is_unpaid_costs_its_fee_and_is_recovered_by_a_later_proof() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, SEED, 10);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + 2);
        toStart(first + 2);
        declare(id);
        assertState(id, IStorageMarket.State.Faulty);
        assertEq(market.deal(id).faultySince, first + 2);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Faulty));
        market.declareFault(id, "");
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Faulty));
        market.endEarly(id);
        // the seed of the period before the declaration does not count
        vm.expectRevert(
            abi.encodeWithSelector(IStorageMarket.SeedTooOld.selector, possession.seedTime(first + 1), possession.seedTime(first + 2))
        );
        this.recoverExternal(id);
        toStart(first + 4);
        market.settle(id);
        assertEq(market.deal(id).locked, COLLATERAL - 2 * COLLATERAL / 100);
        toWindow(first + 4);
        recover(id);
        assertEq(market.deal(id).resumesAt, first + 5);
        assertEq(market.deal(id).locked, COLLATERAL - 3 * COLLATERAL / 100);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Active));
        this.recoverExternal(id);
        proveTo(alice, first + 6);
        // and once more, before the next freeze
        toStart(first + 6);
        declare(id);
        toWindow(first + 6);
        recover(id);
        toStart(first + 7);
        proveTo(alice, first + 10);
        toStart(first + 10);
        market.settle(id);
        assertState(id, IStorageMarket.State.Ended);
        assertEq(funds(makeAddr("alice")), 6 * PRICE);
        assertEq(funds(client), before - 6 * PRICE);
        assertEq(market.deal(id).locked, COLLATERAL - 4 * COLLATERAL / 100);
        (uint64 unpaid,) = possession.misses(alice, first, first + 10);
        assertEq(unpaid, 0);
    }

    function test_a_fault_that_lasts_too_long_ends_the_deal() public {
        uint64 id = activeDeal(alice, SEED, 40);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + 1);
        toStart(first + 1);
        declare(id);
        toStart(first + 6);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NothingToTerminate.selector, id));
        market.terminate(id);
        toStart(first + 7);
        address reporter = makeAddr("reporter");
        vm.prank(reporter);
        market.terminate(id);
        assertState(id, IStorageMarket.State.Terminated);
        uint256 rest = COLLATERAL - 6 * COLLATERAL / 100;
        assertGt(rest, PRICE); // so the reward is a share of what one proven period has paid, and the client has the rest
        assertEq(claimable(reporter), PRICE / 20);
        assertEq(claimable(client), PRICE - PRICE / 20);
        assertEq(vault.lockedBy(address(market)), 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Terminated));
        market.terminate(id);
        assertTrue(market.isOver(id));
    }

    function test_a_deal_that_ends_while_a_fault_is_declared_is_terminated() public {
        uint64 id = activeDeal(alice, SEED, 3);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + 2);
        toStart(first + 2);
        declare(id);
        toStart(first + 3);
        vm.prank(client); // reports itself: reward and compensation together are what it has paid
        market.settle(id);
        assertState(id, IStorageMarket.State.Terminated);
        assertEq(claimable(client), 2 * PRICE);
        assertEq(vault.lockedBy(address(market)), 0);
    }

    // ------------------------------------------------------------------------------------------------ challenges

    function openChallenge(uint64 id) private returns (uint64 seedAt) {
        vm.prank(client);
        market.challenge(id);
        seedAt = market.deal(id).challengedAt;
    }

    function test_a_challenge_that_is_answered_pays_the_provider() public {
        uint64 id = activeDeal(alice, SEED, 20);
        proveTo(alice, period() + 1);
        uint256 before = funds(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotClient.selector, id, address(this)));
        market.challenge(id);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NoChallengeOpen.selector, id));
        market.answer(id, "");
        uint64 seedAt = openChallenge(id);
        assertEq(funds(client), before - 1e15);
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ChallengeOpen.selector, id));
        market.challenge(id);
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ChallengeOpen.selector, id));
        market.endEarly(id);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ChallengeOpen.selector, id));
        market.leave(id, "");
        vm.warp(seedAt);
        bytes memory openings = openPiece(leafOf(id), SEED, seedOf(seedAt), 4);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotProvider.selector, id, address(this)));
        market.answer(id, openings);
        vm.expectEmit(address(market));
        emit IStorageMarket.ChallengeAnswered(id);
        asNode(alice);
        market.answer(id, openings);
        assertEq(funds(makeAddr("alice")), 1e15);
        assertEq(market.deal(id).challengedAt, 0);
        // and again
        assertGt(openChallenge(id), seedAt);
    }

    function test_a_challenge_that_is_not_answered_in_time_ends_the_deal_and_returns_the_bond() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, SEED, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + 1);
        toStart(first + 1);
        uint64 seedAt = openChallenge(id);
        vm.warp(seedAt);
        bytes memory openings = openPiece(leafOf(id), SEED, seedOf(seedAt), 4);
        vm.warp(seedAt + 120);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NothingToTerminate.selector, id));
        market.terminate(id);
        vm.warp(seedAt + 121);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.DeadlinePassed.selector, seedAt + 120, seedAt + 121));
        market.answer(id, openings);
        address reporter = makeAddr("reporter");
        vm.prank(reporter);
        market.terminate(id);
        assertEq(funds(client), before - PRICE);
        assertEq(claimable(client), PRICE - PRICE / 20);
        assertEq(claimable(reporter), PRICE / 20); // less than that share of the slash
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NoChallengeOpen.selector, id));
        market.answer(id, openings);
    }

    function test_a_declared_fault_does_not_escape_a_challenge_and_a_deal_does_not_end_before_its_deadline() public {
        uint64 id = activeDeal(alice, SEED, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first);
        toStart(first);
        uint64 seedAt = openChallenge(id);
        declare(id);
        vm.warp(seedAt + 121);
        market.settle(id);
        assertState(id, IStorageMarket.State.Terminated);
        // near its end a deal takes no challenge
        id = activeDeal(bob, SEED, 2);
        uint64 end = market.deal(id).endPeriod;
        uint64 endsAt = possession.periodStart(end);
        vm.warp(endsAt - 125);
        seedAt = endsAt - 120;
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.DeadlinePassed.selector, endsAt, endsAt));
        market.challenge(id);
    }

    function test_surrender_returns_the_bond_of_an_open_challenge() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, SEED, 20);
        openChallenge(id);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotProvider.selector, id, address(this)));
        market.surrender(id);
        asNode(alice);
        market.surrender(id);
        assertEq(funds(client), before);
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Terminated));
        market.challenge(id);
    }

    // ------------------------------------------------------------------------------------------------ leaving

    function test_a_provider_that_still_holds_the_data_leaves_for_the_fee() public {
        uint64 id = activeDeal(alice, SEED, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first + 1);
        toStart(first + 1);
        bytes memory openings = openPiece(leafOf(id), SEED, seedOf(market.recentSeedTime()), 4);
        asNode(alice);
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        market.leave(id, new bytes(openings.length));
        asNode(alice);
        market.leave(id, openings);
        uint256 fee = COLLATERAL / 5;
        assertEq(claimable(client), PRICE); // clipped: one period has been paid
        assertEq(vault.lockedBy(address(market)), COLLATERAL - fee);
        assertEq(market.deal(id).locked, COLLATERAL - fee);
        drop(id);
        assertEq(vault.lockedBy(address(market)), 0);
        assertState(id, IStorageMarket.State.Terminated);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Terminated));
        market.surrender(id);
    }

    function test_leaving_while_a_fault_is_declared_is_refused() public {
        uint64 id = activeDeal(alice, SEED, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveTo(alice, first);
        toStart(first);
        declare(id);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Faulty));
        market.leave(id, "");
        asNode(alice);
        market.surrender(id);
        assertEq(vault.lockedBy(address(market)), 0);
    }

    // ------------------------------------------------------------------------------------------------ dropping

    function test_a_running_deal_is_not_dropped_and_a_foreign_path_does_not_drop_one() public {
        uint64 id = activeDeal(alice, SEED, 2);
        uint64 other = activeDeal(alice, SEED + 1, 20);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongState.selector, id, IStorageMarket.State.Active));
        this.dropExternal(id);
        uint64 end = market.deal(id).endPeriod;
        proveTo(alice, end);
        toStart(end);
        bytes memory wrong = tablePath(tables[alice], 1);
        asNode(alice);
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        market.drop(id, wrong);
        asNode(alice);
        vm.expectRevert(abi.encodeWithSelector(IPossession.ProofLength.selector, 0, 56));
        market.drop(id, "");
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotProvider.selector, id, address(this)));
        market.drop(id, "");
        drop(id);
        proveTo(alice, end + 3); // an emptied slot has its turns too
        // the emptied slot is used again
        toStart(end + 3);
        uint64 next = activeDeal(alice, SEED + 2, 2);
        assertEq(market.deal(next).slot, 0);
        assertEq(market.deal(other).slot, 1);
        assertEq(possession.table(alice).slots, 2);
    }

    // ------------------------------------------------------------------------------------------------ set-up

    function newMarket(IStorageMarket.Config memory c) external {
        deployStorageMarket(c, registry, operators, vault, rails, possession, randomness, address(token));
    }

    function refuseConfig(IStorageMarket.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(badTerms(field, got, limit));
        this.newMarket(c);
    }

    function test_a_market_with_a_senseless_profile_is_refused() public {
        IStorageMarket.Config memory c = marketConfig();
        c.seedQuantum = 0;
        refuseConfig(c, "seedQuantum", 0, 1);
        c = marketConfig();
        c.activationDelay = 0;
        refuseConfig(c, "activationDelay", 0, 1);
        c = marketConfig();
        c.activationDeadline = 15;
        refuseConfig(c, "activationDeadline", 15, 15);
        c = marketConfig();
        c.activationLeaves = 0;
        refuseConfig(c, "activationLeaves", 0, 1);
        c = marketConfig();
        c.challengeWindow = 0;
        refuseConfig(c, "challengeWindow", 0, 1);
        c = marketConfig();
        c.challengeBond = 0;
        refuseConfig(c, "challengeBond", 0, 1);
        c = marketConfig();
        c.minPeriods = 0;
        refuseConfig(c, "minPeriods", 0, 10_000);
        c = marketConfig();
        c.maxFaultPeriods = 0;
        refuseConfig(c, "maxFaultPeriods", 0, 1);
        c = marketConfig();
        c.leaveFeeBps = 10_001;
        refuseConfig(c, "bps", 10_001, 10_000);
    }

    function test_the_exposure_covers_the_longest_road_to_a_slash() public view {
        assertEq(market.exposureSeconds(), 7 * 300 + 5 + 10 + 120);
        assertLt(market.exposureSeconds(), vault.withdrawalDelaySeconds());
        assertEq(market.config().maxPeriods, 10_000);
    }
}

/// @notice A profile in which one charged miss costs the whole collateral.
contract SpentCollateralTest is StorageFixture {
    function marketConfig() internal pure override returns (IStorageMarket.Config memory c) {
        c = super.marketConfig();
        c.faultFeeBps = 10_000;
    }

    function test_a_deal_without_collateral_left_is_ended_and_the_client_refunded() public {
        uint256 before = funds(client);
        uint64 id = activeDeal(alice, 7, 20);
        uint64 first = market.deal(id).firstPeriod;
        proveNext(alice);
        toStart(first + 1); // grace
        market.settle(id);
        assertEq(market.deal(id).locked, COLLATERAL);
        toStart(first + 2);
        market.settle(id);
        assertEq(uint8(market.deal(id).state), uint8(IStorageMarket.State.Terminated));
        assertEq(vault.lockedBy(address(market)), 0);
        assertEq(funds(client), before);
        assertEq(claimable(client), 0);
        drop(id);
    }
}
