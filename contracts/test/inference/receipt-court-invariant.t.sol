// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IJury} from "../../src/governance/IJury.sol";
import {IReceiptCourt} from "../../src/inference/IReceiptCourt.sol";
import {ReceiptCourt} from "../../src/inference/ReceiptCourt.sol";
import {Rails} from "../../src/token/Rails.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {ReceiptCourtFixture} from "./receipt-court-fixture.sol";

/// @notice A miner that cheats, leaves and comes back; reporters and challengers, right and wrong; jurors who rule anything.
contract CourtHandler is ReceiptCourtFixture {
    uint256 public punished; // receipts
    uint256 public cut; // taken of the bond, by what the receipts say
    uint256[] private cases;
    mapping(bytes32 what => uint256) public done;

    function parts() external view returns (ReceiptCourt, StakeVault, Rails, uint64) {
        return (court, vault, rails, accused);
    }

    function stakeToken() external view returns (address) {
        return address(token);
    }

    function openCases() external view returns (uint256 count) {
        for (uint256 i; i < cases.length; ++i) {
            if (!court.caseOf(cases[i]).closed) ++count;
        }
    }

    function enrolOrLeave(uint256 lot) external {
        (uint256 own,) = vault.ownStake(accused);
        if (own < 2 * BOND) depositStake(accused, address(this), 4 * BOND);
        vm.startPrank(operators.nodeKeyOf(accused));
        if (lot & 1 != 0 || court.miner(accused).key == address(0)) court.enrol(accused);
        else if (court.miner(accused).unlocksAt == 0) court.leave(accused);
        vm.stopPrank();
        ++done["enrolOrLeave"];
    }

    function unlock(uint256 lot) external {
        IReceiptCourt.Miner memory m = court.miner(accused);
        if (m.unlocksAt == 0) return;
        if (block.timestamp < m.unlocksAt) vm.warp(m.unlocksAt + lot % 100);
        if (m.openCases != 0) vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.CasesOpen.selector, accused, m.openCases));
        else ++done["unlock"];
        court.unlock(accused);
    }

    function report(uint256 lot) external {
        IReceiptCourt.Receipt memory r = receiptOf(accused, lot % 12);
        IReceiptCourt.Receipt memory other = receiptOf(accused, lot % 12);
        (r.outputs.units, other.outputs.units) = (uint64(60 + lot % 7), uint64(60 + lot % 9));
        (bytes memory a, bytes memory b) = (signed(r, accusedSecret), signed(other, accusedSecret));
        uint256 before = bondOf(accused);
        bool isNew = !court.isPunished(accused, r.inputs.receiptId);
        try this.tryReport(r, a, other, b, lot & 1 == 0) {
            require(isNew, "punished twice");
            _countCut(before);
        } catch {
            require(bondOf(accused) == before, "slashed by what failed");
        }
    }

    function tryReport(
        IReceiptCourt.Receipt calldata r,
        bytes calldata a,
        IReceiptCourt.Receipt calldata other,
        bytes calldata b,
        bool isExcess
    ) external {
        if (isExcess) court.reportExcess(r, a);
        else court.reportContradiction(r, a, other, b);
    }

    function openCase(uint256 lot) external {
        if (fundsOf(challenger) < CASE_BOND) fundChallenger(challenger, 100e18);
        IReceiptCourt.Receipt memory r = receiptOf(accused, lot % 12);
        bytes memory signature = signed(r, accusedSecret);
        vm.prank(challenger);
        try court.challenge{value: 3 * FEE}(r, signature, "") returns (uint256 id) {
            cases.push(id);
            ++done["openCase"];
        } catch (bytes memory reason) {
            bytes4 name = bytes4(reason);
            bool isKnown = name == IReceiptCourt.KeyNotBound.selector || name == IReceiptCourt.AlreadyPunished.selector
                || name == IReceiptCourt.NothingLocked.selector || name == IJury.TooFewJurors.selector;
            require(isKnown, "openCase");
        }
    }

    function judgeCase(uint256 lot) external {
        if (cases.length == 0) return;
        uint256 id = cases[lot % cases.length];
        for (uint256 i; i < cases.length && court.caseOf(id).closed; ++i) {
            id = cases[(lot % cases.length + i) % cases.length];
        }
        if (court.caseOf(id).closed) return;
        if (block.timestamp >= uint256(jury.dispute(id).seedTime) + 600) {
            jury.expire(id);
        } else {
            draw(id);
            voteAll(id, (lot >> 64) % 3);
        }
        toFinal(id);
        uint256 before = bondOf(accused);
        bool isNew = !court.isPunished(accused, court.caseOf(id).receiptId);
        jury.execute(id);
        if (bondOf(accused) != before) {
            require(isNew, "punished twice");
            _countCut(before);
        }
        if (!jury.roundOf(id, 0).settled) jury.settle(id, 0);
        ++done["judgeCase"];
    }

    function _countCut(uint256 before) private {
        ++punished;
        cut += before - bondOf(accused);
        ++done["convict"];
    }
}

/// @notice Laws of the court that hold after every sequence of calls.
contract ReceiptCourtInvariants is ReceiptCourtFixture {
    CourtHandler private handler;

    function setUp() public override {
        handler = CourtHandler(vm.deployCode("receipt-court-invariant.t.sol:CourtHandler"));
        handler.setUp();
        (court, vault, rails, accused) = handler.parts();
        bytes4[] memory actions = new bytes4[](5);
        actions[0] = handler.enrolOrLeave.selector;
        actions[1] = handler.unlock.selector;
        actions[2] = handler.report.selector;
        actions[3] = handler.openCase.selector;
        actions[4] = handler.judgeCase.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector(address(handler), actions));
    }

    /// The court's account holds the bonds of open cases and nothing else, and no coins; a slash is at most SLASH for each punished receipt;
    /// who is bonded has its bond locked, who has open cases is not unlocked.
    /// forge-config: default.invariant.runs = 4
    /// forge-config: deep.invariant.runs = 200
    /// forge-config: default.invariant.depth = 48
    /// forge-config: deep.invariant.depth = 64
    function invariant_theLawsOfTheCourt() public view {
        uint256 open = handler.openCases();
        assertEq(rails.balanceOf(handler.stakeToken(), address(court)), open * CASE_BOND);
        assertEq(address(court).balance, 0);
        assertEq(court.miner(accused).openCases, open);
        assertLe(handler.cut(), handler.punished() * SLASH);
        assertLe(handler.punished(), 12);
        assertEq(vault.lockedBy(address(court)), bondOf(accused));
        if (court.miner(accused).key == address(0)) assertEq(bondOf(accused), 0);
        if (court.isBonded(accused, court.miner(accused).key)) assertGe(bondOf(accused), BOND);
    }

    /// The same actions by a fixed lot: they do reach what the laws are about.
    function test_theActionsReachWhatTheLawsAreAbout() public {
        for (uint256 i; i < 120; ++i) {
            uint256 lot = uint256(keccak256(abi.encode(i)));
            uint256 action = lot % 10;
            if (action < 3) handler.enrolOrLeave(lot >> 8);
            else if (action == 3) handler.unlock(lot >> 8);
            else if (action < 5) handler.report(lot >> 8);
            else if (action < 7) handler.openCase(lot >> 8);
            else handler.judgeCase(lot >> 8);
            if (i % 40 == 39) invariant_theLawsOfTheCourt();
        }
        string[5] memory reached = ["enrolOrLeave", "unlock", "openCase", "judgeCase", "convict"];
        for (uint256 i; i < reached.length; ++i) {
            assertGt(handler.done(bytes32(bytes(reached[i]))), 0, reached[i]);
        }
    }
}
