// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {FigureTree} from "../../src/compute/FigureTree.sol";
import {HealthDraw} from "../../src/compute/HealthDraw.sol";
import {HealthFigures} from "../../src/compute/HealthFigures.sol";
import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";

/// @notice The same inputs as src/compute/health/figures.test.ts, which made what is expected of them.
contract HealthVectorsTest is Test {
    using HealthFigures for HealthFigures.Evidence;

    struct FigureVector {
        uint256 rate;
        uint256 memoryMbs;
        uint256[7] said;
        uint256[7] back;
        uint64 figure;
    }

    struct DrawVector {
        bytes32 seed;
        uint256 round;
        uint32 seat;
        uint32 seats;
        uint32 partner;
    }

    struct TreeVector {
        bytes figures;
        bytes32 root;
        uint64 total;
        uint32 seat;
        bytes chunk;
        bytes32[] proof;
    }


    function read() private view returns (FigureVector[] memory, DrawVector[] memory, TreeVector[] memory) {
        bytes memory encoded = vm.parseJsonBytes(vm.readFile("contracts/test/compute/health-vectors.json"), ".encoded");
        return abi.decode(encoded, (FigureVector[], DrawVector[], TreeVector[]));
    }

    function test_figuresAreThoseOfTheTypeScript() public view {
        (FigureVector[] memory vectors,,) = read();
        IComputeHealth.Config memory c;
        (c.rounds, c.statementsMin, c.rateWeight, c.memoryWeight, c.bandwidthRef, c.latencyRef) = (7, 2, 10, 1, 1_000, 50_000);
        uint256 withPerformance;
        for (uint256 i; i < vectors.length; ++i) {
            FigureVector memory v = vectors[i];
            HealthFigures.Evidence memory e = HealthFigures.begin(7);
            for (uint256 j; j < 7; ++j) {
                e.add(v.said[j], v.back[j]);
            }
            assertEq(HealthFigures.figureOf(c, v.rate, v.memoryMbs, e), v.figure, vm.toString(i));
            if (v.figure >> 16 != 0) ++withPerformance;
        }
        // The vectors say something: both kinds are there.
        assertGt(withPerformance, 20);
        assertLt(withPerformance, vectors.length);
    }

    function test_partnersAreThoseOfTheTypeScript() public view {
        (, DrawVector[] memory vectors,) = read();
        for (uint256 i; i < vectors.length; ++i) {
            DrawVector memory v = vectors[i];
            assertEq(HealthDraw.partnerOf(v.seed, v.round, v.seat, v.seats), v.partner, vm.toString(i));
        }
    }

    function test_rootsAndOpeningsAreThoseOfTheTypeScript() public view {
        (,, TreeVector[] memory vectors) = read();
        for (uint256 i; i < vectors.length; ++i) {
            TreeVector memory v = vectors[i];
            (bytes32 root, uint64 total) = this.build(v.figures);
            assertEq(root, v.root);
            assertEq(total, v.total);
            assertTrue(this.opens(root, v.figures.length / 8, v.seat, IComputeHealth.Opening(v.chunk, v.proof)));
        }
    }

    function build(bytes calldata figures) external pure returns (bytes32, uint64) {
        return FigureTree.build(figures);
    }

    function opens(bytes32 root, uint256 seats, uint256 seat, IComputeHealth.Opening calldata opening) external pure returns (bool isThere) {
        (isThere,) = FigureTree.open(root, seats, seat, opening);
    }
}
