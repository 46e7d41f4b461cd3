// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title The numbers of Yuma consensus: unsigned Q32 (x stands for x / 2^32), every product and quotient rounded down, x / 0 = 0 (decision 0019).
/// @dev Callers keep values at most ONE and sums at most 512 ONE, so nothing here can overflow. Vectors are words one after another in memory, given
/// by the address of the first word.
library YumaNumbers {
    uint256 internal constant ONE = 1 << 32;

    function mul(uint256 a, uint256 b) internal pure returns (uint256 result) {
        assembly ("memory-safe") {
            result := shr(32, mul(a, b))
        }
    }

    /// @dev The EVM's division by zero gives zero, which is the rule.
    function div(uint256 a, uint256 b) internal pure returns (uint256 result) {
        assembly ("memory-safe") {
            result := div(shl(32, a), b)
        }
    }

    function fromU16(uint256 value) internal pure returns (uint256) {
        return (value << 32) / 65_535;
    }

    function toU16(uint256 x) internal pure returns (uint256) {
        return (x * 65_535) >> 32;
    }

    /// @notice Memory for `count` words, all zero, and before them their number, so that they can be handed on as an array (`arrayOf`).
    function zeros(uint256 count) internal pure returns (uint256 first) {
        assembly ("memory-safe") {
            first := add(mload(0x40), 32)
            mstore(sub(first, 32), count)
            calldatacopy(first, calldatasize(), shl(5, count))
            mstore(0x40, add(first, shl(5, count)))
        }
    }

    /// @notice The vector that `zeros` made, as an array; nothing is copied.
    function arrayOf(uint256 first) internal pure returns (uint256[] memory array) {
        assembly ("memory-safe") {
            array := sub(first, 32)
        }
    }

    function sum(uint256 first, uint256 count) internal pure returns (uint256 total) {
        assembly ("memory-safe") {
            let end := add(first, shl(5, count))
            for { let p := first } lt(p, end) { p := add(p, 32) } { total := add(total, mload(p)) }
        }
    }

    /// @notice Divides each word by their sum. The words may be any below 2^192.
    /// @return total the sum after it
    function normalise(uint256 first, uint256 count) internal pure returns (uint256 total) {
        uint256 all = sum(first, count);
        assembly ("memory-safe") {
            let end := add(first, shl(5, count))
            for { let p := first } lt(p, end) { p := add(p, 32) } {
                let x := mload(p)
                if x {
                    x := div(shl(32, x), all)
                    mstore(p, x)
                    total := add(total, x)
                }
            }
        }
    }

    /// @notice Sorts at most 256 words below 2^255: each is inserted where a search by halves finds its place, so that no order is dear.
    /// @dev The sorted words grow behind `end`, where there must be room for 260 words.
    /// @return sorted the first of them, the least
    /// @return sortedEnd end of the last
    function sort(uint256 first, uint256 end) internal pure returns (uint256 sorted, uint256 sortedEnd) {
        sorted = end + 32;
        sortedEnd = sorted;
        _pad(sorted, (end - first) >> 5);
        assembly ("memory-safe") {
            for {} lt(first, end) { first := add(first, 32) } {
                let x := mload(first)
                let p := sub(sorted, 32)
                if gt(sub(sortedEnd, sorted), 480) {
                    if gt(sub(sortedEnd, sorted), 2016) {
                        p := add(p, shl(12, lt(mload(add(p, 4096)), x)))
                        p := add(p, shl(11, lt(mload(add(p, 2048)), x)))
                    }
                    p := add(p, shl(10, lt(mload(add(p, 1024)), x)))
                    p := add(p, shl(9, lt(mload(add(p, 512)), x)))
                }
                p := add(p, shl(8, lt(mload(add(p, 256)), x)))
                p := add(p, shl(7, lt(mload(add(p, 128)), x)))
                p := add(p, shl(6, lt(mload(add(p, 64)), x)))
                p := add(add(p, shl(5, lt(mload(add(p, 32)), x))), 32)
                mcopy(add(p, 32), p, sub(sortedEnd, p))
                mstore(p, x)
                sortedEnd := add(sortedEnd, 32)
            }
        }
    }

    /// @dev Writes what is greater than any word, up to where a search among fewer than `count` words may look.
    function _pad(uint256 list, uint256 count) private pure {
        assembly ("memory-safe") {
            mstore(list, not(0))
            let room := 512
            if gt(count, 16) { room := 2048 }
            if gt(count, 64) { room := 8192 }
            for { let size := 32 } lt(size, room) { size := shl(1, size) } { mcopy(add(list, size), list, size) }
        }
    }
}
