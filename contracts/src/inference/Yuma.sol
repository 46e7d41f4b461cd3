// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaBonds} from "./YumaBonds.sol";
import {YumaColumns} from "./YumaColumns.sol";
import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaPairs} from "./YumaPairs.sol";
import {YumaShares} from "./YumaShares.sol";
import {YumaStakes} from "./YumaStakes.sol";
import {YumaFrame, YumaInput, YumaMode, YumaResult} from "./YumaTypes.sol";

/// @title Yuma consensus: one epoch of a subnet, bit for bit what `epoch` in src/inference/consensus gives (decision 0019).
/// @notice At most 256 uids. Nothing is read but the arguments. Entries of uids beyond the last are ignored.
library Yuma {
    /// @notice The subnet owner's part of the emission: 11,796 of 65,535.
    uint256 internal constant OWNER_CUT = 11_796;
    uint256 private constant UIDS_MAX = 256;
    uint256 private constant SPARE_WORDS = 576;

    error TooManyUids(uint256 got, uint256 limit);

    /// @param uids a word for each: stake:128 lastUpdate:40 registeredAt:40 committedAt:40 flags:8 (1: permit of the epoch before; 2: a commit
    /// was left unrevealed)
    /// @param weights rows of weights, see YumaColumns
    /// @param previous consensus of the epoch before, u16 for each uid; may be shorter: the rest is 0
    /// @param bonds rows of bonds
    function epoch(YumaInput memory input, bytes calldata uids, bytes calldata weights, bytes calldata previous, bytes calldata bonds)
        internal
        pure
        returns (YumaResult memory result)
    {
        YumaFrame memory f;
        f.count = uids.length >> 5;
        if (f.count > UIDS_MAX) revert TooManyUids(f.count, UIDS_MAX);
        assembly ("memory-safe") {
            mstore(add(f, 0x20), uids.offset)
        }
        (f.owner, f.lastEpochAt) = (input.ownerUid, input.lastEpochAt);
        f.spareAt = YumaNumbers.zeros(SPARE_WORDS);
        YumaStakes.weigh(f, input.parameters, input.time);
        YumaColumns.load(f, weights);
        YumaColumns.agree(f);
        (f.trustAt, f.rankAt, f.gainAt) = (YumaNumbers.zeros(f.count), YumaNumbers.zeros(f.count), YumaNumbers.zeros(f.count));
        YumaBonds.setSpeed(f, input.parameters, previous);
        if (input.parameters.mode == YumaMode.Yuma2) result.bonds = YumaShares.grow(f, bonds, input.parameters.bondRowCap);
        else result.bonds = YumaPairs.grow(f, bonds, input.parameters.bondRowCap);
        YumaNumbers.normalise(f.gainAt, f.count);
        _fill(result, f);
        _pay(result, f, input.totalEmission);
    }

    function _fill(YumaResult memory result, YumaFrame memory f) private pure {
        (result.active, result.permits) = (f.activeSet, f.permits);
        result.stakeWeight = YumaNumbers.arrayOf(f.stakeAt);
        result.consensus = YumaNumbers.arrayOf(f.consensusAt);
        result.trust = YumaNumbers.arrayOf(f.trustAt);
        result.rank = YumaNumbers.arrayOf(f.rankAt);
        result.incentive = YumaNumbers.arrayOf(f.incentiveAt);
        result.dividends = YumaNumbers.arrayOf(f.gainAt);
    }

    /// @dev Shares the emission out (decision 0019, step 10): each uid's two parts are rounded down together.
    function _pay(YumaResult memory result, YumaFrame memory f, uint256 total) private pure {
        uint256 n = f.count;
        uint256 owner = total * OWNER_CUT / 65_535;
        uint256 validators = total - owner;
        result.ownerEmission = owner;
        result.dust = validators;
        uint256 incentives = YumaNumbers.sum(f.incentiveAt, n);
        uint256 basisAt = f.gainAt;
        uint256 basis = YumaNumbers.sum(basisAt, n);
        if (basis == 0) (basisAt, basis) = (f.activeAt, f.total);
        if (basis == 0) (basisAt, basis) = (f.stakeAt, YumaNumbers.sum(f.stakeAt, n));
        if (basis == 0) basis = 1;
        uint256 miners;
        if (incentives == 0) incentives = 1;
        else (miners, validators) = (validators / 2, validators - validators / 2);
        result.earned = new uint256[](n);
        result.dust -= _payEach(result.earned, f.incentiveAt, basisAt, [miners, incentives, validators, basis]);
    }

    /// @param parts miners' half, sum of incentives, validators' half, sum of their shares
    function _payEach(uint256[] memory earned, uint256 incentiveAt, uint256 shareAt, uint256[4] memory parts)
        private
        pure
        returns (uint256 paid)
    {
        assembly ("memory-safe") {
            let p := add(earned, 32)
            let end := add(p, shl(5, mload(earned)))
            let incentives := mload(add(parts, 0x20))
            let shares := mload(add(parts, 0x60))
            for {} lt(p, end) { p := add(p, 32) } {
                let asMiner := mul(mload(incentiveAt), mload(parts))
                let asValidator := mul(mload(shareAt), mload(add(parts, 0x40)))
                if or(asMiner, asValidator) {
                    let both := div(add(mul(asMiner, shares), mul(asValidator, incentives)), mul(incentives, shares))
                    asValidator := div(asValidator, shares)
                    mstore(p, or(shl(128, sub(both, asValidator)), asValidator))
                    paid := add(paid, both)
                }
                incentiveAt := add(incentiveAt, 32)
                shareAt := add(shareAt, 32)
            }
        }
    }
}
