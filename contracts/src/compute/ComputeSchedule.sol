// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title The compute token's emission, hour by hour (docs.iog.net/docs/token-emission-schedule): 300 million over twenty years.
/// @notice Hour 1 brings E = 500 million * 8 % / 8,760 tokens, each hour after it (1 - d) times the hour before, d = 138869523959793 / 10^19.
/// After n hours that is, as a sum, E / d * (1 - (1 - d)^n), rounded down to a base unit; an hour brings the difference of two such sums, so
/// hours and sums are within one base unit of the exact numbers, and minting in one step or in many is the same. In hour 175,319 (twenty
/// years of 8,766 hours, less one) the sum would pass 300 million; from then on it is 300 million.
/// @dev The power is taken in Q.128, each product rounded down: less than 2^-22 base units off. For every one of the 175,319 hours the
/// result is the exact sum rounded down (src/compute/emission-schedule.test.ts goes through all of them).
library ComputeSchedule {
    /// @notice All that is ever emitted, base units.
    uint256 internal constant TOTAL = 300_000_000e18;
    /// @notice The hour whose end completes the total.
    uint64 internal constant LAST_HOUR = 175_319;
    uint64 internal constant HOUR_SECONDS = 3_600;

    uint256 private constant ONE = 1 << 128;
    /// (1 - d) in Q.128, rounded down.
    uint256 private constant KEPT = ONE * (10 ** 19 - 138_869_523_959_793) / 10 ** 19;
    /// E / d = 4e25 * 1e19 / (8760 * 138869523959793) base units: what the sum would tend to.
    uint256 private constant LIMIT_NUMERATOR = 4e44;
    uint256 private constant LIMIT_DENOMINATOR = 8_760 * 138_869_523_959_793;

    /// @notice Emitted by the first `hours_` hours together, base units.
    function emittedBy(uint64 hours_) internal pure returns (uint256) {
        if (hours_ >= LAST_HOUR) return TOTAL;
        return Math.mulDiv(LIMIT_NUMERATOR, ONE - _power(hours_), LIMIT_DENOMINATOR << 128);
    }

    /// (1 - d)^exponent in Q.128. Only ONE * ONE would overflow, and KEPT is below ONE.
    function _power(uint256 exponent) private pure returns (uint256 result) {
        result = ONE;
        for (uint256 square = KEPT; exponent != 0; exponent >>= 1) {
            if (exponent & 1 != 0) result = result * square >> 128;
            square = square * square >> 128;
        }
    }
}
