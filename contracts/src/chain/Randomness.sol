// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {BlockHeader} from "@openzeppelin/contracts/utils/BlockHeader.sol";
import {Memory} from "@openzeppelin/contracts/utils/Memory.sol";
import {IBeacon} from "./IBeacon.sol";
import {IRandomness} from "./IRandomness.sol";

/// @title Randomness for all networks, from block headers that anyone proves. No owner, nothing can be changed.
/// @notice Which of the times T + k * staleAfter counts is a function of T and of the current block alone: `oldestBlock()` is the oldest block
/// that a fix may still read, rounded up to a multiple of a small step so that a transaction has some blocks of time to be included.
/// The block of a time must be younger than it; a time is stale when that block is not older than the time. One excludes the other, so
/// exactly one k is provable at any moment. Parsing trusts nothing: header bytes count only after their hash was found in the history.
contract Randomness is IRandomness {
    /// EIP-2935: hashes of the last 8191 blocks, from the state and not from the client's memory.
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;
    uint256 private constant HISTORY_BLOCKS = 8191;
    uint256 private constant HISTORY_STEP_BLOCKS = 64;
    /// Where EIP-2935 is absent: the BLOCKHASH opcode.
    uint256 private constant OPCODE_BLOCKS = 256;
    uint256 private constant OPCODE_STEP_BLOCKS = 16;

    /// @inheritdoc IRandomness
    Source public immutable source;
    /// @inheritdoc IRandomness
    uint64 public immutable staleAfterSeconds;
    /// @notice The beacon contract; zero unless `source` is `Beacon`.
    IBeacon public immutable beacon;

    /// Zero: not fixed (a zero value is refused).
    mapping(uint64 time => bytes32) private _values;

    error BadBeacon(Source source, address beacon);
    error BadStaleAfter(uint64 staleAfterSeconds);
    error NotOldestBlock(uint256 blockNumber, uint256 expected);
    error NoEntropy(uint256 blockNumber);

    constructor(Source source_, address beacon_, uint64 staleAfterSeconds_) {
        bool wantsBeacon = source_ == Source.Beacon;
        if (wantsBeacon ? beacon_.code.length == 0 : beacon_ != address(0)) revert BadBeacon(source_, beacon_);
        if (staleAfterSeconds_ == 0) revert BadStaleAfter(staleAfterSeconds_);
        source = source_;
        beacon = IBeacon(beacon_);
        staleAfterSeconds = staleAfterSeconds_;
    }

    /// @inheritdoc IRandomness
    /// @dev With a beacon the headers are not read. An empty `header` reverts with RandomnessNotFixed when the value is not there yet.
    function fix(uint64 time, bytes calldata header, bytes calldata parent, bytes calldata oldest) external returns (bytes32 value) {
        value = _values[time];
        if (value != 0) return value;
        if (block.timestamp < time) revert TimeNotReached(time, block.timestamp);
        uint256 blockNumber;
        uint64 effectiveTime;
        if (source == Source.Beacon) {
            blockNumber = block.number;
            (value, effectiveTime) = beacon.randomnessAt(time);
        } else {
            if (header.length == 0) revert RandomnessNotFixed(time);
            effectiveTime = oldest.length == 0 ? time : _afterStale(time, oldest);
            (value, blockNumber) = _prove(effectiveTime, header, parent);
        }
        if (value == 0) revert NoEntropy(blockNumber);
        _values[time] = value;
        emit RandomnessFixed(time, effectiveTime, blockNumber, value);
    }

    /// @inheritdoc IRandomness
    function valueOf(uint64 time) external view returns (bytes32 value) {
        value = _values[time];
        if (value == 0) revert RandomnessNotFixed(time);
    }

    /// @inheritdoc IRandomness
    function isFixed(uint64 time) external view returns (bool) {
        return _values[time] != 0;
    }

    /// @notice The block whose header shows that a time is stale, in the current block; constant over some blocks.
    /// A time is proven by a younger block. 0 while the chain is younger than its history.
    function oldestBlock() public view returns (uint256) {
        bool history = HISTORY.code.length != 0;
        uint256 window = history ? HISTORY_BLOCKS : OPCODE_BLOCKS;
        uint256 step = history ? HISTORY_STEP_BLOCKS : OPCODE_STEP_BLOCKS;
        if (block.number <= window) return 0;
        return ((block.number - window + step - 1) / step) * step;
    }

    /// @dev The first of the times T + k * staleAfter, k >= 1, that is later than the oldest block. Reverts when T itself is later.
    function _afterStale(uint64 time, bytes memory oldest) private view returns (uint64) {
        (Memory.Slice[] memory fields, uint256 blockNumber,) = _verified(oldest);
        if (blockNumber != oldestBlock()) revert NotOldestBlock(blockNumber, oldestBlock());
        uint256 timestamp = BlockHeader.getTimestamp(fields);
        if (timestamp < time) revert NotStale(time, timestamp);
        uint256 k = (timestamp - time) / staleAfterSeconds + 1;
        return uint64(time + k * staleAfterSeconds);
    }

    /// @dev Proves that `header` is the first block at or after `time` and returns its entropy.
    function _prove(uint64 time, bytes memory header, bytes memory parent) private view returns (bytes32 value, uint256 blockNumber) {
        Memory.Slice[] memory fields;
        bytes32 hash;
        (fields, blockNumber, hash) = _verified(header);
        // The oldest block counts as gone, even while its hash can still be read.
        if (blockNumber <= oldestBlock()) revert HeaderNotInHistory(blockNumber, hash, 0);
        bytes32 parentHash = BlockHeader.getParentHash(fields);
        if (keccak256(parent) != parentHash) revert ParentMismatch(keccak256(parent), parentHash);
        uint256 timestamp = BlockHeader.getTimestamp(fields);
        if (timestamp < time) revert TimeNotReached(time, timestamp);
        uint256 parentTimestamp = BlockHeader.getTimestamp(parent);
        if (parentTimestamp >= time) revert NotFirstBlock(time, parentTimestamp, timestamp);
        value = BlockHeader.getPrevRandao(fields);
        if (value == 0) revert NoEntropy(blockNumber);
        if (source == Source.TrustedOperator) value = keccak256(abi.encodePacked(value, BlockHeader.getCoinbase(fields)));
    }

    function _verified(bytes memory header) private view returns (Memory.Slice[] memory fields, uint256 blockNumber, bytes32 hash) {
        fields = BlockHeader.parseHeader(header);
        blockNumber = BlockHeader.getNumber(fields);
        hash = keccak256(header);
        bytes32 expected = _historyHash(blockNumber);
        if (hash != expected) revert HeaderNotInHistory(blockNumber, hash, expected);
    }

    /// @dev Zero when the block is not in the history.
    function _historyHash(uint256 blockNumber) private view returns (bytes32 hash) {
        if (HISTORY.code.length == 0) return blockhash(blockNumber);
        (bool found, bytes memory answer) = HISTORY.staticcall(abi.encode(blockNumber));
        return found && answer.length == 32 ? abi.decode(answer, (bytes32)) : bytes32(0);
    }
}
