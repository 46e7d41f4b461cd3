// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../../src/chain/IRegistry.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {ChainFixture, PlainModule, SlasherModule} from "./fixture.sol";

contract RegistryTest is ChainFixture {
    address private timelock = address(new PlainModule());

    function _seal() private {
        fillRegistry();
        registry.set("timelock", timelock, false);
        registry.seal();
    }

    function testFuzz_onlyTheDeployerFillsItAndOnlyTheTimelockChangesItAfterTheSeal(address stranger, bytes32 name) public {
        vm.assume(stranger != address(this) && stranger != timelock);
        address module = address(new PlainModule());
        bytes memory refused = abi.encodeWithSelector(IRegistry.NotAuthorised.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(refused);
        registry.set(name, module, false);
        vm.expectRevert(refused);
        registry.retire(module);
        vm.expectRevert(refused);
        registry.seal();
        vm.stopPrank();
        assertEq(registry.authority(), address(this));
        _seal();
        assertEq(registry.authority(), timelock);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotAuthorised.selector, address(this)));
        registry.set("storageMarket", module, false);
        vm.prank(timelock);
        registry.set("storageMarket", module, false);
        assertEq(registry.get("storageMarket"), module);
    }

    function test_itIsSealedOnceAndNeverWithoutATimelock() public {
        vm.expectRevert(abi.encodeWithSelector(IRegistry.UnknownModule.selector, bytes32("timelock")));
        registry.seal();
        registry.set("timelock", timelock, false);
        vm.expectEmit(address(registry));
        emit IRegistry.Sealed(timelock);
        registry.seal();
        assertTrue(registry.isSealed());
        vm.expectRevert(IRegistry.AlreadySealed.selector);
        registry.seal();
    }

    function testFuzz_anUnknownNameReverts(bytes32 name) public {
        vm.expectRevert(abi.encodeWithSelector(IRegistry.UnknownModule.selector, name));
        registry.get(name);
    }

    function testFuzz_aModuleWithoutCodeIsRefused(bytes32 name, address module) public {
        vm.assume(module.code.length == 0);
        vm.expectRevert(abi.encodeWithSelector(Registry.ModuleHasNoCode.selector, name, module));
        registry.set(name, module, false);
    }

    function test_contractsThatOthersHoldKeepTheirNamesAfterTheSeal() public {
        bytes32[6] memory names = [bytes32("stakeVault"), "operators", "parameters", "networkToken", "emission", "rails"];
        fillRegistry();
        for (uint256 i = 3; i < 6; ++i) {
            registry.set(names[i], address(new PlainModule()), false);
        }
        _seal();
        address other = address(new PlainModule());
        vm.startPrank(timelock);
        for (uint256 i; i < names.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(Registry.ModuleIsFixed.selector, names[i], registry.get(names[i])));
            registry.set(names[i], other, false);
        }
        registry.set("rewards", other, false);
        registry.set("timelock", other, false);
        vm.stopPrank();
        assertEq(registry.authority(), other);
    }

    function testFuzz_aModuleIsRefusedUnlessTheWithdrawalDelayCoversItsExposure(uint64 exposure) public {
        fillRegistry();
        SlasherModule module = new SlasherModule(exposure);
        if (exposure > 10 days) {
            vm.expectRevert(abi.encodeWithSelector(IRegistry.ExposureNotCovered.selector, module, exposure, 10 days));
            registry.set("storageMarket", address(module), true);
            assertFalse(registry.isSlasher(address(module)));
        } else {
            vm.expectEmit(address(registry));
            emit IRegistry.ModuleSet("storageMarket", address(module), true);
            registry.set("storageMarket", address(module), true);
            assertTrue(registry.isSlasher(address(module)));
            registry.checkExposure();
        }
    }

    function test_aSlasherNeedsAVaultFirst() public {
        address module = address(new SlasherModule(1));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.UnknownModule.selector, bytes32("stakeVault")));
        registry.set("storageMarket", module, true);
    }

    function test_anOldSlasherKeepsItsRightUntilItIsRetired() public {
        fillRegistry();
        address old = address(new SlasherModule(1 days));
        address next = address(new SlasherModule(2 days));
        registry.set("storageMarket", old, true);
        registry.set("storageMarket", next, true);
        registry.set("other", old, false); // does not take the right away
        assertTrue(registry.isSlasher(old));
        assertEq(registry.slashers().length, 2);
        vm.expectEmit(address(registry));
        emit IRegistry.SlasherRetired(old);
        registry.retire(old);
        assertFalse(registry.isSlasher(old));
        assertEq(registry.slashers().length, 1);
        assertEq(registry.slashers()[0], next);
    }

    function testFuzz_aModuleThatStillLocksStakeIsNotRetired(uint256 amount) public {
        fillRegistry();
        amount = bound(amount, 1, 500e18);
        SlasherModule module = new SlasherModule(1 days);
        registry.set("storageMarket", address(module), true);
        (uint64 operatorId,,) = registerOperator(address(this), "node");
        token.mint(address(this), amount);
        token.approve(address(vault), amount);
        vault.deposit(operatorId, amount);
        module.lock(vault, operatorId, amount);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.ModuleStillLocks.selector, module, amount));
        registry.retire(address(module));
        module.unlock(vault, operatorId, amount);
        registry.retire(address(module));
        assertFalse(registry.isSlasher(address(module)));
    }

    function testFuzz_onlyASlasherIsRetired(address module) public {
        fillRegistry();
        vm.expectRevert(abi.encodeWithSelector(Registry.NotASlasher.selector, module));
        registry.retire(module);
    }

    function test_theNumberOfSlashersIsLimited() public {
        fillRegistry();
        for (uint256 i; i < registry.SLASHERS_MAX(); ++i) {
            registry.set("storageMarket", address(new SlasherModule(1)), true);
        }
        address last = registry.slashers()[0];
        registry.set("again", last, true);
        address more = address(new SlasherModule(1));
        vm.expectRevert(abi.encodeWithSelector(Registry.TooManySlashers.selector, 32));
        registry.set("storageMarket", more, true);
    }

    function testGas_setAModule() public {
        fillRegistry();
        registry.set("storageMarket", address(new SlasherModule(1 days)), true);
        vm.snapshotGasLastCall("Registry", "set a slasher");
    }
}
