// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {ComputeMarket} from "../../src/compute/ComputeMarket.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {ILeaseProbers} from "../../src/compute/ILeaseProbers.sol";
import {LeaseProbers} from "../../src/compute/LeaseProbers.sol";
import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deployComputeMarket(
    IComputeMarket.Config memory config,
    IRegistry registry,
    IOperators operators,
    IStakeVault vault,
    IRails rails,
    address native,
    address stable,
    address auction
) returns (ComputeMarket) {
    return ComputeMarket(deployCode("ComputeMarket", abi.encode(config, registry, operators, vault, rails, native, stable, auction)));
}

function deployLeaseProbers(
    ILeaseProbers.Config memory config,
    IComputeMarket market,
    IOperators operators,
    IStakeVault vault,
    IRails rails,
    IRandomness randomness,
    address stable
) returns (LeaseProbers) {
    return LeaseProbers(deployCode("LeaseProbers", abi.encode(config, market, operators, vault, rails, randomness, stable)));
}
