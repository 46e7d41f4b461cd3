// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Shuffle: a random order of 0 .. population - 1 of which only the first entries are ever worked out.
/// @notice Fisher and Yates' shuffle that is not written out: only what was put where is kept. The entry at a step costs a look at all
/// earlier ones, so `stepsMax` is to be some hundreds at most.
library Shuffle {
    struct Order {
        uint256 seed;
        uint256 population;
        uint256 step;
        uint256[] places;
        uint256[] values;
    }

    /// @notice An order that gives at most `stepsMax` entries, no two the same.
    function begin(uint256 seed, uint256 population, uint256 stepsMax) internal pure returns (Order memory order) {
        uint256 steps = population < stepsMax ? population : stepsMax;
        order.seed = seed;
        order.population = population;
        order.places = new uint256[](steps);
        order.values = new uint256[](steps);
    }

    function isDone(Order memory order) internal pure returns (bool) {
        return order.step == order.places.length;
    }

    /// @notice The next entry; only while the order is not done.
    function next(Order memory order) internal pure returns (uint256 picked) {
        uint256 step = order.step;
        uint256 place = step + uint256(keccak256(abi.encode(order.seed, step))) % (order.population - step);
        order.places[step] = place;
        picked = _valueAt(order, place, step);
        order.values[step] = _valueAt(order, step, step);
        order.step = step + 1;
    }

    /// What stands at `place` after the first `steps` swaps.
    function _valueAt(Order memory order, uint256 place, uint256 steps) private pure returns (uint256) {
        uint256[] memory places = order.places;
        for (uint256 i = steps; i > 0; --i) {
            if (places[i - 1] == place) return order.values[i - 1];
        }
        return place;
    }
}
