// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaBondRows} from "./YumaBondRows.sol";
import {YumaColumns} from "./YumaColumns.sol";
import {YumaDesk} from "./YumaDesk.sol";
import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title Trust and ranks, and the bonds of pairs (Yuma 3), each at the same speed or at its own (liquid alpha); what they earn, and the rows
/// that are stored (decision 0019, steps 7 to 9).
/// @dev A pair's bond depends on its column only by the column's consensus, so bonds are grown row by row, as they come in and go out. What
/// a pair needs of its miner, and adds to it, is one word of a vector: consensus:Q32, consensus that liquid alpha compares with:Q32 << 40,
/// rank:Q32 << 80, sum of the new bonds:Q32 << 128, and ONE << 220 if old bonds count.
/// Only bonds with miners that have consensus are kept for the dividends: others have no incentive.
library YumaPairs {
    uint256 private constant UIDS = 256; // as many as fit a step: no entry, however wrong, leads out of the facts
    uint256 private constant ONE = 0x100000000;
    uint256 private constant LAST = 0xffff0000; // as YumaColumns.LAST
    uint256 private constant Q32 = 0xffffffffff; // 40 bits of a number
    uint256 private constant STEP = 0x3fff; // 14 bits of 32 times a uid
    uint256 private constant BOND = 0x3ffffffffffff; // and the 50 above them

    /// @param cap greatest number of bonds stored of a row; 0: no limit
    function grow(YumaFrame memory f, bytes calldata bonds, uint256 cap) internal pure returns (bytes memory) {
        _open(f);
        uint256 sums = YumaNumbers.zeros(f.count);
        YumaDesk.Desk memory desk = YumaDesk.open(f, bonds);
        for (uint256 uid; uid < f.count; ++uid) {
            if (f.inForce >> uid & 1 == 1) {
                uint256 end = _growRow(f, desk, uid, YumaDesk.bondsOf(f, desk, bonds, uid));
                if (f.permits >> uid & 1 == 1) desk.to = YumaBondRows.store(desk.to, uid, desk.rowAt, end, cap);
            }
            assembly ("memory-safe") {
                mstore(add(mload(add(desk, 0x60)), shl(5, uid)), mload(add(desk, 0x40)))
            }
        }
        bytes memory rows = YumaDesk.close(desk);
        _close(f, sums);
        YumaColumns.reward(f);
        _share(f, desk, sums);
        return rows;
    }

    function _open(YumaFrame memory f) private pure {
        f.factsAt = YumaNumbers.zeros(UIDS);
        (uint256 to, uint256 consensusAt, uint256 judgeAt, uint256 kept) = (f.factsAt, f.consensusAt, f.judgeAt, f.kept);
        assembly ("memory-safe") {
            for { let end := add(to, shl(5, mload(f))) } lt(to, end) { to := add(to, 32) } {
                mstore(to, or(mload(consensusAt), or(shl(40, mload(judgeAt)), shl(252, and(kept, 1)))))
                consensusAt := add(consensusAt, 32)
                judgeAt := add(judgeAt, 32)
                kept := shr(1, kept)
            }
        }
    }

    /// @dev Takes ranks and sums out of the facts.
    function _close(YumaFrame memory f, uint256 sums) private pure {
        (uint256 from, uint256 ranks) = (f.factsAt, f.rankAt);
        assembly ("memory-safe") {
            for { let end := add(from, shl(5, mload(f))) } lt(from, end) { from := add(from, 32) } {
                mstore(ranks, and(shr(80, mload(from)), 0xffffffffffff))
                mstore(sums, and(shr(128, mload(from)), 0xffffffffffff))
                ranks := add(ranks, 32)
                sums := add(sums, 32)
            }
        }
    }

    function _growRow(YumaFrame memory f, YumaDesk.Desk memory desk, uint256 uid, uint256 at) private pure returns (uint256 end) {
        (uint256 list, uint256 sum) = YumaDesk.weightsOf(f, desk, uid);
        uint256 stake;
        assembly ("memory-safe") {
            stake := mload(add(mload(add(f, 0xa0)), shl(5, uid)))
            // What is read for each pair lies in scratch space: where the facts are, and the speeds.
            mstore(0, mload(add(f, 0x3a0)))
            mstore(0x20, mload(add(f, 0x260)))
        }
        end = _merge(desk, list, at, sum, stake);
        assembly ("memory-safe") {
            mstore(add(mload(add(f, 0x180)), shl(5, uid)), mload(add(desk, 0x120)))
        }
    }

    /// @dev Grows the bonds of one row out of its weights and its old bonds, in order of uids; four words of zeros follow it.
    /// @param list where the row's next weight is
    /// @param at where its next old bond is
    /// @param sum of the weights' values
    /// @param stake of the validator; above it, << 64, its trust is added up
    /// @return out end of the row
    function _merge(YumaDesk.Desk memory desk, uint256 list, uint256 at, uint256 sum, uint256 stake) private pure returns (uint256 out) {
        assembly ("memory-safe") {
            out := mload(desk)
            let next := mload(add(desk, 0x40))
            for {} 1 {} {
                let weight := shr(224, mload(list))
                let bond := shr(224, mload(at))
                // Bonds without a weight.
                for {} lt(or(bond, 0xffff), weight) {} {
                    let step := and(shr(11, bond), 0x1fe0) // 32 times the uid
                    let fact := mload(add(mload(0), step))
                    bond := div(mul(and(bond, 0xffff), shr(220, fact)), 0xffff)
                    // Sold as far as it goes.
                    let speed := mload(add(mload(0x20), shl(5, shr(25, bond))))
                    speed := add(and(speed, Q32), shr(25, mul(and(bond, 0x1ffffff), shr(40, speed))))
                    bond := shr(32, mul(sub(ONE, speed), bond))
                    mstore(add(mload(0), step), add(fact, shl(128, bond)))
                    if and(fact, Q32) {
                        mstore(next, shl(192, or(shl(14, bond), step)))
                        next := add(next, 8)
                    }
                    bond := shr(32, mul(bond, 0xffff))
                    if bond {
                        mstore(out, shl(224, or(shl(11, step), bond)))
                        out := add(out, 4)
                    }
                    at := add(at, 4)
                    bond := shr(224, mload(at))
                }
                if eq(weight, LAST) { break }
                let step := and(shr(11, weight), 0x1fe0)
                let fact := mload(add(mload(0), step))
                // Is the bond with the same uid?
                switch gt(xor(bond, weight), 0xffff)
                case 0 {
                    at := add(at, 4)
                    bond := div(mul(and(bond, 0xffff), shr(220, fact)), 0xffff)
                }
                default { bond := 0 }
                list := add(list, 4)
                weight := div(shl(32, and(weight, 0xffff)), sum)
                {
                    // What is above consensus counts neither for trust nor for rank, and the penalty is taken off it for bonds.
                    let cut := and(fact, Q32)
                    switch gt(weight, cut)
                    case 0 { cut := weight }
                    default { weight := sub(weight, shr(32, add(mul(mload(add(desk, 0xe0)), sub(weight, cut)), 0xffffffff))) }
                    fact := add(fact, shl(80, shr(32, mul(and(stake, 0xffffffffffffffff), cut))))
                    stake := add(stake, shl(64, cut))
                }
                {
                    // How far it is sold, or how far above consensus it is bought.
                    let far := sub(bond, weight)
                    if iszero(lt(weight, bond)) {
                        far := and(shr(40, fact), Q32)
                        far := mul(gt(weight, far), sub(weight, far))
                    }
                    let speed := mload(add(mload(0x20), shl(5, shr(25, far))))
                    speed := add(and(speed, Q32), shr(25, mul(and(far, 0x1ffffff), shr(40, speed))))
                    bond := add(shr(32, mul(speed, weight)), shr(32, mul(sub(ONE, speed), bond)))
                }
                mstore(add(mload(0), step), add(fact, shl(128, bond)))
                if and(fact, Q32) {
                    mstore(next, shl(192, or(shl(14, bond), step)))
                    next := add(next, 8)
                }
                bond := shr(32, mul(bond, 0xffff))
                if bond {
                    mstore(out, shl(224, or(shl(11, step), bond)))
                    out := add(out, 4)
                }
            }
            calldatacopy(out, calldatasize(), 128)
            // Zeros up to the word's end.
            mstore(next, 0)
            mstore(add(desk, 0x40), and(add(next, 31), not(31)))
            mstore(add(desk, 0x120), shr(64, stake))
        }
    }

    /// @dev Shares each miner's incentive out by bonds, and weighs what each validator got of them by its stake. Four bonds come in a word.
    function _share(YumaFrame memory f, YumaDesk.Desk memory desk, uint256 sums) private pure {
        (uint256 incentives, uint256 gains, uint256 stakes, uint256 ends) = (f.incentiveAt, f.gainAt, f.activeAt, desk.endsAt);
        assembly ("memory-safe") {
            let at := mload(add(desk, 0x80))
            for { let last := add(ends, shl(5, mload(f))) } lt(ends, last) { ends := add(ends, 32) } {
                let gain := 0
                for { let end := mload(ends) } lt(at, end) { at := add(at, 32) } {
                    let four := mload(at)
                    let step := and(shr(192, four), STEP)
                    gain := add(gain, shr(32, mul(div(shl(32, shr(206, four)), mload(add(sums, step))), mload(add(incentives, step)))))
                    step := and(shr(128, four), STEP)
                    gain := add(
                        gain,
                        shr(32, mul(div(shl(32, and(shr(142, four), BOND)), mload(add(sums, step))), mload(add(incentives, step))))
                    )
                    step := and(shr(64, four), STEP)
                    gain := add(
                        gain,
                        shr(32, mul(div(shl(32, and(shr(78, four), BOND)), mload(add(sums, step))), mload(add(incentives, step))))
                    )
                    step := and(four, STEP)
                    gain := add(
                        gain,
                        shr(32, mul(div(shl(32, and(shr(14, four), BOND)), mload(add(sums, step))), mload(add(incentives, step))))
                    )
                }
                if gain { mstore(gains, shr(32, mul(gain, mload(stakes)))) }
                gains := add(gains, 32)
                stakes := add(stakes, 32)
            }
        }
    }
}
