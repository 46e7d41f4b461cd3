// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice What the stake vault tells the module "backerIncome" just before a backer's active shares change, or own stake comes in.
interface IBackerListener {
    /// @param shares the backer's shares in the units of `generation`, as they were since their last change
    function beforeSharesChange(uint64 operatorId, address backer, uint256 shares, uint32 generation) external;
}

/// @notice A contract in which income of operators waits. It pays by `distribute` of the module "backerIncome".
interface IIncomeSource {
    /// @notice Anybody: distributes all that waits for an operator. Returns 0 when nothing does; must not revert then.
    function release(uint64 operatorId) external returns (uint256 amount);
}

/// @title BackerIncome: an operator's income is shared with those who back it, in proportion to stake (decision 0021).
/// @notice Of each income the operator keeps its take; the rest falls on own and backers' active stake alike, as they are when it
/// is distributed. Backers pull theirs; the operator's part goes to its beneficiary. Before a backer's shares change the vault tells this
/// contract, which first lets the sources (the modules "subnetEpochs" and "computeRewards") pay out what waits, so that nobody backs an operator, and
/// no owner adds own stake, for income that others' stake has earned.
/// For each token: paid + claimable + dust = received.
interface IBackerIncome is IBackerListener {
    event IncomeDistributed(
        uint64 indexed operatorId, address indexed token, address indexed from, uint256 amount, uint256 toOperator, uint256 toBackers
    );
    event IncomeClaimed(uint64 indexed operatorId, address indexed token, address indexed who, address to, uint256 amount);
    event TakeProposed(uint64 indexed operatorId, uint16 takeBps, uint64 effectiveFrom);
    event TokenAdded(address indexed token);

    error UnknownToken(address token);
    error TooManyTokens(uint256 limit);
    error DuplicateToken(address token);
    error TakeTooHigh(uint256 takeBps, uint256 limit);
    error NotOperatorOwner(uint64 operatorId, address caller);
    error NotVault(address caller);
    error NotTimelock(address caller);
    error AmountTooLarge(uint256 amount, uint256 limit);
    error NothingToClaim(uint64 operatorId, address token, address who);
    error ZeroAmount();

    /// @notice Anybody gives income to an operator and its backers: pulls `amount` from the caller.
    function distribute(uint64 operatorId, address token, uint256 amount) external;
    /// @notice Pays the caller's part as a backer.
    function claim(uint64 operatorId, address token, address to) external returns (uint256 amount);
    /// @notice Anybody: pays the operator's part to its beneficiary.
    function claimOperator(uint64 operatorId, address token) external returns (uint256 amount);
    /// @notice The operator's owner changes its take, with a delay.
    function proposeTake(uint64 operatorId, uint16 takeBps) external;
    /// @notice The timelock adds a token that income may come in; none is ever taken away.
    function addToken(address token) external;

    function takeBpsOf(uint64 operatorId) external view returns (uint16);
    function claimableOf(uint64 operatorId, address token, address backer) external view returns (uint256);
    function operatorClaimable(uint64 operatorId, address token) external view returns (uint256);
    function tokens() external view returns (address[] memory);
}
