// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";

/// @notice A second, plain implementation of pieces, tables and draws, written from the rules and not from the code under test.
abstract contract Pieces {
    uint256 private constant TRUNC = 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff3f;

    /// Levels of a sum tree: hashes[level][index], sums[level][index] = leaves << 128 | weight.
    struct Tree {
        bytes32[][] hashes;
        uint256[][] sums;
    }

    struct Drawn {
        uint256 slot;
        uint256 leaf;
    }

    // ------------------------------------------------------------------------------------------------ pieces

    /// The 32-byte nodes of a piece made from `seed`; seed < 2^64 gives equal nodes, so that paths of any height are cheap.
    function pieceLeaf(uint256 seed, uint256 index) internal pure returns (bytes32) {
        if (seed < 1 << 64) index = 0;
        return bytes32(uint256(keccak256(abi.encode("piece", seed, index))) & TRUNC);
    }

    function hashPair(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return bytes32(uint256(sha256(abi.encodePacked(left, right))) & TRUNC);
    }

    function pieceTree(uint256 seed, uint256 height) internal pure returns (bytes32[][] memory levels) {
        levels = new bytes32[][](height + 1);
        bool equal = seed < 1 << 64;
        for (uint256 level; level <= height; ++level) {
            uint256 width = equal ? 1 : 1 << (height - level);
            levels[level] = new bytes32[](width);
            for (uint256 i; i < width; ++i) {
                if (level == 0) levels[0][i] = pieceLeaf(seed, i);
                else if (equal) levels[level][0] = hashPair(levels[level - 1][0], levels[level - 1][0]);
                else levels[level][i] = hashPair(levels[level - 1][2 * i], levels[level - 1][2 * i + 1]);
            }
        }
    }

    function pieceRootOf(uint256 seed, uint256 height) internal pure returns (bytes32) {
        return pieceTree(seed, height)[height][0];
    }

    /// Leaf value and piece path.
    function openLeaf(uint256 seed, uint256 height, uint256 index) internal pure returns (bytes memory packed) {
        bytes32[][] memory levels = pieceTree(seed, height);
        bool equal = seed < 1 << 64;
        packed = abi.encodePacked(equal ? levels[0][0] : levels[0][index]);
        for (uint256 level; level < height; ++level) {
            packed = bytes.concat(packed, equal ? levels[level][0] : levels[level][(index >> level) ^ 1]);
        }
    }

    /// Consecutive leaves and the siblings that their range lacks: level by level, left before right.
    function openRange(uint256 seed, uint256 height, uint256 first, uint256 count) internal pure returns (bytes memory packed) {
        bytes32[][] memory levels = pieceTree(seed, height);
        bool equal = seed < 1 << 64;
        for (uint256 i; i < count; ++i) {
            packed = bytes.concat(packed, equal ? levels[0][0] : levels[0][first + i]);
        }
        uint256 last = first + count - 1;
        for (uint256 level; level < height; ++level) {
            if (first % 2 == 1) packed = bytes.concat(packed, levels[level][equal ? 0 : first - 1]);
            if (last % 2 == 0) packed = bytes.concat(packed, levels[level][equal ? 0 : last + 1]);
            (first, last) = (first / 2, last / 2);
        }
    }

    function openPiece(IPossession.Leaf memory leaf, uint256 pieceSeed, bytes32 seed, uint256 count)
        internal
        pure
        returns (bytes memory packed)
    {
        bytes32 base = keccak256(abi.encode(seed, leaf.dealId));
        for (uint256 i; i < count; ++i) {
            packed = bytes.concat(packed, openLeaf(pieceSeed, leaf.pieceHeight, uint256(keccak256(abi.encode(base, i))) % leaf.leaves));
        }
    }

    /// One byte string from many, without the quadratic cost of concatenating one by one.
    function join(bytes[] memory parts) internal pure returns (bytes memory whole) {
        uint256 length;
        for (uint256 i; i < parts.length; ++i) {
            length += parts[i].length;
        }
        whole = new bytes(length);
        uint256 at;
        for (uint256 i; i < parts.length; ++i) {
            bytes memory part = parts[i];
            assembly ("memory-safe") {
                mcopy(add(add(whole, 32), at), add(part, 32), mload(part))
            }
            at += part.length;
        }
    }

    // ------------------------------------------------------------------------------------------------ tables

    function hashTableLeaf(IPossession.Leaf memory leaf) internal pure returns (bytes32) {
        if (leaf.leaves == 0) return 0;
        return keccak256(abi.encode(leaf.pieceRoot, leaf.pieceHeight, leaf.leaves, leaf.weight, leaf.dealId));
    }

    function tableTree(IPossession.Leaf[] memory leaves) internal pure returns (Tree memory tree) {
        uint256 depth;
        while (uint256(1) << depth < leaves.length) ++depth;
        tree.hashes = new bytes32[][](depth + 1);
        tree.sums = new uint256[][](depth + 1);
        for (uint256 level; level <= depth; ++level) {
            uint256 width = 1 << (depth - level);
            tree.hashes[level] = new bytes32[](width);
            tree.sums[level] = new uint256[](width);
            for (uint256 i; i < width; ++i) {
                if (level == 0) {
                    if (i >= leaves.length) continue;
                    tree.hashes[0][i] = hashTableLeaf(leaves[i]);
                    tree.sums[0][i] = (uint256(leaves[i].leaves) << 128) | leaves[i].weight;
                } else {
                    (bytes32 l, bytes32 r) = (tree.hashes[level - 1][2 * i], tree.hashes[level - 1][2 * i + 1]);
                    (uint256 ls, uint256 rs) = (tree.sums[level - 1][2 * i], tree.sums[level - 1][2 * i + 1]);
                    tree.hashes[level][i] = keccak256(abi.encodePacked(l, ls, r, rs));
                    tree.sums[level][i] = ls + rs;
                }
            }
        }
    }

    function rootOf(IPossession.Leaf[] memory leaves) internal pure returns (bytes32) {
        Tree memory tree = tableTree(leaves);
        return tree.hashes[tree.hashes.length - 1][0];
    }

    function pathIn(Tree memory tree, uint256 slot) internal pure returns (bytes memory path) {
        for (uint256 level; level + 1 < tree.hashes.length; ++level) {
            uint256 sibling = (slot >> level) ^ 1;
            uint256 sums = tree.sums[level][sibling];
            path = bytes.concat(path, abi.encodePacked(tree.hashes[level][sibling], uint64(sums >> 128), uint128(sums)));
        }
    }

    /// Path of a slot that is filled or appended: with the table grown first where that is needed.
    function tablePath(IPossession.Leaf[] memory leaves, uint256 slot) internal pure returns (bytes memory) {
        if (slot < leaves.length) return pathIn(tableTree(leaves), slot);
        IPossession.Leaf[] memory grown = new IPossession.Leaf[](leaves.length + 1);
        for (uint256 i; i < leaves.length; ++i) {
            grown[i] = leaves[i];
        }
        return pathIn(tableTree(grown), slot);
    }

    // ------------------------------------------------------------------------------------------------ draws

    function turnsOf(uint256 slots, uint256 period, IPossession.Config memory c) internal pure returns (uint256[] memory turns) {
        uint256[] memory found = new uint256[](slots + c.rotationMin);
        uint256 count;
        for (uint256 slot = period % c.rotationPeriods; slot < slots; slot += c.rotationPeriods) {
            found[count++] = slot;
        }
        while (count < c.rotationMin) {
            found[count] = (period + count) % slots;
            ++count;
        }
        turns = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            turns[i] = found[i];
        }
    }

    function drawsOf(
        IPossession.Leaf[] memory leaves,
        IPossession.Config memory c,
        bytes32 seed,
        uint64 operatorId,
        uint64 period,
        uint256 times
    ) internal pure returns (Drawn[] memory drawn) {
        bytes32 base = keccak256(abi.encode(seed, operatorId, period));
        uint256[] memory turns = turnsOf(leaves.length, period, c);
        uint256 bySums = (uint256(c.byBytes) + c.byWeight) * times;
        drawn = new Drawn[](bySums + turns.length * times);
        for (uint256 i; i < drawn.length; ++i) {
            uint256 hash = uint256(keccak256(abi.encode(base, i)));
            if (i < c.byBytes * times) drawn[i] = drawnByBytes(leaves, hash);
            else if (i < bySums) drawn[i] = drawnIn(leaves, slotByWeight(leaves, hash), hash);
            else drawn[i] = drawnIn(leaves, turns[(i - bySums) % turns.length], hash);
        }
    }

    function drawnByBytes(IPossession.Leaf[] memory leaves, uint256 hash) private pure returns (Drawn memory) {
        uint256 total;
        for (uint256 i; i < leaves.length; ++i) {
            total += leaves[i].leaves;
        }
        uint256 r = hash % total;
        uint256 slot;
        while (r >= leaves[slot].leaves) r -= leaves[slot++].leaves;
        return Drawn(slot, r);
    }

    function slotByWeight(IPossession.Leaf[] memory leaves, uint256 hash) private pure returns (uint256 slot) {
        uint256 total;
        for (uint256 i; i < leaves.length; ++i) {
            total += leaves[i].weight;
        }
        uint256 r = hash % total;
        while (r >= leaves[slot].weight) r -= leaves[slot++].weight;
    }

    function drawnIn(IPossession.Leaf[] memory leaves, uint256 slot, uint256 hash) private pure returns (Drawn memory) {
        uint256 again = uint256(keccak256(abi.encode(hash)));
        return Drawn(slot, leaves[slot].leaves == 0 ? 0 : again % leaves[slot].leaves);
    }
}
