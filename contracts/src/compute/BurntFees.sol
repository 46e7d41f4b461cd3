// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IBuybackAuction} from "./IBuybackAuction.sol";

/// @title BurntFees: how much of the native token the auction burnt for whose stable fees. Part of ComputeRewards.
/// @notice Stable fees stand in one queue, in the order in which they are counted, behind all that was sold by then; lots are for the
/// head of the queue. So what is burnt for a lot counts once, for fees that were taken before, and never for more than it was. Whoever
/// buys lots above their worth to raise what its own fees count for burns more than it gains.
/// @dev Lots that are sold between two calls are taken together, at their mean price.
abstract contract BurntFees {
    using SafeCast for uint256;

    /// What the auction had done at some time.
    struct Mark {
        uint128 sold; // stable base units
        uint128 paid; // native base units burnt for them
    }

    /// Stable base units; [from, to) are places in the queue.
    struct Place {
        uint128 from;
        uint128 to;
        uint128 unqueued; // counted, and to be queued when the interval is sold
    }

    IBuybackAuction public immutable auction;

    Mark[] private _marks;
    uint128 private _queueEnd;
    mapping(uint64 operatorId => Place) private _places;

    constructor(IBuybackAuction auction_) {
        auction = auction_;
        _marks.push(Mark(auction_.sold().toUint128(), auction_.paid().toUint128()));
    }

    function _countStableFees(uint64 operatorId, uint256 amount) internal {
        _places[operatorId].unqueued += amount.toUint128();
    }

    /// @dev What was burnt for an operator's stable fees since the last call; then queues those that are not.
    function _takeBurnt(uint64 operatorId) internal returns (uint256 stableFees, uint256 burnt) {
        uint128 sold = _mark();
        Place storage place = _places[operatorId];
        (uint128 from, uint128 to) = (place.from, uint128(Math.min(place.to, sold)));
        if (to > from) {
            (stableFees, burnt) = (to - from, _paidUpTo(to) - _paidUpTo(from));
            place.from = from = to;
        }
        uint128 amount = place.unqueued;
        if (from < place.to || amount == 0) return (stableFees, burnt);
        from = uint128(Math.max(_queueEnd, sold));
        (place.from, place.to, place.unqueued, _queueEnd) = (from, from + amount, 0, from + amount);
    }

    function _waitingFees(uint64 operatorId) internal view returns (uint256 queued, uint256 unqueued) {
        Place storage place = _places[operatorId];
        return (place.to - place.from, place.unqueued);
    }

    function _mark() private returns (uint128 sold) {
        sold = auction.sold().toUint128();
        if (sold > _marks[_marks.length - 1].sold) _marks.push(Mark(sold, auction.paid().toUint128()));
    }

    /// Burnt for all up to a place that is sold; between two marks in proportion, rounded down.
    function _paidUpTo(uint128 place) private view returns (uint256) {
        (uint256 low, uint256 high) = (0, _marks.length - 1);
        while (low < high) {
            uint256 middle = (low + high) / 2;
            if (_marks[middle].sold < place) low = middle + 1;
            else high = middle;
        }
        Mark memory next = _marks[low];
        if (next.sold == place || low == 0) return next.paid;
        Mark memory last = _marks[low - 1];
        return last.paid + Math.mulDiv(next.paid - last.paid, place - last.sold, next.sold - last.sold);
    }
}
