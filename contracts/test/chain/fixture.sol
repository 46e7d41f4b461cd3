// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IParameters} from "../../src/chain/IParameters.sol";
import {IModule} from "../../src/chain/IRegistry.sol";
import {Operators} from "../../src/chain/Operators.sol";
import {Parameters} from "../../src/chain/Parameters.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {deployOperators, deployParameters, deployRegistry} from "../deploy/chain.sol";
import {deployNetworkToken, deployStakeVault} from "../deploy/token.sol";

/// A module with a given exposure that locks stake in the real vault.
contract SlasherModule is IModule {
    uint64 public exposureSeconds;

    constructor(uint64 exposure) {
        exposureSeconds = exposure;
    }

    function lock(StakeVault vault, uint64 operatorId, uint256 amount) external {
        vault.lock(operatorId, amount);
    }

    function unlock(StakeVault vault, uint64 operatorId, uint256 amount) external {
        vault.unlock(operatorId, amount);
    }
}

contract PlainModule {}

/// @notice The real base contracts; this contract is deployer, minter and timelock.
abstract contract ChainFixture is Test {
    bytes32 internal constant DELAY = "vault.withdrawalDelay";
    bytes32 internal constant ROTATION = "operators.rotationDelay";

    Registry internal registry;
    Parameters internal parameters;
    Operators internal operators;
    NetworkToken internal token;
    StakeVault internal vault;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        registry = deployRegistry(address(this));
        parameters = deployParameters(registry, parameterEntries());
        operators = deployOperators(parameters);
        token = deployNetworkToken("Millrace", "MILL", 1000e18);
        vault = deployStakeVault(address(token), registry, operators, parameters);
    }

    function parameterEntries() internal pure returns (IParameters.Entry[] memory entries) {
        entries = new IParameters.Entry[](4);
        entries[0] = IParameters.Entry(DELAY, 10 days, 1 days, 60 days, 5 days, 7 days);
        entries[1] = IParameters.Entry("vault.backerLossCapBps", 5_000, 1_000, 9_000, 500, 1 days);
        entries[2] = IParameters.Entry("vault.ownShareMinBps", 1_000, 500, 5_000, 500, 1 days);
        entries[3] = IParameters.Entry(ROTATION, 3 days, 1 days, 30 days, 2 days, 1 days);
    }

    /// Registers what a network has and makes this contract the timelock.
    function fillRegistry() internal {
        registry.set("timelock", address(this), false);
        registry.set("stakeVault", address(vault), false);
        registry.set("parameters", address(parameters), false);
        registry.set("operators", address(operators), false);
    }

    function registerOperator(address owner, string memory name) internal returns (uint64 operatorId, address nodeKey, uint256 secret) {
        (nodeKey, secret) = makeAddrAndKey(name);
        bytes memory signature = consent(owner, nodeKey, secret);
        vm.prank(owner);
        operatorId = operators.register(nodeKey, owner, "transport", "https://node.example:9000", "eu", signature);
    }

    function consent(address owner, address nodeKey, uint256 secret) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, operators.nodeKeyConsentDigest(owner, nodeKey));
        return abi.encodePacked(r, s, v);
    }
}
