// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IReceiveWithAuthorization} from "./ERC3009DepositCollector.sol";
import {IDepositCollector} from "./IDepositCollector.sol";
import {IX402BatchSettlement} from "./IX402BatchSettlement.sol";

/// @title Payment channels of x402 v2 `batch-settlement`. Immutable, no owner; everyone moves only what is theirs.
/// @notice Invariants: a channel's claims never exceed its balance; what is held of a token is what channels and receivers are owed; the
/// order and the batching of claims and settlements changes nobody's sum, fees included. Any ERC-20 whose balances change by transfers
/// alone and by the amount transferred; tokens are kept apart, so a hostile one can only cheat those who deposited it.
contract X402BatchSettlement is IX402BatchSettlement, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    struct ChannelState {
        uint128 balance;
        uint128 totalClaimed;
    }

    struct WithdrawalState {
        uint128 amount;
        uint40 initiatedAt;
    }

    struct ReceiverState {
        uint128 totalClaimed;
        uint128 totalSettled;
    }

    uint40 public constant MIN_WITHDRAW_DELAY = 15 minutes;
    uint40 public constant MAX_WITHDRAW_DELAY = 30 days;
    /// @notice No network burns more than a tenth.
    uint256 public constant FEE_BPS_MAX = 1_000;
    bytes32 public constant CHANNEL_CONFIG_TYPEHASH = keccak256(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    );
    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
    bytes32 public constant REFUND_TYPEHASH = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)");
    bytes32 public constant CLAIM_ENTRY_TYPEHASH =
        keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    bytes32 public constant CLAIM_BATCH_TYPEHASH =
        keccak256("ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    string private constant NAME = "x402 Batch Settlement";
    string private constant VERSION = "1";
    uint256 private constant BPS = 10_000;
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @inheritdoc IX402BatchSettlement
    address public immutable feeToken;
    /// @inheritdoc IX402BatchSettlement
    uint256 public immutable feeBps;

    /// @inheritdoc IX402BatchSettlement
    mapping(bytes32 channelId => ChannelState) public channels;
    /// @inheritdoc IX402BatchSettlement
    mapping(bytes32 channelId => WithdrawalState) public pendingWithdrawals;
    /// @inheritdoc IX402BatchSettlement
    mapping(bytes32 channelId => uint256) public refundNonce;
    /// @inheritdoc IX402BatchSettlement
    mapping(address receiver => mapping(address token => ReceiverState)) public receivers;

    /// @param feeToken_ the network's token (it must be burnable by its holder), or zero for no fee
    /// @param feeBps_ share of settlements in it that is burnt, basis points
    constructor(address feeToken_, uint256 feeBps_) {
        if (feeBps_ > FEE_BPS_MAX || (feeToken_ == address(0) && feeBps_ != 0)) revert FeeOutOfBounds(feeBps_, FEE_BPS_MAX);
        (feeToken, feeBps) = (feeToken_, feeBps_);
    }

    /// @inheritdoc IX402BatchSettlement
    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData) external nonReentrant {
        _requireComplete(config);
        if (amount == 0) revert ZeroAmount();
        bytes32 channelId = getChannelId(config);
        ChannelState storage channel = channels[channelId];
        uint128 newBalance = channel.balance + amount;
        channel.balance = newBalance;
        if (newBalance == amount && channel.totalClaimed == 0) emit ChannelCreated(channelId, config);
        emit Deposited(channelId, msg.sender, amount, newBalance);
        uint256 before = _held(config.token);
        if (collector == address(this)) {
            _collect(config, amount, channelId, collectorData);
        } else {
            IDepositCollector(collector).collect(config.payer, config.token, amount, channelId, collectorData);
        }
        uint256 received;
        unchecked {
            received = _held(config.token) - before;
        }
        if (received != amount) revert TokenShortfall(config.token, amount, received);
    }

    /// @inheritdoc IX402BatchSettlement
    function claim(VoucherClaim[] calldata voucherClaims) external nonReentrant {
        _claim(voucherClaims, address(0));
    }

    /// @inheritdoc IX402BatchSettlement
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature) external nonReentrant {
        if (voucherClaims.length == 0) revert EmptyBatch();
        address authorizer = voucherClaims[0].voucher.channel.receiverAuthorizer;
        _requireSigned(authorizer, getClaimBatchDigest(voucherClaims), authorizerSignature);
        _claim(voucherClaims, authorizer);
    }

    /// @inheritdoc IX402BatchSettlement
    function claimAndSettle(VoucherClaim[] calldata voucherClaims) external nonReentrant {
        _claim(voucherClaims, address(0));
        _settle(voucherClaims[0].voucher.channel.receiver, voucherClaims[0].voucher.channel.token);
    }

    /// @inheritdoc IX402BatchSettlement
    function settle(address receiver, address token) external nonReentrant {
        _settle(receiver, token);
    }

    /// @inheritdoc IX402BatchSettlement
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        _requirePayer(channelId, config);
        if (amount == 0) revert ZeroAmount();
        WithdrawalState storage withdrawal = pendingWithdrawals[channelId];
        if (withdrawal.initiatedAt != 0) revert WithdrawalPending(channelId, withdrawal.initiatedAt);
        uint128 available = _available(channels[channelId]);
        if (amount > available) revert WithdrawExceedsAvailable(channelId, amount, available);
        (withdrawal.amount, withdrawal.initiatedAt) = (amount, uint40(block.timestamp));
        emit WithdrawInitiated(channelId, amount, uint40(block.timestamp) + config.withdrawDelay);
    }

    /// @inheritdoc IX402BatchSettlement
    function finalizeWithdraw(ChannelConfig calldata config) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        _requirePayer(channelId, config);
        WithdrawalState memory withdrawal = pendingWithdrawals[channelId];
        if (withdrawal.initiatedAt == 0) revert NoWithdrawalPending(channelId);
        uint256 finalizeAfter = uint256(withdrawal.initiatedAt) + config.withdrawDelay;
        if (block.timestamp < finalizeAfter) revert WithdrawDelayNotElapsed(channelId, finalizeAfter, block.timestamp);
        uint128 available = _available(channels[channelId]);
        uint128 amount = withdrawal.amount < available ? withdrawal.amount : available;
        delete pendingWithdrawals[channelId];
        emit WithdrawFinalized(channelId, msg.sender, amount);
        _payBack(channelId, config, amount);
    }

    /// @inheritdoc IX402BatchSettlement
    function refund(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        _requireReceiver(channelId, config);
        _refund(channelId, config, amount);
    }

    /// @inheritdoc IX402BatchSettlement
    function refundWithSignature(ChannelConfig calldata config, uint128 amount, uint256 nonce, bytes calldata receiverAuthorizerSignature)
        external
        nonReentrant
    {
        bytes32 channelId = getChannelId(config);
        uint256 expected = refundNonce[channelId];
        if (nonce != expected) revert WrongRefundNonce(channelId, nonce, expected);
        _requireSigned(config.receiverAuthorizer, getRefundDigest(channelId, nonce, amount), receiverAuthorizerSignature);
        _refund(channelId, config, amount);
    }

    /// @inheritdoc IX402BatchSettlement
    function getChannelId(ChannelConfig calldata config) public view returns (bytes32) {
        return _channelId(_domainSeparator(), config);
    }

    /// @inheritdoc IX402BatchSettlement
    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) public view returns (bytes32) {
        return _digest(_domainSeparator(), _voucherHash(channelId, maxClaimableAmount));
    }

    /// @inheritdoc IX402BatchSettlement
    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) public view returns (bytes32) {
        return _digest(_domainSeparator(), keccak256(abi.encode(REFUND_TYPEHASH, channelId, nonce, amount)));
    }

    /// @inheritdoc IX402BatchSettlement
    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) public view returns (bytes32) {
        bytes32 domain = _domainSeparator();
        bytes32[] memory entries = new bytes32[](voucherClaims.length);
        for (uint256 i; i < entries.length; ++i) {
            VoucherClaim calldata row = voucherClaims[i];
            entries[i] = keccak256(
                abi.encode(CLAIM_ENTRY_TYPEHASH, _channelId(domain, row.voucher.channel), row.voucher.maxClaimableAmount, row.totalClaimed)
            );
        }
        return _digest(domain, keccak256(abi.encode(CLAIM_BATCH_TYPEHASH, keccak256(abi.encodePacked(entries)))));
    }

    /// @inheritdoc IX402BatchSettlement
    function feesBurntOf(address receiver) external view returns (uint256) {
        return _feeOn(receivers[receiver][feeToken].totalSettled);
    }

    /// @notice The EIP-712 domain (ERC-5267).
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32,
            uint256[] memory
        )
    {
        return (hex"0f", NAME, VERSION, block.chainid, address(this), bytes32(0), new uint256[](0));
    }

    /// @dev With `authorizer` zero every row is of the sender's side, else all have that `receiverAuthorizer`, which has signed.
    /// Rows of one receiver and token in a row are credited together. Nothing here calls out but ERC-1271, which cannot change state.
    function _claim(VoucherClaim[] calldata voucherClaims, address authorizer) private {
        if (voucherClaims.length == 0) revert EmptyBatch();
        bytes32 domain = _domainSeparator();
        (address receiver, address token, uint256 gathered) = (address(0), address(0), 0);
        for (uint256 i; i < voucherClaims.length; ++i) {
            VoucherClaim calldata row = voucherClaims[i];
            (bytes32 channelId, address own, address asset) = _authorize(domain, row.voucher.channel, authorizer);
            if (own != receiver || asset != token) {
                _credit(receiver, token, gathered);
                (receiver, token, gathered) = (own, asset, 0);
            }
            gathered += _apply(domain, channelId, row);
        }
        _credit(receiver, token, gathered);
    }

    /// @dev Reads the words as they are, like _channelId: a channel with bits too many has no balance, so nothing comes of it.
    function _authorize(bytes32 domain, ChannelConfig calldata config, address authorizer)
        private
        view
        returns (bytes32 channelId, address receiver, address token)
    {
        channelId = _channelId(domain, config);
        address receiverAuthorizer;
        assembly ("memory-safe") {
            receiver := calldataload(add(config, 0x40))
            receiverAuthorizer := calldataload(add(config, 0x60))
            token := calldataload(add(config, 0x80))
        }
        if (authorizer != address(0)) {
            if (receiverAuthorizer != authorizer) revert OtherReceiverAuthorizer(channelId, receiverAuthorizer, authorizer);
        } else if (msg.sender != receiver && msg.sender != receiverAuthorizer) {
            revert NotChannelReceiver(channelId, msg.sender);
        }
    }

    function _credit(address receiver, address token, uint256 amount) private {
        if (amount != 0) receivers[receiver][token].totalClaimed += SafeCast.toUint128(amount);
    }

    /// @dev A channel's state is one word, read and written once: `balance` low, `totalClaimed` high. Whole words here: assembly sees what lies beyond a type.
    function _apply(bytes32 domain, bytes32 channelId, VoucherClaim calldata row) private returns (uint256 added) {
        ChannelState storage channel = channels[channelId];
        uint256 before;
        uint256 escrow;
        assembly ("memory-safe") {
            let packed := sload(channel.slot)
            before := shr(128, packed)
            escrow := and(packed, sub(shl(128, 1), 1))
        }
        uint256 total = row.totalClaimed;
        if (total <= before) return 0;
        uint128 ceiling = row.voucher.maxClaimableAmount;
        if (total > ceiling) revert ClaimExceedsCeiling(channelId, uint128(total), ceiling);
        if (total > escrow) revert ClaimExceedsBalance(channelId, uint128(total), uint128(escrow));
        _requireVoucher(row.voucher.channel, _digest(domain, _voucherHash(channelId, ceiling)), row.signature);
        unchecked {
            added = total - before;
        }
        assembly ("memory-safe") {
            sstore(channel.slot, or(shl(128, total), escrow))
        }
        emit Claimed(channelId, msg.sender, uint128(added), uint128(total));
    }

    /// @dev The low half of s only (EIP-2), as OpenZeppelin's ECDSA, which costs three times the gas of these lines.
    function _requireVoucher(ChannelConfig calldata config, bytes32 digest, bytes calldata signature) private view {
        address signer = config.payerAuthorizer;
        if (signer == address(0)) return _requireSigned(config.payer, digest, signature);
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := calldataload(signature.offset)
            s := calldataload(add(signature.offset, 0x20))
            v := byte(0, calldataload(add(signature.offset, 0x40)))
        }
        if (signature.length != 65 || uint256(s) > HALF_ORDER || ecrecover(digest, v, r, s) != signer) revert BadSignature(signer);
    }

    function _settle(address receiver, address token) private {
        ReceiverState storage state = receivers[receiver][token];
        (uint128 claimed, uint128 settled) = (state.totalClaimed, state.totalSettled);
        uint128 amount = claimed - settled;
        if (amount == 0) return;
        state.totalSettled = claimed;
        // Of the totals, not of this amount: however settlements are cut, the same is burnt.
        uint128 fee = token == feeToken ? uint128(_feeOn(claimed) - _feeOn(settled)) : 0;
        emit Settled(receiver, token, msg.sender, amount - fee);
        _pay(token, receiver, amount - fee);
        if (fee == 0) return;
        emit FeeBurnt(receiver, fee);
        ERC20Burnable(token).burn(fee);
    }

    /// @dev A pending withdrawal asks for less by what came back already.
    function _refund(bytes32 channelId, ChannelConfig calldata config, uint128 amount) private {
        if (amount == 0) revert ZeroAmount();
        ++refundNonce[channelId];
        uint128 available = _available(channels[channelId]);
        if (amount > available) amount = available;
        if (amount == 0) return;
        WithdrawalState storage withdrawal = pendingWithdrawals[channelId];
        if (withdrawal.initiatedAt != 0) {
            if (amount < withdrawal.amount) withdrawal.amount -= amount;
            else delete pendingWithdrawals[channelId];
        }
        emit Refunded(channelId, msg.sender, amount);
        _payBack(channelId, config, amount);
    }

    function _payBack(bytes32 channelId, ChannelConfig calldata config, uint128 amount) private {
        ChannelState storage channel = channels[channelId];
        channel.balance -= amount;
        if (channel.balance == 0) emit ChannelClosed(channelId, config);
        if (amount != 0) _pay(config.token, config.payer, amount);
    }

    /// @dev A fee on top of a transfer would be paid by all others.
    function _pay(address token, address to, uint256 amount) private {
        uint256 before = _held(token);
        IERC20(token).safeTransfer(to, amount);
        uint256 left = _held(token);
        unchecked {
            if (before - left != amount) revert TokenShortfall(token, amount, before - left);
        }
    }

    /// @dev This contract as its own collector. By allowance only for the payer itself: otherwise anyone could fill a hostile channel.
    function _collect(ChannelConfig calldata config, uint128 amount, bytes32 channelId, bytes calldata collectorData) private {
        if (collectorData.length == 0) {
            if (msg.sender != config.payer) revert NotChannelPayer(channelId, msg.sender);
            IERC20(config.token).safeTransferFrom(config.payer, address(this), amount);
            return;
        }
        (uint256 validAfter, uint256 validBefore, uint256 salt, bytes memory signature) =
            abi.decode(collectorData, (uint256, uint256, uint256, bytes));
        bytes32 nonce = keccak256(abi.encode(channelId, salt));
        IReceiveWithAuthorization(config.token)
            .receiveWithAuthorization(config.payer, address(this), amount, validAfter, validBefore, nonce, signature);
    }

    /// @dev Reads every field, so that the compiler refuses words with bits too many (`_channelId` does not).
    function _requireComplete(ChannelConfig calldata config) private pure {
        config.payerAuthorizer;
        if (
            config.payer == address(0) || config.receiver == address(0) || config.receiverAuthorizer == address(0)
                || config.token == address(0)
        ) revert ChannelIncomplete(config.payer, config.receiver, config.receiverAuthorizer, config.token);
        uint40 delay = config.withdrawDelay;
        if (delay < MIN_WITHDRAW_DELAY || delay > MAX_WITHDRAW_DELAY) {
            revert WithdrawDelayOutOfRange(delay, MIN_WITHDRAW_DELAY, MAX_WITHDRAW_DELAY);
        }
    }

    function _requirePayer(bytes32 channelId, ChannelConfig calldata config) private view {
        if (msg.sender != config.payer && msg.sender != config.payerAuthorizer) revert NotChannelPayer(channelId, msg.sender);
    }

    function _requireReceiver(bytes32 channelId, ChannelConfig calldata config) private view {
        if (msg.sender != config.receiver && msg.sender != config.receiverAuthorizer) revert NotChannelReceiver(channelId, msg.sender);
    }

    function _requireSigned(address signer, bytes32 digest, bytes calldata signature) private view {
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, digest, signature)) revert BadSignature(signer);
    }

    function _available(ChannelState storage channel) private view returns (uint128) {
        return channel.balance - channel.totalClaimed;
    }

    function _feeOn(uint256 total) private view returns (uint256) {
        return total * feeBps / BPS;
    }

    function _held(address token) private view returns (uint256) {
        if (token.code.length == 0) revert NotAToken(token);
        return IERC20(token).balanceOf(address(this));
    }

    /// @dev keccak256(abi.encode(CHANNEL_CONFIG_TYPEHASH, config)) without the checks: a word with bits too many makes another channel, which
    /// nobody can fund (see _requireComplete).
    function _channelId(bytes32 domain, ChannelConfig calldata config) private pure returns (bytes32) {
        bytes32 typeHash = CHANNEL_CONFIG_TYPEHASH;
        bytes32 structHash;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            calldatacopy(add(free, 0x20), config, 0xe0)
            structHash := keccak256(free, 0x100)
        }
        return _digest(domain, structHash);
    }

    function _voucherHash(bytes32 channelId, uint128 ceiling) private pure returns (bytes32 structHash) {
        bytes32 typeHash = VOUCHER_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typeHash)
            mstore(add(free, 0x20), channelId)
            mstore(add(free, 0x40), and(ceiling, sub(shl(128, 1), 1)))
            structHash := keccak256(free, 0x60)
        }
    }

    /// @dev Computed on each call: right on every fork, and code put somewhere without its constructor (a genesis block) is right too.
    function _domainSeparator() private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, keccak256(bytes(NAME)), keccak256(bytes(VERSION)), block.chainid, address(this)));
    }

    function _digest(bytes32 domain, bytes32 structHash) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            mstore(0x00, hex"1901")
            mstore(0x02, domain)
            mstore(0x22, structHash)
            digest := keccak256(0x00, 0x42)
            mstore(0x22, 0) // the free memory pointer's high bytes lie at 0x40
        }
    }
}
