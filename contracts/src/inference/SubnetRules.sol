// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ISubnets} from "./ISubnets.sol";

/// @title SubnetRules: the bounds of hyper-parameters, and the prices of a subnet and of a uid.
library SubnetRules {
    uint256 internal constant U16 = 65_535;

    /// @notice Hard bounds: no owner can set a rule outside of them. 26,214 is 40 %, 39,321 is 60 % of stake: below the one a small
    /// cabal lifts its own, above the other a small minority stops everybody (inference.md 1.8).
    function check(ISubnets.Hyperparameters calldata h) internal pure {
        _range("kappa", h.kappa, 26_214, 39_321);
        _range("bondsMovingAverage", h.bondsMovingAverage, 0, 1_000_000);
        _range("alphaHigh", h.alphaHigh, 1, U16);
        _range("alphaLow", h.alphaLow, 1, h.alphaHigh);
        _range("alphaSteepness", h.alphaSteepness, 0, 2_000);
        _range("stakeCapPercentile", h.stakeCapPercentile, 0, 99);
        _range("maxValidators", h.maxValidators, 1, 64);
        _range("bondRowCap", h.bondRowCap, 1, 64);
        _range("revealDelayEpochs", h.revealDelayEpochs, 1, 4);
        _range("immunityEpochs", h.immunityEpochs, 0, 1_000);
        // A miner must be judged before it can be pruned: its first whole epoch, the delay until that is opened, and its settlement.
        uint256 needed = uint256(h.revealDelayEpochs) + 3;
        if (h.immunityEpochs < needed) revert ISubnets.ImmunityTooShort(h.immunityEpochs, needed);
    }

    /// @notice A price that halves in each half-life, in a straight line between (at most 6 % above the curve), within its bounds.
    function decayed(uint256 price, uint256 elapsed, uint256 halfLife, uint256 min, uint256 max) internal pure returns (uint256) {
        uint256 halvings = elapsed / halfLife;
        price = halvings > 127 ? 0 : price >> halvings;
        return Math.min(Math.max(price * (2 * halfLife - elapsed % halfLife) / (2 * halfLife), min), max);
    }

    /// @notice Twice the last lock, less the last lock in each `interval`, at least `min`.
    function lockCost(uint256 last, uint256 elapsed, uint256 interval, uint256 min) internal pure returns (uint256) {
        uint256 off = last * elapsed / interval;
        return off >= 2 * last ? min : Math.max(2 * last - off, min);
    }

    function _range(bytes32 field, uint256 got, uint256 min, uint256 max) private pure {
        if (got < min || got > max) revert ISubnets.OutOfRange(field, got, min, max);
    }
}
