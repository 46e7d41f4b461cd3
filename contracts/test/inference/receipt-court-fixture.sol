// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IReceiptCourt} from "../../src/inference/IReceiptCourt.sol";
import {ReceiptCourt} from "../../src/inference/ReceiptCourt.sol";
import {deployReceiptCourt} from "../deploy/court.sol";
import {JuryFixture} from "../governance/jury-fixture.sol";

/// @notice The court over the real jury, vault and rails; one miner with a bond, and seven jurors.
abstract contract ReceiptCourtFixture is JuryFixture {
    uint128 internal constant BOND = 50e18;
    uint128 internal constant SLASH = 20e18;
    uint128 internal constant CASE_BOND = 3e18;

    ReceiptCourt internal court;
    uint64 internal accused;
    uint256 internal accusedSecret;
    address internal reporter = makeAddr("reporter");
    address internal challenger = makeAddr("challenger");

    function setUp() public virtual override {
        super.setUp();
        court = deployReceiptCourt(courtConfig(), operators, vault, rails, jury);
        registry.set("receiptCourt", address(court), true);
        (accused, accusedSecret) = newMiner("miner");
        addJurors(7);
        fundChallenger(challenger, 100e18);
    }

    function courtConfig() internal pure returns (IReceiptCourt.Config memory) {
        return IReceiptCourt.Config({
            bond: BOND, slash: SLASH, caseBond: CASE_BOND, rewardMax: 6e18, rewardBps: 1_000, challengeBps: 4_000, leaveSeconds: 1_000
        });
    }

    function newMiner(string memory name) internal returns (uint64 operatorId, uint256 secret) {
        operatorId = registerOperator(makeAddr(name), makeAddr(string.concat(name, " beneficiary")));
        (, secret) = makeAddrAndKey(string.concat("node", vm.toString(operatorId)));
        depositStake(operatorId, makeAddr(name), 4 * BOND);
        vm.prank(operators.nodeKeyOf(operatorId));
        court.enrol(operatorId);
    }

    function fundChallenger(address account, uint256 amount) internal {
        token.mint(account, amount);
        vm.deal(account, 100e18);
        vm.startPrank(account);
        token.approve(address(rails), amount);
        rails.deposit(address(token), account, amount);
        rails.approve(address(court), address(token), amount);
        vm.stopPrank();
    }

    function receiptOf(uint64 operatorId, uint256 number) internal view returns (IReceiptCourt.Receipt memory r) {
        r.subject = IReceiptCourt.Subject(operatorId, operators.nodeKeyOf(operatorId), "tiny", keccak256("model"));
        r.inputs.receiptId = keccak256(abi.encode("id", number));
        r.inputs.requestHash = keccak256(abi.encode("request", number));
        r.inputs.path = "/v1/chat/completions";
        (r.inputs.units, r.inputs.outputUnitsMax, r.inputs.voucher) = (12, 64, 1e15);
        r.outputs.responseHash = keccak256(abi.encode("response", number));
        r.outputs.outputDigest = keccak256(abi.encode("output", number));
        (r.outputs.unit, r.outputs.units, r.outputs.price, r.outputs.end) = ("token", 60, 1e14, "complete");
        (r.outputs.ttftUs, r.outputs.tpotUs, r.outputs.finishedAt) = (1_000, 10, uint64(block.timestamp));
        (r.evidence, r.profile) = ("replayed", "test");
    }

    function signed(IReceiptCourt.Receipt memory r, uint256 secret) internal view returns (bytes memory) {
        (uint8 v, bytes32 rr, bytes32 s) = vm.sign(secret, court.digestOf(r));
        return abi.encodePacked(rr, s, v);
    }

    /// Two signed receipts with one id and two answers.
    function contradict(uint256 number) internal returns (uint256 reward) {
        IReceiptCourt.Receipt memory one = receiptOf(accused, number);
        IReceiptCourt.Receipt memory other = receiptOf(accused, number);
        other.outputs.responseHash = keccak256("another answer");
        (bytes memory a, bytes memory b) = (signed(one, accusedSecret), signed(other, accusedSecret));
        vm.prank(reporter);
        return court.reportContradiction(one, a, other, b);
    }

    function challenge(uint256 number) internal returns (uint256) {
        return challengeBy(challenger, number);
    }

    function challengeBy(address who, uint256 number) internal returns (uint256) {
        IReceiptCourt.Receipt memory r = receiptOf(accused, number);
        bytes memory signature = signed(r, accusedSecret);
        uint256 cost = jury.arbitrationCost("");
        vm.prank(who);
        return court.challenge{value: cost}(r, signature, "ipfs://evidence");
    }

    /// The jury rules, nobody appeals, the court hears of it.
    function judge(uint256 disputeId, uint256 ruling) internal {
        draw(disputeId);
        voteAll(disputeId, ruling);
        toFinal(disputeId);
        jury.execute(disputeId);
    }

    function bondOf(uint64 operatorId) internal view returns (uint256) {
        return vault.lockedOfModule(operatorId, address(court));
    }

    function fundsOf(address account) internal view returns (uint256) {
        return rails.balanceOf(address(token), account);
    }
}
