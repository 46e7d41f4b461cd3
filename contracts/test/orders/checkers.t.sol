// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {ICheckers} from "../../src/storage/ICheckers.sol";
import {IPanelSeats} from "../../src/token/IPanelSeats.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {deployCheckers} from "../deploy/orders.sol";
import {OrderFixture} from "./fixture.sol";

contract CheckersTest is OrderFixture {
    uint256 private constant SEED = 1000;

    // ------------------------------------------------------------------------------------------------------------------- config

    function refuseConfig(ICheckers.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.BadConfig.selector, field, got, limit));
        deployCheckers(c, market, operators, vault, rails, randomness);
    }

    function test_aConfigurationOutOfBoundsIsRefused() public {
        ICheckers.Config memory c = checkers.config();
        c.seatStake = 0;
        refuseConfig(c, "seatStake", 0, 1);
        c = checkers.config();
        c.leaveSeconds = 0;
        refuseConfig(c, "leaveSeconds", 0, 1);
        c = checkers.config();
        c.drawn = 0;
        refuseConfig(c, "drawn", 0, 32);
        c.drawn = 33;
        refuseConfig(c, "drawn", 33, 32);
        c = checkers.config();
        c.threshold = 4;
        refuseConfig(c, "threshold", 4, 3);
        c.threshold = 1;
        refuseConfig(c, "threshold", 1, 3);
        c = checkers.config();
        c.missesMax = 0;
        refuseConfig(c, "missesMax", 0, 1);
        assertEq(checkers.exposureSeconds(), 1 days);
    }

    // -------------------------------------------------------------------------------------------------------------------- seats

    function enrol(uint64 operatorId) private returns (uint64) {
        vm.prank(nodeKey(operatorId));
        return checkers.enrol(operatorId);
    }

    function test_aSeatLocksStakeUntilItWasLeftLongEnough() public {
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NoOperator.selector, address(this)));
        checkers.enrol(alice);
        uint64 seatId = enrol(alice);
        assertEq(vault.lockedOfModule(alice, address(checkers)), 5e18);
        assertEq(checkers.seatOf(alice), seatId);
        assertEq(checkers.seatCount(), 1);
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.AlreadyEnrolled.selector, alice, seatId));
        checkers.enrol(alice);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NoOperator.selector, address(this)));
        checkers.leave(alice);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotEnrolled.selector, alice));
        checkers.unlock(seatId);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.UnknownSeat.selector, 2));
        checkers.unlock(2);
        vm.prank(makeAddr("alice"));
        checkers.leave(alice);
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotEnrolled.selector, alice));
        checkers.leave(alice);
        uint256 unlocksAt = block.timestamp + 1 days;
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.StillLocked.selector, seatId, unlocksAt, block.timestamp));
        checkers.unlock(seatId);
        vm.warp(unlocksAt);
        checkers.unlock(seatId);
        assertEq(vault.lockedOf(alice), 0);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotEnrolled.selector, alice));
        checkers.unlock(seatId);
        assertEq(enrol(alice), 2);
    }

    // ----------------------------------------------------------------------------------------------------------------- verdicts

    /// A file of two shards at alice and bob, whose client is silent; `seats` checkers were there before.
    function silentFile(uint256 seats) private returns (uint64 dealId) {
        addProviders(2 + seats);
        for (uint256 i; i < seats; ++i) {
            enrol(providers[2 + i]);
        }
        vm.warp(block.timestamp + 1);
        dealId = filledFile(SEED, 2, 1).shard(0).dealId;
    }

    function request(uint64 dealId) private {
        vm.warp(market.activationSeedTime(dealId));
        seedOf(market.activationSeedTime(dealId));
        address key = nodeKey(market.deal(dealId).operatorId);
        fund(key, 1e18);
        vm.startPrank(key);
        rails.approve(address(checkers), address(token), 1e18);
        checkers.request(dealId);
        vm.stopPrank();
    }

    function signatures(uint64 dealId, uint256 signers) private view returns (bytes[] memory list) {
        uint64[] memory drawn = checkers.drawOf(dealId);
        list = new bytes[](drawn.length);
        bytes32 digest = checkers.retrievableDigest(dealId);
        for (uint256 i; i < signers; ++i) {
            list[i] = sign(nodeSecret[drawn[i]], digest);
        }
    }

    function test_aThresholdOfDrawnCheckersAcknowledgesForASilentClient() public {
        uint64 dealId = silentFile(5);
        request(dealId);
        uint64[] memory drawn = checkers.drawOf(dealId);
        assertEq(drawn.length, 3);
        assertFalse(checkers.hasVerdict(dealId));
        bytes[] memory list = signatures(dealId, 2);
        checkers.verdict(dealId, list);
        assertTrue(checkers.hasVerdict(dealId));
        // the two who signed share the fee of three; the third has missed
        for (uint256 i; i < 2; ++i) {
            assertEq(funds(operators.beneficiaryOf(drawn[i])), 15e14);
        }
        assertEq(funds(operators.beneficiaryOf(drawn[2])), 0);
        assertEq(funds(address(checkers)), 0);
        assertEq(checkers.seat(checkers.seatOf(drawn[2])).missed, 1);
        activateWith(dealId, abi.encode(dealId));
        vm.expectRevert(abi.encodeWithSelector(ICheckers.AlreadyClosed.selector, dealId));
        checkers.verdict(dealId, list);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.AlreadyClosed.selector, dealId));
        checkers.returnFee(dealId);
        ICheckers.Request memory r = checkers.requestOf(dealId);
        assertEq(r.signed, 3);
        assertEq(r.fee, 3e15);
    }

    function test_aRequestIsByTheProviderOfAnOpenDealOnceItsSeedIsFixed() public {
        uint64 dealId = silentFile(3);
        uint64 seedAt = market.activationSeedTime(dealId);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotProvider.selector, dealId, address(this)));
        checkers.request(dealId);
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(IRandomness.RandomnessNotFixed.selector, seedAt));
        checkers.request(dealId);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotRequested.selector, dealId));
        checkers.verdict(dealId, new bytes[](0));
        request(dealId);
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(ICheckers.AlreadyRequested.selector, dealId));
        checkers.request(dealId);
        uint64 active = activeDeal(alice, SEED, 10);
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotOpen.selector, active));
        checkers.request(active);
    }

    function test_aVerdictNeedsEnoughGoodSignaturesOfThoseWhoWereDrawn() public {
        uint64 dealId = silentFile(5);
        request(dealId);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.WrongCount.selector, 2, 3));
        checkers.verdict(dealId, new bytes[](2));
        bytes[] memory list = signatures(dealId, 1);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.TooFewSignatures.selector, 1, 2));
        checkers.verdict(dealId, list);
        list[1] = list[0]; // one signature for two seats
        address second = nodeKey(checkers.drawOf(dealId)[1]);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.BadSignature.selector, second));
        checkers.verdict(dealId, list);
    }

    function test_tooFewSeatsAreToldSo() public {
        uint64 dealId = silentFile(1);
        vm.warp(market.activationSeedTime(dealId));
        seedOf(market.activationSeedTime(dealId));
        vm.prank(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.TooFewSeats.selector, 1, 2));
        checkers.request(dealId);
    }

    function test_seatsTakenAfterTheDealOrLeftBeforeItAreNotDrawn() public {
        addProviders(8);
        for (uint256 i = 2; i < 6; ++i) {
            enrol(providers[i]);
        }
        enrol(alice); // the provider itself
        vm.prank(nodeKey(providers[2]));
        checkers.leave(providers[2]);
        vm.warp(block.timestamp + 1);
        uint64 dealId = filledFile(SEED, 2, 1).shard(0).dealId;
        enrol(providers[6]);
        enrol(providers[7]);
        vm.warp(block.timestamp + 1);
        vm.prank(nodeKey(providers[3]));
        checkers.leave(providers[3]); // too late not to be drawn
        vm.warp(market.activationSeedTime(dealId));
        seedOf(market.activationSeedTime(dealId));
        uint64[] memory drawn = checkers.drawOf(dealId);
        assertEq(drawn.length, 3);
        for (uint256 i; i < 3; ++i) {
            assertTrue(drawn[i] == providers[3] || drawn[i] == providers[4] || drawn[i] == providers[5]);
            for (uint256 j; j < i; ++j) {
                assertTrue(drawn[i] != drawn[j]);
            }
        }
        request(dealId);
        assertEq(keccak256(abi.encode(checkers.drawOf(dealId))), keccak256(abi.encode(drawn)));
    }

    /// Whatever the seed and the seats: no repetition, none of the provider's, as many as there are up to the number drawn.
    function testFuzz_theDrawIsOfDifferentEligibleSeats(uint256 salt, uint256 left, uint8 seats) public {
        seats = uint8(bound(seats, 2, 12));
        beacon.reseed(salt);
        addProviders(2 + seats);
        uint256 eligible;
        for (uint256 i; i < seats; ++i) {
            enrol(providers[2 + i]);
            if (left & (1 << i) != 0) {
                vm.prank(nodeKey(providers[2 + i]));
                checkers.leave(providers[2 + i]);
            } else {
                ++eligible;
            }
        }
        enrol(alice);
        vm.warp(block.timestamp + 1);
        uint64 dealId = filledFile(SEED, 2, 1).shard(0).dealId;
        vm.warp(market.activationSeedTime(dealId));
        seedOf(market.activationSeedTime(dealId));
        uint64[] memory drawn = checkers.drawOf(dealId);
        assertEq(drawn.length, eligible < 3 ? eligible : 3);
        for (uint256 i; i < drawn.length; ++i) {
            assertTrue(checkers.seatOf(drawn[i]) != 0 && drawn[i] != alice);
            for (uint256 j; j < i; ++j) {
                assertTrue(drawn[i] != drawn[j]);
            }
        }
    }

    function test_withoutAVerdictTheFeeGoesBack() public {
        uint64 dealId = silentFile(3);
        request(dealId);
        uint256 before = funds(nodeKey(alice));
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotOver.selector, dealId));
        checkers.returnFee(dealId);
        vm.warp(block.timestamp + 901);
        market.expire(dealId);
        checkers.returnFee(dealId);
        assertEq(funds(nodeKey(alice)) - before, 3e15);
        assertEq(funds(address(checkers)), 0);
    }

    function test_aSeatThatNeverSignsIsTakenAwayAndOneThatWasLeftOutSaysSo() public {
        uint64 dealId = silentFile(3);
        uint64 idle;
        for (uint256 round; round < 2; ++round) {
            request(dealId);
            uint64[] memory drawn = checkers.drawOf(dealId);
            if (round == 0) idle = drawn[2];
            bytes[] memory list = signatures(dealId, 3);
            for (uint256 i; i < 3; ++i) {
                if (drawn[i] == idle) list[i] = "";
            }
            checkers.verdict(dealId, list);
            uint64 seatId = checkers.seatOf(idle);
            if (round == 0) {
                vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotMissed.selector, seatId, 1, 2));
                checkers.removeIdle(seatId);
                dealId = filledFile(SEED + 10, 2, 1).shard(0).dealId;
            }
        }
        uint64 seat = checkers.seatOf(idle);
        uint256 before = vm.snapshotState();
        checkers.removeIdle(seat);
        assertEq(checkers.seatOf(idle), 0);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.NotEnrolled.selector, idle));
        checkers.removeIdle(seat);
        vm.revertToState(before);
        vm.prank(nodeKey(idle));
        checkers.attest(dealId);
        assertEq(checkers.seat(seat).missed, 1);
        vm.prank(nodeKey(idle));
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotDrawn.selector, dealId, idle));
        checkers.attest(dealId);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotRequested.selector, 99));
        checkers.attest(99);
    }

    function testFuzz_whatTheDivisionLeavesIsPaidToo(uint128 fee, bool all) public {
        fee = uint128(bound(fee, 0, 1e17));
        ICheckers.Config memory c = checkers.config();
        c.fee = fee;
        checkers = deployCheckers(c, market, operators, vault, rails, randomness);
        registry.set("checkers", address(checkers), true);
        uint64 dealId = silentFile(4);
        request(dealId);
        uint64[] memory drawn = checkers.drawOf(dealId);
        uint256 signers = all ? 3 : 2;
        checkers.verdict(dealId, signatures(dealId, signers));
        uint256 paid;
        for (uint256 i; i < 3; ++i) {
            paid += funds(operators.beneficiaryOf(drawn[i]));
        }
        assertEq(paid, 3 * uint256(fee));
        assertEq(funds(address(checkers)), 0);
    }

    function testFuzz_strangersDecideNothing(address stranger, uint64 dealId, uint64 seatId) public {
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotRequested.selector, dealId));
        checkers.verdict(dealId, new bytes[](3));
        vm.expectRevert(abi.encodeWithSelector(ICheckers.NotRequested.selector, dealId));
        checkers.returnFee(dealId);
        vm.expectRevert(abi.encodeWithSelector(IPanelSeats.UnknownSeat.selector, seatId));
        checkers.removeIdle(seatId);
        vm.stopPrank();
    }
}
