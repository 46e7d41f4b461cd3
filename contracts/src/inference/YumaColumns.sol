// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title What the validators think of each miner (decision 0019, steps 5 to 7).
/// @notice Rows come in calldata, in order of their validators: uid:u16 count:u16, then count entries uid:u16 value:u16 with ascending uids.
/// They are turned into columns: for each miner a list of cells of eight bytes, weight:Q32 << 25 | bond:u16 << 9 | validator's uid, one for
/// each validator that has a weight on it or a bond with it. Before each column lies a cell that matches no validator, behind it room for
/// the rest of the word with which its last cell is written.
library YumaColumns {
    uint256 private constant NOBODY = 0x1ff;
    uint256 private constant LIST_END = 0xffff; // as YumaPairs.END
    uint256 internal constant END = 0x10000; // above any uid

    error RowsCutShort(uint256 position, uint256 length);
    error RowsNotAscending(uint256 uid, uint256 least);
    error UidsNotAscending(uint256 rowUid);

    /// @notice Makes room for the columns of all rows that can count.
    function open(YumaFrame memory f) internal pure {
        uint256 rows;
        for (uint256 set = f.inForce; set != 0; set &= set - 1) {
            ++rows;
        }
        f.stride = (rows + 4) << 3;
        f.nextAt = YumaNumbers.zeros(f.count);
        (uint256 next, uint256 n, uint256 stride, uint256 cells) = (f.nextAt, f.count, f.stride, 0);
        assembly ("memory-safe") {
            cells := add(mload(0x40), 8)
            let p := cells
            for { let end := add(next, shl(5, n)) } lt(next, end) { next := add(next, 32) } {
                mstore(sub(p, 8), shl(192, NOBODY))
                mstore(next, p)
                p := add(p, stride)
            }
            mstore(0x40, add(p, 24))
        }
        f.cellsAt = cells;
        _open(f);
    }

    /// @dev Which uids there are, and which of them are no newer than the bonds.
    function _open(YumaFrame memory f) private pure {
        f.uids = f.count == 256 ? type(uint256).max : (1 << f.count) - 1;
        (uint256 at, uint256 n, uint256 last, uint256 kept) = (f.uidsAt, f.count, f.lastEpochAt, 0);
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                kept := or(kept, shl(i, lt(and(shr(48, calldataload(add(at, shl(5, i)))), 0xffffffffff), last)))
            }
        }
        f.kept = kept;
    }

    /// @notice Puts the rows in force into the columns, validator by validator: weights masked and normalised, bonds (where they are grown
    /// by columns) without those that are forgotten.
    function load(YumaFrame memory f, bytes calldata weights, bytes calldata bonds) internal pure {
        f.listAt = YumaNumbers.zeros(f.count);
        uint256 from;
        uint256 bondsFrom;
        (uint256 uid, uint256 to) = nextRow(weights, 0, 0);
        (uint256 bondsUid, uint256 bondsTo) = nextRow(bonds, 0, 0);
        while (uid != END || bondsUid != END) {
            if (uid <= bondsUid) {
                if ((f.inForce & f.uids) >> uid & 1 == 1) _addWeights(f, uid, weights[from + 4:to]);
                from = to;
                (uid, to) = nextRow(weights, from, uid + 1);
            } else {
                if ((f.inForce & f.uids) >> bondsUid & 1 == 1) _addBonds(f, bondsUid, bonds[bondsFrom + 4:bondsTo]);
                bondsFrom = bondsTo;
                (bondsUid, bondsTo) = nextRow(bonds, bondsFrom, bondsUid + 1);
            }
        }
    }

    /// @notice Consensus of each miner, and with it rank and trust.
    function agree(YumaFrame memory f) internal pure {
        if (f.total == 0) return;
        (uint256 cells, uint256 stride, uint256 next) = (f.cellsAt, f.stride, f.nextAt);
        for (uint256 last = next + (f.count << 5); next != last; next += 32) {
            (uint256 end, uint256 below) = _collect(f, cells, next);
            if (end != f.spareAt && below <= f.minority) {
                (uint256 list, uint256 listEnd) = YumaNumbers.sort(f.spareAt, end);
                _judge(f, next, list, listEnd, below);
            }
            cells += stride;
        }
    }

    /// @notice Reads the header of a row.
    /// @return uid validator of the row at `at`, or END
    /// @return to where it ends
    function nextRow(bytes calldata rows, uint256 at, uint256 least) internal pure returns (uint256 uid, uint256 to) {
        if (at == rows.length) return (END, at);
        assembly ("memory-safe") {
            to := shr(224, calldataload(add(rows.offset, at)))
            uid := shr(16, to)
            to := add(add(at, 4), shl(2, and(to, 0xffff)))
        }
        if (to > rows.length) revert RowsCutShort(at, rows.length);
        if (uid < least) revert RowsNotAscending(uid, least);
    }

    /// @dev Lists the entries that count in new memory.
    /// @return first of the list
    /// @return end of it, where there is room for a word
    function _mask(YumaFrame memory f, uint256 row, bytes calldata entries) private pure returns (uint256 first, uint256 end, uint256 sum) {
        bool ordered;
        assembly ("memory-safe") {
            let uids := mload(add(f, 0x20))
            // Uids that there are, without the row's own; the owner may judge itself.
            let seen := mload(add(f, 0x340))
            if iszero(eq(row, mload(add(f, 0x40)))) { seen := and(seen, not(shl(row, 1))) }
            // When the opinion was formed: the last update, or the commit if that is earlier.
            let time := calldataload(add(uids, shl(5, row)))
            {
                let committed := and(shr(8, time), 0xffffffffff)
                time := and(shr(88, time), 0xffffffffff)
                if and(iszero(iszero(committed)), lt(committed, time)) { time := committed }
            }
            first := mload(0x40)
            end := first
            let least := 0
            let disorder := 0
            let from := entries.offset
            for { let to := add(from, entries.length) } lt(from, to) { from := add(from, 4) } {
                let entry := shr(224, calldataload(from))
                disorder := or(disorder, lt(entry, least))
                least := add(or(entry, 0xffff), 1)
                let uid := shr(16, entry)
                if and(shr(uid, seen), gt(time, and(shr(48, calldataload(add(uids, shl(5, uid)))), 0xffffffffff))) {
                    mstore(end, entry)
                    end := add(end, 32)
                    sum := add(sum, and(entry, 0xffff))
                }
            }
            ordered := iszero(disorder)
            mstore(0x40, add(end, 32))
        }
        if (!ordered) revert UidsNotAscending(row);
    }

    function _addWeights(YumaFrame memory f, uint256 row, bytes calldata entries) private pure {
        (uint256 p, uint256 end, uint256 sum) = _mask(f, row, entries);
        assembly ("memory-safe") {
            mstore(add(mload(add(f, 0x380)), shl(5, row)), p)
            mstore(end, shl(64, LIST_END))
            let next := mload(add(f, 0x100))
            for {} lt(p, end) { p := add(p, 32) } {
                let weight := mload(p)
                let uid := shr(16, weight)
                weight := div(shl(32, and(weight, 0xffff)), sum)
                mstore(p, or(shl(64, uid), weight))
                uid := add(next, shl(5, uid))
                let cell := mload(uid)
                mstore(cell, shl(192, or(shl(25, weight), row)))
                mstore(uid, add(cell, 8))
            }
        }
    }

    function _addBonds(YumaFrame memory f, uint256 row, bytes calldata entries) private pure {
        bool ordered;
        assembly ("memory-safe") {
            let next := mload(add(f, 0x100))
            let kept := mload(add(f, 0x360))
            let least := 0
            let disorder := 0
            let from := entries.offset
            for { let to := add(from, entries.length) } lt(from, to) { from := add(from, 4) } {
                let bond := shr(224, calldataload(from))
                disorder := or(disorder, lt(bond, least))
                least := add(or(bond, 0xffff), 1)
                let uid := shr(16, bond)
                if and(shr(uid, kept), 1) {
                    let column := add(next, shl(5, uid))
                    let cell := mload(column)
                    bond := shl(9, and(bond, 0xffff))
                    let before := shr(192, mload(sub(cell, 8)))
                    switch eq(and(before, 0x1ff), row)
                    case 0 {
                        mstore(cell, shl(192, or(bond, row)))
                        mstore(column, add(cell, 8))
                    }
                    default { mstore(sub(cell, 8), shl(192, or(before, bond))) }
                }
            }
            ordered := iszero(disorder)
        }
        if (!ordered) revert UidsNotAscending(row);
    }

    /// @dev Lists a column's weights in the spare room: weight << 64 | validator << 48 | its active stake.
    /// @return p end of the list
    /// @return below stake behind no weight
    function _collect(YumaFrame memory f, uint256 cells, uint256 next) private pure returns (uint256 p, uint256 below) {
        assembly ("memory-safe") {
            let active := mload(add(f, 0xa0))
            below := mload(add(f, 0xc0))
            p := mload(add(f, 0x220))
            for { let end := mload(next) } lt(cells, end) { cells := add(cells, 8) } {
                let cell := shr(192, mload(cells))
                if gt(cell, 0x1ffffff) {
                    let row := and(cell, 0x1ff)
                    let stake := mload(add(active, shl(5, row)))
                    mstore(p, or(or(shl(64, shr(25, cell)), shl(48, row)), stake))
                    p := add(p, 32)
                    below := sub(below, stake)
                }
            }
        }
    }

    /// @dev Consensus is the least weight such that the stake behind weights up to it exceeds the minority. Weights above it are cut to it.
    /// @param list in ascending order
    function _judge(YumaFrame memory f, uint256 next, uint256 list, uint256 end, uint256 below) private pure {
        uint256 rank;
        uint256 consensus;
        assembly ("memory-safe") {
            let minority := mload(add(f, 0xe0))
            let trust := mload(add(f, 0x180))
            for {} lt(list, end) { list := add(list, 32) } {
                let entry := mload(list)
                let stake := and(entry, 0xffffffffffff)
                let weight := consensus
                if iszero(weight) {
                    weight := shr(64, entry)
                    below := add(below, stake)
                    if gt(below, minority) { consensus := weight }
                }
                rank := add(rank, shr(32, mul(stake, weight)))
                let row := add(trust, and(shr(43, entry), 0x1fffe0))
                mstore(row, add(mload(row), weight))
            }
            let step := sub(next, mload(add(f, 0x100)))
            mstore(add(mload(add(f, 0x160)), step), consensus)
            mstore(add(mload(add(f, 0x1a0)), step), rank)
        }
    }
}
