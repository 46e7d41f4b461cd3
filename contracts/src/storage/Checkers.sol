// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {PanelSeats} from "../token/PanelSeats.sol";
import {ICheckers} from "./ICheckers.sol";
import {IStorageMarket} from "./IStorageMarket.sol";

/// @title Checkers: see ICheckers for the rules. No owner, no parameter that can change.
/// @notice Money: the fees of open requests are this contract's account at Rails. Seats lock stake and are never slashed.
contract Checkers is ICheckers, PanelSeats, EIP712 {
    using Shuffle for Shuffle.Order;

    /// Seats looked at in one draw: those that have left or belong to the provider are passed over.
    uint256 private constant STEPS_MAX = 128;
    uint256 private constant DRAWN_MAX = 32;
    bytes32 private constant RETRIEVABLE_TYPEHASH = keccak256("Retrievable(uint64 dealId,bytes32 contentHash)");

    IStorageMarket public immutable market;
    IRails public immutable rails;
    IRandomness public immutable randomness;
    address public immutable token;

    Config private _config; // written once, in the constructor
    mapping(uint64 dealId => Request) private _requests;

    constructor(
        Config memory c,
        IStorageMarket market_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        IRandomness randomness_
    ) PanelSeats(c.seatStake, c.leaveSeconds, c.missesMax, operators_, stakeVault_) EIP712("Millrace Checkers", "1") {
        _checkPanel(c.drawn, c.threshold, DRAWN_MAX);
        _config = c;
        market = market_;
        rails = rails_;
        randomness = randomness_;
        token = stakeVault_.stakeToken();
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
        uint256 population = _seatsBefore(uint48(d.openedAt));
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

    function _openRequest(uint64 dealId) private view returns (Request storage r) {
        r = _requests[dealId];
        if (r.payer == address(0)) revert NotRequested(dealId);
        if (r.closed) revert AlreadyClosed(dealId);
    }
}
