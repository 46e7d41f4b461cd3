// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {Possession} from "../../src/storage/Possession.sol";
import {deployPossession} from "../deploy/storage.sol";

/// @notice The TypeScript twin's tables and proofs (tools/possession-vectors.ts), judged by the contract. This contract stands for
/// registry, operators, randomness and market, so that the vectors choose seeds and deals.
contract PossessionVectorsTest is Test {
    struct Step {
        bool insert;
        uint32 slot;
        IPossession.Leaf leaf;
        bytes path;
        bytes32 root;
        uint64 leaves;
        uint128 weight;
        uint32 slots;
        uint8 depth;
    }

    struct Vector {
        uint64 operatorId;
        uint8 byBytes;
        uint8 byWeight;
        uint8 rotationMin;
        uint16 rotationPeriods;
        Step[] steps;
        uint64 missedPeriod;
        bytes32 missedSeed;
        bytes32 provenSeed;
        uint64[] over;
        bytes plainProof;
        bytes recoveryProof;
        IPossession.Leaf pieceLeaf;
        uint256 pieceCount;
        bytes pieceProof;
    }

    uint64 private constant GENESIS = 1_000_000;
    Possession private possession;
    uint64[] private over;
    uint64 private missedPeriod;
    bytes32 private missedSeed;
    bytes32 private provenSeed;

    // the parts that this contract stands for
    function get(bytes32) external view returns (address) {
        return address(this);
    }

    function nodeKeyOf(uint64) external view returns (address) {
        return address(this);
    }

    function isOver(uint64 dealId) external view returns (bool) {
        for (uint256 i; i < over.length; ++i) {
            if (over[i] == dealId) return true;
        }
        return false;
    }

    function valueOf(uint64 time) public view returns (bytes32) {
        return time == possession.seedTime(missedPeriod) ? missedSeed : provenSeed;
    }

    function fix(uint64 time, bytes calldata, bytes calldata, bytes calldata) external view returns (bytes32) {
        return valueOf(time);
    }

    function load(uint256 number) private returns (Vector memory vector) {
        string memory json = vm.readFile("contracts/test/storage/possession-vectors.generated.json");
        vector = abi.decode(vm.parseJsonBytesArray(json, ".vectors")[number], (Vector));
        (over, missedPeriod, missedSeed, provenSeed) = (vector.over, vector.missedPeriod, vector.missedSeed, vector.provenSeed);
        vm.warp(GENESIS);
        IPossession.Config memory c = IPossession.Config({
            genesis: GENESIS,
            period: 300,
            window: 150,
            freeze: 10,
            byBytes: vector.byBytes,
            byWeight: vector.byWeight,
            rotationMin: vector.rotationMin,
            rotationPeriods: vector.rotationPeriods,
            maxSlots: 16,
            graceEvery: 12,
            maxMisses: 3
        });
        possession = deployPossession(c, IRegistry(address(this)), IOperators(address(this)), IRandomness(address(this)));
    }

    function count() private view returns (uint256) {
        return vm.parseJsonBytesArray(vm.readFile("contracts/test/storage/possession-vectors.generated.json"), ".vectors").length;
    }

    /// Plays the history in the period before the missed one, before its freeze.
    function replay(Vector memory vector) private {
        vm.warp(possession.periodStart(vector.missedPeriod));
        for (uint256 i; i < vector.steps.length; ++i) {
            Step memory step = vector.steps[i];
            if (step.insert) possession.insert(vector.operatorId, step.slot, step.leaf, step.path);
            else possession.remove(vector.operatorId, step.slot, step.leaf, step.path);
            IPossession.Table memory t = possession.table(vector.operatorId);
            assertEq(t.root, step.root);
            assertEq(t.leaves, step.leaves);
            assertEq(t.weight, step.weight);
            assertEq(t.slots, step.slots);
            assertEq(t.depth, step.depth);
        }
    }

    function test_tables_of_the_twin_have_the_roots_of_the_contract_and_its_proofs_are_accepted() public {
        for (uint256 number; number < count(); ++number) {
            Vector memory vector = load(number);
            replay(vector);
            vm.warp(possession.seedTime(vector.missedPeriod));
            possession.prove(vector.operatorId, vector.missedPeriod, vector.plainProof, "", "", "");
        }
    }

    function test_the_twin_answers_an_open_miss() public {
        for (uint256 number; number < count(); ++number) {
            Vector memory vector = load(number);
            replay(vector);
            vm.warp(possession.seedTime(vector.missedPeriod + 1));
            possession.prove(vector.operatorId, vector.missedPeriod + 1, vector.recoveryProof, "", "", "");
            assertEq(possession.standing(vector.operatorId).openMiss, 0);
        }
    }

    function test_the_twin_opens_single_pieces() public {
        for (uint256 number; number < count(); ++number) {
            Vector memory vector = load(number);
            possession.verifyPiece(vector.pieceLeaf, vector.provenSeed, vector.pieceCount, vector.pieceProof);
        }
    }

    function testFuzz_one_flipped_bit_of_a_proof_is_refused(uint256 number, uint256 bit) public {
        Vector memory vector = load(number % count());
        replay(vector);
        vm.warp(possession.seedTime(vector.missedPeriod));
        bytes memory proof = vector.plainProof;
        bit %= proof.length * 8;
        proof[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        uint64 operatorId = vector.operatorId;
        uint64 missed = vector.missedPeriod;
        vm.expectRevert();
        possession.prove(operatorId, missed, proof, "", "", "");
    }
}
