// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IArbitrable, IEvidence} from "../../src/governance/IArbitration.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {IReceiptCourt} from "../../src/inference/IReceiptCourt.sol";
import {ReceiptDigest} from "../../src/inference/ReceiptDigest.sol";
import {deployReceiptCourt} from "../deploy/court.sol";
import {ReceiptCourtFixture} from "./receipt-court-fixture.sol";

contract ReceiptCourtTest is ReceiptCourtFixture {
    function refuseConfig(IReceiptCourt.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadConfig.selector, field, got, limit));
        deployReceiptCourt(c, operators, vault, rails, jury);
    }

    function test_aConfigurationOutOfBoundsIsRefused() public {
        IReceiptCourt.Config memory c = courtConfig();
        c.slash = BOND + 1;
        refuseConfig(c, "slash", BOND + 1, BOND);
        c.slash = 0;
        refuseConfig(c, "slash", 0, BOND);
        c = courtConfig();
        c.caseBond = 0;
        refuseConfig(c, "caseBond", 0, 1);
        c = courtConfig();
        c.rewardBps = 4_001;
        refuseConfig(c, "rewardBps", 4_001, 4_000);
        c = courtConfig();
        c.challengeBps = 4_001;
        refuseConfig(c, "challengeBps", 4_001, 4_000);
        c = courtConfig();
        c.leaveSeconds = 0;
        refuseConfig(c, "leaveSeconds", 0, 30 days);
        assertEq(court.exposureSeconds(), 1_000 + jury.exposureSeconds());
        assertEq(abi.encode(court.config()), abi.encode(courtConfig()));
    }

    /// The digest is that of src/inference/serving/receipt.ts: the same file is read by receipt-court.test.ts.
    function test_theDigestIsThatOfTheTypeScript() public view {
        string memory json = vm.readFile("contracts/test/inference/receipt-vector.json");
        IReceiptCourt.Receipt memory r;
        r.subject.operatorId = vm.parseJsonUint(json, ".subject.operatorId");
        r.subject.miner = vm.parseJsonAddress(json, ".subject.miner");
        r.subject.model = vm.parseJsonString(json, ".subject.model");
        r.subject.modelRoot = vm.parseJsonBytes32(json, ".subject.modelRoot");
        r.inputs.receiptId = vm.parseJsonBytes32(json, ".inputs.receiptId");
        r.inputs.requestHash = vm.parseJsonBytes32(json, ".inputs.requestHash");
        r.inputs.path = vm.parseJsonString(json, ".inputs.path");
        r.inputs.units = uint64(vm.parseJsonUint(json, ".inputs.units"));
        r.inputs.outputUnitsMax = uint64(vm.parseJsonUint(json, ".inputs.outputUnitsMax"));
        r.inputs.channelId = vm.parseJsonBytes32(json, ".inputs.channelId");
        r.inputs.voucher = uint128(vm.parseJsonUint(json, ".inputs.voucher"));
        r.inputs.zeroRetention = vm.parseJsonBool(json, ".inputs.zeroRetention");
        r.inputs.replayAllowed = vm.parseJsonBool(json, ".inputs.replayAllowed");
        r.inputs.witnessNonce = vm.parseJsonBytes32(json, ".inputs.witnessNonce");
        r.outputs.responseHash = vm.parseJsonBytes32(json, ".outputs.responseHash");
        r.outputs.outputDigest = vm.parseJsonBytes32(json, ".outputs.outputDigest");
        r.outputs.witness = vm.parseJsonBytes32(json, ".outputs.witness");
        r.outputs.unit = vm.parseJsonString(json, ".outputs.unit");
        r.outputs.units = uint64(vm.parseJsonUint(json, ".outputs.units"));
        r.outputs.price = uint128(vm.parseJsonUint(json, ".outputs.price"));
        r.outputs.ttftUs = uint64(vm.parseJsonUint(json, ".outputs.ttftUs"));
        r.outputs.tpotUs = uint64(vm.parseJsonUint(json, ".outputs.tpotUs"));
        r.outputs.end = vm.parseJsonString(json, ".outputs.end");
        r.outputs.finishedAt = uint64(vm.parseJsonUint(json, ".outputs.finishedAt"));
        r.evidence = vm.parseJsonString(json, ".evidence");
        r.profile = vm.parseJsonString(json, ".profile");
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Millrace Receipt"),
                keccak256("1"),
                vm.parseJsonUint(json, ".chainId"),
                vm.parseJsonAddress(json, ".verifyingContract")
            )
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domain, this.structHash(r)));
        assertEq(digest, vm.parseJsonBytes32(json, ".digest"));
    }

    function structHash(IReceiptCourt.Receipt calldata r) external pure returns (bytes32) {
        return ReceiptDigest.structHash(r);
    }

    // ------------------------------------------------------------------------------------------------------------------ miners

    function test_aMinerIsBondedFromEnrolmentToLeave() public {
        address key = operators.nodeKeyOf(accused);
        assertEq(bondOf(accused), BOND);
        assertTrue(court.isBonded(accused, key));
        assertFalse(court.isBonded(accused, reporter));
        assertFalse(court.isBonded(99, address(0)));
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NoOperator.selector, address(this)));
        court.enrol(accused);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NoOperator.selector, address(this)));
        court.leave(accused);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NotLeft.selector, accused));
        court.unlock(accused);
        vm.startPrank(key);
        court.leave(accused);
        uint256 unlocksAt = block.timestamp + 1_000;
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.AlreadyLeft.selector, accused, unlocksAt));
        court.leave(accused);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.StillLocked.selector, accused, unlocksAt, block.timestamp));
        court.unlock(accused);
        assertFalse(court.isBonded(accused, key));
        assertTrue(court.isAnswerable(accused, key));
        court.enrol(accused); // it stays after all
        assertTrue(court.isBonded(accused, key));
        court.leave(accused);
        vm.warp(block.timestamp + 1_000);
        court.unlock(accused);
        assertEq(bondOf(accused), 0);
        assertFalse(court.isAnswerable(accused, key));
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NotEnrolled.selector, accused));
        court.unlock(accused);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NotEnrolled.selector, accused));
        court.leave(accused);
    }

    function test_aReplacedKeyStaysAnswerableForAWhile() public {
        address old = operators.nodeKeyOf(accused);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.SameKey.selector, accused, old));
        court.replaceKey(accused);
        IReceiptCourt.Receipt memory r = receiptOf(accused, 1);
        r.outputs.units = 65;
        bytes memory signature = signed(r, accusedSecret);
        (address key, uint256 secret) = makeAddrAndKey("new key");
        address owner = operators.ownerOf(accused);
        (uint8 v, bytes32 rr, bytes32 s) = vm.sign(secret, operators.nodeKeyConsentDigest(owner, key));
        vm.prank(owner);
        operators.setNodeKey(accused, key, abi.encodePacked(rr, s, v));
        assertTrue(court.isBonded(accused, old)); // until somebody says so
        court.replaceKey(accused);
        assertTrue(court.isBonded(accused, key));
        assertFalse(court.isBonded(accused, old));
        vm.warp(block.timestamp + 999);
        court.reportExcess(r, signature);
        assertEq(bondOf(accused), BOND - SLASH);
        r.inputs.receiptId = "another";
        signature = signed(r, accusedSecret);
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.KeyNotBound.selector, accused, old));
        court.reportExcess(r, signature);
    }

    // -------------------------------------------------------------------------------------------------- what the contract decides

    function test_twoReceiptsWithOneIdAndTwoAnswersConvict() public {
        assertEq(contradict(1), SLASH / 10);
        assertEq(vault.claimableOf(reporter), SLASH / 10);
        assertEq(bondOf(accused), BOND - SLASH);
        assertTrue(court.isPunished(accused, receiptOf(accused, 1).inputs.receiptId));
        assertFalse(court.isBonded(accused, operators.nodeKeyOf(accused)));
        vm.prank(operators.nodeKeyOf(accused));
        court.enrol(accused);
        assertEq(bondOf(accused), BOND);
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: deep.fuzz.runs = 2000
    /// Whatever differs of what a receipt claims convicts; what does not differ, or differs in times and words alone, never does.
    function testFuzz_whatDiffersConvicts(uint8 field, uint64 difference) public {
        IReceiptCourt.Receipt memory one = receiptOf(accused, 1);
        IReceiptCourt.Receipt memory other = receiptOf(accused, 1);
        difference = uint64(bound(difference, 1, type(uint32).max));
        bytes32 differs = bytes32(uint256(difference));
        uint256 which = field % 15;
        if (which == 0) other.subject.modelRoot = differs;
        if (which == 1) other.inputs.requestHash = differs;
        if (which == 2) other.inputs.units += difference;
        if (which == 3) other.inputs.outputUnitsMax += difference;
        if (which == 4) other.inputs.channelId = differs;
        if (which == 5) other.inputs.voucher += difference;
        if (which == 6) other.outputs.responseHash = differs;
        if (which == 7) other.outputs.outputDigest = differs;
        if (which == 8) other.outputs.unit = "byte";
        if (which == 9) other.outputs.units += difference;
        if (which == 10) other.outputs.price += difference;
        if (which == 11) other.outputs.ttftUs += difference;
        if (which == 12) other.outputs.finishedAt += difference;
        if (which == 13) other.evidence = "reputation only";
        if (which == 14) other.outputs.end = "cut";
        (bytes memory a, bytes memory b) = (signed(one, accusedSecret), signed(other, accusedSecret));
        bytes32 id = one.inputs.receiptId;
        if (which > 10) vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NoContradiction.selector, id));
        court.reportContradiction(one, a, other, b);
        assertEq(bondOf(accused), which > 10 ? BOND : BOND - SLASH);
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: deep.fuzz.runs = 2000
    /// Counts within the limits never convict, above them always.
    function testFuzz_countsAboveTheSignedLimitConvict(uint64 units, uint64 unitsMax, uint128 price, uint128 voucher) public {
        IReceiptCourt.Receipt memory r = receiptOf(accused, 1);
        (r.outputs.units, r.inputs.outputUnitsMax, r.outputs.price, r.inputs.voucher) = (units, unitsMax, price, voucher);
        bytes memory signature = signed(r, accusedSecret);
        bool isWithin = units <= unitsMax && price <= voucher;
        if (isWithin) vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.WithinLimits.selector, r.inputs.receiptId));
        court.reportExcess(r, signature);
        assertEq(bondOf(accused), isWithin ? BOND : BOND - SLASH);
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: deep.fuzz.runs = 2000
    /// Any change of a byte of a signature, or of a signed field, is refused.
    function testFuzz_aForgedReceiptConvictsNobody(uint8 place, uint8 flip, uint64 finishedAt) public {
        IReceiptCourt.Receipt memory r = receiptOf(accused, 1);
        r.outputs.units = 65;
        bytes memory signature = signed(r, accusedSecret);
        address key = r.subject.miner;
        bytes memory broken = bytes.concat(signature);
        broken[place % 65] = bytes1(uint8(broken[place % 65]) ^ (flip == 0 ? 1 : flip));
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadSignature.selector, key));
        court.reportExcess(r, broken);
        if (finishedAt == r.outputs.finishedAt) ++finishedAt;
        r.outputs.finishedAt = finishedAt;
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadSignature.selector, key));
        court.reportExcess(r, signature);
        assertEq(bondOf(accused), BOND);
    }

    function test_receiptsOfTwoRequestsOrOfAnotherKeyAreNoContradiction() public {
        IReceiptCourt.Receipt memory one = receiptOf(accused, 1);
        IReceiptCourt.Receipt memory other = receiptOf(accused, 2);
        (bytes memory a, bytes memory b) = (signed(one, accusedSecret), signed(other, accusedSecret));
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NotSameReceipt.selector, one.inputs.receiptId, other.inputs.receiptId));
        court.reportContradiction(one, a, other, b);
        (uint64 second, uint256 secret) = newMiner("second");
        other = receiptOf(second, 1);
        other.outputs.units = 1;
        b = signed(other, secret);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadSignature.selector, one.subject.miner));
        court.reportContradiction(one, a, other, b);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NoContradiction.selector, one.inputs.receiptId));
        court.reportContradiction(one, a, one, a);
        one.subject.operatorId = second; // another's number under one's own key
        a = signed(one, accusedSecret);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.KeyNotBound.selector, second, one.subject.miner));
        court.reportContradiction(one, a, other, b);
        one.subject.operatorId = uint256(1) << 64 | accused;
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.KeyNotBound.selector, one.subject.operatorId, one.subject.miner));
        court.reportExcess(one, a);
    }

    // --------------------------------------------------------------------------------------------------- what the jury decides

    function test_guiltySlashesTheMinerAndRewardsTheChallenger() public {
        uint256 id = challenge(1);
        assertEq(fundsOf(address(court)), CASE_BOND);
        assertEq(court.miner(accused).openCases, 1);
        vm.expectEmit(address(court));
        emit IEvidence.Evidence(jury, id, reporter, "ipfs://more");
        vm.prank(reporter);
        court.submitEvidence(id, "ipfs://more");
        judge(id, 1);
        assertEq(bondOf(accused), BOND - SLASH);
        assertEq(vault.claimableOf(challenger), 6e18); // 40 % of the slash, but at most 6
        assertEq(fundsOf(challenger), 100e18);
        assertEq(fundsOf(address(court)), 0);
        assertEq(court.miner(accused).openCases, 0);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.AlreadyClosed.selector, id));
        court.submitEvidence(id, "late");
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.UnknownCase.selector, 77));
        court.appeal(77);
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.NotArbitrator.selector, address(this)));
        court.rule(id, 1);
    }

    function test_notGuiltyGivesTheBondToTheMinerAndRefusedGivesItBack() public {
        uint256 id = challenge(1);
        judge(id, 2);
        assertEq(bondOf(accused), BOND);
        assertEq(fundsOf(operators.beneficiaryOf(accused)), CASE_BOND);
        uint256 refused = challenge(1);
        vm.warp(uint256(jury.dispute(refused).seedTime) + 600);
        jury.expire(refused);
        jury.execute(refused);
        assertEq(fundsOf(challenger), 100e18 - CASE_BOND);
        assertEq(coinsOf(challenger), 3 * FEE);
        assertEq(court.caseOf(refused).closed, true);
    }

    function test_anybodyMayAppealAndTheLargerJuryDecides() public {
        uint256 id = challenge(1);
        draw(id);
        voteAll(id, 2);
        uint256 cost = jury.appealCost(id, "");
        vm.deal(reporter, cost + 9);
        vm.prank(reporter);
        court.appeal{value: cost + 9}(id);
        assertEq(coinsOf(reporter), 9);
        draw(id);
        voteAll(id, 1);
        toFinal(id);
        jury.execute(id);
        assertEq(bondOf(accused), BOND - SLASH);
        assertEq(fundsOf(challenger), 100e18);
    }

    /// forge-config: default.fuzz.runs = 40
    /// forge-config: deep.fuzz.runs = 2000
    /// A stranger with any arguments but good receipts: no bond, key or case changes.
    function testFuzz_aStrangerChangesNothing(uint64 operatorId, uint256 id, uint256 ruling, bytes calldata signature, uint64 units)
        public
    {
        uint256 open = challenge(1);
        (operatorId, id) = (uint64(bound(operatorId, 0, 9)), id % 3);
        IReceiptCourt.Receipt memory r = receiptOf(accused, 2);
        IReceiptCourt.Receipt memory other = receiptOf(accused, 2);
        (r.outputs.units, other.outputs.units) = (units, units ^ 1);
        bytes32 before = keccak256(abi.encode(court.miner(accused), court.caseOf(open), bondOf(accused), fundsOf(address(court))));
        bytes[] memory calls = new bytes[](9);
        calls[0] = abi.encodeCall(IReceiptCourt.enrol, (operatorId));
        calls[1] = abi.encodeCall(IReceiptCourt.replaceKey, (operatorId));
        calls[2] = abi.encodeCall(IReceiptCourt.leave, (operatorId));
        calls[3] = abi.encodeCall(IReceiptCourt.unlock, (operatorId));
        calls[4] = abi.encodeCall(IReceiptCourt.reportContradiction, (r, signature, other, signature));
        calls[5] = abi.encodeCall(IReceiptCourt.reportExcess, (r, signature));
        calls[6] = abi.encodeCall(IReceiptCourt.challenge, (r, signature, "ipfs://lie"));
        calls[7] = abi.encodeCall(IReceiptCourt.appeal, (id));
        calls[8] = abi.encodeCall(IArbitrable.rule, (id, ruling));
        vm.startPrank(makeAddr("stranger"));
        for (uint256 i; i < calls.length; ++i) {
            (bool done,) = address(court).call(calls[i]);
            assertFalse(done);
        }
        vm.stopPrank();
        assertEq(keccak256(abi.encode(court.miner(accused), court.caseOf(open), bondOf(accused), fundsOf(address(court)))), before);
    }

    function test_aCaseNeedsBondFeeSignatureAndJurors() public {
        IReceiptCourt.Receipt memory r = receiptOf(accused, 1);
        bytes memory signature = signed(r, accusedSecret);
        vm.startPrank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IJury.FeeTooSmall.selector, FEE, 3 * FEE));
        court.challenge{value: FEE}(r, signature, "");
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.BadSignature.selector, r.subject.miner));
        court.challenge{value: 3 * FEE}(r, new bytes(65), "");
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.EvidenceTooLong.selector, 2_049, 2_048));
        court.challenge{value: 3 * FEE}(r, signature, string(new bytes(2_049)));
        r.subject.miner = challenger;
        vm.expectRevert(abi.encodeWithSelector(IReceiptCourt.KeyNotBound.selector, accused, challenger));
        court.challenge{value: 3 * FEE}(r, signature, "");
        vm.stopPrank();
        vm.deal(reporter, 1e18);
        r = receiptOf(accused, 1);
        vm.prank(reporter);
        vm.expectPartialRevert(bytes4(keccak256("InsufficientAllowance(address,address,address,uint256,uint256)")));
        court.challenge{value: 3 * FEE}(r, signature, "");
        for (uint64 i = 2; i <= 7; ++i) {
            vm.prank(operators.nodeKeyOf(i));
            jury.leave(i, 1);
        }
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 1, 3));
        court.challenge{value: 3 * FEE}(r, signature, "");
        assertEq(court.miner(accused).openCases, 0);
    }
}
