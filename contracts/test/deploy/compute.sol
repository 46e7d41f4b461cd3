// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {Auditors} from "../../src/compute/Auditors.sol";
import {ComputeJobs} from "../../src/compute/ComputeJobs.sol";
import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IJobDisputes} from "../../src/compute/IJobDisputes.sol";
import {IStateDemands} from "../../src/compute/IStateDemands.sol";
import {JobDisputes} from "../../src/compute/JobDisputes.sol";
import {JobFees} from "../../src/compute/JobFees.sol";
import {JobRules} from "../../src/compute/JobRules.sol";
import {StateDemands} from "../../src/compute/StateDemands.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deployAuditors(IAuditors.Config memory config, IRegistry registry, IOperators operators, IStakeVault vault) returns (Auditors) {
    return Auditors(deployCode("Auditors", abi.encode(config, registry, operators, vault)));
}

function deployJobRules(IComputeJobs.Config memory config, Auditors auditors, IJury jury, address stable) returns (JobRules) {
    return JobRules(deployCode("JobRules", abi.encode(config, auditors, jury, stable)));
}

function deployComputeJobs(IRegistry registry, JobRules rules, IRandomness randomness, IRails rails, address native, address auction)
    returns (ComputeJobs)
{
    return ComputeJobs(deployCode("ComputeJobs", abi.encode(registry, rules, randomness, rails, native, auction)));
}

function deployJobDisputes(IJobDisputes.Config memory config, ComputeJobs jobs) returns (JobDisputes) {
    return JobDisputes(deployCode("JobDisputes", abi.encode(config, jobs)));
}

function deployStateDemands(IStateDemands.Config memory config, ComputeJobs jobs) returns (StateDemands) {
    return StateDemands(deployCode("StateDemands", abi.encode(config, jobs)));
}

function deployJobFees(ComputeJobs jobs) returns (JobFees) {
    return JobFees(deployCode("JobFees", abi.encode(jobs)));
}
