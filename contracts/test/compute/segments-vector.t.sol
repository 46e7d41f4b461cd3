// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {StrictState} from "../../src/compute/StrictState.sol";

/// What src/compute/verify and src/host make of the same inputs (segments-vector.json; written by src/compute/verify/commitment.test.ts).
contract SegmentsVectorTest is Test {
    struct Case {
        bytes32[] chainHashes;
        bytes32[] proof;
        uint256 proven;
        bytes32 root;
        bytes32 specHash;
        bytes32[] stateHashes;
    }

    function hashOf(bytes calldata state) external pure returns (bytes32) {
        return StrictState.hashOf(state);
    }

    function holds(bytes32 root, uint32 segments, Segments.Leaf memory leaf, bytes32[] calldata proof) external pure returns (bool) {
        return Segments.holds(root, segments, leaf, proof);
    }

    function _read() private view returns (string memory json, Case memory c) {
        json = vm.readFile("contracts/test/compute/segments-vector.json");
        c = abi.decode(vm.parseJson(json, ".commitment"), (Case));
    }

    function test_TheCommitmentIsTheOneOfTheSoftware() public view {
        (, Case memory c) = _read();
        bytes32 chain = Segments.firstChainHash(c.specHash, c.stateHashes[0]);
        for (uint32 i; i < c.stateHashes.length; ++i) {
            if (i > 0) chain = Segments.nextChainHash(c.specHash, i, chain, c.stateHashes[i]);
            assertEq(chain, c.chainHashes[i]);
        }
        uint32 index = uint32(c.proven);
        Segments.Leaf memory leaf = Segments.Leaf(index, c.chainHashes[index], c.stateHashes[index]);
        uint32 segments = uint32(c.stateHashes.length - 1);
        assertTrue(this.holds(c.root, segments, leaf, c.proof));
        leaf.index = index - 1;
        assertFalse(this.holds(c.root, segments, leaf, c.proof));
    }

    function test_AStrictStateHasTheHashOfTheSoftware() public {
        (string memory json,) = _read();
        bytes memory state = vm.parseJsonBytes(json, ".strictState.state");
        bytes32 hash = vm.parseJsonBytes32(json, ".strictState.hash");
        assertEq(this.hashOf(state), hash);
        state[state.length - 1] ^= 0x01;
        assertTrue(this.hashOf(state) != hash);
    }

    function test_BytesThatOnlyHashToAStateAreNoDelivery() public {
        bytes memory preimage = abi.encodePacked("millrace strict state 1", bytes10(0), keccak256("pages that nobody shows"));
        vm.expectRevert(abi.encodeWithSelector(StrictState.MalformedState.selector, preimage.length));
        this.hashOf(preimage);
    }

    function testFuzz_MalformedStatesAreRefused(bytes calldata noise) public {
        vm.expectRevert(abi.encodeWithSelector(StrictState.MalformedState.selector, noise.length));
        this.hashOf(noise);
    }
}
