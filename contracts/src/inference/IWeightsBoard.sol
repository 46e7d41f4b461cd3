// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title WeightsBoard: validators' opinions of an epoch, hidden until it is over (decision 0021).
/// @notice A validator commits to its row during epoch e and logs the row and salt, encrypted to a beacon's later round. From
/// `opensAt` = start of epoch e + revealDelayEpochs anybody who knows them opens the commit: the validator itself, or whoever decrypted
/// what it logged. Of the row only its hash is stored. A row holds for its one epoch; who has none is not active in it.
/// Row: `uid:u16 weight:u16`, big-endian, 1 to 64 entries, ascending uids of at most 255, greatest weight 65,535.
/// @dev The contract sees no beacon. What it sees is commits that stay shut: when fewer than half are open at the end of the window,
/// the window is longer by EXTENSION_EPOCHS, once. Entries are kept for RETAINED_EPOCHS; then their storage is used again.
interface IWeightsBoard {
    enum State {
        None,
        Committed,
        Revealed,
        /// It was opened, and its row breaks the rules: it stays shut for ever.
        Rejected,
        /// It stayed shut, and somebody said so.
        Expired
    }

    enum Reason {
        NotOpened,
        RowLength,
        UidsNotAscending,
        UidTooLarge,
        NotUpscaled,
        NoCommit,
        HashMismatch,
        AlreadyOpened
    }

    struct Entry {
        bytes32 hash; // of the commit; once revealed of the row
        uint64 epoch;
        uint48 committedAt;
        State state;
        uint64 operatorId;
    }

    struct Opening {
        uint16 uid;
        bytes32 salt;
        bytes row;
    }

    /// @notice The beacon to whose rounds a subnet's commits are encrypted: round r comes at genesis + r * periodSeconds.
    struct Beacon {
        uint64 genesis;
        uint32 periodSeconds;
        bytes publicKey;
        /// What its users must know of it, e.g. "local: operator can read weights early".
        string label;
    }

    event Committed(
        uint64 indexed subnetId, uint64 indexed epoch, uint16 indexed uid, uint64 operatorId, bytes32 commitment, bytes ciphertext
    );
    event Revealed(uint64 indexed subnetId, uint64 indexed epoch, uint16 indexed uid, bytes row);
    /// What the validator committed to breaks the rules; it counts as never opened.
    event CommitRejected(uint64 indexed subnetId, uint64 indexed epoch, uint16 indexed uid, Reason reason);
    event CommitExpired(uint64 indexed subnetId, uint64 indexed epoch, uint16 indexed uid, Reason reason);
    /// An opening of a batch did not fit; the commit is as it was.
    event OpeningSkipped(uint64 indexed subnetId, uint64 indexed epoch, uint16 indexed uid, Reason reason);
    event WindowExtended(uint64 indexed subnetId, uint64 indexed epoch, uint256 closesAt);
    event BeaconDeclared(uint64 indexed subnetId, uint64 genesis, uint32 periodSeconds, bytes publicKey, string label);

    error NotOpenYet(uint64 subnetId, uint64 epoch, uint256 opensAt, uint256 timestamp);
    error WindowClosed(uint64 subnetId, uint64 epoch, uint256 closedAt, uint256 timestamp);
    error WindowStillOpen(uint64 subnetId, uint64 epoch, uint256 closesAt, uint256 timestamp);
    error OpeningRefused(uint64 subnetId, uint64 epoch, uint16 uid, Reason reason);
    error CiphertextTooLong(uint256 length, uint256 limit);
    error ZeroCommitment();
    error BadBeacon(bytes32 field, uint256 got, uint256 limit);
    error NotSubnetOwner(uint64 subnetId, address caller, address owner);

    /// @notice The uid's operator, by its node key and under a permit, commits for the present epoch. A later commit in the same epoch
    /// takes the place of an earlier one.
    /// @param commitment see `commitmentOf`
    /// @param ciphertext salt and row, encrypted to the beacon's round at the end of the window's delay; may be empty or garbage: then only
    /// the validator can open the commit
    function commit(uint64 subnetId, uint16 uid, bytes32 commitment, bytes calldata ciphertext) external;
    /// @notice Anybody opens a commit. A row that breaks the rules does not revert: it is rejected, with an event.
    function reveal(uint64 subnetId, uint64 epoch, Opening calldata opening) external;
    /// @notice Anybody opens many; an opening that does not fit is skipped, with an event.
    function revealMany(uint64 subnetId, uint64 epoch, Opening[] calldata openings) external;
    /// @notice Anybody, when the window has closed: says which commits stayed shut. MISSES_MAX shut or rejected ones within
    /// RETAINED_EPOCHS cost the permit.
    function expire(uint64 subnetId, uint64 epoch, uint16[] calldata uids) external;
    /// @notice The subnet's owner declares the beacon, for commits from then on.
    function declareBeacon(uint64 subnetId, Beacon calldata beacon) external;

    /// @notice The hash to commit: keccak256(abi.encodePacked(chainid:u256, contract, subnetId:u64, epoch:u64, uid:u16, salt, row)).
    function commitmentOf(uint64 subnetId, uint64 epoch, uint16 uid, bytes32 salt, bytes calldata row) external view returns (bytes32);
    /// @notice The entry of a uid for an epoch; State.None when there is none, or when it is older than RETAINED_EPOCHS.
    function entryOf(uint64 subnetId, uint64 epoch, uint16 uid) external view returns (Entry memory);
    /// @notice For settlement: of each uid the hash of its revealed row and when it committed, or 0 and 0; and bit uid of `unrevealed`
    /// where a commit was made and is not revealed. Committed before `registeredAt[i]` (of uids[i], as in the metagraph) counts as none.
    function rowsOf(uint64 subnetId, uint64 epoch, uint16[] calldata uids, uint48[] calldata registeredAt)
        external
        view
        returns (bytes32[] memory rowHashes, uint48[] memory committedAt, uint256 unrevealed);
    /// @notice From when to when an epoch's commits may be opened; an epoch is settled from `closesAt` on. Before `closesAt` it may yet grow.
    function windowOf(uint64 subnetId, uint64 epoch) external view returns (uint256 opensAt, uint256 closesAt);
    function beaconOf(uint64 subnetId) external view returns (Beacon memory);
}
