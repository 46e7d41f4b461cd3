// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IDepositCollector} from "./IDepositCollector.sol";

/// @notice ERC-3009 with the signature as bytes, as USDC has it.
interface IReceiveWithAuthorization {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @title Deposits by the payer's ERC-3009 authorization, at the address that stock x402 clients write into it.
/// @notice Stands on embedded chains only, in the genesis block: stock clients have its address compiled in. Everywhere else the channels
/// contract takes such authorizations itself. The nonce binds the authorization to one channel; it holds nothing between calls.
contract ERC3009DepositCollector is IDepositCollector {
    using SafeERC20 for IERC20;

    /// @notice The only caller.
    address public immutable channels;

    error NotChannels(address caller, address channels);

    constructor(address channels_) {
        channels = channels_;
    }

    /// @param collectorData abi.encode(validAfter, validBefore, salt, signature); the nonce is keccak256(abi.encode(channelId, salt))
    /// @inheritdoc IDepositCollector
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata collectorData) external {
        if (msg.sender != channels) revert NotChannels(msg.sender, channels);
        (uint256 validAfter, uint256 validBefore, uint256 salt, bytes memory signature) =
            abi.decode(collectorData, (uint256, uint256, uint256, bytes));
        bytes32 nonce = keccak256(abi.encode(channelId, salt));
        IReceiveWithAuthorization(token).receiveWithAuthorization(payer, address(this), amount, validAfter, validBefore, nonce, signature);
        IERC20(token).safeTransfer(channels, amount);
    }
}
