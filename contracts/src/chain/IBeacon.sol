// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title A randomness beacon for chains whose prevRandao is constant or chosen by a sequencer.
interface IBeacon {
    /// @notice The value of the first round at or after `time`; always the same for one time. Reverts while that round is not known.
    /// @return value the round's randomness, verified by the beacon contract
    /// @return roundTime when the round was due (>= time)
    function randomnessAt(uint64 time) external view returns (bytes32 value, uint64 roundTime);
}
