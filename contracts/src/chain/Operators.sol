// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IOperators} from "./IOperators.sol";
import {IParameters} from "./IParameters.sol";

/// @title Operators: who runs nodes, with which keys, reachable where. One registry for all networks, no owner.
/// @notice Keys of one operator may be equal, at its own risk: only an owner key that differs from the node key protects the stake from a stolen node.
contract Operators is IOperators, EIP712 {
    struct Rotation {
        address newKey;
        uint64 effectiveFrom; // 0: none pending
    }

    bytes32 private constant NODE_KEY_CONSENT = keccak256("NodeKeyConsent(address owner,address nodeKey)");
    bytes32 private constant ROTATION_DELAY = "operators.rotationDelay";
    uint256 public constant ENDPOINT_BYTES_MAX = 200;

    IParameters public immutable parameters;

    /// @inheritdoc IOperators
    uint64 public operatorCount;
    mapping(uint64 operatorId => Operator) private _operators;
    mapping(uint64 operatorId => mapping(Role => Rotation)) private _rotations;
    /// @inheritdoc IOperators
    mapping(address nodeKey => uint64) public operatorOfNodeKey;

    modifier onlyOwner(uint64 operatorId) {
        address owner = _known(operatorId).owner;
        if (msg.sender != owner) revert NotOwner(operatorId, msg.sender, owner);
        _;
    }

    constructor(IParameters parameters_) EIP712("Millrace Operators", "1") {
        parameters = parameters_;
    }

    /// @inheritdoc IOperators
    function register(
        address nodeKey,
        address beneficiary,
        bytes32 transportKey,
        string calldata endpoint,
        bytes32 region,
        bytes calldata nodeKeySignature
    ) external returns (uint64 operatorId) {
        if (beneficiary == address(0)) revert ZeroAddress();
        operatorId = ++operatorCount;
        Operator storage entry = _operators[operatorId];
        entry.owner = msg.sender;
        entry.beneficiary = beneficiary;
        _takeNodeKey(operatorId, nodeKey, nodeKeySignature);
        emit OperatorRegistered(operatorId, msg.sender, nodeKey, beneficiary);
        _writeEndpoint(operatorId, transportKey, endpoint, region);
    }

    /// @inheritdoc IOperators
    function setEndpoint(uint64 operatorId, bytes32 transportKey, string calldata endpoint, bytes32 region) external {
        Operator storage entry = _known(operatorId);
        if (msg.sender != entry.owner && msg.sender != entry.nodeKey) revert NotOwnerOrNodeKey(operatorId, msg.sender);
        _writeEndpoint(operatorId, transportKey, endpoint, region);
    }

    /// @inheritdoc IOperators
    function setNodeKey(uint64 operatorId, address newKey, bytes calldata newKeySignature) external onlyOwner(operatorId) {
        address oldKey = _operators[operatorId].nodeKey;
        delete operatorOfNodeKey[oldKey];
        _takeNodeKey(operatorId, newKey, newKeySignature);
        emit NodeKeyChanged(operatorId, oldKey, newKey);
    }

    /// @inheritdoc IOperators
    /// @dev A second request replaces the first and starts the delay anew.
    function requestRotation(uint64 operatorId, Role role, address newKey) external onlyOwner(operatorId) {
        if (newKey == address(0)) revert ZeroAddress();
        uint64 effectiveFrom = uint64(block.timestamp) + rotationDelaySeconds();
        _rotations[operatorId][role] = Rotation(newKey, effectiveFrom);
        emit RotationRequested(operatorId, role, newKey, effectiveFrom);
    }

    /// @inheritdoc IOperators
    function cancelRotation(uint64 operatorId, Role role) external onlyOwner(operatorId) {
        if (_rotations[operatorId][role].effectiveFrom == 0) revert NoRotationPending(operatorId, role);
        _dropRotation(operatorId, role);
    }

    /// @inheritdoc IOperators
    /// @dev A new owner starts clean: a change of beneficiary that the old owner had pending is cancelled.
    function finishRotation(uint64 operatorId, Role role) external {
        Operator storage entry = _known(operatorId);
        Rotation memory rotation = _rotations[operatorId][role];
        if (rotation.effectiveFrom == 0) revert NoRotationPending(operatorId, role);
        if (block.timestamp < rotation.effectiveFrom) revert RotationTooEarly(rotation.effectiveFrom, block.timestamp);
        if (role == Role.Owner && msg.sender != rotation.newKey) revert NotOwner(operatorId, msg.sender, rotation.newKey);
        delete _rotations[operatorId][role];
        address oldKey;
        if (role == Role.Owner) {
            (oldKey, entry.owner) = (entry.owner, rotation.newKey);
            if (_rotations[operatorId][Role.Beneficiary].effectiveFrom != 0) _dropRotation(operatorId, Role.Beneficiary);
        } else {
            (oldKey, entry.beneficiary) = (entry.beneficiary, rotation.newKey);
        }
        emit RotationFinished(operatorId, role, oldKey, rotation.newKey);
    }

    /// @inheritdoc IOperators
    function operator(uint64 operatorId) external view returns (Operator memory) {
        return _known(operatorId);
    }

    /// @notice The change that is waiting; `effectiveFrom` 0 means none.
    function rotationOf(uint64 operatorId, Role role) external view returns (address newKey, uint64 effectiveFrom) {
        Rotation memory rotation = _rotations[operatorId][role];
        return (rotation.newKey, rotation.effectiveFrom);
    }

    /// @inheritdoc IOperators
    function ownerOf(uint64 operatorId) external view returns (address) {
        return _known(operatorId).owner;
    }

    /// @inheritdoc IOperators
    function nodeKeyOf(uint64 operatorId) external view returns (address) {
        return _known(operatorId).nodeKey;
    }

    /// @inheritdoc IOperators
    function beneficiaryOf(uint64 operatorId) external view returns (address) {
        return _known(operatorId).beneficiary;
    }

    /// @inheritdoc IOperators
    function keysOf(uint64 operatorId) external view returns (address[3] memory) {
        Operator storage entry = _known(operatorId);
        return [entry.owner, entry.nodeKey, entry.beneficiary];
    }

    /// @inheritdoc IOperators
    function rotationDelaySeconds() public view returns (uint64) {
        return uint64(parameters.get(ROTATION_DELAY));
    }

    /// @notice What a node key signs (EIP-712) to work for the operators of `owner`.
    function nodeKeyConsentDigest(address owner, address nodeKey) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(NODE_KEY_CONSENT, owner, nodeKey)));
    }

    function _takeNodeKey(uint64 operatorId, address nodeKey, bytes calldata signature) private {
        if (nodeKey == address(0)) revert ZeroAddress();
        if (operatorOfNodeKey[nodeKey] != 0) revert KeyInUse(nodeKey, operatorOfNodeKey[nodeKey]);
        (address signer,,) = ECDSA.tryRecoverCalldata(nodeKeyConsentDigest(msg.sender, nodeKey), signature);
        if (signer != nodeKey) revert BadNodeKeySignature(nodeKey);
        operatorOfNodeKey[nodeKey] = operatorId;
        _operators[operatorId].nodeKey = nodeKey;
    }

    function _writeEndpoint(uint64 operatorId, bytes32 transportKey, string calldata endpoint, bytes32 region) private {
        if (bytes(endpoint).length > ENDPOINT_BYTES_MAX) revert EndpointTooLong(bytes(endpoint).length, ENDPOINT_BYTES_MAX);
        Operator storage entry = _operators[operatorId];
        entry.transportKey = transportKey;
        entry.endpoint = endpoint;
        entry.region = region;
        emit EndpointChanged(operatorId, transportKey, endpoint, region);
    }

    function _dropRotation(uint64 operatorId, Role role) private {
        delete _rotations[operatorId][role];
        emit RotationCancelled(operatorId, role);
    }

    function _known(uint64 operatorId) private view returns (Operator storage entry) {
        entry = _operators[operatorId];
        if (entry.owner == address(0)) revert UnknownOperator(operatorId);
    }
}
