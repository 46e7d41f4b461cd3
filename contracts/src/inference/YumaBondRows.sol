// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title The rows of bonds that an epoch leaves behind, each cut to the largest (decision 0019, step 9).
library YumaBondRows {
    uint256 private constant VALUES = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
    uint256 private constant MARKS = 0x0001000000010000000100000001000000010000000100000001000000010000;
    uint256 private constant LOW_VALUES = 0x00007fff00007fff00007fff00007fff00007fff00007fff00007fff00007fff;
    uint256 private constant HIGH_BITS = 0x8000800080008000800080008000800080008000800080008000800080008000;
    uint256 private constant FIRST_VALUE = 0x0000ffff00000000000000000000000000000000000000000000000000000000; // of the entry with which a word begins

    /// @notice Appends a row, with its header and cut to `cap` entries (0: is not), where rows are stored.
    /// @param row its entries, followed by zeros for four words
    /// @param to where to; for 36 bytes more than the row gets long, what stands there is lost
    /// @return next where the next row goes
    function store(uint256 to, uint256 uid, uint256 row, uint256 end, uint256 cap) internal pure returns (uint256 next) {
        uint256 length = end - row;
        if (length == 0) return to;
        if (cap != 0 && length > cap << 2) {
            length = cap << 2;
            _cut(row, end, cap, to + 4);
        } else {
            assembly ("memory-safe") {
                mcopy(add(to, 4), row, length)
            }
        }
        assembly ("memory-safe") {
            mstore8(to, 0)
            mstore8(add(to, 1), uid)
            mstore8(add(to, 2), shr(10, length))
            mstore8(add(to, 3), shr(2, length))
        }
        return to + 4 + length;
    }

    /// @dev Copies the `cap` largest, of equal ones those with the lower uid. Each is written where the next of them goes, and stays there if
    /// it is large enough.
    function _cut(uint256 row, uint256 end, uint256 cap, uint256 to) private pure {
        (uint256 least, uint256 ties) = _leastKept(row, end, cap, to);
        assembly ("memory-safe") {
            least := shl(224, least)
            let mask := FIRST_VALUE
            for {} gt(ties, 3) { row := add(row, 16) } {
                let word := mload(row)
                mstore(to, word)
                word := and(word, mask)
                to := add(to, shl(2, iszero(lt(word, least))))
                ties := sub(ties, eq(word, least))
                word := mload(add(row, 4))
                mstore(to, word)
                word := and(word, mask)
                to := add(to, shl(2, iszero(lt(word, least))))
                ties := sub(ties, eq(word, least))
                word := mload(add(row, 8))
                mstore(to, word)
                word := and(word, mask)
                to := add(to, shl(2, iszero(lt(word, least))))
                ties := sub(ties, eq(word, least))
                word := mload(add(row, 12))
                mstore(to, word)
                word := and(word, mask)
                to := add(to, shl(2, iszero(lt(word, least))))
                ties := sub(ties, eq(word, least))
            }
            for {} ties { row := add(row, 4) } {
                let word := mload(row)
                mstore(to, word)
                word := and(word, mask)
                to := add(to, shl(2, iszero(lt(word, least))))
                ties := sub(ties, eq(word, least))
            }
            // There are enough of the least: it is too small from here on. Behind the end stand zeros, which are too small.
            for {} lt(row, end) { row := add(row, 16) } {
                let word := mload(row)
                mstore(to, word)
                to := add(to, shl(2, gt(and(word, mask), least)))
                word := mload(add(row, 4))
                mstore(to, word)
                to := add(to, shl(2, gt(and(word, mask), least)))
                word := mload(add(row, 8))
                mstore(to, word)
                to := add(to, shl(2, gt(and(word, mask), least)))
                word := mload(add(row, 12))
                mstore(to, word)
                to := add(to, shl(2, gt(and(word, mask), least)))
            }
        }
    }

    /// @dev Found by halving: first without the lowest bit, sixteen values to a word, then among two values, eight to a word.
    /// @param room for the words of sixteen
    /// @return least all values above it are kept
    /// @return ties how many entries of that value are kept
    function _leastKept(uint256 row, uint256 end, uint256 cap, uint256 room) private pure returns (uint256 least, uint256 ties) {
        uint256 above;
        (least, above, ties) = _halveSixteen(room, _pack(row, end, room), cap);
        assembly ("memory-safe") {
            let values := VALUES
            let marks := MARKS
            for {} gt(above, add(least, 1)) {} {
                let middle := shr(1, add(least, above))
                // Each lane of 32 bits gets bit 16 where its value is large enough.
                let found := 0
                let lift := sub(marks, mul(middle, shr(16, marks)))
                for { let p := row } lt(p, end) { p := add(p, 128) } {
                    found := add(
                        add(
                            add(found, and(add(and(mload(p), values), lift), marks)),
                            and(add(and(mload(add(p, 32)), values), lift), marks)
                        ),
                        add(and(add(and(mload(add(p, 64)), values), lift), marks), and(add(and(mload(add(p, 96)), values), lift), marks))
                    )
                }
                found := shr(224, mul(shr(16, found), shr(16, marks)))
                switch lt(found, cap)
                case 0 { least := middle }
                default {
                    above := middle
                    ties := sub(cap, found)
                }
            }
        }
    }

    /// @dev Values without their lowest bit, in lanes of sixteen bits; zeros for two words behind them.
    /// @return to end of the words
    function _pack(uint256 row, uint256 end, uint256 room) private pure returns (uint256 to) {
        assembly ("memory-safe") {
            let mask := LOW_VALUES
            to := room
            for {} lt(row, end) { row := add(row, 64) } {
                mstore(to, or(shl(16, and(shr(1, mload(row)), mask)), and(shr(1, mload(add(row, 32))), mask)))
                to := add(to, 32)
            }
            mstore(to, 0)
            mstore(add(to, 32), 0)
        }
    }

    function _halveSixteen(uint256 row, uint256 end, uint256 cap) private pure returns (uint256 least, uint256 above, uint256 ties) {
        (above, ties) = (0x10000, cap);
        assembly ("memory-safe") {
            let marks := HIGH_BITS
            let ones := shr(15, marks)
            for {} gt(above, add(least, 2)) {} {
                let middle := and(shr(1, add(least, above)), 0xfffe)
                // The highest bit of a lane where its value is large enough.
                let found := 0
                let lift := sub(marks, mul(shr(1, middle), ones))
                for { let p := row } lt(p, end) { p := add(p, 64) } {
                    found := add(found, add(shr(15, and(add(mload(p), lift), marks)), shr(15, and(add(mload(add(p, 32)), lift), marks))))
                }
                found := shr(240, mul(found, ones))
                switch lt(found, cap)
                case 0 {
                    least := middle
                    if eq(found, cap) {
                        // These are they, all above the number before.
                        above := middle
                        least := sub(middle, 1)
                        ties := 0
                        break
                    }
                }
                default {
                    above := middle
                    ties := sub(cap, found)
                }
            }
        }
    }
}
