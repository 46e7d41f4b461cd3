// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice What every module that may lock or slash stake says of itself.
interface IModule {
    /// @return Longest time from an offence to the last possible slash for it: evidence + dispute + appeal, in seconds.
    function exposureSeconds() external view returns (uint64);
}

/// @title Registry: names of modules, and which of them may lock and slash stake. Owned by the timelock after `seal`.
interface IRegistry {
    event ModuleSet(bytes32 indexed name, address indexed module, bool slasher);
    event SlasherRetired(address indexed module);
    event Sealed(address timelock);

    error UnknownModule(bytes32 name);
    error NotAuthorised(address caller);
    error AlreadySealed();
    /// The withdrawal delay must cover evidence, dispute and appeal of every module.
    error ExposureNotCovered(address module, uint64 exposureSeconds, uint64 withdrawalDelaySeconds);
    error ModuleStillLocks(address module, uint256 locked);

    /// @notice Points `name` at `module`; an old slasher keeps its right until `retire`, for deals that finish under old code.
    function set(bytes32 name, address module, bool slasher) external;
    function retire(address module) external;
    /// @notice Ends the deployer's set-up right for ever; afterwards only the timelock may call `set` and `retire`.
    function seal() external;
    function get(bytes32 name) external view returns (address);
    function isSlasher(address module) external view returns (bool);
    function slashers() external view returns (address[] memory);
    /// @notice Reverts unless the vault's withdrawal delay covers every slasher's exposure. Called after each change of a window.
    function checkExposure() external view;
}
