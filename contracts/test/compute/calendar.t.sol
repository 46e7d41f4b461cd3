// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

// Compiled as the product is (tools/solc.cjs): its double inherits product code, whose gas is measured.

import {Test} from "forge-std/Test.sol";
import {DeviceCalendar} from "../../src/compute/DeviceCalendar.sol";

/// @notice A market that does nothing but keep the calendar; what is on offer, the test says.
contract CalendarDouble is DeviceCalendar {
    mapping(uint64 deviceId => uint64) public offeredUntil;
    mapping(uint64 deviceId => bool) public withheld;

    function offer(uint64 deviceId, uint64 until) external {
        offeredUntil[deviceId] = until;
    }

    function reserveGang(Candidate[] calldata candidates, uint256 wanted, uint64 from, uint64 until) external returns (uint64[] memory) {
        return _reserveGang(candidates, wanted, from, until);
    }

    function cut(uint64 slotId, uint64 until) external {
        _cutSlot(slotId, until);
    }

    function _isOffered(uint64 deviceId, uint64, uint64 until) internal view override returns (bool) {
        return until <= offeredUntil[deviceId];
    }

    function withhold(uint64 deviceId) external {
        withheld[deviceId] = true;
    }

    function _commit(uint64 deviceId) internal view override returns (bool) {
        return !withheld[deviceId];
    }
}

abstract contract CalendarFixture is Test {
    uint64 internal constant DEVICES = 4;
    uint64 internal constant HORIZON = 1_000;
    CalendarDouble internal calendar;

    function setUp() public virtual {
        calendar = new CalendarDouble();
        for (uint64 i = 1; i <= DEVICES; ++i) {
            calendar.offer(i, HORIZON);
        }
    }

    function reserve(uint64 deviceId, uint64 from, uint64 until) internal returns (uint64) {
        return reserve(deviceId, 0, from, until);
    }

    function reserve(uint64 deviceId, uint64 hint, uint64 from, uint64 until) internal returns (uint64) {
        return calendar.reserveGang(one(deviceId, hint), 1, from, until)[0];
    }

    function one(uint64 deviceId, uint64 hint) internal pure returns (DeviceCalendar.Candidate[] memory candidates) {
        candidates = new DeviceCalendar.Candidate[](1);
        candidates[0] = DeviceCalendar.Candidate(deviceId, hint);
    }

    function refuse(uint64 deviceId, uint64 hint, uint64 from, uint64 until) internal {
        DeviceCalendar.Candidate[] memory candidates = one(deviceId, hint);
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 0, 1));
        calendar.reserveGang(candidates, 1, from, until);
    }

    function candidatesOf(uint64 count) internal pure returns (DeviceCalendar.Candidate[] memory candidates) {
        candidates = new DeviceCalendar.Candidate[](count);
        for (uint64 i; i < count; ++i) {
            candidates[i] = DeviceCalendar.Candidate(i + 1, 0);
        }
    }
}

contract DeviceCalendarTest is CalendarFixture {
    function test_slotsOfADeviceNeverOverlap() public {
        vm.expectEmit(address(calendar));
        emit DeviceCalendar.SlotReserved(1, 1, 100, 200);
        uint64 middle = reserve(1, 100, 200);
        uint64 late = reserve(1, 300, 400);
        uint64 early = reserve(1, 0, 100);
        uint64 between = reserve(1, 200, 300);
        reserve(2, 100, 200);
        for (uint64 from = 0; from < 400; from += 50) {
            refuse(1, 0, from, from + 1);
        }
        assertEq(calendar.lastSlotOf(1), late);
        assertEq(calendar.slot(early).next, middle);
        assertEq(calendar.slot(between).previous, middle);
        assertEq(calendar.slot(between).next, late);
        assertEq(calendar.slot(early).previous, 0);
        (bool free, uint64 previous) = calendar.isFree(DeviceCalendar.Candidate(1, early), 400, 500);
        assertTrue(free);
        assertEq(previous, late);
    }

    function test_aGangGetsAllOrNothing() public {
        reserve(2, 100, 200);
        // Three of four are free: three can be had, in the order of the candidates, four cannot.
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 3, 4));
        calendar.reserveGang(candidatesOf(4), 4, 150, 250);
        assertEq(calendar.slotCount(), 1);
        uint64[] memory slotIds = calendar.reserveGang(candidatesOf(4), 2, 150, 250);
        assertEq(slotIds.length, 2);
        assertEq(calendar.slot(slotIds[0]).deviceId, 1);
        assertEq(calendar.slot(slotIds[1]).deviceId, 3);
        assertEq(calendar.lastSlotOf(4), 0);
    }

    function test_aDeviceThatIsNamedTwiceCountsOnce() public {
        DeviceCalendar.Candidate[] memory candidates = candidatesOf(3);
        candidates[2].deviceId = 1;
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 2, 3));
        calendar.reserveGang(candidates, 3, 0, 10);
    }

    function test_aDeviceWhoseOwnerCannotCommitIsPassedOver() public {
        calendar.withhold(1);
        refuse(1, 0, 0, 10);
        assertEq(calendar.slot(calendar.reserveGang(candidatesOf(4), 3, 0, 10)[0]).deviceId, 2);
    }

    function test_whatIsNotOfferedIsNotReserved() public {
        refuse(1, 0, 990, HORIZON + 1);
        refuse(0, 0, 1, 2);
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 4, 5));
        calendar.reserveGang(candidatesOf(5), 5, 0, 10);
    }

    function test_aSlotIsCutDownToNothing() public {
        uint64 first = reserve(1, 100, 200);
        uint64 second = reserve(1, 300, 400);
        reserve(1, first, 200, 300); // longer: another slot, with the first as its hint
        vm.expectEmit(address(calendar));
        emit DeviceCalendar.SlotCut(first, 1, 150);
        calendar.cut(first, 150);
        uint64 third = reserve(1, 150, 200);
        // Before its beginning a slot is wholly given back; its neighbours close up.
        vm.expectEmit(address(calendar));
        emit DeviceCalendar.SlotCut(third, 1, 150);
        calendar.cut(third, 0);
        uint64 fourth = calendar.slot(second).previous;
        assertEq(calendar.slot(first).next, fourth);
        assertEq(calendar.slot(fourth).previous, first);
        calendar.cut(second, 300);
        assertEq(calendar.lastSlotOf(1), fourth);
        calendar.cut(fourth, 200);
        assertEq(calendar.lastSlotOf(1), first);
        calendar.cut(first, 100);
        assertEq(calendar.lastSlotOf(1), 0);
        reserve(1, 0, HORIZON);
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.UnknownSlot.selector, first));
        calendar.cut(first, 150);
    }

    function testFuzz_impossibleTimesAndGangsAreRefused(uint64 from, uint64 until, uint8 wanted) public {
        until = uint64(bound(until, 0, from));
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.BadSlotTime.selector, from, until));
        calendar.reserveGang(candidatesOf(2), 2, from, until);
        wanted = uint8(wanted < 128 ? 0 : bound(wanted, 3, type(uint8).max));
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.BadGang.selector, wanted, 2, 128));
        calendar.reserveGang(candidatesOf(2), wanted, 0, 10);
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.BadGang.selector, 1, 129, 128));
        calendar.reserveGang(candidatesOf(129), 1, 0, 10);
        uint64 slotId = reserve(1, 10, 20);
        until = uint64(bound(until, 20, type(uint64).max));
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.BadSlotTime.selector, 20, until));
        calendar.cut(slotId, until);
    }

    /// Who holds many slots ahead makes the search without a hint fail, in bounded gas; with a hint the place is found at once.
    function test_manySlotsAheadHideAPlaceOnlyFromWhoGivesNoHint() public {
        uint64 first = reserve(1, 10, 11);
        for (uint64 i; i < 40; ++i) {
            reserve(1, 20 + 2 * i, 21 + 2 * i);
        }
        refuse(1, 0, 11, 20);
        reserve(1, first, 11, 20);
        reserve(1, first, 0, 10);
        // And from a hint that is too early or too late by a few.
        reserve(1, first, 31, 32);
        reserve(1, 30, 37, 38);
    }

    function testGas_calendar() public {
        reserve(1, 100, 200);
        reserve(1, 200, 300);
        vm.snapshotGasLastCall("DeviceCalendar", "reserve after the last slot");
        calendar.reserveGang(candidatesOf(4), 4, 400, 500);
        calendar.reserveGang(candidatesOf(4), 4, 500, 600);
        vm.snapshotGasLastCall("DeviceCalendar", "reserve a gang of 4");
    }
}

/// @notice Arrivals of one device or a gang, and failures, in any order with any hint, beside a picture of every second of every device.
contract CalendarHandler is Test {
    uint64 private constant DEVICES = 4;
    uint64 private constant HORIZON = 1_000;
    CalendarDouble private immutable calendar;
    /// Seconds taken, a bit each.
    mapping(uint64 deviceId => uint256[4]) private taken;
    uint64[] public live;

    constructor(CalendarDouble calendar_) {
        calendar = calendar_;
    }

    function reserveGang(uint256 seed, uint64 from, uint64 length) external {
        (from, length) = (uint64(bound(from, 0, HORIZON - 1)), uint64(bound(length, 1, 120)));
        uint256 wanted = seed % DEVICES + 1;
        DeviceCalendar.Candidate[] memory candidates = new DeviceCalendar.Candidate[](DEVICES);
        uint256 free;
        for (uint64 i; i < DEVICES; ++i) {
            candidates[i] = DeviceCalendar.Candidate((i + uint64(seed % 5)) % DEVICES + 1, pickHint(uint64(seed >> (16 * i))));
            if (isFree(candidates[i].deviceId, from, from + length)) ++free;
        }
        uint64 before = calendar.slotCount();
        try calendar.reserveGang(candidates, wanted, from, from + length) returns (uint64[] memory slotIds) {
            assertEq(slotIds.length, wanted);
            assertEq(calendar.slotCount(), before + wanted);
            assertGe(free, wanted);
            for (uint256 i; i < wanted; ++i) {
                DeviceCalendar.Slot memory s = calendar.slot(slotIds[i]);
                assertTrue(isFree(s.deviceId, from, from + length), "oversold");
                mark(s.deviceId, from, from + length, true);
                live.push(slotIds[i]);
            }
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), DeviceCalendar.GangIncomplete.selector);
            assertEq(calendar.slotCount(), before, "half filled");
            assertTrue(free < wanted || from + length > HORIZON || before > calendar.STEPS_MAX(), "refused though free");
        }
    }

    /// A machine fails, or a renter leaves: the rest of its time is free again.
    function cut(uint256 seed, uint64 at) external {
        if (live.length == 0) return;
        uint256 index = seed % live.length;
        uint64 slotId = live[index];
        DeviceCalendar.Slot memory s = calendar.slot(slotId);
        at = uint64(bound(at, s.from, s.until - 1));
        calendar.cut(slotId, at);
        mark(s.deviceId, at, s.until, false);
        if (at > s.from) return;
        live[index] = live[live.length - 1];
        live.pop();
    }

    /// The slots of a device lie in the order of time, without overlap, and cover just the seconds that were taken.
    function check(uint64 device) external view {
        uint256[4] memory seen;
        uint64 next;
        uint64 start = type(uint64).max;
        for (uint64 at = calendar.lastSlotOf(device); at != 0;) {
            DeviceCalendar.Slot memory s = calendar.slot(at);
            assertEq(s.deviceId, device);
            assertEq(s.next, next);
            assertLt(s.from, s.until);
            assertLe(s.until, start);
            fill(seen, s.from, s.until, true);
            (next, start, at) = (at, s.from, s.previous);
        }
        for (uint256 i; i < 4; ++i) {
            assertEq(seen[i], taken[device][i]);
        }
    }

    /// Slots of any device, slots that are gone, and numbers that never were.
    function pickHint(uint64 seed) private view returns (uint64) {
        return seed % 3 == 0 ? 0 : seed % (calendar.slotCount() + 3);
    }

    function isFree(uint64 device, uint64 from, uint64 until) private view returns (bool) {
        uint256[4] memory wanted;
        fill(wanted, from, until, true);
        for (uint256 i; i < 4; ++i) {
            if (wanted[i] & taken[device][i] != 0) return false;
        }
        return true;
    }

    function mark(uint64 device, uint64 from, uint64 until, bool on) private {
        uint256[4] memory bits = taken[device];
        fill(bits, from, until, on);
        taken[device] = bits;
    }

    /// Bits [from, until) of 1024; a second beyond is nobody's.
    function fill(uint256[4] memory bits, uint64 from, uint64 until, bool on) private pure {
        for (uint256 i; i < 4; ++i) {
            uint256 mask = below(until, i) & ~below(from, i);
            bits[i] = on ? bits[i] | mask : bits[i] & ~mask;
        }
    }

    function below(uint256 at, uint256 word) private pure returns (uint256) {
        if (at <= word * 256) return 0;
        return at >= (word + 1) * 256 ? type(uint256).max : (1 << (at - word * 256)) - 1;
    }
}

contract CalendarInvariantTest is CalendarFixture {
    CalendarHandler private handler;

    function setUp() public override {
        super.setUp();
        handler = new CalendarHandler(calendar);
        bytes4[] memory actions = new bytes4[](2);
        actions[0] = CalendarHandler.reserveGang.selector;
        actions[1] = CalendarHandler.cut.selector;
        targetSelector(FuzzSelector(address(handler), actions));
        targetContract(address(handler));
    }

    function invariant_devicesAreNeverOversoldAndGangsNeverHalfFilled() public view {
        handler.check(calendar.slotCount() % DEVICES + 1); // one each time, in turn
    }

    function afterInvariant() public view {
        for (uint64 device = 1; device <= DEVICES; ++device) {
            handler.check(device);
        }
    }
}
