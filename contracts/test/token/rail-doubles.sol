// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IRailMeter} from "../../src/token/IRails.sol";
import {Rails} from "../../src/token/Rails.sol";

/// @notice A meter that proves the slots of SLOT seconds whose bit is set, and is sure of all slots before `sureSlots`.
contract MeterDouble is IRailMeter {
    uint64 public constant SLOT = 10;
    uint64 public immutable epoch;
    uint256 public proven;
    uint64 public sureTo = type(uint64).max;

    constructor(uint64 epoch_) {
        epoch = epoch_;
    }

    function set(uint256 proven_, uint64 sureTo_) external {
        (proven, sureTo) = (proven_, sureTo_);
    }

    function measure(uint256, uint64 from, uint64 to) external view returns (uint64 provenSeconds, uint64 settledTo) {
        settledTo = to < sureTo ? to : (sureTo < from ? from : sureTo);
        for (uint64 at = from; at < settledTo;) {
            uint64 next = epoch + ((at - epoch) / SLOT + 1) * SLOT;
            if (next > settledTo) next = settledTo;
            if (proven >> (((at - epoch) / SLOT) % 256) & 1 == 1) provenSeconds += next - at;
            at = next;
        }
    }
}

/// @notice A meter that says whatever it was told.
contract LyingMeter is IRailMeter {
    uint64 private proven;
    uint64 private settledTo;

    function say(uint64 proven_, uint64 settledTo_) external {
        (proven, settledTo) = (proven_, settledTo_);
    }

    function measure(uint256, uint64, uint64) external view returns (uint64, uint64) {
        return (proven, settledTo);
    }
}

/// @notice Keeps a fee: from what arrives, or on top of what is sent.
contract FeeToken is ERC20("Fee", "FEE") {
    uint256 public inFee;
    uint256 public onTopFee;

    function set(uint256 inFee_, uint256 onTopFee_) external {
        (inFee, onTopFee) = (inFee_, onTopFee_);
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from == address(0) || to == address(0)) return;
        if (inFee != 0) _burn(to, inFee);
        if (onTopFee != 0) _burn(from, onTopFee);
    }
}

/// @notice Calls back into Rails in the middle of each transfer, as the account that it favours would.
contract ReenteringToken is ERC20("Hostile", "HOST") {
    Rails public immutable rails;
    bytes public call;
    bool public answered;
    bytes public answer;

    constructor(Rails rails_) {
        rails = rails_;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function reenterWith(bytes calldata call_) external {
        call = call_;
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (call.length != 0) (answered, answer) = address(rails).call(call);
    }
}

/// @notice Says `true` and moves nothing; answers any balance that it was told.
contract LyingToken {
    uint256 public balance;

    function say(uint256 balance_) external {
        balance = balance_;
    }

    function balanceOf(address) external view returns (uint256) {
        return balance;
    }

    function transferFrom(address, address, uint256) external pure returns (bool) {
        return true;
    }

    function transfer(address, uint256) external pure returns (bool) {
        return true;
    }

    function receiveWithAuthorization(address, address, uint256, uint256, uint256, bytes32, uint8, bytes32, bytes32) external {}
}
