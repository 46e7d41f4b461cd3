// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Possession: every period each provider proves, in one transaction, that it holds all the data of all its deals.
/// @notice Per operator one piece table: a binary Merkle sum tree of fixed depth that grows by doubling. Leaf of a slot:
///   keccak256(abi.encode(pieceRoot, pieceHeight, leaves, weight, dealId)), empty slot: bytes32(0) with sums 0;
///   node: keccak256(leftHash ++ leftSums ++ rightHash ++ rightSums), sums = uint256(leaves) << 128 | weight.
/// `leaves` are the payload's 32-byte nodes of the piece's CommP tree (zero padding is never challenged), `weight` the
/// deal's collateral. Only the market changes a table, by verified insert and remove.
///
/// Time: period p is [genesis + p * period, + period). seedTime(p) = end(p) - window; the table is frozen from
/// freezeTime(p) = seedTime(p) - freeze until end(p): in that interval inserts go to a copy (the frozen table is what is
/// proven) and removals revert. A proof of p is accepted in [first block with the seed, end(p)).
///
/// Draws of period p from seed s (exact rule in PossessionProof.sol): byBytes leaves uniform over all payload leaves; byWeight deals
/// drawn by collateral, one uniform leaf each; by turn every slot s with s = p (mod rotationPeriods), one uniform leaf each, so that
/// every slot is drawn exactly once in rotationPeriods whatever the table's growth, topped up to rotationMin. An emptied slot whose
/// turn it is counts as answered by the proof that it is empty.
///
/// Misses: once in graceEvery periods a miss costs only the pay of that period; any other miss is charged (fault fee per deal).
/// The missed leaves stay open, oldest first: each later proof must also answer all leaves of the oldest open miss (except those of
/// deals that are over) and draws twice the usual number. maxMisses charged misses in a row: the table has failed and all its deals
/// end; it starts anew when the last leaf is out. A period whose frozen table is empty needs no proof and is no miss.
interface IPossession {
    struct Config {
        uint64 genesis;
        uint32 period; // seconds
        uint32 window;
        uint32 freeze;
        uint8 byBytes;
        uint8 byWeight;
        uint8 rotationMin;
        uint16 rotationPeriods;
        uint16 maxSlots;
        uint16 graceEvery; // periods
        uint8 maxMisses;
    }

    struct Table {
        bytes32 root;
        uint64 leaves;
        uint128 weight;
        uint32 slots; // slots ever used, including emptied ones
        uint8 depth;
        bool kept; // true in a copy kept for a frozen or missed period
    }

    struct Leaf {
        bytes32 pieceRoot;
        uint8 pieceHeight;
        uint64 leaves;
        uint128 weight;
        uint64 dealId;
    }

    struct Standing {
        uint64 syncedTo; // all periods < syncedTo are final
        uint64 provenThrough; // last proven period + 1
        uint64 openMiss; // period + 1 of the oldest unanswered miss, 0: none
        uint64 lastOpenMiss; // period + 1 of the latest unanswered miss, 0: none
        uint64 graceUsedAt; // period + 1, 0: never
        uint8 missesInRow; // charged
        uint64 failedAt; // period + 1 in which the table failed last, 0: never
        uint64 restartedAt; // period in which it started anew after that; it stands when this is >= failedAt
    }

    event LeafInserted(uint64 indexed operatorId, uint32 indexed slot, uint64 indexed dealId, bytes32 pieceRoot, uint8 pieceHeight, uint64 leaves, uint128 weight);
    event LeafRemoved(uint64 indexed operatorId, uint32 indexed slot, uint64 indexed dealId);
    event Proven(uint64 indexed operatorId, uint64 indexed period, uint16 openings, bool recovery);
    event Missed(uint64 indexed operatorId, uint64 indexed period, bool grace, uint8 missesInRow);
    event MissAnswered(uint64 indexed operatorId, uint64 indexed period);
    event TableFailed(uint64 indexed operatorId, uint64 indexed period);

    error BadConfig(string field, uint256 got, uint256 limit);
    error NotMarket(address caller);
    error NotNodeKey(uint64 operatorId, address caller);
    error WrongPeriod(uint64 got, uint64 expected);
    error OutsideWindow(uint256 timestamp, uint64 from, uint64 to);
    error AlreadyProven(uint64 operatorId, uint64 period);
    error TableHasFailed(uint64 operatorId, uint64 period);
    error TableFrozen(uint64 operatorId, uint64 until);
    error TableFull(uint64 operatorId, uint32 slots);
    error TablePathWrong(uint64 operatorId, uint32 slot, bytes32 got, bytes32 expected);
    error PiecePathWrong(uint64 dealId, uint64 leafIndex, bytes32 got, bytes32 expected);
    error WrongDraw(uint256 opening, uint256 drawn, uint256 from, uint256 to);
    error WrongSlot(uint256 opening, uint32 got, uint32 expected);
    error ProofLength(uint256 got, uint256 expected);
    error BadFlag(uint256 opening, uint8 got);
    error DealNotOver(uint64 dealId);
    error BadLeaf(uint64 dealId, uint8 pieceHeight, uint64 leaves);
    error NothingToProve(uint64 operatorId);

    /// @notice Proves period `period` for the caller's operator. `openings` is the packed proof (layout at the top of PossessionProof.sol
    /// and of src/storage/possession/proof.ts). `header`, `parent`, `oldest` fix the seed in the same transaction when nobody has; else empty.
    function prove(uint64 operatorId, uint64 period, bytes calldata openings, bytes calldata header, bytes calldata parent, bytes calldata oldest) external;
    /// @notice Makes all ended periods final (records misses). Anyone; also called inside every mutating call.
    function sync(uint64 operatorId) external;

    // market only
    function insert(uint64 operatorId, uint32 slot, Leaf calldata leaf, bytes calldata tablePath) external;
    function remove(uint64 operatorId, uint32 slot, Leaf calldata leaf, bytes calldata tablePath) external;

    /// @notice Verifies `count` uniform leaves of one piece drawn from `seed` (activation, targeted challenge, fault recovery).
    function verifyPiece(Leaf calldata leaf, bytes32 seed, uint256 count, bytes calldata openings) external view;

    /// @notice Verifies `count` consecutive leaves of one piece from `first` on. `answer`: the leaves, 32 bytes each, then the siblings that
    /// the range lacks, level by level from the leaves up, the left one before the right one.
    function verifyRange(Leaf calldata leaf, uint64 first, uint32 count, bytes calldata answer) external view;

    function config() external view returns (Config memory);
    function periodAt(uint256 timestamp) external view returns (uint64);
    function periodStart(uint64 period) external view returns (uint64);
    function seedTime(uint64 period) external view returns (uint64);
    /// @notice From here to the end of the period the table that must be proven does not change.
    function freezeTime(uint64 period) external view returns (uint64);
    function table(uint64 operatorId) external view returns (Table memory);
    /// @notice The table that a proof of `period` is checked against: its kept copy, else the live table.
    function tableOf(uint64 operatorId, uint64 period) external view returns (Table memory);
    /// @notice False after maxMisses charged misses in a row, until the table is empty and used again.
    function stands(uint64 operatorId) external view returns (bool);
    /// @notice period + 1 of the open miss that is answered after that of `period`, 0: none.
    function openMissAfter(uint64 operatorId, uint64 period) external view returns (uint64);
    function standing(uint64 operatorId) external view returns (Standing memory);
    /// @notice Of the final periods in [from, to): how many were unpaid, and how many of those were charged.
    function misses(uint64 operatorId, uint64 from, uint64 to) external view returns (uint64 unpaid, uint64 charged);
}
