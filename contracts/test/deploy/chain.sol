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

/// What vault and operators read: a delay of three days, which can go down to `delayMin`.
function stakeParameters(uint256 delayMin) pure returns (IParameters.Entry[] memory entries) {
    entries = new IParameters.Entry[](4);
    entries[0] = IParameters.Entry("vault.withdrawalDelay", 3 days, delayMin, 30 days, 30 days, 0);
    entries[1] = IParameters.Entry("vault.backerLossCapBps", 5_000, 0, 10_000, 10_000, 0);
    entries[2] = IParameters.Entry("vault.ownShareMinBps", 2_000, 0, 10_000, 10_000, 0);
    entries[3] = IParameters.Entry("operators.rotationDelay", 1 days, 0, 30 days, 30 days, 0);
}

function deployOperators(IParameters parameters) returns (Operators) {
    return Operators(deployCode("Operators", abi.encode(parameters)));
}

function deployRandomness(IRandomness.Source source, address beacon, uint64 staleAfterSeconds) returns (Randomness) {
    return Randomness(deployCode("Randomness", abi.encode(source, beacon, staleAfterSeconds)));
}
