// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice What baseline minting asks of the module registered as "power".
interface IPowerMeter {
    /// @notice Bytes of storage that count for emission now. The meter calls `checkpoint` right after each change of it.
    function powerBytes() external view returns (uint256);
}

/// @title An emission policy: the only minter of the network's token, by a schedule that nobody can change.
/// @notice What is due goes to the module registered as "rewards", which shares it out by proven work; while none is registered minting reverts with
/// UnknownModule and nothing is lost: what is due stays due. Minting in one step or in many gives the same.
interface IEmissionPolicy {
    event Minted(uint64 indexed epoch, address indexed to, uint256 amount);
    event PowerNoted(uint64 indexed epoch, uint256 powerBytes);

    error GenesisTooLarge(uint256 total, uint256 limit);

    /// @notice Mints what is due to the rewards module. Anyone, at any time; 0 when nothing is due.
    function mint() external returns (uint256 amount);
    /// @notice Brings the count of power up to now and reads the power that counts from now on. Anyone, at any time.
    function checkpoint() external;
    function token() external view returns (address);
    /// @notice Greatest number of tokens (base units) that this policy will ever mint, besides genesis.
    function emissionMax() external view returns (uint256);
    /// @notice Minted by the schedule so far.
    function emitted() external view returns (uint256);
    /// @notice Due by the schedule up to now, minted or not.
    function scheduled() external view returns (uint256);
    /// @notice Epochs completed since the start.
    function epoch() external view returns (uint64);
}
