// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {AuthorizedERC20} from "./AuthorizedERC20.sol";

/// @title A stable token FOR DEVELOPMENT ONLY: anyone may mint it, so it is worth nothing, and its name says so.
/// @notice Stands in for a token such as USDC (six decimals, permit, ERC-3009) where none exists. Never deploy it on a chain with value.
contract DevStable is AuthorizedERC20 {
    /// @notice Greatest amount of one call: one million units.
    uint256 public constant MINT_MAX = 1_000_000e6;

    error MintTooLarge(uint256 amount, uint256 limit);

    constructor() AuthorizedERC20("Millrace Worthless Dev Dollar", "devUSD") {}

    /// @notice The faucet: anyone, any number of times, up to MINT_MAX a call.
    function mint(address to, uint256 amount) external {
        if (amount > MINT_MAX) revert MintTooLarge(amount, MINT_MAX);
        _mint(to, amount);
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
