// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice Stake held as shares, part active and part on its way out. Both parts have one price, so a slash takes the same
/// ratio of each without touching a single holder. Two slots.
struct StakePot {
    uint96 assets; // base units of the stake token: 7.9e28, that is 79 billion tokens of 18 decimals
    uint160 activeShares;
    uint160 exitingShares;
    uint32 generation;
    uint32 depletedBefore; // shares of generations below this one are worth nothing
}

/// @title StakePots: the arithmetic of a StakePot. Every rounding is against the caller and for those who stay.
/// @notice Laws, held after each function and fuzzed in contracts/test/token/stake-pots.t.sol:
///   assets <= shares <= 1e12 * assets, hence no share is ever worth more than one base unit: a depositor loses at most one
///   base unit to rounding, and to raise the price of a share against the next depositor is impossible;
///   assets == 0 exactly when there are no shares;
///   no function but `slash` and `startExit` lowers activeAssets; `slash(x)` lowers it by at most x.
library StakePots {
    /// Above this the generation ends: holders keep their part, at RESCALE old shares for a new one.
    uint256 internal constant SHARES_PER_ASSET_MAX = 1e12;
    uint256 internal constant RESCALE = 1e9;

    function totalShares(StakePot storage pot) internal view returns (uint256) {
        return uint256(pot.activeShares) + pot.exitingShares;
    }

    /// @notice What is staked and not leaving, rounded down.
    function activeAssets(StakePot storage pot) internal view returns (uint256) {
        return toAssetsDown(pot, pot.activeShares);
    }

    function toAssetsDown(StakePot storage pot, uint256 shares) internal view returns (uint256) {
        uint256 total = totalShares(pot);
        return total == 0 ? 0 : shares * pot.assets / total;
    }

    /// @notice The fewest active shares that are worth `assets`; more than there are when `assets` is above activeAssets.
    function toSharesUp(StakePot storage pot, uint256 assets) internal view returns (uint256) {
        if (pot.assets == 0) return assets;
        return (assets * totalShares(pot) + pot.assets - 1) / pot.assets;
    }

    /// @notice Adds stake. `assets` must fit 96 bits together with what is there (checked by the caller's SafeCast).
    function add(StakePot storage pot, uint96 assets) internal returns (uint256 shares) {
        shares = pot.assets == 0 ? assets : assets * totalShares(pot) / pot.assets;
        pot.assets += assets;
        pot.activeShares += uint160(shares); // < 2^140 by the laws above
    }

    function startExit(StakePot storage pot, uint256 shares) internal {
        pot.activeShares -= uint160(shares);
        pot.exitingShares += uint160(shares);
    }

    function finishExit(StakePot storage pot, uint256 shares) internal returns (uint256 assets) {
        assets = toAssetsDown(pot, shares);
        pot.exitingShares -= uint160(shares);
        pot.assets -= uint96(assets);
    }

    /// @notice Takes `assets` from active and exiting shares at one ratio. Ends the generation when nothing is left, or when a
    /// share has become too small to reckon with. Active shares are rescaled upwards and exiting ones downwards, so that what
    /// backs the locks does not shrink by it.
    /// @return ended whether the generation that the slash found has ended
    function slash(StakePot storage pot, uint256 assets) internal returns (bool ended) {
        pot.assets -= uint96(assets);
        if (pot.assets == 0 && totalShares(pot) != 0) {
            (pot.activeShares, pot.exitingShares) = (0, 0);
            pot.depletedBefore = ++pot.generation;
            return true;
        }
        while (totalShares(pot) > pot.assets * SHARES_PER_ASSET_MAX) {
            pot.activeShares = uint160((pot.activeShares + RESCALE - 1) / RESCALE);
            pot.exitingShares = uint160(pot.exitingShares / RESCALE);
            ++pot.generation;
            ended = true;
        }
    }

    /// @notice What shares bought in `generation` are now.
    function carryOver(StakePot storage pot, uint256 shares, uint32 generation) internal view returns (uint256) {
        if (generation < pot.depletedBefore) return 0;
        for (; generation < pot.generation && shares != 0; ++generation) {
            shares /= RESCALE;
        }
        return shares;
    }
}
