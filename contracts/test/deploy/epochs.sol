// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {ISubnetEmission} from "../../src/inference/ISubnetEmission.sol";
import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {IWeightsBoard} from "../../src/inference/IWeightsBoard.sol";
import {SubnetEpochs} from "../../src/inference/SubnetEpochs.sol";
import {YumaCore} from "../../src/inference/YumaCore.sol";
import {deployCode} from "./code.sol";

function deployYumaCore() returns (YumaCore) {
    return YumaCore(deployCode("YumaCore", ""));
}

function deploySubnetEpochs(
    ISubnetEpochs.Config memory config,
    IRegistry registry,
    IOperators operators,
    ISubnets subnets,
    IWeightsBoard board,
    ISubnetEmission emission,
    YumaCore core
) returns (SubnetEpochs) {
    return SubnetEpochs(deployCode("SubnetEpochs", abi.encode(config, registry, operators, subnets, board, emission, core)));
}
