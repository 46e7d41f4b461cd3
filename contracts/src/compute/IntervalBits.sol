// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title IntervalBits: sets of a lease's intervals, 256 to a word.
library IntervalBits {
    /// @notice Bits of a word whose intervals lie in [first, last).
    function range(uint256 word, uint256 first, uint256 last) internal pure returns (uint256) {
        return below(last, word) & ~below(first, word);
    }

    /// @notice Bits of a word whose intervals come before one.
    function below(uint256 interval, uint256 word) internal pure returns (uint256) {
        if (interval <= word * 256) return 0;
        return interval >= (word + 1) * 256 ? type(uint256).max : (1 << (interval - word * 256)) - 1;
    }

    function count(uint256 bits) internal pure returns (uint256 ones) {
        for (; bits != 0; ++ones) {
            bits &= bits - 1;
        }
    }

    /// @notice Intervals that are over at a time, of a time [from, until): whole ones, and at the end also the last.
    function passed(uint256 time, uint256 from, uint256 until, uint256 length) internal pure returns (uint256) {
        if (time <= from) return 0;
        return time >= until ? Math.ceilDiv(until - from, length) : (time - from) / length;
    }

    /// @notice Seconds that the intervals in `bits` have within [.., to), counted from the beginning.
    /// @param last number of intervals that begin before `to`: the last of them may be shorter than the others
    function secondsOf(uint256 bits, uint256 word, uint256 last, uint256 to, uint256 length) internal pure returns (uint256 time) {
        time = count(bits) * length;
        if (last > word * 256 && last <= (word + 1) * 256 && bits >> ((last - 1) % 256) & 1 == 1) time -= last * length - to;
    }
}
