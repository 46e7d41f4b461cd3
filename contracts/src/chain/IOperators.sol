// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Operators: who runs nodes, with which keys, reachable where. One registry for all networks.
/// @notice An operator is a number. Its owner key is cold and alone moves stake and keys; its node key is hot and only
/// works (signs deals, sends proofs); its beneficiary receives earnings. Owner and beneficiary change with a delay, so
/// that a stolen hot key moves neither stake nor earnings and a stolen owner key is noticed in time.
interface IOperators {
    struct Operator {
        address owner;
        address nodeKey;
        address beneficiary;
        /// SHA-256 of the DER SubjectPublicKeyInfo of the node's TLS key; peers pin it.
        bytes32 transportKey;
        /// `https://host:port`, at most 200 bytes.
        string endpoint;
        /// Highest IP prefix etc. are added by later modules; free-form region label, at most 32 bytes.
        bytes32 region;
    }

    enum Role {
        Owner,
        Beneficiary
    }

    event OperatorRegistered(uint64 indexed operatorId, address indexed owner, address indexed nodeKey, address beneficiary);
    event EndpointChanged(uint64 indexed operatorId, bytes32 transportKey, string endpoint, bytes32 region);
    event NodeKeyChanged(uint64 indexed operatorId, address oldKey, address newKey);
    event RotationRequested(uint64 indexed operatorId, Role role, address newKey, uint64 effectiveFrom);
    event RotationCancelled(uint64 indexed operatorId, Role role);
    event RotationFinished(uint64 indexed operatorId, Role role, address oldKey, address newKey);

    error UnknownOperator(uint64 operatorId);
    error NotOwner(uint64 operatorId, address caller, address owner);
    error NotOwnerOrNodeKey(uint64 operatorId, address caller);
    error KeyInUse(address key, uint64 operatorId);
    error ZeroAddress();
    error EndpointTooLong(uint256 length, uint256 limit);
    error BadNodeKeySignature(address nodeKey);
    error NoRotationPending(uint64 operatorId, Role role);
    error RotationTooEarly(uint64 effectiveFrom, uint256 timestamp);

    /// @notice Registers `msg.sender` as owner of a new operator. The node key agrees by an EIP-712 signature of
    /// `NodeKeyConsent(address owner,address nodeKey)` (domain "Millrace Operators", "1"), so nobody can squat a key.
    function register(address nodeKey, address beneficiary, bytes32 transportKey, string calldata endpoint, bytes32 region, bytes calldata nodeKeySignature)
        external
        returns (uint64 operatorId);
    /// @notice Owner or node key says where the node is reached.
    function setEndpoint(uint64 operatorId, bytes32 transportKey, string calldata endpoint, bytes32 region) external;
    /// @notice The owner replaces the hot key at once (a stolen hot key must be shut out fast).
    function setNodeKey(uint64 operatorId, address newKey, bytes calldata newKeySignature) external;
    /// @notice The owner starts a delayed change of owner or beneficiary.
    function requestRotation(uint64 operatorId, Role role, address newKey) external;
    function cancelRotation(uint64 operatorId, Role role) external;
    /// @notice Anyone may finish it after the delay; a new owner must call it itself (proves that the key exists).
    function finishRotation(uint64 operatorId, Role role) external;

    function operator(uint64 operatorId) external view returns (Operator memory);
    function operatorCount() external view returns (uint64);
    /// @return 0 when the key belongs to nobody.
    function operatorOfNodeKey(address nodeKey) external view returns (uint64);
    function ownerOf(uint64 operatorId) external view returns (address);
    function nodeKeyOf(uint64 operatorId) external view returns (address);
    function beneficiaryOf(uint64 operatorId) external view returns (address);
    /// @notice Owner, node key and beneficiary, for whoever compares them with others'.
    function keysOf(uint64 operatorId) external view returns (address[3] memory);
    function rotationDelaySeconds() external view returns (uint64);
}
