// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {SubnetBase} from "../../src/inference/SubnetBase.sol";
import {EpochsFixture} from "./epochs-fixture.sol";

/// @notice Gas of settling over the real contracts, for contracts/.gas-snapshot: every validator has revealed a full row in two epochs
/// one after the other; the second is settled, with the bonds of the first.
contract EpochsGasTest is EpochsFixture {
    /// What issue 4 asks for; one transaction takes 16,777,216 (EIP-7825).
    uint256 private constant DISPUTE_GAS_MAX = 15_000_000;

    struct Shape {
        uint256 validators;
        uint256 uids;
        uint256 entries;
        Look look;
    }

    enum Look {
        Plain, // weights at random
        Rotated, // bonds on other uids than weights, every column as long as can be, weights in the dearest order of a sort
        Spread, // the dearest that was found: both on the same 128 uids, which all have incentive, each bond on another uid than a weight
        Beside // the dearest for Yuma 2: the same, but bonds on 128 uids that have no weights
    }

    uint64 private epoch;

    function subnetsConfig() internal view override returns (SubnetBase.Config memory c) {
        c = super.subnetsConfig();
        c.uidsMax = 256;
        c.priceMax = 2e18;
    }

    function prepare(Shape memory s, ISubnets.Yuma mode) private {
        ISubnets.Hyperparameters memory h = rules();
        (h.mode, h.maxValidators, h.optimistic, h.revealDelayEpochs) = (mode, 64, true, 1);
        bool isDearest = s.look == Look.Spread || s.look == Look.Beside;
        if (isDearest) (h.kappa, h.stakeCapPercentile) = (26_214, 90);
        vm.warp(block.timestamp + 1 days);
        vm.prank(creator);
        subnets.setHyperparameters(subnetId, h);
        warpToEpoch(present() + 1);
        for (uint256 i; i < s.uids; ++i) {
            (uint64 operatorId,) = joinSubnet(string.concat("u", vm.toString(i)));
            if (i < s.validators) depositStake(operatorId, address(this), 20e18 + i * 1e15);
            else if (isDearest) depositStake(operatorId, address(this), 10e18 + i * 1e15);
        }
        vm.warp(block.timestamp + 1);
        for (uint16 i; i < s.validators; ++i) {
            subnets.claimPermit(subnetId, i);
        }
        warpToEpoch(present() + 2);
        closeThrough(present() - 1);
        epoch = present();
        commitAll(s, 1);
        warpToEpoch(epoch + 1);
        commitAll(s, 2);
        openAll(s, epoch, 1);
        warpToEpoch(epoch + 2);
        openAll(s, epoch + 1, 2);
        warpToEpoch(epoch + 3);
        closeThrough(epoch + 1);
        finish(epoch++);
    }

    function commitAll(Shape memory s, uint256 round) private {
        vm.warp(block.timestamp + 1);
        for (uint16 v; v < s.validators; ++v) {
            commitRow(v, rowFor(s, v, round), SALT);
        }
    }

    function openAll(Shape memory s, uint64 which, uint256 round) private {
        bytes memory all;
        for (uint16 v; v < s.validators; ++v) {
            bytes memory shown = rowFor(s, v, round);
            openRow(which, v, shown, SALT);
            all = bytes.concat(all, packed(v, shown));
        }
        rowsOfEpoch[which] = all;
    }

    function rowFor(Shape memory s, uint256 v, uint256 round) private pure returns (bytes memory shown) {
        uint256 step = s.uids / s.entries;
        for (uint256 p; p < s.entries; ++p) {
            (uint256 uid, uint256 weight) = (p * step + v % step, 1 + uint256(keccak256(abi.encode(round, v, p))) % 65_535);
            if (s.look == Look.Rotated) (uid, weight) = (round * 64 + p, 65_535 - v * 900 - p * 3);
            // Of nearly equal weights many bonds are equal: the dearest to cut.
            if (s.look == Look.Spread) (uid, weight) = (128 + 2 * p + (v + round) % 2, 65_535 - (v * 7 + p) % 64);
            if (s.look == Look.Beside) (uid, weight) = ((round - 1) * 128 + 2 * p + v % 2, 65_535 - (v * 7 + p) % 64);
            if (p == v % s.entries) weight = 65_535;
            shown = bytes.concat(shown, abi.encodePacked(uint16(uid), uint16(weight)));
        }
    }

    function measure(Shape memory s, string memory name) private {
        prepare(s, ISubnets.Yuma.Yuma3);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        settlement.settle(subnetId, epoch, evidence);
        vm.snapshotGasLastCall("SubnetEpochs", string.concat("settle direct, constant alpha, ", name));
    }

    function testGas_direct_16_64_34() public {
        measure(Shape(16, 64, 34, Look.Plain), "16 x 64, 34 entries");
    }

    function testGas_direct_16_64_64() public {
        measure(Shape(16, 64, 64, Look.Plain), "16 x 64, 64 entries");
    }

    function testGas_direct_64_256_34() public {
        measure(Shape(64, 256, 34, Look.Plain), "64 x 256, 34 entries");
    }

    function testGas_direct_64_256_64() public {
        measure(Shape(64, 256, 64, Look.Plain), "64 x 256, 64 entries");
    }

    function testGas_dispute_yuma3() public {
        dispute(ISubnets.Yuma.Yuma3, Look.Spread, "Yuma 3");
    }

    function testGas_dispute_liquid() public {
        dispute(ISubnets.Yuma.Yuma3Liquid, Look.Spread, "liquid alpha");
    }

    function testGas_dispute_yuma2() public {
        dispute(ISubnets.Yuma.Yuma2, Look.Beside, "Yuma 2");
    }

    /// A proposal that pays one unit wrongly, refuted at full caps with bonds rotated; then all that follows.
    function dispute(ISubnets.Yuma mode, Look look, string memory name) private {
        prepare(Shape(64, 256, 64, look), mode);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        ISubnetEpochs.Result memory wrong = resultOf(epoch);
        wrong.ranks[40] = bytes1(uint8(wrong.ranks[40]) ^ 1);
        proposeEpoch(epoch, wrong);
        vm.snapshotGasLastCall("SubnetEpochs", string.concat("propose, 64 x 256, 64 entries, ", name));
        vm.prank(challenger);
        settlement.settle(subnetId, epoch, evidence);
        uint256 used = vm.snapshotGasLastCall("SubnetEpochs", string.concat("dispute, worst hostile case, ", name));
        assertLe(used, DISPUTE_GAS_MAX);
        assertGt(settlement.owedTo(challenger), 0);
        assertEq(settlement.decisionOf(subnetId).proposer, address(0));
    }

    function testGas_afterwards() public {
        prepare(Shape(64, 256, 64, Look.Rotated), ISubnets.Yuma.Yuma3Liquid);
        ISubnetEpochs.Result memory result = resultOf(epoch);
        proposeEpoch(epoch, result);
        vm.warp(block.timestamp + TEMPO);
        bytes32 hash = keccak256(result.state);
        settlement.finalize(subnetId, epoch, result.payments, result.ranks, hash);
        vm.snapshotGasLastCall("SubnetEpochs", "finalize, 256 uids");
        settlement.credit(subnetId, epoch, result.payments, only(2));
        vm.snapshotGasLastCall("SubnetEpochs", "credit one uid");
        creditAll(epoch, result);
        vm.snapshotGasLastCall("SubnetEpochs", "credit 256 uids, most for the first time");
        settlement.release(1);
        vm.snapshotGasLastCall("SubnetEpochs", "release a validator's dividends");
        uint64 miner = 1;
        while (settlement.earningsOf(miner).miner == 0) ++miner;
        settlement.payMiner(miner);
        vm.snapshotGasLastCall("SubnetEpochs", "payMiner");
    }
}
