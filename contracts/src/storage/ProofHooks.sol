// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../chain/IRegistry.sol";
import {IProofListener} from "./IStorageRewards.sol";

/// @title ProofHooks: tells the module registered as "rewards" of proofs and of changes of a table.
/// @notice A listener that is missing or fails stops nothing: rewards must never stand between a provider and its proof. Whoever sends
/// too little gas to reach the listener is refused, so that a call cannot be made to fail on purpose.
abstract contract ProofHooks {
    uint256 private constant LISTENER_GAS = 500_000;

    IRegistry public immutable registry;

    error TooLittleGas(uint256 got, uint256 needed);

    constructor(IRegistry registry_) {
        registry = registry_;
    }

    function _tell(bytes memory call) internal {
        try registry.get("rewards") returns (address listener) {
            uint256 needed = LISTENER_GAS * 64 / 63 + 5_000;
            if (gasleft() < needed) revert TooLittleGas(gasleft(), needed);
            (bool heard,) = listener.call{gas: LISTENER_GAS}(call);
            heard;
        } catch {}
    }

    function _tellInserted(uint64 operatorId, uint64 dealId) internal {
        _tell(abi.encodeCall(IProofListener.pieceInserted, (operatorId, dealId)));
    }

    function _tellRemoved(uint64 operatorId, uint64 dealId) internal {
        _tell(abi.encodeCall(IProofListener.pieceRemoved, (operatorId, dealId)));
    }

    function _tellProven(uint64 operatorId, uint64 period) internal {
        _tell(abi.encodeCall(IProofListener.periodProven, (operatorId, period)));
    }
}
