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
}
