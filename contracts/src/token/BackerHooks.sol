// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../chain/IRegistry.sol";
import {IBackerListener} from "./IBackerIncome.sol";

/// @title BackerHooks: tells the module registered as "backerIncome" that a backer's active shares are about to change.
/// @notice A listener that is missing or fails stops nothing: income must never stand between a backer and its exit. Whoever sends too
/// little gas to reach the listener is refused, so that a call cannot be made to fail on purpose.
abstract contract BackerHooks {
    uint256 private constant LISTENER_GAS = 800_000;

    error TooLittleGas(uint256 got, uint256 needed);

    function _tellBackers(IRegistry registry, uint64 operatorId, address backer, uint256 shares, uint32 generation) internal {
        try registry.get("backerIncome") returns (address listener) {
            uint256 needed = LISTENER_GAS * 64 / 63 + 5_000;
            if (gasleft() < needed) revert TooLittleGas(gasleft(), needed);
            bytes memory data = abi.encodeCall(IBackerListener.beforeSharesChange, (operatorId, backer, shares, generation));
            // What the listener returns is not copied: it could be long.
            assembly ("memory-safe") {
                pop(call(LISTENER_GAS, listener, 0, add(data, 32), mload(data), 0, 0))
            }
        } catch {}
    }
}
