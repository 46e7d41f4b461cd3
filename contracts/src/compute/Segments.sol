// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Segments: what an operator commits to, and how one leaf of it is shown (decision 0029).
/// @notice T segments have T + 1 states, hence T + 1 leaves, padded with zero words to a power of two. The sides of a proof are the bits of
/// the leaf's number, and its length is the tree's depth, so there is one leaf for each number and nobody can show two.
library Segments {
    /// @notice One state and its place in the chain of states.
    struct Leaf {
        uint32 index;
        bytes32 chainHash; // h of the leaf
        bytes32 stateHash; // SHA-256 of the state
    }

    function leafHash(Leaf memory leaf) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x00), uint64(leaf.index), leaf.chainHash, leaf.stateHash));
    }

    function nodeHash(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x01), left, right));
    }

    /// @notice h of the first state.
    function firstChainHash(bytes32 specHash, bytes32 stateHash) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(specHash, uint64(0), stateHash));
    }

    /// @notice h of state `index`, which is at least 1.
    function nextChainHash(bytes32 specHash, uint32 index, bytes32 before, bytes32 stateHash) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(specHash, uint64(index), before, stateHash));
    }

    /// @notice Levels between the leaves of T segments and their root.
    function depthOf(uint32 segments) internal pure returns (uint256 depth) {
        while (1 << depth < uint256(segments) + 1) ++depth;
    }

    function rootFrom(bytes32 node, uint256 index, bytes32[] calldata proof) internal pure returns (bytes32) {
        for (uint256 i; i < proof.length; ++i) {
            node = (index >> i) & 1 == 0 ? nodeHash(node, proof[i]) : nodeHash(proof[i], node);
        }
        return node;
    }

    /// @notice Whether the leaf is one of T + 1 under the root.
    function holds(bytes32 root, uint32 segments, Leaf memory leaf, bytes32[] calldata proof) internal pure returns (bool) {
        if (leaf.index > segments || proof.length != depthOf(segments)) return false;
        return rootFrom(leafHash(leaf), leaf.index, proof) == root;
    }
}
