// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaConsensusMode, YumaFrame, YumaMode, YumaParameters} from "./YumaTypes.sol";

/// @title At which speed bonds follow weights, and bonds relative to a column (Yuma 2; decision 0019, steps 8 and 9).
library YumaBonds {
    uint256 private constant ONE = 0x100000000;
    uint256 private constant STEPS = 128;

    /// @notice Bonds relative to the column, with stake in them (Yuma 2).
    function growShares(YumaFrame memory f) internal pure {
        uint256 first = f.spareAt;
        for (uint256 j; j < f.count; ++j) {
            (uint256 cells, uint256 end) = _column(f, j);
            if (cells == end) continue;
            (uint256 last, uint256 bought, uint256 held) = _weigh(f, j, cells, end);
            (uint256 sum, uint256 greatest) = _growShares(f, first, last, bought, held);
            _shareRelative(f, j, first, last, sum, greatest);
        }
    }

    /// @notice Chooses the speed, or the table of speeds, and what weights are compared with.
    /// @param previous consensus of the epoch before, u16 for each uid
    function setSpeed(YumaFrame memory f, YumaParameters memory p, bytes calldata previous) internal pure {
        f.penalty = YumaNumbers.fromU16(p.bondsPenalty);
        f.speed = ONE - (uint256(p.bondsMovingAverage) << 32) / 1_000_000;
        if (p.mode != YumaMode.Yuma3Liquid) return;
        bool isPrevious = p.consensusMode == YumaConsensusMode.Previous
            || (p.consensusMode == YumaConsensusMode.Auto && p.bondsPenalty == type(uint16).max);
        f.judgeAt = isPrevious ? _previous(f, previous) : f.consensusAt;
        if (YumaNumbers.sum(f.judgeAt, f.count) == 0) return;
        f.speedsAt = _speeds(p.alphaSteepness, YumaNumbers.fromU16(p.alphaLow), YumaNumbers.fromU16(p.alphaHigh));
    }

    function _previous(YumaFrame memory f, bytes calldata previous) private pure returns (uint256 first) {
        first = YumaNumbers.zeros(f.count);
        uint256 n = previous.length >> 1 < f.count ? previous.length >> 1 : f.count;
        assembly ("memory-safe") {
            let uids := mload(add(f, 0x20))
            let last := mload(add(f, 0x60))
            for { let j := 0 } lt(j, n) { j := add(j, 1) } {
                if lt(and(shr(48, calldataload(add(uids, shl(5, j)))), 0xffffffffff), last) {
                    let value := shr(240, calldataload(add(previous.offset, shl(1, j))))
                    mstore(add(first, shl(5, j)), div(shl(32, value), 0xffff))
                }
            }
        }
    }

    /// @dev The sigmoid at 129 points, and with each, << 40, the step to the next. e^(-k/128) by twelve terms of its series, its powers by multiplication.
    function _speeds(uint256 steepness, uint256 low, uint256 high) private pure returns (uint256 first) {
        first = YumaNumbers.zeros(STEPS + 1);
        assembly ("memory-safe") {
            let x := div(shl(64, steepness), 12800)
            let factor := shl(64, 1)
            for { let term := 12 } term { term := sub(term, 1) } {
                factor := sub(shl(64, 1), div(mul(x, factor), shl(64, term)))
            }
            let range := sub(high, low)
            let power := shl(64, 1)
            for { let step := 0 } lt(step, 65) { step := add(step, 1) } {
                let share := div(shl(32, power), add(shl(64, 1), power))
                mstore(add(first, shl(5, sub(64, step))), add(low, shr(32, mul(share, range))))
                mstore(add(first, shl(5, add(64, step))), add(low, shr(32, mul(sub(ONE, share), range))))
                power := shr(64, mul(power, factor))
            }
            for { let p := first } lt(p, add(first, 4096)) { p := add(p, 32) } {
                mstore(p, or(mload(p), shl(40, sub(mload(add(p, 32)), mload(p)))))
            }
        }
    }

    function _column(YumaFrame memory f, uint256 j) private pure returns (uint256 cells, uint256 end) {
        assembly ("memory-safe") {
            cells := add(mload(add(f, 0x120)), mul(j, mload(add(f, 0x140))))
            end := mload(add(mload(add(f, 0x100)), shl(5, j)))
        }
    }

    /// @dev Lists weight times stake:Q32 << 64 | bond:u16 << 16 | uid of a column in the spare room; returns the column's sums of both.
    function _weigh(YumaFrame memory f, uint256 j, uint256 cells, uint256 end)
        private
        pure
        returns (uint256 to, uint256 bought, uint256 held)
    {
        to = f.spareAt;
        assembly ("memory-safe") {
            let consensus := mload(add(mload(add(f, 0x160)), shl(5, j)))
            let penalty := mload(add(f, 0x240))
            let active := mload(add(f, 0xa0))
            for {} lt(cells, end) { cells := add(cells, 8) } {
                let cell := shr(192, mload(cells))
                let weight := shr(25, cell)
                if gt(weight, consensus) {
                    weight := sub(weight, shr(32, add(mul(penalty, sub(weight, consensus)), 0xffffffff)))
                }
                let row := and(cell, 0x1ff)
                cell := and(shr(9, cell), 0xffff)
                held := add(held, cell)
                weight := shr(32, mul(weight, mload(add(active, shl(5, row)))))
                bought := add(bought, weight)
                mstore(to, or(shl(64, weight), or(shl(16, cell), row)))
                to := add(to, 32)
            }
        }
    }

    /// @dev Makes that bond:Q32 << 64 | uid, not yet divided by the column's sum.
    function _growShares(YumaFrame memory f, uint256 from, uint256 end, uint256 bought, uint256 held)
        private
        pure
        returns (uint256 sum, uint256 greatest)
    {
        uint256 speed = f.speed;
        assembly ("memory-safe") {
            let stay := sub(ONE, speed)
            for {} lt(from, end) { from := add(from, 32) } {
                let cell := mload(from)
                let bond :=
                    add(
                        shr(32, mul(speed, div(shl(32, shr(64, cell)), bought))),
                        shr(32, mul(stay, div(shl(32, and(shr(16, cell), 0xffff)), held)))
                    )
                sum := add(sum, bond)
                if gt(bond, greatest) { greatest := bond }
                mstore(from, or(shl(64, bond), and(cell, 0xffff)))
            }
        }
    }

    /// @dev Shares a miner's incentive out by bonds divided by the column's sum, and appends them, as parts of the greatest, to the rows that
    /// are stored.
    function _shareRelative(YumaFrame memory f, uint256 j, uint256 from, uint256 end, uint256 sum, uint256 greatest) private pure {
        greatest = YumaNumbers.div(greatest, sum);
        assembly ("memory-safe") {
            let incentive := mload(add(mload(add(f, 0x1c0)), shl(5, j)))
            let gain := mload(add(f, 0x1e0))
            let out := mload(add(f, 0x200))
            j := shl(240, j)
            for {} lt(from, end) { from := add(from, 32) } {
                let bond := mload(from)
                let row := shl(5, and(bond, 0xffff))
                bond := div(shl(32, shr(64, bond)), sum)
                if incentive {
                    let p := add(gain, row)
                    mstore(p, add(mload(p), shr(32, mul(bond, incentive))))
                }
                row := add(out, row)
                bond := shr(32, mul(div(shl(32, bond), greatest), 0xffff))
                let at := mload(row)
                if mul(bond, at) {
                    mstore(at, or(j, shl(224, bond)))
                    mstore(row, add(at, 4))
                }
            }
        }
    }
}
