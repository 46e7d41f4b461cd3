// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnets} from "./ISubnets.sol";
import {IWeightsBoard} from "./IWeightsBoard.sol";

/// @title WeightsBoard: see IWeightsBoard for the rules. No owner, no parameter, no money.
/// @dev Entries lie in a ring of RETAINED_EPOCHS, so that a commit overwrites words that are not zero.
contract WeightsBoard is IWeightsBoard {
    uint256 public constant RETAINED_EPOCHS = 16;
    uint256 public constant EXTENSION_EPOCHS = 2;
    uint256 public constant ENTRIES_MAX = 64;
    uint256 public constant CIPHERTEXT_BYTES_MAX = 1_024;
    /// @notice A longer row cannot be opened at all, not even to be rejected.
    uint256 public constant OPENED_BYTES_MAX = 1_024;
    /// @notice So many commits left shut within RETAINED_EPOCHS cost the permit.
    uint256 public constant MISSES_MAX = 3;
    uint256 private constant ENTRY_BYTES = 4;
    uint256 private constant UIDS = 256;
    uint256 private constant PUBLIC_KEY_BYTES_MAX = 128;
    uint256 private constant LABEL_BYTES_MAX = 96;

    /// How it stands with the commits of one epoch; one word.
    struct Tally {
        uint64 epoch;
        uint48 opensAt; // 0: the word is of no epoch yet
        uint48 closesAt; // without extension
        uint32 committed;
        uint32 openedInTime; // before closesAt
        bool extended; // the event is out
    }

    ISubnets public immutable subnets;

    mapping(uint64 subnetId => mapping(uint256 slot => Tally)) private _tallies;
    mapping(uint64 subnetId => mapping(uint256 slot => mapping(uint256 uid => Entry))) private _entries;
    mapping(uint64 subnetId => Beacon) private _beacons;

    constructor(ISubnets subnets_) {
        subnets = subnets_;
    }

    // ------------------------------------------------------------------------------------------------------------- commit

    /// @inheritdoc IWeightsBoard
    function commit(uint64 subnetId, uint16 uid, bytes32 commitment, bytes calldata ciphertext) external {
        if (commitment == 0) revert ZeroCommitment();
        if (ciphertext.length > CIPHERTEXT_BYTES_MAX) revert CiphertextTooLong(ciphertext.length, CIPHERTEXT_BYTES_MAX);
        (uint64 epoch, uint64 operatorId) = subnets.requireValidator(subnetId, uid, msg.sender);
        Entry storage entry = _entries[subnetId][epoch % RETAINED_EPOCHS][uid];
        if (entry.epoch != epoch || entry.state == State.None) _count(subnetId, epoch);
        entry.hash = commitment;
        (entry.epoch, entry.committedAt, entry.state, entry.operatorId) = (epoch, uint48(block.timestamp), State.Committed, operatorId);
        emit Committed(subnetId, epoch, uid, operatorId, commitment, ciphertext);
    }

    function _count(uint64 subnetId, uint64 epoch) private {
        Tally storage tally = _tallies[subnetId][epoch % RETAINED_EPOCHS];
        if (tally.epoch == epoch && tally.opensAt != 0) {
            ++tally.committed;
            return;
        }
        (, uint256 opensAt, uint256 closesAt) = subnets.timesOf(subnetId, epoch);
        _tallies[subnetId][epoch % RETAINED_EPOCHS] = Tally(epoch, uint48(opensAt), uint48(closesAt), 1, 0, false);
    }

    // ------------------------------------------------------------------------------------------------------------- reveal

    /// @inheritdoc IWeightsBoard
    function reveal(uint64 subnetId, uint64 epoch, Opening calldata opening) external {
        Tally memory tally = _requireOpen(subnetId, epoch);
        (bool opened, Reason reason) = _open(subnetId, epoch, opening);
        if (!opened) revert OpeningRefused(subnetId, epoch, opening.uid, reason);
        _countOpened(subnetId, tally, 1);
    }

    /// @inheritdoc IWeightsBoard
    function revealMany(uint64 subnetId, uint64 epoch, Opening[] calldata openings) external {
        Tally memory tally = _requireOpen(subnetId, epoch);
        uint32 count;
        for (uint256 i; i < openings.length; ++i) {
            (bool opened, Reason reason) = _open(subnetId, epoch, openings[i]);
            if (opened) ++count;
            else emit OpeningSkipped(subnetId, epoch, openings[i].uid, reason);
        }
        _countOpened(subnetId, tally, count);
    }

    /// @dev Whether the opening fits its commit; then the commit is revealed, or rejected for ever when its row breaks the rules.
    function _open(uint64 subnetId, uint64 epoch, Opening calldata opening) private returns (bool opened, Reason reason) {
        if (opening.uid >= UIDS) return (false, Reason.NoCommit);
        Entry storage entry = _entries[subnetId][epoch % RETAINED_EPOCHS][opening.uid];
        State state = entry.state;
        if (entry.epoch != epoch || state == State.None) return (false, Reason.NoCommit);
        if (state != State.Committed) return (false, Reason.AlreadyOpened);
        bytes calldata row = opening.row;
        if (row.length > OPENED_BYTES_MAX) return (false, Reason.HashMismatch);
        if (entry.hash != commitmentOf(subnetId, epoch, opening.uid, opening.salt, row)) return (false, Reason.HashMismatch);
        bool isGood;
        (isGood, reason) = _check(row);
        if (isGood) {
            entry.hash = keccak256(row);
            entry.state = State.Revealed;
            emit Revealed(subnetId, epoch, opening.uid, row);
        } else {
            entry.state = State.Rejected;
            emit CommitRejected(subnetId, epoch, opening.uid, reason);
            _countMiss(subnetId, opening.uid, entry.operatorId);
        }
        return (true, reason);
    }

    function _check(bytes calldata row) private pure returns (bool isGood, Reason reason) {
        if (row.length == 0 || row.length > ENTRIES_MAX * ENTRY_BYTES || row.length % ENTRY_BYTES != 0) return (false, Reason.RowLength);
        uint256 before;
        uint256 greatest;
        bool isAscending = true;
        assembly ("memory-safe") {
            let end := add(row.offset, row.length)
            for { let at := row.offset } lt(at, end) { at := add(at, 4) } {
                let item := shr(224, calldataload(at))
                let next := add(shr(16, item), 1)
                if iszero(gt(next, before)) { isAscending := 0 }
                before := next
                let weight := and(item, 0xffff)
                if gt(weight, greatest) { greatest := weight }
            }
        }
        if (!isAscending) return (false, Reason.UidsNotAscending);
        if (before > UIDS) return (false, Reason.UidTooLarge);
        if (greatest != type(uint16).max) return (false, Reason.NotUpscaled);
        return (true, reason);
    }

    function _requireOpen(uint64 subnetId, uint64 epoch) private view returns (Tally memory tally) {
        tally = _tallies[subnetId][epoch % RETAINED_EPOCHS];
        if (tally.epoch != epoch || tally.opensAt == 0) {
            (, uint256 opensAt, uint256 closesAt) = subnets.timesOf(subnetId, epoch);
            (tally.epoch, tally.opensAt, tally.closesAt) = (epoch, uint48(opensAt), uint48(closesAt));
        }
        if (block.timestamp < tally.opensAt) revert NotOpenYet(subnetId, epoch, tally.opensAt, block.timestamp);
        uint256 closedAt = _closesAt(tally);
        if (block.timestamp >= closedAt) revert WindowClosed(subnetId, epoch, closedAt, block.timestamp);
    }

    function _countOpened(uint64 subnetId, Tally memory tally, uint32 count) private {
        if (count == 0) return;
        Tally storage stored = _tallies[subnetId][tally.epoch % RETAINED_EPOCHS];
        if (block.timestamp < tally.closesAt) {
            stored.openedInTime = tally.openedInTime + count;
        } else if (!tally.extended) {
            stored.extended = true;
            emit WindowExtended(subnetId, tally.epoch, _closesAt(tally));
        }
    }

    /// @dev Only what was opened in time counts, so that the window does not close again when the rest is opened.
    function _closesAt(Tally memory tally) private pure returns (uint256) {
        bool isShut = uint256(tally.openedInTime) * 2 < tally.committed;
        // The window is one tempo long.
        return isShut ? tally.closesAt + EXTENSION_EPOCHS * (tally.closesAt - tally.opensAt) : tally.closesAt;
    }

    // ------------------------------------------------------------------------------------------------------------- expire

    /// @inheritdoc IWeightsBoard
    function expire(uint64 subnetId, uint64 epoch, uint16[] calldata uids) external {
        (, uint256 closesAt) = windowOf(subnetId, epoch);
        if (block.timestamp < closesAt) revert WindowStillOpen(subnetId, epoch, closesAt, block.timestamp);
        for (uint256 i; i < uids.length; ++i) {
            Entry storage entry = _entries[subnetId][epoch % RETAINED_EPOCHS][uids[i]];
            if (entry.epoch != epoch || entry.state != State.Committed) {
                bool isEmpty = entry.epoch != epoch || entry.state == State.None;
                emit OpeningSkipped(subnetId, epoch, uids[i], isEmpty ? Reason.NoCommit : Reason.AlreadyOpened);
                continue;
            }
            entry.state = State.Expired;
            emit CommitExpired(subnetId, epoch, uids[i], Reason.NotOpened);
            _countMiss(subnetId, uids[i], entry.operatorId);
        }
    }

    function _countMiss(uint64 subnetId, uint16 uid, uint64 operatorId) private {
        if (missesOf(subnetId, uid, operatorId) >= MISSES_MAX) subnets.revokePermit(subnetId, uid, operatorId);
    }

    /// @notice How many of an operator's commits that are still in the ring stayed shut or were rejected.
    function missesOf(uint64 subnetId, uint16 uid, uint64 operatorId) public view returns (uint256 misses) {
        uint64 present = subnets.epochAt(subnetId, block.timestamp);
        for (uint256 slot; slot < RETAINED_EPOCHS; ++slot) {
            Entry storage entry = _entries[subnetId][slot][uid];
            State state = entry.state;
            bool isMiss = state == State.Expired || state == State.Rejected;
            if (isMiss && entry.operatorId == operatorId && entry.epoch + RETAINED_EPOCHS > present) ++misses;
        }
    }

    // ------------------------------------------------------------------------------------------------------------- beacon

    /// @inheritdoc IWeightsBoard
    function declareBeacon(uint64 subnetId, Beacon calldata beacon) external {
        address owner = subnets.ownerOf(subnetId);
        if (msg.sender != owner) revert NotSubnetOwner(subnetId, msg.sender, owner);
        if (beacon.periodSeconds == 0) revert BadBeacon("periodSeconds", 0, 1);
        if (beacon.publicKey.length > PUBLIC_KEY_BYTES_MAX) revert BadBeacon("publicKey", beacon.publicKey.length, PUBLIC_KEY_BYTES_MAX);
        uint256 label = bytes(beacon.label).length;
        if (label == 0 || label > LABEL_BYTES_MAX) revert BadBeacon("label", label, LABEL_BYTES_MAX);
        _beacons[subnetId] = beacon;
        emit BeaconDeclared(subnetId, beacon.genesis, beacon.periodSeconds, beacon.publicKey, beacon.label);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IWeightsBoard
    function commitmentOf(uint64 subnetId, uint64 epoch, uint16 uid, bytes32 salt, bytes calldata row) public view returns (bytes32) {
        return keccak256(abi.encodePacked(block.chainid, address(this), subnetId, epoch, uid, salt, row));
    }

    /// @inheritdoc IWeightsBoard
    function entryOf(uint64 subnetId, uint64 epoch, uint16 uid) external view returns (Entry memory entry) {
        Entry storage stored = _entries[subnetId][epoch % RETAINED_EPOCHS][uid];
        if (stored.epoch == epoch) entry = stored;
    }

    /// @inheritdoc IWeightsBoard
    function rowsOf(uint64 subnetId, uint64 epoch, uint16[] calldata uids, uint48[] calldata registeredAt)
        external
        view
        returns (bytes32[] memory rowHashes, uint48[] memory committedAt, uint256 unrevealed)
    {
        (rowHashes, committedAt) = (new bytes32[](uids.length), new uint48[](uids.length));
        for (uint256 i; i < uids.length; ++i) {
            Entry storage entry = _entries[subnetId][epoch % RETAINED_EPOCHS][uids[i]];
            // In the second in which a uid changed hands the old one's commit may stand.
            if (entry.epoch != epoch || entry.state == State.None || entry.committedAt <= registeredAt[i]) continue;
            if (entry.state == State.Revealed) (rowHashes[i], committedAt[i]) = (entry.hash, entry.committedAt);
            else unrevealed |= 1 << uids[i];
        }
    }

    /// @inheritdoc IWeightsBoard
    function windowOf(uint64 subnetId, uint64 epoch) public view returns (uint256 opensAt, uint256 closesAt) {
        Tally memory tally = _tallies[subnetId][epoch % RETAINED_EPOCHS];
        if (tally.epoch == epoch && tally.opensAt != 0) return (tally.opensAt, _closesAt(tally));
        (, opensAt, closesAt) = subnets.timesOf(subnetId, epoch);
    }

    /// @notice How many uids committed for an epoch, and how many of them were opened in time; 0 for an epoch that is gone from the ring.
    function tallyOf(uint64 subnetId, uint64 epoch) external view returns (uint256 committed, uint256 openedInTime) {
        Tally memory tally = _tallies[subnetId][epoch % RETAINED_EPOCHS];
        if (tally.epoch == epoch) (committed, openedInTime) = (tally.committed, tally.openedInTime);
    }

    /// @inheritdoc IWeightsBoard
    function beaconOf(uint64 subnetId) external view returns (Beacon memory) {
        return _beacons[subnetId];
    }
}
