// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Randomness for all networks: the value for time T comes from the first block whose timestamp is >= T.
/// @notice Anyone proves that block by its header and its parent's header against the EIP-2935 history contract
/// (BLOCKHASH only where that contract is absent). The value is stored once. When the block of T has left the history
/// unproven, T is replaced by the fixed later times T + k * staleAfter, k = 1, 2, ...: nobody chooses k, because each
/// earlier time must be shown to be stale.
interface IRandomness {
    /// Where a header's entropy is taken from.
    enum Source {
        /// The header's prevRandao: sound where no single party chooses it.
        PrevRandao,
        /// prevRandao and the fee recipient, which the embedded chain's supervisor draws at random: TRUSTED OPERATOR.
        TrustedOperator,
        /// A declared beacon contract (`IBeacon`), for chains whose prevRandao is constant or chosen by a sequencer.
        Beacon
    }

    event RandomnessFixed(uint64 indexed time, uint64 effectiveTime, uint256 blockNumber, bytes32 value);

    error TimeNotReached(uint64 time, uint256 timestamp);
    error RandomnessNotFixed(uint64 time);
    error HeaderNotInHistory(uint256 blockNumber, bytes32 got, bytes32 expected);
    error NotFirstBlock(uint64 time, uint256 parentTimestamp, uint256 timestamp);
    error ParentMismatch(bytes32 got, bytes32 expected);
    error NotStale(uint64 time, uint256 oldestTimestamp);

    /// @notice Proves and stores the value of `time`. `header` is the RLP of the first block at or after the effective
    /// time, `parent` the RLP of its parent. `oldest` is empty when `time` itself is proven; when it is stale, it is
    /// the RLP of the oldest block still in the history window, which proves the staleness.
    /// Does nothing and returns the stored value when it is already fixed.
    function fix(uint64 time, bytes calldata header, bytes calldata parent, bytes calldata oldest) external returns (bytes32 value);
    /// @notice Reverts with RandomnessNotFixed when nobody has proven it yet.
    function valueOf(uint64 time) external view returns (bytes32);
    function isFixed(uint64 time) external view returns (bool);
    function source() external view returns (Source);
    function staleAfterSeconds() external view returns (uint64);
}
