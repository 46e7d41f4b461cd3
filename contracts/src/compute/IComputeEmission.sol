// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title ComputeEmission: the compute network's own token and its only minter, by a schedule that nobody can change (decision 0028).
/// @notice 500 million exist at launch, 300 million come hour by hour (ComputeSchedule), 800 million are the most that will ever have been
/// minted. What is due goes to the module registered as "computeRewards", which shares each hour's emission out among suppliers and backers;
/// while none is registered minting reverts with UnknownModule and nothing is lost: what is due stays due. One step or many: the same.
interface IComputeEmission {
    event Minted(uint64 indexed hour, address indexed to, uint256 amount);

    error LaunchSupplyDiffers(uint256 got, uint256 expected);

    /// @notice Anybody: mints what is due up to the last hour that is over; 0 when nothing is due.
    function mint() external returns (uint256 amount);
    function token() external view returns (address);
    /// @notice Greatest amount that will ever be minted besides the launch supply, base units.
    function emissionMax() external view returns (uint256);
    /// @notice Minted by the schedule so far.
    function emitted() external view returns (uint256);
    /// @notice Due by the schedule up to now, minted or not.
    function scheduled() external view returns (uint256);
    /// @notice Hours that are over since the start.
    function hoursPassed() external view returns (uint64);
    /// @notice What hour `hour` brings; hours count from 1, and after the last one bring nothing.
    function emissionOf(uint64 hour) external view returns (uint256);
}
