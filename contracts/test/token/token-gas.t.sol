// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {TokenFixture} from "./fixture.sol";
import {MeterDouble} from "./rail-doubles.sol";

/// @notice Gas of the vault and of rails in the middle of their lives, for contracts/.gas-snapshot.
contract TokenGasTest is TokenFixture {
    address private owner = makeAddr("owner");
    address private backer = makeAddr("backer");
    address private payer = makeAddr("payer");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
        depositStake(operatorId, owner, 1_000e18);
        backStake(operatorId, backer, 1_000e18);
        lockStake(operatorId, 100e18);
        vm.warp(block.timestamp + 60);
    }

    function testGas_stake() public {
        token.mint(owner, 1e18);
        token.mint(backer, 1e18);
        vm.startPrank(owner);
        token.approve(address(vault), type(uint256).max);
        vault.deposit(operatorId, 1e18);
        vm.snapshotGasLastCall("StakeVault", "deposit");
        vm.startPrank(backer);
        token.approve(address(vault), type(uint256).max);
        vm.warp(block.timestamp + 60);
        vault.back(operatorId, 1e18);
        vm.snapshotGasLastCall("StakeVault", "back");
        vm.warp(block.timestamp + 60);
        uint256 exitId = vault.requestBackerExit(operatorId, 1e18);
        vm.snapshotGasLastCall("StakeVault", "requestBackerExit");
        vm.warp(block.timestamp + DELAY);
        vault.finishExit(exitId);
        vm.snapshotGasLastCall("StakeVault", "finishExit");
    }

    function testGas_locks() public {
        IStakeVault.Payout memory payout = IStakeVault.Payout(payer, 1e18, backer, 1e18);
        vm.startPrank(module);
        vault.lock(operatorId, 10e18);
        vm.snapshotGasLastCall("StakeVault", "lock");
        vault.unlock(operatorId, 10e18);
        vm.snapshotGasLastCall("StakeVault", "unlock");
        vault.slash(operatorId, 10e18, payout);
        vm.snapshotGasLastCall("StakeVault", "slash with two payouts");
        vault.giveLock(operatorId, otherModule, 10e18);
        vm.snapshotGasLastCall("StakeVault", "giveLock");
        vm.startPrank(payer);
        vault.claim(payer);
        vm.snapshotGasLastCall("StakeVault", "claim");
    }

    function testGas_rails() public {
        MeterDouble meter = new MeterDouble(uint64(block.timestamp));
        meter.set(type(uint256).max, type(uint64).max);
        token.mint(payer, 1_000e18);
        vm.startPrank(payer);
        token.approve(address(rails), type(uint256).max);
        rails.deposit(address(token), payer, 500e18);
        rails.deposit(address(token), payer, 500e18);
        vm.snapshotGasLastCall("Rails", "deposit");
        rails.approve(address(meter), address(token), 500e18);
        rails.transfer(address(token), backer, 1e18);
        vm.snapshotGasLastCall("Rails", "transfer");
        vm.startPrank(address(meter));
        uint256 railId = rails.open(payer, operatorId, address(token), 1e18, 10, 0, 101e18);
        vm.snapshotGasLastCall("Rails", "open");
        uint64 start = uint64(block.timestamp);
        rails.begin(railId, start, start + 1_000);
        vm.snapshotGasLastCall("Rails", "begin");
        vm.warp(start + 10);
        rails.settle(railId);
        vm.warp(start + 20);
        rails.settle(railId);
        vm.snapshotGasLastCall("Rails", "settle");
        rails.close(railId, start + 20, 1e18, 1e18);
        vm.snapshotGasLastCall("Rails", "close");
        vm.startPrank(owner);
        rails.withdraw(address(token), 1e18, owner);
        vm.snapshotGasLastCall("Rails", "withdraw");
    }
}
