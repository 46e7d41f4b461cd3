// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice A module that meters what a rail pays for.
interface IRailMeter {
    /// @notice How many seconds of [from, to) were proven, and up to when that is final.
    /// @return provenSeconds seconds to be paid within [from, settledTo)
    /// @return settledTo the time up to which the meter is sure (from <= settledTo <= to); the rest stays open
    function measure(uint256 railId, uint64 from, uint64 to) external view returns (uint64 provenSeconds, uint64 settledTo);
}

/// @title Rails: escrowed payment per second that flows only for proven time. Immutable, no owner, pull payments.
/// @notice The paid total is floor(amountPerInterval * provenSeconds / intervalSeconds) over the rail's life, so settling in one
/// or in many steps pays the same. Unproven time goes back to the payer's account at settlement.
interface IRails {
    struct Rail {
        address payer;
        uint64 payee; // operator id; earnings go to its beneficiary at the time of settlement
        uint32 interval; // seconds
        address token;
        uint32 lockup; // seconds of escrow that the payer may not withdraw while the rail runs
        uint64 start; // 0: not begun
        address meter; // module that created the rail, meters it and may close it
        uint64 end; // 0: open, until the escrow is empty
        bool closed;
        uint128 amount; // base units per interval
        uint128 escrow; // still held for this rail
        uint128 paid;
        uint128 refunded;
        uint64 settledTo;
        uint64 provenSeconds;
    }

    event Deposited(address indexed token, address indexed account, address from, uint256 amount);
    event Withdrawn(address indexed token, address indexed account, address to, uint256 amount);
    event Transferred(address indexed token, address indexed from, address indexed to, uint256 amount);
    event Approved(address indexed payer, address indexed meter, address indexed token, uint256 allowance);
    event RailOpened(uint256 indexed railId, address indexed payer, uint64 indexed payee, address token, address meter, uint128 amount, uint32 interval, uint128 escrow);
    event RailBegun(uint256 indexed railId, uint64 start, uint64 end);
    event RailToppedUp(uint256 indexed railId, uint128 amount, uint64 end);
    event RailSettled(uint256 indexed railId, uint64 settledTo, uint64 provenSeconds, uint128 paid, uint128 refunded);
    event RailClosed(uint256 indexed railId, uint64 end, uint128 fee, uint128 forfeit, uint128 refunded);

    error InsufficientBalance(address token, address account, uint256 wanted, uint256 available);
    error InsufficientAllowance(address payer, address meter, address token, uint256 wanted, uint256 allowance);
    error UnknownRail(uint256 railId);
    error NotMeter(uint256 railId, address caller);
    error NotPayer(uint256 railId, address caller);
    error RailIsClosed(uint256 railId);
    error EscrowTooSmall(uint256 railId, uint256 escrow, uint256 needed);
    error BadInterval(uint64 start, uint64 end);
    error MeterOutOfRange(uint256 railId, uint64 provenSeconds, uint64 settledTo);
    error TokenShortfall(address token, uint256 expected, uint256 received);
    error ZeroAmount();

    /// @notice Credits `account` (fee-on-transfer tokens are refused by TokenShortfall).
    function deposit(address token, address account, uint256 amount) external;
    function depositWithAuthorization(address token, uint256 amount, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes calldata signature) external;
    function withdraw(address token, uint256 amount, address to) external;
    /// @notice From the caller's account to another account here.
    function transfer(address token, address to, uint256 amount) external;
    /// @notice By a meter, from the account of a payer who has approved it, to another account here.
    function transferFrom(address token, address payer, address to, uint256 amount) external;
    /// @notice Lets a meter open rails from the caller's account up to an amount in all.
    function approve(address meter, address token, uint256 allowance) external;

    /// @notice Called by the meter. Takes `escrow` from the payer's account and reserves it; nothing flows before `begin`.
    function open(address payer, uint64 payee, address token, uint128 amount, uint32 interval, uint32 lockup, uint128 escrow) external returns (uint256 railId);
    /// @notice Called by the meter once: time counts from `start` to `end` (0: until the escrow is empty).
    function begin(uint256 railId, uint64 start, uint64 end) external;
    /// @notice Adds escrow; the meter may also move the end (extension).
    function topUp(uint256 railId, uint128 amount, uint64 newEnd) external;
    /// @notice Pays for proven time and returns the money of unproven time. Anyone may call it, any number of times.
    function settle(uint256 railId) external returns (uint128 paid, uint128 refunded);
    /// @notice Called by the meter: settles, ends the rail at `end`, pays `fee` out of the remaining escrow to the payee, credits
    /// `forfeit` to the meter's own account (a bond that is lost) and returns the rest to the payer. [.., end) must be final at the meter.
    function close(uint256 railId, uint64 end, uint128 fee, uint128 forfeit) external returns (uint128 refunded);
    /// @notice For open-ended rails: the payer takes back escrow beyond the lock-up.
    function reduce(uint256 railId, uint128 amount) external;

    function rail(uint256 railId) external view returns (Rail memory);
    function balanceOf(address token, address account) external view returns (uint256);
    function allowanceOf(address payer, address meter, address token) external view returns (uint256);
    /// @notice Everything that the contract owes in a token: balances + escrows. Never more than it holds.
    function obligationsOf(address token) external view returns (uint256);
}
