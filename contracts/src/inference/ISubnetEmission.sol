// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title SubnetEmission: the inference token, minted block by block, shared between subnets (decision 0021).
/// @notice A block of emission every 12 seconds: one token at first, halved whenever half of what was left has been issued, 21 million
/// at most. Blocks while no subnet has a share issue nothing. In one step or in many: the same. Each subnet gets of every block what its
/// share is of all shares; shares are set by the module "emissionShares" alone. What is due for a closed epoch is minted to the module
/// "subnetEpochs" and to nobody else.
interface ISubnetEmission {
    event Issued(uint256 blocks, uint256 amount, uint256 issued);
    event ShareSet(uint64 indexed subnetId, uint256 share, uint256 totalShares);
    event Assigned(uint64 indexed subnetId, uint64 indexed epoch, uint256 amount);
    event Collected(uint64 indexed subnetId, uint64 indexed epoch, address indexed to, uint256 amount);

    error NotModule(address caller, bytes32 module);
    error ShareTooLarge(uint256 share, uint256 limit);
    error AlreadyAssigned(uint64 subnetId, uint64 epoch);
    error NothingDue(uint64 subnetId, uint64 epoch);

    /// @notice Anybody: issues the blocks that are over.
    function issue() external returns (uint256 amount);
    /// @notice The module "emissionShares" alone.
    function setShare(uint64 subnetId, uint256 share) external;
    /// @notice The module "subnets" alone, when it closes an epoch: what the subnet got since `from`, by time up to `until`, is due for it.
    function assign(uint64 subnetId, uint64 epoch, uint256 from, uint256 until) external returns (uint256 amount);
    /// @notice The module "subnetEpochs" alone: mints to it what is due for an epoch; once.
    function collect(uint64 subnetId, uint64 epoch) external returns (uint256 amount);

    function token() external view returns (address);
    function cap() external view returns (uint256);
    /// @notice Issued so far, minted or not. The rate of blocks follows from it alone.
    function issued() external view returns (uint256);
    function rateAt(uint256 issued_) external view returns (uint256);
    /// @notice What a closed epoch has to share out: assigned, collected or not.
    function emissionOf(uint64 subnetId, uint64 epoch) external view returns (uint256);
    /// @notice Got by a subnet up to the last issue, and not yet due for any epoch.
    function unassignedOf(uint64 subnetId) external view returns (uint256);
    function shareOf(uint64 subnetId) external view returns (uint256);
    function totalShares() external view returns (uint256);
}

/// @title The policy that shares emission between subnets: a contract registered as "emissionShares", which calls `setShare`.
interface IEmissionShares {
    /// @notice The module "subnets" alone: so much of the network's token was burnt for a subnet.
    function burntFor(uint64 subnetId, uint256 amount) external;
    /// @notice The module "subnets" alone: the subnet is no more.
    function dissolved(uint64 subnetId) external;
}
