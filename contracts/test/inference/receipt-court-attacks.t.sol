// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Vm} from "forge-std/Vm.sol";
import {IReceiptCourt} from "../../src/inference/IReceiptCourt.sol";
import {ReceiptCourt} from "../../src/inference/ReceiptCourt.sol";
import {deployReceiptCourt} from "../deploy/court.sol";
import {ReceiptCourtFixture} from "./receipt-court-fixture.sol";

/// Says the same again and again: what a flood costs who has no use for many transactions.
contract Flooder {
    function flood(ReceiptCourt court, uint256 disputeId, uint256 pieces, string calldata text) external {
        for (uint256 i; i < pieces; ++i) {
            court.submitEvidence(disputeId, text);
        }
    }
}

/// @notice Each attack beside an honest twin.
contract ReceiptCourtAttacks is ReceiptCourtFixture {
    /// One offence is slashed once, by whatever ways it comes; a second offence is another matter.
    function test_oneOffenceIsSlashedOnce() public {
        uint256 first = challenge(1);
        uint256 second = challenge(1); // two cases on one receipt, both will convict
        contradict(1);
        IReceiptCourt.Receipt memory r = receiptOf(accused, 1);
        r.outputs.units = 99;
        bytes memory signature = signed(r, accusedSecret);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.AlreadyPunished.selector, accused, r.inputs.receiptId));
        court.reportExcess(r, signature);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.AlreadyPunished.selector, accused, r.inputs.receiptId));
        vm.prank(challenger);
        court.challenge{value: 3 * FEE}(r, signature, "");
        judge(first, 1);
        judge(second, 1);
        assertEq(bondOf(accused), BOND - SLASH);
        assertEq(fundsOf(challenger), 100e18); // right, if late: no reward, no loss
        assertEq(vault.claimableOf(challenger), 0);
        contradict(2);
        assertEq(bondOf(accused), BOND - 2 * SLASH);
        contradict(3); // the rest of the bond
        assertEq(bondOf(accused), 0);
        r = receiptOf(accused, 4);
        r.outputs.units = 99;
        signature = signed(r, accusedSecret);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NothingLocked.selector, accused));
        court.reportExcess(r, signature);
    }

    /// A receipt for another court or another chain is worth nothing here.
    function test_aReceiptOfAnotherCourtOrChainIsNoEvidence() public {
        IReceiptCourt.Receipt memory r = receiptOf(accused, 1);
        r.outputs.units = 65;
        ReceiptCourt twin = deployReceiptCourt(courtConfig(), operators, vault, rails, jury);
        (uint8 v, bytes32 rr, bytes32 s) = vm.sign(accusedSecret, twin.digestOf(r));
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadSignature.selector, r.subject.miner));
        court.reportExcess(r, abi.encodePacked(rr, s, v));
        uint256 chainId = block.chainid;
        vm.chainId(chainId + 1);
        bytes memory signature = signed(r, accusedSecret);
        vm.chainId(chainId);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadSignature.selector, r.subject.miner));
        court.reportExcess(r, signature);
        court.reportExcess(r, signed(r, accusedSecret)); // the honest twin: signed for here
    }

    /// Saying much is cheap, so jurors must not count pieces of all together. Nobody can speak in another's name: by the event's third topic each side
    /// is found alone, whoever floods; what the challenger said first stands in the challenge's own transaction. The twin case has no flood.
    function test_aFloodOfEvidenceHidesNoSideFromWhoLooksForIt() public {
        Flooder flooder = new Flooder();
        string memory text = "operator:7/v1/inference/cases/0xabababababababababababababababababababababababababababababababab";
        for (uint256 pieces; pieces <= 300; pieces += 300) {
            vm.recordLogs();
            uint256 id = challenge(pieces);
            uint256 before = gasleft();
            flooder.flood(court, id, pieces, text);
            if (pieces != 0) assertLt((before - gasleft()) / pieces, 10_000);
            vm.prank(operators.nodeKeyOf(accused));
            court.submitEvidence(id, "operator:1/mine");
            Vm.Log[] memory logs = vm.getRecordedLogs();
            assertEq(_said(logs, id, challenger), 1);
            assertEq(_said(logs, id, operators.nodeKeyOf(accused)), 1);
            assertEq(_said(logs, id, address(flooder)), pieces);
            judge(id, 2);
        }
    }

    function _said(Vm.Log[] memory logs, uint256 id, address party) private pure returns (uint256 count) {
        bytes32 topic = keccak256("Evidence(address,uint256,address,string)");
        for (uint256 i; i < logs.length; ++i) {
            bytes32[] memory topics = logs[i].topics;
            if (topics[0] == topic && topics[2] == bytes32(id) && topics[3] == bytes32(uint256(uint160(party)))) ++count;
        }
    }

    /// A challenger who means to annoy pays its bond to the miner each time, and its fees to the jurors; the miner's stake is untouched.
    function test_aGriefingChallengerPaysTheMiner() public {
        for (uint256 i; i < 5; ++i) {
            judge(challenge(i), 2);
        }
        assertEq(fundsOf(operators.beneficiaryOf(accused)), 5 * CASE_BOND);
        assertEq(fundsOf(challenger), 100e18 - 5 * CASE_BOND);
        assertEq(bondOf(accused), BOND);
        assertTrue(court.isBonded(accused, operators.nodeKeyOf(accused)));
    }

    /// A miner that challenges itself badly, to be acquitted, is not shielded: the honest challenger's case on the same receipt convicts it.
    function test_aSelfChallengeShieldsNobody() public {
        address friend = makeAddr("friend");
        fundChallenger(friend, 100e18);
        uint256 own = challengeBy(friend, 1);
        uint256 honest = challenge(1); // while the other is open
        judge(own, 2);
        judge(honest, 1);
        assertEq(bondOf(accused), BOND - SLASH);
        assertEq(fundsOf(challenger), 100e18);
    }

    /// A miner that convicts itself through a friend loses far more than the friend wins.
    function test_aSelfReportLosesMoreThanItWins() public {
        uint256 reward = contradict(1);
        (uint256 own,) = vault.ownStake(accused);
        assertEq(own, 4 * BOND - SLASH);
        assertLe(reward, SLASH / 10);
        fundChallenger(makeAddr("friend"), 10e18);
        judge(challengeBy(makeAddr("friend"), 2), 1);
        assertLe(vault.claimableOf(makeAddr("friend")), SLASH * 4 / 10);
    }

    /// A thief of a node key can win at most rewardMax for each slash that the bond holds, whatever the operator's stake.
    function test_aStolenKeyWinsLittle() public {
        uint256 won;
        for (uint256 i; i < 3; ++i) {
            won += contradict(100 + i);
        }
        assertEq(bondOf(accused), 0);
        assertLe(won, 3 * 6e18);
        (uint256 own,) = vault.ownStake(accused);
        assertEq(own, 3 * BOND);
    }

    /// Leaving when a case is open does not help: the bond stays until it is ruled. An honest miner leaves in time.
    function test_leavingDoesNotEscapeACase() public {
        (uint64 honest,) = newMiner("honest");
        uint256 id = challenge(1);
        vm.prank(operators.nodeKeyOf(accused));
        court.leave(accused);
        vm.prank(operators.nodeKeyOf(honest));
        court.leave(honest);
        draw(id);
        vm.warp(block.timestamp + 100);
        voteAll(id, 1);
        vm.warp(block.timestamp + 1_000);
        court.unlock(honest);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.CasesOpen.selector, accused, 1));
        court.unlock(accused);
        jury.execute(id);
        assertEq(bondOf(accused), BOND - SLASH);
        court.unlock(accused);
        assertEq(bondOf(accused), 0);
    }

    /// Neither the miner's operator nor the challenger's judges.
    function test_thePartiesDoNotJudge() public {
        vm.prank(operators.nodeKeyOf(accused));
        jury.enrol(accused, 8);
        uint64 second = registerOperator(challenger, challenger);
        depositStake(second, challenger, 9 * SEAT);
        vm.prank(operators.nodeKeyOf(second));
        jury.enrol(second, 8);
        vm.warp(block.timestamp + 1);
        for (uint256 salt; salt < 6; ++salt) {
            beacon.reseed(salt);
            uint64[] memory list = draw(challenge(salt));
            for (uint256 i; i < list.length; ++i) {
                assertTrue(list[i] != accused && list[i] != second, "a party judges");
            }
        }
    }
}
