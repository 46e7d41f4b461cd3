// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageMarket} from "./IStorageMarket.sol";
import {PieceTable} from "./PieceTable.sol";
import {PieceRange} from "./PieceRange.sol";
import {ProofHooks} from "./ProofHooks.sol";
import {PossessionProof} from "./PossessionProof.sol";

/// @title Possession: piece tables, proofs and misses of all operators. No owner, no parameter that can change.
/// @notice Rules: IPossession. Hashing: PieceTable. Draws and layout of proofs: PossessionProof.
/// @dev The market is bound at the first insert, so that a later pointer of the registry does not cut off running deals.
contract Possession is IPossession, ProofHooks {
    using Checkpoints for Checkpoints.Trace208;

    /// Gas limit of one transaction (EIP-7825) and price of a calldata byte under the floor (EIP-7623): a proof must always fit.
    uint256 private constant TRANSACTION_GAS_MAX = 16_777_216;
    uint256 private constant CALLDATA_GAS = 40;
    /// Intrinsic gas, seed headers of two times 700 bytes, storage and events of a proof, the listener to it, rounded up.
    uint256 private constant PROOF_OVERHEAD_GAS = 1_020_000;
    /// One missed period made final: kept table, queue, checkpoint, event, on cold storage, rounded up.
    uint256 private constant MISS_GAS = 150_000;

    IOperators public immutable operators;
    IRandomness public immutable randomness;

    uint64 private immutable _genesis;
    uint32 private immutable _period;
    uint32 private immutable _window;
    uint32 private immutable _freeze;
    uint8 private immutable _byBytes;
    uint8 private immutable _byWeight;
    uint8 private immutable _rotationMin;
    uint16 private immutable _rotationPeriods;
    uint16 private immutable _maxSlots;
    uint16 private immutable _graceEvery;
    uint8 private immutable _maxMisses;

    /// @notice The market that may change tables; zero before the first insert.
    address public market;
    mapping(uint64 operatorId => Table) private _tables;
    mapping(uint64 operatorId => mapping(uint64 period => Table)) private _kept;
    mapping(uint64 operatorId => mapping(uint64 period => uint64)) private _openMissAfter;
    mapping(uint64 operatorId => Standing) private _standings;
    /// Key: period; value: unpaid << 104 | charged, both counted up to and with that period.
    mapping(uint64 operatorId => Checkpoints.Trace208) private _misses;

    constructor(Config memory c, IRegistry registry_, IOperators operators_, IRandomness randomness_) ProofHooks(registry_) {
        _checkConfig(c);
        operators = operators_;
        randomness = randomness_;
        _genesis = c.genesis;
        _period = c.period;
        _window = c.window;
        _freeze = c.freeze;
        _byBytes = c.byBytes;
        _byWeight = c.byWeight;
        _rotationMin = c.rotationMin;
        _rotationPeriods = c.rotationPeriods;
        _maxSlots = c.maxSlots;
        _graceEvery = c.graceEvery;
        _maxMisses = c.maxMisses;
    }

    // ------------------------------------------------------------------------------------------------------------ proving

    /// @inheritdoc IPossession
    function prove(
        uint64 operatorId,
        uint64 period,
        bytes calldata openings,
        bytes calldata header,
        bytes calldata parent,
        bytes calldata oldest
    ) external {
        _requireDue(operatorId, period);
        bytes32 seed = randomness.fix(seedTime(period), header, parent, oldest);
        Standing storage s = _standings[operatorId];
        bool recovery = s.openMiss != 0;
        uint256 count = _verify(operatorId, period, seed, openings);
        if (recovery) _closeMiss(operatorId, s);
        s.syncedTo = period + 1;
        s.provenThrough = period + 1;
        if (s.missesInRow != 0) s.missesInRow = 0;
        emit Proven(operatorId, period, uint16(count), recovery);
        _tellProven(operatorId, period);
    }

    function _requireDue(uint64 operatorId, uint64 period) private {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NotNodeKey(operatorId, msg.sender);
        uint64 current = periodAt(block.timestamp);
        if (period != current) revert WrongPeriod(period, current);
        sync(operatorId);
        Standing storage s = _standings[operatorId];
        if (!_stands(s)) revert TableHasFailed(operatorId, s.failedAt - 1);
        if (s.provenThrough > period) revert AlreadyProven(operatorId, period);
        uint64 seedAt = seedTime(period);
        if (block.timestamp < seedAt) revert OutsideWindow(block.timestamp, seedAt, periodStart(period + 1));
    }

    /// Checks the openings of the period and of the oldest open miss; returns their number.
    function _verify(uint64 operatorId, uint64 period, bytes32 seed, bytes calldata openings) private view returns (uint256 count) {
        uint64 miss = _standings[operatorId].openMiss;
        PossessionProof.Plan memory plan = _plan(operatorId, period, seed, miss == 0 ? 1 : 2);
        if (plan.leaves == 0) revert NothingToProve(operatorId);
        uint256 cursor = _answerAll(operatorId, plan, _offsetOf(openings));
        count = plan.openings;
        if (miss != 0) {
            plan = _plan(operatorId, miss - 1, randomness.valueOf(seedTime(miss - 1)), 1);
            plan.late = true;
            cursor = _answerAll(operatorId, plan, cursor);
            count += plan.openings;
        }
        cursor -= _offsetOf(openings);
        if (cursor != openings.length) revert ProofLength(openings.length, cursor);
    }

    /// @inheritdoc IPossession
    function verifyPiece(Leaf calldata leaf, bytes32 seed, uint256 count, bytes calldata openings) external view {
        uint256 height = leaf.pieceHeight;
        uint256 step = 32 + (height << 5);
        if (openings.length != count * step) revert ProofLength(openings.length, count * step);
        bytes32 base = keccak256(abi.encode(seed, leaf.dealId));
        uint256 cursor = _offsetOf(openings);
        for (uint256 i; i < count; ++i) {
            uint256 index = PossessionProof.draw(base, i) % leaf.leaves;
            bytes32 got = PossessionProof.pieceRoot(cursor, height, index);
            if (got != leaf.pieceRoot) revert PiecePathWrong(leaf.dealId, uint64(index), got, leaf.pieceRoot);
            cursor += step;
        }
    }

    /// @inheritdoc IPossession
    function verifyRange(Leaf calldata leaf, uint64 first, uint32 count, bytes calldata answer) external pure {
        (bytes32 got, uint256 used) = PieceRange.rootOf(answer, leaf.pieceHeight, first, count);
        if (answer.length != used) revert ProofLength(answer.length, used);
        if (got != leaf.pieceRoot) revert PiecePathWrong(leaf.dealId, first, got, leaf.pieceRoot);
    }

    function _plan(uint64 operatorId, uint64 period, bytes32 seed, uint256 times) private view returns (PossessionProof.Plan memory plan) {
        Table storage t = _tableOf(operatorId, period);
        plan.base = PossessionProof.baseOf(seed, operatorId, period);
        plan.root = t.root;
        plan.leaves = t.leaves;
        plan.weight = t.weight;
        plan.slots = t.slots;
        plan.depth = t.depth;
        plan.period = period;
        plan.rotationPeriods = _rotationPeriods;
        plan.byBytes = _byBytes * times;
        plan.byWeightEnd = plan.byBytes + _byWeight * times;
        plan.turns = PossessionProof.regularTurns(plan.slots, period, _rotationPeriods);
        if (plan.turns < _rotationMin) plan.turns = _rotationMin;
        plan.openings = plan.byWeightEnd + plan.turns * times;
    }

    function _answerAll(uint64 operatorId, PossessionProof.Plan memory plan, uint256 cursor) private view returns (uint256) {
        Leaf memory leaf;
        for (uint256 i; i < plan.openings; ++i) {
            cursor = _answer(operatorId, plan, i, leaf, cursor);
        }
        return cursor;
    }

    /// Checks opening `i` of a plan and returns the position after it. `leaf` is scratch memory.
    function _answer(uint64 operatorId, PossessionProof.Plan memory plan, uint256 i, Leaf memory leaf, uint256 cursor)
        private
        view
        returns (uint256)
    {
        uint256 slot;
        uint256 flag;
        assembly ("memory-safe") {
            let head := calldataload(cursor)
            slot := shr(224, head)
            flag := and(shr(216, head), 0xff)
        }
        cursor += PossessionProof.HEAD_BYTES;
        if (flag > PossessionProof.OVER) revert BadFlag(i, uint8(flag));
        if (slot >= plan.slots) revert WrongSlot(i, uint32(slot), uint32(plan.slots));
        bytes32 hash;
        uint256 sums;
        if (flag != PossessionProof.EMPTY) {
            PossessionProof.readLeaf(cursor, leaf);
            cursor += PossessionProof.LEAF_BYTES;
            hash = PieceTable.hashLeaf(leaf);
            sums = PieceTable.sumsOf(leaf.leaves, leaf.weight);
        }
        uint256 before;
        (hash, before) = PieceTable.climb(hash, sums, slot, plan.depth, cursor);
        if (hash != plan.root) revert TablePathWrong(operatorId, uint32(slot), hash, plan.root);
        cursor += plan.depth * PieceTable.SIBLING_BYTES;

        uint256 index = _drawnLeaf(plan, i, slot, sums, before);
        if (flag == PossessionProof.EMPTY) return cursor;
        if (flag == PossessionProof.OVER) {
            if (!plan.late) revert BadFlag(i, uint8(flag));
            if (!IStorageMarket(market).isOver(leaf.dealId)) revert DealNotOver(leaf.dealId);
            return cursor;
        }
        hash = PossessionProof.pieceRoot(cursor, leaf.pieceHeight, index);
        if (hash != leaf.pieceRoot) revert PiecePathWrong(leaf.dealId, uint64(index), hash, leaf.pieceRoot);
        return cursor + 32 + (uint256(leaf.pieceHeight) << 5);
    }

    /// Checks that draw `i` falls on the slot with these sums and returns the leaf index within it.
    function _drawnLeaf(PossessionProof.Plan memory plan, uint256 i, uint256 slot, uint256 sums, uint256 before)
        private
        pure
        returns (uint256)
    {
        uint256 hash = PossessionProof.draw(plan.base, i);
        uint256 leaves = sums >> 128;
        if (i < plan.byBytes) {
            uint256 from = before >> 128;
            uint256 drawn = hash % plan.leaves;
            if (drawn < from || drawn - from >= leaves) revert WrongDraw(i, drawn, from, from + leaves);
            return drawn - from;
        }
        if (i < plan.byWeightEnd) {
            uint256 from = uint128(before);
            uint256 drawn = hash % plan.weight;
            if (drawn < from || drawn - from >= uint128(sums)) revert WrongDraw(i, drawn, from, from + uint128(sums));
        } else {
            uint256 turn = (i - plan.byWeightEnd) % plan.turns;
            uint256 expected = PossessionProof.turnSlot(turn, plan.slots, plan.period, plan.rotationPeriods);
            if (slot != expected) revert WrongSlot(i, uint32(slot), uint32(expected));
            if (leaves == 0) return 0; // empty, and proven so by the path
        }
        return PossessionProof.redraw(hash) % leaves;
    }

    function _closeMiss(uint64 operatorId, Standing storage s) private {
        uint64 period = s.openMiss - 1;
        s.openMiss = _openMissAfter[operatorId][period];
        if (s.openMiss == 0) s.lastOpenMiss = 0;
        emit MissAnswered(operatorId, period);
    }

    // ------------------------------------------------------------------------------------------------------------- misses

    /// @inheritdoc IPossession
    /// @dev Bounded: at most maxMisses charged misses and, as graceEvery > maxMisses, two graces before the table fails; an empty
    /// live table is skipped at once. Only the first period can have a kept table, because each change of a table syncs first.
    function sync(uint64 operatorId) public {
        uint64 current = periodAt(block.timestamp);
        Standing storage s = _standings[operatorId];
        uint64 period = s.syncedTo;
        if (period >= current) return;
        if (_stands(s)) {
            if (_tableOf(operatorId, period).leaves == 0) ++period;
            while (period < current && _stands(s) && _tableOf(operatorId, period).leaves != 0) {
                _recordMiss(operatorId, s, period);
                ++period;
            }
        }
        s.syncedTo = current;
    }

    function _recordMiss(uint64 operatorId, Standing storage s, uint64 period) private {
        Table storage kept = _kept[operatorId][period];
        if (!kept.kept) _keep(operatorId, period);
        if (s.openMiss == 0) s.openMiss = period + 1;
        else _openMissAfter[operatorId][s.lastOpenMiss - 1] = period + 1;
        s.lastOpenMiss = period + 1;

        Checkpoints.Trace208 storage trace = _misses[operatorId];
        bool grace = s.graceUsedAt == 0 || period + 1 >= s.graceUsedAt + _graceEvery;
        trace.push(uint48(period), trace.latest() + (uint208(1) << 104) + (grace ? 0 : 1));
        if (grace) s.graceUsedAt = period + 1;
        else ++s.missesInRow;
        emit Missed(operatorId, period, grace, s.missesInRow);
        if (s.missesInRow >= _maxMisses) {
            s.failedAt = period + 1;
            emit TableFailed(operatorId, period);
        }
    }

    function _keep(uint64 operatorId, uint64 period) private {
        _kept[operatorId][period] = _tables[operatorId];
        _kept[operatorId][period].kept = true;
    }

    /// @inheritdoc IPossession
    /// @dev After the failure of a table no period is paid to the deals that were in it.
    function misses(uint64 operatorId, uint64 from, uint64 to) external view returns (uint64 unpaid, uint64 charged) {
        Standing storage s = _standings[operatorId];
        if (to > s.syncedTo) to = s.syncedTo;
        if (from >= to) return (0, 0);
        uint64 failedAt = s.failedAt;
        if (from >= failedAt && !_stands(s)) return (to - from, 0);
        if (from < failedAt && to > failedAt) {
            unpaid = to - failedAt;
            to = failedAt;
        }
        uint208 counted = _missesBefore(operatorId, to) - _missesBefore(operatorId, from);
        unpaid += uint64(counted >> 104);
        charged = uint64(uint104(counted));
    }

    function _missesBefore(uint64 operatorId, uint64 period) private view returns (uint208) {
        return period == 0 ? 0 : _misses[operatorId].upperLookupRecent(uint48(period - 1));
    }

    // ------------------------------------------------------------------------------------------------------------- tables

    /// @inheritdoc IPossession
    function insert(uint64 operatorId, uint32 slot, Leaf calldata leaf, bytes calldata tablePath) external {
        _bindMarket();
        sync(operatorId);
        _checkLeaf(leaf);
        Table storage t = _tables[operatorId];
        _restart(operatorId, t.leaves);
        uint64 current = periodAt(block.timestamp);
        if (_isFrozen(current) && _standings[operatorId].provenThrough <= current && !_kept[operatorId][current].kept) {
            _keep(operatorId, current);
        }

        uint32 slots = t.slots;
        if (slot > slots) revert WrongSlot(0, slot, slots);
        if (slot >= _maxSlots) revert TableFull(operatorId, slot);
        uint8 depth = t.depth;
        bytes32 root = t.root;
        if (slot == slots) {
            if (slot != 0 && slot == uint256(1) << depth) {
                root = PieceTable.hashNode(root, PieceTable.sumsOf(t.leaves, t.weight), PieceTable.emptyRoot(depth), 0);
                t.depth = ++depth;
            }
            t.slots = slots + 1;
        }
        _climbChecked(operatorId, 0, 0, slot, depth, root, tablePath);
        (t.root,) =
            PieceTable.climb(PieceTable.hashLeaf(leaf), PieceTable.sumsOf(leaf.leaves, leaf.weight), slot, depth, _offsetOf(tablePath));
        t.leaves += leaf.leaves; // both checked: the sums of the tree never overflow
        t.weight += leaf.weight;
        emit LeafInserted(operatorId, slot, leaf.dealId, leaf.pieceRoot, leaf.pieceHeight, leaf.leaves, leaf.weight);
        _tellInserted(operatorId, leaf.dealId);
    }

    /// @inheritdoc IPossession
    function remove(uint64 operatorId, uint32 slot, Leaf calldata leaf, bytes calldata tablePath) external {
        if (msg.sender != market) revert NotMarket(msg.sender);
        sync(operatorId);
        uint64 current = periodAt(block.timestamp);
        if (_isFrozen(current) && _stands(_standings[operatorId])) revert TableFrozen(operatorId, periodStart(current + 1));
        Table storage t = _tables[operatorId];
        if (slot >= t.slots) revert WrongSlot(0, slot, t.slots);
        uint8 depth = t.depth;
        _climbChecked(operatorId, PieceTable.hashLeaf(leaf), PieceTable.sumsOf(leaf.leaves, leaf.weight), slot, depth, t.root, tablePath);
        (t.root,) = PieceTable.climb(0, 0, slot, depth, _offsetOf(tablePath));
        t.leaves -= leaf.leaves;
        t.weight -= leaf.weight;
        emit LeafRemoved(operatorId, slot, leaf.dealId);
        _tellRemoved(operatorId, leaf.dealId);
    }

    function _climbChecked(
        uint64 operatorId,
        bytes32 node,
        uint256 sums,
        uint32 slot,
        uint256 depth,
        bytes32 root,
        bytes calldata tablePath
    ) private pure {
        uint256 expected = depth * PieceTable.SIBLING_BYTES;
        if (tablePath.length != expected) revert ProofLength(tablePath.length, expected);
        (bytes32 got,) = PieceTable.climb(node, sums, slot, depth, _offsetOf(tablePath));
        if (got != root) revert TablePathWrong(operatorId, slot, got, root);
    }

    function _bindMarket() private {
        address bound = market;
        if (bound == address(0)) {
            bound = registry.get(bytes32("storageMarket"));
            if (msg.sender != bound) revert NotMarket(msg.sender);
            market = bound;
        } else if (msg.sender != bound) {
            revert NotMarket(msg.sender);
        }
    }

    /// A failed table starts anew when it is empty: all deals that were in it are over, so are its open misses.
    function _restart(uint64 operatorId, uint64 leaves) private {
        Standing storage s = _standings[operatorId];
        if (_stands(s)) return;
        if (leaves != 0) revert TableHasFailed(operatorId, s.failedAt - 1);
        s.restartedAt = s.syncedTo;
        s.openMiss = 0;
        s.lastOpenMiss = 0;
        s.missesInRow = 0;
    }

    function _checkLeaf(Leaf calldata leaf) private pure {
        if (
            leaf.leaves == 0 || leaf.weight == 0 || leaf.pieceHeight > PossessionProof.MAX_PIECE_HEIGHT
                || leaf.leaves > uint256(1) << leaf.pieceHeight
        ) revert BadLeaf(leaf.dealId, leaf.pieceHeight, leaf.leaves);
    }

    function _tableOf(uint64 operatorId, uint64 period) private view returns (Table storage) {
        Table storage kept = _kept[operatorId][period];
        return kept.kept ? kept : _tables[operatorId];
    }

    function _isFrozen(uint64 current) private view returns (bool) {
        return block.timestamp >= freezeTime(current);
    }

    function _stands(Standing storage s) private view returns (bool) {
        return s.restartedAt >= s.failedAt;
    }

    function _offsetOf(bytes calldata data) private pure returns (uint256 offset) {
        assembly ("memory-safe") {
            offset := data.offset
        }
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IPossession
    function periodAt(uint256 timestamp) public view returns (uint64) {
        return uint64((timestamp - _genesis) / _period);
    }

    /// @inheritdoc IPossession
    function periodStart(uint64 period) public view returns (uint64) {
        return _genesis + period * _period;
    }

    /// @inheritdoc IPossession
    function seedTime(uint64 period) public view returns (uint64) {
        return periodStart(period + 1) - _window;
    }

    /// @inheritdoc IPossession
    function freezeTime(uint64 period) public view returns (uint64) {
        return seedTime(period) - _freeze;
    }

    /// @inheritdoc IPossession
    function table(uint64 operatorId) external view returns (Table memory) {
        return _tables[operatorId];
    }

    /// @inheritdoc IPossession
    function tableOf(uint64 operatorId, uint64 period) external view returns (Table memory) {
        return _tableOf(operatorId, period);
    }

    /// @inheritdoc IPossession
    function standing(uint64 operatorId) external view returns (Standing memory) {
        return _standings[operatorId];
    }

    /// @inheritdoc IPossession
    function stands(uint64 operatorId) external view returns (bool) {
        return _stands(_standings[operatorId]);
    }

    /// @inheritdoc IPossession
    function openMissAfter(uint64 operatorId, uint64 period) external view returns (uint64) {
        return _openMissAfter[operatorId][period];
    }

    /// @inheritdoc IPossession
    function config() external view returns (Config memory) {
        return Config({
            genesis: _genesis,
            period: _period,
            window: _window,
            freeze: _freeze,
            byBytes: _byBytes,
            byWeight: _byWeight,
            rotationMin: _rotationMin,
            rotationPeriods: _rotationPeriods,
            maxSlots: _maxSlots,
            graceEvery: _graceEvery,
            maxMisses: _maxMisses
        });
    }

    /// @notice Upper bound of the openings of one proof: twice the usual number and those of an open miss, with a full table.
    function openingsMax(Config memory c) public pure returns (uint256) {
        uint256 turns = PossessionProof.regularTurns(c.maxSlots, 0, c.rotationPeriods);
        if (turns < c.rotationMin) turns = c.rotationMin;
        return 3 * (uint256(c.byBytes) + c.byWeight + turns);
    }

    function _checkConfig(Config memory c) private view {
        if (c.genesis == 0 || c.genesis > block.timestamp) revert BadConfig("genesis", c.genesis, block.timestamp);
        if (c.window == 0) revert BadConfig("window", c.window, 1);
        if (c.freeze == 0) revert BadConfig("freeze", c.freeze, 1);
        if (uint256(c.window) + c.freeze >= c.period) revert BadConfig("period", c.period, uint256(c.window) + c.freeze);
        if (c.byBytes == 0) revert BadConfig("byBytes", c.byBytes, 1);
        if (c.byWeight == 0) revert BadConfig("byWeight", c.byWeight, 1);
        if (c.rotationMin == 0) revert BadConfig("rotationMin", c.rotationMin, 1);
        if (c.rotationPeriods == 0) revert BadConfig("rotationPeriods", c.rotationPeriods, 1);
        if (c.maxSlots == 0) revert BadConfig("maxSlots", c.maxSlots, 1);
        if (c.maxMisses == 0) revert BadConfig("maxMisses", c.maxMisses, 1);
        // The longest silence must be made final in one transaction, else its deals could never be settled.
        uint256 silenceGas = PROOF_OVERHEAD_GAS + (uint256(c.maxMisses) + 2) * MISS_GAS;
        if (silenceGas > TRANSACTION_GAS_MAX) revert BadConfig("maxMisses", silenceGas, TRANSACTION_GAS_MAX);
        if (c.graceEvery <= c.maxMisses) revert BadConfig("graceEvery", c.graceEvery, uint256(c.maxMisses) + 1);
        uint256 depth;
        while (uint256(1) << depth < c.maxSlots) ++depth;
        uint256 openingBytes = PossessionProof.HEAD_BYTES + PossessionProof.LEAF_BYTES + depth * PieceTable.SIBLING_BYTES + 32
            + (PossessionProof.MAX_PIECE_HEIGHT << 5);
        uint256 gasMax = PROOF_OVERHEAD_GAS + openingsMax(c) * openingBytes * CALLDATA_GAS;
        if (gasMax > TRANSACTION_GAS_MAX) revert BadConfig("maxSlots", gasMax, TRANSACTION_GAS_MAX);
    }
}
