// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../chain/IRegistry.sol";
import {NetworkToken} from "../token/NetworkToken.sol";
import {ComputeSchedule} from "./ComputeSchedule.sol";
import {IComputeEmission} from "./IComputeEmission.sol";

/// @title ComputeEmission: see IComputeEmission for the rules. No owner, no parameter.
contract ComputeEmission is IComputeEmission {
    bytes32 private constant REWARDS = "computeRewards";
    /// @notice What exists at launch, no more and no less.
    uint256 public constant LAUNCH_SUPPLY = 500_000_000e18;
    uint256 public constant CAP = LAUNCH_SUPPLY + ComputeSchedule.TOTAL;

    IRegistry public immutable registry;
    NetworkToken private immutable TOKEN;
    /// @notice Hour 1 starts here.
    uint64 public immutable startTime;
    /// @inheritdoc IComputeEmission
    uint256 public emitted;

    /// @param name at most 31 bytes (it is the EIP-712 domain)
    /// @param launch who holds the launch supply
    constructor(IRegistry registry_, string memory name, string memory symbol, NetworkToken.Allocation[] memory launch) {
        registry = registry_;
        startTime = uint64(block.timestamp);
        TOKEN = new NetworkToken(name, symbol, CAP, launch);
        uint256 supply = TOKEN.totalSupply();
        if (supply != LAUNCH_SUPPLY) revert LaunchSupplyDiffers(supply, LAUNCH_SUPPLY);
    }

    /// @inheritdoc IComputeEmission
    function mint() external returns (uint256 amount) {
        uint64 hours_ = hoursPassed();
        uint256 due = ComputeSchedule.emittedBy(hours_);
        amount = due - emitted;
        if (amount == 0) return 0;
        emitted = due;
        address rewards = registry.get(REWARDS);
        emit Minted(hours_, rewards, amount);
        TOKEN.mint(rewards, amount);
    }

    /// @inheritdoc IComputeEmission
    function token() external view returns (address) {
        return address(TOKEN);
    }

    /// @inheritdoc IComputeEmission
    function emissionMax() external pure returns (uint256) {
        return ComputeSchedule.TOTAL;
    }

    /// @inheritdoc IComputeEmission
    function scheduled() external view returns (uint256) {
        return ComputeSchedule.emittedBy(hoursPassed());
    }

    /// @inheritdoc IComputeEmission
    function emissionOf(uint64 hour) external pure returns (uint256) {
        return hour == 0 ? 0 : ComputeSchedule.emittedBy(hour) - ComputeSchedule.emittedBy(hour - 1);
    }

    /// @inheritdoc IComputeEmission
    function hoursPassed() public view returns (uint64) {
        return (uint64(block.timestamp) - startTime) / ComputeSchedule.HOUR_SECONDS;
    }
}
