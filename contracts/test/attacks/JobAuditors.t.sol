// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {JobsFixture} from "../compute/jobs-fixture.sol";
import {JobWork} from "../compute/jobs-work.sol";

/// @notice Auditors that copy, are lazy, lie or collude, each beside one that replays.
contract JobAuditorsAttack is JobsFixture {
    using JobWork for JobWork.Work;

    uint256 private constant SHARE = AUDIT_FEE * 99 / 100 / 2;

    // --------------------------------------------------------------------------------------------------------------- copying

    function test_a_copied_seal_opens_nothing_and_its_copier_pays_for_silence() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        (uint64 honest, uint64 copier) = (auditorOf(jobId, 0), auditorOf(jobId, 1));
        IAuditors.Reveal memory r = replay(t, w, 0);
        sealAs(r);
        sealWith(jobId, 1, auditors.auditOf(jobs, jobId, 0).seal);
        reveal(r);
        r.index = 1;
        vm.expectRevert(abi.encodeWithSelector(IAuditors.WrongOpening.selector, jobId, copier));
        reveal(r);
        vm.warp(block.timestamp + 60); // the time for revealing
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(honest)), SHARE);
        assertEq(seatsOf(honest), AUDIT_SEAT);
        assertEq(stableOf(beneficiaryOf(copier)), 0);
        assertEq(seatsOf(copier), AUDIT_SEAT - SILENCE);
        assertEq(auditors.auditor(copier).seats, 0); // the rest does not cover it
    }

    function test_who_waits_for_the_reveals_of_others_can_seal_no_more() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        IAuditors.Reveal memory r = replay(t, w, 0);
        sealAs(r);
        vm.expectPartialRevert(IComputeJobs.WrongPhase.selector); // nobody reveals while others may seal
        reveal(r);
        vm.warp(block.timestamp + AUDIT_SECONDS);
        reveal(r);
        bytes18 seal = sealOf(replay(t, w, 1), auditorOf(jobId, 1));
        vm.expectPartialRevert(IComputeJobs.WrongPhase.selector);
        this.sealExternally(jobId, 1, seal);
    }

    function sealExternally(bytes32 jobId, uint8 index, bytes18 seal) external {
        sealWith(jobId, index, seal);
    }

    // -------------------------------------------------------------------------------------------------------------- laziness

    /// Renter and operator agree on a wrong last leaf; the salt is the renter's.
    function canaryOf(IComputeJobs.JobTerms memory t, uint32 leaf) private view returns (JobWork.Work memory w) {
        t.flagSeal = jobs.canarySeal(t.renter, t.nonce, CANARY_SALT);
        w = honestWork(t);
        bytes32[] memory hashes = new bytes32[](t.segments + 1);
        for (uint256 i; i < hashes.length; ++i) {
            hashes[i] = w.leaves[i].stateHash;
        }
        hashes[leaf] = jobs.canaryStateHash(CANARY_SALT, leaf);
        w.commitToHashes(hashes);
    }

    function openCanary(IComputeJobs.JobTerms memory t, JobWork.Work memory w, uint32 leaf) private {
        bytes32 chainHash = w.leaves[leaf].chainHash;
        jobs.openCanary(t, resultOf(w), leaf, chainHash, w.proofOf(leaf), CANARY_SALT);
    }

    function test_a_lazy_auditor_loses_stake_to_a_canary_and_its_honest_twin_wins_the_jackpot() public {
        fillPool();
        uint256 pool = jobs.canaryPool(address(stable));
        assertGt(pool, 0);
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = canaryOf(t, 8);
        bytes32 jobId = toAudit(t, w);
        (uint64 honest, uint64 lazy) = (auditorOf(jobId, 0), auditorOf(jobId, 1));
        (uint256 honestBefore, uint256 lazyBefore) = (stableOf(beneficiaryOf(honest)), stableOf(beneficiaryOf(lazy)));
        sealAndReveal(replay(t, w, 0), right(jobId, 1));
        openCanary(t, w, 8);
        uint256 paidBefore = stableOf(beneficiaryOf(provider));
        jobs.settle(one(t), one(resultOf(w))); // at once
        assertOutcome(jobId, IComputeJobs.Outcome.Canary);
        assertEq(stableOf(beneficiaryOf(honest)) - honestBefore, SHARE + pool);
        assertEq(seatsOf(honest), AUDIT_SEAT);
        assertEq(stableOf(beneficiaryOf(lazy)), lazyBefore);
        assertEq(seatsOf(lazy), AUDIT_SEAT - LIE);
        assertEq(vault.claimableOf(renter), LIE / 2); // the maker's part
        assertEq(stableOf(beneficiaryOf(provider)) - paidBefore, PRICE - PRICE / 400);
        assertEq(jobs.canaryPool(address(stable)), AUDIT_FEE / 100);
        assertHeld();
    }

    function fillPool() private {
        for (uint256 i; i < 3; ++i) {
            complete(wholeTerms());
        }
    }

    function test_a_canary_wins_at_most_the_audit_fee_that_it_has_paid() public {
        for (uint256 i; i < 4; ++i) {
            IComputeJobs.JobTerms memory rich = wholeTerms();
            rich.auditFee = 400e6;
            complete(rich);
        }
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = canaryOf(t, 8);
        bytes32 jobId = toWindow(t, w); // both see it
        uint256 before = stableOf(beneficiaryOf(auditorOf(jobId, 0)));
        openCanary(t, w, 8);
        jobs.settle(one(t), one(resultOf(w)));
        assertEq(stableOf(beneficiaryOf(auditorOf(jobId, 0))) - before, SHARE + AUDIT_FEE / 2);
        assertEq(jobs.canaryPool(address(stable)), 4 * 4e6 - AUDIT_FEE + AUDIT_FEE / 100);
        assertHeld();
    }

    function test_an_operator_cannot_call_its_forgery_a_canary() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = canaryOf(t, 8);
        t.flagSeal = keccak256("no canary"); // what the renter has signed
        bytes32 jobId = toWindow(t, w);
        bytes32 chainHash = w.leaves[8].chainHash;
        bytes32[] memory proof = w.proofOf(8);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotACanary.selector, jobId));
        jobs.openCanary(t, resultOf(w), 8, chainHash, proof, CANARY_SALT);
        toTurn(jobId, true);
        ruleBy(challenge(t, w, nodeOf(auditorOf(jobId, 0)), 7), 1);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
    }

    /// A renter that wants honest auditors' stake would have to show a state whose SHA-256 is a hash of its salt.
    function test_nobody_can_call_a_right_result_a_canary() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        t.flagSeal = jobs.canarySeal(renter, t.nonce, CANARY_SALT);
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        for (uint32 leaf; leaf <= 8; ++leaf) {
            bytes32 chainHash = w.leaves[leaf].chainHash;
            bytes32[] memory proof = w.proofOf(leaf);
            vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotACanary.selector, jobId));
            jobs.openCanary(t, resultOf(w), leaf, chainHash, proof, CANARY_SALT);
        }
        settleJob(t, w);
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT);
        assertEq(seatsOf(auditorOf(jobId, 1)), AUDIT_SEAT);
    }

    function test_a_canary_that_is_not_opened_in_its_time_is_a_forgery() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = canaryOf(t, 8);
        bytes32 jobId = toWindow(t, w);
        vm.warp(block.timestamp + GRACE);
        bytes32 chainHash = w.leaves[8].chainHash;
        bytes32[] memory proof = w.proofOf(8);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooLate.selector, jobId, block.timestamp, block.timestamp));
        jobs.openCanary(t, resultOf(w), 8, chainHash, proof, CANARY_SALT);
        ruleBy(challenge(t, w, nodeOf(auditorOf(jobId, 0)), 7), 1);
        assertTrue(jobs.job(jobId).guilty);
    }

    /// A wrong leaf in the middle: the segment that begins there cannot be begun, and to say so is to have seen it.
    function test_an_auditor_that_finds_the_wrong_state_withheld_has_seen_the_canary() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = canaryOf(t, 4);
        bytes32 jobId = toAudit(t, w);
        sealAndReveal(replay(t, w, 0), finding(jobId, 1, IAuditors.Finding.Withheld, 4, 0));
        openCanary(t, w, 4);
        assertEq(auditors.auditOf(jobs, jobId, 0).marks, 8);
        assertEq(auditors.auditOf(jobs, jobId, 1).marks, 8);
        jobs.settle(one(t), one(resultOf(w)));
        assertEq(seatsOf(auditorOf(jobId, 1)), AUDIT_SEAT);
    }

    /// Who has not drawn the wrong segment has rightly found Right.
    function test_an_auditor_that_did_not_draw_the_wrong_segment_keeps_its_stake() public {
        passProbation();
        bool hasMissed;
        bool hasNotDrawn;
        while (!hasMissed || !hasNotDrawn) {
            IComputeJobs.JobTerms memory t = termsOf(4, 2, 1);
            JobWork.Work memory w = canaryOf(t, 4);
            bytes32 jobId = toAudit(t, w);
            uint64 auditor = auditorOf(jobId, 0);
            uint32[] memory drawn = segmentsOf(t, auditor);
            bool hasDrawn = drawn[0] == 3 || drawn[1] == 3;
            uint256 before = seatsOf(auditor);
            sealAs(right(jobId, 0)); // whatever it drew
            reveal(right(jobId, 0));
            openCanary(t, w, 4);
            jobs.settle(one(t), one(resultOf(w)));
            assertEq(before - seatsOf(auditor), hasDrawn ? LIE : 0);
            if (hasDrawn) hasMissed = true;
            else hasNotDrawn = true;
        }
    }

    // ----------------------------------------------------------------------------------------------------------------- lying

    function test_an_auditor_that_accuses_and_proves_nothing_is_not_paid_and_loses_stake() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        (uint64 honest, uint64 liar) = (auditorOf(jobId, 0), auditorOf(jobId, 1));
        sealAndReveal(replay(t, w, 0), finding(jobId, 1, IAuditors.Finding.Wrong, 3, keccak256("lie")));
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(stableOf(beneficiaryOf(provider)), PRICE - PRICE / 400);
        assertEq(stableOf(beneficiaryOf(honest)), SHARE);
        assertEq(stableOf(beneficiaryOf(liar)), 0);
        assertEq(seatsOf(liar), AUDIT_SEAT - SILENCE);
        assertEq(seatsOf(honest), AUDIT_SEAT);
    }

    function test_a_lying_auditor_that_goes_to_the_jury_loses_its_bond_to_the_operator() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint64 liar = auditorOf(jobId, 1);
        sealAndReveal(replay(t, w, 0), finding(jobId, 1, IAuditors.Finding.Wrong, 3, keccak256("lie")));
        toTurn(jobId, true);
        uint256 stake = ownActive(provider);
        judge(challenge(t, w, nodeOf(liar), 3), t, w);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        assertEq(bondsOf(nodeOf(liar)), 1_000e18 - BOND);
        assertEq(stableOf(beneficiaryOf(liar)), 0);
        assertEq(stableOf(beneficiaryOf(provider)), PRICE - PRICE / 400);
        assertEq(ownActive(provider), stake);
    }

    // ------------------------------------------------------------------------------------------------------------- collusion

    /// With a share b of the seats all n auditors of a job collude in b^n of all draws, and only then is a forgery not accused.
    function test_colluding_auditors_are_alone_no_more_often_than_their_share_of_the_stake() public {
        uint64[] memory honest = new uint64[](6);
        for (uint256 i; i < 6; ++i) {
            honest[i] = newAuditor(2);
        }
        uint64 colluder = newAuditor(8); // 8 of 5 + 12 + 8 seats under one name: 32 %
        vm.warp(block.timestamp + 1);
        (uint256 alone, uint256 draws) = (0, 150);
        for (uint256 i; i < draws; ++i) {
            uint64[] memory drawn = auditors.draw(keccak256(abi.encode(i)), strictly(1));
            if (drawn[0] == colluder) ++alone;
        }
        assertApproxEqAbs(alone, draws * 8 / 25, 18);
    }

    function test_dividing_stake_among_names_draws_no_more() public {
        uint64[4] memory names;
        for (uint256 i; i < 4; ++i) {
            names[i] = newAuditor(2);
        }
        uint64 single = newAuditor(8);
        vm.warp(block.timestamp + 1);
        (uint256 many, uint256 one_) = (0, 0);
        for (uint256 i; i < 150; ++i) {
            uint64 drawn = auditors.draw(keccak256(abi.encode(i)), strictly(1))[0];
            if (drawn == single) ++one_;
            else if (drawn >= names[0] && drawn <= names[3]) ++many;
        }
        assertApproxEqAbs(many, one_, 32);
    }

    function test_no_auditor_shares_a_key_with_the_operator_backs_it_or_is_the_renter() public {
        uint64 twin = registerOperator(operators.ownerOf(provider), makeAddr("twin")); // the same owner
        depositStake(twin, makeAddr("x"), 1_000e18);
        vm.prank(nodeOf(twin));
        auditors.enrol(twin, 20, ALL_ENGINES);
        uint64 backer = newAuditor(20);
        backStake(provider, beneficiaryOf(backer), 1e18);
        uint64 rentersOwn = registerOperator(makeAddr("y"), renter);
        depositStake(rentersOwn, makeAddr("y"), 1_000e18);
        vm.prank(nodeOf(rentersOwn));
        auditors.enrol(rentersOwn, 20, ALL_ENGINES);
        vm.warp(block.timestamp + 1);
        for (uint256 i; i < 6; ++i) {
            uint64[] memory drawn = auditors.draw(keccak256(abi.encode(i)), strictly(5));
            assertEq(drawn.length, 5); // the five others
            for (uint256 k; k < 5; ++k) {
                assertTrue(drawn[k] != twin && drawn[k] != backer && drawn[k] != rentersOwn && drawn[k] != provider);
            }
        }
    }

    /// All auditors collude: whoever has run the job itself still convicts, and the colluders pay for what they had drawn.
    function test_colluding_auditors_cannot_save_a_forgery_from_anybody_who_has_run_it() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 5);
        bytes32 jobId = toAudit(t, w);
        sealAndReveal(right(jobId, 0), right(jobId, 1));
        toTurn(jobId, false);
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        walk(caseId, w, own);
        show(caseId, t, w);
        assertEq(disputes.caseOf(caseId).segment, 5);
        judge(caseId, t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        for (uint8 i; i < 2; ++i) {
            assertEq(seatsOf(auditorOf(jobId, i)), AUDIT_SEAT - LIE);
            assertEq(stableOf(beneficiaryOf(auditorOf(jobId, i))), 0);
        }
        assertEq(vault.claimableOf(challenger), COLLATERAL * 4 / 10);
        assertHeld();
    }

    function test_one_honest_auditor_of_two_is_enough() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 5);
        bytes32 jobId = toAudit(t, w);
        (uint64 honest, uint64 colluder) = (auditorOf(jobId, 0), auditorOf(jobId, 1));
        sealAndReveal(replay(t, w, 0), right(jobId, 1));
        toTurn(jobId, true);
        judge(challenge(t, w, nodeOf(honest), 5), t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(seatsOf(honest), AUDIT_SEAT);
        assertEq(seatsOf(colluder), AUDIT_SEAT - LIE);
        assertEq(stableOf(beneficiaryOf(honest)), SHARE);
    }

    // -------------------------------------------------------------------------------------------------------------- steering

    /// A job of few base units between friends, drawn by the same randomness.
    function dummyOf(uint8 count) private returns (IComputeJobs.JobTerms memory t) {
        t = termsOf(1, 1, count);
        (t.price, t.auditFee) = (2, uint128(count) * 1_000);
        openJob(t);
        commitResult(t, honestWork(t));
    }

    function drawnOf(IComputeJobs.JobTerms memory t) private view returns (uint64[] memory) {
        bytes32 jobId = jobs.jobIdOf(t);
        bytes32 seed = keccak256(abi.encode("auditors", randomness.valueOf(jobs.seedTimeOf(jobId)), jobId));
        IComputeJobs.Engine engine = IComputeJobs.Engine.Strict;
        return auditors.draw(seed, IAuditors.Wanted(engine, t.auditors, jobs.job(jobId).committedAt, provider, renter));
    }

    /// Once the randomness is known the operator has dummies drawn first, which fill the auditors that it fears: nobody is drawn in their place.
    /// forge-config: default.fuzz.runs = 12
    function testFuzz_dummies_that_are_drawn_first_change_no_draw(bytes32 specHash, uint8 count) public {
        for (uint256 i; i < 7; ++i) {
            newAuditor(1);
        }
        vm.warp(block.timestamp + 1);
        IComputeJobs.JobTerms memory victim = termsOf(1, 1, uint8(bound(count, 1, 3)));
        victim.specHash = specHash;
        JobWork.Work memory w = JobWork.run(victim.specHash, 1, 0);
        bytes32 jobId = openJob(victim);
        IComputeJobs.JobTerms memory dummy = dummyOf(8);
        commitResult(victim, w);
        drawJob(dummy);
        uint64[] memory drawn = drawnOf(victim);
        uint256 full;
        for (uint256 i; i < drawn.length; ++i) {
            if (auditors.auditor(drawn[i]).duties != 0) ++full;
        }
        if (full != 0) {
            vm.expectPartialRevert(IAuditors.Full.selector);
            jobs.drawAuditors(one(victim));
            vm.warp(block.timestamp + 300); // nor is the class lowered when the time to draw is over
            vm.expectPartialRevert(IAuditors.Full.selector);
            jobs.drawAuditors(one(victim));
            settleJobSilent(dummy, honestWork(dummy));
        }
        jobs.drawAuditors(one(victim));
        for (uint8 i; i < drawn.length; ++i) {
            assertEq(auditorOf(jobId, i), drawn[i]);
        }
    }

    // --------------------------------------------------------------------------------------------------------------- silence

    function test_a_job_of_which_no_auditor_speaks_is_paid_but_never_called_replayed() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        uint256 before = stableOf(renter);
        vm.expectEmit(true, false, false, false, address(jobs));
        emit IComputeJobs.JobSettled(jobId, IComputeJobs.Outcome.Right, IComputeJobs.Evidence.ReputationOnly, 0, 0, 0, 0);
        settleJobSilent(t, w);
        assertEq(stableOf(renter) - before, AUDIT_FEE - AUDIT_FEE / 100);
        assertEq(stableOf(beneficiaryOf(provider)), PRICE - PRICE / 400);
        assertEq(jobs.probationOf(provider), 10);
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT);
        assertHeld();
    }

    /// Terms ask of eight auditors what no machine can do in the time: they keep their stake and their seats.
    function test_who_asks_the_impossible_of_all_its_auditors_takes_nobodys_stake() public {
        for (uint256 i; i < 3; ++i) {
            newAuditor(1);
        }
        vm.warp(block.timestamp + 1);
        IComputeJobs.JobTerms memory t = termsOf(1, 1, 8);
        (t.price, t.auditFee, t.auditSeconds, t.runSeconds) = (2, 8 * 1_000, 10, 1 days);
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        settleJobSilent(t, w);
        for (uint8 i; i < 8; ++i) {
            assertEq(seatsOf(auditorOf(jobId, i)), AUDIT_SEAT);
            assertEq(auditors.auditor(auditorOf(jobId, i)).seats, 1);
            assertEq(stableOf(beneficiaryOf(auditorOf(jobId, i))), 0); // who is silent earns nothing
        }
    }

    /// Its lazy twin is silent about what another one could audit.
    function test_who_is_silent_while_another_speaks_pays_for_it() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        sealAs(replay(t, w, 0));
        vm.warp(block.timestamp + AUDIT_SECONDS);
        reveal(replay(t, w, 0));
        settleJob(t, w);
        assertEq(stableOf(beneficiaryOf(auditorOf(jobId, 0))), SHARE);
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT);
        assertEq(seatsOf(auditorOf(jobId, 1)), AUDIT_SEAT - SILENCE);
    }

    function settleJobSilent(IComputeJobs.JobTerms memory t, JobWork.Work memory w) private {
        vm.warp(block.timestamp + AUDIT_SECONDS + 60 + CHALLENGE_SECONDS);
        settleJob(t, w);
    }
}
