// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeHealth} from "./IComputeHealth.sol";

/// @title What statements make of a device: an hour's performance, or the reason why it has none. Integers only.
/// @notice Of an even number of statements the median is the one that is worse for the device. A partner counts as having found the device
/// unreachable with whatever else it says. Bandwidth and latency belong to a pair: of what both say the worse one counts.
/// performance = hardware * up * bandwidth * latencyRef / (10,000 * bandwidthRef * latency), divided once, rounded down, where hardware is
/// rate * rateWeight + memory * memoryWeight if more than half of the partners saw the challenge passed, bandwidth is bandwidthRef at most and
/// latency latencyRef at least. Being a product with hardware, which adds up, rounded down, it cannot grow by cutting a machine into many.
/// @dev The same in `src/compute/health/figures.ts`.
library HealthFigures {
    uint256 internal constant STATEMENT_BYTES = 15;
    uint256 internal constant PAGE_SEATS = 64;
    uint256 private constant BPS = 10_000;
    uint256 private constant LATENCY_WORST = type(uint32).max;

    /// @notice What was said of one device, one element for each partner that counts.
    struct Evidence {
        uint256 count;
        uint256[5] verdicts; // how many said which
        uint256[] upBps;
        uint256[] latencyUs;
        uint256[] bandwidthKbs;
    }

    function begin(uint256 rounds) internal pure returns (Evidence memory e) {
        (e.upBps, e.latencyUs, e.bandwidthKbs) = (new uint256[](rounds), new uint256[](rounds), new uint256[](rounds));
    }

    /// @notice Adds what a partner says of the device.
    /// @param said the partner's statement, 0 where it made none
    /// @param back what the device's operator says of the partner, 0 likewise; it can only worsen the figure
    function add(Evidence memory e, uint256 said, uint256 back) internal pure {
        uint256 verdict = _verdict(said);
        if (verdict == 0) return;
        ++e.verdicts[verdict];
        uint256 i = e.count++;
        if (verdict == uint256(IComputeHealth.Verdict.Unreachable)) {
            e.latencyUs[i] = LATENCY_WORST;
            return;
        }
        e.upBps[i] = _min(said >> 96 & 0xffff, BPS);
        uint256 latency = said >> 64 & 0xffffffff;
        uint256 bandwidth = said >> 32 & 0xffffffff;
        if (_verdict(back) > uint256(IComputeHealth.Verdict.Unreachable)) {
            latency = _max(latency, back >> 64 & 0xffffffff);
            bandwidth = _min(bandwidth, back >> 32 & 0xffffffff);
        }
        (e.latencyUs[i], e.bandwidthKbs[i]) = (latency, bandwidth);
    }

    /// @notice The figure: `performance:u48 reason:u16`.
    function figureOf(IComputeHealth.Config memory c, uint256 rate, uint256 memoryMbs, Evidence memory e) internal pure returns (uint64) {
        if (e.count == 0 || e.count < c.statementsMin) return uint64(IComputeHealth.Reason.TooFewStatements);
        if (e.verdicts[uint256(IComputeHealth.Verdict.Passed)] * 2 <= e.count) return uint64(_reasonOf(e.verdicts));
        uint256 bandwidth = _min(_median(e.bandwidthKbs, e.count, (e.count - 1) / 2), c.bandwidthRef);
        if (bandwidth == 0) return uint64(IComputeHealth.Reason.NoBandwidth);
        uint256 hardware = _min(rate * c.rateWeight + memoryMbs * c.memoryWeight, type(uint48).max);
        uint256 up = _median(e.upBps, e.count, (e.count - 1) / 2);
        uint256 latency = _max(_median(e.latencyUs, e.count, e.count / 2), c.latencyRef);
        uint256 performance = hardware * up * bandwidth * c.latencyRef / (BPS * c.bandwidthRef * latency);
        return uint64(performance << 16);
    }

    /// @notice What a page says of the partner of one of its seats in a round; 0 where it says nothing.
    function statementIn(bytes calldata page, uint256 rounds, uint32 seat, uint256 round) internal pure returns (uint256 said) {
        uint256 size = 1 + rounds * STATEMENT_BYTES;
        uint256 place = seat % PAGE_SEATS;
        for (uint256 at; at + size <= page.length; at += size) {
            uint256 here;
            assembly ("memory-safe") {
                here := byte(0, calldataload(add(page.offset, at)))
            }
            if (here != place) continue;
            assembly ("memory-safe") {
                said := shr(136, calldataload(add(add(page.offset, at), add(1, mul(round, STATEMENT_BYTES)))))
            }
            return said;
        }
    }

    /// Codes that mean nothing count as nothing said.
    function _verdict(uint256 said) private pure returns (uint256 verdict) {
        verdict = said >> 112;
        if (verdict > uint256(IComputeHealth.Verdict.Passed)) return 0;
    }

    /// What most say; of as many the first.
    function _reasonOf(uint256[5] memory verdicts) private pure returns (IComputeHealth.Reason) {
        uint256 unreachable = verdicts[uint256(IComputeHealth.Verdict.Unreachable)];
        uint256 missed = verdicts[uint256(IComputeHealth.Verdict.Missed)];
        uint256 wrong = verdicts[uint256(IComputeHealth.Verdict.Wrong)];
        if (unreachable >= missed && unreachable >= wrong) return IComputeHealth.Reason.Unreachable;
        return missed >= wrong ? IComputeHealth.Reason.ChallengeMissed : IComputeHealth.Reason.ChallengeWrong;
    }

    /// The element at `index` of the first `count` in ascending order.
    function _median(uint256[] memory values, uint256 count, uint256 index) private pure returns (uint256) {
        for (uint256 i = 1; i < count; ++i) {
            for (uint256 j = i; j > 0 && values[j] < values[j - 1]; --j) {
                (values[j], values[j - 1]) = (values[j - 1], values[j]);
            }
        }
        return values[index];
    }

    function _min(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }

    function _max(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a : b;
    }
}
