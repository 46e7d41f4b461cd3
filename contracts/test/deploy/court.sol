// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {IReceiptCourt} from "../../src/inference/IReceiptCourt.sol";
import {ReceiptCourt} from "../../src/inference/ReceiptCourt.sol";
import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {deployCode} from "./code.sol";

function deployReceiptCourt(IReceiptCourt.Config memory config, IOperators operators, IStakeVault vault, IRails rails, IJury jury)
    returns (ReceiptCourt)
{
    return ReceiptCourt(deployCode("ReceiptCourt", abi.encode(config, operators, vault, rails, jury)));
}
