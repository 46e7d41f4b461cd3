// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title StrictState: the hash of a strict job's state from the state itself (decision 0032; src/host/strict-state.ts).
/// @notice The hash of a strict state is over the hashes of its pages, so that a segment costs the pages that it changed. Whoever delivers a state
/// must bring the pages: bytes that only hash to it would deliver nothing.
/// A state as it is handed over: "MRST", end (1 byte), pages of memory, globals, pages that are not zero (uint32 each, little end first), the
/// globals (9 bytes each), then each page that is not zero: its number (uint32), its 4,096 bytes; numbers ascend.
library StrictState {
    error MalformedState(uint256 length);

    uint256 private constant HEADER = 17;
    uint256 private constant GLOBAL = 9;
    uint256 private constant PAGE = 4096;
    uint256 private constant ENTRY = 4 + PAGE;
    /// More would not fit into a block.
    uint256 private constant PAGES_MAX = 1 << 15;
    /// SHA-256 of 4,096 zero bytes.
    bytes32 private constant ZERO_PAGE = 0xad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7;

    /// @notice SHA-256("millrace strict state 1" ‖ 0 ‖ end ‖ pages ‖ globals ‖ the globals ‖ SHA-256 of each page of memory).
    function hashOf(bytes calldata state) internal pure returns (bytes32) {
        if (state.length < HEADER || bytes4(state[:4]) != "MRST") revert MalformedState(state.length);
        uint256 pages = _number(state, 5);
        uint256 at = HEADER + _number(state, 9) * GLOBAL;
        if (pages > PAGES_MAX || state.length != at + _number(state, 13) * ENTRY) revert MalformedState(state.length);
        bytes32[] memory hashes = new bytes32[](pages);
        for (uint256 i; i < pages; ++i) {
            hashes[i] = ZERO_PAGE;
        }
        bytes calldata globals = state[HEADER:at];
        uint256 least;
        for (; at < state.length; at += ENTRY) {
            uint256 page = _number(state, at);
            if (page < least || page >= pages) revert MalformedState(state.length);
            hashes[page] = sha256(state[at + 4:at + ENTRY]);
            least = page + 1;
        }
        return sha256(abi.encodePacked("millrace strict state 1\x00", state[4:13], globals, hashes));
    }

    /// A uint32, little end first.
    function _number(bytes calldata state, uint256 at) private pure returns (uint256) {
        return
            uint8(state[at]) | uint256(uint8(state[at + 1])) << 8 | uint256(uint8(state[at + 2])) << 16 | uint256(uint8(state[at + 3]))
                << 24;
    }
}
