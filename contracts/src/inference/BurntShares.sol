// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IEmissionShares, ISubnetEmission} from "./ISubnetEmission.sol";

/// @title BurntShares: emission goes to subnets by what was burnt for them, old burns counting half as much after each half-life.
/// @notice Registrations and fees burn the network's token, and nobody gets anything back: to raise a subnet's share costs the same
/// whoever does it, its owner too, and splitting one subnet into many changes nothing. No owner, no parameter that can change.
/// @dev Instead of letting old burns shrink, new ones grow: by 2^(t / halfLife), in straight lines between the doublings. All shares
/// keep their proportion that way without being touched. After 64 half-lives the growth ends.
contract BurntShares is IEmissionShares {
    uint256 private constant DOUBLINGS_MAX = 64;

    IRegistry public immutable registry;
    ISubnetEmission public immutable emission;
    uint256 public immutable halfLifeSeconds;
    uint256 public immutable startTime;

    error BadHalfLife(uint256 got);
    error NotSubnets(address caller);

    modifier onlySubnets() {
        if (msg.sender != registry.get("subnets")) revert NotSubnets(msg.sender);
        _;
    }

    constructor(IRegistry registry_, ISubnetEmission emission_, uint256 halfLifeSeconds_) {
        if (halfLifeSeconds_ == 0) revert BadHalfLife(halfLifeSeconds_);
        (registry, emission, halfLifeSeconds, startTime) = (registry_, emission_, halfLifeSeconds_, block.timestamp);
    }

    /// @inheritdoc IEmissionShares
    function burntFor(uint64 subnetId, uint256 amount) external onlySubnets {
        emission.setShare(subnetId, emission.shareOf(subnetId) + weightOf(amount, block.timestamp));
    }

    /// @inheritdoc IEmissionShares
    function dissolved(uint64 subnetId) external onlySubnets {
        emission.setShare(subnetId, 0);
    }

    /// @notice What an amount burnt at a time adds to a share.
    function weightOf(uint256 amount, uint256 time) public view returns (uint256) {
        uint256 elapsed = Math.min(time - startTime, DOUBLINGS_MAX * halfLifeSeconds);
        uint256 part = elapsed % halfLifeSeconds;
        return Math.mulDiv(amount << (elapsed / halfLifeSeconds), halfLifeSeconds + part, halfLifeSeconds);
    }
}
