// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ILeaseProbers} from "../../src/compute/ILeaseProbers.sol";
import {IPanelSeats} from "../../src/token/IPanelSeats.sol";
import {ProbersFixture} from "./leases-probers-fixture.sol";

contract LeaseProbersTest is ProbersFixture {
    function test_aThresholdOfTheDrawnSpeaksForASilentRenter() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, findings(leaseId, 2, ALL128));
        assertEq(market.statementOf(leaseId, PROBERS, 0).spoken, 0); // two of five decide nothing
        ILeaseProbers.Finding[] memory third = new ILeaseProbers.Finding[](1);
        third[0] = finding(leaseId, 0, 2, ALL128, ALL128 - 4); // it found the third interval down
        vm.expectEmit(address(probers));
        emit ILeaseProbers.PanelFound(leaseId, 0, 1023 - 4, 1023 - 4);
        probers.speak(leaseId, 0, third);
        third[0] = finding(leaseId, 0, 3, ALL128, ALL128);
        probers.speak(leaseId, 0, third);
        assertEq(market.statementOf(leaseId, PROBERS, 0).up, 1023);
        closeLate(leaseId);
        assertEq(balance(beneficiary), 598.5e6);
        // Each is paid for what it said as the panel found it; the fifth said nothing, and its share goes back.
        uint256 before = balance(nodeKey);
        probers.settle(leaseId, 0);
        uint64[] memory panel = probers.panelOf(leaseId, 0);
        assertEq(balance(operators.beneficiaryOf(panel[0])), FEE);
        assertEq(balance(operators.beneficiaryOf(panel[2])), 9 * FEE / 10);
        assertEq(balance(operators.beneficiaryOf(panel[4])), 0);
        assertEq(balance(nodeKey) - before, FEE + FEE / 10);
        assertEq(balance(address(probers)), 0);
        assertEq(probers.seat(probers.seatOf(panel[4])).missed, 1);
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.AlreadySettled.selector, leaseId, 0));
        probers.settle(leaseId, 0);
    }

    function test_whatTheRenterSaysStandsAboveTheProbers() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, findings(leaseId, 5, ALL128));
        say(leaseId, RENTER, 0, 1, 0); // it denies the first
        closeLate(leaseId);
        assertEq(balance(beneficiary), 538.65e6);
    }

    function test_aStretchIsAskedForInItsTimeOnce() public {
        uint64 leaseId = rent(128 * uint64(METER) + 60);
        vm.startPrank(nodeKey);
        vm.warp(start - 61);
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.StretchNotOpen.selector, leaseId, 0, start - 60, start + 7_680));
        probers.ask(leaseId, 0);
        vm.warp(start - 60);
        uint64 seedTime = probers.ask(leaseId, 0);
        assertGt(seedTime, block.timestamp);
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.AlreadyAsked.selector, leaseId, 0));
        probers.ask(leaseId, 0);
        vm.warp(start + 7_739);
        probers.ask(leaseId, 1); // its one interval runs
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.StretchNotOpen.selector, leaseId, 2, start + 15_300, start + 7_740));
        probers.ask(leaseId, 2);
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.NotAsked.selector, leaseId, 2));
        probers.settle(leaseId, 2);
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.NotOver.selector, leaseId, 0, start + 7_680 + SPEAK));
        probers.settle(leaseId, 0);
    }

    function test_thePanelSpeaksOnlyOfWhatItCanHaveReached() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 90);
        panelFor(leaseId, 0); // in the second interval: it covers the third and later
        vm.warp(start + 299); // the fifth still runs
        probers.speak(leaseId, 0, findings(leaseId, 3, ALL128));
        assertEq(market.statementOf(leaseId, PROBERS, 0).spoken, 4 + 8);
        ILeaseProbers.Finding[] memory again = findings(leaseId, 1, ALL128);
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.NothingToSay.selector, leaseId, 0, probers.panelOf(leaseId, 0)[0]));
        probers.speak(leaseId, 0, again);
    }

    function test_aSecondStretchLiesInTheUpperHalfOfTheWord() public {
        uint64 leaseId = rent(129 * uint64(METER));
        vm.warp(start + 128 * METER - 20);
        panelFor(leaseId, 1);
        vm.warp(start + 129 * METER);
        ILeaseProbers.Finding[] memory list = new ILeaseProbers.Finding[](3);
        for (uint8 i; i < 3; ++i) {
            list[i] = finding(leaseId, 1, i, ALL128, 1);
        }
        probers.speak(leaseId, 1, list);
        assertEq(market.statementOf(leaseId, PROBERS, 0).spoken, 1 << 128);
        assertEq(market.statementOf(leaseId, PROBERS, 0).up, 1 << 128);
    }

    function test_onlyTheRightKeysSpeak() public {
        uint64 leaseId = watchedLease();
        ILeaseProbers.Finding[] memory list = findings(leaseId, 1, ALL128);
        list[0].index = 1; // another's signature
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.BadSignature.selector, operators.nodeKeyOf(probers.panelOf(leaseId, 0)[1])));
        probers.speak(leaseId, 0, list);
        list[0].index = 5;
        vm.expectRevert(abi.encodeWithSelector(ILeaseProbers.NotOnPanel.selector, leaseId, 0, 5));
        probers.speak(leaseId, 0, list);
        list = findings(leaseId, 1, ALL128);
        list[0].up = 0;
        vm.expectPartialRevert(ILeaseProbers.BadSignature.selector);
        probers.speak(leaseId, 0, list);
    }

    /// Any findings of five, brought in any parts: an interval is up, or down, when three say so, and stays what it is.
    function testFuzz_theCountIsThatOfEachInterval(uint128[5] memory spoken, uint128[5] memory up, uint8 cut) public {
        uint64 leaseId = watchedLease();
        for (uint8 part; part < 2; ++part) {
            for (uint8 i; i < 5; ++i) {
                if ((cut >> i & 1 == 1) != (part == 1) || spoken[i] & 1023 == 0) continue;
                ILeaseProbers.Finding[] memory one = new ILeaseProbers.Finding[](1);
                one[0] = finding(leaseId, 0, i, spoken[i], up[i]);
                probers.speak(leaseId, 0, one);
            }
        }
        for (uint256 bit; bit < 10; ++bit) {
            uint256 ups;
            uint256 downs;
            for (uint256 i; i < 5; ++i) {
                if (spoken[i] >> bit & 1 == 0) continue;
                if (up[i] >> bit & 1 == 1) ++ups;
                else ++downs;
            }
            assertEq(market.statementOf(leaseId, PROBERS, 0).spoken >> bit & 1, ups >= 3 || downs >= 3 ? 1 : 0);
            assertEq(market.statementOf(leaseId, PROBERS, 0).up >> bit & 1, ups >= 3 ? 1 : 0);
        }
    }

    function test_aSeatLocksStakeUntilItWasLeftLongEnough() public {
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NoOperator.selector, attacker));
        vm.prank(attacker);
        probers.enrol(operatorId);
        vm.startPrank(nodeKey);
        uint64 seatId = probers.enrol(operatorId);
        assertEq(vault.lockedOfModule(operatorId, address(probers)), SEAT);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.AlreadyEnrolled.selector, operatorId, seatId));
        probers.enrol(operatorId);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotMissed.selector, seatId, 0, 2));
        probers.removeIdle(seatId);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotEnrolled.selector, operatorId));
        probers.unlock(seatId);
        probers.leave(operatorId);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotEnrolled.selector, operatorId));
        probers.leave(operatorId);
        uint256 unlocksAt = block.timestamp + 1 days;
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.StillLocked.selector, seatId, unlocksAt, block.timestamp));
        probers.unlock(seatId);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.UnknownSeat.selector, 99));
        probers.unlock(99);
        vm.warp(unlocksAt);
        probers.unlock(seatId);
        assertEq(vault.lockedOfModule(operatorId, address(probers)), 0);
        assertEq(probers.exposureSeconds(), 1 days);
        assertLe(market.exposureSeconds(), 1 days);
    }

    function test_whoMissesTooOftenLosesTheSeat() public {
        uint64[] memory panel;
        uint64 from = start;
        for (uint256 i; i < 2; ++i) {
            vm.prank(renter);
            uint64 leaseId = market.reserve(request(from, 600), devices(1), 1)[0];
            vm.warp(from - 50);
            panel = panelFor(leaseId, 0);
            vm.warp(from + 600 + SPEAK);
            probers.settle(leaseId, 0); // nobody said anything: the whole fee goes back
            from += 600 + 2 * uint64(SPEAK);
        }
        assertEq(balance(nodeKey), 1_000e6);
        uint256 removed;
        for (uint64 seatId = 1; seatId <= SEATS; ++seatId) {
            if (probers.seat(seatId).missed < 2) continue;
            probers.removeIdle(seatId);
            ++removed;
        }
        assertGe(removed, 3); // five and five of seven
    }

    /// The supplier's second operator, its backer, its renter's operator, and a seat taken after the asking are never drawn.
    function testFuzz_whoIsPartyOrCameLaterIsNotDrawn(uint256 salt) public {
        beacon.reseed(salt);
        uint64[4] memory barred = [enrolOwnedBy(owner, "twin"), newProber("backer"), enrolOwnedBy(renter, "renter's"), 0];
        native.mint(makeAddr("backer"), 1e18);
        vm.startPrank(makeAddr("backer"));
        native.approve(address(vault), 1e18);
        vault.back(operatorId, 1e18);
        vm.stopPrank();
        uint64 leaseId = rent(600);
        vm.warp(start - 50);
        vm.prank(nodeKey);
        uint64 seedTime = probers.ask(leaseId, 0);
        barred[3] = newProber("late");
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        uint64[] memory panel = probers.panelOf(leaseId, 0);
        assertEq(panel.length, 5);
        for (uint256 i; i < 20; ++i) {
            assertNotEq(panel[i / 4], barred[i % 4]);
        }
    }

    function enrolOwnedBy(address owner_, string memory name) private returns (uint64 id) {
        (address key, uint256 secret) = makeAddrAndKey(name);
        id = newOperator(owner_, key, secret, key);
        depositStake(id, 100e18);
        vm.prank(key);
        probers.enrol(id);
    }

    function test_badConfigurationsAreRefused() public {
        ILeaseProbers.Config memory c = probersConfig();
        c.seatStake = 0;
        refuse(c, "seatStake", 0, 1);
        c = probersConfig();
        c.leaveSeconds = 0;
        refuse(c, "leaveSeconds", 0, 1);
        c = probersConfig();
        c.seedQuantum = 0;
        refuse(c, "seedQuantum", 0, 1);
        c = probersConfig();
        c.drawn = 8;
        refuse(c, "drawn", 8, 7);
        c = probersConfig();
        c.threshold = 2;
        refuse(c, "threshold", 2, 5);
        c = probersConfig();
        c.missesMax = 0;
        refuse(c, "missesMax", 0, 1);
    }

    function refuse(ILeaseProbers.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.BadConfig.selector, field, got, limit));
        newProbers(c);
    }

    function testGas_probers() public {
        uint64 leaseId = rent(600);
        vm.warp(start - 50);
        vm.prank(nodeKey);
        uint64 seedTime = probers.ask(leaseId, 0);
        vm.snapshotGasLastCall("LeaseProbers", "ask");
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        probers.draw(leaseId, 0);
        vm.snapshotGasLastCall("LeaseProbers", "draw");
        vm.warp(start + 600);
        ILeaseProbers.Finding[] memory list = findings(leaseId, 5, ALL128);
        probers.speak(leaseId, 0, list);
        vm.snapshotGasLastCall("LeaseProbers", "speak, five at once");
        closeLate(leaseId);
        vm.snapshotGasLastCall("ComputeMarket", "close, with the words of probers");
        probers.settle(leaseId, 0);
        vm.snapshotGasLastCall("LeaseProbers", "settle");
    }
}
