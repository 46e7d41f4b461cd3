// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ICheckers} from "./ICheckers.sol";
import {IOrderBook} from "./IOrderBook.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageFile} from "./IStorageFile.sol";
import {IStorageMarket} from "./IStorageMarket.sol";
import {OrderStore} from "./OrderStore.sol";
import {StorageFile} from "./StorageFile.sol";

/// @title OrderBook: see IOrderBook for the rules. No owner, no parameter that can change.
/// @notice Money: a bid's is in the account of its file at Rails, an ask's is a lock in StakeVault; this contract holds nothing.
/// `AskState.locked` is exactly what the vault holds locked for the ask; beside it only the bonds of open claims are locked.
contract OrderBook is OrderStore, IOrderBook, IModule, EIP712 {
    using BitMaps for BitMaps.BitMap;
    using SafeCast for uint256;

    uint256 private constant CID_BYTES_MAX = 100; // as in the market
    uint256 private constant PIECE_HEIGHT_MAX = 32; // as in the market
    uint256 public constant SHARDS_MAX = 32;
    uint256 public constant EXCLUDED_MAX = 64;
    bytes32 private constant ASK_TYPEHASH = keccak256(
        "Ask(uint64 operatorId,uint128 minPrice,uint128 collateralPerGiB,uint64 capacityBytes,uint64 minBytes,uint64 maxBytes,uint32 minPeriods,uint32 maxPeriods,uint32 maxDeals,bytes32 networkPrefix,uint256 nonce,uint64 expiry)"
    );
    bytes32 private constant BID_TYPEHASH = keccak256(
        "Bid(address client,address agent,bytes32 contentHash,bytes32 shardsHash,uint64 shardSize,uint8 pieceHeight,uint8 count,uint8 needed,uint8 repairBelow,uint32 periods,uint128 maxPrice,uint128 collateralPerGiB,bool distinctNetworks,uint8 regionMax,bytes32 excludedHash,uint128 reserve,uint128 bountyMax,uint128 challengeBudget,uint256 nonce,uint64 expiry)"
    );

    /// @notice The code for batches (OrderBatches).
    address public immutable batches;
    /// @inheritdoc IOrderBook
    address public immutable fileImplementation;
    uint32 private immutable _periodsMin;
    uint32 private immutable _periodsMax;
    uint256 private immutable _bountyBps;

    constructor(
        Config memory c,
        IStorageMarket market_,
        IPossession possession_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        ICheckers checkers,
        address batches_
    ) EIP712("Millrace Orders", "1") OrderStore(market_, possession_, operators_, stakeVault_, rails_) {
        IStorageMarket.Config memory m = market_.config();
        _checkConfig(c, m);
        _config = c;
        batches = batches_;
        (_periodsMin, _periodsMax) = (m.minPeriods, m.maxPeriods);
        // A provider that leaves loses the leave fee; one that is thrown out loses all, of which half at least is burnt.
        _bountyBps = Math.min(m.leaveFeeBps, BPS / 2);
        fileImplementation =
            address(new StorageFile(IOrderBook(address(this)), market_, possession_, operators_, stakeVault_, rails_, checkers));
    }

    // ------------------------------------------------------------------------------------------------------------------ orders

    /// @inheritdoc IOrderBook
    function postAsk(Ask calldata a, bytes calldata signature) external returns (uint64 askId) {
        address nodeKey = operators.nodeKeyOf(a.operatorId);
        _useOrder(nodeKey, askDigest(a), signature, a.nonce, a.expiry);
        if (a.capacityBytes == 0) revert BadOrder("capacityBytes", 0, 1);
        if (a.maxDeals == 0) revert BadOrder("maxDeals", 0, 1);
        if (a.collateralPerGiB == 0) revert BadOrder("collateralPerGiB", 0, 1);
        if (a.maxBytes < a.minBytes) revert BadOrder("maxBytes", a.maxBytes, a.minBytes);
        if (a.maxPeriods < a.minPeriods) revert BadOrder("maxPeriods", a.maxPeriods, a.minPeriods);
        uint128 locked = askLock(a).toUint128();
        bytes32 region = operators.operator(a.operatorId).region;
        askId = ++_askCount;
        AskState storage s = _asks[askId];
        (s.operatorId, s.postedAt, s.validUntil) = (a.operatorId, uint64(block.timestamp), a.expiry);
        (s.minPeriods, s.maxPeriods) = (a.minPeriods, a.maxPeriods);
        (s.minPrice, s.collateralPerGiB) = (a.minPrice, a.collateralPerGiB);
        (s.freeBytes, s.minBytes, s.maxBytes, s.freeDeals) = (a.capacityBytes, a.minBytes, a.maxBytes, a.maxDeals);
        (s.locked, s.networkPrefix, s.region) = (locked, a.networkPrefix, region);
        stakeVault.lock(a.operatorId, locked);
        emit AskPosted(askId, a.operatorId, a, region, locked);
    }

    /// @inheritdoc IOrderBook
    function cancelAsk(uint64 askId) external {
        AskState storage s = _knownAsk(askId);
        uint64 operatorId = s.operatorId;
        if (msg.sender != operators.nodeKeyOf(operatorId) && msg.sender != operators.ownerOf(operatorId)) {
            revert NotOperator(operatorId, msg.sender);
        }
        uint64 end = _endOfBatch(s.validUntil);
        s.validUntil = end;
        emit AskCancelled(askId, end);
    }

    /// @inheritdoc IOrderBook
    function releaseAsk(uint64 askId) external {
        AskState storage s = _knownAsk(askId);
        if (block.timestamp < s.validUntil) revert StillUsable(s.validUntil, block.timestamp);
        uint128 locked = s.locked;
        if (locked == 0) revert NothingLocked(askId);
        s.locked = 0;
        emit AskReleased(askId, s.operatorId, locked);
        stakeVault.unlock(s.operatorId, locked);
    }

    /// @inheritdoc IOrderBook
    function postBid(Bid calldata b, uint64[] calldata excluded, Shard[] calldata shards, bytes calldata cid, bytes calldata signature)
        external
        returns (uint64 bidId, address file)
    {
        _useBid(b, signature);
        _checkContent(b, excluded, shards, cid);
        bidId = ++_bidCount;
        file = Clones.cloneDeterministic(fileImplementation, bidDigest(b));
        _bids[bidId].excluded = excluded;
        _emitPosted(bidId, b, excluded, shards, cid);
        _makeFile(bidId, b, file);
    }

    function _useBid(Bid calldata b, bytes calldata signature) private {
        _useOrder(b.client, bidDigest(b), signature, b.nonce, b.expiry);
        _checkBid(b);
    }

    function _emitPosted(uint64 bidId, Bid calldata b, uint64[] calldata excluded, Shard[] calldata shards, bytes calldata cid) private {
        emit BidPosted(bidId, b.client, b.contentHash, fileAddress(b), b, cid, shards, excluded);
    }

    function _makeFile(uint64 bidId, Bid calldata b, address file) private {
        _bidOfFile[file] = bidId;
        _writeBid(_bids[bidId], b, file);
        IStorageFile(file).make(_termsOf(b), b.reserve, b.challengeBudget);
        rails.transferFrom(token, b.client, file, bidCost(b));
    }

    function _writeBid(BidState storage s, Bid calldata b, address file) private {
        (s.file, s.count, s.pieceHeight, s.regionMax, s.distinctNetworks) = (file, b.count, b.pieceHeight, b.regionMax, b.distinctNetworks);
        (s.periods, s.maxPrice, s.collateralPerGiB, s.shardSize) = (b.periods, b.maxPrice, b.collateralPerGiB, b.shardSize);
        (s.postedAt, s.validUntil, s.shardsHash) = (uint64(block.timestamp), b.expiry, b.shardsHash);
    }

    function _termsOf(Bid calldata b) private pure returns (IStorageFile.Terms memory) {
        return IStorageFile.Terms({
            owner: b.client,
            count: b.count,
            needed: b.needed,
            repairBelow: b.repairBelow,
            distinctNetworks: b.distinctNetworks,
            regionMax: b.regionMax,
            periods: b.periods,
            agent: b.agent,
            contentHash: b.contentHash,
            bountyMax: b.bountyMax
        });
    }

    /// @inheritdoc IOrderBook
    function cancelBid(uint64 bidId) external {
        BidState storage s = _knownBid(bidId);
        if (msg.sender != IStorageFile(s.file).terms().owner) revert NotClient(bidId, msg.sender);
        if (s.filled) revert BidAlreadyFilled(bidId);
        uint64 end = _endOfBatch(s.validUntil);
        s.validUntil = end;
        emit BidCancelled(bidId, end);
    }

    /// @inheritdoc IOrderBook
    function cancelNonce(uint256 nonce) external {
        _nonces[msg.sender].set(nonce);
        emit NonceCancelled(msg.sender, nonce);
    }

    // ----------------------------------------------------------------------------------------------------------------- batches

    /// @inheritdoc IOrderBook
    /// @dev Code of OrderBatches.
    function submit(uint64, Matching calldata) external {
        _runBatches();
    }

    /// @inheritdoc IOrderBook
    /// @dev Code of OrderBatches.
    function settle(uint64, Matching calldata, uint256, Shard[] calldata) external {
        _runBatches();
    }

    /// One contract in two pieces of code, because of EIP-170: the other piece runs on this contract's storage.
    function _runBatches() private {
        (bool done, bytes memory answer) = batches.delegatecall(msg.data);
        if (done) return;
        assembly ("memory-safe") {
            revert(add(answer, 32), mload(answer))
        }
    }

    // ------------------------------------------------------------------------------------------------------------- files only

    /// @inheritdoc IOrderBook
    function openClaim(IStorageMarket.DealTerms calldata terms, bytes calldata cid) external returns (uint64 dealId) {
        uint64 bidId = _bidOfFile[msg.sender];
        if (bidId == 0 || terms.client != msg.sender) revert NotFile(msg.sender);
        uint64[] storage excluded = _bids[bidId].excluded;
        for (uint256 i; i < excluded.length; ++i) {
            if (excluded[i] == terms.operatorId) revert OperatorExcluded(bidId, terms.operatorId);
        }
        stakeVault.lock(terms.operatorId, _config.claimBond);
        dealId = market.open(terms, cid, false);
        _claimOperator[dealId] = terms.operatorId;
        emit ClaimOpened(msg.sender, terms.operatorId, dealId, _config.claimBond);
    }

    /// @inheritdoc IOrderBook
    function closeClaim(uint64 dealId, bool fulfilled) external {
        uint64 operatorId = _claimOperator[dealId];
        if (operatorId == 0 || market.deal(dealId).client != msg.sender) revert NotFile(msg.sender);
        delete _claimOperator[dealId];
        if (fulfilled) stakeVault.unlock(operatorId, _config.claimBond);
        else stakeVault.slash(operatorId, _config.claimBond, IStakeVault.Payout(msg.sender, _config.dealBond, address(0), 0));
        emit ClaimClosed(msg.sender, operatorId, dealId, fulfilled);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IModule
    /// @dev A claim's bond is at stake until the market's deadline, an ask until its batch is settled. Both stay locked till then.
    function exposureSeconds() external view returns (uint64) {
        return market.config().activationDeadline + 2 * uint64(_config.batchSeconds);
    }

    /// @inheritdoc IOrderBook
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @inheritdoc IOrderBook
    function ask(uint64 askId) external view returns (AskState memory) {
        return _knownAsk(askId);
    }

    /// @inheritdoc IOrderBook
    function bid(uint64 bidId) external view returns (BidState memory) {
        return _knownBid(bidId);
    }

    /// @inheritdoc IOrderBook
    function best(uint64 batch) external view returns (Best memory) {
        return _best[batch];
    }

    /// @inheritdoc IOrderBook
    function askCount() external view returns (uint64) {
        return _askCount;
    }

    /// @inheritdoc IOrderBook
    function bidCount() external view returns (uint64) {
        return _bidCount;
    }

    /// @inheritdoc IOrderBook
    function bidOfFile(address file) external view returns (uint64) {
        return _bidOfFile[file];
    }

    /// @inheritdoc IOrderBook
    function claimOperator(uint64 dealId) external view returns (uint64) {
        return _claimOperator[dealId];
    }

    /// @inheritdoc IOrderBook
    function batchStart(uint64 batch) external view returns (uint64) {
        return _batchStart(batch);
    }

    /// @inheritdoc IOrderBook
    function fileAddress(Bid calldata b) public view returns (address) {
        return Clones.predictDeterministicAddress(fileImplementation, bidDigest(b));
    }

    /// @inheritdoc IOrderBook
    function bidCost(Bid calldata b) public view returns (uint256) {
        uint256 price = _perShardUp(b.shardSize, b.maxPrice);
        uint256 perShard = (price + _feePerPeriod(price)) * b.periods + _config.dealBond;
        return perShard * b.count + _config.matcherTip + b.reserve + b.challengeBudget;
    }

    /// @inheritdoc IOrderBook
    function askLock(Ask calldata a) public view returns (uint256) {
        return Math.ceilDiv(uint256(a.capacityBytes) * a.collateralPerGiB, GIB) + a.maxDeals * (uint256(_config.dealBond) + 1);
    }

    /// @inheritdoc IOrderBook
    function bountyLimit(uint128 collateral) public view returns (uint128) {
        return uint128(collateral * _bountyBps / BPS);
    }

    /// @inheritdoc IOrderBook
    function feePerPeriod(uint64 dealId) external view returns (uint128) {
        IStorageMarket.Deal memory d = market.deal(dealId);
        return _bidOfFile[d.client] == 0 ? 0 : uint128(_feePerPeriod(d.pricePerPeriod));
    }

    /// @inheritdoc IOrderBook
    function batchAt(uint256 timestamp) public view returns (uint64) {
        return uint64((timestamp - _config.genesis) / _config.batchSeconds);
    }

    /// @inheritdoc IOrderBook
    function isNonceUsed(address signer, uint256 nonce) external view returns (bool) {
        return _nonces[signer].get(nonce);
    }

    /// @inheritdoc IOrderBook
    function askDigest(Ask calldata a) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ASK_TYPEHASH, a)));
    }

    /// @inheritdoc IOrderBook
    function bidDigest(Bid calldata b) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(BID_TYPEHASH, b)));
    }

    // ------------------------------------------------------------------------------------------------------------------ checks

    function _useOrder(address signer, bytes32 digest, bytes calldata signature, uint256 nonce, uint64 expiry) private {
        if (block.timestamp >= expiry) revert OrderExpired(expiry, block.timestamp);
        if (_nonces[signer].get(nonce)) revert NonceUsed(signer, nonce);
        _nonces[signer].set(nonce);
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, digest, signature)) revert BadSignature(signer);
    }

    /// All that the market asks of terms, so that a match cannot fail there.
    function _checkBid(Bid calldata b) private view {
        if (b.count == 0 || b.count > SHARDS_MAX) revert BadOrder("count", b.count, SHARDS_MAX);
        if (b.needed == 0 || b.needed > b.count) revert BadOrder("needed", b.needed, b.count);
        if (b.repairBelow != 0 && (b.repairBelow <= b.needed || b.repairBelow > b.count)) {
            revert BadOrder("repairBelow", b.repairBelow, b.count);
        }
        if (b.periods < _periodsMin) revert BadOrder("periods", b.periods, _periodsMin);
        if (b.periods > _periodsMax) revert BadOrder("periods", b.periods, _periodsMax);
        if (b.collateralPerGiB == 0) revert BadOrder("collateralPerGiB", 0, 1);
        if (b.shardSize == 0) revert BadOrder("shardSize", 0, 1);
        if (b.pieceHeight > PIECE_HEIGHT_MAX) revert BadOrder("pieceHeight", b.pieceHeight, PIECE_HEIGHT_MAX);
        uint256 leaves = Math.ceilDiv(uint256(b.shardSize) * 4, 127);
        if (leaves > uint256(1) << b.pieceHeight) revert BadOrder("leaves", leaves, uint256(1) << b.pieceHeight);
        (_perShardUp(b.shardSize, b.maxPrice) * b.periods + _config.dealBond).toUint128();
        uint128 collateral = _perShardUp(b.shardSize, b.collateralPerGiB).toUint128();
        uint128 limit = bountyLimit(collateral);
        if (b.bountyMax != 0 && b.bountyMax >= limit) revert BadOrder("bountyMax", b.bountyMax, limit);
    }

    function _checkContent(Bid calldata b, uint64[] calldata excluded, Shard[] calldata shards, bytes calldata cid) private pure {
        if (cid.length > CID_BYTES_MAX) revert BadOrder("cid", cid.length, CID_BYTES_MAX);
        if (excluded.length > EXCLUDED_MAX) revert BadOrder("excluded", excluded.length, EXCLUDED_MAX);
        if (shards.length != b.count) revert BadOrder("shards", shards.length, b.count);
        for (uint256 i; i < shards.length; ++i) {
            if (shards[i].cid.length > CID_BYTES_MAX) revert BadOrder("cid", shards[i].cid.length, CID_BYTES_MAX);
        }
        _requireHash("cid", keccak256(cid), b.contentHash);
        _requireHash("shards", keccak256(abi.encode(shards)), b.shardsHash);
        _requireHash("excluded", keccak256(abi.encode(excluded)), b.excludedHash);
    }

    /// Until when an order that is cancelled now stays valid.
    function _endOfBatch(uint64 validUntil) private view returns (uint64) {
        return uint64(Math.min(validUntil, _batchStart(batchAt(block.timestamp) + 1)));
    }

    function _checkConfig(Config memory c, IStorageMarket.Config memory m) private view {
        if (c.genesis > block.timestamp) revert BadConfig("genesis", c.genesis, block.timestamp);
        if (c.matchSeconds == 0) revert BadConfig("matchSeconds", 0, 1);
        if (c.batchSeconds <= c.matchSeconds) revert BadConfig("batchSeconds", c.batchSeconds, c.matchSeconds);
        if (c.feeBps > BPS) revert BadConfig("feeBps", c.feeBps, BPS);
        if (c.bountySeconds == 0) revert BadConfig("bountySeconds", 0, 1);
        if (c.dealBond < m.minBond) revert BadConfig("dealBond", c.dealBond, m.minBond);
        if (c.claimBond < 2 * uint256(c.dealBond)) revert BadConfig("claimBond", c.claimBond, 2 * uint256(c.dealBond));
    }
}