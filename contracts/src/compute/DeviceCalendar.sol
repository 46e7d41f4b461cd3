// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title DeviceCalendar: when which device is taken. Part of the market (decision 0028).
/// @notice A slot is one device from one second up to another. Slots of a device never overlap, so a device is never sold twice; a gang gets
/// as many devices for the same time as it asks for, or none. Devices whose time comes one after another may be taken by anybody in any order.
/// @dev The slots of a device are a list in the order of time. Where a new one goes is found from a hint, by at most STEPS_MAX steps either way:
/// a wrong hint costs its sender the reservation, never the order. Without a hint the search begins at the last slot, which lies near now
/// unless somebody holds many slots ahead. Slots that are over stay in the list; nothing ever walks all of it.
abstract contract DeviceCalendar {
    struct Slot {
        uint64 deviceId;
        uint64 from; // seconds
        uint64 until; // the device is free again from here on
        uint64 previous; // slot before it on the same device, 0: none
        uint64 next;
    }

    /// A device that a gang would take, and where to look for its place (0: from its last slot).
    struct Candidate {
        uint64 deviceId;
        uint64 hint;
    }

    /// @notice Longest search for a place, in slots.
    uint256 public constant STEPS_MAX = 32;
    /// @notice Most candidates of one gang.
    uint256 public constant CANDIDATES_MAX = 128;

    mapping(uint64 slotId => Slot) private _slots;
    mapping(uint64 deviceId => uint64) private _last;
    /// @notice Slots are numbered from 1.
    uint64 public slotCount;

    event SlotReserved(uint64 indexed slotId, uint64 indexed deviceId, uint64 from, uint64 until);
    /// @param until the new end; equal to the beginning when nothing is left of the slot
    event SlotCut(uint64 indexed slotId, uint64 indexed deviceId, uint64 until);

    error BadSlotTime(uint64 from, uint64 until);
    error GangIncomplete(uint256 free, uint256 wanted);
    error BadGang(uint256 wanted, uint256 candidates, uint256 candidatesMax);
    error UnknownSlot(uint64 slotId);

    /// @notice A slot; `deviceId` 0 when it was never there or nothing is left of it.
    function slot(uint64 slotId) external view returns (Slot memory) {
        return _slots[slotId];
    }

    /// @notice The latest slot of a device, 0: none.
    function lastSlotOf(uint64 deviceId) external view returns (uint64) {
        return _last[deviceId];
    }

    /// @notice Whether a device can be had from `from` up to `until`, as seen from a hint, and the slot after which that would be.
    function isFree(Candidate calldata candidate, uint64 from, uint64 until) external view returns (bool free, uint64 previous) {
        (free, previous,) = _find(candidate, from, until);
    }

    /// @dev Whether a device is on offer for that time and on the terms of this reservation. Devices are numbered from 1.
    function _isOffered(uint64 deviceId, uint64 from, uint64 until) internal view virtual returns (bool);

    /// @dev What a device's owner must put down for a slot, asked only of a device that is free; false: it cannot, and the device is passed over.
    function _commit(uint64 deviceId) internal virtual returns (bool);

    /// @dev Takes `wanted` of the candidates (one of one, for a single device) for the same time, in the order in which they are given, or reverts and takes none. More
    /// candidates than wanted make up for those that others take in front of this transaction.
    function _reserveGang(Candidate[] calldata candidates, uint256 wanted, uint64 from, uint64 until)
        internal
        returns (uint64[] memory slotIds)
    {
        uint256 count = candidates.length;
        if (wanted == 0 || wanted > count || count > CANDIDATES_MAX) revert BadGang(wanted, count, CANDIDATES_MAX);
        if (until <= from) revert BadSlotTime(from, until);
        slotIds = new uint64[](wanted);
        uint256 taken;
        for (uint256 i; i < count && taken < wanted; ++i) {
            uint64 slotId = _take(candidates[i], from, until);
            if (slotId != 0) slotIds[taken++] = slotId;
        }
        if (taken < wanted) revert GangIncomplete(taken, wanted);
    }

    /// @dev Gives the device back at `until`; up to its beginning all of it. (A longer time is another slot, with this one as its hint.)
    function _cutSlot(uint64 slotId, uint64 until) internal {
        Slot memory s = _slots[slotId];
        if (s.deviceId == 0) revert UnknownSlot(slotId);
        if (until >= s.until) revert BadSlotTime(s.until, until);
        if (until > s.from) {
            _slots[slotId].until = until;
            emit SlotCut(slotId, s.deviceId, until);
            return;
        }
        if (s.previous != 0) _slots[s.previous].next = s.next;
        if (s.next != 0) _slots[s.next].previous = s.previous;
        else _last[s.deviceId] = s.previous;
        delete _slots[slotId];
        emit SlotCut(slotId, s.deviceId, s.from);
    }

    function _deviceOf(uint64 slotId) internal view returns (uint64) {
        return _slots[slotId].deviceId;
    }

    /// 0: not on offer, or not free.
    function _take(Candidate calldata candidate, uint64 from, uint64 until) private returns (uint64 slotId) {
        uint64 deviceId = candidate.deviceId;
        if (!_isOffered(deviceId, from, until)) return 0;
        (bool free, uint64 previous, uint64 next) = _find(candidate, from, until);
        if (!free || !_commit(deviceId)) return 0;
        slotId = ++slotCount;
        _slots[slotId] = Slot(deviceId, from, until, previous, next);
        if (previous != 0) _slots[previous].next = slotId;
        if (next != 0) _slots[next].previous = slotId;
        else _last[deviceId] = slotId;
        emit SlotReserved(slotId, deviceId, from, until);
    }

    /// The neighbours between which the time is free. A hint that is no slot of the device, any more or at all, is passed over.
    function _find(Candidate calldata candidate, uint64 from, uint64 until) private view returns (bool free, uint64 previous, uint64 next) {
        uint64 deviceId = candidate.deviceId;
        previous = _slots[candidate.hint].deviceId == deviceId ? candidate.hint : _last[deviceId];
        next = _slots[previous].next;
        for (uint256 steps; steps <= STEPS_MAX; ++steps) {
            if (previous != 0 && _slots[previous].until > from) {
                if (_slots[previous].from < until) return (false, previous, next);
                (previous, next) = (_slots[previous].previous, previous);
            } else if (next != 0 && _slots[next].from < until) {
                if (_slots[next].until > from) return (false, previous, next);
                (previous, next) = (next, _slots[next].next);
            } else {
                return (true, previous, next);
            }
        }
    }
}
