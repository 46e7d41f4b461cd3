// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IParameters} from "../../src/chain/IParameters.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {BackerIncome} from "../../src/token/BackerIncome.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {ERC3009DepositCollector} from "../../src/token/ERC3009DepositCollector.sol";
import {FilecoinEmission} from "../../src/token/FilecoinEmission.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {Rails} from "../../src/token/Rails.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {X402BatchSettlement} from "../../src/token/X402BatchSettlement.sol";
import {deployCode} from "./code.sol";

/// The deployer is its minter.
function deployNetworkToken(string memory name, string memory symbol, uint256 cap) returns (NetworkToken) {
    return deployNetworkToken(name, symbol, cap, new NetworkToken.Allocation[](0));
}

function deployNetworkToken(string memory name, string memory symbol, uint256 cap, NetworkToken.Allocation[] memory genesis)
    returns (NetworkToken)
{
    return NetworkToken(deployCode("NetworkToken", abi.encode(name, symbol, cap, genesis)));
}

function deployDevStable() returns (DevStable) {
    return DevStable(deployCode("DevStable", ""));
}

function deployStakeVault(address token, IRegistry registry, IOperators operators, IParameters parameters) returns (StakeVault) {
    return StakeVault(deployCode("StakeVault", abi.encode(token, registry, operators, parameters)));
}

function deployRails(IOperators operators) returns (Rails) {
    return Rails(deployCode("Rails", abi.encode(operators)));
}

function deployFilecoinEmission(IRegistry registry, string memory name, string memory symbol, NetworkToken.Allocation[] memory genesis)
    returns (FilecoinEmission)
{
    return FilecoinEmission(deployCode("FilecoinEmission", abi.encode(registry, name, symbol, genesis)));
}

function deployX402BatchSettlement(address feeToken, uint256 feeBps) returns (X402BatchSettlement) {
    return X402BatchSettlement(deployCode("X402BatchSettlement", abi.encode(feeToken, feeBps)));
}

function deployERC3009DepositCollector(address channels) returns (ERC3009DepositCollector) {
    return ERC3009DepositCollector(deployCode("ERC3009DepositCollector", abi.encode(channels)));
}

function deployBackerIncome(
    uint16 takeBps,
    uint64 takeDelaySeconds,
    IRegistry registry,
    IStakeVault vault,
    IOperators operators,
    address[] memory tokens
) returns (BackerIncome) {
    return BackerIncome(deployCode("BackerIncome", abi.encode(takeBps, takeDelaySeconds, registry, vault, operators, tokens)));
}
