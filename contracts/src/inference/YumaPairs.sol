// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaBondRows} from "./YumaBondRows.sol";
import {YumaColumns} from "./YumaColumns.sol";
import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title Bonds of pairs (Yuma 3), each at the same speed or at its own (liquid alpha); what they earn, and the rows that are stored
/// (decision 0019, steps 8 and 9).
/// @dev A pair's bond depends on its column only by the column's consensus, so bonds are grown row by row, as they come in and go out.
/// Only bonds with miners that have incentive are kept for the dividends, in eight bytes each: bond:Q32 << 9 | miner's uid.
library YumaPairs {
    uint256 private constant ONE = 0x100000000;
    uint256 private constant HEADER = 4;
    uint256 private constant END = 0xffff; // as YumaColumns.LIST_END

    uint256 private constant IS_THERE = 0x100000000; // marks an entry, which may be 0

    /// Where things are while rows are grown: addresses in memory.
    struct Desk {
        uint256 rowAt; // 0x00 the row that is being grown
        uint256 rowEnd; // 0x20
        uint256 to; // 0x40 where the next stored row goes
        uint256 sharesAt; // 0x60 where the next bond with an incentive goes
        uint256 cap; // 0x80
        uint256 factsAt; // 0xa0 see _facts
    }

    /// @param cap greatest number of bonds stored of a row; 0: no limit
    function grow(YumaFrame memory f, bytes calldata bonds, uint256 cap) internal pure returns (bytes memory rows) {
        f.sumAt = YumaNumbers.zeros(f.count);
        uint256 endsAt = YumaNumbers.zeros(f.count);
        Desk memory desk;
        desk.cap = cap;
        desk.factsAt = _facts(f);
        uint256 room = (f.count << 2) + 128; // for one row
        assembly ("memory-safe") {
            mstore(desk, mload(0x40))
            rows := add(mload(desk), room)
            mstore(add(desk, 0x40), add(rows, 32))
            // As much room for all rows as they can take, and behind it the bonds with incentives, as many as there are.
            mstore(add(desk, 0x60), add(rows, mul(shr(3, mload(add(f, 0x140))), room)))
        }
        uint256 sharesAt = desk.sharesAt;
        _growAll(f, desk, bonds, endsAt);
        assembly ("memory-safe") {
            let to := mload(add(desk, 0x40))
            mstore(rows, sub(to, add(rows, 32)))
            mstore(to, 0)
            mstore(0x40, and(add(mload(add(desk, 0x60)), 63), not(31)))
        }
        _share(f, sharesAt, endsAt);
    }

    /// @return facts vector: what growing needs of each miner, consensus:Q32, judge:Q32 << 40, kept << 80, incentive is not 0 << 81
    function _facts(YumaFrame memory f) private pure returns (uint256 facts) {
        facts = YumaNumbers.zeros(f.count);
        (uint256 n, uint256 consensusAt, uint256 incentiveAt, uint256 kept) = (f.count, f.consensusAt, f.incentiveAt, f.kept);
        uint256 judgeAt = f.speedsAt == 0 ? consensusAt : f.judgeAt;
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let step := shl(5, i)
                let judged := or(mload(add(consensusAt, step)), shl(40, mload(add(judgeAt, step))))
                let counts := or(shl(80, and(shr(i, kept), 1)), shl(81, gt(mload(add(incentiveAt, step)), 0)))
                mstore(add(facts, step), or(judged, counts))
            }
        }
    }

    /// @param endsAt vector: of each uid where its bonds with an incentive end
    function _growAll(YumaFrame memory f, Desk memory desk, bytes calldata bonds, uint256 endsAt) private pure {
        uint256 from;
        (uint256 bondsUid, uint256 bondsTo) = YumaColumns.nextRow(bonds, 0, 0);
        for (uint256 uid; uid < f.count; ++uid) {
            while (bondsUid < uid) {
                from = bondsTo;
                (bondsUid, bondsTo) = YumaColumns.nextRow(bonds, from, bondsUid + 1);
            }
            if ((f.inForce >> uid) & 1 == 1) {
                if (bondsUid == uid) _growRow(f, desk, uid, bonds[from + HEADER:bondsTo]);
                else _growRow(f, desk, uid, bonds[0:0]);
            }
            assembly ("memory-safe") {
                mstore(add(endsAt, shl(5, uid)), mload(add(desk, 0x60)))
            }
        }
    }

    function _growRow(YumaFrame memory f, Desk memory desk, uint256 uid, bytes calldata bonds) private pure {
        uint256 list;
        uint256 at;
        assembly ("memory-safe") {
            list := mload(add(mload(add(f, 0x380)), shl(5, uid)))
            if iszero(list) {
                list := mload(add(f, 0x220))
                mstore(list, shl(64, END))
            }
            // A copy with an END behind it; bonds with uids that are not there are its last.
            at := add(mload(add(f, 0x220)), 32)
            calldatacopy(at, bonds.offset, bonds.length)
            let last := add(at, bonds.length)
            for {} gt(last, at) { last := sub(last, 4) } {
                if lt(shr(240, mload(sub(last, 4))), mload(f)) { break }
            }
            mstore(last, shl(240, END))
        }
        _merge(f, desk, list, at);
        (uint256 row, uint256 end, uint256 to, uint256 cap) = (desk.rowAt, desk.rowEnd, desk.to, desk.cap);
        uint256 length = end - row;
        if (length == 0 || (f.permits >> uid) & 1 == 0) return;
        if (cap != 0 && length > cap << 2) {
            length = cap << 2;
            YumaBondRows.cut(row, end, cap, to + HEADER);
        } else {
            assembly ("memory-safe") {
                mcopy(add(to, HEADER), row, length)
            }
        }
        YumaBondRows.writeHead(to, uid, length);
        desk.to = to + HEADER + length;
    }

    /// @dev Grows the bonds of one row out of its weights and its old bonds, in order of uids; four words of zeros follow it.
    function _merge(YumaFrame memory f, Desk memory desk, uint256 list, uint256 at) private pure {
        assembly ("memory-safe") {
            let facts := mload(add(desk, 0xa0))
            let out := mload(desk)
            let shares := mload(add(desk, 0x60))
            for {} 1 {} {
                let weight := mload(list)
                let uid := shr(64, weight)
                let bond := shr(224, mload(at))
                switch lt(shr(16, bond), uid)
                case 0 {
                    if eq(uid, END) { break }
                    list := add(list, 32)
                    weight := and(weight, 0xffffffffffffffff)
                    // The weight that makes bonds: above consensus the penalty is taken off.
                    let limit := and(mload(add(facts, shl(5, uid))), 0xffffffffff)
                    if gt(weight, limit) {
                        weight := sub(weight, shr(32, add(mul(mload(add(f, 0x240)), sub(weight, limit)), 0xffffffff)))
                    }
                    bond := mul(eq(shr(16, bond), uid), or(bond, IS_THERE))
                }
                default {
                    uid := shr(16, bond)
                    bond := or(bond, IS_THERE)
                    weight := 0
                }
                let fact := mload(add(facts, shl(5, uid)))
                if bond {
                    at := add(at, 4)
                    bond := div(shl(32, mul(and(bond, 0xffff), and(shr(80, fact), 1))), 0xffff)
                }
                let speed := mload(add(f, 0x280))
                switch speed
                case 0 { speed := mload(add(f, 0x260)) }
                default {
                    // How far it is sold, or how far above consensus it is bought.
                    let far := sub(bond, weight)
                    if iszero(lt(weight, bond)) {
                        far := and(shr(40, fact), 0xffffffffff)
                        far := mul(gt(weight, far), sub(weight, far))
                    }
                    speed := mload(add(speed, shl(5, shr(25, far))))
                    speed := add(and(speed, 0xffffffffff), shr(25, mul(and(far, 0x1ffffff), shr(40, speed))))
                }
                bond := add(shr(32, mul(speed, weight)), shr(32, mul(sub(ONE, speed), bond)))
                if shr(81, fact) {
                    mstore(shares, shl(192, or(shl(9, bond), uid)))
                    shares := add(shares, 8)
                    speed := add(mload(add(f, 0x3a0)), shl(5, uid))
                    mstore(speed, add(mload(speed), bond))
                }
                bond := shr(32, mul(bond, 0xffff))
                if bond {
                    mstore(out, or(shl(240, uid), shl(224, bond)))
                    out := add(out, 4)
                }
            }
            mstore(out, 0)
            mstore(add(out, 32), 0)
            mstore(add(out, 64), 0)
            mstore(add(out, 96), 0)
            mstore(add(desk, 0x20), out)
            mstore(add(desk, 0x60), shares)
        }
    }

    /// @dev Shares each miner's incentive out by bonds, and weighs what each validator got of them by its stake.
    function _share(YumaFrame memory f, uint256 at, uint256 endsAt) private pure {
        assembly ("memory-safe") {
            let sums := mload(add(f, 0x3a0))
            let incentives := mload(add(f, 0x1c0))
            let gains := mload(add(f, 0x1e0))
            let stakes := mload(add(f, 0xa0))
            for { let last := add(endsAt, shl(5, mload(f))) } lt(endsAt, last) { endsAt := add(endsAt, 32) } {
                let gain := 0
                for { let end := mload(endsAt) } lt(at, end) { at := add(at, 8) } {
                    let bond := shr(192, mload(at))
                    let step := shl(5, and(bond, 0x1ff))
                    bond := div(shl(32, shr(9, bond)), mload(add(sums, step)))
                    gain := add(gain, shr(32, mul(bond, mload(add(incentives, step)))))
                }
                if gain { mstore(gains, shr(32, mul(gain, mload(stakes)))) }
                gains := add(gains, 32)
                stakes := add(stakes, 32)
            }
        }
    }
}
