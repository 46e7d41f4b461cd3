// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {deploySubnetEpochs} from "../deploy/epochs.sol";
import {EpochsFixture} from "./epochs-fixture.sol";

/// @notice Direct settlement, payment, and epochs that are passed over.
contract EpochsTest is EpochsFixture {
    function setUp() public override {
        super.setUp();
        populate();
    }

    // ------------------------------------------------------------------------------------------------------------- settle

    function test_anEpochPaysExactlyItsEmissionToOwnerMinersAndValidators() public {
        uint64 epoch = judge();
        finish(epoch - 1);
        (uint256 total,) = settlement.stakesOf(subnetId, epoch);
        assertGt(total, 0);
        ISubnetEpochs.Result memory result = finish(epoch);
        (uint256 ownerPart, uint256 dust) = headOf(result);
        assertEq(ownerPart, total * 11_796 / 65_535);
        uint256 miners;
        uint256 validators;
        for (uint256 uid; uid < 4; ++uid) {
            (uint256 operatorId, uint256 miner, uint256 validator) = paymentOf(result, uid);
            assertEq(operatorId, subnets.holderAt(subnetId, uint16(uid), block.timestamp).operatorId);
            assertEq(miner > 0, uid >= 2, "miners are paid as miners");
            assertEq(validator > 0, uid < 2, "validators are paid as validators");
            (miners, validators) = (miners + miner, validators + validator);
        }
        assertEq(ownerPart + dust + miners + validators, total);
        assertLe(dust, 4);
        assertApproxEqAbs(miners, validators, 8);
        (uint16 incentive,) = subnets.rankOf(subnetId, 2);
        (uint16 lesser, uint16 dividends) = subnets.rankOf(subnetId, 3);
        assertGt(incentive, lesser);
        assertEq(dividends, 0);
        assertEq(settlement.accountOf(subnetId).carried, dust);
        assertEq(settlement.accountOf(subnetId).next, epoch + 1);
    }

    function test_whatIsCreditedIsPulledByOwnerMinersAndBackersAndNothingIsLeftOver() public {
        uint64 epoch = judge();
        ISubnetEpochs.Result memory result = finish(epoch);
        uint256 before = settlement.obligations();
        creditAll(epoch, result);
        assertEq(settlement.obligations(), before);
        (uint256 first,, uint256 asValidator) = paymentOf(result, 0);
        (uint256 third, uint256 asMiner,) = paymentOf(result, 2);
        assertEq(settlement.payMiner(uint64(third)), asMiner);
        assertEq(inferenceToken.balanceOf(operators.beneficiaryOf(uint64(third))), asMiner);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.NothingEarned.selector, third));
        settlement.payMiner(uint64(third));
        assertEq(settlement.release(uint64(first)), asValidator);
        assertEq(income.operatorClaimable(uint64(first), address(inferenceToken)), asValidator, "no backers: all is the operator's");
        assertEq(settlement.release(uint64(first)), 0);
        uint256 owed = settlement.owedTo(creator);
        vm.prank(creator);
        assertEq(settlement.claim(creator), owed);
        assertEq(inferenceToken.balanceOf(creator), owed);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.NothingOwed.selector, creator));
        vm.prank(creator);
        settlement.claim(creator);
        assertEq(settlement.obligations(), inferenceToken.balanceOf(address(settlement)));
    }

    function test_dustIsCarriedSoThatEpochsTogetherPayTheEmissionToTheUnit() public {
        uint256 collected;
        uint256 paid;
        for (uint256 i; i < 3; ++i) {
            uint64 epoch = judge();
            for (uint64 e = settlement.accountOf(subnetId).next; e <= epoch; ++e) {
                collected += emission.emissionOf(subnetId, e);
                ISubnetEpochs.Result memory result = finish(e, evidenceOf(e));
                (uint256 ownerPart, uint256 dust) = headOf(result);
                paid += ownerPart;
                for (uint256 uid; uid < result.payments.length / 32 - 1; ++uid) {
                    (, uint256 miner, uint256 validator) = paymentOf(result, uid);
                    paid += miner + validator;
                }
                assertEq(paid + dust, collected);
            }
        }
        assertEq(inferenceToken.totalSupply(), collected);
        assertEq(settlement.obligations(), collected);
    }

    function test_bondsOfOneEpochAreInputOfTheNext() public {
        finish(judge());
        bytes32 before = settlement.accountOf(subnetId).stateHash;
        assertEq(before, keccak256(state));
        uint64 epoch = judge();
        finish(epoch - 1);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        evidence.state = "";
        bytes32 expected = settlement.accountOf(subnetId).stateHash;
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongHash.selector, bytes32("state"), bytes32(0), expected));
        settlement.settle(subnetId, epoch, evidence);
        finish(epoch);
        assertEq(settlement.accountOf(subnetId).lastEpochAt, subnets.epochStart(subnetId, epoch + 1));
    }

    function test_aValidatorWhoseCommitStayedShutGetsNoDividendsOfThatEpoch() public {
        uint64 epoch = present();
        vm.warp(block.timestamp + 1);
        bytes memory shown = row(2, 65_535, 3, 20_000);
        commitRow(0, shown, SALT);
        commitRow(1, shown, SALT);
        warpToEpoch(epoch + 1);
        openRow(epoch, 0, shown, SALT);
        rowsOfEpoch[epoch] = packed(0, shown);
        warpToEpoch(epoch + 2);
        closeThrough(epoch);
        ISubnetEpochs.Result memory result = finish(epoch);
        (,, uint256 honest) = paymentOf(result, 0);
        (,, uint256 shut) = paymentOf(result, 1);
        assertGt(honest, 0);
        assertEq(shut, 0);
    }

    // ------------------------------------------------------------------------------------------------------ what is refused

    function test_onlyTheEvidenceThatTheChainHashedIsTaken() public {
        uint64 epoch = judge();
        finish(epoch - 1);
        ISubnetEpochs.Evidence memory good = evidenceOf(epoch);
        ISubnetEpochs.Evidence memory bad = evidenceOf(epoch);
        bad.metagraph[40] = bytes1(uint8(bad.metagraph[40]) ^ 1);
        vm.expectPartialRevert(ISubnetEpochs.WrongHash.selector);
        settlement.settle(subnetId, epoch, bad);
        bad = evidenceOf(epoch);
        bad.rows[7] = bytes1(uint8(bad.rows[7]) ^ 1);
        vm.expectPartialRevert(ISubnetEpochs.WrongRow.selector);
        settlement.settle(subnetId, epoch, bad);
        bad.rows = packed(0, row(2, 65_535, 3, 20_000));
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.MissingRow.selector, 1, bad.rows.length));
        settlement.settle(subnetId, epoch, bad);
        bad.rows = bytes.concat(good.rows, hex"00");
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.ExtraRows.selector, good.rows.length + 1, good.rows.length));
        settlement.settle(subnetId, epoch, bad);
        settlement.settle(subnetId, epoch, good);
    }

    function test_anEpochIsSettledOnceInOrderWhenItIsClosedAndItsRevealsAreOver() public {
        uint64 epoch = judge();
        finish(epoch - 1);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongEpoch.selector, subnetId, epoch - 1, epoch));
        settlement.settle(subnetId, epoch - 1, evidence);
        ISubnetEpochs.Result memory result = settleEpoch(epoch, evidence);
        bytes32 root = settlement.decisionOf(subnetId).root;
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.AlreadyDecided.selector, subnetId, epoch, root));
        settlement.settle(subnetId, epoch, evidence);
        finalizeEpoch(epoch, result);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongEpoch.selector, subnetId, epoch, epoch + 1));
        settlement.settle(subnetId, epoch, evidence);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.WrongEpoch.selector, subnetId, epoch, epoch + 1));
        this.finalizeOutside(epoch, result);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.EpochNotClosed.selector, subnetId, epoch + 1));
        settlement.settle(subnetId, epoch + 1, evidence);
        closeThrough(epoch + 1);
        (, uint256 closesAt) = board.windowOf(subnetId, epoch + 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.RevealsStillOpen.selector, subnetId, epoch + 1, closesAt, block.timestamp));
        settlement.settle(subnetId, epoch + 1, evidence);
    }

    function finalizeOutside(uint64 epoch, ISubnetEpochs.Result calldata result) external {
        settlement.finalize(subnetId, epoch, result.payments, result.ranks, keccak256(result.state));
    }

    function test_onlyTheResultThatWasDecidedIsFinalized() public {
        uint64 epoch = judge();
        finish(epoch - 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.NotDecided.selector, subnetId, epoch));
        settlement.finalize(subnetId, epoch, "", "", 0);
        ISubnetEpochs.Result memory result = settleEpoch(epoch, evidenceOf(epoch));
        result.payments[20] = bytes1(uint8(result.payments[20]) ^ 1);
        vm.expectPartialRevert(ISubnetEpochs.WrongHash.selector);
        this.finalizeOutside(epoch, result);
        result.payments[20] = bytes1(uint8(result.payments[20]) ^ 1);
        this.finalizeOutside(epoch, result);
    }

    function testFuzz_garbageIsNeverTaken(bytes calldata metagraph, bytes calldata rows, bytes calldata old, uint64 epoch) public {
        vm.expectRevert();
        settlement.settle(subnetId, epoch, ISubnetEpochs.Evidence(metagraph, rows, old));
        vm.expectRevert();
        settlement.propose(subnetId, epoch, ISubnetEpochs.Result(metagraph, rows, old), 1e18);
        vm.expectRevert();
        settlement.finalize(subnetId, epoch, metagraph, rows, keccak256(old));
        vm.expectRevert();
        settlement.credit(subnetId, epoch, metagraph, only(0));
        vm.expectRevert();
        settlement.payMiner(epoch);
        assertEq(settlement.release(epoch), 0);
    }

    function test_badConfigurationsAreRefused() public {
        refuse(ISubnetEpochs.Config(20_001, 60, 1, 4), "windowBps", 20_001, 20_000);
        refuse(ISubnetEpochs.Config(5_000, 0, 1, 4), "windowMinSeconds", 0, 1);
        refuse(ISubnetEpochs.Config(5_000, 60, 0, 4), "bondMin", 0, 1);
        refuse(ISubnetEpochs.Config(5_000, 60, 1, 0), "resetEpochs", 0, 8);
        refuse(ISubnetEpochs.Config(5_000, 60, 1, 9), "resetEpochs", 9, 8);
        assertEq(settlement.config().resetEpochs, RESET_EPOCHS);
    }

    function refuse(ISubnetEpochs.Config memory c, bytes32 field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.BadConfig.selector, field, got, limit));
        deploySubnetEpochs(c, registry, operators, subnets, board, emission, core);
    }

    // ------------------------------------------------------------------------------------------------------------- credit

    function test_aUidIsCreditedOnceHoweverOftenItIsNamed() public {
        uint64 epoch = judge();
        ISubnetEpochs.Result memory result = finish(epoch);
        uint16[] memory twice = new uint16[](2);
        (twice[0], twice[1]) = (2, 2);
        settlement.credit(subnetId, epoch, result.payments, twice);
        settlement.credit(subnetId, epoch, result.payments, only(2));
        (uint256 operatorId, uint256 miner,) = paymentOf(result, 2);
        assertEq(settlement.earningsOf(uint64(operatorId)).miner, miner);
        assertEq(settlement.creditedOf(subnetId, epoch), 4);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.UnknownUid.selector, 4, 4));
        settlement.credit(subnetId, epoch, result.payments, only(4));
        vm.expectPartialRevert(ISubnetEpochs.WrongHash.selector);
        settlement.credit(subnetId, epoch - 1, result.payments, only(2));
    }

    function test_whoLostItsUidBeforeTheSettlementIsPaidForTheEpochAndWhoTookItIsNot() public {
        uint64 epoch = judge();
        uint64 before = subnets.holderAt(subnetId, 3, block.timestamp).operatorId;
        // The subnet fills up, and the worst uid is taken by a newcomer.
        for (uint256 i; i < 4; ++i) {
            joinSubnet(string.concat("more", vm.toString(i)));
        }
        warpToEpoch(epoch + 8);
        (uint64 newcomer, uint16 uid) = joinSubnet("newcomer");
        closeThrough(epoch + 7);
        ISubnetEpochs.Result memory result = finish(epoch);
        creditAll(epoch, result);
        uint64 lost = uid < 4 ? uint64(uint256(operatorOf(result, uid))) : before;
        assertEq(settlement.earningsOf(newcomer).miner, 0);
        (, uint256 miner, uint256 validator) = paymentOf(result, uid < 4 ? uid : 3);
        assertEq(settlement.earningsOf(lost).miner, miner);
        assertEq(settlement.earningsOf(lost).validator, validator);
    }

    function operatorOf(ISubnetEpochs.Result memory result, uint256 uid) private pure returns (uint256 operatorId) {
        (operatorId,,) = paymentOf(result, uid);
    }

    // --------------------------------------------------------------------------------------------------------------- skip

    function test_anEpochThatNobodySettledIsPassedOverWithItsEmissionAndTheBondsAreForgotten() public {
        finish(judge());
        uint64 epoch = judge();
        finish(epoch - 1);
        uint256 emitted = emission.emissionOf(subnetId, epoch);
        uint256 carried = settlement.accountOf(subnetId).carried;
        (, uint256 from) = board.windowOf(subnetId, epoch);
        from += RESET_EPOCHS * TEMPO;
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.NotSkippable.selector, subnetId, epoch, from, from - 1));
        settlement.skip(subnetId);
        vm.warp(from);
        settlement.skip(subnetId);
        ISubnetEpochs.Account memory a = settlement.accountOf(subnetId);
        assertEq(a.carried, carried + emitted);
        assertEq(a.next, epoch + 1);
        assertEq(a.stateHash, 0);
        assertEq(a.lastEpochAt, 0);
        delete state;
        closeThrough(epoch + 1);
        uint256 more = emission.emissionOf(subnetId, epoch + 1);
        (uint256 total,) = settlement.stakesOf(subnetId, epoch + 1);
        assertEq(total, carried + emitted + more);
        finish(epoch + 1);
    }

    function test_anEpochThatIsOpenOrThatWasDecidedIsNotPassedOver() public {
        uint64 epoch = judge();
        finish(epoch - 1);
        settleEpoch(epoch, evidenceOf(epoch));
        vm.warp(block.timestamp + 12 * TEMPO);
        vm.expectPartialRevert(ISubnetEpochs.NotSkippable.selector);
        settlement.skip(subnetId);
    }

    function test_epochsThatWereNeverClosedArePassedOverAtOnce() public {
        uint64 epoch = judge();
        finish(epoch);
        warpToEpoch(epoch + 30);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.EpochNotClosed.selector, subnetId, epoch + 1));
        settlement.settle(subnetId, epoch + 1, evidence);
        uint64 next = subnets.nextToClose(subnetId);
        assertGt(next, epoch + 1);
        for (uint64 e = epoch + 1; e < next; ++e) {
            settlement.skip(subnetId);
        }
        assertEq(settlement.accountOf(subnetId).next, next);
        assertNotEq(settlement.accountOf(subnetId).stateHash, 0, "no opinions were lost: the bonds stay");
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.EpochNotClosed.selector, subnetId, next));
        settlement.skip(subnetId);
    }

    function test_anEpochWhoseRowsTheBoardNoLongerKeepsCannotBeSettled() public {
        uint64 epoch = judge();
        finish(epoch - 1);
        warpToEpoch(epoch + 16);
        ISubnetEpochs.Evidence memory evidence = evidenceOf(epoch);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEpochs.RowsNoLongerKept.selector, subnetId, epoch, epoch + 16, epoch + 15));
        settlement.settle(subnetId, epoch, evidence);
        vm.warp(block.timestamp - 1);
        settlement.settle(subnetId, epoch, evidence);
    }
}
