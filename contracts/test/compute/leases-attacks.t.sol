// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {ILeaseProbers} from "../../src/compute/ILeaseProbers.sol";
import {ProbersFixture} from "./leases-probers-fixture.sol";

/// @notice Each way to cheat with a lease, beside an honest twin. A lease is ten minutes of ten intervals at 598.5 for the supplier.
contract LeaseAttacksTest is ProbersFixture {
    uint256 private constant NET = 598.5e6;

    // A ghost renter uses the machine and signs nothing, so as not to pay.
    function test_aGhostRenterPaysWhereProbersReachTheRental() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, findings(leaseId, 5, ALL128));
        closeLate(leaseId);
        assertEq(balance(beneficiary), NET);
    }

    function test_anHonestRenterPaysTheSameWithoutProbers() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 600);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, ALL);
        closeLate(leaseId);
        assertEq(balance(beneficiary), NET);
    }

    // A ghost supplier signs that all is up, and serves nothing.
    function test_aGhostSupplierIsNotPaidAndLosesCollateralWhenItsRenterAsks() public {
        uint64 leaseId = rent(600);
        vm.warp(start - 50);
        vm.prank(renter);
        vm.warp(probers.ask(leaseId, 0));
        randomness.fix(uint64(block.timestamp), "", "", "");
        vm.warp(start + 600);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, 0);
        probers.draw(leaseId, 0);
        probers.speak(leaseId, 0, findings(leaseId, 5, 0));
        closeLate(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(vault.claimableOf(renter), COLLATERAL / 2);
    }

    function test_aGhostSupplierIsNotPaidByASilentRenterEither() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, findings(leaseId, 5, 0));
        closeLate(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(vault.claimableOf(renter), COLLATERAL / 2);
    }

    // A renter that lies about a machine that runs gets its money back, and no more: two of three do not say so.
    function test_aRenterThatLiesTakesNoCollateral() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, 0);
        probers.speak(leaseId, 0, findings(leaseId, 5, ALL128));
        closeLate(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(vault.claimableOf(renter), 0);
        assertEq(locked(), 0);
    }

    // A supplier that answers probers only: the renter's own word stands above theirs.
    function test_aSupplierThatAnswersProbersOnlyIsNotPaidByARenterThatSpeaks() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, findings(leaseId, 5, ALL128));
        say(leaseId, RENTER, 0, ALL, 0);
        closeLate(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(market.statementOf(leaseId, NODE, 0).up, 1023);
        assertEq(market.statementOf(leaseId, PROBERS, 0).up, 1023);
        assertEq(market.statementOf(leaseId, RENTER, 0).up, 0);
    }

    // Two of five probers are the supplier's friends.
    function test_aColludingMinorityNeitherBringsADeadRentalToLife() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, mixed(leaseId, ALL128, 0));
        closeLate(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(vault.claimableOf(renter), COLLATERAL / 2);
        paidAlike(leaseId);
    }

    function test_norDoesItBuryALivingOne() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, mixed(leaseId, 0, ALL128));
        closeLate(leaseId);
        assertEq(balance(beneficiary), NET);
        assertEq(locked(), 0);
        paidAlike(leaseId);
    }

    /// The first two of the panel say one thing, the others another.
    function mixed(uint64 leaseId, uint128 few, uint128 most) private view returns (ILeaseProbers.Finding[] memory list) {
        list = new ILeaseProbers.Finding[](5);
        for (uint8 i; i < 5; ++i) {
            list[i] = finding(leaseId, 0, i, ALL128, i < 2 ? few : most);
        }
    }

    /// Who said other than the panel found is not paid.
    function paidAlike(uint64 leaseId) private {
        probers.settle(leaseId, 0);
        uint64[] memory panel = probers.panelOf(leaseId, 0);
        for (uint256 i; i < 5; ++i) {
            assertEq(balance(operators.beneficiaryOf(panel[i])), i < 2 ? 0 : FEE);
        }
    }

    // An early word of few cannot shut out the others: findings add up.
    function test_aMinorityThatSpeaksFirstShutsNobodyOut() public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        probers.speak(leaseId, 0, findings(leaseId, 2, 0));
        ILeaseProbers.Finding[] memory rest = new ILeaseProbers.Finding[](3);
        for (uint8 i; i < 3; ++i) {
            rest[i] = finding(leaseId, 0, i + 2, ALL128, ALL128);
        }
        probers.speak(leaseId, 0, rest);
        closeLate(leaseId);
        assertEq(balance(beneficiary), NET);
    }

    // A renter cuts an hour into the shortest leases and denies them: each lease is found down whole.
    function test_whoCutsTimeIntoShortLeasesTakesNoMoreThanItsShare() public {
        uint256 lost = loseInPieces(METER, 6);
        assertEq(lost, COLLATERAL * 6 * METER / COLLATERAL_SECONDS);
        assertEq(vault.claimableOf(renter), lost / 2);
    }

    /// The honest twin: one lease of the same time is compensated alike.
    function test_oneLeaseOfTheSameTimeCostsTheSame() public {
        assertEq(loseInPieces(6 * METER, 1), COLLATERAL * 6 * METER / COLLATERAL_SECONDS);
    }

    // The whole collateral for one second: leases of a second, or in the very next one.
    function test_aSecondIsNoLease() public {
        for (uint64 length = 1; length < METER; length += 29) {
            refuse(length);
        }
        vm.warp(start - LEAD_SECONDS + 1);
        refuse(METER);
        // The honest twin: an interval, of which the supplier has known for as long as it needs.
        vm.warp(start - LEAD_SECONDS);
        assertEq(market.lease(rent(METER)).until, start + METER);
    }

    function refuse(uint64 length) private {
        uint256 earliest = block.timestamp + LEAD_SECONDS;
        vm.expectRevert(
            abi.encodeWithSelector(
                IComputeMarket.LeaseTimeOutOfBounds.selector, start, start + length, earliest, METER, 64 * 256 * uint64(METER)
            )
        );
        vm.prank(renter);
        market.reserve(request(start, length), devices(1), 1);
    }

    /// However a renter cuts time into leases, a second that is missed costs at most its part of the collateral, and at least as much as it would
    /// in one lease: who takes short leases away, or leaves them, does not come off cheaper than who does so with a long one.
    /// forge-config: default.fuzz.runs = 32
    function testFuzz_aMissedSecondCostsTheSameInShortLeases(uint256 pieces, uint256 length) public {
        pieces = bound(pieces, 1, 4);
        length = bound(length, METER, COLLATERAL_SECONDS);
        uint256 lost = loseInPieces(uint64(length), pieces);
        uint256 fair = COLLATERAL * pieces * length / COLLATERAL_SECONDS;
        assertGe(lost, fair);
        assertLe(lost, fair + pieces); // a base unit a lease, rounded up
    }

    /// forge-config: default.fuzz.runs = 32
    function testFuzz_aLongLeaseRisksTheCollateralAndNoMore(uint256 length, bool ends) public {
        length = bound(length, COLLATERAL_SECONDS, 150 * uint256(METER));
        vm.prank(renter);
        uint64 leaseId = market.reserve(request(start + 100, uint64(length)), devices(1), 1)[0];
        assertEq(locked(), COLLATERAL);
        if (ends) {
            // A supplier that ends it before it begins takes all of it away.
            vm.warp(start + 100 - NOTICE_SECONDS);
            vm.prank(owner);
            assertEq(market.end(leaseId), start + 100);
            market.close(leaseId);
        } else {
            denyAll(leaseId);
            closeLate(leaseId);
        }
        assertEq(vault.claimableOf(renter), COLLATERAL / 2);
    }

    /// Leases of the first device that follow one another, all denied by the renter while the node says nothing. What the supplier has lost.
    function loseInPieces(uint64 length, uint256 pieces) private returns (uint256) {
        uint64 from = start;
        for (uint256 i; i < pieces; ++i) {
            vm.prank(renter);
            uint64 leaseId = market.reserve(request(from, length), devices(1), 1)[0];
            denyAll(leaseId);
            market.close(leaseId);
            from = uint64(block.timestamp) + LEAD_SECONDS;
        }
        (uint256 stake,) = vault.ownStake(operatorId);
        return STAKE - stake;
    }

    function denyAll(uint64 leaseId) private {
        vm.warp(market.lease(leaseId).until);
        say(leaseId, RENTER, 0, ALL, 0);
        vm.warp(block.timestamp + SPEAK);
    }

    /// Wash leases: supplier and renter are one. Whatever they do, together they have less than before: fees, and half of what is slashed.
    function testFuzz_whoLeasesToHimselfLoses(uint8 mode, uint16 at, uint256 says) public {
        uint256 stableBefore = balance(renter) + balance(beneficiary);
        (uint256 stakeBefore,) = vault.ownStake(operatorId);
        uint64 leaseId = rent(600);
        vm.warp(start + bound(at, 0, 599));
        if (mode % 3 != 0) {
            vm.prank(mode % 3 == 1 ? renter : nodeKey);
            try market.end(leaseId) {} catch {}
        }
        vm.warp(market.lease(leaseId).until);
        if (block.timestamp > start) {
            say(leaseId, NODE, 0, ALL, says);
            say(leaseId, RENTER, 0, ALL, says >> 128);
        }
        closeLate(leaseId);
        (uint256 stake,) = vault.ownStake(operatorId);
        uint256 lost = stakeBefore - stake;
        assertGe(stakeBefore - stake - vault.claimableOf(renter), lost / 2);
        assertLe(balance(renter) + balance(beneficiary), stableBefore - 3e6);
    }

    /// An honest supplier, whatever its renter says and whoever brings it, never loses collateral while a panel's honest majority saw it run.
    function testFuzz_anHonestSupplierLosesNothing(uint256 spoken, uint256 up, uint128 lies) public {
        uint64 leaseId = watchedLease();
        say(leaseId, NODE, 0, ALL, ALL);
        if (spoken & 1023 != 0) say(leaseId, RENTER, 0, spoken, up);
        probers.speak(leaseId, 0, mixed(leaseId, lies, ALL128));
        closeLate(leaseId);
        (uint256 stake,) = vault.ownStake(operatorId);
        assertEq(stake, STAKE);
        assertEq(vault.lockedOfModule(operatorId, address(market)), 0);
    }
}
