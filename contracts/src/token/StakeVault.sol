// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IParameters} from "../chain/IParameters.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {BackerHooks} from "./BackerHooks.sol";
import {IStakeVault} from "./IStakeVault.sol";
import {StakePot, StakePots} from "./StakePots.sol";
import {StakeVotes} from "./StakeVotes.sol";

/// @notice What the vault needs of the network's token beside ERC-20.
interface IBurnable {
    function burn(uint256 amount) external;
}

/// @title StakeVault: see IStakeVault for the rules. Immutable, no owner; only its parameters and its list of slashers can change,
/// both by the timelock.
/// @notice The stake token must be the network's own plain ERC-20. Balances are the vault's own books: a token sent to the
/// contract without a call belongs to nobody and changes nothing.
contract StakeVault is IStakeVault, StakeVotes, BackerHooks {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;
    using Math for uint256;
    using StakePots for StakePot;

    uint256 private constant BPS = 10_000;

    struct Account {
        StakePot own;
        StakePot backers;
        uint128 locked;
        uint32 disputes;
        uint96 lockLimit; // 0: none
    }

    struct Position {
        uint160 shares;
        uint32 generation;
    }

    /// @notice Stake on its way out. `backer` is zero for own stake, which is paid to whoever is the owner at the end.
    struct Exit {
        address backer;
        uint64 operatorId;
        uint32 generation;
        uint160 shares;
        uint48 requestedAt;
        uint48 delaySeconds;
    }

    IERC20 private immutable TOKEN;
    IRegistry public immutable registry;
    IOperators public immutable operators;
    IParameters public immutable parameters;

    event Claimed(address indexed account, address to, uint256 amount);

    error StillSlasher(address module);
    error NotFrozen(uint64 operatorId, address module);

    mapping(uint64 operatorId => Account) private _accounts;
    mapping(uint64 operatorId => mapping(address backer => Position)) private _positions;
    mapping(uint256 exitId => Exit) private _exits;
    mapping(uint64 operatorId => mapping(address module => uint256)) private _moduleLocks;
    mapping(address module => uint256) private _lockedBy;
    mapping(uint64 operatorId => mapping(address module => uint256)) private _freezes;
    mapping(address account => uint256) private _claimable;
    uint128 private _totalStake;
    uint128 private _totalClaimable;
    uint256 private _exitCount;

    modifier onlySlasher() {
        if (!registry.isSlasher(msg.sender)) revert NotSlasher(msg.sender);
        _;
    }

    constructor(address token, IRegistry registry_, IOperators operators_, IParameters parameters_) EIP712("Millrace Stake", "1") {
        TOKEN = IERC20(token);
        registry = registry_;
        operators = operators_;
        parameters = parameters_;
        _requireBounded(parameters_, "vault.backerLossCapBps", BPS); // above it a slash would take more than there is, and fail
        _requireBounded(parameters_, "vault.ownShareMinBps", BPS);
        _requireBounded(parameters_, "vault.withdrawalDelay", type(uint32).max);
    }

    // ---------------------------------------------------------------- own stake and backers

    /// @inheritdoc IStakeVault
    function deposit(uint64 operatorId, uint256 amount) public {
        if (amount == 0) revert ZeroAmount();
        _tellShares(operatorId); // own stake shares income too: what waits was earned without this
        _accounts[operatorId].own.add(amount.toUint96());
        _totalStake += uint128(amount);
        _syncVotes(operatorId);
        emit StakeDeposited(operatorId, msg.sender, amount);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice As deposit, with an ERC-2612 permit in the same transaction. A permit that somebody else has already used is no
    /// obstacle: what counts is the allowance.
    function depositWithPermit(uint64 operatorId, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        try IERC20Permit(address(TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        deposit(operatorId, amount);
    }

    /// @inheritdoc IStakeVault
    function back(uint64 operatorId, uint256 amount) external returns (uint256 shares) {
        if (amount == 0) revert ZeroAmount();
        _tellShares(operatorId);
        StakePot storage pot = _accounts[operatorId].backers;
        shares = pot.add(amount.toUint96());
        uint256 held = sharesOf(operatorId, msg.sender);
        _positions[operatorId][msg.sender] = Position(uint160(held + shares), pot.generation);
        _totalStake += uint128(amount);
        _syncVotes(operatorId);
        emit Backed(operatorId, msg.sender, amount, shares, pot.generation);
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
    }

    // ---------------------------------------------------------------- leaving

    /// @inheritdoc IStakeVault
    function requestExit(uint64 operatorId, uint256 amount) external returns (uint256 exitId) {
        if (operators.ownerOf(operatorId) != msg.sender) revert NotOperatorOwner(operatorId, msg.sender);
        if (amount == 0) revert ZeroAmount();
        Account storage account = _accounts[operatorId];
        uint256 free = Math.min(account.own.activeAssets(), _unlocked(account));
        if (amount > free) revert InsufficientUnlocked(operatorId, amount, free);
        uint256 shares = account.own.toSharesUp(amount);
        account.own.startExit(shares);
        // Shares are rounded up, so what stays may be one base unit less than `free` promised.
        if (account.locked > _slashable(account)) revert InsufficientUnlocked(operatorId, amount, free - 1);
        _requireOwnShare(operatorId, account);
        exitId = _startExit(Exit(address(0), operatorId, account.own.generation, uint160(shares), 0, 0), amount);
    }

    /// @inheritdoc IStakeVault
    function requestBackerExit(uint64 operatorId, uint256 shares) external returns (uint256 exitId) {
        if (shares == 0) revert ZeroAmount();
        Account storage account = _accounts[operatorId];
        uint256 held = sharesOf(operatorId, msg.sender);
        if (held == 0 && _positions[operatorId][msg.sender].shares != 0) revert PoolDepleted(operatorId);
        if (shares > held) revert InsufficientUnlocked(operatorId, shares, held);
        _tellShares(operatorId);
        uint256 free = _unlocked(account);
        uint256 slashable = _slashable(account);
        account.backers.startExit(shares);
        uint256 leaving = slashable - _slashable(account);
        if (leaving > free) revert InsufficientUnlocked(operatorId, leaving, free);
        _positions[operatorId][msg.sender] = Position(uint160(held - shares), account.backers.generation);
        uint256 amount = account.backers.toAssetsDown(shares);
        exitId = _startExit(Exit(msg.sender, operatorId, account.backers.generation, uint160(shares), 0, 0), amount);
    }

    /// @notice Anyone may call it; the money goes to the backer, or to the operator's owner of this moment.
    /// @inheritdoc IStakeVault
    function finishExit(uint256 exitId) external returns (uint256 amount) {
        Exit memory exit = _exits[exitId];
        if (exit.requestedAt == 0) revert UnknownExit(exitId);
        uint256 from = exit.requestedAt + Math.max(exit.delaySeconds, withdrawalDelaySeconds());
        if (block.timestamp < from) revert ExitTooEarly(uint64(from), block.timestamp);
        Account storage account = _accounts[exit.operatorId];
        if (account.disputes != 0) revert ReleaseFrozen(exit.operatorId, account.disputes);
        delete _exits[exitId];
        StakePot storage pot = exit.backer == address(0) ? account.own : account.backers;
        amount = pot.finishExit(pot.carryOver(exit.shares, exit.generation));
        _totalStake -= uint128(amount);
        _syncVotes(exit.operatorId);
        address to = exit.backer == address(0) ? operators.ownerOf(exit.operatorId) : exit.backer;
        emit ExitFinished(exit.operatorId, to, exitId, amount);
        TOKEN.safeTransfer(to, amount);
    }

    // ---------------------------------------------------------------- modules

    /// @inheritdoc IStakeVault
    function lock(uint64 operatorId, uint256 amount) external onlySlasher {
        Account storage account = _accounts[operatorId];
        uint256 free = _lockable(account);
        if (amount > free) revert InsufficientUnlocked(operatorId, amount, free);
        account.locked += uint128(amount); // <= slashable < 2^97
        _requireOwnShare(operatorId, account);
        _moduleLocks[operatorId][msg.sender] += amount;
        _lockedBy[msg.sender] += amount;
        emit Locked(operatorId, msg.sender, amount);
    }

    /// @notice A module that was retired may still free what it locked.
    /// @inheritdoc IStakeVault
    function unlock(uint64 operatorId, uint256 amount) external {
        _lowerLock(operatorId, amount);
        emit Unlocked(operatorId, msg.sender, amount);
    }

    /// @inheritdoc IStakeVault
    function giveLock(uint64 operatorId, address to, uint256 amount) external onlySlasher {
        if (!registry.isSlasher(to)) revert NotSlasher(to);
        uint256 held = _moduleLocks[operatorId][msg.sender];
        if (amount > held) revert InsufficientLock(operatorId, msg.sender, amount, held);
        (_moduleLocks[operatorId][msg.sender], _lockedBy[msg.sender]) = (held - amount, _lockedBy[msg.sender] - amount);
        _moduleLocks[operatorId][to] += amount;
        _lockedBy[to] += amount;
        emit Unlocked(operatorId, msg.sender, amount);
        emit Locked(operatorId, to, amount);
    }

    /// @inheritdoc IStakeVault
    function slash(uint64 operatorId, uint256 amount, Payout calldata payout)
        external
        onlySlasher
        returns (uint256 fromOwn, uint256 compensationPaid, uint256 rewardPaid)
    {
        _lowerLock(operatorId, amount);
        uint256 fromBackers;
        (fromOwn, fromBackers) = _takeStake(operatorId, amount);
        compensationPaid = payout.client == address(0) ? 0 : Math.min(payout.compensation, fromOwn / 2);
        rewardPaid = payout.reporter == address(0) ? 0 : Math.min(payout.reward, fromOwn / 2 - compensationPaid);
        _claimable[payout.client] += compensationPaid;
        _claimable[payout.reporter] += rewardPaid;
        _totalClaimable += uint128(compensationPaid + rewardPaid);
        uint256 burnt = fromOwn + fromBackers - compensationPaid - rewardPaid;
        _syncVotes(operatorId);
        emit Slashed(operatorId, msg.sender, amount, fromOwn, fromBackers, burnt, compensationPaid, rewardPaid);
        IBurnable(address(TOKEN)).burn(burnt);
    }

    /// @inheritdoc IStakeVault
    function claim(address to) external returns (uint256 amount) {
        amount = _claimable[msg.sender];
        if (amount == 0) revert ZeroAmount();
        _claimable[msg.sender] = 0;
        _totalClaimable -= uint128(amount);
        emit Claimed(msg.sender, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    /// @notice An open dispute: no exit of this operator or of its backers is paid until `unfreeze`.
    /// @inheritdoc IStakeVault
    function freeze(uint64 operatorId) external onlySlasher {
        ++_freezes[operatorId][msg.sender];
        emit Frozen(operatorId, msg.sender, ++_accounts[operatorId].disputes);
    }

    /// @inheritdoc IStakeVault
    function unfreeze(uint64 operatorId) external {
        _unfreeze(operatorId, msg.sender, 1);
    }

    /// @notice Anyone ends the freezes of a module that may not slash any more, so that a retired module cannot hold stake for ever.
    function unfreezeRetired(uint64 operatorId, address module) external {
        if (registry.isSlasher(module)) revert StillSlasher(module);
        _unfreeze(operatorId, module, _freezes[operatorId][module]);
    }

    /// @notice The owner bounds what all locks of an operator together may be, and so what a stolen node key can commit and lose.
    /// @param limit base units; 0: no bound but the stake. What is locked already stays locked.
    /// @inheritdoc IStakeVault
    function setLockLimit(uint64 operatorId, uint96 limit) external {
        if (operators.ownerOf(operatorId) != msg.sender) revert NotOperatorOwner(operatorId, msg.sender);
        _accounts[operatorId].lockLimit = limit;
        emit LockLimitSet(operatorId, limit);
    }

    /// @notice Moves an operator's votes to its present owner. Anyone; needed only after a change of owner.
    function syncVotes(uint64 operatorId) external {
        _syncVotes(operatorId);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IStakeVault
    function claimableOf(address account) external view returns (uint256) {
        return _claimable[account];
    }

    /// @inheritdoc IStakeVault
    function ownStake(uint64 operatorId) external view returns (uint256 active, uint256 exiting) {
        StakePot storage pot = _accounts[operatorId].own;
        active = pot.activeAssets();
        exiting = pot.assets - active;
    }

    /// @inheritdoc IStakeVault
    function pool(uint64 operatorId) external view returns (Pool memory) {
        StakePot storage pot = _accounts[operatorId].backers;
        uint256 active = pot.activeAssets();
        return Pool(active, pot.activeShares, pot.assets - active, pot.exitingShares, pot.generation);
    }

    /// @inheritdoc IStakeVault
    function sharesOf(uint64 operatorId, address backer) public view returns (uint256) {
        Position memory position = _positions[operatorId][backer];
        return _accounts[operatorId].backers.carryOver(position.shares, position.generation);
    }

    /// @inheritdoc IStakeVault
    function isBackedBy(uint64 operatorId, address[3] calldata keys) external view returns (bool) {
        for (uint256 i; i < 3; ++i) {
            // Shares of before a total loss are none any more.
            if (_positions[operatorId][keys[i]].shares != 0 && sharesOf(operatorId, keys[i]) != 0) return true;
        }
        return false;
    }

    /// @inheritdoc IStakeVault
    function positionOf(uint64 operatorId, address backer)
        external
        view
        returns (uint256 shares, uint32 generation, uint32 depletedBefore)
    {
        Position storage position = _positions[operatorId][backer];
        return (position.shares, position.generation, _accounts[operatorId].backers.depletedBefore);
    }

    /// @inheritdoc IStakeVault
    function stakeAt(uint64 operatorId, uint256 time) external view returns (uint256) {
        return _stakeAt(operatorId, time);
    }

    /// @notice What a backer's shares are worth now, rounded down.
    function backedBy(uint64 operatorId, address backer) external view returns (uint256) {
        return _accounts[operatorId].backers.toAssetsDown(sharesOf(operatorId, backer));
    }

    /// @notice A pending exit: who is paid, what it would pay now and when. `who` is zero when there is no such exit.
    function exitOf(uint256 exitId) external view returns (address who, uint64 operatorId, uint256 amount, uint64 withdrawableFrom) {
        Exit memory exit = _exits[exitId];
        if (exit.requestedAt == 0) return (address(0), 0, 0, 0);
        StakePot storage pot = exit.backer == address(0) ? _accounts[exit.operatorId].own : _accounts[exit.operatorId].backers;
        who = exit.backer == address(0) ? operators.ownerOf(exit.operatorId) : exit.backer;
        amount = pot.toAssetsDown(pot.carryOver(exit.shares, exit.generation));
        return (who, exit.operatorId, amount, uint64(exit.requestedAt + Math.max(exit.delaySeconds, withdrawalDelaySeconds())));
    }

    /// @inheritdoc IStakeVault
    function lockedOf(uint64 operatorId) external view returns (uint256) {
        return _accounts[operatorId].locked;
    }

    /// @inheritdoc IStakeVault
    function lockLimitOf(uint64 operatorId) external view returns (uint96) {
        return _accounts[operatorId].lockLimit;
    }

    /// @inheritdoc IStakeVault
    function lockedBy(address module) external view returns (uint256) {
        return _lockedBy[module];
    }

    /// @inheritdoc IStakeVault
    function lockedOfModule(uint64 operatorId, address module) external view returns (uint256) {
        return _moduleLocks[operatorId][module];
    }

    /// @notice Open disputes; no exit is paid while there are any.
    function disputesOf(uint64 operatorId) external view returns (uint256) {
        return _accounts[operatorId].disputes;
    }

    /// @inheritdoc IStakeVault
    function slashableOf(uint64 operatorId) external view returns (uint256) {
        return _slashable(_accounts[operatorId]);
    }

    /// @notice The most that a module can lock now: `lock` of it succeeds, of one more reverts. When it is 0, an operator may be so short of
    /// own stake that not even a lock of 0 is taken.
    /// @inheritdoc IStakeVault
    function availableOf(uint64 operatorId) external view returns (uint256) {
        Account storage account = _accounts[operatorId];
        uint256 ownShareMinBps = parameters.get("vault.ownShareMinBps");
        if (ownShareMinBps == 0) return _lockable(account);
        uint256 limit = account.own.activeAssets() * BPS / ownShareMinBps;
        return Math.min(_lockable(account), limit.saturatingSub(account.locked));
    }

    /// @inheritdoc IStakeVault
    function withdrawalDelaySeconds() public view returns (uint64) {
        return uint64(parameters.get("vault.withdrawalDelay"));
    }

    /// @inheritdoc IStakeVault
    function stakeToken() external view returns (address) {
        return address(TOKEN);
    }

    /// @notice Everything that the vault owes: all stake, active and exiting, and all that can be claimed. Never more than it holds.
    function obligations() external view returns (uint256) {
        return uint256(_totalStake) + _totalClaimable;
    }

    // ---------------------------------------------------------------- inside

    /// @dev The waterfall: own stake first, then backers' up to their cap for one event.
    function _takeStake(uint64 operatorId, uint256 amount) private returns (uint256 fromOwn, uint256 fromBackers) {
        Account storage account = _accounts[operatorId];
        fromOwn = Math.min(amount, account.own.assets);
        fromBackers = Math.min(amount - fromOwn, account.backers.assets * _lossCapBps() / BPS);
        account.own.slash(fromOwn);
        uint32 generation = account.backers.generation;
        if (account.backers.slash(fromBackers)) emit PoolClosed(operatorId, generation);
        _totalStake -= uint128(fromOwn + fromBackers);
    }

    function _lowerLock(uint64 operatorId, uint256 amount) private {
        uint256 locked = _moduleLocks[operatorId][msg.sender];
        if (amount > locked) revert InsufficientLock(operatorId, msg.sender, amount, locked);
        _moduleLocks[operatorId][msg.sender] = locked - amount;
        _lockedBy[msg.sender] -= amount;
        _accounts[operatorId].locked -= uint128(amount);
    }

    function _startExit(Exit memory exit, uint256 amount) private returns (uint256 exitId) {
        exit.requestedAt = uint48(block.timestamp);
        exit.delaySeconds = uint48(withdrawalDelaySeconds());
        exitId = ++_exitCount;
        _exits[exitId] = exit;
        _syncVotes(exit.operatorId);
        emit ExitRequested(exit.operatorId, msg.sender, exitId, amount, uint64(exit.requestedAt) + exit.delaySeconds);
    }

    function _unfreeze(uint64 operatorId, address module, uint256 count) private {
        uint256 open = _freezes[operatorId][module];
        if (count == 0 || count > open) revert NotFrozen(operatorId, module);
        _freezes[operatorId][module] = open - count;
        emit Frozen(operatorId, module, _accounts[operatorId].disputes -= uint32(count));
    }

    /// @dev Before the caller's shares change.
    function _tellShares(uint64 operatorId) private {
        Position storage position = _positions[operatorId][msg.sender];
        _tellBackers(registry, operatorId, msg.sender, position.shares, position.generation);
    }

    function _syncVotes(uint64 operatorId) private {
        Account storage account = _accounts[operatorId];
        _seatVotes(operatorId, operators.ownerOf(operatorId), account.own.activeAssets() + account.backers.activeAssets());
    }

    function _requireOwnShare(uint64 operatorId, Account storage account) private view {
        uint256 needed = Math.ceilDiv(account.locked * parameters.get("vault.ownShareMinBps"), BPS);
        uint256 own = account.own.activeAssets();
        if (own < needed) revert OwnStakeTooSmall(operatorId, own, needed);
    }

    function _unlocked(Account storage account) private view returns (uint256) {
        return _slashable(account).saturatingSub(account.locked);
    }

    /// @dev What may still be locked by stake and by the owner's limit.
    function _lockable(Account storage account) private view returns (uint256) {
        uint256 free = _unlocked(account);
        uint256 limit = account.lockLimit;
        return limit == 0 ? free : Math.min(free, limit.saturatingSub(account.locked));
    }

    function _requireBounded(IParameters parameters_, bytes32 key, uint256 limit) private view {
        (IParameters.Entry memory entry,) = parameters_.bounds(key);
        if (entry.max > limit) revert IParameters.BadBounds(key, entry.value, entry.min, entry.max, entry.maxStep);
    }

    function _slashable(Account storage account) private view returns (uint256) {
        return account.own.activeAssets() + account.backers.activeAssets() * _lossCapBps() / BPS;
    }

    function _lossCapBps() private view returns (uint256) {
        return parameters.get("vault.backerLossCapBps");
    }
}
