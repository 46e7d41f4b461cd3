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

    /// @notice Memory for `count` words, all zero.
    function zeros(uint256 count) internal pure returns (uint256 first) {
        assembly ("memory-safe") {
            first := mload(0x40)
            calldatacopy(first, calldatasize(), shl(5, count))
            mstore(0x40, add(first, shl(5, count)))
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

    /// @notice Sorts words into ascending order: insertion within runs of four, then merges, so that no order of them is dear.
    /// @param spare memory for as many words
    /// @return sorted `first` or `spare`
    function sort(uint256 first, uint256 count, uint256 spare) internal pure returns (uint256 sorted) {
        uint256 size = count << 5;
        sorted = first;
        _sortRuns(first, size);
        for (uint256 width = 128; width < size; width <<= 1) {
            _mergeRuns(sorted, size, spare, width);
            (sorted, spare) = (spare, sorted);
        }
    }

    function _sortRuns(uint256 first, uint256 size) private pure {
        assembly ("memory-safe") {
            let end := add(first, size)
            for { let run := first } lt(run, end) { run := add(run, 128) } {
                let runEnd := add(run, 128)
                if gt(runEnd, end) { runEnd := end }
                for { let p := add(run, 32) } lt(p, runEnd) { p := add(p, 32) } {
                    let x := mload(p)
                    let q := p
                    for {} gt(q, run) {} {
                        let y := mload(sub(q, 32))
                        if iszero(gt(y, x)) { break }
                        mstore(q, y)
                        q := sub(q, 32)
                    }
                    mstore(q, x)
                }
            }
        }
    }

    /// @dev Merges each pair of sorted neighbours of `width` bytes out of `first` into `to`.
    function _mergeRuns(uint256 first, uint256 size, uint256 to, uint256 width) private pure {
        assembly ("memory-safe") {
            let end := add(first, size)
            for { let a := first } lt(a, end) {} {
                let aEnd := add(a, width)
                let b := aEnd
                let bEnd := add(b, width)
                if gt(aEnd, end) { aEnd := end }
                if gt(bEnd, end) { bEnd := end }
                for {} and(lt(a, aEnd), lt(b, bEnd)) { to := add(to, 32) } {
                    let x := mload(a)
                    let y := mload(b)
                    switch gt(x, y)
                    case 0 {
                        mstore(to, x)
                        a := add(a, 32)
                    }
                    default {
                        mstore(to, y)
                        b := add(b, 32)
                    }
                }
                let left := sub(aEnd, a)
                if lt(a, aEnd) {
                    mcopy(to, a, left)
                    to := add(to, left)
                }
                if lt(b, bEnd) {
                    left := sub(bEnd, b)
                    mcopy(to, b, left)
                    to := add(to, left)
                }
                a := bEnd
            }
        }
    }
}
