// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IParameters} from "../../src/chain/IParameters.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {deployParameters} from "../deploy/chain.sol";
import {ChainFixture, SlasherModule} from "./fixture.sol";

contract ParametersTest is ChainFixture {
    uint64 private deployedAt;

    function setUp() public override {
        super.setUp();
        deployedAt = uint64(block.timestamp);
        fillRegistry();
    }

    function test_theFirstValuesAndBoundsAreThoseOfTheDeployment() public view {
        IParameters.Entry[] memory entries = parameterEntries();
        bytes32[] memory keys = parameters.keys();
        assertEq(keys.length, entries.length);
        for (uint256 i; i < keys.length; ++i) {
            assertEq(keys[i], entries[i].key);
            assertEq(parameters.get(keys[i]), entries[i].value);
            (IParameters.Entry memory entry, uint64 changedAt) = parameters.bounds(keys[i]);
            assertEq(abi.encode(entry), abi.encode(entries[i]));
            assertEq(changedAt, deployedAt);
        }
        assertEq(address(parameters.registry()), address(registry));
    }

    function testFuzz_nobodyButTheTimelockSets(address caller, bytes32 key, uint256 value) public {
        vm.assume(caller != address(this));
        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotTimelock.selector, caller, address(this)));
        parameters.set(key, value);
    }

    function testFuzz_anUndeclaredKeyDoesNotExist(bytes32 key) public {
        vm.assume(key != DELAY && key != ROTATION && key != "vault.backerLossCapBps" && key != "vault.ownShareMinBps");
        bytes memory unknown = abi.encodeWithSelector(IParameters.UnknownParameter.selector, key);
        vm.expectRevert(unknown);
        parameters.get(key);
        vm.expectRevert(unknown);
        parameters.bounds(key);
        vm.expectRevert(unknown);
        parameters.set(key, 1);
    }

    function testFuzz_aValueOutsideItsHardBoundsIsRefused(uint256 value) public {
        skip(8 days);
        vm.assume(value < 1 days || value > 60 days);
        vm.expectRevert(abi.encodeWithSelector(IParameters.OutOfBounds.selector, DELAY, value, 1 days, 60 days));
        parameters.set(DELAY, value);
    }

    function testFuzz_aStepIsNeverGreaterThanTheGreatest(uint256 value) public {
        skip(8 days);
        value = bound(value, 1 days, 60 days);
        uint256 step = value > 10 days ? value - 10 days : 10 days - value;
        if (step > 5 days) {
            vm.expectRevert(abi.encodeWithSelector(IParameters.StepTooLarge.selector, DELAY, step, 5 days));
            parameters.set(DELAY, value);
        } else {
            vm.expectEmit(address(parameters));
            emit IParameters.ParameterSet(DELAY, 10 days, value);
            parameters.set(DELAY, value);
            assertEq(parameters.get(DELAY), value);
        }
    }

    function testFuzz_twoChangesAreNeverCloserThanTheInterval(uint256 firstWait, uint256 secondWait) public {
        firstWait = bound(firstWait, 0, 14 days);
        secondWait = bound(secondWait, 0, 14 days);
        _setAfter(firstWait, 11 days);
        if (firstWait < 7 days) return;
        _setAfter(secondWait, 12 days);
    }

    function _setAfter(uint256 wait, uint256 value) private {
        (, uint64 changedAt) = parameters.bounds(DELAY);
        skip(wait);
        if (wait < 7 days) {
            vm.expectRevert(abi.encodeWithSelector(IParameters.ChangedTooRecently.selector, DELAY, changedAt + 7 days, block.timestamp));
        }
        parameters.set(DELAY, value);
    }

    function test_aWithdrawalDelayBelowAModulesExposureIsRefused() public {
        SlasherModule module = new SlasherModule(8 days);
        registry.set("storageMarket", address(module), true);
        skip(8 days);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.ExposureNotCovered.selector, module, 8 days, 7 days));
        parameters.set(DELAY, 7 days);
        parameters.set(DELAY, 8 days);
        assertEq(vault.withdrawalDelaySeconds(), 8 days);
    }

    function testFuzz_boundsThatDoNotHoldTheFirstValueAreRefused(uint256 value, uint256 min, uint256 max, uint256 maxStep, uint64 interval)
        public
    {
        IParameters.Entry[] memory entries = new IParameters.Entry[](1);
        entries[0] = IParameters.Entry("key", value, min, max, maxStep, interval);
        bool bad = value < min || value > max || maxStep == 0 || interval > 3650 days;
        if (bad) vm.expectRevert(abi.encodeWithSelector(IParameters.BadBounds.selector, bytes32("key"), value, min, max, maxStep));
        deployParameters(registry, entries);
    }

    function test_aKeyIsDeclaredOnce() public {
        IParameters.Entry[] memory entries = new IParameters.Entry[](2);
        entries[0] = IParameters.Entry("key", 1, 1, 1, 1, 0);
        entries[1] = entries[0];
        vm.expectRevert(abi.encodeWithSelector(IParameters.DuplicateParameter.selector, bytes32("key")));
        deployParameters(registry, entries);
    }
}
