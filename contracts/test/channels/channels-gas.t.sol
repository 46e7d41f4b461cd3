// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IX402BatchSettlement} from "../../src/token/IX402BatchSettlement.sol";
import {ChannelsFixture} from "./fixture.sol";

/// @notice Gas of channels in the middle of their lives: everything was claimed and settled before. For contracts/.gas-snapshot.
contract ChannelsGasTest is ChannelsFixture {
    uint256 private constant BATCH = 200;
    /// In the network's token: amounts of seven bytes, and a fee when they are paid out.
    IX402BatchSettlement.ChannelConfig[] private configs;
    IX402BatchSettlement.ChannelConfig private stableConfig;
    uint128 private constant TOTAL = 2_345_678_901_234_567;

    function setUp() public override {
        super.setUp();
        for (uint256 i; i < BATCH; ++i) {
            configs.push(configOf(address(token), i));
            fund(configs[i], 1e18);
            claim(configs[i], 1e15);
        }
        stableConfig = configOf(address(stable), 0);
        fund(stableConfig, 100e6);
        claim(stableConfig, 1e6);
        channels.settle(receiver, address(stable));
        channels.settle(receiver, address(token));
    }

    function testGas_claimOne() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(configs[0], TOTAL, TOTAL));
        vm.prank(receiver);
        channels.claim(rows);
        vm.snapshotGasLastCall("X402BatchSettlement", "claim 1");
        channels.settle(receiver, address(token));
        vm.snapshotGasLastCall("X402BatchSettlement", "settle");
    }

    function testGas_claimOneAndSettle() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(stableConfig, 2_345_678, 2_345_678));
        vm.prank(receiver);
        channels.claimAndSettle(rows);
        vm.snapshotGasLastCall("X402BatchSettlement", "claimAndSettle 1, stable token");
    }

    function testGas_claimOneAndSettleWithFee() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(configs[0], TOTAL, TOTAL));
        vm.prank(receiver);
        channels.claimAndSettle(rows);
        vm.snapshotGasLastCall("X402BatchSettlement", "claimAndSettle 1, network token");
    }

    function testGas_claimMany() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = many();
        vm.prank(receiver);
        channels.claim(rows);
        vm.snapshotGasLastCall("X402BatchSettlement", "claim 200");
    }

    function testGas_claimManyAndSettle() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = many();
        vm.prank(receiver);
        channels.claimAndSettle(rows);
        vm.snapshotGasLastCall("X402BatchSettlement", "claimAndSettle 200");
    }

    function testGas_claimManyWithSignature() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = many();
        bytes memory signature = sign(receiverKey, channels.getClaimBatchDigest(rows));
        vm.prank(stranger);
        channels.claimWithSignature(rows, signature);
        vm.snapshotGasLastCall("X402BatchSettlement", "claimWithSignature 200");
    }

    function testGas_payerSide() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1_000);
        give(address(stable), payer, 3e6);
        vm.startPrank(payer);
        stable.approve(address(channels), 2e6);
        channels.deposit(config, 1e6, address(channels), "");
        vm.snapshotGasLastCall("X402BatchSettlement", "deposit, new channel");
        channels.deposit(config, 1e6, address(channels), "");
        vm.snapshotGasLastCall("X402BatchSettlement", "deposit, top-up");
        channels.initiateWithdraw(config, 2e6);
        vm.snapshotGasLastCall("X402BatchSettlement", "initiateWithdraw");
        vm.warp(block.timestamp + DELAY);
        channels.finalizeWithdraw(config);
        vm.snapshotGasLastCall("X402BatchSettlement", "finalizeWithdraw");
        vm.stopPrank();
    }

    function many() private view returns (IX402BatchSettlement.VoucherClaim[] memory rows) {
        rows = new IX402BatchSettlement.VoucherClaim[](BATCH);
        for (uint256 i; i < BATCH; ++i) {
            rows[i] = voucher(configs[i], TOTAL, TOTAL);
        }
    }
}
