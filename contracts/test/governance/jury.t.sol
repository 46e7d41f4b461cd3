// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRandomness} from "../../src/chain/IRandomness.sol";
import {IArbitrable, IArbitrator} from "../../src/governance/IArbitration.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {JuryTerms} from "../../src/governance/JuryTerms.sol";
import {deployJury} from "../deploy/governance.sol";
import {JuryFixture} from "./jury-fixture.sol";

/// @notice The standard as somebody else wrote it down: nothing of this project is known here.
interface ForeignArbitrator {
    function createDispute(uint256 choices, bytes calldata extraData) external payable returns (uint256);
    function arbitrationCost(bytes calldata extraData) external view returns (uint256);
    function appeal(uint256 disputeID, bytes calldata extraData) external payable;
    function appealCost(uint256 disputeID, bytes calldata extraData) external view returns (uint256);
    function appealPeriod(uint256 disputeID) external view returns (uint256, uint256);
    function disputeStatus(uint256 disputeID) external view returns (uint8);
    function currentRuling(uint256 disputeID) external view returns (uint256);
}

/// @notice A small escrow of the kind that ERC-792's own documentation shows.
contract ForeignEscrow {
    event Ruling(address indexed _arbitrator, uint256 indexed _disputeID, uint256 _ruling);

    ForeignArbitrator private immutable arbitrator;
    address private immutable payer;
    address private immutable payee;
    uint256 public disputeId;
    bool public resolved;

    constructor(ForeignArbitrator arbitrator_, address payer_, address payee_) payable {
        (arbitrator, payer, payee) = (arbitrator_, payer_, payee_);
    }

    function dispute() external payable {
        disputeId = arbitrator.createDispute{value: msg.value}(2, "");
    }

    function appeal() external payable {
        arbitrator.appeal{value: msg.value}(disputeId, "");
    }

    function rule(uint256 _disputeID, uint256 _ruling) external {
        require(msg.sender == address(arbitrator) && _disputeID == disputeId && !resolved, "not mine");
        resolved = true;
        emit Ruling(msg.sender, _disputeID, _ruling);
        (bool sent,) = (_ruling == 2 ? payee : payer).call{value: address(this).balance}("");
        require(sent, "not sent");
    }
}

contract JuryTest is JuryFixture {
    function test_theInterfaceIdsAreThoseOfTheStandard() public pure {
        assertEq(IArbitrator.createDispute.selector, bytes4(keccak256("createDispute(uint256,bytes)")));
        assertEq(IArbitrator.appealPeriod.selector, bytes4(keccak256("appealPeriod(uint256)")));
        assertEq(IArbitrable.rule.selector, bytes4(keccak256("rule(uint256,uint256)")));
        assertEq(IArbitrator.DisputeCreation.selector, keccak256("DisputeCreation(uint256,address)"));
        assertEq(IArbitrator.AppealPossible.selector, keccak256("AppealPossible(uint256,address)"));
        assertEq(IArbitrator.AppealDecision.selector, keccak256("AppealDecision(uint256,address)"));
        assertEq(IArbitrable.Ruling.selector, keccak256("Ruling(address,uint256,uint256)"));
    }

    function test_aForeignArbitrableIsServed() public {
        addJurors(7);
        ForeignArbitrator standard = ForeignArbitrator(address(jury));
        address payee = makeAddr("payee");
        ForeignEscrow escrow = new ForeignEscrow{value: 5e18}(standard, makeAddr("buyer"), payee);
        escrow.dispute{value: standard.arbitrationCost("")}();
        uint256 id = escrow.disputeId();
        assertEq(standard.disputeStatus(id), 0);
        draw(id);
        vm.recordLogs();
        voteAll(id, 1);
        bytes32[] memory topics = vm.getRecordedLogs()[7].topics; // after three commitments, three openings and the ruling
        assertEq(topics[0], IArbitrator.AppealPossible.selector);
        assertEq(uint256(topics[1]), id);
        assertEq(address(uint160(uint256(topics[2]))), address(escrow));
        assertEq(standard.disputeStatus(id), 1);
        assertEq(standard.currentRuling(id), 1);
        (uint256 start, uint256 end) = standard.appealPeriod(id);
        assertEq(end - start, 300);
        assertEq(standard.appealCost(id, ""), 7 * FEE);
        escrow.appeal{value: 7 * FEE}();
        draw(id);
        voteAll(id, 2);
        toFinal(id);
        jury.execute(id);
        assertEq(standard.disputeStatus(id), 2);
        assertEq(payee.balance, 5e18);
        settleAll(id);
        // the three of the first jury voted otherwise than the last: nobody of that round is paid, the fee is the payer's again
        assertEq(coinsOf(address(escrow)), 3 * FEE);
    }

    // ------------------------------------------------------------------------------------------------------------------- config

    function refuseConfig(IJury.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IJury.BadConfig.selector, field, got, limit));
        deployJury(c, operators, vault, randomness);
    }

    function test_aConfigurationOutOfBoundsIsRefused() public {
        IJury.Config memory c = juryConfig();
        c.penalty = 0;
        refuseConfig(c, "penalty", 0, SEAT);
        c.penalty = SEAT + 1;
        refuseConfig(c, "penalty", SEAT + 1, SEAT);
        c = juryConfig();
        c.voteFee = 1 << 96;
        refuseConfig(c, "voteFee", 1 << 96, type(uint96).max);
        c = juryConfig();
        c.votes = 4;
        refuseConfig(c, "votes", 4, 1);
        c.votes = 0;
        refuseConfig(c, "votes", 0, 1);
        c = juryConfig();
        c.appealsMax = 5;
        refuseConfig(c, "appealsMax", 5, 63);
        c = juryConfig();
        c.commitSeconds = 0;
        refuseConfig(c, "commitSeconds", 0, 30 days);
        c.commitSeconds = 31 days;
        refuseConfig(c, "commitSeconds", 31 days, 30 days);
        c = juryConfig();
        c.leaveSeconds = 669;
        refuseConfig(c, "leaveSeconds", 669, 670);
        assertEq(jury.exposureSeconds(), 3 * (60 + 10 + 600 + 900));
        assertEq(abi.encode(jury.config()), abi.encode(juryConfig()));
    }

    // -------------------------------------------------------------------------------------------------------------------- seats

    function test_seatsLockStakeUntilTheyWereLeftLongEnough() public {
        uint64 id = newJuror(3);
        assertEq(lockedOf(id), 3 * SEAT);
        assertEq(jury.jurorCount(), 1);
        address key = operators.nodeKeyOf(id);
        vm.expectRevert(abi.encodeWithSelector(IJury.NoOperator.selector, address(this)));
        jury.enrol(id, 1);
        vm.expectRevert(abi.encodeWithSelector(IJury.NoOperator.selector, address(this)));
        jury.leave(id, 1);
        vm.startPrank(key);
        vm.expectRevert(abi.encodeWithSelector(IJury.BadSeatCount.selector, 0, 61));
        jury.enrol(id, 0);
        vm.expectRevert(abi.encodeWithSelector(IJury.BadSeatCount.selector, 62, 61));
        jury.enrol(id, 62);
        vm.expectRevert(abi.encodeWithSelector(IJury.BadSeatCount.selector, 4, 3));
        jury.leave(id, 4);
        vm.expectRevert(abi.encodeWithSelector(IJury.NothingToUnlock.selector, id));
        jury.unlock(id);
        jury.leave(id, 2);
        uint256 unlocksAt = block.timestamp + 1_000;
        vm.expectRevert(abi.encodeWithSelector(IJury.StillLocked.selector, id, unlocksAt, block.timestamp));
        jury.unlock(id);
        jury.enrol(id, 1); // out of what is still locked
        assertEq(lockedOf(id), 3 * SEAT);
        vm.warp(unlocksAt);
        jury.unlock(id);
        assertEq(lockedOf(id), 2 * SEAT);
        jury.leave(id, 2);
        assertEq(jury.jurorCount(), 0);
        vm.warp(block.timestamp + 1_000);
        jury.unlock(id);
        assertEq(lockedOf(id), 0);
        vm.stopPrank();
    }

    function test_placesThatWereLeftAreTakenAgain() public {
        addJurors(4);
        vm.prank(makeAddr("juror 2"));
        jury.leave(2, 1);
        addJurors(1);
        vm.warp(block.timestamp + 10);
        uint256 id = open("");
        draw(id);
        uint64[] memory list = jurors(id);
        for (uint256 i; i < list.length; ++i) {
            assertTrue(list[i] != 2);
        }
    }

    // ----------------------------------------------------------------------------------------------------------------- creation

    function test_aDisputeWithoutEnoughJurorsIsRefusedAndNotMadeSmaller() public {
        addJurors(2);
        newJuror(5); // too late: in this very second
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 2, 3));
        arbitrable.open{value: 3 * FEE}(2, "");
        vm.warp(block.timestamp + 1);
        bytes memory terms = termsOf(1);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 2, 3));
        arbitrable.open{value: 3 * FEE}(2, terms);
        assertEq(open(""), 1);
        draw(1);
        voteAll(1, 1);
        uint256 cost = jury.appealCost(1, "");
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 3, 7));
        arbitrable.appeal{value: cost}(1, "");
    }

    function test_badTermsAndFeesAreRefused() public {
        addJurors(3);
        vm.expectRevert(abi.encodeWithSelector(IJury.BadChoices.selector, 0));
        arbitrable.open{value: 3 * FEE}(0, "");
        vm.expectRevert(abi.encodeWithSelector(IJury.FeeTooSmall.selector, 3 * FEE - 1, 3 * FEE));
        arbitrable.open{value: 3 * FEE - 1}(2, "");
        vm.expectRevert(abi.encodeWithSelector(IJury.BadTerms.selector, 20, 21));
        arbitrable.open{value: 3 * FEE}(2, new bytes(20));
        vm.expectRevert(abi.encodeWithSelector(IJury.BadTerms.selector, 22, 21));
        jury.arbitrationCost(new bytes(22));
        bytes memory terms = JuryTerms.encode(payer, new uint64[](9), new address[](0));
        vm.expectRevert(abi.encodeWithSelector(IJury.TooManyExcluded.selector, 9, 8));
        jury.arbitrationCost(terms);
        terms = JuryTerms.encode(payer, new uint64[](0), new address[](17));
        vm.expectRevert(abi.encodeWithSelector(IJury.TooManyExcluded.selector, 17, 16));
        jury.arbitrationCost(terms);
        arbitrable.open{value: 3 * FEE + 5}(2, JuryTerms.encode(payer, new uint64[](0), new address[](16)));
        assertEq(coinsOf(payer), 5);
    }

    function testFuzz_termsAreReadAsTheyWereWrittenOrRefused(
        bytes calldata junk,
        address refundTo,
        uint64[3] calldata p,
        address[2] calldata a
    ) public {
        (uint64[] memory parties, address[] memory accounts) = (new uint64[](3), new address[](2));
        for (uint256 i; i < 3; ++i) {
            parties[i] = p[i];
        }
        (accounts[0], accounts[1]) = (a[0], a[1]);
        (address to, uint64[] memory ids, address[] memory keys) = this.decode(JuryTerms.encode(refundTo, parties, accounts));
        assertEq(abi.encode(to, ids, keys), abi.encode(refundTo, parties, accounts));
        try this.decode(junk) returns (address to2, uint64[] memory ids2, address[] memory keys2) {
            if (junk.length != 0) assertEq(JuryTerms.encode(to2, ids2, keys2), junk);
        } catch (bytes memory reason) {
            assertTrue(bytes4(reason) == IJury.BadTerms.selector || bytes4(reason) == IJury.TooManyExcluded.selector);
        }
    }

    function decode(bytes calldata terms) external pure returns (address, uint64[] memory, address[] memory) {
        return JuryTerms.decode(terms);
    }

    // ---------------------------------------------------------------------------------------------------------------- the course

    function test_aRulingByMajorityPaysThoseWhoVotedForIt() public {
        addJurors(5);
        uint256 id = open(termsOf(1));
        uint64[] memory list = draw(id);
        uint256[] memory rulings = new uint256[](3);
        (rulings[0], rulings[1], rulings[2]) = (2, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongPhase.selector, id, IJury.Phase.Voting, IJury.Phase.Executed));
        jury.settle(id, 0);
        vote(id, rulings);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooEarly.selector, id, block.timestamp + 300, block.timestamp));
        jury.execute(id);
        toFinal(id);
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 1);
        jury.settle(id, 0);
        vm.expectRevert(abi.encodeWithSelector(IJury.AlreadySettled.selector, id, 0));
        jury.settle(id, 0);
        vm.expectRevert(abi.encodeWithSelector(IJury.UnknownRound.selector, id, 1));
        jury.settle(id, 1);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongPhase.selector, id, IJury.Phase.Executed, IJury.Phase.Ruled));
        jury.execute(id);
        // one lost its penalty and with it its seat; half of it is burnt, half divided
        assertEq(lockedOf(list[0]), SEAT - PENALTY);
        assertEq(jury.juror(list[0]).seats, 0);
        for (uint256 i = 1; i < 3; ++i) {
            address to = operators.beneficiaryOf(list[i]);
            assertEq(coinsOf(to), 3 * FEE / 2);
            assertEq(tokensOf(to), PENALTY / 4);
            jury.withdraw(to);
            jury.withdrawTokens(to);
            assertEq(to.balance, 3 * FEE / 2);
            assertEq(token.balanceOf(to), PENALTY / 4);
            vm.expectRevert(abi.encodeWithSelector(IJury.NothingOwed.selector, to));
            jury.withdraw(to);
            vm.expectRevert(abi.encodeWithSelector(IJury.NothingOwed.selector, to));
            jury.withdrawTokens(to);
            assertEq(jury.juror(list[i]).openVotes, 0);
        }
        assertEq(address(jury).balance, 0);
        assertEq(token.balanceOf(address(jury)), 0);
    }

    function test_everyPhaseRefusesWhatIsNotItsOwn() public {
        addJurors(5);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongPhase.selector, 1, IJury.Phase.None, IJury.Phase.Drawing));
        jury.draw(1);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongPhase.selector, 1, IJury.Phase.None, IJury.Phase.Drawing));
        jury.disputeStatus(1);
        uint256 id = open("");
        uint64 seedTime = jury.dispute(id).seedTime;
        vm.expectRevert(abi.encodeWithSelector(IRandomness.RandomnessNotFixed.selector, seedTime));
        jury.draw(id);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooEarly.selector, id, seedTime + 600, block.timestamp));
        jury.expire(id);
        uint64[] memory list = draw(id);
        vm.expectRevert(abi.encodeWithSelector(IJury.NotOnJury.selector, id, 0));
        jury.commit(id, SALT);
        commit(id, list[0], 1);
        vm.prank(operators.nodeKeyOf(list[0]));
        vm.expectRevert(abi.encodeWithSelector(IJury.AlreadyVoted.selector, id, list[0], IJury.VoteState.Committed));
        jury.commit(id, SALT);
        uint256 until = jury.dispute(id).commitUntil;
        vm.expectRevert(abi.encodeWithSelector(IJury.TooEarly.selector, id, until, block.timestamp));
        jury.reveal(id, list[0], 1, SALT);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongOpening.selector, id, list[0]));
        jury.strike(id, list[0], 2, SALT);
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooLate.selector, id, until, until));
        jury.strike(id, list[0], 1, SALT);
        vm.prank(operators.nodeKeyOf(list[1]));
        vm.expectRevert(abi.encodeWithSelector(IJury.TooLate.selector, id, until, until));
        jury.commit(id, SALT);
        vm.expectRevert(abi.encodeWithSelector(IJury.UnknownRuling.selector, id, 3, 2));
        jury.reveal(id, list[0], 3, SALT);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongOpening.selector, id, list[0]));
        jury.reveal(id, list[0], 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IJury.AlreadyVoted.selector, id, list[1], IJury.VoteState.None));
        jury.reveal(id, list[1], 1, SALT);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooEarly.selector, id, until + 300, until));
        jury.close(id);
        vm.warp(until + 300);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooLate.selector, id, until + 300, until + 300));
        jury.reveal(id, list[0], 1, SALT);
        jury.close(id);
        vm.expectRevert(abi.encodeWithSelector(IJury.NotArbitrable.selector, id, address(this), address(arbitrable)));
        jury.appeal{value: 7 * FEE}(id, "");
        vm.expectRevert(abi.encodeWithSelector(IJury.BadTerms.selector, 3, 20));
        jury.appealCost(id, "abc");
        toFinal(id);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooLate.selector, id, block.timestamp, block.timestamp));
        arbitrable.appeal{value: 7 * FEE}(id, "");
    }

    function test_aJuryWithoutMajorityRefusesAndPunishesTheSilentAlone() public {
        addJurors(5);
        uint256 id = open("");
        uint64[] memory list = draw(id);
        commit(id, list[0], 1);
        commit(id, list[1], 2);
        vm.warp(jury.dispute(id).commitUntil);
        jury.reveal(id, list[0], 1, SALT);
        jury.reveal(id, list[1], 2, SALT);
        vm.warp(jury.dispute(id).revealUntil);
        jury.close(id);
        toFinal(id);
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 0);
        assertEq(arbitrable.ruled(), 1);
        jury.settle(id, 0);
        assertEq(lockedOf(list[0]), SEAT);
        assertEq(lockedOf(list[1]), SEAT);
        assertEq(lockedOf(list[2]), SEAT - PENALTY);
        assertEq(coinsOf(operators.beneficiaryOf(list[0])), 3 * FEE / 2);
    }

    function test_aWhollySilentJuryIsPunishedAndItsFeeGoesBack() public {
        addJurors(3);
        uint256 id = open(termsOfNobody());
        uint64[] memory list = draw(id);
        vm.warp(jury.dispute(id).revealUntil);
        jury.close(id);
        toFinal(id);
        jury.settle(id, 0); // before the ruling is executed
        jury.execute(id);
        assertEq(coinsOf(payer), 3 * FEE);
        for (uint256 i; i < 3; ++i) {
            assertEq(lockedOf(list[i]), SEAT - PENALTY);
        }
        assertEq(token.totalSupply(), 3 * (2 * SEAT - PENALTY));
    }

    function termsOfNobody() private view returns (bytes memory) {
        return JuryTerms.encode(payer, new uint64[](0), new address[](0));
    }

    function test_aJuryThatIsNotDrawnInTimeEndsInRefusalAndTheFeeGoesBack() public {
        addJurors(3);
        uint256 id = open(termsOfNobody());
        uint256 until = uint256(jury.dispute(id).seedTime) + 600;
        vm.warp(until);
        randomness.fix(jury.dispute(id).seedTime, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IJury.TooLate.selector, id, until, until));
        jury.draw(id);
        jury.expire(id);
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 0);
        assertEq(arbitrable.ruled(), 1);
        vm.prank(makeAddr("anyone"));
        jury.withdraw(payer);
        assertEq(payer.balance, 1_000e18 + 3 * FEE);
        vm.expectRevert(abi.encodeWithSelector(IJury.AlreadySettled.selector, id, 0));
        jury.settle(id, 0);
    }

    function test_jurorsWhoCannotBackAVoteAnyMoreAreNotDrawnUntilTheyCan() public {
        addJurors(3);
        uint256 id = open(termsOfNobody());
        uint256[] memory others = new uint256[](5); // all that a seat backs
        for (uint256 i; i < 5; ++i) {
            others[i] = open("");
            draw(others[i]);
        }
        assertEq(jury.juror(1).openVotes, 5);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 0, 3));
        jury.draw(id);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 0, 3));
        arbitrable.open{value: 3 * FEE}(2, "");
        // what backs open votes stays locked, however long ago the seat was left
        vm.prank(makeAddr("juror 1"));
        jury.leave(1, 1);
        voteAll(others[0], 1);
        toFinal(others[0]);
        jury.settle(others[0], 0);
        jury.draw(id);
        assertEq(jury.juror(1).openVotes, 5);
        vm.warp(block.timestamp + 10 days);
        vm.expectRevert(abi.encodeWithSelector(IJury.NothingToUnlock.selector, 1));
        jury.unlock(1);
    }

    function test_anAppealWithoutAJuryLeavesTheRulingBefore() public {
        addJurors(7);
        uint256 id = open("");
        draw(id);
        voteAll(id, 2);
        appeal(id);
        assertEq(uint8(jury.disputeStatus(id)), uint8(IArbitrator.DisputeStatus.Waiting));
        vm.warp(uint256(jury.dispute(id).seedTime) + 600);
        jury.expire(id);
        (uint256 start,) = jury.appealPeriod(id);
        assertEq(start, 0);
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 2);
        assertEq(coinsOf(payer), 7 * FEE);
        jury.settle(id, 0);
    }

    function test_appealsEndWithTheLargestJury() public {
        addJurors(15);
        uint256 id = open("");
        draw(id);
        voteAll(id, 1);
        appeal(id);
        assertEq(draw(id).length, 7);
        voteAll(id, 2);
        appeal(id);
        assertEq(draw(id).length, 15);
        assertEq(jury.appealCost(id, ""), (type(uint256).max - 1) / 2);
        voteAll(id, 2);
        assertTrue(jury.isFinal(id));
        vm.expectRevert(abi.encodeWithSelector(IJury.TooLate.selector, id, block.timestamp, block.timestamp));
        arbitrable.appeal{value: 31 * FEE}(id, "");
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 2);
        settleAll(id);
    }

    /// forge-config: default.fuzz.runs = 40
    /// forge-config: deep.fuzz.runs = 2000
    /// A vote for each drawn seat; of any register, the drawn are seats of operators who had them, and never more than they had.
    function testFuzz_aJuryIsDrawnWholeFromSeatsTakenBefore(uint256 salt, uint8 countSeed, uint256 seatSeed) public {
        beacon.reseed(salt);
        uint256 count = bound(countSeed, 3, 8);
        uint256[] memory seats = new uint256[](count + 1);
        for (uint64 i = 1; i <= count; ++i) {
            seats[i] = 1 + (seatSeed >> (8 * i)) % 4;
            newJuror(uint32(seats[i]));
        }
        vm.warp(block.timestamp + 1);
        uint256 id = open("");
        newJuror(20); // later than the dispute
        uint64[] memory list = draw(id);
        uint256 votes;
        for (uint256 i; i < list.length; ++i) {
            assertLe(list[i], count);
            uint256 own = votesOf(id, list[i]);
            assertLe(own, seats[list[i]]);
            votes += own;
        }
        assertEq(votes, 3);
    }

    /// forge-config: default.fuzz.runs = 40
    /// forge-config: deep.fuzz.runs = 2000
    /// Whatever the votes, the ruling is what more than half of the votes say, else 0, and all fees and penalties are accounted for.
    function testFuzz_theRulingIsThatOfTheMajority(uint256 salt, uint8[3] calldata choices, uint8 silent) public {
        beacon.reseed(salt);
        addJurors(6);
        uint256 id = open(termsOfNobody());
        uint64[] memory list = draw(id);
        uint256[4] memory counts;
        for (uint256 i; i < 3; ++i) {
            if (silent >> i & 1 == 0) commit(id, list[i], choices[i] % 3);
        }
        vm.warp(jury.dispute(id).commitUntil);
        for (uint256 i; i < 3; ++i) {
            if (silent >> i & 1 == 1) continue;
            jury.reveal(id, list[i], choices[i] % 3, SALT);
            ++counts[choices[i] % 3];
        }
        vm.warp(jury.dispute(id).revealUntil);
        jury.close(id);
        uint256 expected;
        bool decided;
        for (uint256 r; r < 3; ++r) {
            if (counts[r] > 1) (expected, decided) = (r, true);
        }
        assertEq(jury.currentRuling(id), expected);
        assertEq(jury.dispute(id).decided, decided);
        toFinal(id);
        uint256 supply = token.totalSupply();
        jury.settle(id, 0);
        uint256 paid = coinsOf(payer);
        uint256 shared;
        for (uint256 i; i < 3; ++i) {
            paid += coinsOf(operators.beneficiaryOf(list[i]));
            shared += tokensOf(operators.beneficiaryOf(list[i]));
            bool isSilent = silent >> i & 1 == 1;
            bool isCoherent = !isSilent && (!decided || choices[i] % 3 == expected);
            assertEq(lockedOf(list[i]), isCoherent ? SEAT : SEAT - PENALTY);
        }
        assertEq(paid, 3 * FEE);
        assertEq(token.balanceOf(address(jury)), shared);
        assertLe(shared, (supply - token.totalSupply()));
    }

    /// forge-config: default.fuzz.runs = 40
    /// forge-config: deep.fuzz.runs = 2000
    /// A stranger with any arguments, while one dispute is being voted on: no coin, no lock, no vote and no seat changes.
    function testFuzz_aStrangerChangesNothing(uint256 id, uint64 operatorId, uint32 count, uint256 ruling, bytes32 salt) public {
        addJurors(3);
        uint256 open_ = open("");
        uint64[] memory list = draw(open_);
        commit(open_, list[0], 1);
        (id, operatorId) = (id % 3, uint64(bound(operatorId, 0, 4)));
        if (salt == SALT) salt = 0;
        bytes32 before = keccak256(abi.encode(jury.dispute(open_), jury.roundOf(open_, 0), jury.juror(operatorId), address(jury).balance));
        uint256 locked = vault.lockedBy(address(jury));
        bytes[] memory calls = new bytes[](12);
        calls[0] = abi.encodeCall(IJury.enrol, (operatorId, count));
        calls[1] = abi.encodeCall(IJury.leave, (operatorId, count));
        calls[2] = abi.encodeCall(IJury.unlock, (operatorId));
        calls[3] = abi.encodeCall(IJury.draw, (id));
        calls[4] = abi.encodeCall(IJury.expire, (id));
        calls[5] = abi.encodeCall(IJury.commit, (id, salt));
        calls[6] = abi.encodeCall(IJury.strike, (id, operatorId, ruling, salt));
        calls[7] = abi.encodeCall(IJury.reveal, (id, operatorId, ruling, salt));
        calls[8] = abi.encodeCall(IJury.close, (id));
        calls[9] = abi.encodeCall(IJury.execute, (id));
        calls[10] = abi.encodeCall(IJury.settle, (id, uint8(count)));
        calls[11] = abi.encodeCall(IArbitrator.appeal, (id, ""));
        vm.startPrank(makeAddr("stranger"));
        for (uint256 i; i < calls.length; ++i) {
            (bool done,) = address(jury).call(calls[i]);
            assertFalse(done);
        }
        vm.stopPrank();
        assertEq(keccak256(abi.encode(jury.dispute(open_), jury.roundOf(open_, 0), jury.juror(operatorId), address(jury).balance)), before);
        assertEq(vault.lockedBy(address(jury)), locked);
    }

    function test_anAccountThatRefusesCoinsHarmsNobodyElse() public {
        addJurors(3);
        arbitrable.open{value: 3 * FEE + 1}(2, "");
        vm.expectRevert(abi.encodeWithSelector(IJury.CoinsRefused.selector, address(arbitrable), 1));
        jury.withdraw(address(arbitrable));
    }
}

/// @notice A jury of one vote, as three operators that judge one another need it.
contract JuryOfOneTest is JuryFixture {
    function juryConfig() internal pure override returns (IJury.Config memory c) {
        c = super.juryConfig();
        c.votes = 1;
    }

    function test_oneJurorRules_isPaid_andAnAppealAsksThree() public {
        addJurors(3);
        uint256 id = open(termsOf(1));
        uint64[] memory drawn = draw(id);
        assertEq(drawn.length, 1);
        assertTrue(drawn[0] != 1, "a party does not judge");
        voteAll(id, 2);
        assertEq(jury.currentRuling(id), 2);
        vm.expectRevert(abi.encodeWithSelector(IJury.TooFewJurors.selector, 2, 3));
        this.appealAnew(id);
        toFinal(id);
        jury.execute(id);
        settleAll(id);
        assertEq(arbitrable.rulingOf(id), 2);
        assertEq(coinsOf(operators.beneficiaryOf(drawn[0])), FEE);
    }

    function test_aSilentJurorOfOneRulesNothing() public {
        addJurors(3);
        uint256 id = open(termsOf(1));
        uint64[] memory drawn = draw(id);
        vm.warp(jury.dispute(id).revealUntil);
        jury.close(id);
        assertEq(jury.currentRuling(id), 0);
        toFinal(id);
        jury.execute(id);
        settleAll(id);
        assertEq(arbitrable.rulingOf(id), 0);
        assertEq(lockedOf(drawn[0]), SEAT - PENALTY);
    }

    function appealAnew(uint256 id) external {
        appeal(id);
    }
}
