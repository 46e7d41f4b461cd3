// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title The timelock that owns registry and parameters: what a vote decided waits here, visible, before anyone may execute it.
/// @notice The governor that creates it is its only proposer and canceller; executing is open to all; nobody is admin but the timelock itself.
/// The delay may be lengthened by a vote (to LENGTHEN_MAX times the first), never below the first one.
contract Timelock is TimelockController {
    uint256 public constant LENGTHEN_MAX = 8;
    uint256 public immutable delayMin;

    error DelayOutOfBounds(uint256 got, uint256 min, uint256 max);

    constructor(uint256 delaySeconds, address governor) TimelockController(delaySeconds, _only(governor), _only(address(0)), address(0)) {
        delayMin = delaySeconds;
    }

    function updateDelay(uint256 newDelay) public override {
        uint256 max = delayMin * LENGTHEN_MAX;
        if (newDelay < delayMin || newDelay > max) revert DelayOutOfBounds(newDelay, delayMin, max);
        super.updateDelay(newDelay);
    }

    function _only(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
