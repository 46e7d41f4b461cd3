// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "./IPossession.sol";
import {PieceTable} from "./PieceTable.sol";

/// @title PossessionProof: the draws of a period and the packed openings that answer them.
/// @notice The same rules are in src/storage/possession/draws.ts and proof.ts.
///
/// DRAWS. base = keccak256(abi.encode(seed, operatorId, period)); draw i has hash h = keccak256(abi.encode(base, i)), i counted over
/// all openings of one table in the order bytes, weight, turn:
/// - bytes:  r = h mod leaves of the table; the slot with before <= r < before + leaves of the slot; leaf index r - before
/// - weight: r = h mod weight of the table; the slot likewise by weight; leaf index keccak256(h) mod leaves of the slot
/// - turn:   the slot is fixed; leaf index keccak256(h) mod leaves of the slot; an empty slot is proven empty
/// A 256-bit hash mod n favours no value by more than n / 2^256; n < 2^64 for leaves and < 2^128 for weight, so the bias is below
/// 2^-128 and no adversary can use it.
/// Turn j of period p, R = rotationPeriods, phase = p mod R: the slots phase + R * j below `slots`, n of them; when n < rotationMin
/// turns n <= j < rotationMin are the slots (p + j) mod slots. With `times` = 2 each of the three parts is twice as long and turn j is
/// taken mod its single length.
///
/// OPENING of a table slot (packed, no padding): slot (4) ++ flag (1) ++ [leaf: pieceRoot (32) ++ pieceHeight (1) ++ leaves (8) ++
/// weight (16) ++ dealId (8)] ++ table path (depth * 56) ++ [leaf value (32) ++ piece path (pieceHeight * 32)].
/// flag 0: everything; 1: the slot is empty (turns only), no leaf, no piece part; 2: the deal is over (open misses only), no piece part.
/// A proof is the openings of the period, then those of the oldest open miss.
///
/// PIECE PROOF (activation, challenge, recovery): count times leaf value (32) ++ piece path (pieceHeight * 32);
/// base = keccak256(abi.encode(seed, dealId)), index i = keccak256(abi.encode(base, i)) mod leaves.
library PossessionProof {
    uint256 internal constant FULL = 0;
    uint256 internal constant EMPTY = 1;
    uint256 internal constant OVER = 2;
    /// 2^32 leaves are 128 GiB; bounds the length of an opening.
    uint256 internal constant MAX_PIECE_HEIGHT = 32;
    uint256 internal constant HEAD_BYTES = 5;
    uint256 internal constant LEAF_BYTES = 65;

    /// What a table must answer for one period.
    struct Plan {
        bytes32 base;
        bytes32 root;
        uint256 leaves;
        uint256 weight;
        uint256 slots;
        uint256 depth;
        uint256 period;
        uint256 rotationPeriods;
        uint256 byBytes;
        uint256 byWeightEnd; // openings before it are by bytes or weight
        uint256 turns;
        uint256 openings;
        bool late; // an open miss: deals that are over need no piece part
    }

    function baseOf(bytes32 seed, uint256 operatorId, uint256 period) internal pure returns (bytes32) {
        return keccak256(abi.encode(seed, operatorId, period));
    }

    /// @notice keccak256(abi.encode(base, index)).
    function draw(bytes32 base, uint256 index) internal pure returns (uint256 hash) {
        assembly ("memory-safe") {
            mstore(0x00, base)
            mstore(0x20, index)
            hash := keccak256(0x00, 0x40)
        }
    }

    function redraw(uint256 hash) internal pure returns (uint256 again) {
        assembly ("memory-safe") {
            mstore(0x00, hash)
            again := keccak256(0x00, 0x20)
        }
    }

    /// @notice Number of slots whose turn it is in `period`.
    function regularTurns(uint256 slots, uint256 period, uint256 rotationPeriods) internal pure returns (uint256) {
        uint256 phase = period % rotationPeriods;
        return phase < slots ? (slots - phase - 1) / rotationPeriods + 1 : 0;
    }

    function turnSlot(uint256 turn, uint256 slots, uint256 period, uint256 rotationPeriods) internal pure returns (uint256) {
        uint256 slot = (period % rotationPeriods) + rotationPeriods * turn;
        return slot < slots ? slot : (period + turn) % slots;
    }

    /// @notice Root of a piece from the leaf at `index`: leaf value and `height` siblings at calldata position `cursor`.
    /// A node is SHA-256 of its halves with the two highest bits of the last byte cleared (Filecoin's CommP tree).
    function pieceRoot(uint256 cursor, uint256 height, uint256 index) internal view returns (bytes32 node) {
        assembly ("memory-safe") {
            node := calldataload(cursor)
            cursor := add(cursor, 32)
            for { let end := add(cursor, shl(5, height)) } lt(cursor, end) { cursor := add(cursor, 32) } {
                let side := shl(5, and(index, 1))
                mstore(side, node)
                mstore(xor(side, 32), calldataload(cursor))
                if iszero(staticcall(gas(), 2, 0x00, 0x40, 0x00, 0x20)) { revert(0, 0) }
                node := and(mload(0x00), 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff3f)
                index := shr(1, index)
            }
        }
    }

    /// @notice Reads the 65 bytes of a packed leaf.
    function readLeaf(uint256 cursor, IPossession.Leaf memory leaf) internal pure {
        assembly ("memory-safe") {
            mstore(leaf, calldataload(cursor))
            let rest := calldataload(add(cursor, 32)) // height (1) leaves (8) weight (16) and 7 of 8 bytes of dealId
            mstore(add(leaf, 32), shr(248, rest))
            mstore(add(leaf, 64), and(shr(184, rest), 0xffffffffffffffff))
            mstore(add(leaf, 96), and(shr(56, rest), 0xffffffffffffffffffffffffffffffff))
            mstore(add(leaf, 128), and(calldataload(add(cursor, 33)), 0xffffffffffffffff))
        }
    }
}
