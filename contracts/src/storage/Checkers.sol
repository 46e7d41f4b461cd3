// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IModule} from "../chain/IRegistry.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ICheckers} from "./ICheckers.sol";
import {IStorageMarket} from "./IStorageMarket.sol";

/// @title Checkers: see ICheckers for the rules. No owner, no parameter that can change.
/// @notice Money: the fees of open requests are this contract's account at Rails. Seats lock stake and are never slashed.
contract Checkers is ICheckers, IModule, EIP712 {
    using Checkpoints for Checkpoints.Trace208;
    using Shuffle for Shuffle.Order;

    /// Seats looked at in one draw: those that have left or belong to the provider are passed over.
    uint256 private constant STEPS_MAX = 128;
    uint256 private constant DRAWN_MAX = 32;
    bytes32 private constant RETRIEVABLE_TYPEHASH = keccak256("Retrievable(uint64 dealId,bytes32 contentHash)");

    IStorageMarket public immutable market;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    IRails public immutable rails;
    IRandomness public immutable randomness;
    address public immutable token;

    Config private _config; // written once, in the constructor
    /// @inheritdoc ICheckers
    uint64 public seatCount;
    mapping(uint64 seatId => Seat) private _seats;
    /// @inheritdoc ICheckers
    mapping(uint64 operatorId => uint64) public seatOf;
    Checkpoints.Trace208 private _counts; // seats ever taken, by time
    mapping(uint64 dealId => Request) private _requests;

    constructor(
        Config memory c,
        IStorageMarket market_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        IRandomness randomness_
    ) EIP712("Millrace Checkers", "1") {
        if (c.seatStake == 0) revert BadConfig("seatStake", 0, 1);
        if (c.leaveSeconds == 0) revert BadConfig("leaveSeconds", 0, 1);
        if (c.drawn == 0 || c.drawn > DRAWN_MAX) revert BadConfig("drawn", c.drawn, DRAWN_MAX);
        if (c.threshold > c.drawn || 2 * uint256(c.threshold) <= c.drawn) revert BadConfig("threshold", c.threshold, c.drawn);
        if (c.missesMax == 0) revert BadConfig("missesMax", 0, 1);
        _config = c;
        market = market_;
        operators = operators_;
        stakeVault = stakeVault_;
        rails = rails_;
        randomness = randomness_;
        token = stakeVault_.stakeToken();
    }

    // ------------------------------------------------------------------------------------------------------------------- seats

    /// @inheritdoc ICheckers
    function enrol(uint64 operatorId) external returns (uint64 seatId) {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        if (seatOf[operatorId] != 0) revert AlreadyEnrolled(operatorId, seatOf[operatorId]);
        seatId = ++seatCount;
        seatOf[operatorId] = seatId;
        (_seats[seatId].operatorId, _seats[seatId].enrolledAt) = (operatorId, uint64(block.timestamp));
        _counts.push(uint48(block.timestamp), seatId);
        emit Enrolled(seatId, operatorId);
        stakeVault.lock(operatorId, _config.seatStake);
    }

    /// @inheritdoc ICheckers
    function leave(uint64 operatorId) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender && operators.ownerOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        uint64 seatId = seatOf[operatorId];
        if (seatId == 0) revert NotEnrolled(operatorId);
        _vacate(seatId, _seats[seatId]);
    }

    /// @inheritdoc ICheckers
    function removeIdle(uint64 seatId) external {
        Seat storage s = _knownSeat(seatId);
        if (s.leftAt != 0) revert NotEnrolled(s.operatorId);
        if (s.missed < _config.missesMax) revert NotMissed(seatId, s.missed, _config.missesMax);
        _vacate(seatId, s);
    }

    /// @inheritdoc ICheckers
    function unlock(uint64 seatId) external {
        Seat storage s = _knownSeat(seatId);
        if (s.leftAt == 0 || s.unlocked) revert NotEnrolled(s.operatorId);
        uint64 unlocksAt = s.leftAt + _config.leaveSeconds;
        if (block.timestamp < unlocksAt) revert StillLocked(seatId, unlocksAt, block.timestamp);
        s.unlocked = true;
        emit SeatUnlocked(seatId, s.operatorId);
        stakeVault.unlock(s.operatorId, _config.seatStake);
    }

    function _vacate(uint64 seatId, Seat storage s) private {
        s.leftAt = uint64(block.timestamp);
        delete seatOf[s.operatorId];
        emit Left(seatId, s.operatorId, s.leftAt + _config.leaveSeconds);
    }

    // ---------------------------------------------------------------------------------------------------------------- verdicts

    /// @inheritdoc ICheckers
    function request(uint64 dealId) external {
        IStorageMarket.Deal memory d = market.deal(dealId);
        if (operators.nodeKeyOf(d.operatorId) != msg.sender) revert NotProvider(dealId, msg.sender);
        if (d.state != IStorageMarket.State.Open) revert NotOpen(dealId);
        Request storage r = _requests[dealId];
        if (r.payer != address(0)) revert AlreadyRequested(dealId);
        uint64[] memory seats = _draw(dealId, d);
        if (seats.length < _config.threshold) revert TooFewSeats(seats.length, _config.threshold);
        uint128 fee = uint128(seats.length * _config.fee);
        (r.payer, r.fee, r.seats) = (msg.sender, fee, seats);
        emit VerdictRequested(dealId, d.operatorId, _operatorsOf(seats), fee);
        if (fee != 0) rails.transferFrom(token, msg.sender, address(this), fee);
    }

    /// @inheritdoc ICheckers
    function verdict(uint64 dealId, bytes[] calldata signatures) external {
        Request storage r = _openRequest(dealId);
        uint256 count = r.seats.length;
        if (signatures.length != count) revert WrongCount(signatures.length, count);
        bytes32 digest = retrievableDigest(dealId);
        uint32 signed;
        uint256 signers;
        for (uint256 i; i < count; ++i) {
            if (signatures[i].length == 0) continue;
            address nodeKey = operators.nodeKeyOf(_seats[r.seats[i]].operatorId);
            if (!SignatureChecker.isValidSignatureNowCalldata(nodeKey, digest, signatures[i])) revert BadSignature(nodeKey);
            signed |= uint32(1 << i);
            ++signers;
        }
        if (signers < _config.threshold) revert TooFewSignatures(signers, _config.threshold);
        (r.confirmed, r.closed, r.signed) = (true, true, signed);
        emit VerdictGiven(dealId, signed);
        _reward(dealId, r, signed, signers);
    }

    /// Those who signed share the fee of all; what the division leaves goes to the first. The others have missed.
    function _reward(uint64 dealId, Request storage r, uint32 signed, uint256 signers) private {
        uint128 share = uint128(r.fee / signers);
        uint128 rest = uint128(r.fee % signers);
        for (uint256 i; i < r.seats.length; ++i) {
            Seat storage s = _seats[r.seats[i]];
            if (signed & (1 << i) == 0) {
                if (s.missed < type(uint8).max) ++s.missed;
                emit CheckerMissed(dealId, r.seats[i], s.operatorId, s.missed);
                continue;
            }
            s.missed = 0;
            uint128 amount = share + rest;
            rest = 0;
            emit CheckerPaid(dealId, s.operatorId, amount);
            if (amount != 0) rails.transfer(token, operators.beneficiaryOf(s.operatorId), amount);
        }
    }

    /// @inheritdoc ICheckers
    function attest(uint64 dealId) external {
        Request storage r = _requests[dealId];
        if (!r.confirmed) revert NotRequested(dealId);
        uint64 operatorId = operators.operatorOfNodeKey(msg.sender);
        for (uint256 i; i < r.seats.length; ++i) {
            Seat storage s = _seats[r.seats[i]];
            if (s.operatorId != operatorId || r.signed & (1 << i) != 0) continue;
            r.signed |= uint32(1 << i);
            if (s.missed != 0) --s.missed;
            emit VerdictGiven(dealId, r.signed);
            return;
        }
        revert NotDrawn(dealId, operatorId);
    }

    /// @inheritdoc ICheckers
    function returnFee(uint64 dealId) external {
        Request storage r = _openRequest(dealId);
        if (market.deal(dealId).state == IStorageMarket.State.Open) revert NotOver(dealId);
        r.closed = true;
        emit FeeReturned(dealId, r.payer, r.fee);
        if (r.fee != 0) rails.transfer(token, r.payer, r.fee);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IModule
    /// @dev Nothing is ever slashed; the stake of a seat is locked until `leaveSeconds` after it was left.
    function exposureSeconds() external view returns (uint64) {
        return _config.leaveSeconds;
    }

    /// @inheritdoc ICheckers
    function hasVerdict(uint64 dealId) external view returns (bool) {
        return _requests[dealId].confirmed;
    }

    /// @inheritdoc ICheckers
    function drawOf(uint64 dealId) external view returns (uint64[] memory) {
        Request storage r = _requests[dealId];
        return _operatorsOf(r.payer != address(0) ? r.seats : _draw(dealId, market.deal(dealId)));
    }

    /// @inheritdoc ICheckers
    function requestOf(uint64 dealId) external view returns (Request memory) {
        return _requests[dealId];
    }

    /// @inheritdoc ICheckers
    function seat(uint64 seatId) external view returns (Seat memory) {
        return _knownSeat(seatId);
    }

    /// @inheritdoc ICheckers
    function retrievableDigest(uint64 dealId) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(RETRIEVABLE_TYPEHASH, dealId, market.deal(dealId).contentHash)));
    }

    /// @inheritdoc ICheckers
    function config() external view returns (Config memory) {
        return _config;
    }

    // ---------------------------------------------------------------------------------------------------------------- the draw

    /// The first eligible seats of a random order of all seats that were taken before the deal was opened.
    function _draw(uint64 dealId, IStorageMarket.Deal memory d) private view returns (uint64[] memory found) {
        uint256 population = _counts.upperLookup(uint48(d.openedAt - 1));
        uint256 seed = uint256(keccak256(abi.encode("checkers", randomness.valueOf(market.activationSeedTime(dealId)), dealId)));
        address owner = operators.ownerOf(d.operatorId);
        Shuffle.Order memory order = Shuffle.begin(seed, population, STEPS_MAX);
        found = new uint64[](_config.drawn);
        uint256 count;
        while (count < found.length && !order.isDone()) {
            uint64 seatId = uint64(order.next() + 1);
            if (_isEligible(seatId, d, owner)) found[count++] = seatId;
        }
        assembly ("memory-safe") {
            mstore(found, count)
        }
    }

    function _isEligible(uint64 seatId, IStorageMarket.Deal memory d, address owner) private view returns (bool) {
        Seat storage s = _seats[seatId];
        if (s.leftAt != 0 && s.leftAt <= d.openedAt) return false;
        return s.operatorId != d.operatorId && operators.ownerOf(s.operatorId) != owner;
    }

    function _operatorsOf(uint64[] memory seats) private view returns (uint64[] memory operatorIds) {
        operatorIds = new uint64[](seats.length);
        for (uint256 i; i < seats.length; ++i) {
            operatorIds[i] = _seats[seats[i]].operatorId;
        }
    }

    function _openRequest(uint64 dealId) private view returns (Request storage r) {
        r = _requests[dealId];
        if (r.payer == address(0)) revert NotRequested(dealId);
        if (r.closed) revert AlreadyClosed(dealId);
    }

    function _knownSeat(uint64 seatId) private view returns (Seat storage s) {
        s = _seats[seatId];
        if (s.operatorId == 0) revert UnknownSeat(seatId);
    }
}
