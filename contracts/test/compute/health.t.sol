// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {HealthFixture} from "./health-fixture.sol";

contract HealthSeatsTest is HealthFixture {
    function test_aDeviceOnOfferTakesASeatFromTheNextHourAndLocksItsStake() public {
        uint64 deviceId = newDevice(newOperator());
        (bool seated, uint32 seat) = health.seatOf(deviceId);
        assertTrue(seated);
        assertEq(vault.lockedOfModule(1, address(health)), DEVICE_STAKE);
        assertEq(health.occupantAt(seat, 1).deviceId, 0);
        assertEq(health.occupantAt(seat, 2).deviceId, deviceId);
        assertEq(health.occupantAt(seat, 2).rate, RATE);
        assertEq(health.seatsAt(1), 0);
        assertEq(health.seatsAt(2), 1);
    }

    function test_onlyItsOperatorSeatsADeviceOnceAndOnlyWhatIsOnOffer() public {
        uint64 deviceId = newDevice(newOperator());
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.NotOperator.selector, 1, address(this)));
        health.enrol(deviceId, RATE, MEMORY_MBS);
        vm.startPrank(operators.nodeKeyOf(1));
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.AlreadySeated.selector, deviceId, 0));
        health.enrol(deviceId, RATE, MEMORY_MBS);
        IComputeMarket.Offer memory later = offerOf(1);
        later.from += 1;
        uint64 other = market.setOffer(0, later);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.NotOnOffer.selector, other, CLASS));
        health.enrol(other, RATE, MEMORY_MBS);
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.NothingDeclared.selector, 0, MEMORY_MBS));
        health.enrol(other, 0, MEMORY_MBS);
    }

    function test_whoLeavesKeepsItsHourAndItsSeatIsTheNextToBeTaken() public {
        uint64 first = newDevice(newOperator());
        vm.warp(health.startOf(2));
        vm.prank(operators.ownerOf(1));
        health.leave(first);
        assertEq(vault.lockedOfModule(1, address(health)), 0);
        assertEq(health.occupantAt(0, 2).deviceId, first);
        assertEq(health.occupantAt(0, 3).deviceId, 0);
        uint64 second = newDevice(newOperator());
        assertEq(health.seatsAt(3), 1);
        assertEq(health.occupantAt(0, 2).deviceId, first);
        assertEq(health.occupantAt(0, 3).deviceId, second);
    }

    function test_comingAndGoingWithinAnHourLeavesNoTraceAndNoSeats() public {
        newOperator();
        vm.startPrank(operators.nodeKeyOf(1));
        uint64 deviceId = market.setOffer(0, offerOf(1));
        for (uint256 i; i < 20; ++i) {
            health.enrol(deviceId, RATE, MEMORY_MBS);
            health.leave(deviceId);
        }
        assertEq(health.seatsAt(2), 1);
        assertEq(health.occupantAt(0, 2).deviceId, 0);
    }

    function test_anybodyTakesTheSeatOfADeviceThatIsNoLongerOnOfferAsItWas() public {
        uint64 deviceId = newDevice(newOperator());
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.StillOnOffer.selector, deviceId));
        health.expel(deviceId);
        IComputeMarket.Offer memory other = offerOf(1);
        other.deviceClass = "cpu-64";
        vm.prank(operators.nodeKeyOf(1));
        market.setOffer(deviceId, other);
        vm.expectEmit(address(health));
        emit IComputeHealth.SeatLeft(0, deviceId, 1, 2, IComputeHealth.Reason.ClassChanged);
        health.expel(deviceId);

        vm.warp(health.startOf(2));
        deviceId = newDevice(newOperator());
        IComputeMarket.Offer memory gone;
        gone.operatorId = 2;
        vm.prank(operators.nodeKeyOf(2));
        market.setOffer(deviceId, gone);
        vm.expectEmit(address(health));
        emit IComputeHealth.SeatLeft(0, deviceId, 2, 3, IComputeHealth.Reason.NotOnOffer);
        health.expel(deviceId);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.NotSeated.selector, deviceId));
        health.expel(deviceId);
    }

    function test_aSeatWithoutStakeBehindItIsRefused() public {
        uint64 operatorId = registerOperator(makeAddr("poor"), makeAddr("poor"));
        vm.startPrank(operators.nodeKeyOf(operatorId));
        uint64 deviceId = market.setOffer(0, offerOf(operatorId));
        vm.expectRevert();
        health.enrol(deviceId, RATE, MEMORY_MBS);
    }
}

contract HealthHourTest is HealthFixture {
    uint32 private constant H = 2;

    function setUp() public override {
        super.setUp();
        newDevices(6);
    }

    function test_anHourIsReportedProposedAndFinalAfterItsWindow() public {
        endHour(H);
        reportAll(H, goodStatement());
        bytes memory figures = figuresOf(H, goodStatement());
        vm.warp(health.startOf(H + 1) + REPORT);
        proposeAs(3, H, figures);
        assertEq(vault.lockedOfModule(3, address(health)), DEVICE_STAKE + BOND);
        vm.warp(health.proposalOf(H).finalFrom - 1);
        assertEq(health.advance(10), 1); // hour 1, which had no seats and was not proposed
        vm.warp(block.timestamp + 1);
        health.advance(1);
        assertEq(health.nextHour(), H + 1);
        assertEq(health.finalHour(H).ordinal, 1);
        // 11,000 of hardware, all up, bandwidth and latency better than the reference
        assertEq(health.finalHour(H).total, 6 * 11_000);
        for (uint32 seat; seat < 6; ++seat) {
            (uint64 performance,) = health.figureOf(H, seat, openingOf(figures));
            assertEq(performance, RATE * 10 + MEMORY_MBS);
        }
        assertEq(vault.lockedOfModule(3, address(health)), DEVICE_STAKE);
    }

    function test_aWrongFigureCostsTheBondAndTheNextProposalStands() public {
        endHour(H);
        reportAll(H, goodStatement());
        bytes memory right = figuresOf(H, goodStatement());
        bytes memory wrong = bytes.concat(right);
        wrong[5] = bytes1(uint8(wrong[5]) + 1);
        vm.warp(health.startOf(H + 1) + REPORT);
        proposeAs(1, H, wrong);
        bytes[] memory pages = pagesFor(H, 0, goodStatement());
        vm.prank(makeAddr("disputer"));
        health.dispute(H, 0, openingOf(wrong), pages);
        assertEq(vault.claimableOf(makeAddr("disputer")), BOND / 2);
        assertEq(ownActive(1), 1_000e18 - BOND);
        assertEq(health.proposalOf(H).root, 0);
        proposeAs(2, H, right);
        vm.warp(block.timestamp + WINDOW);
        health.advance(10);
        assertEq(health.finalHour(H).total, 6 * 11_000);
    }

    function test_aRightFigureCannotBeDisputedWithWhateverPages() public {
        endHour(H);
        reportAll(H, goodStatement());
        bytes memory figures = figuresOf(H, goodStatement());
        bytes[] memory pages = pagesFor(H, 0, goodStatement());
        vm.warp(health.startOf(H + 1) + REPORT);
        proposeAs(1, H, figures);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.FigureIsRight.selector, H, 0, uint64(11_000) << 16));
        health.dispute(H, 0, openingOf(figures), pages);
        (uint64[] memory ids,) = health.pagesOf(H, 0);
        // One left out, one changed, one too many.
        bytes[] memory fewer = new bytes[](pages.length - 1);
        for (uint256 i; i < fewer.length; ++i) {
            fewer[i] = pages[i];
        }
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.WrongPageCount.selector, fewer.length, pages.length));
        health.dispute(H, 0, openingOf(figures), fewer);
        bytes memory kept = pages[1];
        pages[1] = entry(H, seatOfOperator(ids[1]), 0);
        vm.expectPartialRevert(IComputeHealth.WrongPage.selector);
        health.dispute(H, 0, openingOf(figures), pages);
        pages[1] = kept;
        bytes[] memory more = new bytes[](pages.length + 1);
        for (uint256 i; i < pages.length; ++i) {
            more[i] = pages[i];
        }
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.WrongPageCount.selector, more.length, pages.length));
        health.dispute(H, 0, openingOf(figures), more);
        // A figure that was not proposed.
        bytes memory forged = bytes.concat(figures);
        forged[0] = 0x01;
        vm.expectPartialRevert(IComputeHealth.WrongOpening.selector);
        health.dispute(H, 0, openingOf(forged), pages);
    }

    function test_afterTheWindowNothingIsDisputedAnyMore() public {
        endHour(H);
        bytes memory figures = new bytes(6 * 8);
        vm.warp(health.startOf(H + 1) + REPORT);
        proposeAs(1, H, figures);
        vm.warp(block.timestamp + WINDOW);
        vm.expectPartialRevert(IComputeHealth.WindowOver.selector);
        health.dispute(H, 0, openingOf(figures), new bytes[](0));
    }

    function test_anHourThatNobodyProposesIsPassedOverAndTheNextGoesOn() public {
        vm.warp(health.passableFrom(H) - 1);
        assertEq(health.advance(10), 1);
        vm.warp(block.timestamp + 1);
        assertEq(health.advance(10), 1);
        assertEq(health.finalHour(H).root, 0);
        settleHour(H + 1, goodStatement());
        assertEq(health.finalHour(H + 1).ordinal, 1);
        address key = operators.nodeKeyOf(1);
        vm.expectPartialRevert(IComputeHealth.HourOutOfReach.selector);
        vm.prank(key);
        health.propose(H, 1, new bytes(48));
    }

    function test_aProposalThatFellLeavesTimeForTheNextAndNothingIsStuck() public {
        endHour(H);
        bytes memory figures = new bytes(6 * 8); // nobody reported: each should say so
        vm.warp(health.passableFrom(H) - 1);
        proposeAs(1, H, figures);
        vm.warp(block.timestamp + WINDOW - 1);
        health.dispute(H, 3, openingOf(figures), new bytes[](0));
        assertEq(health.passableFrom(H), block.timestamp + PROPOSE);
        health.advance(10);
        assertEq(health.nextHour(), H);
        vm.warp(block.timestamp + PROPOSE);
        health.advance(1);
        assertEq(health.nextHour(), H + 1);
    }

    function test_reportsAreTakenInTheirTimeOnceAndOnlyFromTheirOperator() public {
        bytes memory data = new bytes(1 + ROUNDS * STATEMENT_BYTES);
        IComputeHealth.Report[] memory reports = reportOf(1, H, 0, data);
        vm.expectPartialRevert(IComputeHealth.NotInReportTime.selector);
        health.report(reports);
        endHour(H);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.NotOperator.selector, 1, address(this)));
        health.report(reports);
        bytes32 digest = health.reportDigest(1, H, 0, data);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secretOf(2), digest);
        reports[0].signature = abi.encodePacked(r, s, v);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.BadSignature.selector, operators.nodeKeyOf(1)));
        health.report(reports);
        (v, r, s) = vm.sign(secretOf(1), digest);
        reports[0].signature = abi.encodePacked(r, s, v);
        assertEq(health.report(reports), 1);
        assertEq(health.report(reports), 0);
        reports[0].data = new bytes(data.length + 1);
        reports[0].page = 1;
        vm.expectPartialRevert(IComputeHealth.BadReport.selector);
        health.report(reports);
        vm.warp(health.startOf(H + 1) + REPORT);
        reports[0].data = data;
        vm.expectPartialRevert(IComputeHealth.NotInReportTime.selector);
        health.report(reports);
    }

    function test_proposalsComeAfterTheReportsOneAtATimeAndWhole() public {
        endHour(H);
        vm.startPrank(operators.nodeKeyOf(1));
        vm.expectPartialRevert(IComputeHealth.ReportsStillOpen.selector);
        health.propose(H, 1, new bytes(48));
        vm.warp(health.startOf(H + 1) + REPORT);
        vm.expectRevert(abi.encodeWithSelector(IComputeHealth.WrongLength.selector, 40, 48));
        health.propose(H, 1, new bytes(40));
        vm.expectPartialRevert(IComputeHealth.NotOperator.selector);
        health.propose(H, 2, new bytes(48));
        health.propose(H, 1, new bytes(48));
        vm.expectPartialRevert(IComputeHealth.AlreadyProposed.selector);
        health.propose(H, 1, new bytes(48));
    }

    function test_anHourIsNotComputedBeforeItsRandomnessIsFixed() public {
        vm.warp(health.startOf(H + 1));
        vm.expectRevert(abi.encodeWithSelector(IRandomness.RandomnessNotFixed.selector, health.startOf(H)));
        health.compute(H, 0, new bytes[](0));
    }
}
