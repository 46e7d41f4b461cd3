// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {DealDesk} from "../../src/storage/DealDesk.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IStorageRewards} from "../../src/storage/IStorageRewards.sol";
import {Possession} from "../../src/storage/Possession.sol";
import {StorageMarket} from "../../src/storage/StorageMarket.sol";
import {StorageRewards} from "../../src/storage/StorageRewards.sol";
import {IEmissionPolicy} from "../../src/token/IEmissionPolicy.sol";
import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deployPossession(IPossession.Config memory config, IRegistry registry, IOperators operators, IRandomness randomness)
    returns (Possession)
{
    return Possession(deployCode("Possession", abi.encode(config, registry, operators, randomness)));
}

function deployStorageMarket(
    IStorageMarket.Config memory config,
    IRegistry registry,
    IOperators operators,
    IStakeVault vault,
    IRails rails,
    IPossession possession,
    IRandomness randomness,
    address token
) returns (StorageMarket) {
    bytes memory args = abi.encode(config, registry, operators, vault, rails, possession, randomness, token);
    return StorageMarket(deployCode("StorageMarket", args));
}

function deployDealDesk(IStorageMarket market, IOperators operators) returns (DealDesk) {
    return DealDesk(deployCode("DealDesk", abi.encode(market, operators)));
}

function deployStorageRewards(
    IStorageRewards.Config memory config,
    IRegistry registry,
    IOperators operators,
    IPossession possession,
    IStorageMarket market,
    IEmissionPolicy emission
) returns (StorageRewards) {
    return StorageRewards(deployCode("StorageRewards", abi.encode(config, registry, operators, possession, market, emission)));
}
