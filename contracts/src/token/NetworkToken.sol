// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {AuthorizedERC20} from "./AuthorizedERC20.sol";

/// @title The network's token. Immutable, no owner; its only minter is the contract that creates it, for ever.
/// @notice `mintedTotal` never falls and never exceeds `cap`: what is burnt is gone and cannot be minted again.
contract NetworkToken is AuthorizedERC20 {
    struct Allocation {
        address to;
        uint256 amount;
    }

    uint256 public immutable cap;
    /// @notice The emission policy that created this token.
    address public immutable minter;
    /// @notice All that was ever minted, burnt or not.
    uint256 public mintedTotal;

    error NotMinter(address caller, address minter);
    error CapExceeded(uint256 minted, uint256 cap);

    /// @param genesis what exists from the start
    constructor(string memory name_, string memory symbol_, uint256 cap_, Allocation[] memory genesis) AuthorizedERC20(name_, symbol_) {
        cap = cap_;
        minter = msg.sender;
        for (uint256 i; i < genesis.length; ++i) {
            _mint(genesis[i].to, genesis[i].amount);
        }
    }

    /// @notice Only the minter, up to the cap.
    function mint(address to, uint256 amount) external {
        if (msg.sender != minter) revert NotMinter(msg.sender, minter);
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override(ERC20) {
        if (from == address(0)) {
            if (amount > cap - mintedTotal) {
                revert CapExceeded(amount > type(uint256).max - mintedTotal ? type(uint256).max : mintedTotal + amount, cap);
            }
            mintedTotal += amount;
        }
        super._update(from, to, amount);
    }
}
