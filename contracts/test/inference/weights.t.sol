// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnets} from "../../src/inference/ISubnets.sol";
import {IWeightsBoard} from "../../src/inference/IWeightsBoard.sol";
import {SubnetsFixture} from "./subnets-fixture.sol";

/// @notice Commits, openings, windows, misses.
contract WeightsTest is SubnetsFixture {
    bytes32 private constant SALT = keccak256("salt");
    uint64 private operatorId;
    uint16 private uid;
    uint64 private epoch;

    function setUp() public override {
        super.setUp();
        (operatorId, uid) = joinValidator("validator", 100e18);
        epoch = 1;
        warpToEpoch(epoch);
    }

    function entryState(uint64 epoch_, uint16 uid_) private view returns (IWeightsBoard.State) {
        return board.entryOf(subnetId, epoch_, uid_).state;
    }

    function openingOf(uint16 uid_, bytes memory row) private pure returns (IWeightsBoard.Opening memory) {
        return IWeightsBoard.Opening(uid_, SALT, row);
    }

    function one(uint16 value) private pure returns (uint16[] memory list) {
        list = new uint16[](1);
        list[0] = value;
    }

    // ---------------------------------------------------------------------------------------------------- commit and open

    function test_aRowIsHiddenUntilTheEpochIsOverAndThenAnybodyOpensIt() public {
        bytes memory row = rowOf(3);
        bytes32 commitment = board.commitmentOf(subnetId, epoch, uid, SALT, row);
        assertEq(commitment, keccak256(abi.encodePacked(block.chainid, address(board), subnetId, epoch, uid, SALT, row)));
        vm.expectEmit();
        emit IWeightsBoard.Committed(subnetId, epoch, uid, operatorId, commitment, "sealed");
        vm.prank(operators.nodeKeyOf(operatorId));
        board.commit(subnetId, uid, commitment, "sealed");
        vm.expectRevert(
            abi.encodeWithSelector(IWeightsBoard.NotOpenYet.selector, subnetId, epoch, subnets.epochStart(subnetId, 2), block.timestamp)
        );
        openRow(epoch, uid, row, SALT);
        uint256 committedAt = block.timestamp;
        warpToEpoch(2);
        vm.expectEmit();
        emit IWeightsBoard.Revealed(subnetId, epoch, uid, row);
        vm.prank(makeAddr("anybody"));
        openRow(epoch, uid, row, SALT);
        (bytes32[] memory hashes, uint48[] memory times, uint256 unrevealed) = board.rowsOf(subnetId, epoch, one(uid), new uint48[](1));
        assertEq(hashes[0], keccak256(row));
        assertEq(times[0], committedAt);
        assertEq(unrevealed, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IWeightsBoard.OpeningRefused.selector, subnetId, epoch, uid, IWeightsBoard.Reason.AlreadyOpened)
        );
        openRow(epoch, uid, row, SALT);
    }

    function test_onlyTheHoldersNodeKeyUnderAPermitCommits() public {
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotHolder.selector, subnetId, uid, address(this)));
        board.commit(subnetId, uid, SALT, "");
        (uint64 other, uint16 otherUid) = joinSubnet("other");
        address key = operators.nodeKeyOf(other);
        vm.startPrank(key);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotHolder.selector, subnetId, uid, key));
        board.commit(subnetId, uid, SALT, "");
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NoPermit.selector, subnetId, otherUid, epoch));
        board.commit(subnetId, otherUid, SALT, "");
        vm.expectRevert(abi.encodeWithSelector(ISubnets.OutOfRange.selector, bytes32("uid"), 256, 0, 255));
        board.commit(subnetId, 256, SALT, "");
    }

    function testFuzz_commitsAreBounded(uint16 length) public {
        address key = operators.nodeKeyOf(operatorId);
        vm.startPrank(key);
        vm.expectRevert(IWeightsBoard.ZeroCommitment.selector);
        board.commit(subnetId, uid, 0, "");
        if (length > 1024) vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.CiphertextTooLong.selector, length, 1024));
        board.commit(subnetId, uid, SALT, new bytes(length));
    }

    function test_aLaterCommitTakesThePlaceOfTheEarlier() public {
        commitRow(uid, rowOf(1), SALT);
        vm.warp(block.timestamp + 60);
        commitRow(uid, rowOf(2), SALT);
        (uint256 committed,) = board.tallyOf(subnetId, epoch);
        assertEq(committed, 1);
        warpToEpoch(2);
        vm.expectRevert(
            abi.encodeWithSelector(IWeightsBoard.OpeningRefused.selector, subnetId, epoch, uid, IWeightsBoard.Reason.HashMismatch)
        );
        openRow(epoch, uid, rowOf(1), SALT);
        openRow(epoch, uid, rowOf(2), SALT);
    }

    /// A commit is bound to chain, contract, subnet, epoch and uid: copied by another or into another epoch it opens nowhere.
    function testFuzz_attack_aCopiedCommitOpensNothing(uint64 chain, uint64 subnet, uint64 epoch_, uint16 uid_, bytes32 salt) public view {
        bytes memory row = rowOf(2);
        bytes32 commitment = board.commitmentOf(subnetId, epoch, uid, SALT, row);
        bool same = chain == block.chainid && subnet == subnetId && epoch_ == epoch && uid_ == uid && salt == SALT;
        bytes32 other = keccak256(abi.encodePacked(uint256(chain), address(board), subnet, epoch_, uid_, salt, row));
        assertEq(other == commitment, same);
    }

    function test_attack_aCopierCannotOpenTheCommitThatItCopied() public {
        (uint64 copier, uint16 copierUid) = joinValidator("copier", 100e18);
        commitRow(uid, rowOf(2), SALT);
        bytes32 copied = board.entryOf(subnetId, epoch, uid).hash;
        vm.prank(operators.nodeKeyOf(copier));
        board.commit(subnetId, copierUid, copied, "");
        warpToEpoch(2);
        openRow(epoch, uid, rowOf(2), SALT); // now everybody knows row and salt
        vm.expectRevert(
            abi.encodeWithSelector(IWeightsBoard.OpeningRefused.selector, subnetId, epoch, copierUid, IWeightsBoard.Reason.HashMismatch)
        );
        openRow(epoch, copierUid, rowOf(2), SALT);
        uint16[] memory both = new uint16[](2);
        (both[0], both[1]) = (uid, copierUid);
        (bytes32[] memory hashes,, uint256 unrevealed) = board.rowsOf(subnetId, epoch, both, new uint48[](2));
        assertEq(hashes[0], keccak256(rowOf(2))); // the honest twin
        assertEq(hashes[1], 0);
        assertEq(unrevealed, 1 << copierUid);
    }

    // --------------------------------------------------------------------------------------------------------------- rows

    /// The contract's check against the rule, written out.
    function testFuzz_rowsAreJudgedByTheRule(uint256 seed, uint8 count, uint8 spoil) public {
        uint256 entries = uint256(count) % 67;
        bytes memory row;
        uint256 next;
        for (uint256 i; i < entries; ++i) {
            uint256 roll = uint256(keccak256(abi.encode(seed, i)));
            row = bytes.concat(row, abi.encodePacked(uint16(next), i == seed % (entries + 1) ? uint16(65_535) : uint16(roll)));
            next += 1 + (roll >> 20) % 5;
            if (spoil % 4 == 1 && roll % 40 == 0 && next > 1) next -= 2; // sometimes not ascending
        }
        if (spoil % 4 == 2) row = bytes.concat(row, hex"00");
        (bool isGood, IWeightsBoard.Reason reason) = judge(row);
        commitRow(uid, row, SALT);
        warpToEpoch(2);
        if (!isGood) {
            vm.expectEmit();
            emit IWeightsBoard.CommitRejected(subnetId, epoch, uid, reason);
        }
        openRow(epoch, uid, row, SALT);
        assertEq(uint8(entryState(epoch, uid)), uint8(isGood ? IWeightsBoard.State.Revealed : IWeightsBoard.State.Rejected));
        (bytes32[] memory hashes,, uint256 unrevealed) = board.rowsOf(subnetId, epoch, one(uid), new uint48[](1));
        assertEq(hashes[0], isGood ? keccak256(row) : bytes32(0));
        assertEq(unrevealed, isGood ? 0 : 1 << uid);
    }

    function judge(bytes memory row) private pure returns (bool, IWeightsBoard.Reason) {
        if (row.length == 0 || row.length > 256 || row.length % 4 != 0) return (false, IWeightsBoard.Reason.RowLength);
        uint256 greatest;
        uint256 last;
        for (uint256 i; i < row.length; i += 4) {
            uint256 at = uint256(uint8(row[i])) << 8 | uint8(row[i + 1]);
            uint256 weight = uint256(uint8(row[i + 2])) << 8 | uint8(row[i + 3]);
            if (i > 0 && at <= last) return (false, IWeightsBoard.Reason.UidsNotAscending);
            last = at;
            if (weight > greatest) greatest = weight;
        }
        if (last > 255) return (false, IWeightsBoard.Reason.UidTooLarge);
        if (greatest != 65_535) return (false, IWeightsBoard.Reason.NotUpscaled);
        return (true, IWeightsBoard.Reason.NotOpened);
    }

    function test_attack_aHugeRowCannotBeOpenedAndExpires() public {
        bytes memory huge = new bytes(1028);
        commitRow(uid, huge, SALT);
        warpToEpoch(2);
        vm.expectRevert(
            abi.encodeWithSelector(IWeightsBoard.OpeningRefused.selector, subnetId, epoch, uid, IWeightsBoard.Reason.HashMismatch)
        );
        openRow(epoch, uid, huge, SALT);
    }

    // -------------------------------------------------------------------------------------------------------------- batch

    function test_aBatchSkipsWhatDoesNotFit() public {
        (, uint16 second) = joinValidator("second", 100e18);
        (, uint16 third) = joinValidator("third", 100e18);
        commitRow(uid, rowOf(1), SALT);
        commitRow(second, rowOf(2), SALT);
        warpToEpoch(2);
        IWeightsBoard.Opening[] memory openings = new IWeightsBoard.Opening[](5);
        openings[0] = openingOf(uid, rowOf(1));
        openings[1] = openingOf(second, rowOf(3)); // not what it committed to
        openings[2] = openingOf(third, rowOf(1)); // never committed
        openings[3] = openingOf(uid, rowOf(1)); // once more
        openings[4] = openingOf(9_999, rowOf(1));
        vm.expectEmit();
        emit IWeightsBoard.OpeningSkipped(subnetId, epoch, second, IWeightsBoard.Reason.HashMismatch);
        vm.expectEmit();
        emit IWeightsBoard.OpeningSkipped(subnetId, epoch, third, IWeightsBoard.Reason.NoCommit);
        vm.expectEmit();
        emit IWeightsBoard.OpeningSkipped(subnetId, epoch, uid, IWeightsBoard.Reason.AlreadyOpened);
        vm.expectEmit();
        emit IWeightsBoard.OpeningSkipped(subnetId, epoch, 9_999, IWeightsBoard.Reason.NoCommit);
        board.revealMany(subnetId, epoch, openings);
        assertEq(uint8(entryState(epoch, uid)), uint8(IWeightsBoard.State.Revealed));
        assertEq(uint8(entryState(epoch, second)), uint8(IWeightsBoard.State.Committed));
        (uint256 committed, uint256 openedInTime) = board.tallyOf(subnetId, epoch);
        assertEq(committed, 2);
        assertEq(openedInTime, 1);
    }

    // ------------------------------------------------------------------------------------------------------------- window

    /// When the pulse is missing nobody but the committers can open; most stay shut, and the window is longer, once.
    function test_aMissingPulseExtendsTheWindowOnce() public {
        (, uint16 second) = joinValidator("second", 100e18);
        (, uint16 third) = joinValidator("third", 100e18);
        commitRow(uid, rowOf(1), SALT);
        commitRow(second, rowOf(1), SALT);
        commitRow(third, rowOf(1), SALT);
        warpToEpoch(2);
        openRow(epoch, uid, rowOf(1), SALT); // its own: accepted without any pulse
        (uint256 opensAt, uint256 closesAt) = board.windowOf(subnetId, epoch);
        assertEq(closesAt, opensAt + 3 * TEMPO);
        warpToEpoch(4);
        vm.expectEmit();
        emit IWeightsBoard.WindowExtended(subnetId, epoch, closesAt);
        openRow(epoch, second, rowOf(1), SALT); // the pulse came late
        (, uint256 same) = board.windowOf(subnetId, epoch);
        assertEq(same, closesAt); // it does not close again because most are open now
        warpToEpoch(5);
        vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.WindowClosed.selector, subnetId, epoch, closesAt, block.timestamp));
        openRow(epoch, third, rowOf(1), SALT);
        board.expire(subnetId, epoch, one(third));
    }

    function test_attack_aLateRevealIsRefusedAndItsTwinInTimeCounts() public {
        (, uint16 late) = joinValidator("late", 100e18);
        commitRow(uid, rowOf(1), SALT);
        commitRow(late, rowOf(1), SALT);
        warpToEpoch(2);
        openRow(epoch, uid, rowOf(1), SALT); // half of the commits: enough
        warpToEpoch(3);
        vm.expectRevert(
            abi.encodeWithSelector(IWeightsBoard.WindowClosed.selector, subnetId, epoch, subnets.epochStart(subnetId, 3), block.timestamp)
        );
        openRow(epoch, late, rowOf(1), SALT);
        vm.expectEmit();
        emit IWeightsBoard.CommitExpired(subnetId, epoch, late, IWeightsBoard.Reason.NotOpened);
        board.expire(subnetId, epoch, one(late));
        uint16[] memory both = new uint16[](2);
        (both[0], both[1]) = (uid, late);
        (bytes32[] memory hashes, uint48[] memory times, uint256 unrevealed) = board.rowsOf(subnetId, epoch, both, new uint48[](2));
        assertTrue(hashes[0] != 0 && hashes[1] == 0);
        assertEq(times[1], 0);
        assertEq(unrevealed, 1 << late);
    }

    /// However openings fall: the window never closes before its plain end, never after the extension, and once closed stays closed.
    function testFuzz_theWindowIsBounded(uint8 commits, uint8 inTime) public {
        uint256 count = 1 + uint256(commits) % 4;
        for (uint256 i = 1; i < count; ++i) {
            joinValidator(string.concat("v", vm.toString(i)), 100e18);
        }
        for (uint16 i; i < count; ++i) {
            commitRow(i, rowOf(1), SALT);
        }
        warpToEpoch(2);
        uint256 opened = uint256(inTime) % (count + 1);
        for (uint16 i; i < opened; ++i) {
            openRow(epoch, i, rowOf(1), SALT);
        }
        (, uint256 closesAt) = board.windowOf(subnetId, epoch);
        assertEq(closesAt, subnets.epochStart(subnetId, 2 * opened < count ? 5 : 3));
        vm.warp(closesAt);
        (, uint256 later) = board.windowOf(subnetId, epoch);
        assertEq(later, closesAt);
    }

    // ------------------------------------------------------------------------------------------------------------- misses

    function miss(uint64 epoch_) private {
        warpToEpoch(epoch_);
        commitRow(uid, rowOf(1), SALT);
        warpToEpoch(epoch_ + 4);
        board.expire(subnetId, epoch_, one(uid));
    }

    function test_threeMissesCostThePermit() public {
        miss(1);
        miss(5);
        assertEq(board.missesOf(subnetId, uid, operatorId), 2);
        assertEq(subnets.permitsAt(subnetId, present()), 1);
        miss(9);
        assertEq(subnets.permitsAt(subnetId, present()), 0);
        assertGt(subnets.barredUntil(subnetId, uid), present() + 15);
        vm.expectEmit();
        emit IWeightsBoard.OpeningSkipped(subnetId, 9, uid, IWeightsBoard.Reason.AlreadyOpened);
        board.expire(subnetId, 9, one(uid)); // once said it is not said again
        assertEq(board.missesOf(subnetId, uid, operatorId), 3);
    }

    function test_attack_garbageCommitsCostThePermitToo() public {
        for (uint64 i = 1; i < 4; ++i) {
            warpToEpoch(i);
            commitRow(uid, hex"00", SALT);
            warpToEpoch(i + 1);
            openRow(i, uid, hex"00", SALT);
        }
        assertEq(subnets.permitsAt(subnetId, present()), 0);
    }

    function test_missesGrowOldAndNothingExpiresEarly() public {
        miss(1);
        miss(5);
        warpToEpoch(17);
        assertEq(board.missesOf(subnetId, uid, operatorId), 1);
        miss(17);
        assertEq(board.missesOf(subnetId, uid, operatorId), 1); // that of epoch 5 is old by now
        assertEq(subnets.permitsAt(subnetId, present()), 1);
        warpToEpoch(22);
        commitRow(uid, rowOf(1), SALT);
        (, uint256 closesAt) = board.windowOf(subnetId, 22);
        vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.WindowStillOpen.selector, subnetId, 22, closesAt, block.timestamp));
        board.expire(subnetId, 22, one(uid));
    }

    /// The uid changes hands within the epoch: the old holder's commit is nobody's opinion.
    function test_attack_aSnipedUidInheritsNoRow() public {
        commitRow(uid, rowOf(2), SALT);
        warpToEpoch(2);
        openRow(epoch, uid, rowOf(2), SALT);
        uint48[] memory registered = new uint48[](1);
        registered[0] = uint48(subnets.epochStart(subnetId, epoch) + 1);
        (bytes32[] memory hashes,, uint256 unrevealed) = board.rowsOf(subnetId, epoch, one(uid), registered);
        assertEq(hashes[0], 0);
        assertEq(unrevealed, 0);
        registered[0] = 0; // its honest twin, who holds it since before
        (hashes,,) = board.rowsOf(subnetId, epoch, one(uid), registered);
        assertEq(hashes[0], keccak256(rowOf(2)));
    }

    function test_theRingIsUsedAgain() public {
        commitRow(uid, rowOf(1), SALT);
        warpToEpoch(17);
        assertEq(uint8(entryState(1, uid)), uint8(IWeightsBoard.State.Committed));
        commitRow(uid, rowOf(2), SALT);
        assertEq(uint8(entryState(1, uid)), uint8(IWeightsBoard.State.None));
        (uint256 committed,) = board.tallyOf(subnetId, 1);
        assertEq(committed, 0);
        (uint256 opensAt, uint256 closesAt) = board.windowOf(subnetId, 1); // still told, from the subnet's rules
        assertEq(opensAt, subnets.epochStart(subnetId, 2));
        assertEq(closesAt, subnets.epochStart(subnetId, 3));
    }

    // ------------------------------------------------------------------------------------------------------------- beacon

    function testFuzz_theOwnerDeclaresTheBeacon(uint64 genesis, uint32 period, uint8 keyBytes, uint8 labelBytes) public {
        IWeightsBoard.Beacon memory beacon = IWeightsBoard.Beacon(genesis, period, new bytes(keyBytes), string(new bytes(labelBytes)));
        vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.NotSubnetOwner.selector, subnetId, address(this), creator));
        board.declareBeacon(subnetId, beacon);
        vm.startPrank(creator);
        if (period == 0) {
            vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.BadBeacon.selector, bytes32("periodSeconds"), 0, 1));
        } else if (keyBytes > 128) {
            vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.BadBeacon.selector, bytes32("publicKey"), keyBytes, 128));
        } else if (labelBytes == 0 || labelBytes > 96) {
            vm.expectRevert(abi.encodeWithSelector(IWeightsBoard.BadBeacon.selector, bytes32("label"), labelBytes, 96));
        }
        board.declareBeacon(subnetId, beacon);
        bool isGood = period != 0 && keyBytes <= 128 && labelBytes != 0 && labelBytes <= 96;
        assertEq(board.beaconOf(subnetId).periodSeconds, isGood ? period : 0);
    }
}
