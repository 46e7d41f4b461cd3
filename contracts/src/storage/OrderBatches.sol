// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IOrderBook} from "./IOrderBook.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageFile} from "./IStorageFile.sol";
import {IStorageMarket} from "./IStorageMarket.sol";
import {MatchingRules} from "./MatchingRules.sol";
import {OrderStore} from "./OrderStore.sol";

/// @notice What the order book needs of the network's token.
interface IFeeToken {
    function burn(uint256 amount) external;
}

/// @title OrderBatches: the order book's code for `submit` and `settle`, run by the order book on its own storage (delegatecall).
/// @notice Called directly it has no configuration and no orders, and refuses everything by OutsideWindow.
contract OrderBatches is OrderStore {
    using SafeCast for uint256;

    constructor(IStorageMarket market_, IPossession possession_, IOperators operators_, IStakeVault stakeVault_, IRails rails_)
        OrderStore(market_, possession_, operators_, stakeVault_, rails_)
    {}

    /// @notice See IOrderBook.
    function submit(uint64 batch, IOrderBook.Matching calldata matching) external {
        uint64 close = _requireWithin(batch, 0, _config.matchSeconds);
        if (matching.bids.length == 0) revert IOrderBook.NothingMatched();
        MatchingRules.Orders memory orders;
        (orders.asks, orders.parties) = _loadAsks(close, matching.asks);
        orders.bids = _loadBids(close, matching.bids);
        MatchingRules.Outcome memory outcome = MatchingRules.evaluate(matching, orders);
        IOrderBook.Best storage top = _best[batch];
        if (outcome.score <= top.score) revert IOrderBook.NotBetter(outcome.score, top.score);
        (top.submitter, top.sizeBytes) = (msg.sender, outcome.sizeBytes.toUint64());
        (top.score, top.price, top.matchingHash) = (outcome.score, outcome.price, keccak256(abi.encode(matching)));
        emit IOrderBook.MatchingSubmitted(batch, msg.sender, outcome.score, outcome.price, matching);
    }

    function _loadAsks(uint64 close, uint64[] calldata ids)
        private
        view
        returns (IOrderBook.AskState[] memory asks, MatchingRules.Party[] memory parties)
    {
        asks = new IOrderBook.AskState[](ids.length);
        parties = new MatchingRules.Party[](ids.length);
        for (uint256 i; i < ids.length; ++i) {
            IOrderBook.AskState memory a = _knownAsk(ids[i]);
            _requireInBatch(close, ids, i, a.postedAt, a.validUntil);
            asks[i] = a;
            parties[i] = MatchingRules.Party(operators.ownerOf(a.operatorId), operators.beneficiaryOf(a.operatorId));
        }
    }

    function _loadBids(uint64 close, uint64[] calldata ids) private view returns (IOrderBook.BidState[] memory bids) {
        bids = new IOrderBook.BidState[](ids.length);
        for (uint256 i; i < ids.length; ++i) {
            IOrderBook.BidState memory b = _knownBid(ids[i]);
            _requireInBatch(close, ids, i, b.postedAt, b.validUntil);
            if (b.filled) revert IOrderBook.BidAlreadyFilled(ids[i]);
            bids[i] = b;
        }
    }

    function _requireInBatch(uint64 close, uint64[] calldata ids, uint256 i, uint64 postedAt, uint64 validUntil) private view {
        if (i != 0 && ids[i] <= ids[i - 1]) revert IOrderBook.NotAscending(ids[i], ids[i - 1]);
        if (postedAt >= close || validUntil < close + _config.batchSeconds) revert IOrderBook.NotInBatch(ids[i], postedAt, validUntil);
    }

    /// @notice See IOrderBook.
    function settle(uint64 batch, IOrderBook.Matching calldata matching, uint256 bidIndex, IOrderBook.Shard[] calldata shards) external {
        _requireWithin(batch, _config.matchSeconds, _config.batchSeconds);
        IOrderBook.Best storage top = _best[batch];
        _requireHash("matching", keccak256(abi.encode(matching)), top.matchingHash);
        if (bidIndex >= matching.bids.length) revert IOrderBook.UnknownIndex(bidIndex, matching.bids.length);
        if (!top.cleared) {
            top.cleared = true;
            emit IOrderBook.BatchCleared(batch, top.price, top.sizeBytes, top.score, top.submitter, matching.bids);
        }
        uint64 bidId = matching.bids[bidIndex];
        IOrderBook.BidState storage b = _bids[bidId];
        if (b.filled) revert IOrderBook.BidAlreadyFilled(bidId);
        b.filled = true;
        _requireHash("shards", keccak256(abi.encode(shards)), b.shardsHash);
        uint64[] memory deals = _openDeals(b, matching, bidIndex, shards, top.price);
        uint256 fee = _takeFee(b, top);
        emit IOrderBook.BidFilled(bidId, batch, b.file, top.price, deals, fee);
    }

    function _openDeals(IOrderBook.BidState storage b, IOrderBook.Matching calldata matching, uint256 bidIndex, IOrderBook.Shard[] calldata shards, uint128 price)
        private
        returns (uint64[] memory deals)
    {
        uint256 from;
        for (uint256 i; i < bidIndex; ++i) {
            from += _bids[matching.bids[i]].count;
        }
        uint256[] memory placed = MatchingRules.indices(matching.assignment, from, shards.length);
        IStorageFile.Placement[] memory placements = new IStorageFile.Placement[](shards.length);
        deals = new uint64[](shards.length);
        IStorageMarket.DealTerms memory terms = _dealTerms(b, price);
        for (uint256 s; s < shards.length; ++s) {
            IOrderBook.AskState storage a = _asks[matching.asks[placed[s]]];
            (terms.operatorId, terms.pieceRoot, terms.contentHash) = (a.operatorId, shards[s].pieceRoot, keccak256(shards[s].cid));
            _useAsk(a, terms);
            deals[s] = market.open(terms, shards[s].cid, true);
            placements[s] = IStorageFile.Placement(deals[s], a.operatorId, a.networkPrefix, a.region);
        }
        uint64 endPeriod = possession.periodAt(block.timestamp) + 1 + b.periods;
        IStorageFile(b.file).fill(placements, endPeriod, terms.pricePerPeriod, terms.collateral);
    }

    function _dealTerms(IOrderBook.BidState storage b, uint128 price) private view returns (IStorageMarket.DealTerms memory terms) {
        terms.client = b.file;
        terms.pieceHeight = b.pieceHeight;
        terms.rawSize = b.shardSize;
        terms.periods = b.periods;
        terms.pricePerPeriod = _perShardUp(b.shardSize, price).toUint128();
        terms.collateral = _perShardUp(b.shardSize, b.collateralPerGiB).toUint128();
        terms.bond = _config.dealBond;
        terms.expiry = uint64(block.timestamp);
    }

    function _useAsk(IOrderBook.AskState storage a, IStorageMarket.DealTerms memory terms) private {
        uint128 lock = terms.collateral + terms.bond;
        a.freeBytes -= terms.rawSize;
        a.freeDeals -= 1;
        a.locked -= lock;
        stakeVault.giveLock(terms.operatorId, address(market), lock);
    }

    /// Burns the fee, pays the matcher.
    function _takeFee(IOrderBook.BidState storage b, IOrderBook.Best storage top) private returns (uint256 fee) {
        fee = _feePerPeriod(_perShardUp(b.shardSize, top.price)) * b.periods * b.count;
        uint256 tip = _config.matcherTip;
        if (fee + tip != 0) rails.transferFrom(token, b.file, address(this), fee + tip);
        if (tip != 0) rails.transfer(token, top.submitter, tip);
        if (fee != 0) {
            rails.withdraw(token, fee, address(this));
            IFeeToken(token).burn(fee);
        }
    }

    /// @param from seconds after the close
    function _requireWithin(uint64 batch, uint32 from, uint32 to) private view returns (uint64 close) {
        close = _batchStart(batch) + _config.batchSeconds;
        if (block.timestamp < close + from || block.timestamp >= close + to) {
            revert IOrderBook.OutsideWindow(block.timestamp, close + from, close + to);
        }
    }
}
