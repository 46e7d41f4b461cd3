// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {BurntShares} from "../../src/inference/BurntShares.sol";
import {ISubnetEmission} from "../../src/inference/ISubnetEmission.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {SubnetBase} from "../../src/inference/SubnetBase.sol";
import {SubnetEmission} from "../../src/inference/SubnetEmission.sol";
import {Subnets} from "../../src/inference/Subnets.sol";
import {WeightsBoard} from "../../src/inference/WeightsBoard.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deploySubnetEmission(IRegistry registry, string memory name, string memory symbol) returns (SubnetEmission) {
    return SubnetEmission(deployCode("SubnetEmission", abi.encode(registry, name, symbol)));
}

function deployBurntShares(IRegistry registry, ISubnetEmission emission, uint256 halfLifeSeconds) returns (BurntShares) {
    return BurntShares(deployCode("BurntShares", abi.encode(registry, emission, halfLifeSeconds)));
}

function deploySubnets(
    SubnetBase.Config memory config,
    IRegistry registry,
    IOperators operators,
    IStakeVault vault,
    ISubnetEmission emission
) returns (Subnets) {
    return Subnets(deployCode("Subnets", abi.encode(config, registry, operators, vault, emission)));
}

function deployWeightsBoard(ISubnets subnets) returns (WeightsBoard) {
    return WeightsBoard(deployCode("WeightsBoard", abi.encode(subnets)));
}
