// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {IModule, IRegistry} from "./IRegistry.sol";

/// @notice What the registry asks of the stake vault.
interface IStakeLocks {
    function withdrawalDelaySeconds() external view returns (uint64);
    function lockedBy(address module) external view returns (uint256);
}

/// @title Registry: names of modules, and which of them may lock and slash stake.
/// @notice The deployer fills it and seals it; then only the module named "timelock" may change it. Contracts that others hold as immutables
/// (operators, parameters, networkToken, emission, stakeVault, rails) keep their names for ever after the seal.
contract Registry is IRegistry {
    using EnumerableSet for EnumerableSet.AddressSet;

    bytes32 private constant TIMELOCK = "timelock";
    bytes32 private constant STAKE_VAULT = "stakeVault";
    /// Keeps checkExposure far below any block's gas.
    uint256 public constant SLASHERS_MAX = 32;

    address public immutable deployer;
    bool public isSealed;

    mapping(bytes32 name => address) private _modules;
    EnumerableSet.AddressSet private _slashers;

    error ModuleHasNoCode(bytes32 name, address module);
    error ModuleIsFixed(bytes32 name, address module);
    error TooManySlashers(uint256 limit);
    error NotASlasher(address module);

    modifier onlyAuthority() {
        if (msg.sender != authority()) revert NotAuthorised(msg.sender);
        _;
    }

    constructor(address deployer_) {
        deployer = deployer_;
    }

    /// @inheritdoc IRegistry
    /// @dev `slasher` false does not take the right away from a module that has it: only `retire` does.
    function set(bytes32 name, address module, bool slasher) external onlyAuthority {
        if (module.code.length == 0) revert ModuleHasNoCode(name, module);
        if (isSealed && _modules[name] != address(0) && _isFixed(name)) revert ModuleIsFixed(name, _modules[name]);
        _modules[name] = module;
        if (slasher && _slashers.add(module) && _slashers.length() > SLASHERS_MAX) revert TooManySlashers(SLASHERS_MAX);
        emit ModuleSet(name, module, slasher);
        checkExposure();
    }

    /// @inheritdoc IRegistry
    function retire(address module) external onlyAuthority {
        uint256 locked = IStakeLocks(get(STAKE_VAULT)).lockedBy(module);
        if (locked != 0) revert ModuleStillLocks(module, locked);
        if (!_slashers.remove(module)) revert NotASlasher(module);
        emit SlasherRetired(module);
    }

    /// @inheritdoc IRegistry
    function seal() external {
        if (isSealed) revert AlreadySealed();
        if (msg.sender != deployer) revert NotAuthorised(msg.sender);
        isSealed = true;
        emit Sealed(get(TIMELOCK));
    }

    /// @inheritdoc IRegistry
    function get(bytes32 name) public view returns (address module) {
        module = _modules[name];
        if (module == address(0)) revert UnknownModule(name);
    }

    /// @inheritdoc IRegistry
    function isSlasher(address module) external view returns (bool) {
        return _slashers.contains(module);
    }

    /// @inheritdoc IRegistry
    function slashers() external view returns (address[] memory) {
        return _slashers.values();
    }

    /// @notice Who may change the registry now: the deployer before the seal, the timelock after it.
    function authority() public view returns (address) {
        return isSealed ? _modules[TIMELOCK] : deployer;
    }

    /// @inheritdoc IRegistry
    function checkExposure() public view {
        uint256 count = _slashers.length();
        if (count == 0) return;
        uint64 delay = IStakeLocks(get(STAKE_VAULT)).withdrawalDelaySeconds();
        for (uint256 i; i < count; ++i) {
            address module = _slashers.at(i);
            uint64 exposure = IModule(module).exposureSeconds();
            if (exposure > delay) revert ExposureNotCovered(module, exposure, delay);
        }
    }

    function _isFixed(bytes32 name) private pure returns (bool) {
        return name == STAKE_VAULT || name == "operators" || name == "parameters" || name == "networkToken" || name == "emission"
            || name == "rails";
    }
}
