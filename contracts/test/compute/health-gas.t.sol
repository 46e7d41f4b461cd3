// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";
import {RewardsFixture} from "./compute-rewards-fixture.sol";

/// @notice What health and rewards cost.
contract HealthGasTest is RewardsFixture {
    uint32 private constant H = 2;
    uint256 private constant DEVICES = 10_000;

    function setUp() public override {
        super.setUp();
        newDevices(33);
    }

    function testGasEnrol() public {
        uint64 operatorId = newOperator();
        vm.startPrank(operators.nodeKeyOf(operatorId));
        uint64 deviceId = market.setOffer(0, offerOf(operatorId));
        health.enrol(deviceId, RATE, MEMORY_MBS);
        vm.snapshotGasLastCall("ComputeHealth", "enrol");
    }

    function testGasReport() public {
        endHour(H);
        IComputeHealth.Report[] memory reports = reportOf(1, H, 0, entry(H, 0, goodStatement()));
        vm.prank(operators.nodeKeyOf(1));
        health.report(reports);
        vm.snapshotGasLastCall("ComputeHealth", "report: one operator, one seat");
    }

    /// Anybody brings the signed reports of many.
    function testGasReportBatch() public {
        endHour(H);
        IComputeHealth.Report[] memory reports = new IComputeHealth.Report[](32);
        for (uint32 seat; seat < 32; ++seat) {
            uint64 operatorId = deviceOwners[seat];
            bytes memory data = entry(H, seat, goodStatement());
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(secretOf(operatorId), health.reportDigest(operatorId, H, 0, data));
            reports[seat] = IComputeHealth.Report(operatorId, H, 0, data, abi.encodePacked(r, s, v));
        }
        health.report(reports);
        vm.snapshotGasLastCall("ComputeHealth", "report: 32 operators, signed");
    }

    /// Seats that nobody sits on are as dear to propose as others: the number of seats is written where the contract keeps it.
    function testGasPropose() public {
        vm.warp(health.startOf(H + 1) + REPORT);
        vm.store(address(health), bytes32(uint256(4)), bytes32(uint256(1)));
        vm.store(address(health), keccak256(abi.encode(uint256(4))), bytes32(DEVICES << 48 | H));
        assertEq(health.seatsAt(H), DEVICES);
        bytes memory figures = new bytes(DEVICES * 8);
        for (uint256 i; i < DEVICES / 4; ++i) {
            bytes32 four = keccak256(abi.encode(i));
            assembly {
                mstore(add(add(figures, 32), mul(i, 32)), four)
            }
        }
        vm.prank(operators.nodeKeyOf(1));
        health.propose(H, 1, figures);
        vm.snapshotGasLastCall("ComputeHealth", "propose: 10,000 seats");
    }

    function testGasDispute() public {
        endHour(H);
        reportAll(H, goodStatement());
        bytes[] memory pages = pagesFor(H, 0, goodStatement());
        bytes memory figures = new bytes(33 * 8);
        vm.warp(health.startOf(H + 1) + REPORT);
        proposeAs(2, H, figures);
        health.dispute(H, 0, openingOf(figures), pages);
        vm.snapshotGasLastCall("ComputeHealth", "dispute: five partners");
    }

    function testGasAdvance() public {
        proposeHour(H, goodStatement());
        vm.warp(block.timestamp + WINDOW);
        health.advance(1);
        health.advance(1);
        vm.snapshotGasLastCall("ComputeHealth", "advance: one hour final");
    }

    function testGasClaim() public {
        bytes memory figures = settleHour(H, goodStatement());
        emission.mint();
        claimHour(H, 0, figures);
        vm.snapshotGasLastCall("ComputeRewards", "claim: one device's hour");
    }

    function testGasGrant() public {
        claimHour(H, 0, settleHour(H, goodStatement()));
        countLease(rentAndClose(renter, 1, address(native), 3_600));
        rewards.grant(1);
        vm.snapshotGasLastCall("ComputeRewards", "grant");
    }

    function testGasCountFees() public {
        vm.warp(health.startOf(2));
        uint64[] memory ids = new uint64[](1);
        ids[0] = rentAndClose(renter, 1, address(native), 3_600);
        rewards.countFees(0, ids);
        vm.snapshotGasLastCall("ComputeRewards", "countFees: one lease");
    }

    function testGasRelease() public {
        claimHour(H, 0, settleHour(H, goodStatement()));
        countLease(rentAndClose(renter, 1, address(native), 3_600));
        rewards.grant(1);
        vm.warp(block.timestamp + 2 * VEST);
        rewards.release(1);
        vm.snapshotGasLastCall("ComputeRewards", "release");
    }
}
