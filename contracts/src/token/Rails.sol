// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRailMeter, IRails} from "./IRails.sol";
import {RailAccounts} from "./RailAccounts.sol";

/// @title Rails: see IRails for the rules.
/// @notice Time on a rail is in one of three states at its meter: proven (paid), unproven (returned to the payer) or not yet known
/// (it stays open, in escrow). Every second of [start, settledTo) is proven or unproven, and
///   paid for time = floor(amount * proven / interval), returned for time = floor(amount * unproven / interval),
/// both over the rail's whole life, so the number of settlements changes nothing. The escrow always covers the time up to the end:
/// that is checked when an end is set, and an open-ended rail ends where its escrow does. A top-up after that moment goes on from
/// that moment, not from now, so it too is independent of who settled when.
/// @notice A meter is trusted with what its payers approved for it, and with nothing else: it is called by STATICCALL, and what it
/// says is checked against the time that is asked for.
contract Rails is RailAccounts {
    IOperators public immutable operators;

    mapping(uint256 railId => Rail) private _rails;
    /// @notice Rails are numbered from 1.
    uint256 public railCount;

    event RailReduced(uint256 indexed railId, uint128 amount, uint64 end);

    error BadRate(uint128 amount, uint32 interval);
    error AlreadyBegun(uint256 railId, uint64 start);

    constructor(IOperators operators_) {
        operators = operators_;
    }

    /// @inheritdoc IRails
    function open(address payer, uint64 payee, address token, uint128 amount, uint32 interval, uint32 lockup, uint128 escrow)
        external
        returns (uint256 railId)
    {
        if (interval == 0) revert BadRate(amount, interval);
        operators.beneficiaryOf(payee); // reverts for an operator that does not exist
        _debitFor(token, payer, msg.sender, escrow);
        railId = ++railCount;
        Rail storage track = _rails[railId];
        (track.payer, track.payee, track.token, track.meter) = (payer, payee, token, msg.sender);
        (track.amount, track.interval, track.lockup, track.escrow) = (amount, interval, lockup, escrow);
        emit RailOpened(railId, payer, payee, token, msg.sender, amount, interval, escrow);
    }

    /// @inheritdoc IRails
    function begin(uint256 railId, uint64 start, uint64 end) external {
        Rail storage track = _openRail(railId);
        if (msg.sender != track.meter) revert NotMeter(railId, msg.sender);
        if (track.start != 0) revert AlreadyBegun(railId, track.start);
        if (start == 0 || (end != 0 && end <= start)) revert BadInterval(start, end);
        (track.start, track.end, track.settledTo) = (start, end, start);
        _requireCovered(railId, track, end == 0 ? uint256(start) + track.lockup : end);
        emit RailBegun(railId, start, end);
    }

    /// @notice The payer adds from the own account; the meter from the payer's, within its allowance, and may set a later end.
    /// @param newEnd 0: unchanged
    /// @inheritdoc IRails
    function topUp(uint256 railId, uint128 amount, uint64 newEnd) external {
        Rail storage track = _openRail(railId);
        if (amount == 0 && newEnd == 0) revert ZeroAmount();
        if (msg.sender == track.meter) {
            _debitFor(track.token, track.payer, msg.sender, amount);
        } else {
            if (msg.sender != track.payer) revert NotPayer(railId, msg.sender);
            if (newEnd != 0) revert NotMeter(railId, msg.sender);
            _debit(track.token, msg.sender, amount);
        }
        track.escrow += amount;
        if (newEnd != 0) {
            if (track.start == 0 || newEnd <= track.end || newEnd <= track.settledTo) revert BadInterval(track.start, newEnd);
            track.end = newEnd;
            _requireCovered(railId, track, newEnd);
        }
        emit RailToppedUp(railId, amount, track.end);
    }

    /// @notice A rail that has not begun, or is closed, has nothing to settle: 0, 0.
    /// @inheritdoc IRails
    function settle(uint256 railId) external returns (uint128 paid, uint128 refunded) {
        Rail storage track = _knownRail(railId);
        if (track.start == 0 || track.closed) return (0, 0);
        return _settleTo(railId, track, uint64(Math.min(block.timestamp, _endOf(track))));
    }

    /// @notice Time that is settled stays settled: an `end` before it ends the rail where it is settled.
    /// @return refunded what came back beside the settlement (see RailSettled for that of the settlement)
    /// @inheritdoc IRails
    function close(uint256 railId, uint64 end, uint128 fee, uint128 forfeit) external returns (uint128 refunded) {
        Rail storage track = _openRail(railId);
        if (msg.sender != track.meter) revert NotMeter(railId, msg.sender);
        if (track.start != 0) {
            uint64 to = uint64(Math.min(end, _endOf(track)));
            if (to > track.settledTo && to > block.timestamp) revert BadInterval(track.start, to);
            _settleTo(railId, track, to);
            if (track.settledTo < to) revert MeterOutOfRange(railId, track.provenSeconds, track.settledTo);
            track.end = track.settledTo;
        }
        uint128 escrow = track.escrow;
        if (uint256(fee) + forfeit > escrow) revert EscrowTooSmall(railId, escrow, uint256(fee) + forfeit);
        refunded = escrow - fee - forfeit;
        (track.closed, track.escrow) = (true, 0);
        track.paid += fee;
        track.refunded += refunded;
        _credit(track.token, operators.beneficiaryOf(track.payee), fee);
        _credit(track.token, msg.sender, forfeit);
        _credit(track.token, track.payer, refunded);
        emit RailClosed(railId, track.end, fee, forfeit, refunded);
    }

    /// @notice What stays must pay from where the rail is settled to `lockup` seconds from now.
    /// @inheritdoc IRails
    function reduce(uint256 railId, uint128 amount) external {
        Rail storage track = _openRail(railId);
        if (msg.sender != track.payer) revert NotPayer(railId, msg.sender);
        if (amount == 0) revert ZeroAmount();
        if (track.start == 0 || track.end != 0) revert BadInterval(track.start, track.end);
        if (amount > track.escrow) revert EscrowTooSmall(railId, track.escrow, amount);
        track.escrow -= amount;
        track.refunded += amount;
        _requireCovered(railId, track, Math.max(block.timestamp, track.start) + track.lockup);
        _credit(track.token, msg.sender, amount);
        emit RailReduced(railId, amount, _endOf(track));
    }

    /// @inheritdoc IRails
    function rail(uint256 railId) external view returns (Rail memory) {
        return _knownRail(railId);
    }

    /// @notice When the rail ends as things stand: its end, or when its escrow is empty; 0 before it begins.
    function endOf(uint256 railId) external view returns (uint64) {
        Rail storage track = _knownRail(railId);
        return track.start == 0 ? 0 : _endOf(track);
    }

    /// @dev Settles up to `to` as far as the meter is sure.
    function _settleTo(uint256 railId, Rail storage track, uint64 to) private returns (uint128 paid, uint128 refunded) {
        uint64 from = track.settledTo;
        if (to <= from) return (0, 0);
        (uint64 proven, uint64 settledTo) = IRailMeter(track.meter).measure(railId, from, to);
        if (settledTo < from || settledTo > to || proven > settledTo - from) revert MeterOutOfRange(railId, proven, settledTo);
        if (settledTo == from) return (0, 0);
        uint64 provenBefore = track.provenSeconds;
        uint64 unprovenBefore = from - track.start - provenBefore;
        // Both fit: together at most the escrow, which covers all time up to the end.
        paid = uint128(_priceOf(track, provenBefore + proven) - _priceOf(track, provenBefore));
        refunded = uint128(_priceOf(track, unprovenBefore + settledTo - from - proven) - _priceOf(track, unprovenBefore));
        (track.settledTo, track.provenSeconds) = (settledTo, provenBefore + proven);
        track.escrow -= paid + refunded;
        track.paid += paid;
        track.refunded += refunded;
        _credit(track.token, operators.beneficiaryOf(track.payee), paid);
        _credit(track.token, track.payer, refunded);
        emit RailSettled(railId, settledTo, track.provenSeconds, paid, refunded);
    }

    /// @dev The escrow must pay for all time from settledTo to `until`.
    function _requireCovered(uint256 railId, Rail storage track, uint256 until) private view {
        uint256 needed = Math.ceilDiv(uint256(track.amount) * (until - track.start), track.interval);
        uint256 funded = _funded(track);
        if (funded < needed) revert EscrowTooSmall(railId, track.escrow, needed - (funded - track.escrow));
    }

    function _endOf(Rail storage track) private view returns (uint64) {
        if (track.end != 0) return track.end;
        if (track.amount == 0) return type(uint64).max;
        return uint64(Math.min(track.start + _funded(track) * track.interval / track.amount, type(uint64).max));
    }

    /// @dev What the rail's time has cost and what is left for it; settlement does not change the sum.
    function _funded(Rail storage track) private view returns (uint256) {
        uint64 proven = track.provenSeconds;
        return uint256(track.escrow) + _priceOf(track, proven) + _priceOf(track, track.settledTo - track.start - proven);
    }

    function _priceOf(Rail storage track, uint64 timeSeconds) private view returns (uint256) {
        return uint256(track.amount) * timeSeconds / track.interval;
    }

    function _openRail(uint256 railId) private view returns (Rail storage track) {
        track = _knownRail(railId);
        if (track.closed) revert RailIsClosed(railId);
    }

    function _knownRail(uint256 railId) private view returns (Rail storage track) {
        track = _rails[railId];
        if (track.meter == address(0)) revert UnknownRail(railId);
    }
}
