// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IParameters} from "../../src/chain/IParameters.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {Operators} from "../../src/chain/Operators.sol";
import {Parameters} from "../../src/chain/Parameters.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {deployCode} from "./code.sol";

function deployRegistry(address deployer) returns (Registry) {
    return Registry(deployCode("Registry", abi.encode(deployer)));
}

function deployParameters(IRegistry registry, IParameters.Entry[] memory entries) returns (Parameters) {
    return Parameters(deployCode("Parameters", abi.encode(registry, entries)));
}

function deployOperators(IParameters parameters) returns (Operators) {
    return Operators(deployCode("Operators", abi.encode(parameters)));
}

function deployRandomness(IRandomness.Source source, address beacon, uint64 staleAfterSeconds) returns (Randomness) {
    return Randomness(deployCode("Randomness", abi.encode(source, beacon, staleAfterSeconds)));
}
