// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title The rows of bonds that an epoch leaves behind: of uids with a new permit only, each cut to the largest (decision 0019, step 9).
library YumaBondRows {
    uint256 private constant VALUES = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
    uint256 private constant MARKS = 0x0001000000010000000100000001000000010000000100000001000000010000;

    /// @notice Makes room for them: each as long as it can get, and zeros for four words behind it.
    function open(YumaFrame memory f) internal pure {
        f.outAt = YumaNumbers.zeros(f.count);
        (uint256 set, uint256 out, uint256 size) = (f.permits & f.inForce, f.outAt, _size(f));
        uint256 room;
        assembly ("memory-safe") {
            room := mload(0x40)
        }
        f.roomAt = room;
        for (; set != 0; set >>= 1) {
            if (set & 1 == 1) {
                assembly ("memory-safe") {
                    mstore(out, room)
                }
                room += size;
            }
            out += 32;
        }
        assembly ("memory-safe") {
            mstore(0x40, room)
        }
    }

    /// @notice Cuts the rows to `cap` entries (0: does not) and moves them together, in the form in which rows come in.
    function close(YumaFrame memory f, uint256 cap) internal pure returns (bytes memory rows) {
        (uint256 set, uint256 size, uint256 out, uint256 row) = (f.permits & f.inForce, _size(f), f.outAt, f.roomAt);
        uint256 to;
        assembly ("memory-safe") {
            rows := mload(0x40)
            to := add(rows, 32)
        }
        for (uint256 uid; set >> uid != 0; ++uid) {
            if ((set >> uid) & 1 == 0) continue;
            uint256 end;
            assembly ("memory-safe") {
                end := mload(add(out, shl(5, uid)))
            }
            uint256 length = end - row;
            if (cap != 0 && length > cap << 2) {
                length = cap << 2;
                cut(row, end, cap, to + 4);
            } else {
                assembly ("memory-safe") {
                    mcopy(add(to, 4), row, length)
                }
            }
            if (length != 0) {
                writeHead(to, uid, length);
                to += 4 + length;
            }
            row += size;
        }
        assembly ("memory-safe") {
            mstore(rows, sub(to, add(rows, 32)))
            mstore(to, 0)
            mstore(0x40, and(add(to, 63), not(31)))
        }
    }

    /// @notice Writes the header of a row of `length` bytes before it.
    function writeHead(uint256 to, uint256 uid, uint256 length) internal pure {
        assembly ("memory-safe") {
            mstore8(to, 0)
            mstore8(add(to, 1), uid)
            mstore8(add(to, 2), shr(10, length))
            mstore8(add(to, 3), shr(2, length))
        }
    }

    /// @dev Bytes of room for a row.
    function _size(YumaFrame memory f) private pure returns (uint256) {
        return (f.count << 2) + 128;
    }

    /// @notice Copies the `cap` largest, of equal ones those with the lower uid. The row is longer, and followed by zeros for four words.
    function cut(uint256 row, uint256 end, uint256 cap, uint256 to) internal pure {
        (uint256 least, uint256 ties) = _leastKept(row, end, cap);
        assembly ("memory-safe") {
            let more := sub(least, 1)
            for {} lt(row, end) { row := add(row, 4) } {
                let word := mload(row)
                let value := and(shr(224, word), 0xffff)
                if gt(value, more) {
                    if eq(value, least) {
                        // When there are enough of them, their value is too small from here on.
                        ties := sub(ties, 1)
                        if iszero(ties) { more := least }
                    }
                    mstore(to, word)
                    to := add(to, 4)
                }
            }
        }
    }

    /// @return least the greatest value that at least `cap` entries reach, found by halving, 32 entries at a time
    /// @return ties how many entries of that value are kept
    function _leastKept(uint256 row, uint256 end, uint256 cap) private pure returns (uint256 least, uint256 ties) {
        uint256 above = 0x10000;
        ties = cap;
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
}
