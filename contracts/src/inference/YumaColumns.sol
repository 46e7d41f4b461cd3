// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title What the validators think of each miner (decision 0019, steps 5 to 7).
/// @notice Rows come in calldata, in order of their validators: uid:u16 count:u16, then count entries uid:u16 value:u16 with ascending uids.
/// What counts of a row is kept as it came, entry after entry, with LAST behind it; a weight is its value divided by the row's sum.
/// For the consensus weights are put into columns too: seven weights to a word, in lanes of 36 bits. All columns are as long, and a row has
/// the same word and lane in each.
library YumaColumns {
    uint256 internal constant END = 0x10000; // above any uid
    uint256 internal constant LAST = 0xffff0000; // above any entry that counts
    uint256 private constant LANES = 7;
    uint256 private constant UNROLLED = 5; // words that are looked at together
    uint256 private constant ONES = 0x1000000001000000001000000001000000001000000001000000001; // 1 in each lane
    uint256 private constant MARKS = 0x800000000800000000800000000800000000800000000800000000800000000; // the highest bit of each lane
    uint256 private constant LANE = 0xfffffffff;

    error RowsCutShort(uint256 position, uint256 length);
    error RowsNotAscending(uint256 uid, uint256 least);
    error UidsNotAscending(uint256 rowUid);

    /// @notice Takes the rows in force: masked, and those with active stake in the columns.
    function load(YumaFrame memory f, bytes calldata weights) internal pure {
        _open(f);
        uint256 place;
        uint256 from;
        (uint256 uid, uint256 to) = nextRow(weights, 0, 0);
        while (uid != END) {
            if (f.inForce >> uid & 1 == 1) _addRow(f, uid, place++, weights[from + 4:to]);
            from = to;
            (uid, to) = nextRow(weights, from, uid + 1);
        }
    }

    /// @dev Makes room, and finds which uids there are, and which of them are no newer than the bonds.
    function _open(YumaFrame memory f) private pure {
        uint256 rows;
        for (uint256 set = f.inForce; set != 0; set &= set - 1) {
            ++rows;
        }
        f.words = (rows / (LANES * UNROLLED) + 1) * UNROLLED;
        f.cellsAt = YumaNumbers.zeros(f.count * f.words);
        f.lanesAt = YumaNumbers.zeros(f.words);
        f.placesAt = _places(f, rows);
        f.listAt = YumaNumbers.zeros(f.count);
        f.uids = f.count == 256 ? type(uint256).max : (1 << f.count) - 1;
        (uint256 at, uint256 n, uint256 last, uint256 kept) = (f.uidsAt, f.count, f.lastEpochAt, 0);
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                kept := or(kept, shl(i, lt(and(shr(48, calldataload(add(at, shl(5, i)))), 0xffffffffff), last)))
            }
        }
        f.kept = kept;
    }

    /// @dev The places of rows in columns, word << 8 | lane's shift, in an order drawn from the uids' words: from stakes as of the epoch's end,
    /// when all rows are committed.
    function _places(YumaFrame memory f, uint256 rows) private pure returns (uint256 places) {
        places = YumaNumbers.zeros(rows);
        (uint256 uids, uint256 size, uint256 words) = (f.uidsAt, f.count << 5, f.words);
        assembly ("memory-safe") {
            let at := mload(0x40)
            calldatacopy(at, uids, size)
            let seed := keccak256(at, size)
            for { let i := 0 } lt(i, rows) { i := add(i, 1) } {
                mstore(0, seed)
                seed := keccak256(0, 32)
                let p := add(places, shl(5, i))
                let other := add(places, shl(5, mod(seed, add(i, 1))))
                mstore(p, mload(other))
                mstore(other, or(shl(13, mod(i, words)), mul(36, div(i, words))))
            }
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
    /// @return end of it, where LAST stands
    function _mask(YumaFrame memory f, uint256 row, bytes calldata entries) private pure returns (uint256 first, uint256 end, uint256 sum) {
        bool ordered;
        assembly ("memory-safe") {
            let uids := mload(add(f, 0x20))
            // Uids that there are, without the row's own; the owner may judge itself.
            let seen := mload(add(f, 0x300))
            if iszero(eq(row, mload(add(f, 0x40)))) { seen := and(seen, not(shl(row, 1))) }
            // When the opinion was formed: the last update, or the commit if that is earlier. Shifted as times of registration are.
            let time := calldataload(add(uids, shl(5, row)))
            {
                let committed := and(shr(8, time), 0xffffffffff)
                time := and(shr(88, time), 0xffffffffff)
                if and(iszero(iszero(committed)), lt(committed, time)) { time := committed }
                time := shl(48, time)
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
                if and(shr(uid, seen), gt(time, and(calldataload(add(uids, shl(5, uid))), 0xffffffffff000000000000))) {
                    mstore(end, shl(224, entry))
                    end := add(end, 4)
                    sum := add(sum, and(entry, 0xffff))
                }
            }
            ordered := iszero(disorder)
            mstore(end, shl(224, LAST))
            mstore(0x40, add(end, 32))
        }
        if (!ordered) revert UidsNotAscending(row);
    }

    function _addRow(YumaFrame memory f, uint256 row, uint256 place, bytes calldata entries) private pure {
        (uint256 p, uint256 end, uint256 sum) = _mask(f, row, entries);
        f.entries += (end - p) >> 2;
        (uint256 word, uint256 shift, uint256 stride) = (f.placesAt + (place << 5), 0, f.words << 5);
        assembly ("memory-safe") {
            mstore(add(mload(add(f, 0x340)), shl(5, row)), or(shl(64, sum), p))
            let stake := mload(add(mload(add(f, 0xa0)), shl(5, row)))
            if stake {
                shift := and(mload(word), 0xff)
                word := shr(8, mload(word))
                let lane := add(mload(add(f, 0x140)), word)
                mstore(lane, or(mload(lane), shl(shift, stake)))
                let cells := add(mload(add(f, 0x120)), word)
                // Eight entries at once; what follows the last of them has no value.
                for {} lt(p, end) { p := add(p, 32) } {
                    let eight := mload(p)
                    let cell
                    cell := add(cells, mul(shr(240, eight), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(224, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(208, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(192, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(176, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(160, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(144, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(128, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(112, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(96, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(80, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(64, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(48, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(shr(32, eight), 0xffff)), sum))))
                    cell := add(cells, mul(and(shr(16, eight), 0xff), stride))
                    mstore(cell, or(mload(cell), shl(shift, div(shl(32, and(eight, 0xffff)), sum))))
                }
            }
        }
    }

    /// @notice Consensus of each miner: the least weight such that the stake behind weights up to it exceeds the minority, or, which is the
    /// same, such that less than `enough` stake is behind weights above it.
    /// @dev Each weight between the bounds known so far becomes one of them, by the stake above it; the rest is passed over. Weights are met
    /// in an order that nobody who set them could know (`_place`), so of 64 about eight are tried, in whatever order they were set.
    /// That a weight exceeds a number sets the highest bit of its lane in a sum; stakes of such lanes are added up lane by lane, and then
    /// the lanes by a remainder.
    function agree(YumaFrame memory f) internal pure {
        f.consensusAt = YumaNumbers.zeros(f.count);
        if (f.total == 0) return;
        (uint256 column, uint256 size, uint256 to) = (f.cellsAt, f.words << 5, f.consensusAt);
        assembly ("memory-safe") {
            // What is read in each trial lies in scratch space: enough, and where the stakes are.
            mstore(0, sub(mload(add(f, 0xc0)), mload(add(f, 0xe0))))
            mstore(0x20, mload(add(f, 0x140)))
            // The stake behind weights above a bound.
            function stakeAbove(from, end, bound) -> sum {
                let stakes := mload(0x20)
                let marks := MARKS
                bound := mul(sub(0x7ffffffff, bound), ONES)
                for {} lt(from, end) { from := add(from, 160) } {
                    let found := and(add(mload(from), bound), marks)
                    sum := add(sum, and(sub(found, shr(35, found)), mload(stakes)))
                    found := and(add(mload(add(from, 32)), bound), marks)
                    sum := add(sum, and(sub(found, shr(35, found)), mload(add(stakes, 32))))
                    found := and(add(mload(add(from, 64)), bound), marks)
                    sum := add(sum, and(sub(found, shr(35, found)), mload(add(stakes, 64))))
                    found := and(add(mload(add(from, 96)), bound), marks)
                    sum := add(sum, and(sub(found, shr(35, found)), mload(add(stakes, 96))))
                    found := and(add(mload(add(from, 128)), bound), marks)
                    sum := add(sum, and(sub(found, shr(35, found)), mload(add(stakes, 128))))
                    stakes := add(stakes, 160)
                }
                sum := mod(sum, LANE)
            }
            for { let last := add(to, shl(5, mload(f))) } lt(to, last) { to := add(to, 32) } {
                let end := add(column, size)
                if iszero(lt(stakeAbove(column, end, 0), mload(0))) {
                    let low := 0
                    let high := 0x100000001 // above any weight
                    // Each column from another word on.
                    let start := add(column, mod(sub(last, to), size))
                    let p := start
                    for {} 1 {} {
                        let word := mload(p)
                        // Has it any weight between the bounds?
                        let above := add(word, mul(sub(0x7ffffffff, low), ONES))
                        word := mul(word, gt(and(above, and(not(add(word, mul(sub(0x800000000, high), ONES))), MARKS)), 0))
                        for {} word { word := shr(36, word) } {
                            let weight := and(word, LANE)
                            if and(gt(weight, low), lt(weight, high)) {
                                switch lt(stakeAbove(column, end, weight), mload(0))
                                case 0 { low := weight }
                                default { high := weight }
                            }
                        }
                        p := add(p, 32)
                        if eq(p, end) { p := column }
                        if eq(p, start) { break }
                    }
                    mstore(to, high)
                }
                column := end
            }
        }
    }

    /// @notice Incentives of the ranks.
    function reward(YumaFrame memory f) internal pure {
        f.incentiveAt = YumaNumbers.zeros(f.count);
        assembly ("memory-safe") {
            mcopy(mload(add(f, 0x1c0)), mload(add(f, 0x1a0)), shl(5, mload(f)))
        }
        YumaNumbers.normalise(f.incentiveAt, f.count);
    }
}
