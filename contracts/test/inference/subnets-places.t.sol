// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnets} from "../../src/inference/ISubnets.sol";
import {SubnetsFixture} from "./subnets-fixture.sol";

/// @notice Uids: price, pruning, permits, ranks, and what an epoch's close fixes.
contract SubnetPlacesTest is SubnetsFixture {
    // -------------------------------------------------------------------------------------------------------------- price

    function test_registrationBurnsAndTheNextCostsAQuarterMore() public {
        uint256 supply = token.totalSupply();
        (uint64 operatorId, uint16 uid) = joinSubnet("one");
        assertEq(token.totalSupply(), supply); // minted to the owner, and burnt
        assertEq(uid, 0);
        assertEq(subnets.uidOf(subnetId, operatorId), 0);
        assertEq(subnets.registrationPrice(subnetId), 1.26e18);
        assertEq(emission.shareOf(subnetId), shares.weightOf(PRICE_FIRST, block.timestamp));
        vm.warp(block.timestamp + 2 hours);
        assertEq(subnets.registrationPrice(subnetId), 0.63e18);
        vm.warp(block.timestamp + 1 hours);
        assertEq(subnets.registrationPrice(subnetId), 0.4725e18); // three quarters: the middle of the line
        vm.warp(block.timestamp + 365 days);
        assertEq(subnets.registrationPrice(subnetId), 0.001e18);
    }

    function testFuzz_thePriceFallsSteadilyWithinItsBounds(uint32 wait, uint32 more) public {
        joinSubnet("one");
        vm.warp(block.timestamp + wait);
        uint256 price = subnets.registrationPrice(subnetId);
        vm.warp(block.timestamp + more);
        assertLe(subnets.registrationPrice(subnetId), price);
        assertGe(subnets.registrationPrice(subnetId), 0.001e18);
        assertLe(price, 100e18);
    }

    function test_whoMayRegisterAndOnce() public {
        uint64 operatorId = registerOperator(makeAddr("one"), makeAddr("one"));
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotOperatorOwner.selector, operatorId, address(this)));
        subnets.register(subnetId, operatorId, type(uint256).max);
        takeUid(operatorId);
        vm.prank(makeAddr("one"));
        vm.expectRevert(abi.encodeWithSelector(ISubnets.AlreadyRegistered.selector, subnetId, operatorId, 0));
        subnets.register(subnetId, operatorId, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotRegistered.selector, subnetId, 77));
        subnets.uidOf(subnetId, 77);
    }

    /// Registering in front of a victim raises its price; its limit keeps its money. Each further uid costs the raider a quarter more,
    /// so to hold a subnet's price up for long costs without end, while the victim's twin who waits pays the floor.
    function test_attack_registrationPriceGames() public {
        uint64 victim = registerOperator(makeAddr("victim"), makeAddr("victim"));
        uint256 quote = subnets.registrationPrice(subnetId);
        uint256 spent;
        for (uint256 i; i < 6; ++i) {
            spent += subnets.registrationPrice(subnetId);
            joinSubnet(string.concat("raider", vm.toString(i)));
        }
        uint256 raised = subnets.registrationPrice(subnetId);
        assertGt(raised, 4 * quote);
        assertGt(spent, 11 * quote);
        token.mint(makeAddr("victim"), 100e18);
        vm.startPrank(makeAddr("victim"));
        token.approve(address(subnets), type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.PriceAboveLimit.selector, raised, quote));
        subnets.register(subnetId, victim, quote);
        assertEq(token.balanceOf(makeAddr("victim")), 100e18);
        vm.warp(block.timestamp + 6 hours); // three half-lives
        subnets.register(subnetId, victim, quote);
    }

    function testFuzz_burningForASubnetRaisesItsShare(uint96 amount) public {
        amount = uint96(bound(amount, 1, 1e27));
        token.mint(address(this), amount);
        token.approve(address(subnets), amount);
        subnets.burnFor(subnetId, amount);
        assertEq(emission.shareOf(subnetId), shares.weightOf(amount, block.timestamp));
        assertEq(token.balanceOf(address(subnets)), LOCK_MIN);
        vm.expectRevert(ISubnets.ZeroAmount.selector);
        subnets.burnFor(subnetId, 0);
    }

    // ------------------------------------------------------------------------------------------------------------ pruning

    /// Fills the subnet's eight places.
    function fill() private {
        for (uint256 i; i < 8; ++i) {
            joinSubnet(string.concat("filler", vm.toString(i)));
            vm.warp(block.timestamp + 1);
        }
    }

    /// Incentive of each uid; no dividends.
    function ranksOf(uint16[8] memory incentives) private pure returns (bytes memory ranks) {
        for (uint256 i; i < 8; ++i) {
            ranks = bytes.concat(ranks, abi.encodePacked(incentives[i], uint16(0)));
        }
    }

    function test_theLowestRankThenTheEarliestIsPruned() public {
        fill();
        warpToEpoch(6);
        recordRanks(subnets.nextToClose(subnetId), 0, ranksOf([uint16(9), 8, 7, 3, 5, 3, 9, 9]));
        (uint16 uid, uint256 score, bool immune) = subnets.worst(subnetId);
        assertEq(uid, 3);
        assertEq(score, 3);
        assertFalse(immune);
        (uint64 newcomer, uint16 taken) = joinSubnet("newcomer");
        assertEq(taken, 3);
        assertEq(subnets.holderAt(subnetId, 3, block.timestamp).operatorId, newcomer);
        assertEq(subnets.holderAt(subnetId, 3, block.timestamp - 1).operatorId, 4);
        assertEq(subnets.uidOf(subnetId, newcomer), 3);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotRegistered.selector, subnetId, 4));
        subnets.uidOf(subnetId, 4);
        // Uid sniping: the newcomer takes over a place, not a rank.
        (uint16 incentive,) = subnets.rankOf(subnetId, 3);
        assertEq(incentive, 0);
        (uid,,) = subnets.worst(subnetId);
        assertEq(uid, 5);
    }

    function test_theImmuneArePrunedOnlyWhileHardlyAnybodyIsNot() public {
        fill();
        // Nobody has stood for five epochs yet: the worst of the immune goes, the earliest.
        (uint16 uid,, bool immune) = subnets.worst(subnetId);
        assertEq(uid, 0);
        assertTrue(immune);
        warpToEpoch(6);
        for (uint256 i; i < 6; ++i) {
            joinSubnet(string.concat("newcomer", vm.toString(i)));
        }
        // Two of the old ones are left, which is minNonImmune: now newcomers go.
        (uid,, immune) = subnets.worst(subnetId);
        assertTrue(immune);
        assertEq(uid, 0);
    }

    /// #1868 upstream: tiny validators' dust decided who survives. A rank comes from consensus alone; who has only dust has none.
    function test_attack_dustWeightsSaveNobody() public {
        fill();
        warpToEpoch(6);
        // uid 6 got dust from a minority: no consensus, so SubnetEpochs records no incentive; its honest twin 7 has little, by consensus.
        recordRanks(subnets.nextToClose(subnetId), 0, ranksOf([uint16(9), 9, 9, 9, 9, 9, 0, 1]));
        (uint16 uid,,) = subnets.worst(subnetId);
        assertEq(uid, 6);
        joinSubnet("newcomer");
        (uid,,) = subnets.worst(subnetId);
        assertEq(uid, 7);
    }

    /// forge-config: default.fuzz.runs = 24
    function testFuzz_pruningFollowsTheRule(uint16[8] memory incentives, uint8 wait) public {
        fill();
        warpToEpoch(3 + uint64(wait) % 8);
        recordRanks(subnets.nextToClose(subnetId), 0, ranksOf(incentives));
        for (uint256 i; i < 3; ++i) {
            vm.warp(block.timestamp + 1);
            joinSubnet(string.concat("newcomer", vm.toString(i)));
        }
        (uint16 uid,, bool immune) = subnets.worst(subnetId);
        (uint16 expected, bool expectedImmune) = worstByRule();
        assertEq(uid, expected);
        assertEq(immune, expectedImmune);
    }

    function worstByRule() private view returns (uint16 uid, bool immune) {
        uint256 open;
        for (uint16 i; i < 8; ++i) {
            if (!isImmune(i)) ++open;
        }
        immune = open <= 2 && open < 8;
        bool found;
        for (uint16 i; i < 8; ++i) {
            if (isImmune(i) != immune || (found && !isWorse(i, uid))) continue;
            (uid, found) = (i, true);
        }
    }

    function isImmune(uint16 uid) private view returns (bool) {
        return block.timestamp < uint256(subnets.holderAt(subnetId, uid, block.timestamp).registeredAt) + 5 * TEMPO;
    }

    function isWorse(uint16 one, uint16 other) private view returns (bool) {
        (uint256 a,) = subnets.rankOf(subnetId, one);
        (uint256 b,) = subnets.rankOf(subnetId, other);
        if (a != b) return a < b;
        uint256 since = subnets.holderAt(subnetId, one, block.timestamp).registeredAt;
        uint256 otherSince = subnets.holderAt(subnetId, other, block.timestamp).registeredAt;
        return since != otherSince ? since < otherSince : one < other;
    }

    // ------------------------------------------------------------------------------------------------------------ permits

    function test_aFreePermitIsClaimedWithEnoughStake() public {
        (uint64 operatorId, uint16 uid) = joinSubnet("validator");
        vm.expectRevert(abi.encodeWithSelector(ISubnets.StakeTooSmall.selector, subnetId, uid, 0, 10e18));
        subnets.claimPermit(subnetId, uid);
        depositStake(operatorId, makeAddr("validator"), 6e18);
        backStake(operatorId, makeAddr("backer"), 4e18);
        // Stake of this very second does not count: it could be gone in the next call.
        vm.expectRevert(abi.encodeWithSelector(ISubnets.StakeTooSmall.selector, subnetId, uid, 0, 10e18));
        subnets.claimPermit(subnetId, uid);
        vm.warp(block.timestamp + 1);
        subnets.claimPermit(subnetId, uid);
        assertEq(subnets.permitsAt(subnetId, present()), 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.AlreadyPermitted.selector, subnetId, uid));
        subnets.claimPermit(subnetId, uid);
        (uint64 epoch, uint64 holder) = subnets.requireValidator(subnetId, uid, operators.nodeKeyOf(operatorId));
        assertEq(epoch, present());
        assertEq(holder, operatorId);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotHolder.selector, subnetId, uid, makeAddr("validator")));
        subnets.requireValidator(subnetId, uid, makeAddr("validator")); // the owner is not the node key
    }

    function test_seatsAreFew() public {
        for (uint256 i; i < 4; ++i) {
            joinValidator(string.concat("validator", vm.toString(i)), 20e18);
        }
        (uint64 operatorId, uint16 uid) = joinSubnet("late");
        depositStake(operatorId, makeAddr("late"), 100e18);
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NoSeatFree.selector, subnetId, 4));
        subnets.claimPermit(subnetId, uid);
    }

    function test_settlementGivesPermitsFromTheNextEpochOn() public {
        joinValidator("one", 20e18);
        joinSubnet("two");
        warpToEpoch(2);
        recordRanks(0, 3, hex"0000000100000002");
        assertEq(subnets.permitsAt(subnetId, 2), 1);
        assertEq(subnets.permitsAt(subnetId, 3), 3);
        (, uint16 dividends) = subnets.rankOf(subnetId, 1);
        assertEq(dividends, 2);
        // A uid that changed hands after the epoch, or does not exist, gets none.
        warpToEpoch(4);
        recordRanks(1, 0xff, "");
        assertEq(subnets.permitsAt(subnetId, 5), 3);
        vm.prank(epochs);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.RanksOutOfOrder.selector, subnetId, 1, 1));
        subnets.record(subnetId, 1, 0, "");
        vm.prank(epochs);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.EpochNotClosed.selector, subnetId, 3));
        subnets.record(subnetId, 3, 0, "");
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotModule.selector, address(this), bytes32("subnetEpochs")));
        subnets.record(subnetId, 3, 0, "");
    }

    function test_aPrunedValidatorLosesItsPermitAtOnceAndThePastStays() public {
        joinValidator("one", 20e18);
        for (uint256 i; i < 7; ++i) {
            joinSubnet(string.concat("filler", vm.toString(i)));
        }
        warpToEpoch(6);
        subnets.closeEpoch(subnetId, 0);
        recordRanks(1, 1, "");
        joinSubnet("newcomer"); // takes uid 0, the earliest of those without a rank
        assertEq(subnets.permitsAt(subnetId, 5), 1);
        assertEq(subnets.permitsAt(subnetId, 6), 0);
        assertEq(subnets.permitsAt(subnetId, 7), 0);
    }

    function test_aRevokedPermitStaysAwayAndThenReturns() public {
        (uint64 operatorId, uint16 uid) = joinValidator("one", 20e18);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotModule.selector, address(this), bytes32("weightsBoard")));
        subnets.revokePermit(subnetId, uid, operatorId);
        vm.startPrank(address(board));
        subnets.revokePermit(subnetId, uid, operatorId + 1); // somebody else's uid by now: nothing
        assertEq(subnets.permitsAt(subnetId, present()), 1);
        subnets.revokePermit(subnetId, uid, operatorId);
        vm.stopPrank();
        assertEq(subnets.permitsAt(subnetId, present()), 0);
        uint64 until = subnets.barredUntil(subnetId, uid);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.BarredUntil.selector, subnetId, uid, until));
        subnets.claimPermit(subnetId, uid);
        warpToEpoch(2);
        recordRanks(0, 1, "");
        assertEq(subnets.permitsAt(subnetId, 3), 0);
        warpToEpoch(until);
        subnets.claimPermit(subnetId, uid);
        assertEq(subnets.permitsAt(subnetId, until), 1);
    }

    // ------------------------------------------------------------------------------------------------------------- epochs

    function stakeInMetagraph(uint64 epoch, uint256 uid) private view returns (uint256) {
        bytes memory graph = subnets.metagraph(subnetId, epoch);
        uint256 word;
        assembly ("memory-safe") {
            word := mload(add(add(graph, 64), mul(uid, 26)))
        }
        return word >> 48 & type(uint96).max;
    }

    function test_closingFixesTheMetagraphOfTheEpochsEnd() public {
        (uint64 operatorId,) = joinValidator("one", 20e18);
        warpToEpoch(1);
        bytes memory expected = abi.encodePacked(uint256(1), operatorId, uint48(subnets.subnet(subnetId).genesis), uint96(0));
        assertEq(subnets.metagraph(subnetId, 0), expected);
        (bytes32 hash, uint256 due) = subnets.closeEpoch(subnetId, 0);
        assertEq(hash, keccak256(expected));
        assertEq(subnets.metagraphHash(subnetId, 0), hash);
        assertEq(due, 300e18); // 3,600 s
        assertEq(emission.emissionOf(subnetId, 0), due);
        warpToEpoch(2);
        assertEq(stakeInMetagraph(1, 0), 20e18);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.EpochNotNext.selector, subnetId, 0, 1));
        subnets.closeEpoch(subnetId, 0);
        subnets.closeEpoch(subnetId, 1);
        vm.expectRevert(
            abi.encodeWithSelector(ISubnets.EpochNotOver.selector, subnetId, 2, subnets.epochStart(subnetId, 3), block.timestamp)
        );
        subnets.closeEpoch(subnetId, 2);
    }

    /// Stake that is there for an instant, at the end of an epoch or at its start, counts as none; its honest twin's counts.
    function test_attack_flashStake() public {
        (uint64 flash,) = joinSubnet("flash");
        (uint64 twin,) = joinSubnet("twin");
        depositStake(twin, makeAddr("twin"), 50e18);
        warpToEpoch(2);
        vm.warp(block.timestamp - 1); // the last second of epoch 1
        depositStake(flash, makeAddr("flash"), 1_000_000e18);
        warpToEpoch(2);
        assertEq(stakeInMetagraph(1, 0), 0);
        assertEq(stakeInMetagraph(1, 1), 50e18);
        vm.prank(makeAddr("flash"));
        vault.requestExit(flash, 1_000_000e18); // leaves in the first second of epoch 2
        warpToEpoch(3);
        assertEq(stakeInMetagraph(2, 0), 0);
        assertEq(stakeInMetagraph(2, 1), 50e18);
        (, uint256 exiting) = vault.ownStake(flash);
        assertEq(exiting, 1_000_000e18); // and stays slashable for the whole delay
    }

    /// Whenever an epoch is closed, and whatever happened since: the same bytes.
    /// forge-config: default.fuzz.runs = 24
    function testFuzz_closingLateChangesNothing(uint256 seed, uint8 actions) public {
        for (uint256 i; i < 8; ++i) {
            joinValidatorOrNot(i, seed);
        }
        warpToEpoch(6);
        subnets.closeEpoch(subnetId, 0);
        uint64 epoch = 5;
        bytes memory before = subnets.metagraph(subnetId, epoch);
        for (uint256 i; i < actions % 6; ++i) {
            uint256 roll = uint256(keccak256(abi.encode(seed, i)));
            vm.warp(block.timestamp + roll % TEMPO);
            if (roll % 4 == 0) joinSubnet(string.concat("late", vm.toString(i)));
            else if (roll % 4 == 1) backStake(uint64(1 + roll % 8), makeAddr("late backer"), 1 + roll % 1e24);
            else if (roll % 4 == 2) recordRanks(subnets.nextToClose(subnetId), uint64(roll), "");
            else subnets.closeEpoch(subnetId, subnets.nextToClose(subnetId));
        }
        assertEq(subnets.metagraph(subnetId, epoch), before);
    }

    function joinValidatorOrNot(uint256 i, uint256 seed) private {
        string memory name = string.concat("filler", vm.toString(i));
        if (seed >> i & 1 == 1 && i < 4) joinValidator(name, 10e18 + i);
        else joinSubnet(name);
    }

    function test_epochsAreClosedInOrderAndTheLongForgottenPassedOver() public {
        joinSubnet("one");
        warpToEpoch(40);
        assertEq(subnets.nextToClose(subnetId), 24);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.EpochNotNext.selector, subnetId, 25, 24));
        subnets.closeEpoch(subnetId, 25);
        (, uint256 due) = subnets.closeEpoch(subnetId, 24);
        assertEq(due, 25 * 300e18); // the emission of those passed over comes with it
        assertEq(subnets.nextToClose(subnetId), 25);
        (, due) = subnets.closeEpoch(subnetId, 25);
        assertEq(due, 300e18);
    }

    /// The lock is all that the contract holds.
    function testFuzz_theContractHoldsTheLocks(uint8 count) public {
        for (uint256 i; i < count % 4; ++i) {
            createSubnet(creator);
            joinSubnet(string.concat("m", vm.toString(i)));
        }
        uint256 locks;
        for (uint64 id = 1; id <= subnets.subnetCount(); ++id) {
            locks += subnets.subnet(id).lock;
        }
        assertEq(token.balanceOf(address(subnets)), locks);
    }
}
