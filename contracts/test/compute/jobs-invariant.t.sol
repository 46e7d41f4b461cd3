// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IJobDisputes} from "../../src/compute/IJobDisputes.sol";
import {IStateDemands} from "../../src/compute/IStateDemands.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice Honest and forged jobs and canaries, auditors that find, lie or are silent, cases and demands, in any order and at any time: what
/// is held is what is owed, every lock is covered, and in the end anybody ends everything.
contract JobsInvariantTest is JobsFixture {
    using JobWork for JobWork.Work;

    uint32 private constant SEGMENTS = 4;
    uint256 private constant JOBS_MAX = 10;

    IComputeJobs.JobTerms[] private terms;
    uint32[] private wrongs; // the forged segment; NONE
    bool[] private canaries;
    mapping(bytes32 jobId => IAuditors.Reveal[2]) private hidden;
    mapping(uint256 caseId => uint256 number) private jobOfCase;
    mapping(uint64 demandId => uint256 number) private jobOfDemand;

    function setUp() public override {
        super.setUp();
        for (uint64 id = 2; id <= 6; ++id) {
            vm.prank(operators.nodeKeyOf(id));
            auditors.enrol(id, 10, ALL_ENGINES);
        }
        vm.warp(block.timestamp + 1);
        bytes4[] memory selectors = new bytes4[](8);
        selectors[0] = this.open.selector;
        selectors[1] = this.advance.selector;
        selectors[2] = this.advance.selector;
        selectors[3] = this.advance.selector;
        selectors[4] = this.accuse.selector;
        selectors[5] = this.moveCase.selector;
        selectors[6] = this.moveDemand.selector;
        selectors[7] = this.wait.selector;
        targetSelector(FuzzSelector(address(this), selectors));
        targetContract(address(this));
    }

    // ---------------------------------------------------------------------------------------------------------------- actions

    function open(uint256 seed) external {
        if (terms.length == JOBS_MAX) return;
        IComputeJobs.JobTerms memory t = termsOf(SEGMENTS, SEGMENTS, 2);
        t.token = seed % 2 == 0 ? address(stable) : address(native);
        (t.price, t.auditFee) = (uint128(2 + seed % 1e9), t.token == address(stable) ? AUDIT_FEE + uint128(seed % 97) : 1e16);
        bool isCanary = seed % 5 == 4;
        if (isCanary) t.flagSeal = jobs.canarySeal(renter, t.nonce, CANARY_SALT);
        terms.push(t);
        wrongs.push(seed % 5 < 2 ? uint32(seed / 5 % SEGMENTS) : JobWork.NONE);
        canaries.push(isCanary);
        openJob(t);
    }

    function advance(uint256 seed) external {
        if (terms.length == 0) return;
        uint256 n = seed % terms.length;
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = pick(n);
        (IComputeJobs.Phase phase, uint48 until) = jobs.phaseOf(jobId);
        if (phase == IComputeJobs.Phase.Running) {
            if (block.timestamp < until) commitResult(t, w);
            else settle(n);
        } else if (phase == IComputeJobs.Phase.Committed) {
            drawJob(t);
        } else if (phase == IComputeJobs.Phase.Sealing) {
            sealSome(t, w, jobId, seed / 16);
        } else if (phase == IComputeJobs.Phase.Revealing) {
            revealSome(jobId, uint8(seed / 16 % 2));
        } else if (phase == IComputeJobs.Phase.Window) {
            if (canaries[n] && seed / 16 % 2 == 0) tryCanary(t, w);
            settle(n);
        }
    }

    function sealSome(IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId, uint256 seed) private {
        uint8 index = uint8(seed % 2);
        if (auditors.auditOf(jobs, jobId, index).seal != 0) return;
        uint256 kind = seed / 2 % 6;
        IAuditors.Reveal memory r = replay(t, w, index);
        if (kind == 1) r = right(jobId, index);
        else if (kind == 2) r = finding(jobId, index, IAuditors.Finding.Wrong, uint32(seed / 16 % SEGMENTS), "lie");
        else if (kind == 3) r = finding(jobId, index, IAuditors.Finding.Withheld, uint32(seed / 16 % SEGMENTS), 0);
        hidden[jobId][index] = r;
        sealAs(r);
    }

    function revealSome(bytes32 jobId, uint8 index) private {
        if (hidden[jobId][index].jobId != 0) reveal(hidden[jobId][index]);
    }

    function tryCanary(IComputeJobs.JobTerms memory t, JobWork.Work memory w) private {
        bytes32[] memory proof = w.proofOf(SEGMENTS);
        try jobs.openCanary(t, resultOf(w), SEGMENTS, w.leaves[SEGMENTS].chainHash, proof, CANARY_SALT) {} catch {}
    }

    function settle(uint256 n) private {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w,) = pick(n);
        try jobs.settle(one(t), one(resultOf(w))) {} catch {}
    }

    function accuse(uint256 seed) external {
        if (terms.length == 0) return;
        uint256 n = seed % terms.length;
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = pick(n);
        uint64 auditor = auditorOf(jobId, uint8(seed / 32 % 2));
        address by = seed / 16 % 2 == 0 || auditor == 0 ? challenger : nodeOf(auditor);
        uint32 segment = uint32(seed / 64 % SEGMENTS);
        uint256 kind = seed / 512 % 3;
        if (kind == 0) {
            try this.challengeExternally(n, by, segment) returns (uint256 caseId) {
                jobOfCase[caseId] = n;
            } catch {}
        } else if (kind == 1) {
            try this.challengeRootExternally(n, by) returns (uint256 caseId) {
                jobOfCase[caseId] = n;
            } catch {}
        } else {
            vm.prank(by);
            try demands.demand(t, resultOf(w), segment) returns (uint64 demandId) {
                jobOfDemand[demandId] = n;
            } catch {}
        }
    }

    function challengeExternally(uint256 n, address by, uint32 segment) external returns (uint256) {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w,) = pick(n);
        return challenge(t, w, by, segment);
    }

    function challengeRootExternally(uint256 n, address by) external returns (uint256) {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w,) = pick(n);
        return challengeRoot(t, w, by, otherWork(n).root());
    }

    function moveCase(uint256 seed) external {
        uint256 count = disputes.caseCount();
        if (count == 0) return;
        uint256 caseId = 1 + seed % count;
        IJobDisputes.Case memory c = disputes.caseOf(caseId);
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w,) = pick(jobOfCase[caseId]);
        bool inTime = block.timestamp < c.moveUntil;
        if (c.state == IJobDisputes.State.OperatorOpens && inTime) {
            bytes32[] memory theirs = openNodes(caseId, w);
            if (seed / 16 % 4 != 0) openOwn(caseId, otherWork(jobOfCase[caseId]), theirs);
        } else if (c.state == IJobDisputes.State.OperatorShows && inTime) {
            show(caseId, t, w);
        } else if (c.state == IJobDisputes.State.Judged) {
            rule(c.disputeId, seed / 16 % 3);
        } else {
            try disputes.expire(caseId) {} catch {}
        }
    }

    /// However the jury rules, or does not.
    function rule(uint256 disputeId, uint256 ruling) private {
        IJury.Dispute memory d = jury.dispute(disputeId);
        if (d.phase == IJury.Phase.Drawing && block.timestamp < d.seedTime + 600) {
            draw(disputeId);
            voteAll(disputeId, ruling);
        } else if (d.phase == IJury.Phase.Drawing) {
            jury.expire(disputeId);
        }
        toFinal(disputeId);
        jury.execute(disputeId);
    }

    function moveDemand(uint256 seed) external {
        uint64 count = demands.demandCount();
        if (count == 0) return;
        uint64 demandId = uint64(1 + seed % count);
        IStateDemands.Demand memory d = demands.demandOf(demandId);
        if (d.closed) return;
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w,) = pick(jobOfDemand[demandId]);
        bytes32[] memory proof = w.proofOf(d.leaf);
        if (d.deliverUntil == 0 && block.timestamp < d.seedTime + 100) {
            if (block.timestamp < d.seedTime) vm.warp(d.seedTime);
            randomness.fix(d.seedTime, "", "", "");
            demands.drawMembers(demandId);
        } else if (seed / 16 % 3 == 0 && d.deliverUntil != 0 && block.timestamp < d.deliverUntil) {
            bytes[] memory signatures = new bytes[](3);
            bytes32 digest = demands.deliveredDigest(demandId, w.leaves[d.leaf]);
            for (uint256 i; i < 2; ++i) {
                signatures[i] = signWith(nodeSecretOf(d.members[i]), digest);
            }
            demands.confirm(demandId, t, resultOf(w), w.leaves[d.leaf], proof, signatures);
        } else {
            try demands.expire(demandId) {} catch {}
        }
    }

    function wait(uint256 seed) external {
        vm.warp(block.timestamp + 1 + seed % 200);
    }

    // ----------------------------------------------------------------------------------------------------------------- work

    function pick(uint256 n) private view returns (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) {
        t = terms[n];
        w = JobWork.run(t.specHash, SEGMENTS, wrongs[n]);
        jobId = jobs.jobIdOf(t);
        if (!canaries[n]) return (t, w, jobId);
        bytes32[] memory hashes = new bytes32[](SEGMENTS + 1);
        for (uint256 i; i < SEGMENTS; ++i) {
            hashes[i] = w.leaves[i].stateHash;
        }
        hashes[SEGMENTS] = jobs.canaryStateHash(CANARY_SALT, SEGMENTS);
        w.commitToHashes(hashes);
    }

    /// The honest work; where the job is honest, one with a forged segment.
    function otherWork(uint256 n) private view returns (JobWork.Work memory) {
        bool isHonest = wrongs[n] == JobWork.NONE && !canaries[n];
        return JobWork.run(terms[n].specHash, SEGMENTS, isHonest ? 1 : JobWork.NONE);
    }

    // -------------------------------------------------------------------------------------------------------------- invariants

    /// forge-config: default.invariant.runs = 5
    function invariant_heldIsOwedAndLockedIsCovered() public view {
        assertHeldForJobs();
        assertBonds();
        assertDuties();
    }

    function assertHeldForJobs() private view {
        assertHeld();
        uint256[2] memory owed = [jobs.canaryPool(address(stable)), jobs.canaryPool(address(native))];
        uint256 locked;
        for (uint256 n; n < terms.length; ++n) {
            IComputeJobs.JobTerms memory t = terms[n];
            if (jobs.job(jobs.jobIdOf(t)).phase == IComputeJobs.Phase.Settled) continue;
            (, uint256 supplierFee, uint256 stableFee) = jobs.feesOn(t.token, t.price);
            owed[t.token == address(stable) ? 0 : 1] += t.price - supplierFee + stableFee + t.auditFee;
            locked += t.collateral;
        }
        assertEq(jobs.held(address(stable)), owed[0]);
        assertEq(jobs.held(address(native)), owed[1]);
        assertEq(collateralOf(provider), locked);
        assertEq(vault.lockedBy(address(jobs)), locked);
    }

    /// Every bond is there as long as its case is open.
    function assertBonds() private view {
        uint256 bonds;
        uint256 coins;
        for (uint256 caseId = 1; caseId <= disputes.caseCount(); ++caseId) {
            IJobDisputes.Case memory c = disputes.caseOf(caseId);
            if (c.state == IJobDisputes.State.Closed) continue;
            bonds += BOND;
            coins += c.coins;
        }
        assertEq(bondsOf(address(disputes)), bonds);
        assertEq(address(disputes).balance, coins + disputes.coinsOf(challenger) + auditorsCoins());
        uint256 demanded;
        for (uint64 id = 1; id <= demands.demandCount(); ++id) {
            demanded += demands.demandOf(id).bond + demands.demandOf(id).fee;
        }
        assertEq(bondsOf(address(demands)), demanded);
    }

    function auditorsCoins() private view returns (uint256 coins) {
        for (uint64 id = 2; id <= 6; ++id) {
            coins += disputes.coinsOf(nodeOf(id));
        }
    }

    /// Every duty is backed by stake.
    function assertDuties() private view {
        uint256 duties;
        for (uint64 id = 2; id <= 6; ++id) {
            uint256 own = auditors.auditor(id).duties;
            assertGe(seatsOf(id), own * LIE);
            assertGe(seatsOf(id), auditors.auditor(id).seats * uint256(AUDIT_SEAT));
            duties += own;
        }
        uint256 expected;
        for (uint256 n; n < terms.length; ++n) {
            IComputeJobs.Phase phase = jobs.job(jobs.jobIdOf(terms[n])).phase;
            if (phase > IComputeJobs.Phase.Committed && phase < IComputeJobs.Phase.Settled) expected += 2;
        }
        assertEq(duties, expected);
    }

    /// Whatever was left lying: after its time anybody ends it, and nothing stays behind.
    function afterInvariant() public {
        for (uint256 caseId = 1; caseId <= disputes.caseCount(); ++caseId) {
            endCase(caseId);
        }
        for (uint64 id = 1; id <= demands.demandCount(); ++id) {
            if (!demands.demandOf(id).closed) {
                vm.warp(block.timestamp + 400);
                demands.expire(id);
            }
        }
        for (uint256 n; n < terms.length; ++n) {
            endJob(n);
        }
        assertHeldForJobs();
        assertBonds();
        assertEq(jobs.held(address(stable)), jobs.canaryPool(address(stable)));
        assertEq(jobs.held(address(native)), jobs.canaryPool(address(native)));
        assertEq(vault.lockedBy(address(jobs)), 0);
        assertEq(bondsOf(address(disputes)) + bondsOf(address(demands)), 0);
        for (uint64 id = 2; id <= 6; ++id) {
            assertEq(auditors.auditor(id).duties, 0);
        }
    }

    function endCase(uint256 caseId) private {
        IJobDisputes.Case memory c = disputes.caseOf(caseId);
        if (c.state == IJobDisputes.State.Judged) return rule(c.disputeId, 0);
        if (c.state == IJobDisputes.State.Closed) return;
        vm.warp(block.timestamp + MOVE);
        disputes.expire(caseId);
    }

    function endJob(uint256 n) private {
        (IComputeJobs.JobTerms memory t, JobWork.Work memory w, bytes32 jobId) = pick(n);
        (IComputeJobs.Phase phase,) = jobs.phaseOf(jobId);
        if (phase == IComputeJobs.Phase.Committed) {
            vm.warp(block.timestamp + 400);
            drawJob(t);
        }
        vm.warp(block.timestamp + 1_000);
        jobs.settle(one(t), one(resultOf(w)));
        assertEq(uint8(jobs.job(jobId).phase), uint8(IComputeJobs.Phase.Settled));
    }
}
