// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Parameters: the numbers that a vote may move, each within hard bounds, by at most one step per interval.
/// @notice Bounds are given at deployment and can never change, so a captured vote cannot set, say, a loss cap of 100 %.
interface IParameters {
    struct Entry {
        bytes32 key;
        uint256 value;
        uint256 min;
        uint256 max;
        /// Greatest difference between old and new value in one change.
        uint256 maxStep;
        /// Least time between two changes.
        uint64 minIntervalSeconds;
    }

    event ParameterSet(bytes32 indexed key, uint256 oldValue, uint256 newValue);

    error UnknownParameter(bytes32 key);
    error DuplicateParameter(bytes32 key);
    error NotTimelock(address caller, address timelock);
    error BadBounds(bytes32 key, uint256 value, uint256 min, uint256 max, uint256 maxStep);
    error OutOfBounds(bytes32 key, uint256 got, uint256 min, uint256 max);
    error StepTooLarge(bytes32 key, uint256 got, uint256 maxStep);
    error ChangedTooRecently(bytes32 key, uint64 notBefore, uint256 timestamp);

    /// @notice Only the timelock. Refused when afterwards the withdrawal delay would not cover every module's exposure.
    function set(bytes32 key, uint256 value) external;
    /// @notice Reverts with UnknownParameter for a key that was not declared at deployment.
    function get(bytes32 key) external view returns (uint256);
    /// @return entry the value and its bounds
    /// @return changedAt time of the last change, at first the deployment
    function bounds(bytes32 key) external view returns (Entry memory entry, uint64 changedAt);
    function keys() external view returns (bytes32[] memory);
}
