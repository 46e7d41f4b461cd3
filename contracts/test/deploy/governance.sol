// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {Jury} from "../../src/governance/Jury.sol";
import {StakeGovernor} from "../../src/governance/StakeGovernor.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deployJury(IJury.Config memory config, IOperators operators, IStakeVault vault, IRandomness randomness) returns (Jury) {
    return Jury(deployCode("Jury", abi.encode(config, operators, vault, randomness)));
}

function deployStakeGovernor(IVotes votes, StakeGovernor.Rules memory rules) returns (StakeGovernor) {
    return StakeGovernor(payable(deployCode("StakeGovernor", abi.encode(votes, rules))));
}
