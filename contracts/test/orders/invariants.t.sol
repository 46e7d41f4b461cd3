// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {OrdersHandler} from "./handler.sol";

/// @notice Laws of the open market that hold after every sequence of calls, hostile ones among them.
contract OrdersInvariants is Test {
    OrdersHandler private handler;

    function setUp() public {
        handler = OrdersHandler(vm.deployCode("handler.sol:OrdersHandler"));
        handler.setUp();
        bytes4[] memory actions = new bytes4[](11);
        actions[0] = handler.postOrders.selector;
        actions[1] = handler.activateShard.selector;
        actions[2] = handler.breakShard.selector;
        actions[3] = handler.noteLoss.selector;
        actions[4] = handler.claimRepair.selector;
        actions[5] = handler.fulfil.selector;
        actions[6] = handler.failClaim.selector;
        actions[7] = handler.withdraw.selector;
        actions[8] = handler.challenge.selector;
        actions[9] = handler.cancel.selector;
        actions[10] = handler.release.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector(address(handler), actions));
    }

    function invariant_theLawsOfTheOpenMarket() public view {
        _everyFilesSumsAreExact();
        _promisesAreCovered();
        _theHostilePartyNeverGains();
        _locksAndAccountsAreExact();
    }

    /// All money that came into a file was paid to providers, lost as bonds, fee, tip, bounties, withdrawn, or is there.
    function _everyFilesSumsAreExact() private view {
        (uint256[] memory held, uint256[] memory expected) = handler.balances();
        for (uint256 i; i < held.length; ++i) {
            assertEq(held[i], expected[i]);
        }
    }

    /// Bounties that are promised are there.
    function _promisesAreCovered() private view {
        (uint256[] memory sums,) = handler.balances();
        for (uint256 i; i < handler.fileCount(); ++i) {
            IStorageFile file = handler.fileAt(i);
            IStorageFile.ShardAccount[] memory list = file.shards();
            uint256 promised;
            uint256 live;
            for (uint256 s; s < list.length; ++s) {
                if (list[s].state == IStorageFile.ShardState.Claimed) promised += list[s].bounty;
                if (list[s].state == IStorageFile.ShardState.Live) ++live;
            }
            assertEq(file.account().bounties, promised);
            assertEq(file.account().healthy, live);
            assertLe(file.free() + promised, _heldBy(file, sums[i]));
        }
    }

    /// Client, provider, matcher and repairer at once: never more than before, but for tips of honest bids; bounties out of honest files are
    /// less than what breaking their shards has cost.
    function _theHostilePartyNeverGains() private view {
        assertLe(handler.wealthOf(true) + handler.honestBounties(), handler.hostileStart() + handler.tipsToHostile());
    }

    /// The vault holds locked for the book what its asks and open claims say; no money stays in book or market.
    function _locksAndAccountsAreExact() private view {
        (uint256 locked, uint256 expected) = handler.locksOfBook();
        assertEq(locked, expected);
        assertEq(handler.leftInTheBook(), 0);
    }

    /// What is left of all money that came in, which `sum` says.
    function _heldBy(IStorageFile file, uint256 sum) private view returns (uint256) {
        (, uint256 fee, uint256 tip, uint256 bounties, uint256 withdrawn,) = handler.flows(address(file));
        return sum - handler.spentOnRails(address(file)) - fee - tip - bounties - withdrawn;
    }

    /// The same actions by a fixed lot: they do reach what the laws are about, and the laws hold after each of many steps.
    function test_theActionsReachWhatTheLawsAreAbout() public {
        for (uint256 i; i < 500; ++i) {
            uint256 lot = uint256(keccak256(abi.encode(i)));
            _act(lot % 11, lot >> 16, uint8(lot >> 8));
            if (i % 50 == 49) {
                invariant_theLawsOfTheOpenMarket();
            }
        }
        string[11] memory reached =
            ["post", "fill", "activate", "surrender", "expire", "noteLoss", "claim", "finish", "failClaim", "withdraw", "challenge"];
        for (uint256 i; i < reached.length; ++i) {
            assertGt(handler.done(reached[i]), 0, reached[i]);
        }
        assertGt(handler.hostileBounties() + handler.honestBounties(), 0);
    }

    function _act(uint256 action, uint256 which, uint8 shard) private {
        if (action == 0) handler.postOrders(which, shard, which & 1 == 1);
        if (action == 1) handler.activateShard(which, shard);
        if (action == 2) handler.breakShard(which, shard);
        if (action == 3) handler.noteLoss(which, shard);
        if (action == 4) handler.claimRepair(which, shard, which >> 32);
        if (action == 5) handler.fulfil(which, shard, true);
        if (action == 6) handler.failClaim(which, shard);
        if (action == 7) handler.withdraw(which, which >> 128, which & 2 == 2);
        if (action == 8) handler.challenge(which, shard);
        if (action == 9) handler.cancel(which);
        if (action == 10) handler.release(which);
    }
}
