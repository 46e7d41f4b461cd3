// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Totals: amounts of one batch gathered by whom they concern, so that each is moved once and not once a job.
library Totals {
    /// Entries that are looked through for a key; one that lies further back gets a second entry, which costs a transfer, never money.
    uint256 private constant LOOK_BACK = 16;

    struct List {
        uint256[] keys;
        uint256[] amounts;
        uint256 count;
    }

    /// @param capacity at least as many as will be added
    function create(uint256 capacity) internal pure returns (List memory list) {
        (list.keys, list.amounts) = (new uint256[](capacity), new uint256[](capacity));
    }

    function add(List memory list, uint256 key, uint256 amount) internal pure {
        if (amount == 0) return;
        uint256 count = list.count;
        uint256 first = count > LOOK_BACK ? count - LOOK_BACK : 0;
        for (uint256 i = count; i > first; --i) {
            if (list.keys[i - 1] != key) continue;
            list.amounts[i - 1] += amount;
            return;
        }
        (list.keys[count], list.amounts[count], list.count) = (key, amount, count + 1);
    }

    /// @notice An account in one of two tokens.
    function keyOf(bool inStable, address account) internal pure returns (uint256) {
        return (inStable ? 1 << 255 : 0) | uint160(account);
    }

    function isStable(uint256 key) internal pure returns (bool) {
        return key >> 255 == 1;
    }

    function accountOf(uint256 key) internal pure returns (address) {
        return address(uint160(key));
    }
}
