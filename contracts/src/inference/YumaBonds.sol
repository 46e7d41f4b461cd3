// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaConsensusMode, YumaFrame, YumaMode, YumaParameters} from "./YumaTypes.sol";

/// @title How bonds follow weights, and what they earn (decision 0019, steps 8 and 9). Bonds in cells become Q32 on the way.
library YumaBonds {
    uint256 private constant ONE = 0x100000000;
    uint256 private constant STEPS = 128;

    /// @notice Bonds of pairs (Yuma 3), each at the same speed or at its own (liquid alpha).
    function growPairs(YumaFrame memory f) internal pure {
        for (uint256 j; j < f.count; ++j) {
            (uint256 cells, uint256 end) = _column(f, j);
            if (cells == end) continue;
            uint256 sum = f.speedsAt == 0 ? _growAlike(f, j, cells, end) : _growLiquid(f, j, cells, end);
            _share(f, j, cells, end, sum);
            _store(f, j, cells, end, ONE);
        }
        (uint256 gain, uint256 active, uint256 n) = (f.gainAt, f.activeAt, f.count);
        assembly ("memory-safe") {
            for { let end := add(gain, shl(5, n)) } lt(gain, end) { gain := add(gain, 32) } {
                let x := mload(gain)
                if x { mstore(gain, shr(32, mul(x, mload(active)))) }
                active := add(active, 32)
            }
        }
    }

    /// @notice Bonds relative to the column, with stake in them (Yuma 2).
    function growShares(YumaFrame memory f) internal pure {
        for (uint256 j; j < f.count; ++j) {
            (uint256 cells, uint256 end) = _column(f, j);
            if (cells == end) continue;
            (uint256 bought, uint256 held) = _weigh(f, j, cells, end);
            uint256 sum = _growShares(f, cells, end, bought, held);
            uint256 greatest = _shareAll(f, j, cells, end, sum);
            _store(f, j, cells, end, greatest);
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

    /// @dev The sigmoid at 129 points, and the last once more. e^(-k/128) by twelve terms of its series, its powers by multiplication.
    function _speeds(uint256 steepness, uint256 low, uint256 high) private pure returns (uint256 first) {
        first = YumaNumbers.zeros(STEPS + 2);
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
            mstore(add(first, 4128), mload(add(first, 4096)))
        }
    }

    function _column(YumaFrame memory f, uint256 j) private pure returns (uint256 cells, uint256 end) {
        assembly ("memory-safe") {
            cells := add(mload(add(f, 0x120)), mul(j, mload(add(f, 0x140))))
            end := mload(add(mload(add(f, 0x100)), shl(5, j)))
        }
    }

    /// @dev Leaves bond:Q32 << 64 | uid in the cells.
    function _growAlike(YumaFrame memory f, uint256 j, uint256 cells, uint256 end) private pure returns (uint256 sum) {
        assembly ("memory-safe") {
            let consensus := mload(add(mload(add(f, 0x160)), shl(5, j)))
            let penalty := mload(add(f, 0x240))
            let speed := mload(add(f, 0x260))
            let stay := sub(ONE, speed)
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let weight := shr(64, cell)
                if and(gt(weight, consensus), gt(penalty, 0)) {
                    weight := sub(weight, shr(32, add(mul(penalty, sub(weight, consensus)), 0xffffffff)))
                }
                let bond := div(shl(32, and(shr(16, cell), 0xffff)), 0xffff)
                bond := add(shr(32, mul(speed, weight)), shr(32, mul(stay, bond)))
                sum := add(sum, bond)
                mstore(cells, or(shl(64, bond), and(cell, 0xffff)))
            }
        }
    }

    /// @dev As `_growAlike`, where each pair has its own speed.
    function _growLiquid(YumaFrame memory f, uint256 j, uint256 cells, uint256 end) private pure returns (uint256 sum) {
        uint256 consensus;
        uint256 judge;
        assembly ("memory-safe") {
            consensus := mload(add(mload(add(f, 0x160)), shl(5, j)))
            judge := mload(add(mload(add(f, 0x2a0)), shl(5, j)))
        }
        (uint256 penalty, uint256 speeds) = (f.penalty, f.speedsAt);
        assembly ("memory-safe") {
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let weight := shr(64, cell)
                if and(gt(weight, consensus), gt(penalty, 0)) {
                    weight := sub(weight, shr(32, add(mul(penalty, sub(weight, consensus)), 0xffffffff)))
                }
                let bond := div(shl(32, and(shr(16, cell), 0xffff)), 0xffff)
                // How far it is sold, or how far above consensus it is bought.
                let speed := sub(bond, weight)
                if iszero(lt(weight, bond)) { speed := mul(gt(weight, judge), sub(weight, judge)) }
                {
                    let at := add(speeds, shl(5, shr(25, speed)))
                    let from := mload(at)
                    speed := add(from, shr(25, mul(and(speed, 0x1ffffff), sub(mload(add(at, 32)), from))))
                }
                bond := add(shr(32, mul(speed, weight)), shr(32, mul(sub(ONE, speed), bond)))
                sum := add(sum, bond)
                mstore(cells, or(shl(64, bond), and(cell, 0xffff)))
            }
        }
    }

    /// @dev Shares a miner's incentive out by bonds.
    function _share(YumaFrame memory f, uint256 j, uint256 cells, uint256 end, uint256 sum) private pure {
        assembly ("memory-safe") {
            let incentive := mload(add(mload(add(f, 0x1c0)), shl(5, j)))
            if incentive {
                let gain := mload(add(f, 0x1e0))
                for {} lt(cells, end) { cells := add(cells, 32) } {
                    let cell := mload(cells)
                    let p := add(gain, shl(5, and(cell, 0xffff)))
                    mstore(p, add(mload(p), shr(32, mul(div(shl(32, shr(64, cell)), sum), incentive))))
                }
            }
        }
    }

    /// @dev Leaves weight times stake:Q32 << 64 | bond:u16 << 16 | uid in the cells; returns the column's sums of both.
    function _weigh(YumaFrame memory f, uint256 j, uint256 cells, uint256 end) private pure returns (uint256 bought, uint256 held) {
        assembly ("memory-safe") {
            let consensus := mload(add(mload(add(f, 0x160)), shl(5, j)))
            let penalty := mload(add(f, 0x240))
            let active := mload(add(f, 0xa0))
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let weight := shr(64, cell)
                if and(gt(weight, consensus), gt(penalty, 0)) {
                    weight := sub(weight, shr(32, add(mul(penalty, sub(weight, consensus)), 0xffffffff)))
                }
                weight := shr(32, mul(weight, mload(add(active, shl(5, and(cell, 0xffff))))))
                bought := add(bought, weight)
                held := add(held, and(shr(16, cell), 0xffff))
                mstore(cells, or(shl(64, weight), and(cell, 0xffffffff)))
            }
        }
    }

    /// @dev Leaves bond:Q32 << 64 | uid, not yet divided by the column's sum.
    function _growShares(YumaFrame memory f, uint256 cells, uint256 end, uint256 bought, uint256 held) private pure returns (uint256 sum) {
        uint256 speed = f.speed;
        assembly ("memory-safe") {
            let stay := sub(ONE, speed)
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let bond := shr(32, mul(speed, div(shl(32, shr(64, cell)), bought)))
                bond := add(bond, shr(32, mul(stay, div(shl(32, and(shr(16, cell), 0xffff)), held))))
                sum := add(sum, bond)
                mstore(cells, or(shl(64, bond), and(cell, 0xffff)))
            }
        }
    }

    function _shareAll(YumaFrame memory f, uint256 j, uint256 cells, uint256 end, uint256 sum) private pure returns (uint256 greatest) {
        assembly ("memory-safe") {
            let incentive := mload(add(mload(add(f, 0x1c0)), shl(5, j)))
            let gain := mload(add(f, 0x1e0))
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let bond := div(shl(32, shr(64, cell)), sum)
                if gt(bond, greatest) { greatest := bond }
                mstore(cells, or(shl(64, bond), and(cell, 0xffff)))
                let p := add(gain, shl(5, and(cell, 0xffff)))
                mstore(p, add(mload(p), shr(32, mul(bond, incentive))))
            }
        }
    }

    /// @dev Appends the column's bonds, as u16 of `whole`, to the rows that are stored.
    function _store(YumaFrame memory f, uint256 j, uint256 cells, uint256 end, uint256 whole) private pure {
        assembly ("memory-safe") {
            let out := mload(add(f, 0x200))
            let uid := shl(240, j)
            for {} lt(cells, end) { cells := add(cells, 32) } {
                let cell := mload(cells)
                let bond := shr(64, cell)
                if iszero(eq(whole, ONE)) { bond := div(shl(32, bond), whole) }
                bond := shr(32, mul(bond, 0xffff))
                let p := add(out, shl(5, and(cell, 0xffff)))
                let at := mload(p)
                if mul(bond, at) {
                    mstore(at, or(uid, shl(224, bond)))
                    mstore(p, add(at, 4))
                }
            }
        }
    }
}
