// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {IJobDisputes} from "../../src/compute/IJobDisputes.sol";
import {JobsFixture} from "./jobs-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice Whole transactions of jobs, for contracts/.gas-snapshot.
contract JobsGasTest is JobsFixture {
    using JobWork for JobWork.Work;

    uint256 private constant BATCH = 64;

    IComputeJobs.JobTerms[] private terms;
    IComputeJobs.Result[] private results;
    bytes32[] private jobIds;

    function testGas_happyPath() public {
        happyPath(1);
    }

    function testGas_happyPathOfTwoAuditors() public {
        happyPath(2);
    }

    function happyPath(uint8 count) private {
        string memory name = string.concat(" 64 with ", vm.toString(count));
        passProbation();
        for (uint64 auditor = 2; auditor < 7; ++auditor) {
            address node = nodeOf(auditor);
            vm.prank(node);
            auditors.enrol(auditor, 40, ALL_ENGINES); // each backs one duty, and a half
        }
        vm.warp(block.timestamp + 1);
        for (uint256 i; i < BATCH; ++i) {
            IComputeJobs.JobTerms memory t = termsOf(100, 2, count);
            terms.push(t);
            results.push(IComputeJobs.Result(keccak256(abi.encode("root", i)), keccak256(abi.encode("output", i))));
        }
        IComputeJobs.Signatures[] memory signatures = new IComputeJobs.Signatures[](BATCH);
        for (uint256 i; i < BATCH; ++i) {
            signatures[i] = signed(terms[i]);
        }
        (IComputeJobs.JobTerms[] memory ts, IComputeJobs.Result[] memory rs) = (terms, results);
        jobIds = jobs.openJobs(ts, signatures);
        vm.snapshotGasLastCall("ComputeJobs", string.concat("open", name));
        vm.prank(nodeOf(provider));
        jobs.commitResults(ts, rs);
        vm.snapshotGasLastCall("ComputeJobs", string.concat("commit", name));
        vm.warp(jobs.seedTimeOf(jobIds[0]));
        randomness.fix(jobs.seedTimeOf(jobIds[0]), "", "", "");
        jobs.drawAuditors(ts);
        vm.snapshotGasLastCall("ComputeJobs", string.concat("draw", name));
        sealAll(count);
        revealAll(count);
        (, uint48 until) = jobs.phaseOf(jobIds[0]);
        vm.warp(until);
        jobs.settle(ts, rs);
        vm.snapshotGasLastCall("ComputeJobs", string.concat("settle", name));
        assertOutcome(jobIds[BATCH - 1], IComputeJobs.Outcome.Right);
        assertHeld();
    }

    /// Each auditor seals all of its audits at once; the first one's is measured.
    function sealAll(uint8 count) private {
        for (uint64 auditor = 2; auditor < 7; ++auditor) {
            (bytes32[] memory ids, uint8[] memory indexes, uint256 n) = dutiesOf(auditor, count);
            bytes18[] memory seals = new bytes18[](n);
            for (uint256 i; i < n; ++i) {
                seals[i] = sealOf(right(ids[i], indexes[i]), auditor);
            }
            vm.prank(nodeOf(auditor));
            auditors.sealAudits(jobs, ids, indexes, seals);
            if (auditor == 2) vm.snapshotGasLastCall("Auditors", string.concat("seal ", vm.toString(n)));
        }
    }

    function revealAll(uint8 count) private {
        IAuditors.Reveal[] memory list = new IAuditors.Reveal[](count * BATCH);
        for (uint256 i; i < list.length; ++i) {
            list[i] = right(jobIds[i / count], uint8(i % count));
        }
        auditors.revealAudits(jobs, list);
        vm.snapshotGasLastCall("Auditors", string.concat("reveal ", vm.toString(list.length)));
    }

    function dutiesOf(uint64 auditor, uint8 count) private view returns (bytes32[] memory ids, uint8[] memory indexes, uint256 n) {
        (ids, indexes) = (new bytes32[](count * BATCH), new uint8[](count * BATCH));
        for (uint256 i; i < ids.length; ++i) {
            if (auditorOf(jobIds[i / count], uint8(i % count)) == auditor) (ids[n], indexes[n++]) = (jobIds[i / count], uint8(i % count));
        }
        assembly ("memory-safe") {
            mstore(ids, n)
            mstore(indexes, n)
        }
    }

    function testGas_disputeOf1024Segments() public {
        IComputeJobs.JobTerms memory t = termsOf(1_024, 1_024, 1);
        JobWork.Work memory w = JobWork.run(t.specHash, 1_024, 700);
        JobWork.Work memory own = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        IAuditors.Reveal memory r = right(jobId, 0); // a colluding auditor
        sealAs(r);
        reveal(r);
        toTurn(jobId, false);
        uint256 caseId = challengeRoot(t, w, challenger, own.root());
        vm.snapshotGasLastCall("JobDisputes", "challengeRoot of 1024 segments");
        for (uint256 round = 1; round <= 3; ++round) {
            bytes32[] memory theirs = openNodes(caseId, w);
            vm.snapshotGasLastCall("JobDisputes", string.concat("openNode ", vm.toString(round)));
            openOwn(caseId, own, theirs);
            vm.snapshotGasLastCall("JobDisputes", string.concat("openOwnNode ", vm.toString(round)));
        }
        show(caseId, t, w);
        vm.snapshotGasLastCall("JobDisputes", "show, which calls the jury");
        judgeMeasured(caseId);
        assertTrue(jobs.job(jobId).guilty);
        jobs.settle(one(t), one(resultOf(w)));
        vm.snapshotGasLastCall("ComputeJobs", "settle 1, guilty");
        assertOutcome(jobId, IComputeJobs.Outcome.Guilty);
    }

    /// Three votes, all for the challenger, nobody appeals.
    function judgeMeasured(uint256 caseId) private {
        uint256 disputeId = disputes.caseOf(caseId).disputeId;
        uint64 seedTime = jury.dispute(disputeId).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        jury.draw(disputeId);
        vm.snapshotGasLastCall("JobDisputes", "jury draws 3");
        uint64[] memory list = jurors(disputeId);
        for (uint256 i; i < list.length; ++i) {
            commit(disputeId, list[i], 1);
        }
        for (uint256 i; i < list.length; ++i) {
            jury.reveal(disputeId, list[i], 1, SALT);
        }
        jury.close(disputeId);
        toFinal(disputeId);
        jury.execute(disputeId);
        vm.snapshotGasLastCall("JobDisputes", "jury tells its ruling, guilty");
    }

    function testGas_challengeSegment() public {
        IComputeJobs.JobTerms memory t = termsOf(1_024, 1_024, 1);
        JobWork.Work memory w = JobWork.run(t.specHash, 1_024, 700);
        bytes32 jobId = toWindow(t, w);
        toTurn(jobId, true);
        challenge(t, w, nodeOf(auditorOf(jobId, 0)), 700);
        vm.snapshotGasLastCall("JobDisputes", "challengeSegment of 1024 by its auditor");
    }

    function testGas_demand() public {
        IComputeJobs.JobTerms memory t = wholeTerms();
        JobWork.Work memory w = honestWork(t);
        bytes32 jobId = toAudit(t, w);
        address node = nodeOf(auditorOf(jobId, 0));
        vm.prank(node);
        uint64 demandId = demands.demand(t, resultOf(w), 5);
        vm.snapshotGasLastCall("StateDemands", "demand by an auditor");
        uint64 seedTime = demands.demandOf(demandId).seedTime;
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        demands.drawMembers(demandId);
        vm.snapshotGasLastCall("StateDemands", "draw 3 members");
        uint64[] memory members = demands.demandOf(demandId).members;
        bytes[] memory signatures = new bytes[](3);
        bytes32 digest = demands.deliveredDigest(demandId, w.leaves[5]);
        for (uint256 i; i < 3; ++i) {
            signatures[i] = signWith(nodeSecretOf(members[i]), digest);
        }
        bytes32[] memory proof = w.proofOf(5);
        demands.confirm(demandId, t, resultOf(w), w.leaves[5], proof, signatures);
        vm.snapshotGasLastCall("StateDemands", "confirm by 3");
    }
}
