// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {YumaResult} from "../../src/inference/YumaTypes.sol";
import {deployYumaCore} from "../deploy/epochs.sol";

/// @notice The TypeScript function's epochs (tools/yuma-vectors.ts), judged by the contract: random shapes and crowded ones, in every mode.
contract YumaVectorsTest is Test {
    function test_epochs_are_decided_as_the_function_of_typescript_does() public {
        address core = address(deployYumaCore());
        string memory json = vm.readFile("contracts/test/inference/yuma-vectors.generated.json");
        bytes[] memory vectors = vm.parseJsonBytesArray(json, ".vectors");
        assertEq(vectors.length, 41);
        for (uint256 number; number < vectors.length; ++number) {
            (bytes memory input, bytes memory answer) = abi.decode(vectors[number], (bytes, bytes));
            (bool done, bytes memory data) = core.staticcall(input);
            assertTrue(done, vm.toString(number));
            assertEq(answerOf(abi.decode(data, (YumaResult))), answer, vm.toString(number));
        }
    }

    function answerOf(YumaResult memory result) private pure returns (bytes memory) {
        bytes memory shares = bytes.concat(
            packed(result.stakeWeight),
            packed(result.consensus),
            packed(result.trust),
            packed(result.rank),
            packed(result.incentive),
            packed(result.dividends)
        );
        return abi.encode(result.active, result.permits, shares, result.earned, result.ownerEmission, result.dust, result.bonds);
    }

    /// @dev Parts of 2^32 as parts of 65,535 in two bytes each, rounded down.
    function packed(uint256[] memory values) private pure returns (bytes memory bytes_) {
        bytes_ = new bytes(2 * values.length);
        for (uint256 index; index < values.length; ++index) {
            uint256 part = (values[index] * 65_535) >> 32;
            bytes_[2 * index] = bytes1(uint8(part >> 8));
            bytes_[2 * index + 1] = bytes1(uint8(part));
        }
    }
}
