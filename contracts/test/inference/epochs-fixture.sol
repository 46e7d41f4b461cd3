// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Vm} from "forge-std/Vm.sol";
import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {SubnetEpochs} from "../../src/inference/SubnetEpochs.sol";
import {YumaCore} from "../../src/inference/YumaCore.sol";
import {BackerIncome} from "../../src/token/BackerIncome.sol";
import {deploySubnetEpochs, deployYumaCore} from "../deploy/epochs.sol";
import {deployBackerIncome} from "../deploy/token.sol";
import {SubnetsFixture} from "./subnets-fixture.sol";

/// @notice The real contracts of subnets with the real settlement: validators have uids 0 and 1, miners 2 and 3.
abstract contract EpochsFixture is SubnetsFixture {
    bytes32 internal constant SALT = keccak256("salt");
    uint96 internal constant BOND_MIN = 1e15;
    uint8 internal constant RESET_EPOCHS = 4;

    SubnetEpochs internal settlement;
    BackerIncome internal income;
    YumaCore internal core;
    address internal challenger = makeAddr("challenger");
    address internal proposer = makeAddr("proposer");
    /// State that the last settlement logged.
    bytes internal state;
    mapping(uint64 epoch => bytes) internal rowsOfEpoch;

    function setUp() public virtual override {
        super.setUp();
        core = deployYumaCore();
        settlement = deploySubnetEpochs(
            ISubnetEpochs.Config({windowBps: 5_000, windowMinSeconds: 60, bondMin: BOND_MIN, resetEpochs: RESET_EPOCHS}),
            registry,
            operators,
            subnets,
            board,
            emission,
            core
        );
        address[] memory list = new address[](1);
        list[0] = address(inferenceToken);
        income = deployBackerIncome(1_800, 7 days, registry, vault, operators, list);
        registry.set("subnetEpochs", address(settlement), false);
        registry.set("backerIncome", address(income), false);
        epochs = address(settlement);
        token.mint(address(this), 10e18);
        token.approve(address(subnets), 10e18);
        subnets.burnFor(subnetId, 10e18); // it has a share of the emission
    }

    function populate() internal {
        joinValidator("first", 200e18);
        joinValidator("second", 100e18);
        joinSubnet("third");
        joinSubnet("fourth");
        skipTo(present() + 1);
    }

    function makeOptimistic() internal {
        ISubnets.Hyperparameters memory h = rules();
        h.optimistic = true;
        vm.warp(block.timestamp + 1 days);
        vm.prank(creator);
        subnets.setHyperparameters(subnetId, h);
        skipTo(present() + 1);
    }

    /// Goes to an epoch, with all before it closed and passed over without rows.
    function skipTo(uint64 epoch) internal {
        warpToEpoch(epoch);
        closeThrough(epoch - 1);
    }

    function closeThrough(uint64 epoch) internal {
        for (uint64 e = subnets.nextToClose(subnetId); e <= epoch; ++e) {
            subnets.closeEpoch(subnetId, e);
        }
    }

    function row(uint16 uidA, uint16 weightA, uint16 uidB, uint16 weightB) internal pure returns (bytes memory) {
        return abi.encodePacked(uidA, weightA, uidB, weightB);
    }

    function packed(uint16 uid, bytes memory row_) internal pure returns (bytes memory) {
        return abi.encodePacked(uid, uint16(row_.length / 4), row_);
    }

    /// Both validators commit now and are opened; then the window closes and the epoch with it.
    function judge(bytes memory first, bytes memory second) internal returns (uint64 epoch) {
        epoch = present();
        vm.warp(block.timestamp + 1);
        commitRow(0, first, SALT);
        commitRow(1, second, SALT);
        warpToEpoch(epoch + 1);
        openRow(epoch, 0, first, SALT);
        openRow(epoch, 1, second, SALT);
        rowsOfEpoch[epoch] = bytes.concat(packed(0, first), packed(1, second));
        warpToEpoch(epoch + 2);
        closeThrough(epoch);
    }

    function judge() internal returns (uint64) {
        return judge(row(2, 65_535, 3, 20_000), row(2, 65_535, 3, 40_000));
    }

    function evidenceOf(uint64 epoch) internal view returns (ISubnetEpochs.Evidence memory) {
        return ISubnetEpochs.Evidence(subnets.metagraph(subnetId, epoch), rowsOfEpoch[epoch], state);
    }

    /// What settling would log, without a trace of it.
    function resultOf(uint64 epoch) internal returns (ISubnetEpochs.Result memory result) {
        uint256 snapshot = vm.snapshotState();
        result = settleEpoch(epoch, evidenceOf(epoch));
        vm.revertToState(snapshot);
    }

    function settleEpoch(uint64 epoch, ISubnetEpochs.Evidence memory evidence) internal returns (ISubnetEpochs.Result memory result) {
        vm.recordLogs();
        vm.prank(challenger);
        settlement.settle(subnetId, epoch, evidence);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == ISubnetEpochs.Settled.selector) {
                (, result) = abi.decode(logs[i].data, (bytes32, ISubnetEpochs.Result));
            }
        }
    }

    function finalizeEpoch(uint64 epoch, ISubnetEpochs.Result memory result) internal {
        settlement.finalize(subnetId, epoch, result.payments, result.ranks, keccak256(result.state));
        state = result.state;
    }

    function finish(uint64 epoch, ISubnetEpochs.Evidence memory evidence) internal returns (ISubnetEpochs.Result memory result) {
        result = settleEpoch(epoch, evidence);
        finalizeEpoch(epoch, result);
    }

    /// Settles and finalizes an epoch and all before it.
    function finish(uint64 epoch) internal returns (ISubnetEpochs.Result memory result) {
        for (uint64 e = settlement.accountOf(subnetId).next; e <= epoch; ++e) {
            if (present() < e + 16) {
                result = finish(e, evidenceOf(e));
            } else {
                settlement.skip(subnetId);
                delete state;
            }
        }
    }

    function creditAll(uint64 epoch, ISubnetEpochs.Result memory result) internal {
        uint16[] memory uids = new uint16[](result.payments.length / 32 - 1);
        for (uint16 i; i < uids.length; ++i) {
            uids[i] = i;
        }
        settlement.credit(subnetId, epoch, result.payments, uids);
    }

    function headOf(ISubnetEpochs.Result memory result) internal pure returns (uint256 ownerPart, uint256 dust) {
        uint256 head = wordOf(result.payments, 0);
        return (head >> 128, uint128(head));
    }

    function paymentOf(ISubnetEpochs.Result memory result, uint256 uid)
        internal
        pure
        returns (uint256 operatorId, uint256 miner, uint256 validator)
    {
        uint256 word = wordOf(result.payments, uid + 1);
        return (word >> 192, uint96(word >> 96), uint96(word));
    }

    function wordOf(bytes memory data, uint256 index) internal pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := mload(add(add(data, 32), shl(5, index)))
        }
    }

    /// Gives inference tokens out of an epoch's emission, which is the only source of them.
    function fund(address to, uint256 amount) internal {
        deal(address(inferenceToken), to, amount);
        vm.prank(to);
        inferenceToken.approve(address(settlement), type(uint256).max);
    }

    function proposeEpoch(uint64 epoch, ISubnetEpochs.Result memory result) internal returns (uint256 bond) {
        (, bond) = settlement.stakesOf(subnetId, epoch);
        fund(proposer, bond);
        vm.prank(proposer);
        settlement.propose(subnetId, epoch, result, bond);
    }

    function only(uint16 uid) internal pure returns (uint16[] memory list) {
        list = new uint16[](1);
        list[0] = uid;
    }
}
