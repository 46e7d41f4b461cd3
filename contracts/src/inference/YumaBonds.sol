// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaConsensusMode, YumaFrame, YumaMode, YumaParameters} from "./YumaTypes.sol";

/// @title At which speed bonds follow weights (decision 0019, step 9).
library YumaBonds {
    uint256 private constant ONE = 0x100000000;
    uint256 private constant STEPS = 128;

    /// @notice Chooses the speed, or the table of speeds, and what weights are compared with.
    /// @param previous consensus of the epoch before, u16 for each uid
    function setSpeed(YumaFrame memory f, YumaParameters memory p, bytes calldata previous) internal pure {
        f.penalty = YumaNumbers.fromU16(p.bondsPenalty);
        f.speed = ONE - (uint256(p.bondsMovingAverage) << 32) / 1_000_000;
        f.judgeAt = f.consensusAt;
        if (p.mode == YumaMode.Yuma2) return;
        f.speedsAt = YumaNumbers.zeros(STEPS + 1);
        if (p.mode == YumaMode.Yuma3) return _fill(f.speedsAt, f.speed);
        bool isPrevious = p.consensusMode == YumaConsensusMode.Previous
            || (p.consensusMode == YumaConsensusMode.Auto && p.bondsPenalty == type(uint16).max);
        if (isPrevious) f.judgeAt = _previous(f, previous);
        if (YumaNumbers.sum(f.judgeAt, f.count) == 0) return _fill(f.speedsAt, f.speed);
        _speeds(f.speedsAt, p.alphaSteepness, YumaNumbers.fromU16(p.alphaLow), YumaNumbers.fromU16(p.alphaHigh));
    }

    /// @dev The same speed everywhere, without steps.
    function _fill(uint256 first, uint256 speed) private pure {
        assembly ("memory-safe") {
            for { let p := first } iszero(gt(p, add(first, 4096))) { p := add(p, 32) } { mstore(p, speed) }
        }
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
    function _speeds(uint256 first, uint256 steepness, uint256 low, uint256 high) private pure {
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
}
