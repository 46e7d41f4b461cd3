// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ComputeJobs} from "./ComputeJobs.sol";
import {IComputeJobs} from "./IComputeJobs.sol";
import {IFeeSource} from "./IComputeRewards.sol";

/// @title JobFees: the fees that settled jobs have paid, in sums of many jobs of one operator (decision 0034). No owner, holds no money.
/// @notice ComputeJobs keeps a job's outcome and nothing of its terms, so anybody brings these again, in batches. They are believed for what
/// ComputeJobs says of their digest: that this job is settled, and how. A job is in one sum, once; a sum is one `id` for `feesOf` and never
/// changes. So all sums together are at most what ComputeJobs has handed to the auction: to the unit, once every settled job was brought.
/// @notice Of a job count the reservation fees of both sides, which are taken when it is opened and never return, and the stable fee where the
/// price was paid (Right, Canary). Elsewhere that fee has gone back to the renter. What auditors get is no fee.
contract JobFees is IFeeSource {
    using SafeCast for uint256;

    /// One word.
    struct Sum {
        uint64 operatorId;
        uint96 stableFees; // base units
        uint96 nativeFees;
    }

    ComputeJobs public immutable jobs;
    address private immutable stable;

    mapping(uint64 id => Sum) private _sums;
    /// @notice The sum that a job is in; 0 before it was brought.
    mapping(bytes32 jobId => uint64 id) public sumOf;
    /// @notice Sums so far, and the id of the last one.
    uint64 public sumCount;

    event FeesSummed(uint64 indexed operatorId, uint64 indexed id, bytes32[] jobIds, uint256 stableFees, uint256 nativeFees);

    error OtherOperator(bytes32 jobId, uint64 operatorId, uint64 expected);

    constructor(ComputeJobs jobs_) {
        (jobs, stable) = (jobs_, jobs_.stable());
    }

    /// @notice Anybody: makes a sum of the fees of settled jobs of one operator. Jobs that are in one already are passed over, so nobody can
    /// spoil a batch by bringing one of it. Reverts with WrongPhase for a job that is not settled, or that ComputeJobs does not know.
    /// @return id of the sum; 0 where no job was new
    function sumUp(IComputeJobs.JobTerms[] calldata terms) external returns (uint64 id) {
        id = sumCount + 1;
        bytes32[] memory jobIds = new bytes32[](terms.length);
        (uint256 count, uint256 stableFees, uint256 nativeFees) = (0, 0, 0);
        for (uint256 i; i < terms.length; ++i) {
            IComputeJobs.JobTerms calldata t = terms[i];
            bytes32 jobId = jobs.jobIdOf(t);
            if (t.operatorId != terms[0].operatorId) revert OtherOperator(jobId, t.operatorId, terms[0].operatorId);
            if (sumOf[jobId] != 0) continue;
            uint256 fees = _takenOf(jobId, t);
            (sumOf[jobId], jobIds[count++]) = (id, jobId);
            if (t.token == stable) stableFees += fees;
            else nativeFees += fees;
        }
        if (count == 0) return 0;
        assembly ("memory-safe") {
            mstore(jobIds, count) // those that were new
        }
        sumCount = id;
        _sums[id] = Sum(terms[0].operatorId, stableFees.toUint96(), nativeFees.toUint96());
        emit FeesSummed(terms[0].operatorId, id, jobIds, stableFees, nativeFees);
    }

    /// What ComputeJobs has handed to the auction of a job, by the rule that it has taken it by.
    function _takenOf(bytes32 jobId, IComputeJobs.JobTerms calldata t) private view returns (uint256) {
        IComputeJobs.Job memory j = jobs.job(jobId);
        if (j.phase != IComputeJobs.Phase.Settled) revert IComputeJobs.WrongPhase(jobId, j.phase, IComputeJobs.Phase.Settled);
        (uint256 renterFee, uint256 supplierFee, uint256 stableFee) = jobs.feesOn(t.token, t.price);
        bool isPaid = j.outcome == IComputeJobs.Outcome.Right || j.outcome == IComputeJobs.Outcome.Canary;
        return renterFee + supplierFee + (isPaid ? stableFee : 0);
    }

    /// @inheritdoc IFeeSource
    function feesOf(uint64 id) external view returns (uint64 operatorId, uint256 stableFees, uint256 nativeFees) {
        Sum storage s = _sums[id];
        return (s.operatorId, s.stableFees, s.nativeFees);
    }
}
