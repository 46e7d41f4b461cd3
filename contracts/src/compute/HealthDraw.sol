// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Who measures whom in an hour: for each round a random pairing of all seats, of which any pair is worked out alone.
/// @notice A round's permutation puts the seats in a random order; those at 2i and 2i + 1 are a pair. With an odd number of seats one has none.
/// The permutation is a Feistel network of four rounds of keccak256 over the next power of four, walked until it lies below the
/// number of seats: a permutation of exactly them, that can be inverted (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
/// @dev The same in `src/compute/health/draw.ts`.
library HealthDraw {
    uint32 internal constant NOBODY = type(uint32).max;
    uint256 private constant STEPS = 4;

    /// @notice The partner of a seat in a round, NOBODY where it has none. Who is whose partner holds both ways.
    /// @param seed the hour's randomness
    /// @param seats how many there are; `seat` is one of them
    function partnerOf(bytes32 seed, uint256 round, uint32 seat, uint32 seats) internal pure returns (uint32) {
        if (seats < 2) return NOBODY;
        uint256 key = uint256(keccak256(abi.encode(seed, round)));
        uint256 half = _halfBits(seats);
        uint256 place = seat;
        do {
            place = _forward(key, half, place);
        } while (place >= seats);
        place ^= 1;
        if (place >= seats) return NOBODY;
        do {
            place = _backward(key, half, place);
        } while (place >= seats);
        return uint32(place);
    }

    /// Half the bits of the smallest power of four that is at least `seats`.
    function _halfBits(uint256 seats) private pure returns (uint256 half) {
        for (half = 1; 1 << (2 * half) < seats; ++half) {}
    }

    function _forward(uint256 key, uint256 half, uint256 place) private pure returns (uint256) {
        uint256 mask = (1 << half) - 1;
        (uint256 left, uint256 right) = (place >> half, place & mask);
        for (uint256 step; step < STEPS; ++step) {
            (left, right) = (right, left ^ (_mix(key, step, right) & mask));
        }
        return left << half | right;
    }

    function _backward(uint256 key, uint256 half, uint256 place) private pure returns (uint256) {
        uint256 mask = (1 << half) - 1;
        (uint256 left, uint256 right) = (place >> half, place & mask);
        for (uint256 step = STEPS; step > 0; --step) {
            (left, right) = (right ^ (_mix(key, step - 1, left) & mask), left);
        }
        return left << half | right;
    }

    function _mix(uint256 key, uint256 step, uint256 part) private pure returns (uint256 mixed) {
        assembly ("memory-safe") {
            mstore(0, key)
            mstore(32, or(shl(128, step), part))
            mixed := keccak256(0, 64)
        }
    }
}
