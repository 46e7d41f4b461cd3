// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title The one stake vault of all networks, with the one slashing waterfall.
/// @notice Per operator: the operator's own stake, and backers' stake as shares of a pool. Both have an active part and
/// an exiting part; exiting stake stays slashable at the same ratio until it is withdrawn. Modules lock amounts for
/// obligations. Invariant: sum of locks <= own active + backerLossCapBps of backers' active.
/// Waterfall of a slash: own stake (active and exiting at one ratio) first, then backers' (active and exiting at one
/// ratio), at most backerLossCapBps of the backers' stake per event. Payouts (client compensation, then reporter or repair reward) come out
/// of the OWN part only and never exceed half of it; all the rest, and everything taken from backers, is burnt. So whoever
/// is operator, client, reporter, repairer and backer at once never gains by it.
interface IStakeVault {
    struct Payout {
        address client;
        uint256 compensation;
        address reporter;
        uint256 reward;
    }

    struct Pool {
        uint256 activeAssets;
        uint256 activeShares;
        uint256 exitingAssets;
        uint256 exitingShares;
        uint64 generation;
    }

    event StakeDeposited(uint64 indexed operatorId, address indexed from, uint256 amount);
    event Backed(uint64 indexed operatorId, address indexed backer, uint256 amount, uint256 shares, uint64 generation);
    event ExitRequested(uint64 indexed operatorId, address indexed who, uint256 exitId, uint256 amount, uint64 withdrawableFrom);
    event ExitFinished(uint64 indexed operatorId, address indexed who, uint256 exitId, uint256 amount);
    event Locked(uint64 indexed operatorId, address indexed module, uint256 amount);
    event Unlocked(uint64 indexed operatorId, address indexed module, uint256 amount);
    event Slashed(
        uint64 indexed operatorId,
        address indexed module,
        uint256 amount,
        uint256 fromOwn,
        uint256 fromBackers,
        uint256 burnt,
        uint256 compensation,
        uint256 reward
    );
    event Frozen(uint64 indexed operatorId, address indexed module, uint256 count);
    event LockLimitSet(uint64 indexed operatorId, uint96 limit);
    event PoolClosed(uint64 indexed operatorId, uint64 generation);

    error NotSlasher(address caller);
    error NotOperatorOwner(uint64 operatorId, address caller);
    error InsufficientUnlocked(uint64 operatorId, uint256 wanted, uint256 available);
    error InsufficientLock(uint64 operatorId, address module, uint256 wanted, uint256 locked);
    error OwnStakeTooSmall(uint64 operatorId, uint256 own, uint256 needed);
    error ZeroAmount();
    error UnknownExit(uint256 exitId);
    error ExitTooEarly(uint64 withdrawableFrom, uint256 timestamp);
    error ReleaseFrozen(uint64 operatorId, uint256 disputes);
    error PoolDepleted(uint64 operatorId);

    /// @notice Adds own stake for an operator (from anyone; it becomes the owner's).
    function deposit(uint64 operatorId, uint256 amount) external;
    function depositWithPermit(uint64 operatorId, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
    /// @notice Backs an operator; shares rounded down.
    function back(uint64 operatorId, uint256 amount) external returns (uint256 shares);
    /// @notice Owner takes own active stake into exit. Only unlocked stake may leave.
    function requestExit(uint64 operatorId, uint256 amount) external returns (uint256 exitId);
    function requestBackerExit(uint64 operatorId, uint256 shares) external returns (uint256 exitId);
    /// @notice Pays after the withdrawal delay (the longer of the delay at request and the delay now), unless frozen.
    function finishExit(uint256 exitId) external returns (uint256 amount);

    function lock(uint64 operatorId, uint256 amount) external;
    function unlock(uint64 operatorId, uint256 amount) external;
    /// @notice Hands a lock of the calling module to another slasher (an order that was matched becomes a deal), so that no limit and no
    /// other obligation can come between.
    function giveLock(uint64 operatorId, address to, uint256 amount) external;
    /// @notice Slashes from the calling module's lock, and lowers that lock by the same amount.
    /// Payouts are clipped, never refused: compensation first, then reward, together at most half of the part taken from
    /// own stake (rounded down). They are credited and pulled by `claim`.
    function slash(uint64 operatorId, uint256 amount, Payout calldata payout)
        external
        returns (uint256 fromOwn, uint256 compensationPaid, uint256 rewardPaid);
    /// @notice Pays out what slashes credited to the caller.
    function claim(address to) external returns (uint256 amount);
    function claimableOf(address account) external view returns (uint256);
    /// @notice Owner only: the most that all locks together may be; 0: no bound but the stake. New locks above it are refused.
    function setLockLimit(uint64 operatorId, uint96 limit) external;
    function freeze(uint64 operatorId) external;
    function unfreeze(uint64 operatorId) external;

    function ownStake(uint64 operatorId) external view returns (uint256 active, uint256 exiting);
    function pool(uint64 operatorId) external view returns (Pool memory);
    function sharesOf(uint64 operatorId, address backer) external view returns (uint256);
    /// @notice Whether one of an operator's keys backs another operator.
    function isBackedBy(uint64 operatorId, address[3] calldata keys) external view returns (bool);
    /// @notice A backer's active shares as they were at their last change, in the units of the generation of then.
    /// Shares of generations below `depletedBefore` are worth nothing now.
    function positionOf(uint64 operatorId, address backer) external view returns (uint256 shares, uint32 generation, uint32 depletedBefore);
    /// @notice An operator's active stake, own and backers', at the end of a second that is past.
    function stakeAt(uint64 operatorId, uint256 time) external view returns (uint256);
    function lockedOf(uint64 operatorId) external view returns (uint256);
    function lockLimitOf(uint64 operatorId) external view returns (uint96);
    function lockedBy(address module) external view returns (uint256);
    function lockedOfModule(uint64 operatorId, address module) external view returns (uint256);
    /// @notice Stake that may be slashed and counts for new locks: own active + backerLossCapBps of backers' active.
    function slashableOf(uint64 operatorId) external view returns (uint256);
    function availableOf(uint64 operatorId) external view returns (uint256);
    function withdrawalDelaySeconds() external view returns (uint64);
    function stakeToken() external view returns (address);
}
