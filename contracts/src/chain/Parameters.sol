// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IParameters} from "./IParameters.sol";
import {IRegistry} from "./IRegistry.sol";

/// @title Parameters: the numbers that a vote may move (see IParameters). Obeys the module that the registry names "timelock".
contract Parameters is IParameters {
    bytes32 private constant TIMELOCK = "timelock";
    uint64 private constant INTERVAL_MAX_SECONDS = 3650 days;

    IRegistry public immutable registry;

    bytes32[] private _keys;
    mapping(bytes32 key => Entry) private _entries;
    mapping(bytes32 key => uint64) private _changedAt;

    /// @param entries every parameter there will ever be, with its first value
    constructor(IRegistry registry_, Entry[] memory entries) {
        registry = registry_;
        for (uint256 i; i < entries.length; ++i) {
            Entry memory entry = entries[i];
            if (_changedAt[entry.key] != 0) revert DuplicateParameter(entry.key);
            bool outside = entry.value < entry.min || entry.value > entry.max;
            if (outside || entry.maxStep == 0 || entry.minIntervalSeconds > INTERVAL_MAX_SECONDS) {
                revert BadBounds(entry.key, entry.value, entry.min, entry.max, entry.maxStep);
            }
            _keys.push(entry.key);
            _entries[entry.key] = entry;
            _changedAt[entry.key] = uint64(block.timestamp);
            emit ParameterSet(entry.key, 0, entry.value);
        }
    }

    /// @inheritdoc IParameters
    function set(bytes32 key, uint256 value) external {
        address timelock = registry.get(TIMELOCK);
        if (msg.sender != timelock) revert NotTimelock(msg.sender, timelock);
        Entry storage entry = _known(key);
        uint256 old = entry.value;
        if (value < entry.min || value > entry.max) revert OutOfBounds(key, value, entry.min, entry.max);
        uint256 step = value > old ? value - old : old - value;
        if (step > entry.maxStep) revert StepTooLarge(key, step, entry.maxStep);
        uint64 notBefore = _changedAt[key] + entry.minIntervalSeconds;
        if (block.timestamp < notBefore) revert ChangedTooRecently(key, notBefore, block.timestamp);
        entry.value = value;
        _changedAt[key] = uint64(block.timestamp);
        emit ParameterSet(key, old, value);
        registry.checkExposure();
    }

    /// @inheritdoc IParameters
    function get(bytes32 key) external view returns (uint256) {
        return _known(key).value;
    }

    /// @inheritdoc IParameters
    function bounds(bytes32 key) external view returns (Entry memory entry, uint64 changedAt) {
        return (_known(key), _changedAt[key]);
    }

    /// @inheritdoc IParameters
    function keys() external view returns (bytes32[] memory) {
        return _keys;
    }

    function _known(bytes32 key) private view returns (Entry storage) {
        if (_changedAt[key] == 0) revert UnknownParameter(key);
        return _entries[key];
    }
}
