// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "./IPossession.sol";

/// @title PieceTable: hashing of the Merkle sum tree that holds an operator's pieces.
/// @notice `sums` is uint256(leaves) << 128 | weight. A path has one sibling per level, from the bottom, 56 bytes each:
/// hash (32) ++ leaves (8) ++ weight (16). An empty slot is the hash 0 with sums 0; a node of two empty halves is hashed like any other.
/// Leaves are hashed from 160 bytes and nodes from 128, so that one cannot stand for the other.
library PieceTable {
    uint256 internal constant SIBLING_BYTES = 56;

    /// @notice keccak256(abi.encode(pieceRoot, pieceHeight, leaves, weight, dealId)).
    function hashLeaf(IPossession.Leaf memory leaf) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            hash := keccak256(leaf, 160) // five words in memory, as abi.encode lays them out
        }
    }

    function sumsOf(uint64 leaves, uint128 weight) internal pure returns (uint256) {
        return (uint256(leaves) << 128) | weight;
    }

    /// @notice Hash of an empty subtree of `depth` levels.
    function emptyRoot(uint256 depth) internal pure returns (bytes32 hash) {
        for (; depth > 0; --depth) hash = hashNode(hash, 0, hash, 0);
    }

    function hashNode(bytes32 left, uint256 leftSums, bytes32 right, uint256 rightSums) internal pure returns (bytes32) {
        return keccak256(abi.encode(left, leftSums, right, rightSums));
    }

    /// @notice Climbs from a slot to the root along `depth` siblings at calldata position `cursor`.
    /// @return root hash reached
    /// @return before sums of all slots left of this one
    function climb(bytes32 node, uint256 sums, uint256 slot, uint256 depth, uint256 cursor)
        internal
        pure
        returns (bytes32 root, uint256 before)
    {
        assembly ("memory-safe") {
            // Left hash, left sums, right hash, right sums at 0x00..0x7f; the free pointer and the zero word are put back below.
            let free := mload(0x40)
            root := node
            for { let end := add(cursor, mul(depth, 56)) } lt(cursor, end) { cursor := add(cursor, 56) } {
                let own := shl(6, and(slot, 1))
                let other := xor(own, 64)
                let siblingSums := and(calldataload(add(cursor, 24)), 0xffffffffffffffffffffffffffffffffffffffffffffffff)
                mstore(own, root)
                mstore(add(own, 32), sums)
                mstore(other, calldataload(cursor))
                mstore(add(other, 32), siblingSums)
                if own { before := add(before, siblingSums) }
                sums := add(sums, siblingSums)
                root := keccak256(0x00, 0x80)
                slot := shr(1, slot)
            }
            mstore(0x40, free)
            mstore(0x60, 0)
        }
    }
}
