// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {FigureTree} from "../../src/compute/FigureTree.sol";
import {HealthDraw} from "../../src/compute/HealthDraw.sol";
import {HealthFigures} from "../../src/compute/HealthFigures.sol";
import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";

/// @notice The laws of the draw, of a figure and of the tree.
contract HealthFiguresTest is Test {
    using HealthFigures for HealthFigures.Evidence;

    function figuresConfig() internal pure returns (IComputeHealth.Config memory c) {
        (c.rounds, c.statementsMin, c.rateWeight, c.memoryWeight) = (7, 1, 10, 1);
        (c.bandwidthRef, c.latencyRef) = (1_000, 50_000);
    }

    function build(bytes calldata figures) external pure returns (bytes32, uint64) {
        return FigureTree.build(figures);
    }

    function open(bytes32 root, uint256 seats, uint256 seat, IComputeHealth.Opening calldata opening) external pure returns (bool, uint64) {
        return FigureTree.open(root, seats, seat, opening);
    }

    function said(uint256 verdict, uint256 up, uint256 latency, uint256 bandwidth) internal pure returns (uint256) {
        return verdict << 112 | uint256(uint16(up)) << 96 | uint256(uint32(latency)) << 64 | uint256(uint32(bandwidth)) << 32;
    }

    /// Each partner says what the words hold; `back` is what the device's operator says of it.
    function figure(uint256 rate, uint256 memoryMbs, uint256[7] memory words, uint256[7] memory back) internal pure returns (uint64) {
        HealthFigures.Evidence memory e = HealthFigures.begin(7);
        for (uint256 i; i < 7; ++i) {
            e.add(words[i] >> 136, back[i] >> 136);
        }
        return HealthFigures.figureOf(figuresConfig(), rate, memoryMbs, e);
    }

    /// forge-config: default.fuzz.runs = 32
    function testFuzz_aRoundPairsEverySeatWithAtMostOneOther(bytes32 seed, uint8 round, uint256 seats) public pure {
        uint32 n = uint32(bound(seats, 1, 70));
        uint256 alone;
        for (uint32 seat; seat < n; ++seat) {
            uint32 partner = HealthDraw.partnerOf(seed, round, seat, n);
            if (partner == HealthDraw.NOBODY) {
                ++alone;
                continue;
            }
            assertLt(partner, n);
            assertNotEq(partner, seat);
            assertEq(HealthDraw.partnerOf(seed, round, partner, n), seat);
        }
        assertEq(alone, n % 2);
    }

    function testFuzz_theOwnWordNeverRaisesAFigure(uint256 rate, uint256 memoryMbs, uint256[7] memory words, uint256[7] memory back)
        public
        pure
    {
        uint256[7] memory nothing;
        (rate, memoryMbs) = (bound(rate, 1, 1e6), bound(memoryMbs, 1, 1e6));
        assertLe(figure(rate, memoryMbs, words, back) >> 16, figure(rate, memoryMbs, words, nothing) >> 16);
    }

    /// The same link and the same partners' words for each of the parts.
    function testFuzz_aMachineCutIntoManyHasNoMoreThanAsOne(uint32[10] memory rates, uint32[10] memory memories, uint256[7] memory words)
        public
        pure
    {
        uint256[7] memory nothing;
        (uint256 rate, uint256 memoryMbs, uint256 parts) = (0, 0, 0);
        for (uint256 i; i < 10; ++i) {
            (uint256 r, uint256 m) = (rates[i] % 1e6, memories[i] % 1e6);
            parts += figure(r, m, words, nothing) >> 16;
            (rate, memoryMbs) = (rate + r, memoryMbs + m);
        }
        assertLe(parts, figure(rate, memoryMbs, words, nothing) >> 16);
    }

    /// Three of seven say whatever they like: the figure stays between those of the four honest ones.
    function testFuzz_aMinorityMovesNoFigureBeyondWhatHonestPartnersSay(
        uint256[3] memory lies,
        uint16[4] memory ups,
        uint32[4] memory speeds
    ) public pure {
        uint256[7] memory nothing;
        uint256[7] memory words;
        uint256[7] memory best;
        uint256[7] memory worst;
        (uint256 low, uint256 high, uint256 upLow, uint256 upHigh) = (type(uint32).max, 0, 10_000, 0);
        for (uint256 i; i < 4; ++i) {
            (uint256 up, uint256 speed) = (bound(ups[i], 1, 10_000), bound(speeds[i], 1, 2_000));
            words[i] = said(4, up, 60_000, speed) << 136;
            if (speed < low) low = speed;
            if (speed > high) high = speed;
            if (up < upLow) upLow = up;
            if (up > upHigh) upHigh = up;
        }
        for (uint256 i; i < 7; ++i) {
            if (i > 3) words[i] = (lies[i - 4] & ~(uint256(0xff) << 248)) | uint256(bound(lies[i - 4], 1, 4)) << 248;
            best[i] = said(4, upHigh, 60_000, high) << 136;
            worst[i] = said(4, upLow, 60_000, low) << 136;
        }
        uint256 got = figure(1e5, 1e5, words, nothing) >> 16;
        assertGe(got, figure(1e5, 1e5, worst, nothing) >> 16);
        assertLe(got, figure(1e5, 1e5, best, nothing) >> 16);
    }

    function test_eachWayToHaveNoPerformanceHasItsReason() public pure {
        uint256[7] memory nothing;
        uint256[7] memory words;
        assertEq(figure(1, 1, words, nothing), uint64(IComputeHealth.Reason.TooFewStatements));
        words[0] = said(1, 0, 0, 0) << 136;
        assertEq(figure(1, 1, words, nothing), uint64(IComputeHealth.Reason.Unreachable));
        (words[1], words[2]) = (said(2, 10_000, 1, 1) << 136, said(2, 10_000, 1, 1) << 136);
        assertEq(figure(1, 1, words, nothing), uint64(IComputeHealth.Reason.ChallengeMissed));
        (words[3], words[4], words[5]) = (said(3, 1, 1, 1) << 136, said(3, 1, 1, 1) << 136, said(3, 1, 1, 1) << 136);
        assertEq(figure(1, 1, words, nothing), uint64(IComputeHealth.Reason.ChallengeWrong));
        for (uint256 i; i < 7; ++i) {
            words[i] = said(4, 10_000, 1, 0) << 136;
        }
        assertEq(figure(1, 1, words, nothing), uint64(IComputeHealth.Reason.NoBandwidth));
        words[0] = said(9, 10_000, 1, 1) << 136; // a code that means nothing
        for (uint256 i = 1; i < 7; ++i) {
            words[i] = 0;
        }
        assertEq(figure(1, 1, words, nothing), uint64(IComputeHealth.Reason.TooFewStatements));
    }

    /// forge-config: default.fuzz.runs = 32
    function testFuzz_everyFigureOpensAndNothingElseDoes(uint256 count, uint256 seatSeed, uint256 flip) public view {
        uint256 seats = bound(count, 1, 300);
        uint256 seat = seatSeed % seats;
        bytes memory figures;
        uint256 total;
        for (uint256 i; i < seats; ++i) {
            uint64 f = uint64(uint256(keccak256(abi.encode(count, i))));
            total += f >> 16;
            figures = bytes.concat(figures, bytes8(f));
        }
        (bytes32 root, uint64 sum) = this.build(figures);
        assertEq(sum, total);
        IComputeHealth.Opening memory o = openingAt(figures, seat);
        (bool isThere, uint64 got) = this.open(root, seats, seat, o);
        assertTrue(isThere);
        assertEq(got, uint64(uint256(keccak256(abi.encode(count, seat)))));
        o.chunk[flip % o.chunk.length] ^= 0x01;
        (isThere,) = this.open(root, seats, seat, o);
        assertFalse(isThere);
        (isThere,) = this.open(root, seats, seats, openingAt(figures, seat));
        assertFalse(isThere);
    }

    /// The opening of a seat, built from all figures.
    function openingAt(bytes memory figures, uint256 seat) internal pure returns (IComputeHealth.Opening memory o) {
        uint256 chunks = (figures.length + 511) / 512;
        uint256 width = 1;
        uint256 depth;
        for (; width < chunks; width *= 2) {
            ++depth;
        }
        bytes32[] memory level = new bytes32[](width);
        for (uint256 i; i < chunks; ++i) {
            bytes memory chunk = slice(figures, i * 512, i == chunks - 1 ? figures.length : (i + 1) * 512);
            if (i == seat / 64) o.chunk = chunk;
            level[i] = keccak256(bytes.concat(bytes1(0), chunk));
        }
        o.proof = new bytes32[](depth);
        uint256 index = seat / 64;
        for (uint256 d; d < depth; ++d) {
            o.proof[d] = level[index ^ 1];
            for (uint256 i; i < width; i += 2) {
                level[i / 2] = keccak256(bytes.concat(bytes1(0x01), level[i], level[i + 1]));
            }
            (width, index) = (width / 2, index / 2);
        }
    }

    function slice(bytes memory data, uint256 from, uint256 to) internal pure returns (bytes memory part) {
        part = new bytes(to - from);
        for (uint256 i = from; i < to; ++i) {
            part[i - from] = data[i];
        }
    }
}
