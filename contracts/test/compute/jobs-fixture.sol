// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Auditors} from "../../src/compute/Auditors.sol";
import {ComputeJobs} from "../../src/compute/ComputeJobs.sol";
import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IJobDisputes} from "../../src/compute/IJobDisputes.sol";
import {IStateDemands} from "../../src/compute/IStateDemands.sol";
import {JobDisputes} from "../../src/compute/JobDisputes.sol";
import {JobRules} from "../../src/compute/JobRules.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {StateDemands} from "../../src/compute/StateDemands.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {deployAuditors, deployComputeJobs, deployJobDisputes, deployJobRules, deployStateDemands} from "../deploy/compute.sol";
import {deployDevStable, deployNetworkToken} from "../deploy/token.sol";
import {JuryFixture} from "../governance/jury-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice The contracts of jobs over the real jury, vault, rails and randomness: an operator, a renter, auditors and jurors with a seat each.
abstract contract JobsFixture is JuryFixture {
    using JobWork for JobWork.Work;

    uint128 internal constant PRICE = 100e6;
    uint128 internal constant AUDIT_FEE = 4e6;
    uint128 internal constant COLLATERAL = 20e18;
    uint128 internal constant AUDIT_SEAT = 6e18;
    uint128 internal constant LIE = 4e18;
    uint128 internal constant SILENCE = 1e18;
    uint128 internal constant BOND = 3e18;
    uint128 internal constant MEMBER_FEE = 1e17;
    uint32 internal constant GRACE = 30;
    uint32 internal constant AUDIT_SECONDS = 120;
    uint32 internal constant CHALLENGE_SECONDS = 300;
    uint32 internal constant MOVE = 60;
    uint256 internal constant FUNDS = 1_000_000e6;
    bytes32 internal constant CANARY_SALT = keccak256("canary");

    NetworkToken internal native;
    DevStable internal stable;
    Auditors internal auditors;
    JobRules internal rules;
    ComputeJobs internal jobs;
    JobDisputes internal disputes;
    StateDemands internal demands;
    address internal auction = makeAddr("auction");
    address internal renter;
    uint256 internal renterSecret;
    uint64 internal provider;
    address internal challenger = makeAddr("challenger");
    uint256 internal nonces;
    uint8 internal constant STRICT = 0x02;
    uint8 internal constant MODULE = 0x04;
    uint8 internal constant IMAGE = 0x08;
    uint8 internal constant ALL_ENGINES = STRICT | MODULE | IMAGE;

    function setUp() public virtual override {
        super.setUp();
        native = deployNetworkToken("Test Compute", "TCO", 800_000_000e18);
        stable = deployDevStable();
        auditors = deployAuditors(auditorsConfig(), registry, operators, vault);
        rules = deployJobRules(jobsConfig(), auditors, jury, address(stable));
        jobs = deployComputeJobs(registry, rules, randomness, rails, address(native), auction);
        disputes = deployJobDisputes(IJobDisputes.Config(BOND, MOVE), jobs);
        demands = deployStateDemands(IStateDemands.Config(BOND, MEMBER_FEE, 3, 10, 5, 100, 200, 1_024), jobs);
        registry.set("auditors", address(auditors), true);
        registry.set("computeJobs", address(jobs), true);
        registry.set("jobDisputes", address(disputes), false);
        registry.set("stateDemands", address(demands), false);
        (renter, renterSecret) = makeAddrAndKey("renter");
        fundRenter(renter);
        provider = newProvider("provider");
        fundAccuser(challenger);
        for (uint256 i; i < 5; ++i) {
            newAuditor(1);
        }
        addJurors(5); // and a second passes
    }

    function auditorsConfig() internal pure returns (IAuditors.Config memory) {
        return IAuditors.Config(AUDIT_SEAT, LIE, SILENCE, 1_000);
    }

    function jobsConfig() internal pure virtual returns (IComputeJobs.Config memory c) {
        c.collateralMin = [uint128(0), 1e18, 1e18, 1e18];
        (c.nativeSegmentFeeMin, c.stableSegmentFeeMin) = (1e15, 1_000);
        (c.latePenaltyBps, c.rewardBps, c.compensationBps, c.makerBps) = (1_000, 4_000, 1_000, 5_000);
        (c.jurorsMin, c.auditorsMin) = (3, 3);
        (c.drawDelay, c.seedQuantum, c.drawSeconds, c.openSeconds, c.graceSeconds) = (10, 5, 300, 60, GRACE);
        (c.runSecondsMax, c.auditSecondsMin, c.auditSecondsMax) = (1 days, 10, 600);
        (c.challengeSecondsMin, c.challengeSecondsMax) = (90, 3_600);
    }

    // ---------------------------------------------------------------------------------------------------------------- people

    function newProvider(string memory name) internal returns (uint64 operatorId) {
        operatorId = registerOperator(makeAddr(name), makeAddr(string.concat(name, " beneficiary")));
        depositStake(operatorId, makeAddr(name), 100 * COLLATERAL);
    }

    function newAuditor(uint32 seats) internal returns (uint64 operatorId) {
        return newAuditor(seats, ALL_ENGINES);
    }

    /// An auditor can pay bonds and the jury.
    function newAuditor(uint32 seats, uint8 engines) internal returns (uint64 operatorId) {
        string memory name = string.concat("auditor ", vm.toString(operators.operatorCount() + 1));
        operatorId = registerOperator(makeAddr(name), makeAddr(string.concat(name, " beneficiary")));
        depositStake(operatorId, makeAddr(name), 100 * uint256(AUDIT_SEAT) * seats);
        vm.prank(nodeOf(operatorId));
        auditors.enrol(operatorId, seats, engines);
        fundAccuser(nodeOf(operatorId));
    }

    function fundRenter(address account) internal {
        native.mint(account, FUNDS * 1e12);
        stable.mint(account, FUNDS);
        vm.startPrank(account);
        native.approve(address(rails), type(uint256).max);
        stable.approve(address(rails), type(uint256).max);
        rails.deposit(address(native), account, FUNDS * 1e12);
        rails.deposit(address(stable), account, FUNDS);
        rails.approve(address(jobs), address(native), type(uint256).max);
        rails.approve(address(jobs), address(stable), type(uint256).max);
        vm.stopPrank();
    }

    function fundAccuser(address account) internal {
        token.mint(account, 1_000e18);
        vm.deal(account, 100e18);
        vm.startPrank(account);
        token.approve(address(rails), 1_000e18);
        rails.deposit(address(token), account, 1_000e18);
        rails.approve(address(disputes), address(token), type(uint256).max);
        rails.approve(address(demands), address(token), type(uint256).max);
        vm.stopPrank();
    }

    function nodeOf(uint64 operatorId) internal view returns (address) {
        return operators.nodeKeyOf(operatorId);
    }

    function beneficiaryOf(uint64 operatorId) internal view returns (address) {
        return operators.beneficiaryOf(operatorId);
    }

    function nodeSecretOf(uint64 operatorId) internal returns (uint256 secret) {
        (, secret) = makeAddrAndKey(string.concat("node", vm.toString(operatorId)));
    }

    // ----------------------------------------------------------------------------------------------------------------- terms

    /// A strict job in the stable token: while the operator is on probation all segments are replayed.
    function termsOf(uint32 segments, uint32 samples, uint8 count) internal returns (IComputeJobs.JobTerms memory t) {
        (t.renter, t.operatorId, t.specHash, t.token) = (renter, provider, keccak256(abi.encode("spec", nonces)), address(stable));
        (t.price, t.auditFee, t.collateral) = (PRICE, AUDIT_FEE, COLLATERAL);
        (t.segments, t.samples, t.auditors) = (segments, samples, count);
        setClass(t, IComputeJobs.Determinism.WasmStrict, IComputeJobs.Engine.Strict);
        (t.openUntil, t.runSeconds) = (uint48(block.timestamp) + 1_000, 600);
        (t.auditSeconds, t.challengeSeconds) = (AUDIT_SECONDS, CHALLENGE_SECONDS);
        (t.flagSeal, t.nonce) = (keccak256(abi.encode("no canary", nonces)), nonces++);
    }

    function setClass(IComputeJobs.JobTerms memory t, IComputeJobs.Determinism determinism, IComputeJobs.Engine engine) internal pure {
        (t.determinism, t.engine) = (determinism, engine);
    }

    function wholeTerms() internal returns (IComputeJobs.JobTerms memory) {
        return termsOf(8, 8, 2);
    }

    /// A job of which nothing can be checked.
    function noneTerms() internal returns (IComputeJobs.JobTerms memory t) {
        t = termsOf(0, 0, 0);
        (t.auditFee, t.collateral) = (0, 0);
        setClass(t, IComputeJobs.Determinism.None, IComputeJobs.Engine.None);
    }

    function signed(IComputeJobs.JobTerms memory t) internal returns (IComputeJobs.Signatures memory) {
        bytes32 digest = jobs.jobIdOf(t);
        return IComputeJobs.Signatures(signWith(renterSecret, digest), signWith(nodeSecretOf(t.operatorId), digest));
    }

    function signWith(uint256 secret, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, digest);
        return abi.encodePacked(r, s, v);
    }

    function one(IComputeJobs.JobTerms memory t) internal pure returns (IComputeJobs.JobTerms[] memory list) {
        list = new IComputeJobs.JobTerms[](1);
        list[0] = t;
    }

    function one(IComputeJobs.Result memory r) internal pure returns (IComputeJobs.Result[] memory list) {
        list = new IComputeJobs.Result[](1);
        list[0] = r;
    }

    function one(IComputeJobs.Signatures memory s) internal pure returns (IComputeJobs.Signatures[] memory list) {
        list = new IComputeJobs.Signatures[](1);
        list[0] = s;
    }

    // ------------------------------------------------------------------------------------------------------------------ steps

    function openJob(IComputeJobs.JobTerms memory t) internal returns (bytes32) {
        return jobs.openJobs(one(t), one(signed(t)))[0];
    }

    /// For what is to revert.
    function openExternally(IComputeJobs.JobTerms memory t) external returns (bytes32) {
        return openJob(t);
    }

    function resultOf(JobWork.Work memory w) internal pure returns (IComputeJobs.Result memory) {
        return IComputeJobs.Result(w.root(), w.leaves[w.leaves.length - 1].stateHash);
    }

    function commitResult(IComputeJobs.JobTerms memory t, JobWork.Work memory w) internal {
        vm.prank(nodeOf(t.operatorId));
        jobs.commitResults(one(t), one(resultOf(w)));
    }

    function drawJob(IComputeJobs.JobTerms memory t) internal {
        uint64 seedTime = jobs.seedTimeOf(jobs.jobIdOf(t));
        if (block.timestamp < seedTime) vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        jobs.drawAuditors(one(t));
    }

    /// Opened, committed to, drawn.
    function toAudit(IComputeJobs.JobTerms memory t, JobWork.Work memory w) internal returns (bytes32 jobId) {
        jobId = openJob(t);
        commitResult(t, w);
        drawJob(t);
    }

    /// Also audited by honest auditors: the window is open.
    function toWindow(IComputeJobs.JobTerms memory t, JobWork.Work memory w) internal returns (bytes32 jobId) {
        jobId = toAudit(t, w);
        for (uint8 i; i < t.auditors; ++i) {
            IAuditors.Reveal memory r = replay(t, w, i);
            sealAs(r);
        }
        for (uint8 i; i < t.auditors; ++i) {
            reveal(replay(t, w, i));
        }
    }

    function settleJob(IComputeJobs.JobTerms memory t, JobWork.Work memory w) internal {
        (, uint48 until) = jobs.phaseOf(jobs.jobIdOf(t));
        if (block.timestamp < until) vm.warp(until);
        jobs.settle(one(t), one(resultOf(w)));
    }

    /// From the terms to the money, all honest.
    function complete(IComputeJobs.JobTerms memory t) internal returns (bytes32 jobId) {
        JobWork.Work memory w = honestWork(t);
        jobId = toWindow(t, w);
        settleJob(t, w);
    }

    function honestWork(IComputeJobs.JobTerms memory t) internal pure returns (JobWork.Work memory) {
        return JobWork.run(t.specHash, t.segments, JobWork.NONE);
    }

    /// Ends the provider's probation.
    function passProbation() internal {
        while (jobs.probationOf(provider) != 0) {
            complete(termsOf(1, 1, 1));
        }
    }

    // ----------------------------------------------------------------------------------------------------------------- audits

    /// Whom a strict job of the provider draws now.
    function strictly(uint256 count) internal view returns (IAuditors.Wanted memory) {
        return wanted(IComputeJobs.Engine.Strict, count);
    }

    function wanted(IComputeJobs.Engine engine, uint256 count) internal view returns (IAuditors.Wanted memory) {
        return IAuditors.Wanted(engine, count, uint48(block.timestamp), provider, renter);
    }

    function auditorOf(bytes32 jobId, uint8 index) internal view returns (uint64) {
        return auditors.auditOf(jobs, jobId, index).operatorId;
    }

    function segmentsOf(IComputeJobs.JobTerms memory t, uint64 auditor) internal view returns (uint32[] memory) {
        bytes32 jobId = jobs.jobIdOf(t);
        IAuditors.Sampling memory s = IAuditors.Sampling(randomness.valueOf(jobs.seedTimeOf(jobId)), t.segments, t.samples);
        return auditors.segmentsOf(jobId, s, auditor);
    }

    /// What an honest auditor finds that is given every state it asks for: it runs each of its segments.
    function replay(IComputeJobs.JobTerms memory t, JobWork.Work memory w, uint8 index) internal view returns (IAuditors.Reveal memory) {
        bytes32 jobId = jobs.jobIdOf(t);
        uint32[] memory segments = segmentsOf(t, auditorOf(jobId, index));
        for (uint256 i; i < segments.length; ++i) {
            uint32 s = segments[i];
            if (JobWork.hashOf(w.states[s]) != w.leaves[s].stateHash) {
                return finding(jobId, index, IAuditors.Finding.Withheld, s, 0); // no state has this hash
            }
            bytes32 end = JobWork.hashOf(JobWork.step(t.specHash, s, w.states[s]));
            bool isWrong = end != w.leaves[s + 1].stateHash || (s == 0 && w.states[0] != JobWork.firstState(t.specHash));
            if (isWrong) return finding(jobId, index, IAuditors.Finding.Wrong, s, end);
        }
        return right(jobId, index);
    }

    function finding(bytes32 jobId, uint8 index, IAuditors.Finding what, uint32 segment, bytes32 stateHash)
        internal
        pure
        returns (IAuditors.Reveal memory)
    {
        return IAuditors.Reveal(jobId, index, what, segment, stateHash, keccak256(abi.encode("salt", jobId, index)));
    }

    function right(bytes32 jobId, uint8 index) internal pure returns (IAuditors.Reveal memory) {
        return finding(jobId, index, IAuditors.Finding.Right, 0, 0);
    }

    function sealOf(IAuditors.Reveal memory r, uint64 auditor) internal view returns (bytes18) {
        return auditors.sealOf(jobs, r.jobId, auditor, r.finding, r.segment, r.stateHash, r.salt);
    }

    function sealAs(IAuditors.Reveal memory r) internal {
        uint64 auditor = auditorOf(r.jobId, r.index);
        sealWith(r.jobId, r.index, sealOf(r, auditor));
    }

    function sealWith(bytes32 jobId, uint8 index, bytes18 seal) internal {
        (bytes32[] memory ids, uint8[] memory indexes, bytes18[] memory seals) = (new bytes32[](1), new uint8[](1), new bytes18[](1));
        (ids[0], indexes[0], seals[0]) = (jobId, index, seal);
        address node = nodeOf(auditorOf(jobId, index));
        vm.prank(node);
        auditors.sealAudits(jobs, ids, indexes, seals);
    }

    function reveal(IAuditors.Reveal memory r) internal {
        IAuditors.Reveal[] memory list = new IAuditors.Reveal[](1);
        list[0] = r;
        auditors.revealAudits(jobs, list);
    }

    function sealAndReveal(IAuditors.Reveal memory a, IAuditors.Reveal memory b) internal {
        sealAs(a);
        sealAs(b);
        reveal(a);
        reveal(b);
    }

    // --------------------------------------------------------------------------------------------------------------- disputes

    /// The time from which auditors, or all, may open a case.
    function toTurn(bytes32 jobId, bool isAuditor) internal {
        (, uint48 until) = jobs.phaseOf(jobId);
        uint256 from = until - CHALLENGE_SECONDS + (isAuditor ? 1 : 2) * GRACE;
        if (block.timestamp < from) vm.warp(from);
    }

    function challenge(IComputeJobs.JobTerms memory t, JobWork.Work memory w, address by, uint32 segment) internal returns (uint256) {
        uint256 fee = disputes.juryFee();
        (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(segment), w.proofOf(segment + 1));
        vm.prank(by);
        return disputes.challengeSegment{value: fee}(t, resultOf(w), w.leaves[segment], a, w.leaves[segment + 1], b, "ipfs://evidence");
    }

    function challengeRoot(IComputeJobs.JobTerms memory t, JobWork.Work memory w, address by, bytes32 root) internal returns (uint256) {
        uint256 fee = disputes.juryFee();
        vm.prank(by);
        return disputes.challengeRoot{value: fee}(t, resultOf(w), root);
    }

    function openNodes(uint256 caseId, JobWork.Work memory w) internal returns (bytes32[] memory children) {
        IJobDisputes.Case memory c = disputes.caseOf(caseId);
        children = w.childrenOf(c.depth, c.index, c.depth < 4 ? c.depth : 4);
        address node = nodeOf(c.operatorId);
        vm.prank(node);
        disputes.openNode(caseId, children);
    }

    function openOwn(uint256 caseId, JobWork.Work memory own, bytes32[] memory theirs) internal {
        IJobDisputes.Case memory c = disputes.caseOf(caseId);
        bytes32[] memory children = own.childrenOf(c.depth, c.index, c.depth < 4 ? c.depth : 4);
        vm.prank(c.challenger);
        disputes.openOwnNode(caseId, children, theirs);
    }

    /// Both walk down to the first leaf that differs.
    function walk(uint256 caseId, JobWork.Work memory theirs, JobWork.Work memory own) internal {
        while (disputes.caseOf(caseId).state == IJobDisputes.State.OperatorOpens) {
            openOwn(caseId, own, openNodes(caseId, theirs));
        }
    }

    function show(uint256 caseId, IComputeJobs.JobTerms memory t, JobWork.Work memory w) internal {
        uint32 index = disputes.caseOf(caseId).index;
        uint32 segment = index == 0 ? 0 : index - 1;
        (bytes32[] memory a, bytes32[] memory b) = (w.proofOf(segment), w.proofOf(segment + 1));
        address node = nodeOf(t.operatorId);
        vm.prank(node);
        disputes.show(caseId, t, resultOf(w), w.leaves[segment], a, w.leaves[segment + 1], b);
    }

    /// The jurors replay the segment and vote as they find; nobody appeals.
    function judge(uint256 caseId, IComputeJobs.JobTerms memory t, JobWork.Work memory w) internal {
        uint32 s = disputes.caseOf(caseId).segment;
        bool isRight = JobWork.hashOf(JobWork.step(t.specHash, s, w.states[s])) == w.leaves[s + 1].stateHash
            && (s != 0 || w.states[0] == JobWork.firstState(t.specHash));
        ruleBy(caseId, isRight ? 2 : 1);
    }

    function ruleBy(uint256 caseId, uint256 ruling) internal {
        uint256 disputeId = disputes.caseOf(caseId).disputeId;
        draw(disputeId);
        voteAll(disputeId, ruling);
        toFinal(disputeId);
        jury.execute(disputeId);
    }

    // ------------------------------------------------------------------------------------------------------------------ money

    function stableOf(address account) internal view returns (uint256) {
        return rails.balanceOf(address(stable), account);
    }

    function bondsOf(address account) internal view returns (uint256) {
        return rails.balanceOf(address(token), account);
    }

    function collateralOf(uint64 operatorId) internal view returns (uint256) {
        return vault.lockedOfModule(operatorId, address(jobs));
    }

    function seatsOf(uint64 operatorId) internal view returns (uint256) {
        return vault.lockedOfModule(operatorId, address(auditors));
    }

    /// What is held is what is owed, in every token.
    function assertHeld() internal view {
        assertEq(rails.balanceOf(address(stable), address(jobs)), jobs.held(address(stable)));
        assertEq(rails.balanceOf(address(native), address(jobs)), jobs.held(address(native)));
    }

    function assertOutcome(bytes32 jobId, IComputeJobs.Outcome outcome) internal view {
        assertEq(uint8(jobs.job(jobId).outcome), uint8(outcome));
        assertEq(uint8(jobs.job(jobId).phase), uint8(IComputeJobs.Phase.Settled));
    }
}
