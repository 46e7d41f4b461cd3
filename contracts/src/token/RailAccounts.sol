// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IRails} from "./IRails.sol";

/// @title RailAccounts: money that is in the Rails contract, by token and account, and what a meter may take of it.
/// @notice Any ERC-20 whose balances change by transfers alone and by the amount transferred. A token that keeps a fee is refused
/// when it comes in and when it goes out; one that changes balances by itself (rebasing) must not be deposited. Tokens are kept
/// apart: a hostile one can only cheat those who deposited it.
abstract contract RailAccounts is IRails, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    mapping(address token => mapping(address account => uint256)) private _balances;
    mapping(address payer => mapping(address meter => mapping(address token => uint256))) private _allowances;
    mapping(address token => uint256) private _obligations;

    error BadSignatureLength(uint256 got, uint256 expected);
    error NotAToken(address token);

    /// @inheritdoc IRails
    function deposit(address token, address account, uint256 amount) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        uint256 before = _held(token);
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        _credited(token, account, amount, before);
    }

    /// @notice Credits the caller by its ERC-3009 `ReceiveWithAuthorization` to this contract: no approval, one transaction.
    /// @param signature 65 bytes r, s, v
    /// @inheritdoc IRails
    function depositWithAuthorization(
        address token,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        if (signature.length != 65) revert BadSignatureLength(signature.length, 65);
        uint256 before = _held(token);
        (bytes32 r, bytes32 s, uint8 v) = (bytes32(signature[:32]), bytes32(signature[32:64]), uint8(signature[64]));
        IERC3009(token).receiveWithAuthorization(msg.sender, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        _credited(token, msg.sender, amount, before);
    }

    /// @inheritdoc IRails
    function withdraw(address token, uint256 amount, address to) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        _debit(token, msg.sender, amount);
        _obligations[token] -= amount;
        emit Withdrawn(token, msg.sender, to, amount);
        uint256 before = _held(token);
        IERC20(token).safeTransfer(to, amount);
        // A transfer to this contract itself would credit nobody; a fee on top would be paid by all others.
        uint256 left = _held(token);
        unchecked {
            if (before - left != amount) revert TokenShortfall(token, amount, before - left);
        }
    }

    /// @inheritdoc IRails
    function transfer(address token, address to, uint256 amount) external {
        _debit(token, msg.sender, amount);
        _transferred(token, msg.sender, to, amount);
    }

    /// @inheritdoc IRails
    function transferFrom(address token, address payer, address to, uint256 amount) external {
        _debitFor(token, payer, msg.sender, amount);
        _transferred(token, payer, to, amount);
    }

    /// @notice Sets the allowance; opening and topping up rails uses it up. The approved amount is what the meter may take or hold:
    /// approve only modules that you trust with it.
    /// @inheritdoc IRails
    function approve(address meter, address token, uint256 allowance) external {
        _allowances[msg.sender][meter][token] = allowance;
        emit Approved(msg.sender, meter, token, allowance);
    }

    /// @inheritdoc IRails
    function balanceOf(address token, address account) external view returns (uint256) {
        return _balances[token][account];
    }

    /// @inheritdoc IRails
    function allowanceOf(address payer, address meter, address token) external view returns (uint256) {
        return _allowances[payer][meter][token];
    }

    /// @inheritdoc IRails
    function obligationsOf(address token) external view returns (uint256) {
        return _obligations[token];
    }

    function _credit(address token, address account, uint256 amount) internal {
        if (amount != 0) _balances[token][account] += amount;
    }

    function _debit(address token, address account, uint256 amount) internal {
        uint256 available = _balances[token][account];
        if (amount > available) revert InsufficientBalance(token, account, amount, available);
        _balances[token][account] = available - amount;
    }

    /// @dev As _debit, on behalf of a payer who has approved the meter.
    function _debitFor(address token, address payer, address meter, uint256 amount) internal {
        uint256 allowance = _allowances[payer][meter][token];
        if (amount > allowance) revert InsufficientAllowance(payer, meter, token, amount, allowance);
        _allowances[payer][meter][token] = allowance - amount;
        _debit(token, payer, amount);
    }

    function _transferred(address token, address from, address to, uint256 amount) private {
        if (amount == 0) revert ZeroAmount();
        _credit(token, to, amount);
        emit Transferred(token, from, to, amount);
    }

    function _credited(address token, address account, uint256 amount, uint256 before) private {
        uint256 held = _held(token);
        uint256 received;
        unchecked {
            received = held - before;
        }
        if (received != amount) revert TokenShortfall(token, amount, received);
        _obligations[token] += amount;
        _credit(token, account, amount);
        emit Deposited(token, account, msg.sender, amount);
    }

    function _held(address token) private view returns (uint256) {
        if (token.code.length == 0) revert NotAToken(token);
        return IERC20(token).balanceOf(address(this));
    }
}
