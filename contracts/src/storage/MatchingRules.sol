// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOrderBook} from "./IOrderBook.sol";

/// @title MatchingRules: whether a matching is feasible, its price and its score. Pure: all orders are given.
library MatchingRules {
    /// Whom an ask belongs to.
    struct Party {
        address owner;
        address beneficiary;
    }

    struct Outcome {
        uint256 score;
        uint128 price; // the middle between the highest ask and the lowest bid, rounded down
        uint256 sizeBytes;
        uint128 highestAsk;
        uint128 lowestBid;
    }

    /// All that a matching refers to, in its order.
    struct Orders {
        IOrderBook.AskState[] asks; // as they stand; the free bytes and deals are used up by the check
        Party[] parties; // of the asks
        IOrderBook.BidState[] bids;
        bool[] used; // of the asks
    }

    function evaluate(IOrderBook.Matching calldata matching, Orders memory orders) internal pure returns (Outcome memory outcome) {
        _checkLength(matching.assignment, orders.bids);
        orders.used = new bool[](orders.asks.length);
        outcome.lowestBid = type(uint128).max;
        uint256 at;
        for (uint256 b; b < orders.bids.length; ++b) {
            IOrderBook.BidState memory bid = orders.bids[b];
            outcome.score += _place(matching, orders, b, indices(matching.assignment, at, bid.count));
            outcome.sizeBytes += uint256(bid.shardSize) * bid.count;
            if (bid.maxPrice < outcome.lowestBid) outcome.lowestBid = bid.maxPrice;
            at += bid.count;
        }
        for (uint256 a; a < orders.asks.length; ++a) {
            if (!orders.used[a]) revert IOrderBook.AskUnused(matching.asks[a]);
            if (orders.asks[a].minPrice > outcome.highestAsk) outcome.highestAsk = orders.asks[a].minPrice;
        }
        if (outcome.highestAsk > outcome.lowestBid) revert IOrderBook.PriceCrossed(outcome.highestAsk, outcome.lowestBid);
        outcome.price = uint128((uint256(outcome.highestAsk) + outcome.lowestBid) / 2);
    }

    /// All shards of one bid.
    function _place(IOrderBook.Matching calldata matching, Orders memory orders, uint256 b, uint256[] memory placed)
        private
        pure
        returns (uint256 score)
    {
        IOrderBook.BidState memory bid = orders.bids[b];
        for (uint256 s; s < placed.length; ++s) {
            uint256 index = placed[s];
            if (index >= orders.asks.length) revert IOrderBook.UnknownIndex(index, orders.asks.length);
            orders.used[index] = true;
            _take(matching.bids[b], bid, matching.asks[index], orders.asks[index]);
            _requireDiverse(matching, orders, b, placed, s);
            score += uint256(bid.shardSize) * bid.periods * (uint256(bid.maxPrice) - orders.asks[index].minPrice + 1);
        }
    }

    /// @notice The asks of `count` shards from shard `from` of the matching on, by their index.
    function indices(bytes calldata assignment, uint256 from, uint256 count) internal pure returns (uint256[] memory found) {
        found = new uint256[](count);
        for (uint256 s; s < count; ++s) {
            uint256 at = 2 * (from + s);
            found[s] = uint16(bytes2(assignment[at:at + 2]));
        }
    }

    function _checkLength(bytes calldata assignment, IOrderBook.BidState[] memory bids) private pure {
        uint256 expected;
        for (uint256 b; b < bids.length; ++b) {
            expected += 2 * uint256(bids[b].count);
        }
        if (assignment.length != expected) revert IOrderBook.AssignmentLength(assignment.length, expected);
    }

    /// One shard of the bid falls to the ask.
    function _take(uint64 bidId, IOrderBook.BidState memory bid, uint64 askId, IOrderBook.AskState memory ask) private pure {
        if (bid.maxPrice < ask.minPrice) revert IOrderBook.DoesNotFit(bidId, askId, "price");
        if (bid.collateralPerGiB > ask.collateralPerGiB) revert IOrderBook.DoesNotFit(bidId, askId, "collateral");
        if (bid.shardSize < ask.minBytes || bid.shardSize > ask.maxBytes) revert IOrderBook.DoesNotFit(bidId, askId, "size");
        if (bid.periods < ask.minPeriods || bid.periods > ask.maxPeriods) revert IOrderBook.DoesNotFit(bidId, askId, "periods");
        if (bid.shardSize > ask.freeBytes) revert IOrderBook.DoesNotFit(bidId, askId, "capacity");
        if (ask.freeDeals == 0) revert IOrderBook.DoesNotFit(bidId, askId, "deals");
        if (bid.distinctNetworks && ask.networkPrefix == 0) revert IOrderBook.DoesNotFit(bidId, askId, "network");
        for (uint256 i; i < bid.excluded.length; ++i) {
            if (bid.excluded[i] == ask.operatorId) revert IOrderBook.OperatorExcluded(bidId, ask.operatorId);
        }
        ask.freeBytes -= bid.shardSize;
        --ask.freeDeals;
    }

    /// Shard `s` against those before it.
    function _requireDiverse(IOrderBook.Matching calldata matching, Orders memory orders, uint256 b, uint256[] memory placed, uint256 s)
        private
        pure
    {
        IOrderBook.BidState memory bid = orders.bids[b];
        uint256 index = placed[s];
        uint256 inRegion = 1;
        for (uint256 i; i < s; ++i) {
            uint256 other = placed[i];
            string memory what = _shared(bid.distinctNetworks, orders, index, other);
            if (bid.regionMax != 0 && orders.asks[index].region == orders.asks[other].region && ++inRegion > bid.regionMax) what = "region";
            if (bytes(what).length != 0) {
                revert IOrderBook.NotDiverse(matching.bids[b], matching.asks[index], matching.asks[other], what);
            }
        }
    }

    function _shared(bool networks, Orders memory orders, uint256 index, uint256 other) private pure returns (string memory) {
        IOrderBook.AskState memory one = orders.asks[index];
        IOrderBook.AskState memory two = orders.asks[other];
        if (one.operatorId == two.operatorId) return "operator";
        if (related(orders.parties[index], orders.parties[other])) return "owner";
        if (networks && one.networkPrefix == two.networkPrefix) return "network";
        return "";
    }

    /// @notice Whether two operators have an owner or a beneficiary in common, in either place.
    function related(Party memory one, Party memory other) internal pure returns (bool) {
        return one.owner == other.owner || one.beneficiary == other.beneficiary || one.owner == other.beneficiary
            || one.beneficiary == other.owner;
    }
}
