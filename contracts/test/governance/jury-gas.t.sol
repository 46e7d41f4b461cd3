// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IReceiptCourt} from "../../src/inference/IReceiptCourt.sol";
import {ReceiptCourtFixture} from "../inference/receipt-court-fixture.sol";

/// @notice Whole transactions of the jury and of the court of receipts, for contracts/.gas-snapshot.
contract JuryGasTest is ReceiptCourtFixture {
    function testGas_jury() public {
        addJurors(24);
        vm.deal(challenger, 1e18);
        uint64 juror = newJuror(1);
        vm.prank(operators.nodeKeyOf(juror));
        jury.enrol(juror, 1);
        vm.snapshotGasLastCall("Jury", "enrol, a second seat");
        vm.warp(block.timestamp + 1);
        uint256 id = challenge(1);
        vm.snapshotGasLastCall("ReceiptCourt", "challenge");
        uint64[] memory list = drawMeasured(id, "draw 3");
        commit(id, list[0], 2);
        vm.snapshotGasLastCall("Jury", "commit");
        commit(id, list[1], 2);
        commit(id, list[2], 1);
        jury.reveal(id, list[0], 2, SALT);
        vm.snapshotGasLastCall("Jury", "reveal");
        jury.reveal(id, list[1], 2, SALT);
        jury.reveal(id, list[2], 1, SALT);
        jury.close(id);
        vm.snapshotGasLastCall("Jury", "close");
        uint256 cost = jury.appealCost(id, "");
        court.appeal{value: cost}(id);
        vm.snapshotGasLastCall("Jury", "appeal to 7 through the court");
        drawMeasured(id, "draw 7");
        voteAll(id, 2);
        cost = jury.appealCost(id, "");
        court.appeal{value: cost}(id);
        drawMeasured(id, "draw 15");
        voteAll(id, 1);
        jury.execute(id);
        vm.snapshotGasLastCall("Jury", "execute, guilty");
        jury.settle(id, 0);
        vm.snapshotGasLastCall("Jury", "settle 3, two lost");
        jury.settle(id, 1);
        vm.snapshotGasLastCall("Jury", "settle 7, all lost");
        jury.settle(id, 2);
        vm.snapshotGasLastCall("Jury", "settle 15, none lost");
    }

    function drawMeasured(uint256 id, string memory name) private returns (uint64[] memory) {
        uint64 seedTime = jury.dispute(id).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        jury.draw(id);
        vm.snapshotGasLastCall("Jury", name);
        return jurors(id);
    }

    function testGas_receipts() public {
        IReceiptCourt.Receipt memory one = receiptOf(accused, 1);
        IReceiptCourt.Receipt memory other = receiptOf(accused, 1);
        other.outputs.responseHash = keccak256("another answer");
        (bytes memory a, bytes memory b) = (signed(one, accusedSecret), signed(other, accusedSecret));
        vm.prank(reporter);
        court.reportContradiction(one, a, other, b);
        vm.snapshotGasLastCall("ReceiptCourt", "reportContradiction");
        one = receiptOf(accused, 2);
        one.outputs.units = 65;
        a = signed(one, accusedSecret);
        vm.prank(reporter);
        court.reportExcess(one, a);
        vm.snapshotGasLastCall("ReceiptCourt", "reportExcess");
        (uint64 second,) = newMiner("second");
        assertEq(bondOf(second), BOND);
    }
}
