// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {PieceTable} from "../../src/storage/PieceTable.sol";
import {Possession} from "../../src/storage/Possession.sol";
import {deployPossession} from "../deploy/storage.sol";
import {Pieces} from "./pieces.sol";

/// @notice The possession contract against the plain model of `Pieces`. This contract stands for registry, operators, randomness and
/// market, so that a test reaches every table; the real ones are in the other tests of this folder.
contract PossessionTest is Test, Pieces {
    uint64 private constant GENESIS = 1_000_000;
    uint64 private constant OPERATOR = 7;
    Possession private possession;
    IPossession.Leaf[] private leaves;
    uint256[] private seeds;
    address private registered;

    function get(bytes32 name) external view returns (address) {
        assertEq(name, bytes32("storageMarket"));
        return registered;
    }

    function nodeKeyOf(uint64) external view returns (address) {
        return address(this);
    }

    function isOver(uint64) external pure returns (bool) {
        return false;
    }

    function valueOf(uint64 time) public pure returns (bytes32) {
        return keccak256(abi.encode("seed", time));
    }

    function fix(uint64 time, bytes calldata, bytes calldata, bytes calldata) external pure returns (bytes32) {
        return valueOf(time);
    }

    function config() private pure returns (IPossession.Config memory) {
        return IPossession.Config({
            genesis: GENESIS,
            period: 300,
            window: 150,
            freeze: 10,
            byBytes: 3,
            byWeight: 3,
            rotationMin: 2,
            rotationPeriods: 5,
            maxSlots: 12,
            graceEvery: 9,
            maxMisses: 4
        });
    }

    function setUp() public {
        vm.warp(GENESIS);
        registered = address(this);
        possession = deploy(config());
        vm.warp(GENESIS + 10 * 300);
    }

    function deploy(IPossession.Config memory c) public returns (Possession) {
        return deployPossession(c, IRegistry(address(this)), IOperators(address(this)), IRandomness(address(this)));
    }

    function newLeaf(uint256 seed) private pure returns (IPossession.Leaf memory) {
        uint8 height = uint8(seed % 5);
        uint64 count = uint64(1 + (seed >> 8) % (1 << height));
        return IPossession.Leaf(pieceRootOf(seed, height), height, count, uint128(1 + (seed >> 16) % 1e18), uint64(seed >> 192));
    }

    function insert(uint256 slot, uint256 seed) private {
        seed |= 1 << 100;
        IPossession.Leaf memory leaf = newLeaf(seed);
        possession.insert(OPERATOR, uint32(slot), leaf, tablePath(leaves, slot));
        if (slot == leaves.length) {
            leaves.push();
            seeds.push();
        }
        (leaves[slot], seeds[slot]) = (leaf, seed);
    }

    function remove(uint256 slot) private {
        possession.remove(OPERATOR, uint32(slot), leaves[slot], tablePath(leaves, slot));
        delete leaves[slot];
    }

    function period() private view returns (uint64) {
        return possession.periodAt(block.timestamp);
    }

    function proof(uint64 p, uint256 times) private view returns (bytes memory) {
        Drawn[] memory drawn = drawsOf(leaves, config(), valueOf(possession.seedTime(p)), OPERATOR, p, times);
        Tree memory tree = tableTree(leaves);
        bytes[] memory parts = new bytes[](drawn.length);
        for (uint256 i; i < drawn.length; ++i) {
            IPossession.Leaf memory leaf = leaves[drawn[i].slot];
            bytes memory path = pathIn(tree, drawn[i].slot);
            if (leaf.leaves == 0) parts[i] = abi.encodePacked(uint32(drawn[i].slot), uint8(1), path);
            else {
                parts[i] = bytes.concat(
                    abi.encodePacked(uint32(drawn[i].slot), uint8(0), leaf.pieceRoot, leaf.pieceHeight, leaf.leaves, leaf.weight, leaf.dealId),
                    path,
                    openLeaf(seeds[drawn[i].slot], leaf.pieceHeight, drawn[i].leaf)
                );
            }
        }
        return join(parts);
    }

    function prove() private {
        uint64 p = period();
        possession.sync(OPERATOR);
        uint64 miss = possession.standing(OPERATOR).openMiss;
        bytes memory packed = miss == 0 ? proof(p, 1) : bytes.concat(proof(p, 2), proof(miss - 1, 1));
        possession.prove(OPERATOR, p, packed, "", "", "");
    }

    function assertTable() private view {
        IPossession.Table memory t = possession.table(OPERATOR);
        assertEq(t.root, leaves.length == 0 ? bytes32(0) : rootOf(leaves));
        assertEq(t.slots, leaves.length);
        uint256 sum;
        uint256 weight;
        for (uint256 i; i < leaves.length; ++i) (sum, weight) = (sum + leaves[i].leaves, weight + leaves[i].weight);
        assertEq(t.leaves, sum);
        assertEq(t.weight, weight);
        assertEq(uint256(1) << t.depth >= t.slots, true);
    }

    // ------------------------------------------------------------------------------------------------ tables

    function testFuzz_any_history_of_inserts_and_removes_leads_to_the_root_of_the_model(uint256 seed) public {
        for (uint256 i; i < 14; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint256 slot = seed % (leaves.length + 1);
            if (slot >= 12) continue;
            if (slot < leaves.length && leaves[slot].leaves != 0) remove(slot);
            else insert(slot, seed);
            assertTable();
        }
    }

    function testFuzz_a_table_path_with_a_flipped_bit_changes_nothing(uint256 seed, uint256 bit) public {
        for (uint256 i; i < 5; ++i) insert(i, uint256(keccak256(abi.encode(seed, i))));
        bytes memory path = tablePath(leaves, 2);
        path[(bit / 8) % path.length] ^= bytes1(uint8(1 << (bit % 8)));
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        possession.remove(OPERATOR, 2, leaves[2], path);
        IPossession.Leaf memory leaf = newLeaf(1);
        path = tablePath(leaves, 5);
        path[(bit / 8) % path.length] ^= bytes1(uint8(1 << (bit % 8)));
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        possession.insert(OPERATOR, 5, leaf, path);
        assertTable();
    }

    function testFuzz_another_leaf_than_that_of_the_slot_is_not_removed(uint256 seed, uint8 field) public {
        for (uint256 i; i < 3; ++i) insert(i, uint256(keccak256(abi.encode(seed, i))));
        IPossession.Leaf memory leaf = leaves[1];
        if (field % 5 == 0) leaf.pieceRoot ^= bytes32(uint256(1));
        if (field % 5 == 1) leaf.pieceHeight += 1;
        if (field % 5 == 2) leaf.leaves += 1;
        if (field % 5 == 3) leaf.weight += 1;
        if (field % 5 == 4) leaf.dealId ^= 1;
        bytes memory path = tablePath(leaves, 1);
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        possession.remove(OPERATOR, 1, leaf, path);
    }

    function test_slots_and_leaves_outside_the_limits_are_refused() public {
        insert(0, 1);
        IPossession.Leaf memory leaf = newLeaf(1 << 100);
        vm.expectRevert(abi.encodeWithSelector(IPossession.WrongSlot.selector, 0, 2, 1));
        possession.insert(OPERATOR, 2, leaf, "");
        vm.expectRevert(abi.encodeWithSelector(IPossession.ProofLength.selector, 0, 56));
        possession.insert(OPERATOR, 1, leaf, "");
        vm.expectPartialRevert(IPossession.TablePathWrong.selector);
        possession.insert(OPERATOR, 0, leaf, ""); // taken
        vm.expectRevert(abi.encodeWithSelector(IPossession.WrongSlot.selector, 0, 1, 1));
        possession.remove(OPERATOR, 1, leaf, "");
        (leaf.leaves, leaf.weight) = (0, 1);
        vm.expectRevert(abi.encodeWithSelector(IPossession.BadLeaf.selector, leaf.dealId, leaf.pieceHeight, 0));
        possession.insert(OPERATOR, 1, leaf, "");
        (leaf.leaves, leaf.weight) = (1, 0);
        vm.expectPartialRevert(IPossession.BadLeaf.selector);
        possession.insert(OPERATOR, 1, leaf, "");
        (leaf.leaves, leaf.weight, leaf.pieceHeight) = (3, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(IPossession.BadLeaf.selector, leaf.dealId, 1, 3));
        possession.insert(OPERATOR, 1, leaf, "");
        leaf.pieceHeight = 33;
        vm.expectPartialRevert(IPossession.BadLeaf.selector);
        possession.insert(OPERATOR, 1, leaf, "");
        for (uint256 i = 1; i < 12; ++i) insert(i, i << 120);
        bytes memory path = tablePath(leaves, 12);
        leaf = newLeaf(1);
        vm.expectRevert(abi.encodeWithSelector(IPossession.TableFull.selector, OPERATOR, 12));
        possession.insert(OPERATOR, 12, leaf, path);
    }

    function test_sums_that_would_overflow_are_refused() public {
        IPossession.Leaf memory leaf = IPossession.Leaf(bytes32(0), 32, 1, type(uint128).max, 1);
        possession.insert(OPERATOR, 0, leaf, "");
        leaf.weight = 1;
        IPossession.Leaf[] memory one = new IPossession.Leaf[](1);
        one[0] = IPossession.Leaf(bytes32(0), 32, 1, type(uint128).max, 1);
        bytes memory path = tablePath(one, 1);
        vm.expectRevert();
        possession.insert(OPERATOR, 1, leaf, path);
    }

    function testFuzz_only_the_bound_market_changes_a_table(address stranger) public {
        vm.assume(stranger != address(this));
        IPossession.Leaf memory leaf = newLeaf(1 << 100);
        bytes memory refusal = abi.encodeWithSelector(IPossession.NotMarket.selector, stranger);
        vm.prank(stranger);
        vm.expectRevert(refusal);
        possession.insert(OPERATOR, 0, leaf, "");
        insert(0, 1);
        assertEq(possession.market(), address(this));
        registered = stranger; // a later pointer of the registry does not matter
        vm.prank(stranger);
        vm.expectRevert(refusal);
        possession.insert(OPERATOR, 1, leaf, "");
        vm.prank(stranger);
        vm.expectRevert(refusal);
        possession.remove(OPERATOR, 0, leaf, "");
        remove(0);
    }

    // ------------------------------------------------------------------------------------------------ proofs

    function testFuzz_the_proof_of_the_model_is_accepted_and_one_with_a_flipped_bit_is_not(uint256 seed, uint256 bit) public {
        uint256 count = 1 + seed % 9;
        for (uint256 i; i < count; ++i) insert(i, uint256(keccak256(abi.encode(seed, i))));
        if (count > 2) remove(seed % count);
        uint64 p = period();
        vm.warp(possession.seedTime(p) + bit % 150);
        bytes memory packed = proof(p, 1);
        bytes memory flipped = bytes.concat(packed);
        flipped[(bit / 8) % packed.length] ^= bytes1(uint8(1 << (bit % 8)));
        vm.expectRevert();
        possession.prove(OPERATOR, p, flipped, "", "", "");
        vm.expectRevert();
        possession.prove(OPERATOR, p, flipped, "", "", "");
        possession.prove(OPERATOR, p, packed, "", "", "");
        assertEq(possession.standing(OPERATOR).provenThrough, p + 1);
    }

    function testFuzz_single_pieces_are_opened(uint256 seed, bytes32 random, uint256 count, uint256 bit) public {
        count = bound(count, 1, 6);
        seed |= 1 << 100;
        IPossession.Leaf memory leaf = newLeaf(seed);
        bytes memory packed = openPiece(leaf, seed, random, count);
        possession.verifyPiece(leaf, random, count, packed);
        vm.expectRevert();
        possession.verifyPiece(leaf, random, count + 1, packed);
        packed[(bit / 8) % packed.length] ^= bytes1(uint8(1 << (bit % 8)));
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        possession.verifyPiece(leaf, random, count, packed);
    }

    function test_an_emptied_slot_is_answered_by_its_emptiness_and_the_rest_goes_on() public {
        for (uint256 i; i < 6; ++i) insert(i, (i + 1) << 130);
        for (uint256 i; i < 6; i += 2) remove(i);
        for (uint64 p = period(); p < 18; ++p) {
            vm.warp(possession.seedTime(p));
            prove();
        }
        assertEq(possession.standing(OPERATOR).openMiss, 0);
    }

    function test_every_slot_is_drawn_by_turn_in_any_stretch_of_rotation_periods() public pure {
        IPossession.Config memory c = config();
        for (uint256 slots = 1; slots <= 12; ++slots) {
            for (uint256 start; start < 7; ++start) {
                uint256 drawn;
                for (uint256 p = start; p < start + c.rotationPeriods; ++p) {
                    uint256[] memory turns = turnsOf(slots, p, c);
                    assertGe(turns.length, c.rotationMin);
                    for (uint256 i; i < turns.length; ++i) drawn |= 1 << turns[i];
                }
                assertEq(drawn, (1 << slots) - 1);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ misses

    struct Model {
        uint64[40] unpaid; // 1 where a period was missed
        uint64[40] charged;
        uint64 graceUsedAt;
        uint256 inRow;
        uint64 failedAt;
    }

    function testFuzz_misses_are_counted_as_the_rules_say(uint256 pattern, uint256 queries) public {
        Model memory model;
        uint64 start = period();
        insert(0, 1);
        for (uint64 p = start; p < start + 30; ++p) {
            bool silent = (pattern >> (p - start)) & 1 == 1;
            vm.warp(possession.seedTime(p));
            if (model.failedAt != 0) {
                model.unpaid[p - start] = 1;
                continue;
            }
            if (!silent) {
                prove();
                model.inRow = 0;
                continue;
            }
            model.unpaid[p - start] = 1;
            if (model.graceUsedAt == 0 || p + 1 >= model.graceUsedAt + 9) {
                model.graceUsedAt = p + 1;
            } else {
                model.charged[p - start] = 1;
                if (++model.inRow == 4) model.failedAt = p + 1;
            }
        }
        vm.warp(possession.periodStart(start + 30));
        possession.sync(OPERATOR);
        IPossession.Standing memory s = possession.standing(OPERATOR);
        assertEq(s.syncedTo, start + 30);
        assertEq(s.failedAt, model.failedAt);
        assertEq(s.graceUsedAt, model.graceUsedAt);
        assertEq(possession.stands(OPERATOR), model.failedAt == 0);
        for (uint256 i; i < 8; ++i) {
            uint64 from = start + uint64((queries >> (16 * i)) % 31);
            uint64 to = start + uint64((queries >> (16 * i + 8)) % 40);
            assertMisses(model, start, from, to);
        }
    }

    function assertMisses(Model memory model, uint64 start, uint64 from, uint64 to) private view {
        (uint64 unpaid, uint64 charged) = possession.misses(OPERATOR, from, to);
        uint64 expectedUnpaid;
        uint64 expectedCharged;
        for (uint64 p = from; p < to && p < start + 30; ++p) {
            expectedUnpaid += model.unpaid[p - start];
            expectedCharged += model.charged[p - start];
        }
        assertEq(unpaid, expectedUnpaid);
        assertEq(charged, expectedCharged);
    }

    function test_open_misses_are_answered_oldest_first() public {
        insert(0, 1);
        uint64 p = period();
        vm.warp(possession.periodStart(p + 2));
        possession.sync(OPERATOR);
        assertEq(possession.standing(OPERATOR).openMiss, p + 1);
        assertEq(possession.standing(OPERATOR).lastOpenMiss, p + 2);
        assertEq(possession.openMissAfter(OPERATOR, p), p + 2);
        for (uint64 i = 2; i < 4; ++i) {
            vm.warp(possession.seedTime(p + i));
            prove();
        }
        assertEq(possession.standing(OPERATOR).openMiss, 0);
        vm.warp(possession.seedTime(p + 4));
        prove();
    }

    function test_a_long_silence_is_made_final_in_bounded_gas() public {
        insert(0, 1);
        vm.warp(block.timestamp + 3650 days);
        uint256 used = gasleft();
        possession.sync(OPERATOR);
        used -= gasleft();
        assertLt(used, 700_000);
        assertFalse(possession.stands(OPERATOR));
        (uint64 unpaid, uint64 charged) = possession.misses(OPERATOR, 10, period());
        assertEq(unpaid, period() - 10);
        assertEq(charged, 4);
        (unpaid, charged) = possession.misses(OPERATOR, period() - 5, period());
        assertEq(unpaid, 5);
        assertEq(charged, 0);
    }

    function testFuzz_periods_of_an_empty_table_need_no_proof(uint16 empty, uint8 offset) public {
        insert(0, 1);
        remove(0);
        vm.warp(block.timestamp + uint256(empty) * 300);
        // an insert in the frozen interval belongs to the next period
        uint64 p = period();
        vm.warp(possession.freezeTime(p) + offset % 160);
        insert(0, 2);
        assertEq(possession.tableOf(OPERATOR, p).leaves, 0);
        assertTrue(possession.tableOf(OPERATOR, p).kept);
        vm.warp(possession.periodStart(p + 1));
        possession.sync(OPERATOR);
        (uint64 unpaid,) = possession.misses(OPERATOR, 0, p + 1);
        assertEq(unpaid, 0);
        vm.warp(possession.seedTime(p + 1));
        prove();
    }

    function testFuzz_inserts_in_the_frozen_interval_leave_the_frozen_table_as_it_was(uint256 seed, uint8 count) public {
        insert(0, seed);
        uint64 p = period();
        bytes32 root = possession.table(OPERATOR).root;
        vm.warp(possession.freezeTime(p) + seed % 10);
        for (uint256 i = 1; i <= count % 4; ++i) insert(i, uint256(keccak256(abi.encode(seed, i))));
        assertEq(possession.tableOf(OPERATOR, p).root, root);
        bytes memory path = tablePath(leaves, 0);
        vm.expectRevert(abi.encodeWithSelector(IPossession.TableFrozen.selector, OPERATOR, possession.periodStart(p + 1)));
        possession.remove(OPERATOR, 0, leaves[0], path);
        vm.warp(possession.periodStart(p + 1));
        possession.sync(OPERATOR); // missed: what must be answered is the frozen table
        assertEq(possession.tableOf(OPERATOR, p).root, root);
        if (count % 4 != 0) assertTrue(possession.table(OPERATOR).root != root);
        remove(0);
        assertEq(possession.tableOf(OPERATOR, p).root, root);
    }

    function testFuzz_the_clock(uint64 p, uint32 offset) public view {
        p = uint64(bound(p, 0, 1 << 40));
        uint64 at = possession.periodStart(p);
        assertEq(at, GENESIS + p * 300);
        assertEq(possession.periodAt(at + offset % 300), p);
        assertEq(possession.seedTime(p), at + 150);
        assertEq(possession.freezeTime(p), at + 140);
    }

    function test_who_may_prove_what_and_when() public {
        insert(0, 1);
        uint64 p = period();
        vm.expectRevert(abi.encodeWithSelector(IPossession.WrongPeriod.selector, p + 1, p));
        possession.prove(OPERATOR, p + 1, "", "", "", "");
        vm.expectRevert(
            abi.encodeWithSelector(IPossession.OutsideWindow.selector, block.timestamp, possession.seedTime(p), possession.periodStart(p + 1))
        );
        possession.prove(OPERATOR, p, "", "", "", "");
        vm.prank(address(1));
        vm.expectRevert(abi.encodeWithSelector(IPossession.NotNodeKey.selector, OPERATOR, address(1)));
        possession.prove(OPERATOR, p, "", "", "", "");
        vm.warp(possession.seedTime(p));
        vm.expectRevert(abi.encodeWithSelector(IPossession.NothingToProve.selector, OPERATOR + 1));
        possession.prove(OPERATOR + 1, p, "", "", "", "");
    }

    // ------------------------------------------------------------------------------------------------ set-up

    function test_a_senseless_profile_is_refused() public {
        IPossession.Config memory c = config();
        string[13] memory fields = [
            "genesis", "genesis", "window", "freeze", "period", "byBytes", "byWeight", "rotationMin", "rotationPeriods", "maxSlots", "maxMisses", "graceEvery", "maxSlots"
        ];
        for (uint256 i; i < fields.length; ++i) {
            c = config();
            if (i == 0) c.genesis = 0;
            if (i == 1) c.genesis = uint64(block.timestamp + 1);
            if (i == 2) c.window = 0;
            if (i == 3) c.freeze = 0;
            if (i == 4) c.window = 290;
            if (i == 5) c.byBytes = 0;
            if (i == 6) c.byWeight = 0;
            if (i == 7) c.rotationMin = 0;
            if (i == 8) c.rotationPeriods = 0;
            if (i == 9) c.maxSlots = 0;
            if (i == 10) c.maxMisses = 0;
            if (i == 11) c.graceEvery = 4;
            if (i == 12) (c.maxSlots, c.rotationPeriods) = (4096, 30); // the dearest proof would not fit a transaction
            try this.deploy(c) {
                fail();
            } catch (bytes memory reason) {
                assertEq(this.fieldOf(reason), fields[i]);
            }
        }
        assertEq(possession.config().maxSlots, 12);
        assertEq(possession.openingsMax(config()), 3 * (6 + 3));
    }

    function fieldOf(bytes calldata reason) external pure returns (string memory field) {
        (field,,) = abi.decode(reason[4:], (string, uint256, uint256));
    }

    function testFuzz_the_empty_root_is_that_of_empty_slots(uint8 depth) public pure {
        depth = depth % 13;
        IPossession.Leaf[] memory none = new IPossession.Leaf[](uint256(1) << depth);
        assertEq(PieceTable.emptyRoot(depth), rootOf(none));
    }
}
