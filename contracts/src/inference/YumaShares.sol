// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaBondRows} from "./YumaBondRows.sol";
import {YumaColumns} from "./YumaColumns.sol";
import {YumaDesk} from "./YumaDesk.sol";
import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title Trust and ranks, and bonds relative to the column, with stake in them (Yuma 2); what they earn, and the rows that are stored
/// (decision 0019, steps 7 to 9).
/// @dev Columns are met only by their sums, so bonds are grown row by row as they come in and go out: once for the sums of what is bought
/// and held, once for the bonds and their sum and greatest, once for what is earned and stored. What a pair needs of its miner, and adds to
/// it, is one word of a vector: consensus:Q32, sum of what is bought, weight times stake:Q32 << 40, sum of what was held:u24 << 80, sum of
/// the new bonds:Q32 << 112, the greatest of them:Q32 << 160, and ONE << 220 if old bonds count. Ranks are added up << 80, before.
library YumaShares {
    uint256 private constant UIDS = 256; // as many as fit a step: no entry, however wrong, leads out of the facts
    uint256 private constant ONE = 0x100000000;
    uint256 private constant LAST = 0xffff0000; // as YumaColumns.LAST
    uint256 private constant Q32 = 0xffffffffff; // 40 bits of a number
    uint256 private constant SUM = 0xffffffffffff; // 48 bits of a sum
    uint256 private constant STEP = 0x3fff; // 14 bits of 32 times a uid
    uint256 private constant BOND = 0x3ffffffffffff; // and the 50 above them
    uint256 private constant HALF = 0xffffffffffffffff;

    /// @param cap greatest number of bonds stored of a row; 0: no limit
    function grow(YumaFrame memory f, bytes calldata bonds, uint256 cap) internal pure returns (bytes memory) {
        f.factsAt = YumaNumbers.zeros(UIDS);
        _judge(f);
        _rank(f);
        YumaColumns.reward(f);
        _hold(f, bonds);
        YumaDesk.Desk memory desk = YumaDesk.open(f, bonds);
        for (uint256 uid; uid < f.count; ++uid) {
            if (f.inForce >> uid & 1 == 1) _growRow(f, desk, uid, YumaDesk.bondsOf(f, desk, bonds, uid));
            assembly ("memory-safe") {
                mstore(add(mload(add(desk, 0x60)), shl(5, uid)), mload(add(desk, 0x40)))
            }
        }
        _scale(f);
        for (uint256 uid; uid < f.count; ++uid) {
            if (f.inForce >> uid & 1 == 0) continue;
            uint256 end = _share(f, desk, uid);
            if (f.permits >> uid & 1 == 1) desk.to = YumaBondRows.store(desk.to, uid, desk.rowAt, end, cap);
        }
        return YumaDesk.close(desk);
    }

    /// @dev Trust, ranks and what is bought, of all weights.
    function _judge(YumaFrame memory f) private pure {
        uint256 penalty = f.penalty;
        assembly ("memory-safe") {
            mcopy(mload(add(f, 0x3a0)), mload(add(f, 0x160)), shl(5, mload(f)))
        }
        for (uint256 uid; uid < f.count; ++uid) {
            (uint256 list, uint256 stake) = (0, 0);
            assembly ("memory-safe") {
                list := mload(add(mload(add(f, 0x340)), shl(5, uid)))
                stake := mload(add(mload(add(f, 0xa0)), shl(5, uid)))
            }
            if (list == 0) continue;
            uint256 backed;
            assembly ("memory-safe") {
                backed := mload(0x40)
                mstore(add(mload(add(f, 0x340)), shl(5, uid)), backed)
            }
            uint256 trust = _judgeRow(f.factsAt, list >> 64, list & HALF, stake, penalty);
            assembly ("memory-safe") {
                mstore(add(mload(add(f, 0x180)), shl(5, uid)), trust)
            }
        }
    }

    /// @dev Appends uid:u16 and weight times stake:u48 of each entry in new memory, and LAST << 32 behind them.
    function _judgeRow(uint256 facts, uint256 sum, uint256 list, uint256 stake, uint256 penalty) private pure returns (uint256 trust) {
        assembly ("memory-safe") {
            let backed := mload(0x40)
            for { let weight := shr(224, mload(list)) } lt(weight, LAST) { weight := shr(224, mload(list)) } {
                list := add(list, 4)
                let to := add(facts, and(shr(11, weight), 0x1fe0)) // 32 bytes a uid
                weight := div(shl(32, and(weight, 0xffff)), sum)
                let fact := mload(to)
                // What is above consensus counts neither for trust nor for rank, and the penalty is taken off it for bonds.
                let cut := and(fact, Q32)
                switch gt(weight, cut)
                case 0 { cut := weight }
                default { weight := sub(weight, shr(32, add(mul(penalty, sub(weight, cut)), 0xffffffff))) }
                trust := add(trust, cut)
                weight := shr(32, mul(weight, stake))
                mstore(backed, shl(192, or(shl(43, sub(to, facts)), weight)))
                backed := add(backed, 8)
                mstore(to, add(fact, or(shl(40, weight), shl(80, shr(32, mul(cut, stake))))))
            }
            mstore(backed, shl(224, LAST))
            mstore(0x40, add(backed, 32))
        }
    }

    /// @dev Takes the ranks out of the facts, and says there which old bonds count.
    function _rank(YumaFrame memory f) private pure {
        (uint256 to, uint256 ranks, uint256 kept) = (f.factsAt, f.rankAt, f.kept);
        assembly ("memory-safe") {
            for { let end := add(to, shl(5, mload(f))) } lt(to, end) { to := add(to, 32) } {
                let fact := mload(to)
                mstore(ranks, shr(80, fact))
                mstore(to, or(and(fact, 0xffffffffffffffffffff), shl(252, and(kept, 1))))
                ranks := add(ranks, 32)
                kept := shr(1, kept)
            }
        }
    }

    /// @dev What was held of each miner.
    function _hold(YumaFrame memory f, bytes calldata bonds) private pure {
        uint256 from;
        (uint256 uid, uint256 to) = YumaColumns.nextRow(bonds, 0, 0);
        while (uid != YumaColumns.END) {
            if (f.inForce >> uid & 1 == 1) _holdRow(f, bonds[from + 4:to]);
            from = to;
            (uid, to) = YumaColumns.nextRow(bonds, from, uid + 1);
        }
    }

    function _holdRow(YumaFrame memory f, bytes calldata entries) private pure {
        (uint256 facts, uint256 limit) = (f.factsAt, f.count << 16);
        assembly ("memory-safe") {
            let from := entries.offset
            for { let to := add(from, entries.length) } lt(from, to) { from := add(from, 4) } {
                let bond := shr(224, calldataload(from))
                if lt(bond, limit) {
                    let fact := add(facts, and(shr(11, bond), 0x1fe0))
                    mstore(fact, add(mload(fact), shl(80, and(bond, 0xffff))))
                }
            }
        }
    }

    /// @dev Grows the bonds of one row out of its weights and its old bonds, in order of uids, not yet divided by their columns' sums.
    /// @param at where its next old bond is
    function _growRow(YumaFrame memory f, YumaDesk.Desk memory desk, uint256 uid, uint256 at) private pure {
        (uint256 list,) = YumaDesk.weightsOf(f, desk, uid);
        (uint256 facts, uint256 speed) = (f.factsAt, f.speed);
        assembly ("memory-safe") {
            let next := mload(add(desk, 0x40))
            for {} 1 {} {
                let weight := shr(192, mload(list))
                let bond := shr(224, mload(at))
                // Bonds without a weight.
                for {} lt(or(bond, 0xffff), shr(32, weight)) {} {
                    let step := and(shr(11, bond), 0x1fe0) // 32 times the uid
                    let fact := mload(add(facts, step))
                    bond := div(mul(and(bond, 0xffff), shr(220, fact)), and(shr(80, fact), 0xffffffff))
                    bond := shr(32, mul(sub(ONE, speed), bond))
                    mstore(next, shl(192, or(shl(14, bond), step)))
                    next := add(next, 8)
                    fact := add(fact, shl(112, bond))
                    bond := sub(bond, and(shr(160, fact), Q32))
                    if sgt(bond, 0) { fact := add(fact, shl(160, bond)) }
                    mstore(add(facts, step), fact)
                    at := add(at, 4)
                    bond := shr(224, mload(at))
                }
                if eq(shr(32, weight), LAST) { break }
                let step := and(shr(43, weight), 0x1fe0)
                let fact := mload(add(facts, step))
                // Is the bond with the same uid?
                switch eq(shr(16, bond), shr(48, weight))
                case 1 {
                    at := add(at, 4)
                    bond := div(mul(and(bond, 0xffff), shr(220, fact)), and(shr(80, fact), 0xffffffff))
                    bond := shr(32, mul(sub(ONE, speed), bond))
                }
                default { bond := 0 }
                list := add(list, 8)
                bond := add(bond, shr(32, mul(speed, div(shl(32, and(weight, SUM)), and(shr(40, fact), Q32)))))
                mstore(next, shl(192, or(shl(14, bond), step)))
                next := add(next, 8)
                fact := add(fact, shl(112, bond))
                bond := sub(bond, and(shr(160, fact), Q32))
                if sgt(bond, 0) { fact := add(fact, shl(160, bond)) }
                mstore(add(facts, step), fact)
            }
            // Zeros up to the word's end.
            mstore(next, 0)
            mstore(add(desk, 0x40), and(add(next, 31), not(31)))
        }
    }

    /// @dev Makes of each miner's facts the sum of its bonds, its incentive << 64, and the greatest bond, as a part of the sum, << 128.
    function _scale(YumaFrame memory f) private pure {
        (uint256 to, uint256 incentives) = (f.factsAt, f.incentiveAt);
        assembly ("memory-safe") {
            for { let end := add(to, shl(5, mload(f))) } lt(to, end) { to := add(to, 32) } {
                let sum := and(shr(112, mload(to)), SUM)
                let greatest := div(shl(32, and(shr(160, mload(to)), Q32)), sum)
                mstore(to, or(sum, or(shl(64, mload(incentives)), shl(128, greatest))))
                incentives := add(incentives, 32)
            }
        }
    }

    /// @dev Shares miners' incentive out by bonds divided by the column's sum, and makes a row of these as parts of the greatest of the
    /// column; four words of zeros follow it. Four bonds come in a word; each is written where the next goes, and stays there if it is not 0.
    /// @return out end of the row
    function _share(YumaFrame memory f, YumaDesk.Desk memory desk, uint256 uid) private pure returns (uint256 out) {
        uint256 facts = f.factsAt;
        assembly ("memory-safe") {
            let at := mload(add(desk, 0x80))
            let end := add(mload(add(desk, 0x60)), shl(5, uid))
            if uid { at := mload(sub(end, 32)) }
            end := mload(end)
            out := mload(desk)
            let gain := 0
            for {} lt(at, end) { at := add(at, 32) } {
                let four := mload(at)
                let step := and(shr(192, four), STEP)
                let fact := mload(add(facts, step))
                let bond := div(shl(32, shr(206, four)), and(fact, HALF))
                gain := add(gain, shr(32, mul(bond, and(shr(64, fact), HALF))))
                bond := shr(32, mul(div(shl(32, bond), shr(128, fact)), 0xffff))
                mstore(out, shl(224, or(shl(11, step), bond)))
                out := add(out, shl(2, gt(bond, 0)))
                step := and(shr(128, four), STEP)
                fact := mload(add(facts, step))
                bond := div(shl(32, and(shr(142, four), BOND)), and(fact, HALF))
                gain := add(gain, shr(32, mul(bond, and(shr(64, fact), HALF))))
                bond := shr(32, mul(div(shl(32, bond), shr(128, fact)), 0xffff))
                mstore(out, shl(224, or(shl(11, step), bond)))
                out := add(out, shl(2, gt(bond, 0)))
                step := and(shr(64, four), STEP)
                fact := mload(add(facts, step))
                bond := div(shl(32, and(shr(78, four), BOND)), and(fact, HALF))
                gain := add(gain, shr(32, mul(bond, and(shr(64, fact), HALF))))
                bond := shr(32, mul(div(shl(32, bond), shr(128, fact)), 0xffff))
                mstore(out, shl(224, or(shl(11, step), bond)))
                out := add(out, shl(2, gt(bond, 0)))
                step := and(four, STEP)
                fact := mload(add(facts, step))
                bond := div(shl(32, and(shr(14, four), BOND)), and(fact, HALF))
                gain := add(gain, shr(32, mul(bond, and(shr(64, fact), HALF))))
                bond := shr(32, mul(div(shl(32, bond), shr(128, fact)), 0xffff))
                mstore(out, shl(224, or(shl(11, step), bond)))
                out := add(out, shl(2, gt(bond, 0)))
            }
            calldatacopy(out, calldatasize(), 128)
            mstore(add(mload(add(f, 0x1e0)), shl(5, uid)), gain)
        }
    }
}
