// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeHealth} from "./IComputeHealth.sol";

/// @title The figures of an hour as a Merkle tree over chunks of 64, and their total (IComputeHealth says the form).
library FigureTree {
    uint256 internal constant FIGURE_BYTES = 8;
    uint256 internal constant CHUNK_SEATS = 64;
    uint256 private constant CHUNK_BYTES = FIGURE_BYTES * CHUNK_SEATS;

    /// @notice Root and total of all figures; no figures have a root too.
    function build(bytes calldata figures) internal pure returns (bytes32 root, uint64 total) {
        total = _totalOf(figures);
        uint256 leaves = _chunksOf(figures.length / FIGURE_BYTES);
        bytes32[] memory level = new bytes32[](_widthOf(leaves));
        for (uint256 i; i < leaves; ++i) {
            uint256 end = (i + 1) * CHUNK_BYTES;
            level[i] = _leafOf(figures[i * CHUNK_BYTES:end < figures.length ? end : figures.length]);
        }
        for (uint256 width = level.length; width > 1; width /= 2) {
            for (uint256 i; i < width; i += 2) {
                level[i / 2] = _nodeOf(level[i], level[i + 1]);
            }
        }
        root = level[0];
    }

    /// @notice A seat's figure in a tree over `seats`; `isThere` is false when the opening is not of this root.
    function open(bytes32 root, uint256 seats, uint256 seat, IComputeHealth.Opening calldata opening)
        internal
        pure
        returns (bool isThere, uint64 figure)
    {
        uint256 index = seat / CHUNK_SEATS;
        uint256 inChunk = seat % CHUNK_SEATS;
        uint256 width = _widthOf(_chunksOf(seats));
        if (seat >= seats || opening.chunk.length < (inChunk + 1) * FIGURE_BYTES || 1 << opening.proof.length != width) return (false, 0);
        bytes32 node = _leafOf(opening.chunk);
        for (uint256 i; i < opening.proof.length; ++i) {
            bytes32 other = opening.proof[i];
            node = index >> i & 1 == 0 ? _nodeOf(node, other) : _nodeOf(other, node);
        }
        return (node == root, uint64(bytes8(opening.chunk[inChunk * FIGURE_BYTES:])));
    }

    /// Fits: 2^15 seats of 2^48.
    function _totalOf(bytes calldata figures) private pure returns (uint64 total) {
        assembly ("memory-safe") {
            let end := add(figures.offset, figures.length)
            for { let at := figures.offset } lt(at, end) { at := add(at, FIGURE_BYTES) } { total := add(total, shr(208, calldataload(at))) }
        }
    }

    function _chunksOf(uint256 seats) private pure returns (uint256) {
        return (seats + CHUNK_SEATS - 1) / CHUNK_SEATS;
    }

    function _widthOf(uint256 leaves) private pure returns (uint256 width) {
        for (width = 1; width < leaves; width *= 2) {}
    }

    function _leafOf(bytes calldata chunk) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x00), chunk));
    }

    function _nodeOf(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
