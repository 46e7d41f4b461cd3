// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IModule} from "../../src/chain/IRegistry.sol";
import {Operators} from "../../src/chain/Operators.sol";
import {Parameters} from "../../src/chain/Parameters.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {Rails} from "../../src/token/Rails.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {deployOperators, deployParameters, deployRegistry, stakeParameters} from "../deploy/chain.sol";
import {deployNetworkToken, deployRails, deployStakeVault} from "../deploy/token.sol";

/// @notice A module that may lock and slash: the tests call as it.
contract ModuleDouble is IModule {
    function exposureSeconds() external pure returns (uint64) {
        return 2 days;
    }
}

/// @notice The real contracts, with this contract in the places of deployer, minter and timelock.
abstract contract TokenFixture is Test {
    uint64 internal constant DELAY = 3 days;
    uint256 internal constant CAP_BPS = 5_000;
    uint256 internal constant OWN_MIN_BPS = 2_000;

    Registry internal registry;
    Parameters internal parameters;
    Operators internal operators;
    NetworkToken internal token;
    StakeVault internal vault;
    Rails internal rails;
    address internal module;
    address internal otherModule;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        registry = deployRegistry(address(this));
        parameters = deployParameters(registry, stakeParameters(2 days));
        operators = deployOperators(parameters);
        token = deployNetworkToken("Test", "TST", 2_000_000_000e18);
        vault = deployStakeVault(address(token), registry, operators, parameters);
        rails = deployRails(operators);
        module = address(new ModuleDouble());
        otherModule = address(new ModuleDouble());
        registry.set("timelock", address(this), false);
        registry.set("stakeVault", address(vault), false);
        registry.set("module", module, true);
        registry.set("otherModule", otherModule, true);
    }

    function registerOperator(address owner, address beneficiary) internal returns (uint64) {
        (address nodeKey, uint256 secret) = makeAddrAndKey(string.concat("node", vm.toString(operators.operatorCount() + 1)));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, operators.nodeKeyConsentDigest(owner, nodeKey));
        vm.prank(owner);
        return operators.register(nodeKey, beneficiary, bytes32(0), "", bytes32(0), abi.encodePacked(r, s, v));
    }

    function rotateOwner(uint64 operatorId, address newOwner) internal {
        vm.prank(operators.ownerOf(operatorId));
        operators.requestRotation(operatorId, IOperators.Role.Owner, newOwner);
        vm.warp(block.timestamp + operators.rotationDelaySeconds());
        vm.prank(newOwner);
        operators.finishRotation(operatorId, IOperators.Role.Owner);
    }

    function depositStake(uint64 operatorId, address from, uint256 amount) internal {
        token.mint(from, amount);
        vm.startPrank(from);
        token.approve(address(vault), amount);
        vault.deposit(operatorId, amount);
        vm.stopPrank();
    }

    function backStake(uint64 operatorId, address from, uint256 amount) internal returns (uint256 shares) {
        token.mint(from, amount);
        vm.startPrank(from);
        token.approve(address(vault), amount);
        shares = vault.back(operatorId, amount);
        vm.stopPrank();
    }

    function lockStake(uint64 operatorId, uint256 amount) internal {
        vm.prank(module);
        vault.lock(operatorId, amount);
    }

    function slashStake(uint64 operatorId, uint256 amount) internal returns (uint256 fromOwn) {
        IStakeVault.Payout memory nobody;
        vm.prank(module);
        (fromOwn,,) = vault.slash(operatorId, amount, nobody);
    }

    function ownActive(uint64 operatorId) internal view returns (uint256 active) {
        (active,) = vault.ownStake(operatorId);
    }
}
