// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Segments} from "../../src/compute/Segments.sol";

/// @notice A small strict engine and what an operator makes of its run: states of 32 bytes, each segment hashes the one before it.
library JobWork {
    uint32 internal constant NONE = type(uint32).max;

    /// @dev `nodes` is the tree, the root at 1, the children of i at 2 i and 2 i + 1.
    struct Work {
        bytes32 specHash;
        bytes32[] states;
        Segments.Leaf[] leaves;
        bytes32[] nodes;
    }

    function firstState(bytes32 specHash) internal pure returns (bytes32) {
        return sha256(abi.encode("first", specHash));
    }

    /// The engine: one segment.
    function step(bytes32 specHash, uint32 segment, bytes32 state) internal pure returns (bytes32) {
        return sha256(abi.encode(specHash, segment, state));
    }

    /// As it is handed over (StrictState): no memory, and four globals which hold the state.
    function fileOf(bytes32 state) internal pure returns (bytes memory) {
        return abi.encodePacked("MRST", bytes1(0), bytes4(0), bytes4(0x04000000), bytes4(0), state, bytes4(0));
    }

    function hashOf(bytes32 state) internal pure returns (bytes32) {
        return sha256(abi.encodePacked("millrace strict state 1", bytes2(0), bytes4(0), bytes4(0x04000000), state, bytes4(0)));
    }

    /// A run of T segments of which `wrong` is made up (NONE: honest) and the rest goes on from there.
    function run(bytes32 specHash, uint32 segments, uint32 wrong) internal pure returns (Work memory w) {
        (w.specHash, w.states) = (specHash, new bytes32[](segments + 1));
        w.states[0] = firstState(specHash);
        for (uint32 i; i < segments; ++i) {
            w.states[i + 1] = i == wrong ? keccak256(abi.encode("made up", i)) : step(specHash, i, w.states[i]);
        }
        commitTo(w);
    }

    /// Every state is made up.
    function makeUp(bytes32 specHash, uint32 segments) internal pure returns (Work memory w) {
        (w.specHash, w.states) = (specHash, new bytes32[](segments + 1));
        w.states[0] = firstState(specHash);
        for (uint32 i; i < segments; ++i) {
            w.states[i + 1] = keccak256(abi.encode("made up", i));
        }
        commitTo(w);
    }

    function commitTo(Work memory w) internal pure {
        bytes32[] memory hashes = new bytes32[](w.states.length);
        for (uint256 i; i < hashes.length; ++i) {
            hashes[i] = hashOf(w.states[i]);
        }
        commitToHashes(w, hashes);
    }

    /// Leaves and tree of given state hashes.
    function commitToHashes(Work memory w, bytes32[] memory hashes) internal pure {
        w.leaves = new Segments.Leaf[](hashes.length);
        bytes32 chain;
        for (uint32 i; i < hashes.length; ++i) {
            chain = i == 0 ? Segments.firstChainHash(w.specHash, hashes[0]) : Segments.nextChainHash(w.specHash, i, chain, hashes[i]);
            w.leaves[i] = Segments.Leaf(i, chain, hashes[i]);
        }
        plant(w);
    }

    function plant(Work memory w) internal pure {
        uint256 width = 1 << Segments.depthOf(uint32(w.leaves.length - 1));
        w.nodes = new bytes32[](2 * width);
        for (uint256 i; i < w.leaves.length; ++i) {
            w.nodes[width + i] = Segments.leafHash(w.leaves[i]);
        }
        for (uint256 i = width - 1; i > 0; --i) {
            w.nodes[i] = Segments.nodeHash(w.nodes[2 * i], w.nodes[2 * i + 1]);
        }
    }

    function root(Work memory w) internal pure returns (bytes32) {
        return w.nodes[1];
    }

    function proofOf(Work memory w, uint256 leaf) internal pure returns (bytes32[] memory proof) {
        uint256 depth = Segments.depthOf(uint32(w.leaves.length - 1));
        proof = new bytes32[](depth);
        uint256 place = (1 << depth) + leaf;
        for (uint256 i; i < depth; ++i) {
            proof[i] = w.nodes[place ^ 1];
            place >>= 1;
        }
    }

    /// The nodes `levels` below the node at `index` of the level with `depth` levels below it.
    function childrenOf(Work memory w, uint256 depth, uint256 index, uint256 levels) internal pure returns (bytes32[] memory children) {
        uint256 whole = Segments.depthOf(uint32(w.leaves.length - 1));
        uint256 place = ((1 << (whole - depth)) + index) << levels;
        children = new bytes32[](1 << levels);
        for (uint256 i; i < children.length; ++i) {
            children[i] = w.nodes[place + i];
        }
    }
}
