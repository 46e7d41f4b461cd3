// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {console} from "forge-std/console.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageFixture} from "./fixture.sol";

/// @notice Every attack beside an honest twin: alice cheats, bob does the same work honestly and is never punished.
contract StorageAttacksTest is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint64 private dealA; // alice's
    uint64 private twin; // bob's, of the same piece
    uint64 private first;

    function setUp() public override {
        super.setUp();
        dealA = activeDeal(alice, SEED, 100);
        twin = activeDeal(bob, SEED, 100);
        first = market.deal(dealA).firstPeriod;
        toWindow(first - 1);
        prove(alice);
        prove(bob);
        toWindow(first);
    }

    function proofOf(uint64 operatorId) private returns (bytes memory) {
        return openTable(tables[operatorId], operatorId, period(), 1, false);
    }

    function assertHonest() private {
        market.settle(twin);
        assertEq(market.deal(twin).locked, COLLATERAL);
        assertEq(uint8(market.deal(twin).state), uint8(IStorageMarket.State.Active));
    }

    function stateOf(uint64 dealId) private view returns (IStorageMarket.State) {
        return market.deal(dealId).state;
    }

    // ------------------------------------------------------------------------------------------------ false proofs

    function test_a_stale_proof_is_refused() public {
        bytes memory old = proofOf(alice);
        proveWith(alice, old);
        prove(bob);
        toWindow(first + 1);
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(IPossession.WrongPeriod.selector, first, first + 1));
        possession.prove(alice, first, old, "", "", "");
        vm.prank(nodeKey(alice));
        vm.expectRevert();
        possession.prove(alice, first + 1, old, "", "", "");
        prove(bob);
        assertHonest();
    }

    function test_a_wrong_leaf_is_refused() public {
        bytes memory proof = proofOf(alice);
        // leaf value of the first opening: head 5, leaf 65, no table levels
        proof[70] ^= 0x01;
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        this.proveExternal(alice, proof);
        prove(bob);
        assertHonest();
    }

    function test_another_leaf_of_the_same_piece_is_refused() public {
        Drawn[] memory drawn = drawsOf(tables[alice], config(), seedOf(possession.seedTime(first)), alice, first, 1);
        bytes memory proof;
        for (uint256 i; i < drawn.length; ++i) {
            uint256 leaf = i == 3 ? (drawn[i].leaf + 1) % 32 : drawn[i].leaf;
            proof = bytes.concat(proof, openSlot(tables[alice][0], 0, leaf, tableTree(tables[alice]), false));
        }
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        this.proveExternal(alice, proof);
    }

    function proveExternal(uint64 operatorId, bytes calldata proof) external {
        proveWith(operatorId, proof);
    }

    function test_the_proof_of_another_provider_of_the_same_piece_is_refused() public {
        bytes memory bobs = proofOf(bob);
        vm.expectRevert();
        this.proveExternal(alice, bobs);
        proveWith(bob, bobs);
        // nor may alice's node key prove for bob
        address alices = nodeKey(alice);
        vm.prank(alices);
        vm.expectRevert(abi.encodeWithSelector(IPossession.NotNodeKey.selector, bob, alices));
        possession.prove(bob, first, bobs, "", "", "");
        assertHonest();
    }

    function test_a_late_proof_is_a_miss() public {
        bytes memory proof = proofOf(alice);
        prove(bob);
        toStart(first + 1);
        vm.expectRevert();
        this.proveExternal(alice, proof);
        possession.sync(alice);
        (uint64 unpaid,) = possession.misses(alice, first, first + 1);
        assertEq(unpaid, 1);
        assertHonest();
    }

    function test_a_proof_before_its_seed_is_refused() public {
        prove(alice);
        vm.warp(possession.seedTime(first + 1) - 1);
        vm.expectPartialRevert(IPossession.OutsideWindow.selector);
        this.proveExternal(alice, "");
        // the seed itself cannot be had either
        uint64 seedAt = possession.seedTime(first + 1);
        vm.expectRevert();
        randomness.fix(seedAt, "", "", "");
    }

    function test_a_period_is_proven_once_and_with_no_byte_more() public {
        bytes memory proof = proofOf(alice);
        vm.expectRevert(abi.encodeWithSelector(IPossession.ProofLength.selector, proof.length + 1, proof.length));
        this.proveExternal(alice, bytes.concat(proof, hex"00"));
        proveWith(alice, proof);
        vm.expectRevert(abi.encodeWithSelector(IPossession.AlreadyProven.selector, alice, first));
        this.proveExternal(alice, proof);
    }

    function test_flags_cannot_hide_a_leaf() public {
        // "empty" for a slot that is not, "over" in the current period, an unknown flag, a slot beyond the table
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        this.proveExternal(alice, abi.encodePacked(uint32(0), uint8(1)));
        bytes memory proof = proofOf(alice);
        proof[4] = 0x02;
        vm.expectRevert(abi.encodeWithSelector(IPossession.BadFlag.selector, 0, 2));
        this.proveExternal(alice, proof);
        proof[4] = 0x03;
        vm.expectRevert(abi.encodeWithSelector(IPossession.BadFlag.selector, 0, 3));
        this.proveExternal(alice, proof);
        (proof[4], proof[3]) = (0x00, 0x01);
        vm.expectRevert(abi.encodeWithSelector(IPossession.WrongSlot.selector, 0, 1, 1));
        this.proveExternal(alice, proof);
    }

    function test_a_piece_of_another_slot_cannot_answer_a_draw() public {
        toStart(first + 1);
        activeDeal(alice, SEED + 1, 100);
        toWindow(first + 1);
        IPossession.Leaf[] memory leaves = tables[alice];
        Drawn[] memory drawn = drawsOf(leaves, config(), seedOf(possession.seedTime(first + 1)), alice, first + 1, 2);
        Tree memory tree = tableTree(leaves);
        uint256 slot = 1 - drawn[0].slot;
        bytes memory proof = openSlot(leaves[slot], slot, 0, tree, false);
        vm.expectPartialRevert(IPossession.WrongDraw.selector);
        this.proveExternal(alice, proof);
    }

    // ------------------------------------------------------------------------------------------------ time of removal

    function test_nothing_leaves_the_table_between_freeze_and_deadline() public {
        prove(alice);
        prove(bob);
        uint64 p = first + 1;
        bytes memory frozen = abi.encodeWithSelector(IPossession.TableFrozen.selector, alice, possession.periodStart(p + 1));
        for (uint256 i; i < 3; ++i) {
            vm.warp([possession.freezeTime(p), possession.seedTime(p), possession.periodStart(p + 1) - 1][i]);
            vm.prank(nodeKey(alice));
            vm.expectRevert(frozen);
            market.declareFault(dealA, "");
        }
        // surrender ends the deal at once, but the leaf stays in the table that is proven
        toWindow(p);
        vm.prank(nodeKey(alice));
        market.surrender(dealA);
        vm.prank(nodeKey(alice));
        vm.expectRevert(frozen);
        market.drop(dealA, "");
        prove(bob);
        assertHonest();
    }

    function test_a_filler_inserted_after_the_freeze_is_not_in_the_table_that_is_proven() public {
        prove(alice);
        prove(bob);
        uint64 p = first + 1;
        uint64 filler = openDeal(alice, SEED + 2, 100);
        vm.warp(possession.freezeTime(p));
        IPossession.Table memory before = possession.table(alice);
        IPossession.Leaf[] memory leaves = tables[alice];
        activate(filler);
        assertEq(possession.tableOf(alice, p).root, before.root);
        assertEq(possession.tableOf(alice, p).leaves, before.leaves);
        assertEq(possession.table(alice).slots, 2);
        toWindow(p);
        bytes memory withFiller = openTable(tables[alice], alice, p, 1, false);
        vm.expectRevert();
        this.proveExternal(alice, withFiller);
        proveWith(alice, openTable(leaves, alice, p, 1, false));
        toWindow(p + 1);
        prove(alice);
    }

    function test_a_fault_declared_before_the_freeze_costs_its_fee_and_no_more() public {
        prove(alice);
        prove(bob);
        toStart(first + 1);
        vm.prank(nodeKey(alice));
        market.declareFault(dealA, "");
        delete tables[alice][0];
        toWindow(first + 1);
        prove(bob);
        // the table is empty: nothing to prove, no miss
        vm.expectRevert(abi.encodeWithSelector(IPossession.NothingToProve.selector, alice));
        this.proveExternal(alice, "");
        toStart(first + 2);
        possession.sync(alice);
        (uint64 unpaid,) = possession.misses(alice, first, first + 2);
        assertEq(unpaid, 0);
        market.settle(dealA);
        assertEq(market.deal(dealA).locked, COLLATERAL - COLLATERAL / 100);
        assertEq(funds(makeAddr("alice")), PRICE); // `first` alone
        assertHonest();
    }

    // ------------------------------------------------------------------------------------------------ silence

    function test_silence_only_when_hit_ends_the_table() public {
        // alice has lost her piece: she is silent from here on, as every draw hits it; her grace saves nothing but the first fee
        uint256 before = vault.slashableOf(alice);
        uint256 clientBefore = funds(client);
        uint32 maxMisses = 3;
        for (uint64 p = first; p <= first + maxMisses; ++p) {
            toWindow(p);
            prove(bob);
        }
        toStart(first + maxMisses + 1);
        possession.sync(alice);
        assertFalse(possession.stands(alice));
        market.settle(dealA);
        assertEq(uint8(stateOf(dealA)), uint8(IStorageMarket.State.Terminated));
        assertEq(vault.slashableOf(alice), before - COLLATERAL);
        assertEq(funds(client) - clientBefore, 100 * uint256(PRICE) + BOND);
        assertEq(claimable(client) + claimable(address(this)), 0); // nothing was paid: no price is to be made good, no reporter is needed
        assertHonest();
    }

    function test_one_miss_is_forgiven_when_its_leaves_are_answered_and_twice_as_many() public {
        toWindow(first + 1);
        IPossession.Leaf[] memory leaves = tables[alice];
        bytes memory now_ = openTable(leaves, alice, first + 1, 2, false);
        bytes memory missed = openTable(leaves, alice, first, 1, true);
        // neither half alone is enough
        vm.expectRevert();
        this.proveExternal(alice, now_);
        bytes memory single = openTable(leaves, alice, first + 1, 1, false);
        vm.expectRevert();
        this.proveExternal(alice, bytes.concat(single, missed));
        vm.expectEmit(address(possession));
        emit IPossession.MissAnswered(alice, first);
        emit IPossession.Proven(alice, first + 1, 27, true);
        proveWith(alice, bytes.concat(now_, missed));
        IPossession.Standing memory s = possession.standing(alice);
        assertEq(s.openMiss, 0);
        assertEq(s.missesInRow, 0);
        toStart(first + 2);
        market.settle(dealA);
        assertEq(market.deal(dealA).locked, COLLATERAL);
        assertEq(funds(makeAddr("alice")), PRICE);
        // once in graceEvery: the next miss is charged
        toStart(first + 3);
        market.settle(dealA);
        assertEq(market.deal(dealA).locked, COLLATERAL - COLLATERAL / 20);
    }

    function test_silence_in_the_period_before_the_hit_does_not_hide_the_hit() public {
        // alice is silent in `first` (which she could answer) and in `first + 1` (which she could not): both stay open, oldest first
        toWindow(first + 2);
        IPossession.Leaf[] memory leaves = tables[alice];
        proveWith(alice, bytes.concat(openTable(leaves, alice, first + 2, 2, false), openTable(leaves, alice, first, 1, true)));
        assertEq(possession.standing(alice).openMiss, first + 2); // period first + 1
        toWindow(first + 3);
        bytes memory twice = openTable(leaves, alice, first + 3, 2, false);
        vm.expectRevert();
        this.proveExternal(alice, twice);
        proveWith(alice, bytes.concat(twice, openTable(leaves, alice, first + 1, 1, true)));
        assertEq(possession.standing(alice).openMiss, 0);
        assertEq(possession.standing(alice).lastOpenMiss, 0);
        prove(bob4());
    }

    function bob4() private returns (uint64) {
        // bob too has missed three periods here; he answers the oldest
        IPossession.Leaf[] memory leaves = tables[bob];
        proveWith(bob, bytes.concat(openTable(leaves, bob, first + 3, 2, false), openTable(leaves, bob, first, 1, true)));
        toWindow(first + 4);
        proveWith(bob, bytes.concat(openTable(leaves, bob, first + 4, 2, false), openTable(leaves, bob, first + 1, 1, true)));
        toWindow(first + 5);
        proveWith(bob, bytes.concat(openTable(leaves, bob, first + 5, 2, false), openTable(leaves, bob, first + 2, 1, true)));
        toWindow(first + 6);
        return bob;
    }

    function test_missed_leaves_of_deals_that_are_over_need_no_answer_but_their_place() public {
        toStart(first + 1);
        uint64 second = activeDeal(alice, SEED + 3, 100);
        toWindow(first + 1); // both in the table; `first` is missed already
        IPossession.Leaf[] memory early = new IPossession.Leaf[](1);
        early[0] = tables[alice][0];
        toWindow(first + 2);
        // the first piece is lost: surrendered, and out of the table before the next freeze
        toStart(first + 3);
        vm.prank(nodeKey(alice));
        market.surrender(dealA);
        drop(dealA);
        toWindow(first + 3);
        IPossession.Leaf[] memory leaves = tables[alice];
        bytes memory now_ = openTable(leaves, alice, first + 3, 2, false);
        bytes memory missed = openTable(early, alice, first, 1, true);
        proveWith(alice, bytes.concat(now_, missed));
        assertEq(possession.standing(alice).openMiss, first + 2);
        // a deal that is not over is not passed over
        toWindow(first + 4);
        early = new IPossession.Leaf[](2);
        (early[0], early[1]) = (leafOf(dealA), leafOf(second));
        now_ = openTable(leaves, alice, first + 4, 2, false);
        missed = openTable(early, alice, first + 1, 1, true);
        uint256 at = flagOf(missed, early);
        missed[at] = 0x02;
        vm.expectRevert(abi.encodeWithSelector(IPossession.DealNotOver.selector, second));
        this.proveExternal(alice, bytes.concat(now_, missed));
        missed[at] = 0x00;
        proveWith(alice, bytes.concat(now_, missed));
    }

    /// Position of the flag of the first opening of the second deal.
    function flagOf(bytes memory missed, IPossession.Leaf[] memory early) private view returns (uint256 at) {
        at = 4;
        while (missed[at] == 0x02) at += 5 + 65 + 56;
        assertEq(early[1].dealId, dealA + 2);
    }

    function test_a_failed_table_takes_no_proof_until_it_is_empty_and_then_starts_anew() public {
        uint64 next = openDeal(alice, SEED + 4, 50);
        vm.warp(market.activationSeedTime(next));
        toStart(first + 3); // misses of first (grace), first + 1, first + 2
        possession.sync(alice);
        assertEq(possession.standing(alice).missesInRow, 2);
        toStart(first + 4);
        possession.sync(alice);
        assertFalse(possession.stands(alice));
        toWindow(first + 4);
        vm.expectRevert(abi.encodeWithSelector(IPossession.TableHasFailed.selector, alice, first + 3));
        this.proveExternal(alice, "");
        // also in the frozen interval a failed table may be emptied
        market.terminate(dealA);
        drop(dealA);
        assertEq(possession.table(alice).weight, 0);
        vm.expectRevert();
        market.settle(dealA);
        uint64 fresh = activeDeal(alice, SEED + 5, 50);
        assertTrue(possession.stands(alice));
        IPossession.Standing memory s = possession.standing(alice);
        assertEq(s.openMiss, 0);
        assertEq(s.missesInRow, 0);
        uint64 p = period();
        toWindow(p + 1);
        prove(alice);
        toStart(p + 2);
        market.settle(fresh);
        assertEq(market.deal(fresh).locked, COLLATERAL);
        (uint64 unpaid, uint64 charged) = possession.misses(alice, first, p + 2);
        assertEq(charged, 3);
        assertEq(unpaid, p + 2 - first); // to deals of the table that failed
    }

    function test_a_failed_table_that_is_not_empty_takes_no_new_deal() public {
        uint64 next = openDeal(alice, SEED + 4, 50);
        toStart(first + 3);
        vm.warp(market.deal(next).openedAt + 900);
        toStart(first + 4);
        possession.sync(alice);
        next = openDeal(alice, SEED + 6, 50);
        vm.expectRevert(abi.encodeWithSelector(IPossession.TableHasFailed.selector, alice, first + 3));
        this.activateExternal(next);
    }

    function activateExternal(uint64 dealId) external {
        activate(dealId);
    }

    // ------------------------------------------------------------------------------------------------ dilution

    /// Periods until a deleted deal is drawn when it lies among equal pieces of 32 leaves; filler of the same collateral, or of 1.
    function periodsUntilDrawn(uint256 filler, uint256 fillerWeight, uint256 run, uint256 rotationPeriods) private pure returns (uint256) {
        uint256 slots = filler + 1;
        uint256 deleted = uint256(keccak256(abi.encode("deleted", run))) % slots;
        uint256 weight = filler * fillerWeight + COLLATERAL;
        for (uint256 count = 1;; ++count) {
            uint256 p = run * 1000 + count;
            if (p % rotationPeriods == deleted % rotationPeriods) return count;
            bytes32 base = keccak256(abi.encode(keccak256(abi.encode("dilution", run, p)), uint64(1), uint64(p)));
            for (uint256 i; i < 20; ++i) {
                uint256 hash = uint256(keccak256(abi.encode(base, i)));
                uint256 before = deleted * (i < 10 ? 32 : fillerWeight);
                uint256 drawn = hash % (i < 10 ? slots * 32 : weight);
                if (drawn >= before && drawn - before < (i < 10 ? 32 : COLLATERAL)) return count;
            }
        }
    }

    function test_filler_does_not_hide_a_deleted_deal() public pure {
        uint256[3] memory ratios = [uint256(10), 100, 1000];
        uint256 rotationPeriods = 256;
        uint256 runs = 100;
        for (uint256 i; i < 3; ++i) {
            (uint256 equal, uint256 cheap, uint256 worst) = (0, 0, 0);
            for (uint256 run; run < runs; ++run) {
                uint256 periods = periodsUntilDrawn(ratios[i], COLLATERAL, run, rotationPeriods);
                assertLe(periods, rotationPeriods);
                if (periods > worst) worst = periods;
                equal += periods;
                cheap += periodsUntilDrawn(ratios[i], 1, run, rotationPeriods);
            }
            assertEq(cheap, runs); // the deal's weight is all the weight: drawn in the first period
            console.log("1:%s, filler of equal collateral: mean periods x100 %s, worst %s", ratios[i], equal * 100 / runs, worst);
        }
    }

    function test_filler_on_the_chain_one_to_ten() public {
        prove(alice);
        prove(bob);
        toStart(first + 1);
        for (uint256 i; i < 10; ++i) {
            activeDeal(alice, SEED + 10 + i, 90);
        }
        assertEq(possession.table(alice).slots, 11);
        // alice deletes the first deal: within rotationPeriods a period comes that she cannot answer
        IPossession.Leaf[] memory leaves = tables[alice];
        for (uint64 p = first + 1;; ++p) {
            assertLe(p, first + 8);
            toWindow(p);
            if (p == first + 1) {
                prove(alice); // her deals of this period are in the table already; she still has the data
                prove(bob);
                continue;
            }
            prove(bob);
            Drawn[] memory drawn = drawsOf(leaves, config(), seedOf(possession.seedTime(p)), alice, p, 1);
            bool hit;
            for (uint256 i; i < drawn.length; ++i) {
                hit = hit || drawn[i].slot == 0;
            }
            if (hit) break;
            prove(alice);
        }
        assertHonest();
    }

    // ------------------------------------------------------------------------------------------------ nobody gains

    function test_self_dealing_never_gains() public {
        // alice is client, operator and reporter of a deal with the dearest replacement: she ends with less than she began with
        address owner = makeAddr("alice");
        (client, clientSecret) = (owner, uint256(keccak256(abi.encodePacked("alice"))));
        uint256 wealth = token.balanceOf(owner) + 100e18 - BOND; // own stake; the first client's deal is apart
        vm.startPrank(owner);
        token.approve(address(rails), 100e18);
        rails.deposit(address(token), owner, 100e18);
        rails.approve(address(market), address(token), type(uint256).max);
        vm.stopPrank();
        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED + 20, 5, 1000, 100);
        terms.pricePerPeriod = 1e17;
        terms.collateral = 50e18;
        uint64 own = openDeal(terms, SEED + 20);
        activate(own);
        vm.prank(nodeKey(alice));
        market.surrender(own);
        uint256 claim = claimable(owner);
        assertEq(claim, 0); // no period was paid
        (uint256 active,) = vault.ownStake(alice);
        uint256 now_ = token.balanceOf(owner) + funds(owner) + active;
        assertLt(now_, wealth);
        assertEq(now_, wealth + BOND - 50e18);
    }
}
