// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRails} from "../../src/token/IRails.sol";
import {Rails} from "../../src/token/Rails.sol";
import {TokenFixture} from "./fixture.sol";
import {LyingMeter, MeterDouble} from "./rail-doubles.sol";

/// @notice The life of a rail.
contract RailsTest is TokenFixture {
    uint32 private constant INTERVAL = 100;

    address private payer = makeAddr("payer");
    address private beneficiary = makeAddr("beneficiary");
    uint64 private payee;
    uint64 private start;
    MeterDouble private meter;

    function setUp() public override {
        super.setUp();
        payee = registerOperator(makeAddr("owner"), beneficiary);
        start = uint64(block.timestamp);
        meter = new MeterDouble(start);
        meter.set(type(uint256).max, type(uint64).max);
        fund(payer, 1e27);
        vm.prank(payer);
        rails.approve(address(meter), address(token), type(uint256).max);
    }

    function fund(address account, uint256 amount) private {
        token.mint(address(this), amount);
        token.approve(address(rails), amount);
        rails.deposit(address(token), account, amount);
    }

    function openRail(uint128 amount, uint32 lockup, uint128 escrow) private returns (uint256 railId) {
        vm.prank(address(meter));
        return rails.open(payer, payee, address(token), amount, INTERVAL, lockup, escrow);
    }

    function beginRail(uint128 amount, uint64 end, uint128 escrow) private returns (uint256 railId) {
        railId = openRail(amount, 0, escrow);
        vm.prank(address(meter));
        rails.begin(railId, start, end);
    }

    function closeRail(uint256 railId, uint64 end, uint128 fee, uint128 forfeit) private returns (uint128) {
        vm.prank(address(meter));
        return rails.close(railId, end, fee, forfeit);
    }

    function balance(address account) private view returns (uint256) {
        return rails.balanceOf(address(token), account);
    }

    // ---------------------------------------------------------------- opening

    function testFuzz_OpeningReservesTheEscrowAndUsesUpTheAllowance(uint128 amount, uint32 lockup, uint96 escrow, uint96 allowance) public {
        escrow = uint96(bound(escrow, 0, 1e27));
        allowance = uint96(bound(allowance, escrow, type(uint96).max));
        vm.prank(payer);
        rails.approve(address(meter), address(token), allowance);
        uint256 railId = openRail(amount, lockup, escrow);
        assertEq(railId, 1);
        assertEq(rails.railCount(), 1);
        assertEq(balance(payer), 1e27 - escrow);
        assertEq(rails.allowanceOf(payer, address(meter), address(token)), allowance - escrow);
        IRails.Rail memory track = rails.rail(railId);
        assertEq(track.escrow, escrow);
        assertEq(track.start, 0);
        assertEq(rails.endOf(railId), 0);
        assertEq(rails.obligationsOf(address(token)), 1e27);
    }

    function testFuzz_AMeterTakesNoMoreThanThePayerApproved(uint96 allowance, address caller) public {
        vm.assume(caller != address(0));
        allowance = uint96(bound(allowance, 0, 1e27));
        vm.prank(payer);
        rails.approve(caller, address(token), allowance);
        vm.startPrank(caller);
        vm.expectRevert(
            abi.encodeWithSelector(IRails.InsufficientAllowance.selector, payer, caller, address(token), uint256(allowance) + 1, allowance)
        );
        rails.open(payer, payee, address(token), 1, 1, 0, uint128(allowance) + 1);
        uint256 railId = rails.open(payer, payee, address(token), 1, 1, 0, allowance);
        vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientAllowance.selector, payer, caller, address(token), 1, 0));
        rails.topUp(railId, 1, 0);
    }

    function test_WhatCannotBeOpened() public {
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(Rails.BadRate.selector, 5, 0));
        rails.open(payer, payee, address(token), 5, 0, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(IOperators.UnknownOperator.selector, 77));
        rails.open(payer, 77, address(token), 5, 1, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientBalance.selector, address(token), payer, 1e27 + 1, 1e27));
        rails.open(payer, payee, address(token), 5, 1, 0, 1e27 + 1);
    }

    function test_OnlyTheMeterBeginsAndOnlyOnceAndOnlyAnIntervalThatIsCovered() public {
        uint256 railId = openRail(100, 50, 1_000);
        vm.expectRevert(abi.encodeWithSelector(IRails.NotMeter.selector, railId, address(this)));
        rails.begin(railId, start, 0);
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, 0, 0));
        rails.begin(railId, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, start, start));
        rails.begin(railId, start, start);
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 1_000, 1_001));
        rails.begin(railId, start, start + 1_001);
        rails.begin(railId, start, start + 1_000);
        vm.expectRevert(abi.encodeWithSelector(Rails.AlreadyBegun.selector, railId, start));
        rails.begin(railId, start, start + 10);
    }

    function test_AnOpenEndedRailNeedsTheLockupInEscrow() public {
        uint256 railId = openRail(100, 1_001, 1_000);
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 1_000, 1_001));
        rails.begin(railId, start, 0);
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 1_000, 1_001));
        rails.begin(railId, type(uint64).max, 0);
        vm.stopPrank();
        uint256 enough = openRail(100, 1_000, 1_000);
        vm.prank(address(meter));
        rails.begin(enough, start, 0);
        assertEq(rails.endOf(enough), start + 1_000);
    }

    function test_NothingIsKnownOfARailThatIsNotThere() public {
        bytes memory unknown = abi.encodeWithSelector(IRails.UnknownRail.selector, 9);
        vm.expectRevert(unknown);
        rails.rail(9);
        vm.expectRevert(unknown);
        rails.endOf(9);
        vm.expectRevert(unknown);
        rails.settle(9);
        vm.expectRevert(unknown);
        rails.begin(9, 1, 2);
        vm.expectRevert(unknown);
        rails.topUp(9, 1, 2);
        vm.expectRevert(unknown);
        rails.close(9, 1, 2, 3);
        vm.expectRevert(unknown);
        rails.reduce(9, 1);
    }

    // ---------------------------------------------------------------- settling

    function test_ProvenTimeIsPaidUnprovenTimeGoesBackUnknownTimeStays() public {
        uint256 railId = beginRail(1_000, start + 300, 3_050);
        meter.set(0x3, start + 50); // slots 0 and 1 proven, 2 to 4 not, the rest not yet known
        vm.warp(start + 100);
        (uint128 paid, uint128 refunded) = rails.settle(railId);
        assertEq(paid, 200);
        assertEq(refunded, 300);
        assertEq(balance(beneficiary), 200);
        assertEq(balance(payer), 1e27 - 3_050 + 300);
        IRails.Rail memory track = rails.rail(railId);
        assertEq(track.settledTo, start + 50);
        assertEq(track.provenSeconds, 20);
        assertEq(track.escrow, 2_550);
        assertEq(track.paid, 200);
        assertEq(track.refunded, 300);
        (paid, refunded) = rails.settle(railId);
        assertEq(paid + refunded, 0, "again: nothing");
    }

    function test_NothingFlowsBeforeBeginBeforeStartAfterEndAndAfterClose() public {
        uint256 railId = openRail(100, 0, 1_000);
        vm.warp(start + 10);
        (uint128 paid, uint128 refunded) = rails.settle(railId);
        assertEq(paid + refunded, 0);
        vm.prank(address(meter));
        rails.begin(railId, start + 20, start + 40);
        (paid, refunded) = rails.settle(railId);
        assertEq(paid + refunded, 0);
        vm.warp(start + 1_000);
        (paid,) = rails.settle(railId);
        assertEq(paid, 20);
        closeRail(railId, start + 40, 0, 0);
        (paid, refunded) = rails.settle(railId);
        assertEq(paid + refunded, 0);
    }

    function testFuzz_SettlingInOneStepOrInManyPaysTheSame(
        uint64 amount,
        uint256 proven,
        uint16 length,
        uint16[8] memory steps,
        uint16[8] memory sure,
        bool openEnded
    ) public {
        amount = uint64(bound(amount, 0, 1e18));
        length = uint16(bound(length, 1, 2_000));
        uint128 escrow = uint128((uint256(amount) * length + INTERVAL - 1) / INTERVAL);
        uint256 once = beginRail(amount, openEnded ? 0 : start + length, escrow);
        uint256 often = beginRail(amount, openEnded ? 0 : start + length, escrow);
        for (uint256 i; i < 8; ++i) {
            vm.warp(block.timestamp + steps[i] % 300);
            meter.set(proven, start + sure[i] % 3_000);
            rails.settle(often);
        }
        vm.warp(start + 3_000);
        meter.set(proven, type(uint64).max);
        rails.settle(often);
        rails.settle(once);
        IRails.Rail memory a = rails.rail(once);
        IRails.Rail memory b = rails.rail(often);
        assertEq(abi.encode(a), abi.encode(b));
        assertEq(a.paid, uint256(amount) * a.provenSeconds / INTERVAL);
        assertEq(a.refunded, uint256(amount) * (a.settledTo - start - a.provenSeconds) / INTERVAL);
        assertEq(balance(beneficiary), uint256(a.paid) * 2);
    }

    function testFuzz_ATopUpPaysTheSameWhoeverSettledBefore(
        uint64 amount,
        uint256 proven,
        uint16 first,
        uint32 added,
        uint16 at,
        uint16 until
    ) public {
        amount = uint64(bound(amount, 1, 1e18));
        uint256 once = beginRail(amount, 0, first);
        uint256 often = beginRail(amount, 0, first);
        meter.set(proven, type(uint64).max);
        vm.warp(start + at);
        rails.settle(often);
        added = uint32(bound(added, 1, type(uint32).max));
        vm.startPrank(payer);
        rails.topUp(once, added, 0);
        rails.topUp(often, added, 0);
        vm.stopPrank();
        assertEq(rails.endOf(once), rails.endOf(often));
        vm.warp(block.timestamp + until);
        rails.settle(once);
        rails.settle(often);
        assertEq(abi.encode(rails.rail(once)), abi.encode(rails.rail(often)));
    }

    function test_EarningsGoToTheBeneficiaryOfTheTimeOfSettlement() public {
        uint256 railId = beginRail(100, start + 200_000, 200_000);
        address owner = operators.ownerOf(payee);
        address next = makeAddr("next");
        vm.prank(owner);
        operators.requestRotation(payee, IOperators.Role.Beneficiary, next);
        vm.warp(start + 100);
        rails.settle(railId);
        vm.warp(start + 1 days);
        operators.finishRotation(payee, IOperators.Role.Beneficiary);
        rails.settle(railId);
        assertEq(balance(beneficiary), 100);
        assertEq(balance(next), 1 days - 100);
    }

    function testFuzz_AMeterThatSaysWhatCannotBeIsRefused(uint64 provenSeconds, uint64 settledTo) public {
        LyingMeter liar = new LyingMeter();
        vm.prank(payer);
        rails.approve(address(liar), address(token), 1_000);
        vm.startPrank(address(liar));
        uint256 railId = rails.open(payer, payee, address(token), 100, INTERVAL, 0, 1_000);
        rails.begin(railId, start, start + 1_000);
        liar.say(provenSeconds, settledTo);
        vm.warp(start + 500);
        bool possible = settledTo >= start && settledTo <= start + 500 && provenSeconds <= settledTo - start;
        if (!possible) vm.expectRevert(abi.encodeWithSelector(IRails.MeterOutOfRange.selector, railId, provenSeconds, settledTo));
        rails.settle(railId);
    }

    // ---------------------------------------------------------------- topping up and reducing

    function test_ThePayerTopsUpFromTheOwnAccountAndMovesNoEnd() public {
        uint256 railId = beginRail(100, start + 100, 100);
        vm.startPrank(payer);
        rails.topUp(railId, 50, 0);
        assertEq(rails.rail(railId).escrow, 150);
        vm.expectRevert(abi.encodeWithSelector(IRails.NotMeter.selector, railId, payer));
        rails.topUp(railId, 50, start + 150);
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.topUp(railId, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientBalance.selector, address(token), payer, 1e27, 1e27 - 150));
        rails.topUp(railId, 1e27, 0);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IRails.NotPayer.selector, railId, address(this)));
        rails.topUp(railId, 1, 0);
    }

    function test_TheMeterExtendsWithinAllowanceAndEscrow() public {
        uint256 railId = beginRail(100, start + 100, 100);
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, start, start + 100));
        rails.topUp(railId, 10, start + 100);
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 110, 111));
        rails.topUp(railId, 10, start + 111);
        rails.topUp(railId, 10, start + 110);
        vm.stopPrank();
        vm.warp(start + 500);
        (uint128 paid,) = rails.settle(railId);
        assertEq(paid, 110);
        uint256 unbegun = openRail(100, 0, 100);
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, 0, start + 10));
        vm.prank(address(meter));
        rails.topUp(unbegun, 10, start + 10);
    }

    function test_AnOpenEndedRailMayGetAnEndThatIsNotInTheSettledPast() public {
        uint256 railId = beginRail(100, 0, 1_000);
        vm.warp(start + 200);
        rails.settle(railId);
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, start, start + 200));
        rails.topUp(railId, 0, start + 200);
        rails.topUp(railId, 0, start + 700);
        vm.stopPrank();
        assertEq(rails.endOf(railId), start + 700);
    }

    function testFuzz_AnExtensionIsAlwaysCovered(uint64 amount, uint16 first, uint64 added, uint16 later, uint16 at) public {
        amount = uint64(bound(amount, 1, 1e18));
        first = uint16(bound(first, 1, 1_000));
        uint256 railId = beginRail(amount, start + first, uint128((uint256(amount) * first + INTERVAL - 1) / INTERVAL));
        vm.warp(start + at);
        rails.settle(railId);
        vm.prank(address(meter));
        try rails.topUp(railId, added, start + first + later) {} catch {}
        vm.warp(start + 100_000);
        rails.settle(railId);
        assertEq(rails.rail(railId).settledTo, rails.rail(railId).end, "there was money for all time up to the end");
    }

    function test_ThePayerTakesBackWhatIsBeyondTheLockup() public {
        uint256 railId = openRail(100, 300, 1_000);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, 0, 0));
        rails.reduce(railId, 1);
        vm.stopPrank();
        vm.prank(address(meter));
        rails.begin(railId, start, 0);
        vm.warp(start + 200);
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 499, 500));
        rails.reduce(railId, 501);
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 1_000, 1_001));
        rails.reduce(railId, 1_001);
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.reduce(railId, 0);
        vm.expectEmit(address(rails));
        emit Rails.RailReduced(railId, 500, start + 500);
        rails.reduce(railId, 500);
        vm.stopPrank();
        assertEq(balance(payer), 1e27 - 500);
        vm.warp(start + 10_000);
        (uint128 paid,) = rails.settle(railId);
        assertEq(paid, 500);
        vm.expectRevert(abi.encodeWithSelector(IRails.NotPayer.selector, railId, address(this)));
        rails.reduce(railId, 1);
    }

    function test_ARailWithAnEndIsNotReduced() public {
        uint256 railId = beginRail(100, start + 100, 1_000);
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, start, start + 100));
        vm.prank(payer);
        rails.reduce(railId, 1);
    }

    function testFuzz_AfterAnyReductionTheLockupIsCovered(
        uint64 amount,
        uint32 lockup,
        uint96 escrow,
        uint96 wanted,
        uint16 at,
        bool settled,
        uint256 proven
    ) public {
        amount = uint64(bound(amount, 0, 1e18));
        lockup = uint32(bound(lockup, 0, 10_000));
        uint256 least = (uint256(amount) * lockup + INTERVAL - 1) / INTERVAL;
        escrow = uint96(bound(escrow, least, 1e27));
        uint256 railId = openRail(amount, lockup, escrow);
        vm.prank(address(meter));
        rails.begin(railId, start, 0);
        meter.set(proven, type(uint64).max);
        vm.warp(start + at % 2_000);
        if (settled) rails.settle(railId);
        vm.prank(payer);
        try rails.reduce(railId, wanted) {
            assertGe(rails.endOf(railId), block.timestamp + lockup);
        } catch (bytes memory reason) {
            assertTrue(bytes4(reason) == IRails.EscrowTooSmall.selector || bytes4(reason) == IRails.ZeroAmount.selector);
        }
    }

    // ---------------------------------------------------------------- closing

    function test_ClosingSettlesPaysFeeAndForfeitAndReturnsTheRest() public {
        uint256 railId = beginRail(100, start + 1_000, 1_500);
        vm.warp(start + 400);
        vm.expectEmit(address(rails));
        emit IRails.RailSettled(railId, start + 300, 300, 300, 0);
        vm.expectEmit(address(rails));
        emit IRails.RailClosed(railId, start + 300, 70, 30, 1_100);
        assertEq(closeRail(railId, start + 300, 70, 30), 1_100);
        assertEq(balance(beneficiary), 370);
        assertEq(balance(address(meter)), 30);
        assertEq(balance(payer), 1e27 - 400);
        IRails.Rail memory track = rails.rail(railId);
        assertTrue(track.closed);
        assertEq(track.end, start + 300);
        assertEq(track.escrow, 0);
        assertEq(uint256(track.paid) + track.refunded + 30, 1_500);
    }

    function test_AfterCloseNothingMoves() public {
        uint256 railId = openRail(100, 0, 1_000);
        closeRail(railId, 0, 0, 0);
        assertEq(balance(payer), 1e27, "a rail that never began gives all back");
        bytes memory closed = abi.encodeWithSelector(IRails.RailIsClosed.selector, railId);
        vm.startPrank(address(meter));
        vm.expectRevert(closed);
        rails.begin(railId, start, 0);
        vm.expectRevert(closed);
        rails.topUp(railId, 1, 0);
        vm.expectRevert(closed);
        rails.close(railId, 0, 0, 0);
        vm.startPrank(payer);
        vm.expectRevert(closed);
        rails.reduce(railId, 1);
    }

    function test_OnlyTheMeterClosesAndTakesNoMoreThanTheEscrow() public {
        uint256 railId = beginRail(100, start + 100, 150);
        vm.expectRevert(abi.encodeWithSelector(IRails.NotMeter.selector, railId, payer));
        vm.prank(payer);
        rails.close(railId, start, 0, 0);
        vm.warp(start + 100);
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 50, 51));
        rails.close(railId, start + 100, 50, 1);
        vm.expectRevert(abi.encodeWithSelector(IRails.EscrowTooSmall.selector, railId, 50, uint256(type(uint128).max) * 2));
        rails.close(railId, start + 100, type(uint128).max, type(uint128).max);
    }

    function test_TimeThatIsSettledStaysSettledAndTimeBeyondTheEndIsNotCounted() public {
        uint256 railId = beginRail(100, start + 100, 150);
        vm.warp(start + 60);
        rails.settle(railId);
        closeRail(railId, start + 10, 0, 0);
        assertEq(rails.rail(railId).end, start + 60);
        assertEq(balance(beneficiary), 60);
        uint256 other = beginRail(100, start + 100, 150);
        vm.warp(start + 500);
        closeRail(other, start + 400, 0, 0);
        assertEq(rails.rail(other).end, start + 100);
        assertEq(balance(beneficiary), 160);
    }

    function test_NoRailIsClosedOverTimeThatTheMeterIsNotSureOfOrThatIsToCome() public {
        uint256 railId = beginRail(100, start + 100, 150);
        vm.warp(start + 60);
        vm.startPrank(address(meter));
        vm.expectRevert(abi.encodeWithSelector(IRails.BadInterval.selector, start, start + 61));
        rails.close(railId, start + 61, 0, 0);
        meter.set(1, start + 30);
        vm.expectRevert(abi.encodeWithSelector(IRails.MeterOutOfRange.selector, railId, 10, start + 30));
        rails.close(railId, start + 40, 0, 0);
        assertEq(rails.close(railId, start + 30, 0, 0), 120);
    }

    function test_ARailClosedBeforeItsStartPaysNothing() public {
        uint256 railId = openRail(100, 0, 1_000);
        vm.startPrank(address(meter));
        rails.begin(railId, start + 500, start + 600);
        assertEq(rails.close(railId, start, 0, 5), 995);
    }

    function testFuzz_WhateverIsClosedHowNoMoneyIsLost(
        uint64 amount,
        uint16 length,
        uint96 bond,
        uint16 at,
        uint16 end,
        uint96 fee,
        uint96 forfeit,
        uint256 proven
    ) public {
        amount = uint64(bound(amount, 0, 1e18));
        length = uint16(bound(length, 1, 2_000));
        bond = uint96(bound(bond, 0, 1e26));
        uint128 escrow = uint128((uint256(amount) * length + INTERVAL - 1) / INTERVAL) + bond;
        uint256 railId = beginRail(amount, start + length, escrow);
        meter.set(proven, type(uint64).max);
        vm.warp(start + at);
        fee = uint96(bound(fee, 0, bond));
        closeRail(railId, start + uint64(bound(end, 0, at)), fee, uint96(bound(forfeit, 0, bond - fee)));
        assertEq(balance(payer) + balance(beneficiary) + balance(address(meter)), 1e27);
        assertEq(rails.rail(railId).escrow, 0);
    }

    function test_AFreeOpenEndedRailRunsForEverAndPaysNothing() public {
        uint256 railId = beginRail(0, 0, 10);
        assertEq(rails.endOf(railId), type(uint64).max);
        vm.warp(start + 1_000);
        (uint128 paid, uint128 refunded) = rails.settle(railId);
        assertEq(paid + refunded, 0);
        assertEq(rails.rail(railId).provenSeconds, 1_000);
        assertEq(closeRail(railId, start + 1_000, 0, 0), 10);
    }
}
