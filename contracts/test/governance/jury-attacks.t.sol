// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IJury} from "../../src/governance/IJury.sol";
import {JuryTerms} from "../../src/governance/JuryTerms.sol";
import {JuryFixture} from "./jury-fixture.sol";

/// @notice Each attack beside an honest twin.
contract JuryAttacks is JuryFixture {
    address private briber = makeAddr("briber");

    /// Two of three jurors are bought. The appeal's larger jury says otherwise: the bought lose their penalty, the honest third of the
    /// first round has all of its fee and half of what the others lost.
    function test_aBribedMajorityOfASmallJuryLosesOnAppeal() public {
        addJurors(15);
        uint256 id = open("");
        uint64[] memory list = draw(id);
        uint256[] memory rulings = new uint256[](3);
        (rulings[0], rulings[1], rulings[2]) = (2, 2, 1);
        vote(id, rulings);
        assertEq(jury.currentRuling(id), 2);
        appeal(id);
        draw(id);
        voteAll(id, 1);
        toFinal(id);
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 1);
        settleAll(id);
        address honest = operators.beneficiaryOf(list[2]);
        assertGe(coinsOf(honest), 3 * FEE);
        assertGe(tokensOf(honest), PENALTY);
        for (uint256 i; i < 2; ++i) {
            assertLe(lockedOf(list[i]), SEAT - PENALTY);
        }
    }

    /// A bribed minority changes nothing and pays for it; the same votes without it would have had the same ruling.
    function test_aBribedMinorityOnlyLoses() public {
        addJurors(7);
        uint256 id = open("");
        uint64[] memory list = draw(id);
        uint256[] memory rulings = new uint256[](2);
        (rulings[0], rulings[1]) = (2, 1);
        vote(id, rulings);
        assertEq(jury.currentRuling(id), 1);
        toFinal(id);
        jury.settle(id, 0);
        assertEq(lockedOf(list[0]), SEAT - PENALTY);
        assertEq(lockedOf(list[1]), SEAT);
        assertEq(coinsOf(operators.beneficiaryOf(list[0])), 0);
    }

    /// Who sells or shows its vote before the reveals can be struck by whoever saw it; afterwards showing it harms nobody.
    function test_aVoteThatIsShownTooEarlyIsStruck() public {
        addJurors(5);
        uint256 id = open("");
        uint64[] memory list = draw(id);
        commit(id, list[0], 2);
        commit(id, list[1], 1);
        vm.prank(briber);
        jury.strike(id, list[0], 2, SALT);
        assertEq(vault.claimableOf(briber), PENALTY / 2); // the other half is burnt: to strike oneself does not pay
        assertEq(lockedOf(list[0]), SEAT - PENALTY);
        vm.expectRevert(abi.encodeWithSelector(IJury.AlreadyVoted.selector, id, list[0], IJury.VoteState.Struck));
        jury.strike(id, list[0], 2, SALT);
        commit(id, list[2], 1);
        vm.expectRevert(abi.encodeWithSelector(IJury.AlreadyVoted.selector, id, list[0], IJury.VoteState.Struck));
        jury.reveal(id, list[0], 2, SALT);
        // the honest twin's opening is brought by a stranger: that is its vote, and nothing else can be made of it
        vm.prank(briber);
        jury.reveal(id, list[1], 1, SALT);
        jury.reveal(id, list[2], 1, SALT);
        jury.close(id);
        toFinal(id);
        jury.settle(id, 0);
        assertEq(jury.currentRuling(id), 1);
        assertEq(lockedOf(list[0]), SEAT - PENALTY); // once, not again as one who did not reveal
        assertEq(lockedOf(list[1]), SEAT);
        assertEq(jury.juror(list[0]).openVotes, 0);
    }

    /// A copied commitment cannot be opened: it is bound to its juror.
    function test_aCopiedVoteCannotBeRevealed() public {
        addJurors(5);
        uint256 id = open("");
        uint64[] memory list = draw(id);
        commit(id, list[0], 1);
        bytes32 copied = bytes32(jury.voteOf(id, 0, list[0]).word);
        vm.prank(operators.nodeKeyOf(list[1]));
        jury.commit(id, copied);
        commit(id, list[2], 1);
        jury.reveal(id, list[0], 1, SALT);
        vm.expectRevert(abi.encodeWithSelector(IJury.WrongOpening.selector, id, list[1]));
        jury.reveal(id, list[1], 1, SALT);
        jury.reveal(id, list[2], 1, SALT);
        vm.warp(jury.dispute(id).revealUntil);
        jury.close(id);
        toFinal(id);
        jury.settle(id, 0);
        assertEq(lockedOf(list[1]), SEAT - PENALTY);
        assertEq(lockedOf(list[0]), SEAT);
    }

    /// Parties, operators with one of their keys, named accounts and backers of a party are never drawn, whatever the seed.
    function test_aPartyIsNoJuror() public {
        addJurors(5); // 1 to 5
        address owner = operators.ownerOf(1);
        uint64 twin = registerOperator(makeAddr("twin"), owner); // the party's owner is its beneficiary
        depositStake(twin, makeAddr("twin"), 2 * SEAT);
        enrol(twin, 1);
        backStake(1, operators.ownerOf(2), 1e18); // a backer of the party
        address[] memory accounts = new address[](1);
        accounts[0] = operators.beneficiaryOf(3);
        uint64[] memory parties = new uint64[](1);
        parties[0] = 1;
        newJuror(1);
        vm.warp(block.timestamp + 1);
        bytes memory terms = JuryTerms.encode(payer, parties, accounts);
        for (uint256 salt; salt < 8; ++salt) {
            beacon.reseed(salt);
            uint256 id = open(terms);
            uint64[] memory list = draw(id);
            for (uint256 i; i < list.length; ++i) {
                assertTrue(list[i] == 4 || list[i] == 5 || list[i] == 7, "a party judges");
            }
            voteAll(id, 1);
            toFinal(id);
            jury.settle(id, 0);
        }
    }

    /// Votes follow stake: forty seats under one name or under forty names are the same.
    function test_dividingStakeAmongManyNamesGainsNothing() public {
        addJurors(4);
        newJuror(12); // one name: 3/4 of all seats
        vm.warp(block.timestamp + 1);
        uint256 votes;
        uint256 rounds = 40;
        for (uint256 salt; salt < rounds; ++salt) {
            beacon.reseed(salt);
            uint256 id = open("");
            draw(id);
            votes += votesOf(id, 5);
            voteAll(id, 1);
            toFinal(id);
            jury.settle(id, 0);
        }
        // 3 * 40 * 3/4 = 90 expected, deviation 4.4
        assertGt(votes, 75);
        assertLt(votes, 105);
    }

    /// Who opens disputes with itself on both sides pays honest jurors, and its own minority of seats loses.
    function test_aSelfDisputeOnlyPaysJurors() public {
        addJurors(6);
        uint256 before = briber.balance;
        vm.deal(briber, 1e18);
        before = briber.balance;
        vm.prank(briber);
        uint256 id = jury.createDispute{value: 3 * FEE}(2, abi.encodePacked(briber, uint8(0)));
        uint64[] memory list = draw(id);
        uint256[] memory rulings = new uint256[](2);
        (rulings[0], rulings[1]) = (2, 1); // the first is its own
        vote(id, rulings);
        toFinal(id);
        jury.settle(id, 0);
        assertEq(briber.balance, before - 3 * FEE);
        assertEq(lockedOf(list[0]), SEAT - PENALTY);
        uint256 paid = coinsOf(operators.beneficiaryOf(list[1])) + coinsOf(operators.beneficiaryOf(list[2]));
        assertEq(paid, 3 * FEE);
    }

    /// An arbitrable that refuses its ruling can neither keep jurors' pay nor lose the ruling.
    function test_anArbitrableThatRevertsHarmsOnlyItself() public {
        addJurors(5);
        uint256 id = open("");
        uint64[] memory list = draw(id);
        voteAll(id, 1);
        toFinal(id);
        arbitrable.setRefuses(true);
        vm.expectRevert("refused");
        jury.execute(id);
        jury.settle(id, 0);
        assertEq(coinsOf(operators.beneficiaryOf(list[0])), FEE);
        arbitrable.setRefuses(false);
        jury.execute(id);
        assertEq(arbitrable.rulingOf(id), 1);
    }

    /// Leaving once the seed is known changes nothing: the draw sees the seats of the second before the dispute.
    function test_leavingAfterTheSeedIsKnownChangesNoDraw() public {
        addJurors(9);
        uint256 id = open("");
        uint64 seedTime = jury.dispute(id).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        uint256 state = vm.snapshotState();
        jury.draw(id);
        bytes32 undisturbed = keccak256(abi.encode(jurors(id)));
        vm.revertToState(state);
        for (uint64 i = 1; i <= 9; ++i) {
            vm.prank(operators.nodeKeyOf(i));
            jury.leave(i, 1);
        }
        newJuror(30);
        jury.draw(id);
        assertEq(keccak256(abi.encode(jurors(id))), undisturbed);
        uint64 first = jurors(id)[0];
        voteAll(id, 1);
        vm.warp(block.timestamp + 1_000);
        jury.unlock(first); // all but what backs its vote
        assertEq(lockedOf(first), PENALTY);
    }
}
