// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {StorageHandler} from "./handler.sol";

/// forge-config: default.invariant.runs = 6
contract StorageInvariantsTest is Test {
    StorageHandler private handler;

    function setUp() public {
        handler = StorageHandler(vm.deployCode("handler.sol:StorageHandler"));
        handler.setUp();
        bytes4[] memory actions = new bytes4[](20);
        actions[0] = handler.open.selector;
        actions[1] = handler.advance.selector;
        actions[2] = handler.advance.selector;
        actions[3] = handler.loseData.selector;
        actions[4] = handler.settle.selector;
        actions[5] = handler.settleRail.selector;
        actions[6] = handler.terminate.selector;
        actions[7] = handler.expire.selector;
        actions[8] = handler.dropOne.selector;
        actions[9] = handler.declareFault.selector;
        actions[10] = handler.recoverFault.selector;
        actions[11] = handler.surrender.selector;
        actions[12] = handler.leave.selector;
        actions[13] = handler.endEarly.selector;
        actions[14] = handler.extend.selector;
        actions[15] = handler.challenge.selector;
        actions[16] = handler.claim.selector;
        actions[17] = handler.activateLater.selector;
        actions[18] = handler.open.selector;
        actions[19] = handler.demandBytes.selector;
        targetSelector(FuzzSelector(address(handler), actions));
        targetContract(address(handler));
    }

    function invariant_what_the_vault_has_locked_is_what_the_deals_say() public view {
        handler.assertLocksEqualDeals();
    }

    function invariant_what_rails_hold_is_what_the_deals_say_and_the_market_holds_nothing() public view {
        handler.assertEscrowIsWhatTheDealsSay();
    }

    function invariant_the_tables_hold_the_deals_that_are_in_them() public view {
        handler.assertTablesHoldTheDeals();
    }

    function invariant_who_is_everybody_gains_nothing_and_the_honest_are_never_punished() public view {
        handler.assertNobodyGains();
    }

    /// A fixed walk through the same actions, long enough that every one of them has happened: the invariants are about something.
    function test_the_walk_reaches_every_action() public {
        for (uint256 i; i < 800; ++i) {
            uint256 seed = uint256(keccak256(abi.encode("walk", i)));
            step(seed % 19, seed >> 8);
            if (i % 25 == 0) assertAll();
        }
        assertAll();
        string[17] memory names = [
            "open",
            "activate",
            "lose",
            "settle",
            "terminate",
            "expire",
            "drop",
            "declare",
            "recover",
            "surrender",
            "leave",
            "endEarly",
            "extend",
            "challenge",
            "answer",
            "demand",
            "pay out"
        ];
        for (uint256 i; i < names.length; ++i) {
            assertGt(handler.done(bytes32(bytes(names[i]))), 0, names[i]);
        }
        assertGt(handler.done("bob proved"), 50);
        assertGt(handler.done("alice proved"), 10);
    }

    function assertAll() private view {
        handler.assertLocksEqualDeals();
        handler.assertEscrowIsWhatTheDealsSay();
        handler.assertTablesHoldTheDeals();
        handler.assertNobodyGains();
    }

    function step(uint256 action, uint256 seed) private {
        if (action == 0) handler.open(seed);
        else if (action == 1) handler.loseData(seed);
        else if (action == 2) handler.settle(seed);
        else if (action == 3) handler.settleRail(seed);
        else if (action == 4) handler.terminate(seed);
        else if (action == 5) handler.expire(seed);
        else if (action == 6) handler.dropOne(seed);
        else if (action == 7) handler.declareFault(seed);
        else if (action == 8) handler.recoverFault(seed);
        else if (action == 9) handler.surrender(seed);
        else if (action == 10) handler.leave(seed);
        else if (action == 11) handler.endEarly(seed);
        else if (action == 12) handler.extend(seed);
        else if (action == 13) handler.challenge(seed);
        else if (action == 14) handler.claim(seed);
        else if (action == 15) handler.activateLater(seed);
        else if (action == 16) handler.dropOne(seed);
        else if (action == 17) handler.demandBytes(seed);
        else handler.advance(seed);
    }
}
