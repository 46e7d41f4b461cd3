// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ISubnetEmission} from "./ISubnetEmission.sol";
import {ISubnets} from "./ISubnets.sol";
import {SubnetBase} from "./SubnetBase.sol";
import {SubnetPlaces} from "./SubnetPlaces.sol";

/// @title Subnets: see ISubnets for the rules. No owner, no parameter that can change; a subnet's own rules are its owner's, in bounds.
/// @notice This part: epochs are closed and their results recorded.
contract Subnets is SubnetPlaces {
    /// @notice An epoch that nobody closed for so many epochs may be passed over. As WeightsBoard.RETAINED_EPOCHS.
    uint64 public constant RETAINED_EPOCHS = 16;
    uint256 private constant RECORD_BYTES = 26;

    mapping(uint64 subnetId => uint64) private _closedThrough; // last closed epoch + 1
    /// @inheritdoc ISubnets
    mapping(uint64 subnetId => mapping(uint64 epoch => bytes32)) public metagraphHash;

    constructor(Config memory c, IRegistry registry_, IOperators operators_, IStakeVault vault_, ISubnetEmission emission_)
        SubnetBase(c, registry_, operators_, vault_, emission_)
    {}

    /// @inheritdoc ISubnets
    function closeEpoch(uint64 subnetId, uint64 epoch) external returns (bytes32 hash, uint256 amount) {
        uint64 next = nextToClose(subnetId);
        if (epoch != next) revert EpochNotNext(subnetId, epoch, next);
        bytes memory graph = metagraph(subnetId, epoch);
        hash = keccak256(graph);
        metagraphHash[subnetId][epoch] = hash;
        uint256 from = epochStart(subnetId, _closedThrough[subnetId]);
        _closedThrough[subnetId] = epoch + 1;
        amount = emission.assign(subnetId, epoch, from, epochStart(subnetId, epoch + 1));
        emit EpochClosed(subnetId, epoch, amount, graph);
    }

    /// @inheritdoc ISubnets
    function record(uint64 subnetId, uint64 epoch, uint256 newPermits, bytes calldata ranks) external onlyModule("subnetEpochs") {
        if (metagraphHash[subnetId][epoch] == 0) revert EpochNotClosed(subnetId, epoch);
        uint64 last = _recordedThrough[subnetId];
        if (epoch < last) revert RanksOutOfOrder(subnetId, epoch, last - 1);
        if (ranks.length > 4 * UIDS_LIMIT || ranks.length % 4 != 0) revert OutOfRange("ranks", ranks.length, 0, 4 * UIDS_LIMIT);
        _recordedThrough[subnetId] = epoch + 1;
        _settledAt[subnetId] = block.timestamp;
        _setRanks(subnetId, ranks);
        (uint64 from, uint256 given) = _setPermits(subnetId, newPermits, epochStart(subnetId, epoch + 1));
        emit RanksRecorded(subnetId, epoch, from, given, ranks);
    }

    /// @inheritdoc ISubnets
    function nextToClose(uint64 subnetId) public view returns (uint64) {
        uint64 present = _present(subnetId);
        uint64 oldest = present > RETAINED_EPOCHS ? present - RETAINED_EPOCHS : 0;
        return uint64(Math.max(_closedThrough[subnetId], oldest));
    }

    /// @inheritdoc ISubnets
    function metagraph(uint64 subnetId, uint64 epoch) public view returns (bytes memory graph) {
        (uint256 start, uint256 end) = (epochStart(subnetId, epoch), epochStart(subnetId, epoch + 1));
        if (block.timestamp < end) revert EpochNotOver(subnetId, epoch, end, block.timestamp);
        uint256 count = _subnets[subnetId].uidCount;
        graph = new bytes(32 + count * RECORD_BYTES + 32); // room for the last store
        uint256 permits = permitsAt(subnetId, epoch);
        assembly ("memory-safe") {
            mstore(add(graph, 32), permits)
        }
        uint256 length = 32;
        for (uint256 uid; uid < count; ++uid) {
            Holder memory holder = holderAt(subnetId, uint16(uid), end - 1);
            if (holder.operatorId == 0) break; // this uid and all later ones were first taken after the epoch
            uint256 stake = Math.min(vault.stakeAt(holder.operatorId, start - 1), vault.stakeAt(holder.operatorId, end - 1));
            uint256 packed = uint256(holder.operatorId) << 192 | uint256(holder.registeredAt) << 144 | stake << 48;
            assembly ("memory-safe") {
                mstore(add(add(graph, 32), length), packed)
            }
            length += RECORD_BYTES;
        }
        assembly ("memory-safe") {
            mstore(graph, length)
        }
    }
}
