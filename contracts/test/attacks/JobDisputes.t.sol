// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IJobDisputes} from "../../src/compute/IJobDisputes.sol";
import {JobsFixture} from "../compute/jobs-fixture.sol";
import {JobWork} from "../compute/jobs-work.sol";

/// @notice Challengers and operators that do not want the truth found, each beside one that does.
contract JobDisputesAttack is JobsFixture {
    using JobWork for JobWork.Work;

    /// An honest result whose auditors found it right; anybody may challenge now.
    function honestJob() private returns (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) {
        t = wholeTerms();
        w = honestWork(t);
        jobId = toWindow(t, w);
        toTurn(jobId, false);
    }

    /// A result with one forged segment which colluding auditors found right.
    function forgedJob(uint32 wrong) private returns (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) {
        t = wholeTerms();
        w = JobWork.run(t.specHash, t.segments, wrong);
        jobId = toAudit(t, w);
        sealAndReveal(right(jobId, 0), right(jobId, 1));
        toTurn(jobId, false);
    }

    // -------------------------------------------------------------------------------------------------------------- griefing

    function test_a_griefing_challenger_pays_the_operator_each_time_and_delays_only_its_money() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = honestJob();
        uint256 stake = ownActive(provider);
        uint256[3] memory cases;
        for (uint32 i; i < 3; ++i) {
            cases[i] = challenge(t, w, challenger, i);
        }
        vm.warp(block.timestamp + CHALLENGE_SECONDS);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.CasesOpen.selector, jobId, 3));
        jobs.settle(one(t), one(resultOf(w)));
        for (uint256 i; i < 3; ++i) {
            draw(disputes.caseOf(cases[i]).disputeId);
        }
        for (uint256 i; i < 3; ++i) {
            voteAll(disputes.caseOf(cases[i]).disputeId, 2);
        }
        for (uint256 i; i < 3; ++i) {
            toFinal(disputes.caseOf(cases[i]).disputeId);
            jury.execute(disputes.caseOf(cases[i]).disputeId);
        }
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(bondsOf(beneficiaryOf(provider)), 3 * BOND);
        assertEq(bondsOf(challenger), 1_000e18 - 3 * BOND);
        assertEq(stableOf(beneficiaryOf(provider)), PRICE - PRICE / 400);
        assertEq(ownActive(provider), stake);
        assertEq(bondsOf(address(disputes)), 0);
    }

    function test_a_griefer_cannot_open_a_case_when_the_window_is_over_or_before_its_turn() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toWindow(t, w);
        (, uint48 until) = jobs.phaseOf(jobId);
        uint256 fee = disputes.juryFee();
        vm.startPrank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotYours.selector, jobId, block.timestamp + 2 * GRACE, block.timestamp));
        disputes.challengeRoot{value: fee}(t, resultOf(w), "other");
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.TooLate.selector, jobId, until, until));
        disputes.challengeRoot{value: fee}(t, resultOf(w), "other");
        vm.stopPrank();
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
    }

    /// Its other commitment is honest but for one segment: the walk leads there, and the jury finds the operator's right.
    function test_a_challenger_with_a_forged_commitment_is_led_to_its_own_forgery() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = honestJob();
        JobWork.Work memory forged = JobWork.run(t.specHash, t.segments, 2);
        uint256 caseId = challengeRoot(t, w, challenger, forged.root());
        walk(caseId, w, forged);
        assertEq(disputes.caseOf(caseId).index, 3); // the first leaf that differs
        show(caseId, t, w);
        judge(caseId, t, w);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        assertEq(stableOf(beneficiaryOf(provider)), PRICE - PRICE / 400);
    }

    function test_nobody_steers_the_walk_by_children_that_are_not_its_trees() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w,) = forgedJob(5);
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        bytes32[] memory children = w.childrenOf(4, 0, 4);
        children[7] = own.childrenOf(4, 0, 4)[7];
        address node = nodeOf(provider);
        vm.prank(node);
        vm.expectPartialRevert(IJobDisputes.WrongChildren.selector);
        disputes.openNode(caseId, children);
        bytes32[] memory theirs = openNodes(caseId, w);
        bytes32[] memory mine = own.childrenOf(4, 0, 4);
        mine[3] = keccak256("elsewhere");
        vm.startPrank(challenger);
        vm.expectPartialRevert(IJobDisputes.WrongChildren.selector);
        disputes.openOwnNode(caseId, mine, theirs);
        mine = own.childrenOf(4, 0, 4);
        theirs[7] = mine[7];
        vm.expectPartialRevert(IJobDisputes.WrongChildren.selector); // not what the operator has shown
        disputes.openOwnNode(caseId, mine, theirs);
        vm.stopPrank();
    }

    /// Leaves beyond the last are zero words.
    function test_who_commits_to_something_beyond_the_last_leaf_loses() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = honestJob();
        JobWork.Work memory odd = honestWork(t);
        growTail(odd);
        uint256 caseId = challengeRoot(t, w, challenger, odd.root());
        openOwn(caseId, odd, openNodes(caseId, w));
        assertEq(uint8(disputes.caseOf(caseId).state), uint8(IJobDisputes.State.Closed));
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);

        IComputeJobs.JobTerms memory u = wholeTerms();
        odd = honestWork(u);
        growTail(odd);
        jobId = toWindow(u, odd);
        toTurn(jobId, false);
        JobWork.Work memory own = honestWork(u);
        caseId = challengeRoot(u, odd, challenger, own.root());
        openOwn(caseId, own, openNodes(caseId, odd));
        assertTrue(jobs.job(jobId).guilty);
    }

    function growTail(JobWork.Work memory w) private pure {
        w.nodes[16 + 12] = keccak256("tail");
        for (uint256 i = 15; i > 0; --i) {
            w.nodes[i] = keccak256(abi.encodePacked(bytes1(0x01), w.nodes[2 * i], w.nodes[2 * i + 1]));
        }
    }

    // -------------------------------------------------------------------------------------------------------------- time out

    function test_an_operator_that_does_not_move_is_guilty() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = forgedJob(5);
        uint256 caseId = challengeRoot(t, w, challenger, honestWork(t).root());
        vm.expectPartialRevert(IJobDisputes.MoveStillOpen.selector);
        disputes.expire(caseId);
        vm.warp(block.timestamp + MOVE);
        bytes32[] memory children = w.childrenOf(4, 0, 4);
        address node = nodeOf(provider);
        vm.prank(node);
        vm.expectPartialRevert(IJobDisputes.MoveTooLate.selector);
        disputes.openNode(caseId, children);
        disputes.expire(caseId); // by anybody
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(bondsOf(challenger), 1_000e18);
        assertEq(disputes.coinsOf(challenger), disputes.juryFee());
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT); // which segment it was, nobody knows
    }

    function test_an_operator_that_does_not_show_its_leaves_is_guilty() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = forgedJob(5);
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        walk(caseId, w, own);
        vm.warp(block.timestamp + MOVE);
        disputes.expire(caseId);
        assertTrue(jobs.job(jobId).guilty);
    }

    function test_a_challenger_that_does_not_move_loses_its_bond_and_its_honest_operator_nothing() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = honestJob();
        uint256 stake = ownActive(provider);
        uint256 caseId = challengeRoot(t, w, challenger, "thin air");
        openNodes(caseId, w);
        vm.warp(block.timestamp + MOVE);
        disputes.expire(caseId);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
        assertEq(ownActive(provider), stake);
        uint256 coins = challenger.balance;
        disputes.withdraw(challenger); // the jury was not called
        assertEq(challenger.balance - coins, 3 * FEE);
    }

    // -------------------------------------------------------------------------------------------------------- self-challenge

    /// Caught anyway, it convicts itself through another name, to save the reward: it loses half, the renter's part, and the price.
    function test_an_operator_that_convicts_itself_loses_more_than_half_of_its_collateral() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = forgedJob(5);
        address shill = challenger;
        uint256 stake = ownActive(provider);
        uint256 caseId = challenge(t, w, shill, 5);
        judge(caseId, t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        uint256 lost = stake - ownActive(provider) - vault.claimableOf(shill);
        assertEq(lost, COLLATERAL * 6 / 10);
        assertEq(stableOf(beneficiaryOf(provider)), 0);
    }

    /// Where an auditor has found the forgery, the operator's other name comes too late for the reward.
    function test_no_other_name_of_the_operator_takes_the_reward_before_an_auditor() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 5);
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, true);
        uint256 fee = disputes.juryFee();
        (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(5), w.proofOf(6));
        vm.prank(challenger);
        vm.expectPartialRevert(IComputeJobs.NotYours.selector);
        disputes.challengeSegment{value: fee}(t, resultOf(w), w.leaves[5], a, w.leaves[6], b, "");
        address auditor = nodeOf(auditorOf(jobId, 1));
        judge(challenge(t, w, auditor, 5), t, w);
        settleJob(t, w);
        assertEq(vault.claimableOf(auditor), COLLATERAL * 4 / 10);
    }

    /// A case on a right segment, lost on purpose, and one that is let run out, end themselves and nothing else.
    function test_cases_that_the_operators_friend_loses_do_not_shield_a_forgery() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = forgedJob(5);
        JobWork.Work memory own = honestWork(t);
        address friend = makeAddr("friend");
        fundAccuser(friend);
        uint256 right_ = challenge(t, w, friend, 1);
        uint256 stale = challengeRoot(t, w, friend, "friend");
        uint256 honest = challengeRoot(t, w, challenger, own.root());
        openNodes(stale, w);
        openOwn(honest, own, openNodes(honest, w));
        show(honest, t, w);
        vm.warp(block.timestamp + MOVE);
        disputes.expire(stale);
        judge(right_, t, w);
        judge(honest, t, w);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
        assertEq(bondsOf(challenger), 1_000e18);
    }

    /// The friend brings the wrong segment itself before the jury: it is judged all the same, and the honest case waits or ends without loss.
    function test_a_friend_that_brings_the_wrong_segment_first_convicts_the_operator() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = forgedJob(5);
        JobWork.Work memory own = honestWork(t);
        address friend = makeAddr("friend");
        fundAccuser(friend);
        uint256 first = challenge(t, w, friend, 5);
        uint256 honest = challengeRoot(t, w, challenger, own.root());
        walk(honest, w, own);
        show(honest, t, w);
        assertEq(uint8(disputes.caseOf(honest).state), uint8(IJobDisputes.State.Waiting));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.AlreadyBeforeJury.selector, jobId, 5));
        disputes.callJury(honest);
        judge(first, t, w);
        disputes.expire(honest); // at once: the job is decided
        assertEq(bondsOf(challenger), 1_000e18);
        jobs.settle(one(t), one(resultOf(w)));
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
    }

    // ------------------------------------------------------------------------------------------------------------------ jury

    /// Jurors leave after the job was opened: nobody is punished for what no court could decide.
    function test_where_no_jury_can_be_had_nobody_loses() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.run(t.specHash, t.segments, 5);
        bytes32 jobId = toWindow(t, w);
        for (uint64 id = 1; id <= operators.operatorCount(); ++id) {
            if (jury.juror(id).seats == 0) continue;
            vm.prank(operators.nodeKeyOf(id));
            jury.leave(id, 1);
        }
        toTurn(jobId, true);
        address accuser = nodeOf(auditorOf(jobId, 0));
        uint256 caseId = challenge(t, w, accuser, 5);
        assertEq(uint8(disputes.caseOf(caseId).state), uint8(IJobDisputes.State.Waiting));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NoJury.selector, caseId));
        disputes.callJury(caseId);
        vm.warp(block.timestamp + MOVE);
        disputes.expire(caseId);
        assertEq(bondsOf(accuser), 1_000e18);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(collateralOf(provider), 0);
        assertEq(seatsOf(auditorOf(jobId, 0)), AUDIT_SEAT);
        assertEq(seatsOf(auditorOf(jobId, 1)), AUDIT_SEAT);
        assertEq(jobs.probationOf(provider), 10); // nobody found it right
    }

    function test_a_refused_ruling_costs_nobody_and_an_appeal_can_mend_it() public {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = forgedJob(5);
        uint256 caseId = challenge(t, w, challenger, 5);
        uint256 disputeId = disputes.caseOf(caseId).disputeId;
        draw(disputeId);
        voteAll(disputeId, 2); // a bribed round
        newJuror(1);
        newJuror(1);
        newJuror(1);
        vm.warp(block.timestamp + 1);
        uint256 cost = jury.appealCost(disputeId, "");
        vm.prank(challenger);
        disputes.appeal{value: cost}(caseId);
        draw(disputeId);
        voteAll(disputeId, 1);
        toFinal(disputeId);
        jury.execute(disputeId);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);

        (t, w, jobId) = honestJob();
        ruleBy(challenge(t, w, challenger, 5), 0);
        settleJob(t, w);
        assertOutcome(jobId, IComputeJobs.Outcome.Right);
        assertEq(bondsOf(challenger), 1_000e18);
        assertEq(bondsOf(beneficiaryOf(provider)), 0);
    }

    function test_two_guilty_verdicts_slash_once() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = JobWork.makeUp(t.specHash, t.segments);
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, false);
        uint256 first = challenge(t, w, nodeOf(auditorOf(jobId, 0)), 2);
        uint256 second = challenge(t, w, challenger, 3);
        uint256 stake = ownActive(provider);
        judge(first, t, w);
        jobs.settle(one(t), one(resultOf(w)));
        judge(second, t, w); // after the settlement
        assertEq(ownActive(provider), stake - COLLATERAL);
        assertEq(vault.claimableOf(challenger), 0);
        assertEq(bondsOf(challenger), 1_000e18);
        assertEq(jobs.job(jobId).openCases, 0);
    }

    function test_only_the_jury_rules() public {
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotArbitrator.selector, address(this)));
        disputes.rule(1, 1);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotACourt.selector, address(this)));
        jobs.openCase("job", address(this), IComputeJobs.Matter.Segment);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotACourt.selector, address(this)));
        jobs.closeCase("job", address(this), IComputeJobs.Verdict.Guilty, 0, false, 0);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotAuditors.selector, address(this)));
        jobs.noteSealed("job");
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.NotAuditors.selector, address(this)));
        jobs.noteRevealed("job");
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotComputeJobs.selector, address(this)));
        auditors.assign("job", 0, strictly(1));
    }
}
