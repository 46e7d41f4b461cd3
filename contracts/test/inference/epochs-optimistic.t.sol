// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {EpochsFixture} from "./epochs-fixture.sol";

/// @notice Proposals under a bond: honest ones, wrong ones, and those who would harm either side.
contract EpochsOptimisticTest is EpochsFixture {
    uint64 private epoch;

    function setUp() public override {
        super.setUp();
        populate();
        makeOptimistic();
        epoch = judge();
        finish(epoch - 1);
    }

    /// The result that gives miner 2's pay to miner 3's operator.
    function lie() private returns (ISubnetEpochs.Result memory result) {
        result = resultOf(epoch);
        bytes memory payments = result.payments;
        assembly ("memory-safe") {
            let third := add(payments, 128)
            let fourth := add(payments, 160)
            let pay := shl(96, and(shr(96, mload(third)), 0xffffffffffffffffffffffff))
            mstore(third, sub(mload(third), pay))
            mstore(fourth, add(mload(fourth), pay))
        }
    }

    function test_aRightProposalIsFinalAfterItsWindowAndItsBondComesBack() public {
        ISubnetEpochs.Result memory result = resultOf(epoch);
        uint256 bond = proposeEpoch(epoch, result);
        (uint256 total,) = settlement.stakesOf(subnetId, epoch);
        assertGe(bond, total);
        uint256 finalFrom = block.timestamp + TEMPO / 2;
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WindowOpen.selector, subnetId, epoch, finalFrom, block.timestamp));
        settlement.finalize(subnetId, epoch, result.payments, result.ranks, keccak256(result.state));
        vm.warp(finalFrom);
        finalizeEpoch(epoch, result);
        assertEq(settlement.owedTo(proposer), bond);
        vm.prank(proposer);
        settlement.claim(proposer);
        assertEq(inferenceToken.balanceOf(proposer), bond);
    }

    function test_aWrongProposalIsReplacedAndItsBondIsHalvedBetweenChallengerAndNobody() public {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        uint256 bond = proposeEpoch(epoch, lie());
        uint256 supply = inferenceToken.totalSupply();
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        vm.expectEmit();
        emit ISubnetEpochs.ProposalRefuted(subnetId, epoch, proposer, challenger, bond / 2, bond - bond / 2);
        vm.prank(challenger);
        settlement.settle(subnetId, epoch, evidence);
        assertEq(settlement.owedTo(challenger), bond / 2);
        assertEq(settlement.owedTo(proposer), 0);
        assertEq(inferenceToken.totalSupply(), supply - (bond - bond / 2));
        finalizeEpoch(epoch, right);
        assertEq(settlement.paymentsHash(subnetId, epoch), keccak256(right.payments));
    }

    function test_whoChallengesARightProposalPaysGasAndMakesItFinal() public {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        uint256 bond = proposeEpoch(epoch, right);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        vm.expectEmit();
        emit ISubnetEpochs.ProposalUpheld(subnetId, epoch, proposer, bond);
        vm.prank(challenger);
        settlement.settle(subnetId, epoch, evidence);
        assertEq(settlement.owedTo(proposer), bond);
        assertEq(settlement.owedTo(challenger), 0);
        finalizeEpoch(epoch, right);
        assertEq(settlement.owedTo(proposer), bond, "the bond is given back once");
    }

    function test_anyDifferenceFromTheRightResultIsRefuted() public {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        for (uint256 part; part < 3; ++part) {
            uint256 snapshot = vm.snapshotState();
            ISubnetEpochs.Result memory wrong = resultOf(epoch);
            bytes memory bytes_ = part == 0 ? wrong.payments : part == 1 ? wrong.ranks : wrong.state;
            uint256 at = part == 0 ? 39 : bytes_.length - 1; // of the payments: an operator
            bytes_[at] = bytes1(uint8(bytes_[at]) ^ 1);
            proposeEpoch(epoch, wrong);
            settleEpoch(epoch, evidenceOf(epoch));
            assertGt(settlement.owedTo(challenger), 0);
            finalizeEpoch(epoch, right);
            vm.revertToState(snapshot);
        }
    }

    function testFuzz_whateverBytesOfAResultAreChangedTheTruthWins(uint256 seed) public {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        ISubnetEpochs.Result memory wrong = resultOf(epoch);
        bytes memory target = seed % 2 == 0 ? wrong.ranks : wrong.state;
        uint256 at = (seed >> 8) % target.length;
        bytes1 flip = bytes1(uint8(1 + (seed >> 40) % 255));
        target[at] = target[at] ^ flip;
        proposeEpoch(epoch, wrong);
        settleEpoch(epoch, evidenceOf(epoch));
        assertEq(settlement.decisionOf(subnetId).root, rootOf(right));
        assertEq(settlement.owedTo(proposer), 0);
    }

    function rootOf(ISubnetEpochs.Result memory r) private view returns (bytes32) {
        return settlement.rootOf(keccak256(r.payments), keccak256(r.ranks), keccak256(r.state));
    }

    // ----------------------------------------------------------------------------------------------------------- refusals

    function test_aBondBelowTheEmissionIsRefused() public {
        ISubnetEpochs.Result memory result = resultOf(epoch);
        (, uint256 needed) = settlement.stakesOf(subnetId, epoch);
        fund(proposer, needed);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.BondTooSmall.selector, needed - 1, needed));
        vm.prank(proposer);
        settlement.propose(subnetId, epoch, result, needed - 1);
        vm.prank(proposer);
        settlement.propose(subnetId, epoch, result, needed);
    }

    function test_aResultThatPaysOutMoreThanThereIsIsRefusedAtOnce() public {
        ISubnetEpochs.Result memory result = resultOf(epoch);
        (uint256 total, uint256 bond) = settlement.stakesOf(subnetId, epoch);
        fund(proposer, bond);
        vm.startPrank(proposer);
        bytes memory payments = result.payments;
        assembly ("memory-safe") {
            mstore(add(payments, 64), add(mload(add(payments, 64)), 1))
        }
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.PaymentsDoNotAddUp.selector, total + 1, total));
        settlement.propose(subnetId, epoch, result, bond);
        assembly ("memory-safe") {
            mstore(add(payments, 64), sub(mload(add(payments, 64)), 1))
            mstore(add(payments, 32), add(mload(add(payments, 32)), shl(128, 1)))
        }
        uint256 right = total * 11_796 / 65_535;
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongOwnerPart.selector, right + 1, right));
        settlement.propose(subnetId, epoch, result, bond);
    }

    function test_misshapenResultsAreRefused() public {
        ISubnetEpochs.Result memory result = resultOf(epoch);
        (, uint256 bond) = settlement.stakesOf(subnetId, epoch);
        fund(proposer, bond);
        vm.startPrank(proposer);
        ISubnetEpochs.Result memory bad = ISubnetEpochs.Result(bytes.concat(result.payments, hex"00"), result.ranks, result.state);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongLength.selector, bytes32("payments"), bad.payments.length, 32));
        settlement.propose(subnetId, epoch, bad, bond);
        bad = ISubnetEpochs.Result(result.payments, bytes.concat(result.ranks, hex"00"), result.state);
        vm.expectRevert(
            abi.encodeWithSelector(ISubnetEpochs.WrongLength.selector, bytes32("ranks"), result.ranks.length + 1, result.ranks.length)
        );
        settlement.propose(subnetId, epoch, bad, bond);
        bad = ISubnetEpochs.Result(result.payments, result.ranks, hex"00");
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongLength.selector, bytes32("state"), 1, 2));
        settlement.propose(subnetId, epoch, bad, bond);
    }

    function test_onlyOneProposalWaitsAndOnlyInSubnetsThatWantThem() public {
        ISubnetEpochs.Result memory result = resultOf(epoch);
        uint256 bond = proposeEpoch(epoch, result);
        fund(challenger, bond);
        bytes32 root = settlement.decisionOf(subnetId).root;
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.AlreadyDecided.selector, subnetId, epoch, root));
        vm.prank(challenger);
        settlement.propose(subnetId, epoch, result, bond);
    }

    function test_aProposalThatCouldNotBeRefutedInTimeIsRefused() public {
        ISubnetEpochs.Result memory result = resultOf(epoch);
        vm.warp(subnets.epochStart(subnetId, epoch + 16) - TEMPO / 2);
        (, uint256 bond) = settlement.stakesOf(subnetId, epoch);
        fund(proposer, bond);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.RowsNoLongerKept.selector, subnetId, epoch, epoch + 16, epoch + 15));
        vm.prank(proposer);
        settlement.propose(subnetId, epoch, result, bond);
        vm.warp(block.timestamp - 1);
        vm.prank(proposer);
        settlement.propose(subnetId, epoch, result, bond);
    }

    // ------------------------------------------------------------------------------------------------------------ attacks

    function test_whoRefutesItselfLosesHalfItsBond() public {
        uint256 bond = proposeEpoch(epoch, lie());
        vm.startPrank(proposer);
        settlement.settle(subnetId, epoch, evidenceOf(epoch));
        settlement.claim(proposer);
        assertEq(inferenceToken.balanceOf(proposer), bond / 2);
    }

    function test_nobodyHoldsTheSubnetUpByProposingLies() public {
        for (uint256 i; i < 3; ++i) {
            ISubnetEpochs.Result memory right = resultOf(epoch);
            proposeEpoch(epoch, lie());
            settleEpoch(epoch, evidenceOf(epoch));
            finalizeEpoch(epoch, right);
            epoch = judge();
            finish(epoch - 1);
        }
        assertGt(settlement.owedTo(challenger), 0);
    }

    function test_aLieThatNobodyRefutesStillPaysNoMoreThanTheEmission() public {
        ISubnetEpochs.Result memory wrong = lie();
        uint256 bond = proposeEpoch(epoch, wrong);
        (uint256 total,) = settlement.stakesOf(subnetId, epoch);
        vm.warp(block.timestamp + TEMPO / 2);
        finalizeEpoch(epoch, wrong);
        uint256 before = inferenceToken.balanceOf(address(settlement));
        creditAll(epoch, wrong);
        for (uint256 uid; uid < 4; ++uid) {
            (uint256 operatorId, uint256 miner,) = paymentOf(wrong, uid);
            if (miner != 0) settlement.payMiner(uint64(operatorId));
            settlement.release(uint64(operatorId));
        }
        assertLe(before - inferenceToken.balanceOf(address(settlement)), total);
        assertGe(settlement.obligations(), bond);
        assertEq(settlement.obligations(), inferenceToken.balanceOf(address(settlement)));
    }
}
