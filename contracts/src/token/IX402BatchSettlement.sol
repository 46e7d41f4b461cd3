// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Payment channels with cumulative vouchers: the EVM binding of x402 v2 `batch-settlement`.
/// @notice Structs, type hashes, EIP-712 domain ("x402 Batch Settlement", "1"), functions, events and their meaning are those of the scheme
/// (github.com/x402-foundation/x402, specs/schemes/batch-settlement), so that any x402 client, server or facilitator can use this contract.
/// Errors carry values. Two additions: a deposit by the payer's own allowance, and a network fee that is burnt.
///
/// A payer locks tokens in a channel for one receiver and signs vouchers "up to m in all". The receiver's side claims (any amount up to m, once,
/// in batches) and pays itself out. The payer gets back what was not claimed: at once when the receiver agrees, else after `withdrawDelay`.
/// ONLY CLAIMS BIND: a voucher that was not claimed when the payer's withdrawal is finalized is worth nothing, so receivers watch
/// WithdrawInitiated.
interface IX402BatchSettlement {
    struct ChannelConfig {
        address payer;
        /// Signs vouchers with an ECDSA key; zero: `payer` itself signs, also as a contract (ERC-1271).
        address payerAuthorizer;
        address receiver;
        /// Besides the receiver: claims and refunds, also by signature (ERC-1271 too).
        address receiverAuthorizer;
        address token;
        /// Seconds from the payer's request to its withdrawal.
        uint40 withdrawDelay;
        bytes32 salt;
    }

    struct Voucher {
        ChannelConfig channel;
        /// Cumulative, base units.
        uint128 maxClaimableAmount;
    }

    struct VoucherClaim {
        Voucher voucher;
        bytes signature;
        /// What the receiver claims in all, at most the voucher's maximum.
        uint128 totalClaimed;
    }

    event ChannelCreated(bytes32 indexed channelId, ChannelConfig config);
    event ChannelClosed(bytes32 indexed channelId, ChannelConfig config);
    event Deposited(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 newBalance);
    event Claimed(bytes32 indexed channelId, address indexed sender, uint128 claimAmount, uint128 newTotalClaimed);
    /// @param amount what the receiver got
    event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
    event Refunded(bytes32 indexed channelId, address indexed sender, uint128 amount);
    event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 finalizeAfter);
    event WithdrawFinalized(bytes32 indexed channelId, address indexed sender, uint128 amount);
    /// @notice Part of a receiver's earnings was destroyed when they were paid out.
    event FeeBurnt(address indexed receiver, uint256 amount);

    error ChannelIncomplete(address payer, address receiver, address receiverAuthorizer, address token);
    error WithdrawDelayOutOfRange(uint40 got, uint40 min, uint40 max);
    error ZeroAmount();
    error TokenShortfall(address token, uint256 expected, uint256 received);
    error NotAToken(address token);
    error NotChannelPayer(bytes32 channelId, address caller);
    error NotChannelReceiver(bytes32 channelId, address caller);
    error OtherReceiverAuthorizer(bytes32 channelId, address got, address expected);
    error BadSignature(address expectedSigner);
    error EmptyBatch();
    error ClaimExceedsCeiling(bytes32 channelId, uint128 totalClaimed, uint128 maxClaimableAmount);
    error ClaimExceedsBalance(bytes32 channelId, uint128 totalClaimed, uint128 balance);
    error WithdrawalPending(bytes32 channelId, uint40 initiatedAt);
    error NoWithdrawalPending(bytes32 channelId);
    error WithdrawDelayNotElapsed(bytes32 channelId, uint256 finalizeAfter, uint256 timestamp);
    error WithdrawExceedsAvailable(bytes32 channelId, uint128 amount, uint128 available);
    error WrongRefundNonce(bytes32 channelId, uint256 got, uint256 expected);
    error FeeOutOfBounds(uint256 got, uint256 max);

    /// @notice Locks exactly `amount` more in a channel, creating it if need be. Anyone may send it; the money comes from the payer.
    /// @param collector takes the tokens from the payer and brings them here (see IDepositCollector); or this contract itself: then the
    /// payer's ERC-3009 `ReceiveWithAuthorization` to this contract (collectorData and nonce as for the stock ERC-3009 collector), or, with
    /// empty collectorData and the payer as sender, its allowance
    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData) external;
    /// @notice Records claims. Only `receiver` or `receiverAuthorizer` of every channel in the batch. A claim that is not above what is
    /// claimed already changes nothing, so a replay is harmless.
    function claim(VoucherClaim[] calldata voucherClaims) external;
    /// @notice As claim, by anyone with the signature of the one `receiverAuthorizer` of all channels.
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature) external;
    /// @notice claim, then settle for the receiver and token of the first claim, in one transaction.
    function claimAndSettle(VoucherClaim[] calldata voucherClaims) external;
    /// @notice Pays a receiver all that was claimed for it and not paid yet. Anyone may send it.
    function settle(address receiver, address token) external;
    /// @notice Starts the payer's withdrawal of unclaimed money; `amount` is capped again at the end. Only `payer` or `payerAuthorizer`.
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external;
    /// @notice Pays the payer what was requested and is not claimed. Only `payer` or `payerAuthorizer`, `withdrawDelay` after the request.
    function finalizeWithdraw(ChannelConfig calldata config) external;
    /// @notice Gives unclaimed money back to the payer at once, at most `amount`. Only `receiver` or `receiverAuthorizer`.
    function refund(ChannelConfig calldata config, uint128 amount) external;
    /// @notice As refund, by anyone with the signature of `receiverAuthorizer` over the channel's current nonce.
    function refundWithSignature(ChannelConfig calldata config, uint128 amount, uint256 nonce, bytes calldata receiverAuthorizerSignature)
        external;

    /// @notice EIP-712 hash of the configuration: names chain and contract, so a voucher is of no use anywhere else.
    function getChannelId(ChannelConfig calldata config) external view returns (bytes32);
    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) external view returns (bytes32);
    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) external view returns (bytes32);
    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) external view returns (bytes32);
    /// @return balance all that was deposited and not given back, claimed or not
    /// @return totalClaimed at most the balance
    function channels(bytes32 channelId) external view returns (uint128 balance, uint128 totalClaimed);
    /// @return amount requested
    /// @return initiatedAt time of the request, 0 for none
    function pendingWithdrawals(bytes32 channelId) external view returns (uint128 amount, uint40 initiatedAt);
    function refundNonce(bytes32 channelId) external view returns (uint256);
    /// @return totalClaimed of all its channels in that token, fee included
    /// @return totalSettled what of it was paid out or burnt
    function receivers(address receiver, address token) external view returns (uint128 totalClaimed, uint128 totalSettled);
    /// @notice The token whose settlements pay the network fee.
    function feeToken() external view returns (address);
    /// @notice Share of every settlement in `feeToken` that is burnt, basis points.
    function feeBps() external view returns (uint256);
    /// @notice All that was burnt of a receiver's earnings. Rewards for paid demand stay below a share of this (decision 0012).
    function feesBurntOf(address receiver) external view returns (uint256);
}
