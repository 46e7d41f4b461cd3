// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {EpochsFixture} from "./epochs-fixture.sol";

/// @notice Moves of everybody around a settlement, honest and not, in any order: judged and silent epochs, right and wrong proposals,
/// disputes of both, finalizing, crediting, pulling and passing over. It keeps what final epochs gave and nobody was credited with yet.
contract EpochsHandler is EpochsFixture {
    ISubnetEpochs.Result private last; // right result of the epoch that is next
    ISubnetEpochs.Result private posted; // what waits
    bytes private finalPayments;
    uint64 private finalEpoch;
    uint256 public uncredited;
    uint256 public refuted;
    uint256 public finals;

    function start() external {
        setUp();
        populate();
        makeOptimistic();
        finish(judge());
    }

    function next() private view returns (uint64) {
        return settlement.accountOf(subnetId).next;
    }

    function isDue() private view returns (bool) {
        uint64 epoch = next();
        if (subnets.metagraphHash(subnetId, epoch) == 0 || present() >= epoch + 15) return false;
        (, uint256 closesAt) = board.windowOf(subnetId, epoch);
        return block.timestamp >= closesAt;
    }

    function judgeOne(uint16 first, uint16 second) external {
        judge(row(2, 65_535, 3, first), row(2, second, 3, 65_535));
    }

    function pass(uint256 seconds_) external {
        vm.warp(block.timestamp + bound(seconds_, 1, 3 * TEMPO));
        if (present() != 0 && subnets.nextToClose(subnetId) < present()) closeThrough(present() - 1);
    }

    function propose(bool isRight, uint256 seed) external {
        if (!isDue() || settlement.decisionOf(subnetId).root != 0) return;
        last = resultOf(next());
        posted = last;
        if (!isRight) {
            bytes memory ranks = posted.ranks;
            uint256 at = seed % ranks.length;
            ranks[at] = bytes1(uint8(ranks[at]) ^ 1);
            posted.ranks = ranks;
        }
        proposeEpoch(next(), posted);
    }

    function settle() external {
        ISubnetEpochs.Decision memory d = settlement.decisionOf(subnetId);
        if (!isDue() || (d.root != 0 && d.proposer == address(0))) return;
        if (d.root == 0) last = resultOf(next());
        uint256 before = settlement.owedTo(challenger);
        settleEpoch(next(), evidenceOf(next()));
        if (settlement.owedTo(challenger) != before) ++refuted;
        posted = last;
    }

    function finalizeNext() external {
        ISubnetEpochs.Decision memory d = settlement.decisionOf(subnetId);
        if (d.root == 0 || block.timestamp < d.finalFrom) return;
        (finalEpoch, finalPayments) = (next(), posted.payments);
        finalizeEpoch(next(), posted);
        for (uint256 uid; uid < finalPayments.length / 32 - 1; ++uid) {
            (, uint256 miner, uint256 validator) = paymentOf(posted, uid);
            uncredited += miner + validator;
        }
        ++finals;
    }

    function credit(uint16 uid) external {
        if (finalPayments.length == 0) return;
        uid %= 4;
        if (settlement.creditedOf(subnetId, finalEpoch) >> uid & 1 == 0) {
            uint256 word = wordOf(finalPayments, uint256(uid) + 1);
            uncredited -= uint96(word >> 96) + uint96(word);
        }
        settlement.credit(subnetId, finalEpoch, finalPayments, only(uid));
    }

    function pull(uint64 operatorId, uint256 who) external {
        operatorId = 1 + operatorId % 4;
        if (settlement.earningsOf(operatorId).miner != 0) settlement.payMiner(operatorId);
        settlement.release(operatorId);
        address account = accountAt(who % 3);
        if (settlement.owedTo(account) == 0) return;
        vm.prank(account);
        settlement.claim(account);
    }

    function skipNext() external {
        try settlement.skip(subnetId) {
            if (settlement.accountOf(subnetId).stateHash == 0) delete state;
        } catch {}
    }

    function accountAt(uint256 which) private view returns (address) {
        return which == 0 ? creator : which == 1 ? proposer : challenger;
    }

    function held() external view returns (uint256) {
        return inferenceToken.balanceOf(address(settlement));
    }

    function obligations() external view returns (uint256) {
        return settlement.obligations();
    }

    /// Everything that is here for somebody, counted up, but what the first epochs gave, which nobody is credited with.
    function counted() external view returns (uint256 sum) {
        sum = settlement.accountOf(subnetId).carried + settlement.decisionOf(subnetId).bond + uncredited;
        for (uint256 i; i < 3; ++i) {
            sum += settlement.owedTo(accountAt(i));
        }
        for (uint64 operatorId = 1; operatorId <= 4; ++operatorId) {
            ISubnetEpochs.Earnings memory e = settlement.earningsOf(operatorId);
            sum += uint256(e.miner) + e.validator;
        }
    }
}

/// forge-config: default.invariant.runs = 12
/// forge-config: default.invariant.depth = 48
contract EpochsInvariantTest is Test {
    EpochsHandler private world;
    uint256 private before;

    function setUp() public {
        world = EpochsHandler(vm.deployCode("epochs-invariant.t.sol:EpochsHandler"));
        world.start();
        before = world.obligations() - world.counted();
        bytes4[] memory moves = new bytes4[](8);
        moves[0] = EpochsHandler.judgeOne.selector;
        moves[1] = EpochsHandler.pass.selector;
        moves[2] = EpochsHandler.propose.selector;
        moves[3] = EpochsHandler.settle.selector;
        moves[4] = EpochsHandler.finalizeNext.selector;
        moves[5] = EpochsHandler.credit.selector;
        moves[6] = EpochsHandler.pull.selector;
        moves[7] = EpochsHandler.skipNext.selector;
        targetContract(address(world));
        targetSelector(FuzzSelector(address(world), moves));
    }

    function invariant_what_is_held_is_what_is_owed_to_the_unit() public view {
        assertEq(world.held(), world.obligations());
        assertEq(world.counted() + before, world.obligations());
    }

    function test_theMovesDoWhatTheySay() public {
        world.pass(3 * 3_600);
        for (uint256 i; i < 30 && world.refuted() == 0; ++i) {
            world.finalizeNext();
            world.judgeOne(1, 2);
            world.propose(false, 40);
            world.settle();
        }
        assertEq(world.refuted(), 1);
        world.finalizeNext();
        assertGt(world.finals(), 0);
        world.credit(2);
        world.pull(2, 2);
        invariant_what_is_held_is_what_is_owed_to_the_unit();
    }
}
