// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Checkers} from "../../src/storage/Checkers.sol";
import {ICheckers} from "../../src/storage/ICheckers.sol";
import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {OrderBatches} from "../../src/storage/OrderBatches.sol";
import {OrderBook} from "../../src/storage/OrderBook.sol";
import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deployCheckers(
    ICheckers.Config memory config,
    IStorageMarket market,
    IOperators operators,
    IStakeVault vault,
    IRails rails,
    IRandomness randomness
) returns (Checkers) {
    return Checkers(deployCode("Checkers", abi.encode(config, market, operators, vault, rails, randomness)));
}

function deployOrderBatches(IStorageMarket market, IPossession possession, IOperators operators, IStakeVault vault, IRails rails)
    returns (OrderBatches)
{
    return OrderBatches(deployCode("OrderBatches", abi.encode(market, possession, operators, vault, rails)));
}

function deployOrderBook(
    IOrderBook.Config memory config,
    IStorageMarket market,
    IPossession possession,
    IOperators operators,
    IStakeVault vault,
    IRails rails,
    ICheckers checkers,
    address batches
) returns (OrderBook) {
    return OrderBook(deployCode("OrderBook", abi.encode(config, market, possession, operators, vault, rails, checkers, batches)));
}
