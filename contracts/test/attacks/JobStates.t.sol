// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IStateDemands} from "../../src/compute/IStateDemands.sol";
import {JobsFixture} from "../compute/jobs-fixture.sol";
import {JobWork} from "../compute/jobs-work.sol";

/// @notice States that are withheld, and lies about them, each beside somebody honest.
contract JobStatesAttack is JobsFixture {
    using JobWork for JobWork.Work;

    uint256 private constant FEES = 3 * uint256(MEMBER_FEE);
    uint256 private constant NET = PRICE - PRICE / 400;

    function demand(IComputeJobs.JobTerms memory t, JobWork.Work memory w, address by, uint32 leaf) private returns (uint64) {
        vm.prank(by);
        return demands.demand(t, resultOf(w), leaf);
    }

    function drawMembers(uint64 demandId) private returns (uint64[] memory) {
        uint64 seedTime = demands.demandOf(demandId).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        demands.drawMembers(demandId);
        return demands.demandOf(demandId).members;
    }

    /// The first `count` members sign.
    function signatures(uint64 demandId, JobWork.Work memory w, uint32 leaf, uint256 count) private returns (bytes[] memory list) {
        uint64[] memory members = demands.demandOf(demandId).members;
        list = new bytes[](members.length);
        bytes32 digest = demands.deliveredDigest(demandId, w.leaves[leaf]);
        for (uint256 i; i < count; ++i) {
            list[i] = signWith(nodeSecretOf(members[i]), digest);
        }
    }

    function confirm(uint64 demandId, IComputeJobs.JobTerms memory t, JobWork.Work memory w, uint32 leaf, uint256 count) private {
        bytes[] memory list = signatures(demandId, w, leaf, count);
        bytes32[] memory proof = w.proofOf(leaf);
        demands.confirm(demandId, t, resultOf(w), w.leaves[leaf], proof, list);
    }

    function test_an_operator_that_withholds_a_state_is_guilty_and_its_auditor_has_lost_nothing() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments); // it hides what it has forged
        bytes32 jobId = toAudit(t, w);
        address auditor = nodeOf(auditorOf(jobId, 0));
        uint64 demandId = demand(t, w, auditor, 3);
        assertEq(bondsOf(auditor), 1_000e18 - FEES); // no bond
        IAuditors.Reveal memory withheld = finding(jobId, 0, IAuditors.Finding.Withheld, 3, 0);
        sealAndReveal(withheld, right(jobId, 1));
        drawMembers(demandId);
        vm.warp(block.timestamp + 199);
        vm.expectPartialRevert(IStateDemands.DemandTooEarly.selector);
        demands.expire(demandId);
        vm.warp(block.timestamp + 1);
        demands.expire(demandId);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(bondsOf(auditor), 1_000e18);
        assertEq(vault.claimableOf(auditor), COLLATERAL * 4 / 10);
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT);
        assertEq(collateralOf(provider), 0);
        assertHeld();
    }

    /// Its twin was slow, or its auditor lied: the same to the contract. It hands the state to the committee and loses nothing.
    function test_an_operator_that_delivers_to_the_committee_is_paid_and_loses_nothing() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint256 stake = ownActive(provider);
        address liar = nodeOf(auditorOf(jobId, 0));
        uint64 demandId = demand(t, w, liar, 3);
        uint64[] memory members = drawMembers(demandId);
        confirm(demandId, t, w, 3, 3);
        sealAndReveal(finding(jobId, 0, IAuditors.Finding.Withheld, 3, 0), replay(t, w, 1));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertEq(ownActive(provider), stake);
        assertEq(bondsOf(liar), 1_000e18 - FEES); // who cries wolf pays the committee
        assertEq(stableOf(beneficiaryOf(auditorOf(jobId, 0))), 0); // and so nobody lives on crying
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT);
        assertEq(bondsOf(beneficiaryOf(members[0])), MEMBER_FEE);
        assertEq(bondsOf(address(demands)), 0);
    }

    /// What was delivered in time can be replayed in time: its auditor is paid as any other.
    function test_an_auditor_that_demands_at_once_and_replays_is_paid() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint64 demandId = demand(t, w, nodeOf(auditorOf(jobId, 0)), 3);
        drawMembers(demandId);
        confirm(demandId, t, w, 3, 3);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        settleJob(t, w);
        assertEq(stableOf(beneficiaryOf(auditorOf(jobId, 0))), AUDIT_FEE * 99 / 200);
    }

    /// A demand that is left to lapse casts no doubt: an accusation needs its case all the same.
    function test_a_lying_auditor_does_not_buy_doubt_with_a_demand_that_nobody_follows() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint64 liar = auditorOf(jobId, 0);
        uint64 demandId = demand(t, w, nodeOf(liar), 3);
        sealAndReveal(finding(jobId, 0, IAuditors.Finding.Wrong, 3, "lie"), replay(t, w, 1));
        vm.warp(uint256(demands.demandOf(demandId).seedTime) + 100);
        demands.expire(demandId);
        settleJob(t, w);
        assertEq(stableOf(beneficiaryOf(liar)), 0);
        assertEq(seatsOf(liar), AUDIT_SEAT - SILENCE);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
    }

    /// An operator delivers to a friend to stretch the window: that takes neither the canaries' time nor the auditors' turn.
    function test_a_delivery_arranged_with_a_friend_takes_nobodys_turn() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 5);
        bytes32 jobId = toWindow(t, w);
        uint256 from = block.timestamp;
        uint64 demandId = demand(t, w, challenger, 0);
        vm.warp(from + 5);
        demands.deliver(demandId, t, resultOf(w), w.leaves[0], w.proofOf(0), JobWork.fileOf(w.states[0]));
        (, uint48 until) = jobs.phaseOf(jobId);
        assertEq(until, from + 5 + CHALLENGE_SECONDS);
        uint256 fee = disputes.juryFee();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotYours.selector, jobId, from + 2 * GRACE, from + 5));
        disputes.challengeRoot{value: fee}(t, resultOf(w), "other");
        vm.warp(from + GRACE);
        address auditor = nodeOf(auditorOf(jobId, 0));
        judge(challenge(t, w, auditor, 5), t, w);
        settleJob(t, w);
        assertEq(vault.claimableOf(auditor), COLLATERAL * 4 / 10);
    }

    /// Nothing is decided while others still replay, or before the canaries' time is over: nobody is punished for a reveal that had its time.
    function test_who_had_still_time_to_reveal_is_not_punished_when_a_withheld_state_decides() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        t.auditSeconds = 600;
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toAudit(t, w);
        uint64 demandId = demand(t, w, nodeOf(auditorOf(jobId, 0)), 3);
        drawMembers(demandId);
        vm.warp(block.timestamp + 200);
        vm.expectPartialRevert(IComputeJobs.WrongPhase.selector);
        demands.expire(demandId);
        sealAndReveal(finding(jobId, 0, IAuditors.Finding.Withheld, 3, 0), replay(t, w, 1));
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooEarly.selector, jobId, block.timestamp + GRACE, block.timestamp));
        demands.expire(demandId);
        vm.warp(block.timestamp + GRACE);
        demands.expire(demandId);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        for (uint8 i; i < 2; ++i) {
            assertEq(stableOf(beneficiaryOf(auditorOf(jobId, i))), AUDIT_FEE * 99 / 200);
            assertEq(seatsOf(auditorOf(jobId, i)), AUDIT_SEAT);
        }
    }

    /// An operator gains nothing by keeping auditors waiting until they demand: their demands have no bond.
    function test_an_operator_cannot_live_on_the_bonds_of_its_auditors() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint64 demandId = demand(t, w, nodeOf(auditorOf(jobId, 0)), 3);
        drawMembers(demandId);
        confirm(demandId, t, w, 3, 3);
        assertEq(bondsOf(beneficiaryOf(provider)), 0);
        // A second demand of the same auditor, and one of anybody else, has a bond: nobody makes it deliver for ever.
        address auditor = nodeOf(auditorOf(jobId, 0));
        demandId = demand(t, w, auditor, 4);
        assertEq(demands.demandOf(demandId).bond, BOND);
        demands.deliver(demandId, t, resultOf(w), w.leaves[4], w.proofOf(4), JobWork.fileOf(w.states[4]));
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        assertEq(bondsOf(auditor), 1_000e18 - FEES - BOND);
    }

    /// Nor by keeping its renter waiting for the output: the renter's first demand has no bond, and who still delivers nothing is guilty.
    function test_a_renter_gets_what_it_paid_for_without_a_bond_once() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        fundAccuser(renter);
        uint64 demandId = demand(t, w, renter, 4);
        assertEq(demands.demandOf(demandId).bond, 0);
        drawMembers(demandId);
        confirm(demandId, t, w, 4, 3);
        assertEq(bondsOf(renter), 1_000e18 - FEES);
        assertEq(bondsOf(beneficiaryOf(provider)), 0);
        demandId = demand(t, w, renter, 4);
        assertEq(demands.demandOf(demandId).bond, BOND); // again: as anybody
        demands.deliver(demandId, t, resultOf(w), w.leaves[4], w.proofOf(4), JobWork.fileOf(w.states[4]));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
    }

    function test_an_operator_that_keeps_the_output_from_its_renter_is_guilty() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        fundAccuser(renter);
        uint64 demandId = demand(t, w, renter, 4);
        drawMembers(demandId);
        vm.warp(block.timestamp + 200);
        demands.expire(demandId);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(bondsOf(renter), 1_000e18);
        assertEq(collateralOf(provider), 0);
    }

    function test_a_silent_minority_of_the_committee_convicts_nobody_and_earns_nothing() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        uint64 demandId = demand(t, w, challenger, 3);
        uint64[] memory members = drawMembers(demandId);
        confirm(demandId, t, w, 3, 2);
        assertEq(bondsOf(beneficiaryOf(members[0])) + bondsOf(beneficiaryOf(members[1])), FEES);
        assertEq(bondsOf(beneficiaryOf(members[2])), 0);
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
    }

    function test_a_lying_minority_of_the_committee_saves_no_operator_that_delivers_nothing() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toAudit(t, w);
        sealAndReveal(right(jobId, 0), right(jobId, 1));
        uint64 demandId = demand(t, w, challenger, 3);
        drawMembers(demandId);
        bytes[] memory list = signatures(demandId, w, 3, 1);
        bytes32[] memory proof = w.proofOf(3);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.TooFewSignatures.selector, 1, 2));
        demands.confirm(demandId, t, resultOf(w), w.leaves[3], proof, list);
        list[2] = list[0]; // nor does it sign for others
        vm.expectPartialRevert(IStateDemands.BadSignature.selector);
        demands.confirm(demandId, t, resultOf(w), w.leaves[3], proof, list);
        vm.warp(block.timestamp + 200);
        demands.expire(demandId);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(bondsOf(challenger), 1_000e18);
    }

    /// Even a committee that denies what it was given cannot convict: a state that fits into a transaction is delivered by one.
    function test_a_state_on_the_chain_cannot_be_denied_by_any_committee() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        uint64 demandId = demand(t, w, challenger, 3);
        drawMembers(demandId); // and all of it stays silent
        bytes32[] memory proof = w.proofOf(3);
        vm.expectPartialRevert(IStateDemands.WrongState.selector);
        demands.deliver(demandId, t, resultOf(w), w.leaves[3], proof, JobWork.fileOf(w.states[4]));
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.StateTooLong.selector, 1_025, 1_024));
        demands.deliver(demandId, t, resultOf(w), w.leaves[3], proof, new bytes(1_025));
        demands.deliver(demandId, t, resultOf(w), w.leaves[3], proof, JobWork.fileOf(w.states[3]));
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        assertEq(bondsOf(challenger), 1_000e18 - BOND); // the fee that nobody earned is back
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
    }

    /// A state that came late leaves time to replay it: what it shows can still be challenged.
    function test_a_late_delivery_extends_the_window_so_that_the_forgery_in_it_is_found() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 3);
        bytes32 jobId = toAudit(t, w);
        IAuditors.Reveal memory withheld = finding(jobId, 0, IAuditors.Finding.Withheld, 3, 0);
        sealAndReveal(withheld, right(jobId, 1));
        (, uint48 until) = jobs.phaseOf(jobId);
        vm.warp(until - 1);
        address auditor = nodeOf(auditorOf(jobId, 0));
        uint64 demandId = demand(t, w, auditor, 3);
        drawMembers(demandId);
        vm.expectPartialRevert(IComputeJobs.CasesOpen.selector);
        jobs.settle(one(t), one(resultOf(w)));
        confirm(demandId, t, w, 3, 3);
        (, uint48 extended) = jobs.phaseOf(jobId);
        assertEq(extended, block.timestamp + CHALLENGE_SECONDS);
        judge(challenge(t, w, auditor, 3), t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(vault.claimableOf(auditor), COLLATERAL * 4 / 10);
    }

    function test_no_committee_no_loss() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        for (uint64 id = 2; id <= 6; ++id) {
            vm.prank(operators.nodeKeyOf(id));
            auditors.leave(id, 1);
        }
        vm.warp(block.timestamp + 1);
        uint64 demandId = demand(t, w, challenger, 3);
        uint64 seedTime = demands.demandOf(demandId).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.TooFewMembers.selector, 0, 3));
        demands.drawMembers(demandId);
        vm.warp(seedTime + 100);
        demands.expire(demandId);
        assertEq(bondsOf(challenger), 1_000e18);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
    }

    /// A job whose leaf 4 is a canary's.
    function canary() private returns (IComputeJobs.JobTerms memory t, JobWork.Work memory w) {
        t = wholeTerms();
        t.auditSeconds = 600;
        t.flagSeal = jobs.canarySeal(renter, t.nonce, CANARY_SALT);
        w = honestWork(t);
        bytes32[] memory hashes = new bytes32[](9);
        for (uint256 i; i < 9; ++i) {
            hashes[i] = w.leaves[i].stateHash;
        }
        hashes[4] = jobs.canaryStateHash(CANARY_SALT, 4);
        w.commitToHashes(hashes);
    }

    function openCanary(IComputeJobs.JobTerms memory t, JobWork.Work memory w) private {
        jobs.openCanary(t, resultOf(w), 4, w.leaves[4].chainHash, w.proofOf(4), CANARY_SALT);
    }

    /// A canary has no state to show at its wrong leaf; who demanded it loses nothing, nor does the operator.
    function test_a_demand_for_a_canarys_wrong_state_ends_without_loss() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w) = canary();
        bytes32 jobId = toAudit(t, w);
        address auditor = nodeOf(auditorOf(jobId, 0));
        uint64 demandId = demand(t, w, auditor, 4);
        sealAndReveal(finding(jobId, 0, IAuditors.Finding.Withheld, 4, 0), replay(t, w, 1));
        openCanary(t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Canary);
        drawMembers(demandId);
        vm.warp(block.timestamp + 200);
        demands.expire(demandId);
        assertEq(bondsOf(auditor), 1_000e18);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertEq(jobs.job(jobId).openCases, 0);
    }

    /// The renter, which knows the leaf, demands it while auditors replay, whenever it likes: its operator cannot deliver it, opens the canary in
    /// its time, and is paid.
    /// forge-config: default.fuzz.runs = 16
    function testFuzz_a_renter_robs_no_operator_by_demanding_the_leaf_of_their_canary(uint256 moment) public {
        fundAccuser(renter);
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w) = canary();
        uint256 stake = ownActive(provider);
        bytes32 jobId = toAudit(t, w);
        vm.warp(block.timestamp + bound(moment, 0, 380));
        uint64 demandId = demand(t, w, renter, 4);
        drawMembers(demandId);
        vm.warp(demands.demandOf(demandId).deliverUntil);
        expectNotOver(demandId);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        expectNotOver(demandId);
        assertFalse(jobs.job(jobId).guilty);
        vm.expectPartialRevert(IComputeJobs.TooEarly.selector);
        jobs.settle(one(t), one(resultOf(w)));
        openCanary(t, w);
        demands.expire(demandId);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Canary);
        assertEq(ownActive(provider), stake);
        assertEq(stableOf(beneficiaryOf(provider)), NET);
        assertEq(vault.claimableOf(renter), 0);
    }

    /// Its twin has forged: no salt opens its leaf, and the same demand convicts it as soon as the canaries' time is over.
    function test_a_forger_whose_leaf_is_demanded_is_convicted_after_the_canaries_time() public {
        fundAccuser(renter);
        (IComputeJobs.JobTerms memory t,) = canary();
        t.flagSeal = keccak256("no canary");
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toAudit(t, w);
        uint64 demandId = demand(t, w, renter, 4);
        drawMembers(demandId);
        vm.warp(demands.demandOf(demandId).deliverUntil);
        expectNotOver(demandId);
        sealAndReveal(replay(t, w, 0), replay(t, w, 1));
        expectNotOver(demandId);
        vm.warp(block.timestamp + GRACE);
        demands.expire(demandId);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(vault.claimableOf(renter), COLLATERAL / 2);
    }

    function expectNotOver(uint64 demandId) private {
        vm.expectRevert();
        demands.expire(demandId);
    }
}
