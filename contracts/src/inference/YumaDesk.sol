// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {YumaColumns} from "./YumaColumns.sol";
import {YumaNumbers} from "./YumaNumbers.sol";
import {YumaFrame} from "./YumaTypes.sol";

/// @title Room in memory for growing bonds row by row, and the way through the rows of weights and of bonds side by side.
library YumaDesk {
    /// Addresses in memory, if nothing else is said. The assembly of YumaPairs and YumaShares reads it by the offsets below.
    struct Desk {
        uint256 rowAt; // 0x00 the row that is being grown
        uint256 to; // 0x20 where the next stored row goes
        uint256 nextAt; // 0x40 where the next grown bond goes: eight bytes, bond:Q32 << 14 | 32 times the miner's uid
        uint256 endsAt; // 0x60 vector: of each uid where its grown bonds end
        uint256 firstAt; // 0x80 the first grown bond
        uint256 bondsAt; // 0xa0 copy of a row's bonds
        uint256 emptyAt; // 0xc0 a row without entries
        uint256 penalty; // 0xe0 Q32
        bytes stored; // 0x100
        uint256 trust; // 0x120 of the row that was grown last
        uint256 bondsUid; // of the row of bonds that is looked at next
        uint256 bondsFrom; // place in the bonds
        uint256 bondsTo; // place in the bonds
    }

    /// @dev Memory behind it is in use until it is closed; rows that are stored grow into it.
    function open(YumaFrame memory f, bytes calldata bonds) internal pure returns (Desk memory desk) {
        (desk.endsAt, desk.penalty) = (YumaNumbers.zeros(f.count), f.penalty);
        uint256 room = (f.count << 3) + 160; // for one row, even if its bonds are in no order, with four words behind it
        uint256 grown = (f.entries << 3) + (bonds.length << 1) + ((f.count + 2) << 5); // each row is filled up to a word
        assembly ("memory-safe") {
            let at := and(add(mload(0x40), 31), not(31))
            mstore(add(desk, 0xc0), at)
            mstore(at, shl(240, 0xffff))
            at := add(at, 32)
            mstore(add(desk, 0x80), at)
            mstore(add(desk, 0x40), at)
            at := add(at, grown)
            mstore(add(desk, 0xa0), at)
            at := add(at, room)
            mstore(desk, at)
            at := add(at, room)
            mstore(add(desk, 0x100), at)
            mstore(add(desk, 0x20), add(at, 32))
        }
        (desk.bondsUid, desk.bondsTo) = YumaColumns.nextRow(bonds, 0, 0);
    }

    /// @return rows all that were stored, in the form in which rows come in
    function close(Desk memory desk) internal pure returns (bytes memory rows) {
        (uint256 to, bytes memory stored) = (desk.to, desk.stored);
        assembly ("memory-safe") {
            rows := stored
            mstore(rows, sub(to, add(rows, 32)))
            mstore(to, 0)
            mstore(0x40, and(add(to, 63), not(31)))
        }
    }

    /// @return at the entries of a uid's row of weights that count
    /// @return sum of their values
    function weightsOf(YumaFrame memory f, Desk memory desk, uint256 uid) internal pure returns (uint256 at, uint256 sum) {
        assembly ("memory-safe") {
            at := mload(add(mload(add(f, 0x340)), shl(5, uid)))
            sum := shr(64, at)
            at := and(at, 0xffffffffffffffff)
            if iszero(at) { at := mload(add(desk, 0xc0)) }
        }
    }

    /// @notice Goes on to the row of bonds of a uid; uids must be asked for in ascending order.
    /// @return at its entries, with the uids that there are
    function bondsOf(YumaFrame memory f, Desk memory desk, bytes calldata bonds, uint256 uid) internal pure returns (uint256 at) {
        while (desk.bondsUid < uid) {
            desk.bondsFrom = desk.bondsTo;
            (desk.bondsUid, desk.bondsTo) = YumaColumns.nextRow(bonds, desk.bondsFrom, desk.bondsUid + 1);
        }
        if (desk.bondsUid != uid) return desk.emptyAt;
        bytes calldata entries = bonds[desk.bondsFrom + 4:desk.bondsTo];
        at = desk.bondsAt;
        uint256 length = entries.length < f.count << 2 ? entries.length : f.count << 2;
        assembly ("memory-safe") {
            calldatacopy(at, entries.offset, length)
            let last := add(at, length)
            for {} gt(last, at) { last := sub(last, 4) } {
                if lt(shr(240, mload(sub(last, 4))), mload(f)) { break }
            }
            mstore(last, shl(240, 0xffff))
        }
    }
}
