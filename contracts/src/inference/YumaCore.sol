// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Yuma} from "./Yuma.sol";
import {YumaInput, YumaResult} from "./YumaTypes.sol";

/// @title YumaCore: the library Yuma as a contract, so that it is deployed once and anyone can ask it. No state.
contract YumaCore {
    /// @notice One epoch of a subnet; the arguments are those of `Yuma.epoch`.
    function epoch(YumaInput calldata input, bytes calldata uids, bytes calldata weights, bytes calldata previous, bytes calldata bonds)
        external
        pure
        returns (YumaResult memory)
    {
        return Yuma.epoch(input, uids, weights, previous, bonds);
    }

    /// @notice The same, as ISubnetEpochs packs it; operators are left 0 in the payments.
    function decide(YumaInput calldata input, bytes calldata uids, bytes calldata weights, bytes calldata previous, bytes calldata bonds)
        external
        pure
        returns (bytes memory payments, bytes memory ranks, bytes memory state)
    {
        YumaResult memory result = Yuma.epoch(input, uids, weights, previous, bonds);
        payments = _payments(result);
        ranks = _ranks(result);
        state = bytes.concat(_consensus(result.consensus), result.bonds);
    }

    function _payments(YumaResult memory result) private pure returns (bytes memory payments) {
        uint256[] memory earned = result.earned;
        uint256 n = earned.length;
        payments = new bytes((n + 1) << 5);
        uint256 first = result.ownerEmission << 128 | result.dust;
        assembly ("memory-safe") {
            mstore(add(payments, 32), first)
            let to := add(payments, 64)
            let from := add(earned, 32)
            for { let end := add(from, shl(5, n)) } lt(from, end) { from := add(from, 32) } {
                let both := mload(from)
                mstore(to, or(shl(96, shr(128, both)), and(both, 0xffffffffffffffffffffffff)))
                to := add(to, 32)
            }
        }
    }

    function _ranks(YumaResult memory result) private pure returns (bytes memory ranks) {
        (uint256[] memory incentive, uint256[] memory dividends, uint256 permits) = (result.incentive, result.dividends, result.permits);
        uint256 length = 32 + (incentive.length << 2);
        ranks = new bytes(length + 32); // room for the last store
        assembly ("memory-safe") {
            mstore(ranks, length)
            mstore(add(ranks, 32), permits)
            let to := add(ranks, 64)
            let both := add(dividends, 32)
            for { let from := add(incentive, 32) } lt(to, add(add(ranks, 32), length)) { to := add(to, 4) } {
                mstore(to, or(shl(240, shr(32, mul(mload(from), 0xffff))), shl(224, shr(32, mul(mload(both), 0xffff)))))
                from := add(from, 32)
                both := add(both, 32)
            }
        }
    }

    function _consensus(uint256[] memory consensus) private pure returns (bytes memory packed) {
        uint256 length = 2 + (consensus.length << 1);
        packed = new bytes(length + 32); // room for the last store
        assembly ("memory-safe") {
            mstore(packed, length)
            let to := add(packed, 32)
            mstore(to, shl(240, mload(consensus)))
            let end := add(to, length)
            let from := add(consensus, 32)
            for { to := add(to, 2) } lt(to, end) { to := add(to, 2) } {
                mstore(to, shl(240, shr(32, mul(mload(from), 0xffff))))
                from := add(from, 32)
            }
        }
    }
}
