// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ComputeJobs} from "../../src/compute/ComputeJobs.sol";
import {IComputeJobs} from "../../src/compute/IComputeJobs.sol";
import {JobFees} from "../../src/compute/JobFees.sol";
import {deployComputeJobs} from "../deploy/compute.sol";
import {JobFeesFixture} from "./job-fees-fixture.sol";
import {JobWork} from "./jobs-work.sol";

/// @notice What counts of a job's fees is what the auction got of them.
contract JobFeesTest is JobFeesFixture {
    using JobWork for JobWork.Work;

    uint256 private constant RESERVATION = PRICE / 200;
    uint256 private constant STABLE_FEE = PRICE / 50;

    // ------------------------------------------------------------------------------------------------------------------- sums

    function test_settled_jobs_of_an_operator_are_one_sum_in_both_tokens() public {
        IComputeJobs.JobTerms[] memory list = two(endAs(End.Right, address(stable), PRICE), endAs(End.Unchecked, address(native), 1e18));
        bytes32[] memory jobIds = new bytes32[](2);
        (jobIds[0], jobIds[1]) = (jobs.jobIdOf(list[0]), jobs.jobIdOf(list[1]));
        vm.expectEmit(address(fees));
        emit JobFees.FeesSummed(provider, 1, jobIds, RESERVATION + STABLE_FEE, 5e15);
        vm.prank(challenger); // anybody
        assertEq(fees.sumUp(list), 1);
        assertFees(1, provider, RESERVATION + STABLE_FEE, 5e15);
        assertEq(fees.sumOf(jobIds[1]), 1);
        assertEq(sumOne(endAs(End.Unchecked, address(stable), PRICE)), 2);
        assertFees(1, provider, RESERVATION + STABLE_FEE, 5e15); // as before
        assertEq(fees.sumCount(), 2);
    }

    function test_a_sum_that_is_not_there_has_no_operator() public {
        assertFees(0, 0, 0, 0);
        assertFees(1, 0, 0, 0);
        assertEq(fees.sumUp(new IComputeJobs.JobTerms[](0)), 0);
        assertEq(fees.sumCount(), 0);
    }

    /// forge-config: default.fuzz.runs = 24
    /// However two jobs end, at whatever prices, in either token: to the unit what the auction got.
    function testFuzz_what_counts_is_what_the_auction_received(uint120 price, uint120 otherPrice, uint8 end, uint8 lastEnd, uint8 tokens)
        public
    {
        (address a, address b) = (tokenOf(tokens & 1), tokenOf(tokens >> 1 & 1));
        IComputeJobs.JobTerms memory first = endAs(End(end % 5), a, priceIn(a, price));
        IComputeJobs.JobTerms memory last = endAs(End(lastEnd % 7), b, priceIn(b, otherPrice));
        assertFees(fees.sumUp(two(first, last)), provider, received(address(stable)), received(address(native)));
    }

    function tokenOf(uint256 choice) private view returns (address) {
        return choice == 0 ? address(stable) : address(native);
    }

    function priceIn(address token_, uint256 price) private view returns (uint128) {
        return uint128(bound(price, 2, rails.balanceOf(token_, renter) / 4));
    }

    function test_each_end_counts_what_was_kept_of_its_fees() public {
        assertFees(sumOne(endAs(End.Unchecked, address(stable), PRICE)), provider, RESERVATION + STABLE_FEE, 0);
        assertFees(sumOne(endAs(End.Right, address(stable), PRICE)), provider, RESERVATION + STABLE_FEE, 0);
        assertFees(sumOne(endAs(End.Canary, address(stable), PRICE)), provider, RESERVATION + STABLE_FEE, 0);
        assertFees(sumOne(endAs(End.Lowered, address(stable), PRICE)), provider, RESERVATION + STABLE_FEE, 0);
        assertEq(received(address(stable)), 4 * (RESERVATION + STABLE_FEE));
    }

    // ---------------------------------------------------------------------------------------------------------------- attacks

    function test_attack_fees_that_went_back_to_the_renter_count_for_nobody() public {
        assertFees(sumOne(endAs(End.Late, address(stable), PRICE)), provider, RESERVATION, 0);
        assertFees(sumOne(endAs(End.Guilty, address(stable), PRICE)), provider, RESERVATION, 0);
        assertFees(sumOne(endAs(End.NotAudited, address(stable), PRICE)), provider, RESERVATION, 0);
        assertEq(received(address(stable)), 3 * RESERVATION);
    }

    function test_attack_a_job_twice_in_a_batch_or_in_two_counts_once() public {
        IComputeJobs.JobTerms memory t = endAs(End.Unchecked, address(stable), PRICE);
        assertEq(fees.sumUp(two(t, t)), 1);
        assertFees(1, provider, received(address(stable)), 0);
        assertEq(sumOne(t), 0);
        assertEq(fees.sumCount(), 1);
        // Its honest twin: another job of the same price.
        IComputeJobs.JobTerms memory twin = endAs(End.Unchecked, address(stable), PRICE);
        assertEq(fees.sumUp(two(t, twin)), 2);
        assertFees(2, provider, RESERVATION + STABLE_FEE, 0);
    }

    /// Whoever brings one of a batch first makes a smaller sum, and spoils nothing.
    function test_attack_bringing_one_job_before_its_batch_takes_nothing_from_its_operator() public {
        IComputeJobs.JobTerms memory a = endAs(End.Unchecked, address(stable), PRICE);
        IComputeJobs.JobTerms memory b = endAs(End.Unchecked, address(native), 1e18);
        vm.prank(challenger);
        fees.sumUp(one(a));
        fees.sumUp(two(a, b));
        assertFees(1, provider, received(address(stable)), 0);
        assertFees(2, provider, 0, received(address(native)));
    }

    function test_attack_jobs_that_are_not_settled_are_refused_and_count_when_they_are() public {
        IComputeJobs.JobTerms memory t = termsOf(2, 2, 1);
        JobWork.Work memory w = honestWork(t);
        vm.expectRevert(phaseIs(t, IComputeJobs.Phase.None));
        this.sumExternally(t);
        bytes32 jobId = openJob(t); // its reservation fees are with the auction
        vm.expectRevert(phaseIs(t, IComputeJobs.Phase.Running));
        this.sumExternally(t);
        commitResult(t, w);
        vm.expectRevert(phaseIs(t, IComputeJobs.Phase.Committed));
        this.sumExternally(t);
        drawJob(t);
        sealAs(replay(t, w, 0));
        reveal(replay(t, w, 0));
        (, uint48 until) = jobs.phaseOf(jobId);
        vm.warp(until); // it could be settled
        vm.expectRevert(phaseIs(t, IComputeJobs.Phase.Window));
        this.sumExternally(t);
        settleJob(t, w);
        assertFees(sumOne(t), provider, received(address(stable)), 0);
    }

    function sumExternally(IComputeJobs.JobTerms memory t) external returns (uint64) {
        return sumOne(t);
    }

    /// Each word of the terms is in the digest: other terms are no job, whatever they would be worth.
    /// forge-config: default.fuzz.runs = 64
    function testFuzz_attack_terms_with_any_word_changed_are_no_job(uint256 field, uint256 change) public {
        IComputeJobs.JobTerms memory t = endAs(End.Unchecked, address(stable), PRICE);
        IComputeJobs.JobTerms memory other = abi.decode(abi.encode(t), (IComputeJobs.JobTerms));
        change = bound(change, 1, 1e6);
        field %= 10;
        if (field == 0) other.price += uint128(change);
        else if (field == 1) other.operatorId += uint64(change);
        else if (field == 2) other.token = address(native);
        else if (field == 3) other.renter = address(uint160(other.renter) ^ uint160(change));
        else if (field == 4) other.nonce += change;
        else if (field == 5) other.runSeconds += uint32(change);
        else if (field == 6) other.lowerable = !other.lowerable;
        else if (field == 7) other.collateral += uint128(change);
        else if (field == 8) other.flagSeal = bytes32(uint256(other.flagSeal) ^ change);
        else other.determinism = IComputeJobs.Determinism.ExactOutput;
        vm.expectRevert(phaseIs(other, IComputeJobs.Phase.None));
        this.sumExternally(other);
        assertFees(sumOne(t), provider, received(address(stable)), 0); // its honest twin
    }

    /// Fees that another contract of jobs took are that one's, and terms are of one contract on one chain.
    function test_attack_jobs_of_another_contract_or_chain_are_unknown() public {
        ComputeJobs here = jobs;
        jobs = deployComputeJobs(registry, rules, randomness, rails, address(native), challenger); // fees for a friend
        registry.set("computeJobs", address(jobs), true);
        vm.prank(renter);
        rails.approve(address(jobs), address(stable), type(uint256).max);
        IComputeJobs.JobTerms memory t = endAs(End.Unchecked, address(stable), PRICE);
        assertEq(stableOf(challenger), RESERVATION + STABLE_FEE);
        jobs = here;
        registry.set("computeJobs", address(here), true);
        vm.expectRevert(phaseIs(t, IComputeJobs.Phase.None));
        this.sumExternally(t);
        IComputeJobs.JobTerms memory twin = endAs(End.Unchecked, address(stable), PRICE);
        uint256 chainId = block.chainid;
        vm.chainId(chainId + 1);
        vm.expectRevert(phaseIs(twin, IComputeJobs.Phase.None));
        this.sumExternally(twin);
        vm.chainId(chainId);
        assertFees(sumOne(twin), provider, received(address(stable)), 0);
    }

    function test_attack_jobs_of_two_operators_make_no_sum() public {
        IComputeJobs.JobTerms memory own = endAs(End.Unchecked, address(stable), PRICE);
        uint64 first = provider;
        provider = newProvider("another provider");
        IComputeJobs.JobTerms memory others = endAs(End.Unchecked, address(native), 1e18);
        bytes32 jobId = jobs.jobIdOf(others);
        IComputeJobs.JobTerms[] memory both = two(own, others);
        vm.expectRevert(abi.encodeWithSelector(JobFees.OtherOperator.selector, jobId, provider, first));
        fees.sumUp(both);
        vm.prank(nodeOf(provider)); // whoever brings it, it is the supplier's
        assertFees(sumOne(own), first, received(address(stable)), 0);
        assertFees(sumOne(others), provider, 0, received(address(native)));
    }

    // -------------------------------------------------------------------------------------------------------------------- gas

    function testGas_sumUp() public {
        IComputeJobs.JobTerms[] memory terms = new IComputeJobs.JobTerms[](32);
        IComputeJobs.Signatures[] memory signatures = new IComputeJobs.Signatures[](32);
        for (uint256 i; i < terms.length; ++i) {
            terms[i] = termsOf(100, 100, 1);
            signatures[i] = signed(terms[i]);
        }
        jobs.openJobs(terms, signatures);
        vm.warp(block.timestamp + 600);
        jobs.settle(terms, new IComputeJobs.Result[](32));
        uint256 before = vm.snapshotState();
        fees.sumUp(terms);
        vm.snapshotGasLastCall("JobFees", "sumUp 32 jobs");
        vm.revertToState(before);
        fees.sumUp(one(terms[0]));
        vm.snapshotGasLastCall("JobFees", "sumUp 1 job");
    }
}
