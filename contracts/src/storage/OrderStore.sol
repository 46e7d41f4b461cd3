// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IOrderBook} from "./IOrderBook.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageMarket} from "./IStorageMarket.sol";

/// @title OrderStore: what the two pieces of the order book's code have in common. All storage is declared here and nowhere else.
abstract contract OrderStore {
    uint256 internal constant BPS = 10_000;
    uint256 internal constant GIB = 1 << 30;

    IStorageMarket public immutable market;
    IPossession public immutable possession;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    IRails public immutable rails;
    address public immutable token;

    IOrderBook.Config internal _config; // written once, in the order book's constructor
    uint64 internal _askCount;
    uint64 internal _bidCount;
    mapping(uint64 askId => IOrderBook.AskState) internal _asks;
    mapping(uint64 bidId => IOrderBook.BidState) internal _bids;
    mapping(uint64 batch => IOrderBook.Best) internal _best;
    mapping(address file => uint64) internal _bidOfFile;
    mapping(uint64 dealId => uint64) internal _claimOperator;
    mapping(address signer => BitMaps.BitMap) internal _nonces;

    constructor(IStorageMarket market_, IPossession possession_, IOperators operators_, IStakeVault stakeVault_, IRails rails_) {
        market = market_;
        possession = possession_;
        operators = operators_;
        stakeVault = stakeVault_;
        rails = rails_;
        token = stakeVault_.stakeToken();
    }

    function _batchStart(uint64 batch) internal view returns (uint64) {
        return uint64(Math.min(uint256(batch) * _config.batchSeconds + _config.genesis, type(uint64).max / 2));
    }

    function _requireHash(string memory field, bytes32 got, bytes32 expected) internal pure {
        if (got != expected) revert IOrderBook.HashMismatch(field, got, expected);
    }

    function _knownAsk(uint64 askId) internal view returns (IOrderBook.AskState storage s) {
        s = _asks[askId];
        if (s.operatorId == 0) revert IOrderBook.UnknownAsk(askId);
    }

    function _knownBid(uint64 bidId) internal view returns (IOrderBook.BidState storage s) {
        s = _bids[bidId];
        if (s.file == address(0)) revert IOrderBook.UnknownBid(bidId);
    }

    function _perShardUp(uint64 sizeBytes, uint256 perGiB) internal pure returns (uint256) {
        return Math.max(1, Math.ceilDiv(sizeBytes * perGiB, GIB));
    }

    function _feePerPeriod(uint256 pricePerPeriod) internal view returns (uint256) {
        return pricePerPeriod * _config.feeBps / BPS;
    }
}
