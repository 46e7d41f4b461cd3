// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {Shuffle} from "../../src/chain/Shuffle.sol";

/// @notice The order that is worked out as far as it is asked for is Fisher and Yates' shuffle of the whole list.
contract ShuffleTest is Test {
    using Shuffle for Shuffle.Order;

    function testFuzz_each_step_is_that_of_a_shuffle_that_is_written_out(uint256 seed, uint256 population, uint256 stepsMax) public pure {
        population = bound(population, 0, 90);
        stepsMax = bound(stepsMax, 0, 100);
        uint256[] memory list = new uint256[](population);
        for (uint256 i; i < population; ++i) {
            list[i] = i;
        }
        Shuffle.Order memory order = Shuffle.begin(seed, population, stepsMax);
        uint256 step;
        for (; !order.isDone(); ++step) {
            uint256 place = step + uint256(keccak256(abi.encode(seed, step))) % (population - step);
            (list[step], list[place]) = (list[place], list[step]);
            assertEq(order.next(), list[step]);
        }
        assertEq(step, population < stepsMax ? population : stepsMax);
    }
}
