// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IJobDisputes} from "../../src/compute/IJobDisputes.sol";
import {IStateDemands} from "../../src/compute/IStateDemands.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {deployJobDisputes, deployStateDemands} from "../deploy/compute.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice What the two courts of jobs accept and refuse.
contract JobCourtsTest is JobsFixture {
    using JobWork for JobWork.Work;

    IComputeJobs.JobTerms private t;
    bytes32 private jobId;
    uint256 private fee;

    function setUp() public override {
        super.setUp();
        t = wholeTerms();
        fee = disputes.juryFee();
    }

    /// A forged segment 5 that auditors found right; anybody may challenge now.
    function forged() private returns (JobWork.Work memory w) {
        w = JobWork.run(t.specHash, t.segments, 5);
        jobId = toAudit(t, w);
        sealAndReveal(right(jobId, 0), right(jobId, 1));
        toTurn(jobId, false);
    }

    // --------------------------------------------------------------------------------------------------------------- disputes

    function test_a_challenge_names_two_neighbouring_leaves_of_the_commitment_and_pays_the_jury() public {
        JobWork.Work memory w = forged();
        IComputeJobs.Result memory r = resultOf(w);
        (bytes32[] memory a, bytes32[] memory b, bytes32[] memory c) = (w.proofOf(5), w.proofOf(6), w.proofOf(7));
        vm.startPrank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.FeeMissing.selector, 0, fee));
        disputes.challengeSegment(t, r, w.leaves[5], a, w.leaves[6], b, "");
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotNeighbours.selector, 5, 7));
        disputes.challengeSegment{value: fee}(t, r, w.leaves[5], a, w.leaves[7], c, "");
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.LeafNotInRoot.selector, 6));
        disputes.challengeSegment{value: fee}(t, r, w.leaves[5], a, w.leaves[6], c, "");
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.LeafNotInRoot.selector, 5));
        disputes.challengeSegment{value: fee}(t, r, w.leaves[5], new bytes32[](3), w.leaves[6], b, "");
        Segments.Leaf memory beyond = Segments.Leaf(9, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.LeafNotInRoot.selector, 9));
        disputes.challengeSegment{value: fee}(t, r, w.leaves[5], a, beyond, b, "");
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.WrongResult.selector, jobId));
        disputes.challengeSegment{value: fee}(t, IComputeJobs.Result("x", "y"), w.leaves[5], a, w.leaves[6], b, "");
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.EvidenceTooLong.selector, 2_049, 2_048));
        disputes.challengeSegment{value: fee}(t, r, w.leaves[5], a, w.leaves[6], b, string(new bytes(2_049)));
        uint256 caseId = disputes.challengeSegment{value: fee}(t, r, w.leaves[5], a, w.leaves[6], b, "ipfs://evidence");
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.AlreadyBeforeJury.selector, jobId, 5));
        disputes.challengeSegment{value: fee}(t, r, w.leaves[5], a, w.leaves[6], b, "");
        vm.stopPrank();
        IJobDisputes.Case memory k = disputes.caseOf(caseId);
        assertEq(k.segment, 5);
        assertEq(k.coins, 0);
        disputes.submitEvidence(caseId, "more");
        vm.expectRevert(
            abi.encodeWithSelector(IJobDisputes.WrongState.selector, caseId, IJobDisputes.State.Judged, IJobDisputes.State.OperatorOpens)
        );
        disputes.expire(caseId); // the jury has it
        judge(caseId, t, w);
        vm.expectRevert(
            abi.encodeWithSelector(IJobDisputes.WrongState.selector, caseId, IJobDisputes.State.Closed, IJobDisputes.State.Judged)
        );
        disputes.submitEvidence(caseId, "too late");
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.WrongState.selector, 99, IJobDisputes.State.None, IJobDisputes.State.Judged));
        disputes.submitEvidence(99, "no such case");
        assertEq(disputes.config().bond, BOND);
    }

    function test_another_commitment_is_another() public {
        JobWork.Work memory w = forged();
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.SameRoot.selector, w.root()));
        disputes.challengeRoot{value: fee}(t, resultOf(w), w.root());
    }

    function test_moves_are_made_by_whose_turn_it_is_and_in_their_order() public {
        JobWork.Work memory w = forged();
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        (bytes32[] memory theirs, bytes32[] memory mine) = (w.childrenOf(4, 0, 4), own.childrenOf(4, 0, 4));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotYourMove.selector, caseId, address(this)));
        disputes.openNode(caseId, theirs);
        vm.prank(challenger);
        vm.expectRevert(
            abi.encodeWithSelector(
                IJobDisputes.WrongState.selector, caseId, IJobDisputes.State.OperatorOpens, IJobDisputes.State.ChallengerOpens
            )
        );
        disputes.openOwnNode(caseId, mine, theirs);
        address node = nodeOf(provider);
        vm.prank(node);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.WrongChildCount.selector, 8, 16));
        disputes.openNode(caseId, new bytes32[](8));
        openNodes(caseId, w);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotYourMove.selector, caseId, address(this)));
        disputes.openOwnNode(caseId, mine, theirs);
        openOwn(caseId, own, theirs);
        assertEq(disputes.caseOf(caseId).index, 6);
        (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(5), w.proofOf(6));
        IComputeJobs.Result memory r = resultOf(w);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotYourMove.selector, caseId, address(this)));
        disputes.show(caseId, t, r, w.leaves[5], a, w.leaves[6], b);
        vm.startPrank(node);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotNeighbours.selector, 6, 6));
        disputes.show(caseId, t, r, w.leaves[6], b, w.leaves[6], b);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.LeafNotInRoot.selector, 6));
        disputes.show(caseId, t, r, w.leaves[5], a, own.leaves[6], b);
        vm.stopPrank();
        expectOtherJobsTermsRefused(caseId, w);
        show(caseId, t, w);
        vm.expectRevert(
            abi.encodeWithSelector(IJobDisputes.WrongState.selector, caseId, IJobDisputes.State.Judged, IJobDisputes.State.Waiting)
        );
        disputes.callJury(caseId);
    }

    /// Those of another job with the same result.
    function expectOtherJobsTermsRefused(uint256 caseId, JobWork.Work memory w) private {
        IComputeJobs.JobTerms memory other = t;
        other.nonce = 77;
        openJob(other);
        commitResult(other, w);
        (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(5), w.proofOf(6));
        address node = nodeOf(provider);
        vm.prank(node);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.WrongResult.selector, jobId));
        disputes.show(caseId, other, resultOf(w), w.leaves[5], a, w.leaves[6], b);
    }

    /// The other commitment differs in the first state already: segment 0 answers for it.
    function test_who_differs_in_the_first_leaf_is_led_to_segment_0() public {
        JobWork.Work memory w = honestWork(t);
        w.states[0] = keccak256("another beginning");
        for (uint32 i; i < t.segments; ++i) {
            w.states[i + 1] = JobWork.step(t.specHash, i, w.states[i]);
        }
        w.commitTo();
        jobId = toAudit(t, w);
        sealAndReveal(right(jobId, 0), right(jobId, 1));
        toTurn(jobId, false);
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        walk(caseId, w, own);
        assertEq(disputes.caseOf(caseId).index, 0);
        show(caseId, t, w);
        assertEq(disputes.caseOf(caseId).segment, 0);
        judge(caseId, t, w);
        assertTrue(jobs.job(jobId).guilty);
    }

    /// An operator whose shown leaves do not follow from one another is guilty without a jury; so is the first leaf's h.
    function test_leaves_that_are_shown_must_follow_from_one_another() public {
        JobWork.Work memory w = honestWork(t);
        w.leaves[6].chainHash = "not h";
        w.plant();
        jobId = toAudit(t, w);
        sealAndReveal(right(jobId, 0), right(jobId, 1));
        toTurn(jobId, false);
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        walk(caseId, w, own);
        show(caseId, t, w);
        assertEq(uint8(disputes.caseOf(caseId).state), uint8(IJobDisputes.State.Closed));
        assertTrue(jobs.job(jobId).guilty);
        assertEq(disputes.coinsOf(challenger), fee);
        disputes.withdraw(challenger);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NothingOwed.selector, challenger));
        disputes.withdraw(challenger);
    }

    function test_a_first_leaf_with_another_h_convicts() public {
        JobWork.Work memory w = honestWork(t);
        w.leaves[0].chainHash = "not h";
        w.leaves[1].chainHash = Segments.nextChainHash(t.specHash, 1, "not h", w.leaves[1].stateHash);
        w.plant();
        jobId = toWindow(t, w);
        toTurn(jobId, false);
        (bytes32[] memory a, bytes32[] memory b, bytes32[] memory c) = (w.proofOf(0), w.proofOf(1), w.proofOf(3));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.NotNeighbours.selector, 0, 3));
        disputes.proveBrokenChain(t, resultOf(w), w.leaves[0], a, w.leaves[3], c);
        disputes.proveBrokenChain(t, resultOf(w), w.leaves[0], a, w.leaves[1], b);
        assertTrue(jobs.job(jobId).guilty);
    }

    /// A case that waits for a jury gets one as soon as the segment is free or jurors are there.
    function test_a_waiting_case_calls_the_jury_when_it_can() public {
        JobWork.Work memory w = forged();
        JobWork.Work memory own = honestWork(t);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        walk(caseId, w, own);
        uint64 left;
        for (uint64 id = 1; id <= operators.operatorCount(); ++id) {
            if (jury.juror(id).seats == 0 || jury.jurorCount() < 3) continue;
            vm.prank(operators.nodeKeyOf(id));
            jury.leave(id, 1);
            left = id;
        }
        show(caseId, t, w);
        assertEq(uint8(disputes.caseOf(caseId).state), uint8(IJobDisputes.State.Waiting));
        enrol(left, 1);
        vm.warp(block.timestamp + 1);
        disputes.callJury(caseId);
        assertEq(disputes.caseOf(caseId).coins, 0);
        judge(caseId, t, w);
        assertTrue(jobs.job(jobId).guilty);
    }

    receive() external payable {
        revert("no coins");
    }

    function test_coins_that_an_account_refuses_stay_its_own() public {
        JobWork.Work memory w = forged();
        fundAccuser(address(this));
        uint256 caseId = disputes.challengeRoot{value: fee}(t, resultOf(w), "other");
        vm.warp(block.timestamp + MOVE);
        disputes.expire(caseId);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.CoinsRefused.selector, address(this), fee));
        disputes.withdraw(address(this));
        assertEq(disputes.coinsOf(address(this)), fee);
    }

    function test_a_job_that_nobody_audits_has_no_cases() public {
        IComputeJobs.JobTerms memory n = termsOf(0, 0, 0);
        (n.auditFee, n.collateral, n.segments) = (0, 0, 1);
        setClass(n, IComputeJobs.Determinism.None, IComputeJobs.Engine.None);
        bytes32 id = openJob(n);
        JobWork.Work memory w = JobWork.run(n.specHash, 1, JobWork.NONE);
        commitResult(n, w);
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, id, IComputeJobs.Phase.Window, IComputeJobs.Phase.Window));
        disputes.challengeRoot{value: fee}(n, resultOf(w), "other");
    }

    // ---------------------------------------------------------------------------------------------------------------- demands

    function test_a_demand_is_for_a_leaf_of_a_job_under_audit() public {
        JobWork.Work memory w = honestWork(t);
        jobId = openJob(t);
        commitResult(t, w);
        IComputeJobs.Result memory r = resultOf(w);
        vm.startPrank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.UnknownLeaf.selector, 9, 8));
        demands.demand(t, r, 9);
        vm.expectRevert(
            abi.encodeWithSelector(IComputeJobs.WrongPhase.selector, jobId, IComputeJobs.Phase.Committed, IComputeJobs.Phase.Window)
        );
        demands.demand(t, r, 8);
        vm.stopPrank();
        drawJob(t);
        vm.prank(challenger);
        uint64 id = demands.demand(t, r, 8);
        assertEq(id, demands.demandCount());
        (bytes32[] memory proof, bytes32[] memory other) = (w.proofOf(8), w.proofOf(7));
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.NotDrawn.selector, id));
        demands.confirm(id, t, r, w.leaves[8], proof, new bytes[](3));
        vm.expectRevert(); // no randomness yet
        demands.drawMembers(id);
        uint64 seedTime = demands.demandOf(id).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        demands.drawMembers(id);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.AlreadyDrawn.selector, id));
        demands.drawMembers(id);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.WrongCount.selector, 2, 3));
        demands.confirm(id, t, r, w.leaves[8], proof, new bytes[](2));
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.LeafNotInRoot.selector, 7));
        demands.confirm(id, t, r, w.leaves[7], other, new bytes[](3));
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.LeafNotInRoot.selector, 8));
        demands.confirm(id, t, r, w.leaves[8], other, new bytes[](3));
        IComputeJobs.JobTerms memory twin = t;
        twin.nonce = 78;
        openJob(twin);
        commitResult(twin, w);
        vm.expectRevert(abi.encodeWithSelector(IComputeJobs.WrongResult.selector, jobId));
        demands.confirm(id, twin, r, w.leaves[8], proof, new bytes[](3));
        uint48 until = demands.demandOf(id).deliverUntil;
        vm.warp(until);
        bytes memory file = JobWork.fileOf(w.states[8]);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.DemandTooLate.selector, id, until, until));
        demands.deliver(id, t, r, w.leaves[8], proof, file);
        demands.expire(id);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.DemandClosed.selector, id));
        demands.expire(id);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.UnknownDemand.selector, 99));
        demands.expire(99);
        assertEq(demands.config().members, 3);
    }

    function test_a_committee_is_drawn_in_its_time_or_not_at_all() public {
        JobWork.Work memory w = honestWork(t);
        toWindow(t, w);
        vm.prank(challenger);
        uint64 id = demands.demand(t, resultOf(w), 8);
        uint256 until = uint256(demands.demandOf(id).seedTime) + 100;
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(IStateDemands.DemandTooLate.selector, id, until, until));
        demands.drawMembers(id);
    }

    /// The hash of what is no strict state is the hash of its bytes.
    function test_a_state_that_is_not_strict_is_delivered_as_its_bytes() public {
        (t.determinism, t.engine) = (IComputeJobs.Determinism.Fingerprint, IComputeJobs.Engine.Module);
        JobWork.Work memory w = honestWork(t);
        bytes32[] memory hashes = new bytes32[](9);
        for (uint256 i; i < 9; ++i) {
            hashes[i] = sha256(abi.encode(w.states[i]));
        }
        w.commitToHashes(hashes);
        jobId = toAudit(t, w);
        vm.prank(challenger);
        uint64 id = demands.demand(t, resultOf(w), 8);
        bytes32[] memory proof = w.proofOf(8);
        demands.deliver(id, t, resultOf(w), w.leaves[8], proof, abi.encode(w.states[8])); // without a committee
        assertEq(bondsOf(beneficiaryOf(provider)), BOND);
    }

    // ---------------------------------------------------------------------------------------------------------------- config

    function makeDisputes(uint128 bond, uint32 moveSeconds) external {
        deployJobDisputes(IJobDisputes.Config(bond, moveSeconds), jobs);
    }

    function makeDemands(IStateDemands.Config memory c) external {
        deployStateDemands(c, jobs);
    }

    function test_configurations_that_could_not_work_are_refused() public {
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.BadConfig.selector, "bond", 0, 1));
        this.makeDisputes(0, 1);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.BadConfig.selector, "moveSeconds", 0, 30 days));
        this.makeDisputes(1, 0);
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.BadConfig.selector, "bond", 0, 1));
        this.makeDemands(IStateDemands.Config(0, 1, 3, 1, 1, 1, 1, 1));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.BadConfig.selector, "fee", 0, type(uint96).max));
        this.makeDemands(IStateDemands.Config(1, 0, 3, 1, 1, 1, 1, 1));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.BadConfig.selector, "members", 4, 31));
        this.makeDemands(IStateDemands.Config(1, 1, 4, 1, 1, 1, 1, 1));
        vm.expectRevert(abi.encodeWithSelector(IJobDisputes.BadConfig.selector, "deliverSeconds", 0, 30 days));
        this.makeDemands(IStateDemands.Config(1, 1, 3, 1, 1, 1, 0, 1));
    }
}
