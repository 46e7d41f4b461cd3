// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnetEpochs} from "./ISubnetEpochs.sol";
import {ISubnets} from "./ISubnets.sol";
import {IWeightsBoard} from "./IWeightsBoard.sol";
import {YumaConsensusMode, YumaMode, YumaParameters} from "./YumaTypes.sol";

/// @title What is handed in to settle an epoch, checked against the chain and turned into the arguments of Yuma.
library EpochEvidence {
    uint256 private constant HEAD_BYTES = 32; // permits
    uint256 private constant RECORD_BYTES = 26; // operatorId:u64 registeredAt:u48 stake:u96

    /// @dev What WeightsBoard says of the uids with a permit.
    struct Rows {
        uint16[] uids;
        uint48[] registeredAt;
        bytes32[] hashes;
        uint48[] committedAt;
        uint256 unrevealed;
    }

    function count(bytes calldata metagraph) internal pure returns (uint256) {
        return metagraph.length < HEAD_BYTES ? 0 : (metagraph.length - HEAD_BYTES) / RECORD_BYTES;
    }

    /// @notice One uid of a metagraph; beyond its end: nobody.
    function recordOf(bytes calldata metagraph, uint256 uid)
        internal
        pure
        returns (uint256 operatorId, uint256 registeredAt, uint256 stake)
    {
        uint256 at = HEAD_BYTES + uid * RECORD_BYTES;
        if (at + RECORD_BYTES > metagraph.length) return (0, 0, 0);
        assembly ("memory-safe") {
            let word := calldataload(add(metagraph.offset, at))
            operatorId := shr(192, word)
            registeredAt := and(shr(144, word), 0xffffffffffff)
            stake := and(shr(48, word), 0xffffffffffffffffffffffff)
        }
    }

    /// @notice Asks the board for the rows of all uids with a permit.
    function readRows(IWeightsBoard board, uint64 subnetId, uint64 epoch, bytes calldata metagraph) internal view returns (Rows memory r) {
        uint256 n = count(metagraph);
        uint256 permits = n == 0 ? 0 : uint256(bytes32(metagraph[:HEAD_BYTES]));
        if (n < 256) permits &= (1 << n) - 1;
        uint256 m;
        for (uint256 set = permits; set != 0; set &= set - 1) {
            ++m;
        }
        (r.uids, r.registeredAt) = (new uint16[](m), new uint48[](m));
        m = 0;
        for (uint256 uid; permits >> uid != 0; ++uid) {
            if (permits >> uid & 1 == 0) continue;
            (, uint256 registeredAt,) = recordOf(metagraph, uid);
            (r.uids[m], r.registeredAt[m]) = (uint16(uid), uint48(registeredAt));
            if (++m == r.uids.length) break;
        }
        (r.hashes, r.committedAt, r.unrevealed) = board.rowsOf(subnetId, epoch, r.uids, r.registeredAt);
    }

    /// @notice Reverts unless `rows` are exactly those that were revealed, in order of uids.
    function checkRows(Rows memory r, bytes calldata rows) internal pure {
        uint256 at;
        for (uint256 i; i < r.uids.length; ++i) {
            if (r.hashes[i] == 0) continue;
            uint256 uid = r.uids[i];
            uint256 head;
            assembly ("memory-safe") {
                head := shr(224, calldataload(add(rows.offset, at)))
            }
            uint256 end = at + 4 + ((head & 0xffff) << 2);
            if (end > rows.length || head >> 16 != uid) revert ISubnetEpochs.MissingRow(uid, at);
            bytes32 hash = keccak256(rows[at + 4:end]);
            if (hash != r.hashes[i]) revert ISubnetEpochs.WrongRow(uid, hash, r.hashes[i]);
            at = end;
        }
        if (at != rows.length) revert ISubnetEpochs.ExtraRows(rows.length, at);
    }

    /// @notice The words that Yuma takes. A uid is active when it revealed a row, as of its commit.
    function uidWords(bytes calldata metagraph, Rows memory r) internal pure returns (bytes memory words) {
        uint256 n = count(metagraph);
        words = new bytes(n << 5);
        assembly ("memory-safe") {
            let from := add(metagraph.offset, HEAD_BYTES)
            let to := add(words, 32)
            for { let end := add(to, shl(5, n)) } lt(to, end) { to := add(to, 32) } {
                let word := shr(48, calldataload(from))
                // stake to the top, registration to its place
                mstore(to, or(shl(128, and(word, 0xffffffffffffffffffffffff)), shl(48, and(shr(96, word), 0xffffffffff))))
                from := add(from, RECORD_BYTES)
            }
        }
        for (uint256 i; i < r.uids.length; ++i) {
            uint256 uid = r.uids[i];
            uint256 more = uint256(r.committedAt[i]) << 88 | (r.unrevealed >> uid & 1) << 1 | 1;
            assembly ("memory-safe") {
                let p := add(add(words, 32), shl(5, uid))
                mstore(p, or(mload(p), more))
            }
        }
    }

    /// @notice The rows of bonds of a state, without those of validators that registered at `lastEpochAt` or later: they are not theirs.
    function bondsOf(bytes calldata metagraph, bytes calldata state, uint256 lastEpochAt) internal pure returns (bytes memory bonds) {
        bytes calldata rows = state[consensusEnd(state):];
        bonds = new bytes(rows.length);
        uint256 length;
        for (uint256 at; at < rows.length;) {
            uint256 head;
            assembly ("memory-safe") {
                head := shr(224, calldataload(add(rows.offset, at)))
            }
            uint256 size = 4 + ((head & 0xffff) << 2);
            (, uint256 registeredAt,) = recordOf(metagraph, head >> 16);
            if (registeredAt < lastEpochAt) {
                assembly ("memory-safe") {
                    calldatacopy(add(add(bonds, 32), length), add(rows.offset, at), size)
                }
                length += size;
            }
            at += size;
        }
        assembly ("memory-safe") {
            mstore(bonds, length)
        }
    }

    /// @notice Writes each uid's operator into its word of payments.
    function nameOperators(bytes calldata metagraph, bytes memory payments) internal pure {
        uint256 n = count(metagraph);
        assembly ("memory-safe") {
            let from := add(metagraph.offset, HEAD_BYTES)
            let p := add(payments, 64)
            for { let end := add(p, shl(5, n)) } lt(p, end) { p := add(p, 32) } {
                mstore(p, or(mload(p), shl(192, shr(192, calldataload(from)))))
                from := add(from, RECORD_BYTES)
            }
        }
    }

    /// @return end of the consensus in a state, which begins with count:u16
    function consensusEnd(bytes calldata state) internal pure returns (uint256 end) {
        return state.length == 0 ? 0 : 2 + (uint256(uint16(bytes2(state[:2]))) << 1);
    }

    function parametersOf(ISubnets.Hyperparameters memory h, uint256 tempoSeconds) internal pure returns (YumaParameters memory) {
        return YumaParameters({
            mode: YumaMode(uint8(h.mode)),
            consensusMode: YumaConsensusMode(uint8(h.consensusMode)),
            kappa: h.kappa,
            bondsPenalty: h.bondsPenalty,
            bondsMovingAverage: h.bondsMovingAverage,
            alphaLow: h.alphaLow,
            alphaHigh: h.alphaHigh,
            alphaSteepness: h.alphaSteepness,
            stakeCapPercentile: h.stakeCapPercentile,
            maxValidators: h.maxValidators,
            bondRowCap: h.bondRowCap,
            activityCutoff: uint40(tempoSeconds),
            stakeThreshold: h.stakeThreshold
        });
    }
}
