// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {PieceRange} from "../../src/storage/PieceRange.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice Alice proves every period and serves nobody: she holds the bytes to ransom. Her client demands them on chain. Silence ends the
/// deal and costs the collateral; the honest twin, bob, publishes them and earns the bond.
contract WithheldBytesAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint256 private constant BOND_PER_LEAF = 1e15;
    uint64 private held; // alice's
    uint64 private twin; // bob's, of the same piece

    function setUp() public override {
        super.setUp();
        held = activeDeal(alice, SEED, 100);
        twin = activeDeal(bob, SEED, 100);
        proveNext(alice);
        prove(bob);
        toStart(period() + 1);
        proveNext(alice);
        prove(bob);
        toStart(period() + 1);
    }

    function demand(uint64 dealId, uint64 first, uint32 count) private {
        vm.prank(client);
        market.demandBytes(dealId, first, count);
    }

    function answerExternal(uint64 dealId, bytes calldata bytes_) external {
        vm.prank(nodeKey(market.deal(dealId).operatorId));
        market.answer(dealId, bytes_);
    }

    function test_who_withholds_demanded_bytes_is_ended_and_slashed_and_who_publishes_them_earns_the_bond() public {
        uint256 before = funds(client);
        uint256 bond = 5 * BOND_PER_LEAF;
        vm.expectEmit(address(market));
        uint64 seedTime = uint64((block.timestamp + 5 + 9) / 10 * 10);
        emit IStorageMarket.Challenged(held, alice, seedTime, seedTime + 120, 3, 5);
        demand(held, 3, 5);
        demand(twin, 3, 5);
        assertEq(funds(client), before - 2 * bond);
        uint256 earned = funds(makeAddr("bob"));
        vm.expectEmit(address(market));
        emit IStorageMarket.ChallengeAnswered(twin);
        this.answerExternal(twin, openRange(SEED, 5, 3, 5));
        assertEq(funds(makeAddr("bob")), earned + bond);
        assertEq(market.deal(twin).challengedAt, 0);

        uint64 deadline = seedTime + 120;
        vm.warp(deadline + 1);
        bytes memory late = openRange(SEED, 5, 3, 5);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.DeadlinePassed.selector, deadline, deadline + 1));
        this.answerExternal(held, late);
        (uint256 stake,) = vault.ownStake(alice);
        vm.prank(client);
        market.terminate(held);
        (uint256 left,) = vault.ownStake(alice);
        assertEq(stake - left, COLLATERAL);
        assertEq(uint8(market.deal(held).state), uint8(IStorageMarket.State.Terminated));
        assertEq(claimable(client), PRICE); // one period was paid
        assertEq(funds(client), before - bond + 99 * uint256(PRICE) + BOND); // the bond of the demand is back, and all that was not paid
        assertEq(market.deal(twin).locked, COLLATERAL);
    }

    function test_a_demand_is_made_by_the_client_one_at_a_time_within_the_bytes_of_the_piece() public {
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.NotClient.selector, held, address(this)));
        market.demandBytes(held, 0, 1);
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadTerms.selector, "count", 0, 256));
        market.demandBytes(held, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadTerms.selector, "count", 257, 256));
        market.demandBytes(held, 0, 257);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadTerms.selector, "firstLeaf", 32, 32));
        market.demandBytes(held, 32, 1);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadTerms.selector, "firstLeaf", 31, 32));
        market.demandBytes(held, 31, 2);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.UnknownDeal.selector, 77));
        market.demandBytes(77, 0, 1);
        market.demandBytes(held, 31, 1);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ChallengeOpen.selector, held));
        market.demandBytes(held, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.ChallengeOpen.selector, held));
        market.challenge(held);
        vm.stopPrank();
        // no answer to the one question is an answer to the other
        bytes memory openings = openPiece(leafOf(held), SEED, bytes32(0), 4);
        vm.expectPartialRevert(IPossession.ProofLength.selector);
        this.answerExternal(held, openings);
        this.answerExternal(held, openRange(SEED, 5, 31, 1));
        vm.prank(client);
        market.challenge(held); // after a demand a challenge draws by lot again
        assertEq(market.deal(held).demanded, 0);
    }

    function testFuzz_a_range_of_any_tree_is_accepted_and_nothing_else(uint8 height, uint256 first, uint256 count, uint256 flip) public {
        height = height % 9;
        uint256 width = 1 << height;
        first = first % width;
        count = 1 + count % (width - first);
        IPossession.Leaf memory leaf = IPossession.Leaf(pieceRootOf(SEED, height), height, uint64(width), 1, 9);
        bytes memory range = openRange(SEED, height, first, count);
        possession.verifyRange(leaf, uint64(first), uint32(count), range);
        // a byte more, a byte less, a word less
        vm.expectRevert(abi.encodeWithSelector(IPossession.ProofLength.selector, range.length + 1, range.length));
        possession.verifyRange(leaf, uint64(first), uint32(count), bytes.concat(range, hex"00"));
        bytes memory short = range;
        uint256 length = range.length;
        assembly ("memory-safe") {
            mstore(short, sub(length, 1))
        }
        uint256 needed = length > count * 32 ? length : count * 32;
        vm.expectRevert(abi.encodeWithSelector(PieceRange.RangeTooShort.selector, length - 1, needed));
        possession.verifyRange(leaf, uint64(first), uint32(count), short);
        assembly ("memory-safe") {
            mstore(range, length)
        }
        // one bit flipped anywhere
        range[flip % length] ^= bytes1(uint8(1 << (flip >> 128) % 6));
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        possession.verifyRange(leaf, uint64(first), uint32(count), range);
        if (height == 0) return;
        range[flip % length] ^= bytes1(uint8(1 << (flip >> 128) % 6));
        // the same bytes are not an answer for another place
        uint64 elsewhere = uint64(first ^ 1);
        if (elsewhere + count > width) return;
        vm.expectRevert();
        possession.verifyRange(leaf, elsewhere, uint32(count), range);
    }
}
