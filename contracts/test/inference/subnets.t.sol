// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnets} from "../../src/inference/ISubnets.sol";
import {SubnetBase} from "../../src/inference/SubnetBase.sol";
import {Subnets} from "../../src/inference/Subnets.sol";
import {deploySubnets} from "../deploy/inference.sol";
import {SubnetsFixture} from "./subnets-fixture.sol";

/// @notice Subnets from creation to end: lock, owner, rules.
contract SubnetsTest is SubnetsFixture {
    function test_creationTakesTheLockAndTheNextCostsTwice() public {
        assertEq(token.balanceOf(address(subnets)), LOCK_MIN);
        assertEq(subnets.lockCost(), 2 * LOCK_MIN);
        assertEq(subnets.ownerOf(subnetId), creator);
        ISubnets.Subnet memory s = subnets.subnet(subnetId);
        assertEq(s.kind, "chat");
        assertEq(s.lock, LOCK_MIN);
        assertEq(s.genesis, block.timestamp);
        vm.warp(block.timestamp + 7 days);
        assertEq(subnets.lockCost(), LOCK_MIN * 3 / 2);
        vm.warp(block.timestamp + 7 days);
        assertEq(subnets.lockCost(), LOCK_MIN);
        vm.warp(block.timestamp + 700 days);
        assertEq(subnets.lockCost(), LOCK_MIN);
    }

    function test_aFullNetworkRefusesAndItsCostStands() public {
        for (uint256 i = 1; i < 4; ++i) {
            createSubnet(creator);
        }
        uint256 cost = subnets.lockCost();
        assertEq(cost, 16 * LOCK_MIN);
        vm.warp(block.timestamp + 365 days);
        assertEq(subnets.lockCost(), cost); // it does not fall while full
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NetworkFull.selector, 4));
        subnets.create("chat", TEMPO, rules(), type(uint256).max);
        vm.prank(creator);
        subnets.dissolve(2);
        assertEq(subnets.lockCost(), cost);
        vm.warp(block.timestamp + 7 days);
        assertEq(subnets.lockCost(), cost - 4 * LOCK_MIN); // half of the last lock in half of the interval
    }

    /// Front-running a creation makes it dear; the victim's limit keeps its money, and its twin without a rival gets its subnet.
    function test_attack_aFrontRunCreationCostsTheVictimNothing() public {
        address victim = makeAddr("victim");
        uint256 quote = subnets.lockCost();
        uint256 before = vm.snapshotState();
        assertEq(createSubnet(victim), 2); // the honest twin
        vm.revertToState(before);
        createSubnet(makeAddr("front runner"));
        token.mint(victim, 10 * quote);
        vm.startPrank(victim);
        token.approve(address(subnets), type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.LockAboveLimit.selector, 2 * quote, quote));
        subnets.create("chat", TEMPO, rules(), quote);
        assertEq(token.balanceOf(victim), 10 * quote);
    }

    function testFuzz_tempoIsBounded(uint32 tempo) public {
        vm.assume(tempo < 60 || tempo > 30 days);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.OutOfRange.selector, bytes32("tempoSeconds"), tempo, 60, 30 days));
        subnets.create("chat", tempo, rules(), type(uint256).max);
    }

    function test_theLockComesBackAfterItsTime() public {
        vm.expectRevert(abi.encodeWithSelector(ISubnets.LockNotDue.selector, subnetId, type(uint256).max, block.timestamp));
        subnets.returnLock(subnetId);
        vm.prank(creator);
        subnets.dissolve(subnetId);
        uint256 due = subnets.subnet(subnetId).genesis + 30 days;
        vm.expectRevert(abi.encodeWithSelector(ISubnets.LockNotDue.selector, subnetId, due, block.timestamp));
        subnets.returnLock(subnetId);
        vm.warp(due);
        subnets.returnLock(subnetId);
        assertEq(token.balanceOf(creator), LOCK_MIN);
        vm.expectRevert(ISubnets.ZeroAmount.selector);
        subnets.returnLock(subnetId);
    }

    function test_anyoneEndsAnIdleSubnetAndNobodyALiveOne() public {
        address stranger = makeAddr("stranger");
        uint256 idle = block.timestamp + 90 days;
        vm.warp(idle - 1);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotIdle.selector, subnetId, idle, block.timestamp));
        subnets.dissolve(subnetId);
        recordRanks(subnets.nextToClose(subnetId), 0, "");
        vm.warp(idle + 1);
        vm.prank(stranger);
        vm.expectRevert();
        subnets.dissolve(subnetId);
        vm.warp(idle + 90 days);
        vm.prank(stranger);
        subnets.dissolve(subnetId);
        assertEq(subnets.liveSubnets(), 0);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.SubnetIsDissolved.selector, subnetId));
        subnets.register(subnetId, 1, type(uint256).max);
    }

    function test_ownershipMovesInTwoSteps() public {
        address heir = makeAddr("heir");
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotSubnetOwner.selector, subnetId, address(this), creator));
        subnets.proposeOwner(subnetId, heir);
        vm.prank(creator);
        subnets.proposeOwner(subnetId, heir);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotProposedOwner.selector, subnetId, address(this), heir));
        subnets.acceptOwner(subnetId);
        assertEq(subnets.ownerOf(subnetId), creator);
        vm.prank(heir);
        subnets.acceptOwner(subnetId);
        assertEq(subnets.ownerOf(subnetId), heir);
        vm.prank(heir);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.NotProposedOwner.selector, subnetId, heir, address(0)));
        subnets.acceptOwner(subnetId);
    }

    function test_rulesChangeFromTheNextEpochAndNotOften() public {
        ISubnets.Hyperparameters memory changed = rules();
        changed.kappa = 30_000;
        vm.startPrank(creator);
        vm.expectRevert(abi.encodeWithSelector(ISubnets.ChangedTooRecently.selector, subnetId, block.timestamp + 1 days, block.timestamp));
        subnets.setHyperparameters(subnetId, changed);
        vm.warp(block.timestamp + 1 days);
        subnets.setHyperparameters(subnetId, changed);
        assertEq(subnets.hyperparametersAt(subnetId, present()).kappa, 32_767);
        assertEq(subnets.hyperparametersAt(subnetId, present() + 1).kappa, 30_000);
        warpToEpoch(present() + 3);
        assertEq(subnets.hyperparametersAt(subnetId, 0).kappa, 32_767);
        assertEq(subnets.hyperparametersAt(subnetId, present()).kappa, 30_000);
    }

    function testFuzz_immunityIsLongerThanTheDelayAndTwoEpochs(uint8 delay, uint16 immunity) public {
        ISubnets.Hyperparameters memory changed = rules();
        changed.revealDelayEpochs = uint8(bound(delay, 1, 4));
        changed.immunityEpochs = uint16(bound(immunity, 0, 1_000));
        vm.warp(block.timestamp + 1 days);
        token.mint(creator, 10 * LOCK_MIN);
        vm.startPrank(creator);
        uint256 needed = uint256(changed.revealDelayEpochs) + 3;
        bytes memory tooShort = abi.encodeWithSelector(ISubnets.ImmunityTooShort.selector, changed.immunityEpochs, needed);
        bool refused = changed.immunityEpochs < needed;
        if (refused) vm.expectRevert(tooShort);
        subnets.setHyperparameters(subnetId, changed);
        token.approve(address(subnets), type(uint256).max);
        if (refused) vm.expectRevert(tooShort);
        subnets.create("chat", TEMPO, changed, type(uint256).max);
    }

    function testFuzz_rulesAreBounded(uint256 seed) public {
        vm.warp(block.timestamp + 1 days);
        ISubnets.Hyperparameters memory h = rules();
        // Two of the fields take any value.
        for (uint256 i; i < 2; ++i) {
            uint256 any = uint256(keccak256(abi.encode(seed, i)));
            uint256 field = any % 10;
            any >>= 8;
            if (field == 0) h.kappa = uint16(any);
            if (field == 1) h.bondsMovingAverage = uint32(any % 2_000_001);
            if (field == 2) h.alphaLow = uint16(any);
            if (field == 3) h.alphaHigh = uint16(any);
            if (field == 4) h.alphaSteepness = uint16(any % 4_001);
            if (field == 5) h.stakeCapPercentile = uint8(any);
            if (field == 6) h.maxValidators = uint8(any);
            if (field == 7) h.bondRowCap = uint8(any);
            if (field == 8) h.revealDelayEpochs = uint8(any % 8);
            if (field == 9) h.immunityEpochs = uint16(any % 2_000);
        }
        bool inside = h.kappa >= 26_214 && h.kappa <= 39_321 && h.bondsMovingAverage <= 1_000_000 && h.alphaHigh >= 1 && h.alphaLow >= 1
            && h.alphaLow <= h.alphaHigh && h.alphaSteepness <= 2_000 && h.stakeCapPercentile <= 99 && h.maxValidators >= 1
            && h.maxValidators <= 64 && h.bondRowCap >= 1 && h.bondRowCap <= 64 && h.revealDelayEpochs >= 1 && h.revealDelayEpochs <= 4
            && h.immunityEpochs <= 1_000 && h.immunityEpochs >= uint256(h.revealDelayEpochs) + 3;
        vm.prank(creator);
        (bool done,) = address(subnets).call(abi.encodeCall(ISubnets.setHyperparameters, (subnetId, h)));
        assertEq(done, inside);
        if (done) assertEq(keccak256(abi.encode(subnets.hyperparametersAt(subnetId, 1000))), keccak256(abi.encode(h)));
    }

    function testFuzz_epochsFollowOneAnother(uint32 time, uint16 epoch) public view {
        uint256 genesis = subnets.subnet(subnetId).genesis;
        uint64 at = subnets.epochAt(subnetId, genesis + time);
        assertLe(subnets.epochStart(subnetId, at), genesis + time);
        assertGt(subnets.epochStart(subnetId, at + 1), genesis + time);
        (uint256 endsAt, uint256 opensAt, uint256 closesAt) = subnets.timesOf(subnetId, epoch);
        assertEq(endsAt, subnets.epochStart(subnetId, uint64(epoch) + 1));
        assertEq(opensAt, endsAt); // a delay of one epoch
        assertEq(closesAt, opensAt + TEMPO);
    }

    function testFuzz_unknownSubnets(uint64 id) public {
        vm.assume(id != subnetId);
        bytes memory unknown = abi.encodeWithSelector(ISubnets.UnknownSubnet.selector, id);
        vm.expectRevert(unknown);
        subnets.subnet(id);
        vm.expectRevert(unknown);
        subnets.dissolve(id);
        vm.expectRevert(unknown);
        subnets.closeEpoch(id, 0);
        vm.expectRevert(unknown);
        subnets.claimPermit(id, 0);
        vm.expectRevert(unknown);
        subnets.requireValidator(id, 0, address(this));
        vm.expectRevert(unknown);
        subnets.hyperparametersAt(id, 0);
        vm.expectRevert(unknown);
        subnets.returnLock(id);
        vm.expectRevert(unknown);
        subnets.burnFor(id, 1);
    }

    function test_badConfigsAreRefused() public {
        SubnetBase.Config memory c = subnetsConfig();
        c.uidsMax = 257;
        vm.expectRevert(abi.encodeWithSelector(SubnetBase.BadConfig.selector, bytes32("uidsMax"), 257, 256));
        deploySubnets(c, registry, operators, vault, emission);
        c = subnetsConfig();
        c.priceFirst = c.priceMax + 1;
        vm.expectRevert(abi.encodeWithSelector(SubnetBase.BadConfig.selector, bytes32("priceMax"), c.priceMax, c.priceFirst));
        deploySubnets(c, registry, operators, vault, emission);
        c = subnetsConfig();
        c.lockMin = 0;
        vm.expectRevert(abi.encodeWithSelector(SubnetBase.BadConfig.selector, bytes32("lockMin"), 0, 1));
        deploySubnets(c, registry, operators, vault, emission);
    }
}
