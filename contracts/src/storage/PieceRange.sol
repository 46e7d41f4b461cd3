// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title PieceRange: the root of a piece from consecutive leaves and the siblings that their range lacks.
/// @notice Node rule as in PossessionProof: SHA-256 of the halves with the two highest bits of the last byte cleared.
library PieceRange {
    bytes32 private constant NODE_MASK = 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff3f;

    error RangeTooShort(uint256 got, uint256 needed);

    /// @param answer `count` leaves, then siblings, 32 bytes each: level by level upwards, the left one before the right one
    /// @return root of the tree of 2^height leaves
    /// @return used bytes of `answer`
    function rootOf(bytes calldata answer, uint256 height, uint256 first, uint256 count) internal pure returns (bytes32 root, uint256 used) {
        if (answer.length < count << 5) revert RangeTooShort(answer.length, count << 5);
        bytes32[] memory row = new bytes32[](count);
        for (uint256 i; i < count; ++i) row[i] = _word(answer, i << 5);
        used = count << 5;
        for (uint256 level; level < height; ++level) {
            uint256 made;
            uint256 read;
            if (first & 1 == 1) {
                row[made++] = _node(_word(answer, used), row[read++]);
                used += 32;
            }
            for (; read + 1 < count; read += 2) row[made++] = _node(row[read], row[read + 1]);
            if (read < count) {
                row[made++] = _node(row[read], _word(answer, used));
                used += 32;
            }
            (first, count) = (first >> 1, made);
        }
        return (row[0], used);
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(left, right)) & NODE_MASK;
    }

    function _word(bytes calldata answer, uint256 at) private pure returns (bytes32) {
        if (answer.length < at + 32) revert RangeTooShort(answer.length, at + 32);
        return bytes32(answer[at:at + 32]);
    }
}
