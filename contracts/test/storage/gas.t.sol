// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {console} from "forge-std/console.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {PieceTable} from "../../src/storage/PieceTable.sol";
import {Possession} from "../../src/storage/Possession.sol";
import {PossessionProof} from "../../src/storage/PossessionProof.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {Test} from "forge-std/Test.sol";
import {VmSafe} from "forge-std/Vm.sol";
import {deployPossession} from "../deploy/storage.sol";
import {Pieces} from "./pieces.sol";

/// @notice The shape of the prototype (20 openings of depth 40), over the packed layout.
contract PieceLoop {
    function open(bytes32 root, bytes calldata packed, uint256 height, uint256[] calldata indexes) external view returns (uint256 gasUsed) {
        gasUsed = gasleft();
        uint256 cursor;
        assembly ("memory-safe") {
            cursor := packed.offset
        }
        for (uint256 i; i < indexes.length; ++i) {
            if (PossessionProof.pieceRoot(cursor, height, indexes[i]) != root) revert();
            cursor += 32 + (height << 5);
        }
        gasUsed -= gasleft();
    }

    function climb(bytes32 root, bytes calldata packed, uint256 depth, uint256[] calldata slots, uint256 sums) external view returns (uint256 gasUsed) {
        gasUsed = gasleft();
        uint256 cursor;
        assembly ("memory-safe") {
            cursor := packed.offset
        }
        for (uint256 i; i < slots.length; ++i) {
            (bytes32 got,) = PieceTable.climb(root, sums, slots[i], depth, cursor);
            if (got == 0) revert();
            cursor += depth * PieceTable.SIBLING_BYTES;
        }
        gasUsed -= gasleft();
    }
}

/// @notice Gas of proofs. This contract stands for registry, operators, randomness and market, at their cheapest, so that what is
/// measured is the possession contract; the parts around it are itemised by docs/decisions/0004-possession.md.
contract PossessionGasTest is Test, Pieces {
    uint256 private constant PROTOTYPE_LOOP_GAS = 289_751; // shared prototype: 20 openings, 40 levels
    uint256 private constant TRANSACTION_GAS_MAX = 16_777_216;
    uint64 private constant GENESIS = 1_000_000;
    Possession private possession;
    IPossession.Leaf[] private leaves;

    function get(bytes32) external view returns (address) {
        return address(this);
    }

    function nodeKeyOf(uint64) external view returns (address) {
        return address(this);
    }

    function isOver(uint64) external pure returns (bool) {
        return false;
    }

    function valueOf(uint64 time) public pure returns (bytes32) {
        return keccak256(abi.encode(time));
    }

    function fix(uint64 time, bytes calldata, bytes calldata, bytes calldata) external pure returns (bytes32) {
        return valueOf(time);
    }

    function deploy(uint16 maxSlots, uint16 rotationPeriods) private {
        vm.warp(GENESIS);
        IPossession.Config memory c = IPossession.Config({
            genesis: GENESIS,
            period: 86_400,
            window: 7_200,
            freeze: 60,
            byBytes: 10,
            byWeight: 10,
            rotationMin: 1,
            rotationPeriods: rotationPeriods,
            maxSlots: maxSlots,
            graceEvery: 30,
            maxMisses: 7
        });
        possession = deployPossession(c, IRegistry(address(this)), IOperators(address(this)), IRandomness(address(this)));
    }

    bytes32[] private edgeHashes; // full subtrees left of the next slot, by level
    uint256[] private edgeSums;

    /// The path of the next append: full subtrees on the left, empty ones on the right; then adds the leaf to the edge.
    function appendPath(IPossession.Leaf memory leaf) private returns (bytes memory path) {
        uint256 slot = leaves.length;
        uint256 depth;
        while (uint256(1) << depth < slot + 1) ++depth;
        bytes32 empty;
        for (uint256 level; level < depth; ++level) {
            bool isRight = (slot >> level) & 1 == 1;
            uint256 sums = isRight ? edgeSums[level] : 0;
            path = bytes.concat(path, abi.encodePacked(isRight ? edgeHashes[level] : empty, uint64(sums >> 128), uint128(sums)));
            empty = keccak256(abi.encode(empty, 0, empty, 0));
        }
        (bytes32 hash, uint256 total) = (hashTableLeaf(leaf), (uint256(leaf.leaves) << 128) | leaf.weight);
        uint256 at;
        for (; (slot >> at) & 1 == 1; ++at) (hash, total) = (keccak256(abi.encode(edgeHashes[at], edgeSums[at], hash, total)), edgeSums[at] + total);
        if (at == edgeHashes.length) (edgeHashes.push(), edgeSums.push());
        (edgeHashes[at], edgeSums[at]) = (hash, total);
    }

    /// Fills the table with pieces of 2^height leaves.
    function fill(uint256 pieces, uint8 height) private {
        for (uint256 i; i < pieces; ++i) {
            IPossession.Leaf memory leaf = IPossession.Leaf(pieceRootOf(1 + i % 4, height), height, uint64(1) << height, 1e18, uint64(i));
            possession.insert(1, uint32(i), leaf, appendPath(leaf));
            leaves.push(leaf);
        }
    }

    function proof(uint64 p, uint256 times) private view returns (bytes memory) {
        Drawn[] memory drawn = drawsOf(leaves, possession.config(), valueOf(possession.seedTime(p)), 1, p, times);
        Tree memory tree = tableTree(leaves);
        bytes[] memory parts = new bytes[](drawn.length);
        for (uint256 i; i < drawn.length; ++i) {
            IPossession.Leaf memory leaf = leaves[drawn[i].slot];
            parts[i] = bytes.concat(
                abi.encodePacked(uint32(drawn[i].slot), uint8(0), leaf.pieceRoot, leaf.pieceHeight, leaf.leaves, leaf.weight, leaf.dealId),
                pathIn(tree, drawn[i].slot),
                openLeaf(1 + drawn[i].slot % 4, leaf.pieceHeight, drawn[i].leaf)
            );
        }
        return join(parts);
    }

    /// Calldata of a transaction, EIP-7623: standard price and floor.
    function calldataGas(bytes memory data) private pure returns (uint256 standard, uint256 floor) {
        uint256 tokens;
        for (uint256 i; i < data.length; ++i) tokens += data[i] == 0 ? 1 : 4;
        return (21_000 + 4 * tokens, 21_000 + 10 * tokens);
    }

    function report(string memory label, uint64 p, bytes memory packed, uint256 openings) private returns (uint256 transactionGas) {
        bytes memory data = abi.encodeCall(possession.prove, (1, p, packed, "", "", ""));
        (uint256 standard, uint256 floor) = calldataGas(data);
        vm.cool(address(possession));
        (bool done,) = address(possession).call(data);
        uint256 used = vm.lastCallGas().gasTotalUsed;
        assertTrue(done);
        transactionGas = standard + used > floor ? standard + used : floor;
        console.log("%s: %s openings, %s bytes", label, openings, packed.length);
        console.log("   execution %s, transaction %s, without floor %s", used, transactionGas, standard + used);
        assertLt(transactionGas, TRANSACTION_GAS_MAX);
    }

    function proveFull(uint256 pieces, uint16 rotationPeriods) private returns (uint256 transactionGas) {
        delete leaves;
        delete edgeHashes;
        delete edgeSums;
        deploy(1024, rotationPeriods);
        fill(pieces, 30);
        uint64 p = possession.standing(1).syncedTo;
        vm.warp(possession.seedTime(p));
        uint256 openings = 20 + turnsOf(pieces, p, possession.config()).length;
        transactionGas = report(string.concat(vm.toString(pieces), " pieces of 32 GiB"), p, proof(p, 1), openings);
    }

    function test_gas_of_one_proof_for_1_piece() public {
        proveFull(1, 1024);
    }

    function test_gas_of_one_proof_for_10_pieces() public {
        proveFull(10, 1024);
    }

    function test_gas_of_one_proof_for_100_pieces() public {
        proveFull(100, 1024);
    }

    function test_gas_of_one_proof_for_1000_pieces() public {
        proveFull(1000, 1024);
    }

    /// With turns once in 1,024 periods a proof is 21 openings whatever the number of pieces, and grows by their siblings.
    function test_a_doubling_of_the_pieces_costs_at_most_one_sibling_per_opening() public {
        uint256 before = proveFull(1, 1024);
        uint256[3] memory pieces = [uint256(10), 100, 1000];
        uint256[3] memory levels = [uint256(4), 7, 10];
        for (uint256 i; i < 3; ++i) {
            assertLe(proveFull(pieces[i], 1024) - before, 21 * levels[i] * PieceTable.SIBLING_BYTES * 40);
        }
    }

    /// The dearest proof: a full table with turns every 32 periods, answered after a miss.
    function test_the_dearest_proof_fits_a_transaction() public {
        deploy(512, 16);
        fill(512, 30);
        uint64 p = possession.standing(1).syncedTo;
        vm.warp(possession.seedTime(p + 1));
        bytes memory packed = bytes.concat(proof(p + 1, 2), proof(p, 1));
        report("recovery with 512 pieces of 32 GiB, turns every 16 periods", p + 1, packed, 3 * 52);
    }

    /// For contracts/.gas-snapshot: whole transactions.
    function testGas_proofs() public {
        uint256[4] memory pieces = [uint256(1), 10, 100, 1000];
        for (uint256 i; i < 4; ++i) {
            delete leaves;
            delete edgeHashes;
            delete edgeSums;
            deploy(1024, 1024);
            fill(pieces[i], 30);
            uint64 p = possession.standing(1).syncedTo;
            vm.warp(possession.seedTime(p));
            bytes memory packed = proof(p, 1);
            vm.cool(address(possession));
            possession.prove(1, p, packed, "", "", "");
            vm.snapshotGasLastCall("Possession", string.concat("prove ", vm.toString(pieces[i]), " pieces of 32 GiB"));
        }
    }

    /// What a proof of 1,000 pieces costs beside the verification loop.
    function test_a_proof_itemised() public {
        PieceLoop loop = new PieceLoop();
        deploy(1024, 1024);
        fill(1000, 30);
        uint64 p = possession.standing(1).syncedTo;
        vm.warp(possession.seedTime(p));
        bytes memory packed = proof(p, 1);
        bytes memory data = abi.encodeCall(possession.prove, (1, p, packed, "", "", ""));
        (uint256 standard, uint256 floor) = calldataGas(data);
        vm.cool(address(possession));
        possession.prove(1, p, packed, "", "", "");
        uint256 used = vm.lastCallGas().gasTotalUsed;
        uint256[] memory indexes = new uint256[](21);
        bytes[] memory parts = new bytes[](21);
        for (uint256 i; i < 21; ++i) (indexes[i], parts[i]) = (i, openLeaf(1, 30, i));
        uint256 piecePaths = loop.open(pieceRootOf(1, 30), join(parts), 30, indexes);
        uint256 tablePaths = loop.climb(bytes32(uint256(1)), new bytes(21 * 560), 10, indexes, 1);
        console.log("intrinsic 21000, calldata %s, by the floor %s", standard - 21_000, floor - 21_000);
        console.log("21 piece paths of 30 levels: %s; 21 table paths of 10 levels: %s", piecePaths, tablePaths);
        console.log("draws, leaf hashes, storage, events, calls: %s", used - piecePaths - tablePaths);
    }

    function test_gas_of_insert_and_remove_in_a_table_of_1000() public {
        deploy(1024, 32);
        fill(999, 30);
        IPossession.Leaf memory leaf = IPossession.Leaf(pieceRootOf(1, 30), 30, 1 << 30, 1e18, 999);
        bytes memory path = appendPath(leaf);
        possession.insert(1, 999, leaf, path);
        console.log("insert: %s", vm.lastCallGas().gasTotalUsed);
        possession.remove(1, 999, leaf, path);
        console.log("remove: %s", vm.lastCallGas().gasTotalUsed);
    }

    function test_the_verification_loop_is_no_dearer_than_the_prototype() public {
        PieceLoop loop = new PieceLoop();
        bytes memory packed;
        uint256[] memory indexes = new uint256[](20);
        for (uint256 i; i < 20; ++i) {
            indexes[i] = uint256(keccak256(abi.encode(i))) & 0xffffffffff;
            packed = bytes.concat(packed, openLeaf(1, 40, indexes[i]));
        }
        uint256 used = loop.open(pieceRootOf(1, 40), packed, 40, indexes);
        console.log("20 openings, 40 SHA-256 levels: %s, a level %s (prototype %s)", used, used / 800, PROTOTYPE_LOOP_GAS);
        if (!vm.isContext(VmSafe.ForgeContext.Coverage)) assertLe(used, PROTOTYPE_LOOP_GAS); // coverage compiles without optimizer
        uint256 table = loop.climb(pieceRootOf(1, 40), new bytes(20 * 10 * 56), 10, indexes, 1);
        console.log("20 table paths of 10 levels: %s, a level %s", table, table / 200);
    }
}
