// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Auditors} from "../../src/compute/Auditors.sol";
import {ComputeJobs} from "../../src/compute/ComputeJobs.sol";
import {IAuditors} from "../../src/compute/IAuditors.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {Segments} from "../../src/compute/Segments.sol";
import {StateDemands} from "../../src/compute/StateDemands.sol";
import {JobsFixture} from "./jobs-fixture.sol";

/// @notice jobs-vectors.json is what software computes without a chain, for a contract at a named address on chain 31337: digests that
/// are signed, seals, canaries, segments that are drawn. src/compute reads the same file. Leaves and proofs: segments-vector.json.
contract JobsVectorsTest is JobsFixture {
    string private constant FILE = "contracts/test/compute/jobs-vectors.json";
    string private json;

    function setUp() public override {
        super.setUp();
        vm.chainId(31_337);
        json = vm.readFile(FILE);
    }

    /// The contracts as they are, at the file's addresses.
    function at(string memory name, address code) private returns (address place) {
        place = vm.parseJsonAddress(json, string.concat(".", name));
        vm.etch(place, code.code);
    }

    function word(string memory path) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, path);
    }

    function number(string memory path) private view returns (uint256) {
        return vm.parseJsonUint(json, path);
    }

    function terms() private view returns (IComputeJobs.JobTerms memory t) {
        t.renter = vm.parseJsonAddress(json, ".terms.renter");
        t.operatorId = uint64(number(".terms.operatorId"));
        t.specHash = word(".terms.specHash");
        t.token = vm.parseJsonAddress(json, ".terms.token");
        t.price = uint128(number(".terms.price"));
        t.auditFee = uint128(number(".terms.auditFee"));
        t.collateral = uint128(number(".terms.collateral"));
        t.determinism = IComputeJobs.Determinism(number(".terms.determinism"));
        t.engine = IComputeJobs.Engine(number(".terms.engine"));
        t.lowerable = vm.parseJsonBool(json, ".terms.lowerable");
        t.segments = uint32(number(".terms.segments"));
        t.samples = uint32(number(".terms.samples"));
        t.auditors = uint8(number(".terms.auditors"));
        t.openUntil = uint48(number(".terms.openUntil"));
        t.runSeconds = uint32(number(".terms.runSeconds"));
        t.auditSeconds = uint32(number(".terms.auditSeconds"));
        t.challengeSeconds = uint32(number(".terms.challengeSeconds"));
        t.flagSeal = word(".terms.flagSeal");
        t.nonce = number(".terms.nonce");
    }

    function test_what_is_signed_sealed_and_drawn_is_what_the_file_says() public {
        jobs = ComputeJobs(at("computeJobs", address(jobs)));
        auditors = Auditors(at("auditors", address(auditors)));
        demands = StateDemands(at("stateDemands", address(demands)));
        IComputeJobs.JobTerms memory t = terms();
        bytes32 jobId = jobs.jobIdOf(t);
        assertEq(jobId, word(".jobId"));
        bytes32 salt = word(".salt");
        assertEq(jobs.canarySeal(t.renter, t.nonce, salt), word(".canarySeal"));
        assertEq(jobs.canaryStateHash(salt, uint32(number(".wrong.leaf"))), word(".canaryStateHash"));
        uint64 auditor = uint64(number(".auditor"));
        bytes18 right_ = auditors.sealOf(jobs, jobId, auditor, IAuditors.Finding.Right, 0, 0, salt);
        assertEq(right_, bytes18(vm.parseJsonBytes(json, ".sealOfRight")));
        bytes18 wrong = auditors.sealOf(
            jobs, jobId, auditor, IAuditors.Finding.Wrong, uint32(number(".wrong.segment")), word(".wrong.stateHash"), salt
        );
        assertEq(wrong, bytes18(vm.parseJsonBytes(json, ".sealOfWrong")));
        IAuditors.Sampling memory s = IAuditors.Sampling(word(".randomness"), t.segments, t.samples);
        uint32[] memory drawn = auditors.segmentsOf(jobId, s, auditor);
        uint256[] memory expected = vm.parseJsonUintArray(json, ".segments");
        assertEq(drawn.length, expected.length);
        for (uint256 i; i < drawn.length; ++i) {
            assertEq(drawn[i], expected[i]);
        }
    }

    /// Of a demand that was never made the job is zero; the digest's form is what is compared.
    function test_the_committees_digest_is_what_the_file_says() public {
        demands = StateDemands(at("stateDemands", address(demands)));
        Segments.Leaf memory leaf = Segments.Leaf(uint32(number(".wrong.leaf")), word(".delivered.chainHash"), word(".delivered.stateHash"));
        assertEq(demands.deliveredDigest(uint64(number(".delivered.demandId")), leaf), word(".delivered.digest"));
    }
}
