// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IBackerIncome, IBackerListener, IIncomeSource} from "./IBackerIncome.sol";
import {IStakeVault} from "./IStakeVault.sol";
import {StakePots} from "./StakePots.sol";

/// @title BackerIncome: see IBackerIncome for the rules. Its only power, to add a token, is the timelock's.
/// @notice Income per share is summed up for each generation of the vault's pool of backers (see StakePots), as Q128. A generation that a
/// slash ended keeps its sum, so what was earned before a slash stays earned. Tokens must be plain ERC-20 without fees or callbacks.
contract BackerIncome is IBackerIncome {
    using SafeERC20 for IERC20;

    uint256 private constant BPS = 10_000;
    uint256 private constant Q128 = 1 << 128;
    uint16 public constant TAKE_MAX_BPS = 5_000;
    /// @notice Each token costs gas in the vault's hook, which has a bound.
    uint256 public constant TOKENS_MAX = 4;
    uint256 private constant RELEASE_GAS = 250_000;

    struct Take {
        uint16 bps;
        uint16 nextBps;
        uint64 nextFrom; // 0: no change waits
        bool isChosen; // else the default
    }

    /// What came in for an operator in one token and is not paid out.
    struct Purse {
        uint128 operator;
        uint128 backers;
    }

    struct Generation {
        uint256 perShare; // Q128, all that each share of this generation got
        uint32 depletedBefore; // shares of earlier generations than this one had no part in it
    }

    struct Mark {
        uint256 perShare; // as it was when the backer was last settled
        uint128 credited;
        uint32 generation;
    }

    IRegistry public immutable registry;
    IStakeVault public immutable vault;
    IOperators public immutable operators;
    uint16 public immutable takeBpsDefault;
    uint64 public immutable takeDelaySeconds;

    address[] private _tokens;
    mapping(address token => bool) private _isToken;
    mapping(uint64 operatorId => Take) private _takes;
    mapping(uint64 operatorId => mapping(address token => Purse)) private _purses;
    mapping(uint64 operatorId => mapping(address token => mapping(uint256 generation => Generation))) private _generations;
    mapping(uint64 operatorId => mapping(address token => mapping(address backer => Mark))) private _marks;

    constructor(
        uint16 takeBps,
        uint64 takeDelaySeconds_,
        IRegistry registry_,
        IStakeVault vault_,
        IOperators operators_,
        address[] memory tokens_
    ) {
        if (takeBps > TAKE_MAX_BPS) revert TakeTooHigh(takeBps, TAKE_MAX_BPS);
        (takeBpsDefault, takeDelaySeconds) = (takeBps, takeDelaySeconds_);
        (registry, vault, operators) = (registry_, vault_, operators_);
        for (uint256 i; i < tokens_.length; ++i) {
            _addToken(tokens_[i]);
        }
    }

    // ------------------------------------------------------------------------------------------------------------- income

    /// @inheritdoc IBackerIncome
    function distribute(uint64 operatorId, address token, uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        if (amount > type(uint96).max) revert AmountTooLarge(amount, type(uint96).max);
        if (!_isToken[token]) revert UnknownToken(token);
        operators.ownerOf(operatorId); // reverts for one that does not exist
        uint256 toBackers = _share(operatorId, token, amount - amount * takeBpsOf(operatorId) / BPS);
        Purse storage purse = _purses[operatorId][token];
        purse.operator += uint128(amount - toBackers);
        purse.backers += uint128(toBackers);
        emit IncomeDistributed(operatorId, token, msg.sender, amount, amount - toBackers, toBackers);
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IBackerListener
    function beforeSharesChange(uint64 operatorId, address backer, uint256 shares, uint32 generation) external {
        if (msg.sender != address(vault)) revert NotVault(msg.sender);
        // What waits was earned by the stake as it still is.
        _releaseFrom("subnetEpochs", operatorId);
        _releaseFrom("computeRewards", operatorId);
        uint256 present = vault.pool(operatorId).generation;
        for (uint256 i; i < _tokens.length; ++i) {
            _settle(operatorId, _tokens[i], backer, shares, generation, present);
        }
    }

    /// @dev A source that is missing or fails stops nothing: its income waits on.
    function _releaseFrom(bytes32 source, uint64 operatorId) private {
        try registry.get(source) returns (address at) {
            try IIncomeSource(at).release{gas: RELEASE_GAS}(operatorId) {} catch {}
        } catch {}
    }

    /// @inheritdoc IBackerIncome
    function claim(uint64 operatorId, address token, address to) external returns (uint256 amount) {
        (uint256 shares, uint32 generation,) = vault.positionOf(operatorId, msg.sender);
        _settle(operatorId, token, msg.sender, shares, generation, vault.pool(operatorId).generation);
        Mark storage mark = _marks[operatorId][token][msg.sender];
        Purse storage purse = _purses[operatorId][token];
        // The purse of one operator and token never pays for another's.
        amount = Math.min(mark.credited, purse.backers);
        if (amount == 0) revert NothingToClaim(operatorId, token, msg.sender);
        mark.credited -= uint128(amount);
        purse.backers -= uint128(amount);
        emit IncomeClaimed(operatorId, token, msg.sender, to, amount);
        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IBackerIncome
    function claimOperator(uint64 operatorId, address token) external returns (uint256 amount) {
        Purse storage purse = _purses[operatorId][token];
        address to = operators.beneficiaryOf(operatorId);
        amount = purse.operator;
        if (amount == 0) revert NothingToClaim(operatorId, token, to);
        purse.operator = 0;
        emit IncomeClaimed(operatorId, token, to, to, amount);
        IERC20(token).safeTransfer(to, amount);
    }

    /// @dev What of `amount` falls on the backers, added to the sum per share; rounded down.
    function _share(uint64 operatorId, address token, uint256 amount) private returns (uint256 toBackers) {
        IStakeVault.Pool memory pool = vault.pool(operatorId);
        (uint256 own,) = vault.ownStake(operatorId);
        if (pool.activeAssets == 0) return 0;
        toBackers = amount * pool.activeAssets / (own + pool.activeAssets);
        Generation storage current = _generations[operatorId][token][pool.generation];
        if (current.perShare == 0) (,, current.depletedBefore) = vault.positionOf(operatorId, address(0));
        current.perShare += toBackers * Q128 / pool.activeShares;
    }

    /// @dev Credits a backer with all that its shares got since it was last settled, through every generation since.
    function _settle(uint64 operatorId, address token, address backer, uint256 shares, uint32 generation, uint256 present) private {
        Mark storage mark = _marks[operatorId][token][backer];
        uint256 earned = _earned(operatorId, token, mark, shares, generation, present);
        if (earned != 0) mark.credited += uint128(earned);
        uint256 perShare = _generations[operatorId][token][present].perShare;
        if (mark.perShare != perShare) mark.perShare = perShare;
        if (mark.generation != present) mark.generation = uint32(present);
    }

    function _earned(uint64 operatorId, address token, Mark storage mark, uint256 shares, uint256 generation, uint256 present)
        private
        view
        returns (uint256 earned)
    {
        uint256 bought = generation;
        // In some six generations any shares have shrunk to nothing.
        for (; generation <= present && shares != 0; ++generation) {
            if (generation >= mark.generation) {
                Generation storage at = _generations[operatorId][token][generation];
                uint256 perShare = at.perShare;
                if (perShare != 0 && at.depletedBefore > bought) return earned;
                if (generation == mark.generation) perShare -= mark.perShare;
                earned += Math.mulDiv(shares, perShare, Q128);
            }
            shares /= StakePots.RESCALE;
        }
    }

    // --------------------------------------------------------------------------------------------------------------- take

    /// @inheritdoc IBackerIncome
    function proposeTake(uint64 operatorId, uint16 takeBps) external {
        if (operators.ownerOf(operatorId) != msg.sender) revert NotOperatorOwner(operatorId, msg.sender);
        if (takeBps > TAKE_MAX_BPS) revert TakeTooHigh(takeBps, TAKE_MAX_BPS);
        uint64 from = uint64(block.timestamp) + takeDelaySeconds;
        _takes[operatorId] = Take(takeBpsOf(operatorId), takeBps, from, true);
        emit TakeProposed(operatorId, takeBps, from);
    }

    /// @inheritdoc IBackerIncome
    function takeBpsOf(uint64 operatorId) public view returns (uint16) {
        Take memory take = _takes[operatorId];
        if (!take.isChosen) return takeBpsDefault;
        return block.timestamp >= take.nextFrom ? take.nextBps : take.bps;
    }

    /// @notice The change that waits, or that was the last.
    function nextTakeOf(uint64 operatorId) external view returns (uint16 takeBps, uint64 effectiveFrom) {
        return (_takes[operatorId].nextBps, _takes[operatorId].nextFrom);
    }

    // ------------------------------------------------------------------------------------------------------------- tokens

    /// @inheritdoc IBackerIncome
    function addToken(address token) external {
        if (msg.sender != registry.get("timelock")) revert NotTimelock(msg.sender);
        _addToken(token);
    }

    function _addToken(address token) private {
        if (_isToken[token]) revert DuplicateToken(token);
        if (_tokens.length == TOKENS_MAX) revert TooManyTokens(TOKENS_MAX);
        _isToken[token] = true;
        _tokens.push(token);
        emit TokenAdded(token);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IBackerIncome
    function claimableOf(uint64 operatorId, address token, address backer) external view returns (uint256) {
        (uint256 shares, uint32 generation,) = vault.positionOf(operatorId, backer);
        Mark storage mark = _marks[operatorId][token][backer];
        uint256 earned = _earned(operatorId, token, mark, shares, generation, vault.pool(operatorId).generation);
        return Math.min(mark.credited + earned, _purses[operatorId][token].backers);
    }

    /// @inheritdoc IBackerIncome
    function operatorClaimable(uint64 operatorId, address token) external view returns (uint256) {
        return _purses[operatorId][token].operator;
    }

    /// @notice All that came in for an operator's backers in a token and was not paid out: what they can claim, and dust.
    function backersPurse(uint64 operatorId, address token) external view returns (uint256) {
        return _purses[operatorId][token].backers;
    }

    /// @inheritdoc IBackerIncome
    function tokens() external view returns (address[] memory) {
        return _tokens;
    }
}
