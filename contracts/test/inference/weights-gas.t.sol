// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IWeightsBoard} from "../../src/inference/IWeightsBoard.sol";
import {SubnetBase} from "../../src/inference/SubnetBase.sol";
import {SubnetsFixture} from "./subnets-fixture.sol";

/// @notice Gas of the weights board and of subnets in the middle of their lives, for contracts/.gas-snapshot.
contract WeightsGasTest is SubnetsFixture {
    bytes32 private constant SALT = keccak256("salt");

    function subnetsConfig() internal view override returns (SubnetBase.Config memory c) {
        c = super.subnetsConfig();
        c.uidsMax = 256;
        c.priceMax = 2e18;
    }

    /// Sixteen epochs in which two validators commit and reveal: the ring has no zero word left.
    function season() private {
        joinValidator("first", 100e18);
        joinValidator("second", 100e18);
        for (uint64 epoch = 1; epoch < 18; ++epoch) {
            warpToEpoch(epoch);
            commitRow(0, rowOf(34), SALT);
            commitRow(1, rowOf(64), SALT);
        }
        warpToEpoch(18);
        commitRow(0, rowOf(34), SALT);
    }

    function testGas_weights() public {
        season();
        address key = operators.nodeKeyOf(2);
        bytes32 commitment = board.commitmentOf(subnetId, 18, 1, SALT, rowOf(64));
        vm.prank(key);
        board.commit(subnetId, 1, commitment, "");
        vm.snapshotGasLastCall("WeightsBoard", "commit (warm ring)");
        vm.prank(key);
        board.commit(subnetId, 1, commitment, new bytes(643));
        vm.snapshotGasLastCall("WeightsBoard", "commit again, with a ciphertext of 643 zeros");
        warpToEpoch(19);
        openRow(18, 0, rowOf(34), SALT);
        vm.snapshotGasLastCall("WeightsBoard", "reveal, 34 entries");
        openRow(18, 1, rowOf(64), SALT);
        vm.snapshotGasLastCall("WeightsBoard", "reveal, 64 entries");
    }

    function testGas_batch() public {
        season();
        commitRow(1, rowOf(34), SALT);
        warpToEpoch(19);
        IWeightsBoard.Opening[] memory openings = new IWeightsBoard.Opening[](2);
        openings[0] = IWeightsBoard.Opening(0, SALT, rowOf(34));
        openings[1] = IWeightsBoard.Opening(1, SALT, rowOf(34));
        board.revealMany(subnetId, 18, openings);
        vm.snapshotGasLastCall("WeightsBoard", "reveal two of 34 entries");
    }

    function testGas_fullSubnet() public {
        for (uint256 i; i < 256; ++i) {
            (uint64 operatorId,) = joinSubnet(string.concat("m", vm.toString(i)));
            depositStake(operatorId, address(this), 20e18);
        }
        warpToEpoch(2);
        depositStake(1, address(this), 20e18);
        warpToEpoch(3);
        subnets.closeEpoch(subnetId, 0);
        subnets.closeEpoch(subnetId, 1);
        subnets.closeEpoch(subnetId, 2);
        vm.snapshotGasLastCall("Subnets", "closeEpoch, 256 uids");
        vm.prank(epochs);
        subnets.record(subnetId, 2, type(uint64).max, new bytes(1024));
        vm.snapshotGasLastCall("Subnets", "record, 256 uids, 64 permits");
        uint64 last = registerOperator(makeAddr("last"), makeAddr("last"));
        token.mint(makeAddr("last"), 10e18);
        vm.startPrank(makeAddr("last"));
        token.approve(address(subnets), 10e18);
        subnets.register(subnetId, last, 10e18);
        vm.snapshotGasLastCall("Subnets", "register, pruning of 256");
    }
}
