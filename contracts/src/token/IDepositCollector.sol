// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Brings a payer's tokens into the channels contract; the interface of x402 `batch-settlement`.
/// @notice The channels contract checks what arrived; the collector checks that the payer wants this deposit into this channel.
interface IDepositCollector {
    /// @notice Moves exactly `amount` from `payer` to the caller. Must refuse every caller but the channels contract that it serves.
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata collectorData) external;
}
