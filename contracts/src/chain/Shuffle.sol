// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Shuffle: a random order of 0 .. population - 1 of which only the first entries are ever worked out.
/// @notice Fisher and Yates' shuffle that is not written out: only what was put where is kept, in lists that grow with the steps. The entry at a
/// step costs a look at all earlier ones, so `stepsMax` is to be some hundreds at most.
library Shuffle {
    uint256 private constant FIRST_WORDS = 8;

    struct Order {
        uint256 seed;
        uint256 population;
        uint256 stepsMax; // at most the population
        uint256 step;
        uint256[] swaps; // of each step: the place, and what was put there
    }

    /// @notice An order that gives at most `stepsMax` entries, no two the same.
    function begin(uint256 seed, uint256 population, uint256 stepsMax) internal pure returns (Order memory) {
        return Order(seed, population, population < stepsMax ? population : stepsMax, 0, new uint256[](FIRST_WORDS));
    }

    function isDone(Order memory order) internal pure returns (bool) {
        return order.step == order.stepsMax;
    }

    /// @notice The next entry; only while the order is not done.
    function next(Order memory order) internal pure returns (uint256 picked) {
        uint256 step = order.step;
        uint256 at = 2 * step;
        if (at == order.swaps.length) order.swaps = _doubled(order.swaps);
        uint256 place = step + uint256(keccak256(abi.encode(order.seed, step))) % (order.population - step);
        picked = _valueAt(order.swaps, place, at);
        order.swaps[at + 1] = _valueAt(order.swaps, step, at);
        order.swaps[at] = place;
        order.step = step + 1;
    }

    /// What stands at `place` after the swaps in the first `words` words.
    function _valueAt(uint256[] memory swaps, uint256 place, uint256 words) private pure returns (uint256) {
        for (uint256 i = words; i > 0; i -= 2) {
            if (swaps[i - 2] == place) return swaps[i - 1];
        }
        return place;
    }

    function _doubled(uint256[] memory list) private pure returns (uint256[] memory longer) {
        longer = new uint256[](2 * list.length);
        assembly ("memory-safe") {
            mcopy(add(longer, 0x20), add(list, 0x20), mul(0x20, mload(list)))
        }
    }
}
