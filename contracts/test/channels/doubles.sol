// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IDepositCollector} from "../../src/token/IDepositCollector.sol";

/// @notice Brings what it was told to bring, and in between calls back into the channels contract.
contract HostileCollector is IDepositCollector {
    uint256 public brings;
    bytes public call;
    bool public answered;
    bytes public answer;

    function set(uint256 brings_, bytes calldata call_) external {
        (brings, call) = (brings_, call_);
    }

    function collect(address, address token, uint256, bytes32, bytes calldata) external {
        if (call.length != 0) (answered, answer) = msg.sender.call(call);
        if (brings != 0) IERC20(token).transfer(msg.sender, brings);
    }
}

/// @notice Calls back into the channels contract in the middle of each transfer out of it.
contract ReenteringToken is ERC20("Hostile", "HOST") {
    address public channels;
    bytes public call;
    bool public answered;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function reenterWith(address channels_, bytes calldata call_) external {
        (channels, call) = (channels_, call_);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from == channels && call.length != 0) (answered,) = channels.call(call);
    }
}

/// @notice A wallet that accepts every signature while it is told to.
contract ContractWallet is IERC1271 {
    bool public accepts = true;

    function set(bool accepts_) external {
        accepts = accepts_;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        return accepts ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}
