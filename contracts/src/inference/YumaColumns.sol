// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title What the validators think of each miner (decision 0019, steps 5 to 7).
/// @notice Rows come in calldata, in order of their validators: uid:u16 count:u16, then count entries uid:u16 value:u16 with ascending uids.
/// They are turned into columns: for each miner a list of cells weight:Q32 << 64 | bond:u16 << 16 | validator's uid, one for each validator
/// that has a weight on it or a bond with it. One word lies before each column and matches no validator.
library YumaColumns {
    uint256 private constant NOBODY = 0xffff;
    uint256 private constant END = 0x10000; // above any uid

    error RowsCutShort(uint256 position, uint256 length);
    error RowsNotAscending(uint256 uid, uint256 least);
    error UidsNotAscending(uint256 rowUid, uint256 uid);

    /// @notice Makes room for the columns of all rows that can count.
    function open(YumaFrame memory f) internal pure {
        uint256 rows;
        for (uint256 set = f.inForce; set != 0; set &= set - 1) {
            ++rows;
        }
        f.stride = (rows + 1) << 5;
        f.nextAt = YumaNumbers.zeros(f.count);
        (uint256 next, uint256 n, uint256 stride, uint256 cells) = (f.nextAt, f.count, f.stride, 0);
        assembly ("memory-safe") {
            cells := add(mload(0x40), 32)
            let p := cells
            for { let end := add(next, shl(5, n)) } lt(next, end) { next := add(next, 32) } {
                mstore(sub(p, 32), NOBODY)
                mstore(next, p)
                p := add(p, stride)
            }
            mstore(0x40, p)
        }
        f.cellsAt = cells;
    }

    /// @notice Puts the rows in force into the columns, validator by validator: weights masked and normalised, bonds without those that are
    /// forgotten.
    function load(YumaFrame memory f, bytes calldata weights, bytes calldata bonds) internal pure {
        uint256 from;
        uint256 bondsFrom;
        (uint256 uid, uint256 to) = _row(weights, 0, 0);
        (uint256 bondsUid, uint256 bondsTo) = _row(bonds, 0, 0);
        while (uid != END || bondsUid != END) {
            if (uid <= bondsUid) {
                if (uid < f.count && (f.inForce >> uid) & 1 == 1) _addWeights(f, uid, weights[from + 4:to]);
                from = to;
                (uid, to) = _row(weights, from, uid + 1);
            } else {
                if (bondsUid < f.count && (f.inForce >> bondsUid) & 1 == 1) _addBonds(f, bondsUid, bonds[bondsFrom + 4:bondsTo]);
                bondsFrom = bondsTo;
                (bondsUid, bondsTo) = _row(bonds, bondsFrom, bondsUid + 1);
            }
        }
    }

    /// @notice Consensus of each miner, and with it rank and trust.
    function agree(YumaFrame memory f) internal pure {
        for (uint256 j; j < f.count; ++j) {
            uint256 cells = f.cellsAt + j * f.stride;
            uint256 end;
            uint256 next = f.nextAt;
            assembly ("memory-safe") {
                end := mload(add(next, shl(5, j)))
            }
            if (cells == end) continue;
            uint256 consensus = _median(f, cells, end);
            if (consensus != 0) _rank(f, j, consensus, cells, end);
        }
    }

    /// @return uid validator of the row at `at`, or END
    /// @return to where it ends
    function _row(bytes calldata rows, uint256 at, uint256 least) private pure returns (uint256 uid, uint256 to) {
        if (at == rows.length) return (END, at);
        assembly ("memory-safe") {
            to := shr(224, calldataload(add(rows.offset, at)))
            uid := shr(16, to)
            to := add(add(at, 4), shl(2, and(to, 0xffff)))
        }
        if (to > rows.length) revert RowsCutShort(at, rows.length);
        if (uid < least) revert RowsNotAscending(uid, least);
    }

    /// @dev Copies the entries that count to f.spareAt.
    function _mask(YumaFrame memory f, uint256 row, bytes calldata entries) private pure returns (uint256 end, uint256 sum) {
        uint256 least;
        assembly ("memory-safe") {
            let uids := mload(add(f, 0x20))
            let n := mload(f)
            let self := row
            if eq(row, mload(add(f, 0x40))) { self := NOBODY }
            // When the opinion was formed: the last update, or the commit if that is earlier.
            let time := calldataload(add(uids, shl(5, row)))
            {
                let committed := and(shr(8, time), 0xffffffffff)
                time := and(shr(88, time), 0xffffffffff)
                if and(iszero(iszero(committed)), lt(committed, time)) { time := committed }
            }
            end := mload(add(f, 0x220))
            let from := entries.offset
            for { let to := add(from, entries.length) } lt(from, to) { from := add(from, 4) } {
                let entry := shr(224, calldataload(from))
                let uid := shr(16, entry)
                if lt(uid, least) {
                    least := or(entry, 0x100000000)
                    break
                }
                least := add(uid, 1)
                if iszero(lt(uid, n)) { continue }
                if or(iszero(and(entry, 0xffff)), eq(uid, self)) { continue }
                if gt(time, and(shr(48, calldataload(add(uids, shl(5, uid)))), 0xffffffffff)) {
                    mstore(end, entry)
                    end := add(end, 32)
                    sum := add(sum, and(entry, 0xffff))
                }
            }
        }
        if (least > END) revert UidsNotAscending(row, uint16(least >> 16));
    }

    function _addWeights(YumaFrame memory f, uint256 row, bytes calldata entries) private pure {
        (uint256 end, uint256 sum) = _mask(f, row, entries);
        assembly ("memory-safe") {
            let next := mload(add(f, 0x100))
            for { let p := mload(add(f, 0x220)) } lt(p, end) { p := add(p, 32) } {
                let entry := mload(p)
                let column := add(next, shl(5, shr(16, entry)))
                let cell := mload(column)
                mstore(cell, or(shl(64, div(shl(32, and(entry, 0xffff)), sum)), row))
                mstore(column, add(cell, 32))
            }
        }
    }

    function _addBonds(YumaFrame memory f, uint256 row, bytes calldata entries) private pure {
        uint256 least;
        assembly ("memory-safe") {
            let uids := mload(add(f, 0x20))
            let n := mload(f)
            let next := mload(add(f, 0x100))
            let last := mload(add(f, 0x60))
            let from := entries.offset
            for { let to := add(from, entries.length) } lt(from, to) { from := add(from, 4) } {
                let entry := shr(224, calldataload(from))
                let uid := shr(16, entry)
                if lt(uid, least) {
                    least := or(entry, 0x100000000)
                    break
                }
                least := add(uid, 1)
                if iszero(lt(uid, n)) { continue }
                let bond := and(entry, 0xffff)
                if iszero(bond) { continue }
                // Forgotten where the miner is newer than the bond.
                if iszero(lt(and(shr(48, calldataload(add(uids, shl(5, uid)))), 0xffffffffff), last)) { continue }
                let column := add(next, shl(5, uid))
                let cell := mload(column)
                let before := mload(sub(cell, 32))
                switch eq(and(before, 0xffff), row)
                case 0 {
                    mstore(cell, or(shl(16, bond), row))
                    mstore(column, add(cell, 32))
                }
                default { mstore(sub(cell, 32), or(before, shl(16, bond))) }
            }
        }
        if (least > END) revert UidsNotAscending(row, uint16(least >> 16));
    }

    /// @return consensus the least weight such that the stake behind weights up to it exceeds the minority
    function _median(YumaFrame memory f, uint256 cells, uint256 end) private pure returns (uint256 consensus) {
        uint256 first = f.spareAt;
        uint256 count;
        uint256 below; // stake behind weights looked at so far; at first of those that give no weight
        assembly ("memory-safe") {
            let active := mload(add(f, 0xa0))
            below := mload(add(f, 0xc0))
            let p := first
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let stake := mload(add(active, shl(5, and(cell, 0xffff))))
                let weight := shr(64, cell)
                if mul(stake, weight) {
                    mstore(p, or(shl(64, weight), stake))
                    p := add(p, 32)
                    below := sub(below, stake)
                }
            }
            count := shr(5, sub(p, first))
        }
        uint256 minority = f.minority;
        if (count == 0 || below > minority) return 0;
        first = YumaNumbers.sort(first, count, first + (count << 5));
        assembly ("memory-safe") {
            for {} iszero(gt(below, minority)) { first := add(first, 32) } {
                consensus := mload(first)
                below := add(below, and(consensus, 0xffffffffffffffff))
            }
            consensus := shr(64, consensus)
        }
    }

    function _rank(YumaFrame memory f, uint256 column, uint256 consensus, uint256 cells, uint256 end) private pure {
        assembly ("memory-safe") {
            let active := mload(add(f, 0xa0))
            let trust := mload(add(f, 0x180))
            let rank := 0
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let weight := shr(64, cell)
                if weight {
                    if gt(weight, consensus) { weight := consensus }
                    let row := shl(5, and(cell, 0xffff))
                    rank := add(rank, shr(32, mul(mload(add(active, row)), weight)))
                    row := add(trust, row)
                    mstore(row, add(mload(row), weight))
                }
            }
            mstore(add(mload(add(f, 0x160)), shl(5, column)), consensus)
            mstore(add(mload(add(f, 0x1a0)), shl(5, column)), rank)
        }
    }
}
