// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame, YumaParameters} from "./YumaTypes.sol";

/// @title Whose opinion counts, and for how much (decision 0019, steps 1 to 4).
library YumaStakes {
    uint256 private constant OWNER_FIRST = 0x1000000000000000000000000000000000000; // 2^144, above any stake

    /// @notice Fills in everything of the frame that follows from stakes, times and permits.
    function weigh(YumaFrame memory f, YumaParameters memory p, uint256 time) internal pure {
        (uint256 counted, uint256 all) = _count(f, p, time);
        f.permits = _permits(f, counted, all, p.maxValidators);
        if (p.stakeCapPercentile != 0) _cap(f, counted, p.stakeCapPercentile);
        YumaNumbers.normalise(counted, f.count);
        f.stakeAt = counted;
        f.activeAt = _activate(f);
        f.total = YumaNumbers.normalise(f.activeAt, f.count);
        uint256 majority = YumaNumbers.fromU16(p.kappa);
        f.minority = f.total < majority ? 0 : f.total - majority;
    }

    /// @return counted vector of the stakes that count
    function _count(YumaFrame memory f, YumaParameters memory p, uint256 time) private pure returns (uint256 counted, uint256 all) {
        counted = YumaNumbers.zeros(f.count);
        (uint256 threshold, uint256 cutoff, uint256 owner, uint256 n) = (p.stakeThreshold, p.activityCutoff, f.owner, f.count);
        (uint256 at, uint256 active, uint256 inForce) = (f.uidsAt, 0, 0);
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let word := calldataload(add(at, shl(5, i)))
                let stake := shr(128, word)
                let isOwner := eq(i, owner)
                if or(isOwner, iszero(lt(stake, threshold))) {
                    mstore(add(counted, shl(5, i)), stake)
                    all := add(all, stake)
                }
                if iszero(lt(add(and(shr(88, word), 0xffffffffff), cutoff), time)) { active := or(active, shl(i, 1)) }
                if or(isOwner, and(word, 1)) { inForce := or(inForce, shl(i, 1)) }
            }
        }
        (f.activeSet, f.inForce) = (active, inForce);
    }

    /// @dev Owner first, then by stake, then by uid; only uids whose share is not rounded to nothing.
    function _permits(YumaFrame memory f, uint256 counted, uint256 all, uint256 places) private pure returns (uint256 permits) {
        (uint256 keys, uint256 n, uint256 owner, uint256 m) = (f.spareAt, f.count, f.owner, 0);
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let stake := mload(add(counted, shl(5, i)))
                if div(shl(32, stake), all) {
                    permits := or(permits, shl(i, 1))
                    let key := or(shl(8, stake), sub(255, i))
                    if eq(i, owner) { key := or(key, OWNER_FIRST) }
                    mstore(add(keys, shl(5, m)), key)
                    m := add(m, 1)
                }
            }
        }
        if (m <= places) return permits;
        permits = 0;
        (uint256 sorted,) = YumaNumbers.sort(keys, keys + (m << 5));
        for (uint256 i = m - places; i < m; ++i) {
            assembly ("memory-safe") {
                permits := or(permits, shl(sub(255, and(mload(add(sorted, shl(5, i))), 0xff)), 1))
            }
        }
    }

    /// @dev Stakes above the percentile (nearest rank) count as the stake that has it.
    function _cap(YumaFrame memory f, uint256 counted, uint256 percentile) private pure {
        (uint256 values, uint256 n, uint256 m) = (f.spareAt, f.count, 0);
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let stake := mload(add(counted, shl(5, i)))
                mstore(add(values, shl(5, m)), stake)
                m := add(m, iszero(iszero(stake)))
            }
        }
        if (m == 0) return;
        uint256 place = (percentile * m + 99) / 100;
        (uint256 sorted,) = YumaNumbers.sort(values, values + (m << 5));
        assembly ("memory-safe") {
            let limit := mload(add(sorted, shl(5, sub(place, 1))))
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let p := add(counted, shl(5, i))
                if gt(mload(p), limit) { mstore(p, limit) }
            }
        }
    }

    /// @return active S of those with a permit in force, an update that is young enough, and no commit left unrevealed; not yet normalised
    function _activate(YumaFrame memory f) private pure returns (uint256 active) {
        active = YumaNumbers.zeros(f.count);
        (uint256 who, uint256 from, uint256 at, uint256 n) = (f.inForce & f.activeSet, f.stakeAt, f.uidsAt, f.count);
        assembly ("memory-safe") {
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                let step := shl(5, i)
                if and(and(shr(i, who), 1), iszero(and(calldataload(add(at, step)), 2))) {
                    mstore(add(active, step), mload(add(from, step)))
                }
            }
        }
    }
}
