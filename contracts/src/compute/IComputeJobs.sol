// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title ComputeJobs: one run of one specification for a price, checked by drawn auditors (decisions 0029 and 0030).
/// @notice A job is the EIP-712 digest of its terms, signed by the renter and by the node key of the operator. Nothing else is stored of the
/// terms: whoever acts on a job brings them again, and `JobOpened` has them for everybody.
///
/// Life of a job, each step by batches:
///   open      anybody brings the signed terms: fees, price and audit fee leave the renter's account at the rails, collateral is locked
///   commit    the operator's node key, within `runSeconds`: root of the T + 1 leaves and digest of the output
///   draw      anybody, once the randomness of `seedTimeOf` is fixed: auditors, from the seats of the second before the commitment, and each
///             one's own segments (IAuditors.segmentsOf)
///   seal      each auditor (IAuditors.sealAudits), within `auditSeconds`, or until the last has sealed: hides what it found
///   reveal    anybody who knows it (IAuditors.revealAudits), within `openSeconds`, or until the last is revealed: Right; Wrong at a segment;
///             or a state Withheld
///   window    `challengeSeconds`: first `graceSeconds` in which a canary is opened; then as long for cases of auditors who found something;
///             then cases of anybody, at the modules `jobDisputes` and `stateDemands` of the registry
///   settle    anybody: pays once what is due, frees or slashes the collateral, writes the receipt's hash into the task log
///
/// Money: the price, less the supplier's reservation fee, is paid when nothing was found; it goes back to the renter when there was no result
/// in time, when the operator was convicted, or when auditors were missing and the terms accept no lower class. Of the audit fee each auditor
/// that revealed has its share, less one per cent for the canaries' pool; shares of others go back to the renter. Reservation fees do not return.
///
/// Auditors: one that reveals nothing, while another does, loses `silencePenalty`; one that accuses and opens no case, while nobody else proves the
/// accusation, loses as much and is not paid. Who says Withheld of what was delivered on demand loses nothing and is not paid: what is demanded at
/// once can be replayed before the seal. One that finds Right what it had drawn and what is proven wrong, or a canary's wrong segment, loses
/// `liePenalty`, part of it to the renter.
///
/// Canaries: `flagSeal` in the terms hides whether the job is one (`canarySeal`). The state hash of one of its leaves is then no hash of a
/// state, but `canaryStateHash(salt, leaf)`: whoever replays the segment that ends there sees it, nobody else can tell, and only who knew the
/// salt before the terms were signed can show it. So an operator cannot call a forgery a canary, and nobody a right result.
///
/// Evidence is what the receipt may claim: `ReputationOnly` wherever nothing was replayed, whatever the terms hoped for.
interface IComputeJobs {
    // ------------------------------------------------------------------------------------------------------------------- types

    /// How a result can be checked (EIP-712: uint8).
    enum Determinism {
        None, // not at all: no auditors
        Fingerprint, // compared within a calibrated threshold
        ExactOutput, // one segment, run again whole
        WasmStrict // segments, each can be run again alone
    }

    /// What runs a job, and runs it again (EIP-712: uint8).
    enum Engine {
        None, // of jobs that nobody audits
        Strict, // modules, segment by segment
        Module, // modules, whole, in memory
        Image // images, whole, where processes are isolated
    }

    /// What a receipt may claim.
    enum Evidence {
        ReputationOnly,
        Fingerprinted,
        Replayed
    }

    enum Phase {
        None,
        Running, // until the result is due
        Committed, // waits for the draw
        Sealing,
        Revealing,
        Window,
        Settled
    }

    enum Outcome {
        None,
        Right, // nothing was found
        Guilty, // forged, or states withheld
        Late, // no result in time
        Canary,
        NotAudited // auditors were missing, and the terms accept no lower class
    }

    /// What a case is about.
    enum Matter {
        Segment, // it ends wrongly
        State, // it is kept back
        Work // specification and contents are
    }

    enum Verdict {
        Refused, // nobody loses
        Guilty,
        NotGuilty
    }

    /// @notice EIP-712, domain "Millrace Compute Jobs" / "1", this chain and this contract:
    /// `JobTerms(address renter,uint64 operatorId,bytes32 specHash,address token,uint128 price,uint128 auditFee,uint128 collateral,`
    /// `uint8 determinism,uint8 engine,bool lowerable,uint32 segments,uint32 samples,uint8 auditors,uint48 openUntil,uint32 runSeconds,`
    /// `uint32 auditSeconds,uint32 challengeSeconds,bytes32 flagSeal,uint256 nonce)`. Signed by the renter (a key, or a contract by ERC-1271) and by the node key.
    struct JobTerms {
        address renter;
        uint64 operatorId;
        bytes32 specHash; // SHA-256 of the canonical specification
        address token; // native or stable
        uint128 price; // base units; at least 2
        uint128 auditFee; // all auditors together, beside the price; 0 without auditors
        uint128 collateral; // of the operator's stake; at least `collateralMin` of its class
        Determinism determinism;
        Engine engine; // that the specification needs: only auditors that have it are drawn; a result of terms that name another is wrong
        bool lowerable; // may become reputation only where jurors or auditors are missing
        uint32 segments; // T
        uint32 samples; // segments that each auditor replays; = segments while the operator is on probation
        uint8 auditors;
        uint48 openUntil; // the signatures are good before this time
        uint32 runSeconds; // from opening to commitment
        uint32 auditSeconds; // from the draw to the last seal
        uint32 challengeSeconds;
        bytes32 flagSeal;
        uint256 nonce; // makes equal terms different jobs
    }

    /// @notice What the operator commits to.
    struct Result {
        bytes32 root; // of the T + 1 leaves (Segments)
        bytes32 outputDigest; // SHA-256 of the canonical output
    }

    /// @notice State of a job, one word.
    struct Job {
        Phase phase; // as stored; `phaseOf` says what it is by now
        Evidence evidence; // at most
        Outcome outcome;
        bool guilty;
        bool doubtful; // no court could decide: nobody who accused is punished
        bool canary; // opened as one
        uint8 auditors;
        uint8 sealedCount;
        uint8 revealedCount;
        uint16 openCases;
        uint48 committedAt;
        uint48 until; // end of the present phase
        uint32 challengeSeconds;
        uint32 extraSeconds; // by which deliveries made the window longer
    }

    struct Signatures {
        bytes renter;
        bytes operator;
    }

    /// @notice Of the module `jobRules`, which has it.
    struct Config {
        uint128[4] collateralMin; // by Determinism
        uint128 nativeSegmentFeeMin; // least audit fee for each auditor and segment, in each token
        uint128 stableSegmentFeeMin;
        uint16 latePenaltyBps; // of the collateral
        uint16 rewardBps; // of the collateral of a convict, to who proved it
        uint16 compensationBps; // and to the renter; both together at most half
        uint16 makerBps; // of `liePenalty`, to a canary's renter; at most half
        uint8 jurorsMin; // operators with a juror's seat, other than the job's own, without which nothing can be disputed
        uint8 auditorsMin; // operators with an auditor's seat, likewise: the committee must be had beside the auditors
        uint32 drawDelay; // from the commitment to its randomness, at least
        uint32 seedQuantum;
        uint32 drawSeconds; // in which a draw that finds too few is tried again
        uint32 openSeconds; // for revealing
        uint32 graceSeconds;
        uint32 runSecondsMax;
        uint32 auditSecondsMin;
        uint32 auditSecondsMax;
        uint32 challengeSecondsMin; // at least 3 times graceSeconds
        uint32 challengeSecondsMax;
    }

    // ------------------------------------------------------------------------------------------------------------------ events

    event JobOpened(bytes32 indexed jobId, address indexed renter, uint64 indexed operatorId, JobTerms terms, uint48 dueAt);
    /// @notice The terms hoped for more: jurors or auditors are missing.
    event ClassLowered(bytes32 indexed jobId, Evidence evidence, uint256 jurors, uint256 auditors);
    event ResultCommitted(bytes32 indexed jobId, uint64 indexed operatorId, Result result, uint48 seedTime);
    event AuditorsDrawn(bytes32 indexed jobId, uint64[] auditors, uint48 sealUntil);
    /// @notice `until`: end of the challenge window, unless a delivery makes it longer.
    event WindowOpened(bytes32 indexed jobId, uint48 until);
    /// @notice A state was delivered, in the window, or the work, while auditors seal or in the window.
    event PhaseExtended(bytes32 indexed jobId, Phase phase, uint48 until);
    event CanaryOpened(bytes32 indexed jobId, uint32 leaf);
    event CaseOpened(bytes32 indexed jobId, address indexed court, address indexed accuser);
    event CaseClosed(bytes32 indexed jobId, address indexed court, Verdict verdict, address accuser);
    event AuditorPaid(bytes32 indexed jobId, uint64 indexed auditor, uint256 fee, uint256 jackpot);
    /// @notice `paid` to the operator, `returned` to the renter; `slashed` of the collateral.
    event JobSettled(
        bytes32 indexed jobId, Outcome outcome, Evidence evidence, bytes32 receiptHash, uint256 paid, uint256 returned, uint256 slashed
    );
    /// @notice The task log: `root` over the receipts of this transaction in the order of their JobSettled, `head` the chain up to here.
    event TasksLogged(uint256 indexed batch, bytes32 root, bytes32 head);

    // ------------------------------------------------------------------------------------------------------------------ errors

    error BadConfig(string field, uint256 got, uint256 limit);
    error BadTerms(string field, uint256 got, uint256 limit);
    error TermsExpired(uint48 openUntil, uint256 timestamp);
    error BadSignature(address expectedSigner);
    error OnProbation(uint64 operatorId, uint32 samples, uint32 segments);
    error TooFewForClass(uint256 jurors, uint256 jurorsMin, uint256 auditors, uint256 auditorsMin);
    error LengthMismatch(uint256 got, uint256 expected);
    error WrongPhase(bytes32 jobId, Phase phase, Phase expected);
    error TooEarly(bytes32 jobId, uint256 from, uint256 timestamp);
    error TooLate(bytes32 jobId, uint256 until, uint256 timestamp);
    error NotOperatorsNode(uint64 operatorId, address caller);
    error TooFewAuditors(bytes32 jobId, uint256 got, uint256 needed);
    error WrongResult(bytes32 jobId);
    error NotACanary(bytes32 jobId);
    error NotACourt(address caller);
    error NotAuditors(address caller);
    error NotYours(bytes32 jobId, uint256 turn, uint256 timestamp);
    error CasesOpen(bytes32 jobId, uint16 openCases);
    error AlreadySettled(bytes32 jobId);

    // ----------------------------------------------------------------------------------------------------------------- actions

    /// @notice Anybody. Jobs that are open already are passed over, so nobody can spoil a batch by bringing one of it.
    function openJobs(JobTerms[] calldata terms, Signatures[] calldata signatures) external returns (bytes32[] memory jobIds);
    /// @notice Node key of the operator.
    function commitResults(JobTerms[] calldata terms, Result[] calldata results) external;
    /// @notice Anybody, once the randomness is fixed; jobs that were drawn are passed over. Where too few auditors are to be had, it reverts until
    /// `drawSeconds` are over; then the job becomes `ReputationOnly`, or is not audited and ends without a price.
    /// A drawn auditor whose stake backs no more duties is waited for (IAuditors.Full): who fills it does not choose another.
    function drawAuditors(JobTerms[] calldata terms) external;
    /// @notice Anybody, within `graceSeconds` of the window: the leaf's state hash is `canaryStateHash(salt, leaf)`, its `chainHash` in the leaf.
    function openCanary(
        JobTerms calldata terms,
        Result calldata result,
        uint32 leaf,
        bytes32 chainHash,
        bytes32[] calldata proof,
        bytes32 salt
    ) external;
    /// @notice Anybody, when a job is over; those that are settled already are passed over. A job without a result has an empty one.
    function settle(JobTerms[] calldata terms, Result[] calldata results) external;

    // ------------------------------------------------------------------------------------------------------------ other modules

    /// @notice `auditors`, while auditors seal: one more has. With the last of them revealing begins.
    function noteSealed(bytes32 jobId) external;
    /// @notice `auditors`, while auditors reveal: one more has. With the last of them the window begins.
    function noteRevealed(bytes32 jobId) external;

    /// @notice A court of the registry, on behalf of `accuser`: the job waits for it.
    /// @param matter a segment: in the window, by turns; a state or the work: also while auditors replay, and by anybody at any time
    /// @return isAuditor `accuser` is the node key of one of the job's auditors: one that found something; of a state, its first demand; of the
    /// work, one that has not found Right
    function openCase(bytes32 jobId, address accuser, Matter matter) external returns (bool isAuditor);
    /// @notice The court that opened it, once. The first verdict Guilty decides the job, unless it was a canary; courts bring none before the
    /// time in which canaries are opened is over.
    /// @param segment what was found wrong: its auditors that said Right lied; type(uint32).max where it is not known
    /// @param extends NotGuilty because something was delivered: the window is open for another `challengeSeconds`
    /// @param workSeconds by which that is longer, since it was the work: who seals has as long from now on; 0 for a state
    function closeCase(bytes32 jobId, address accuser, Verdict verdict, uint32 segment, bool extends, uint32 workSeconds) external;

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @notice The EIP-712 digest of the terms.
    function jobIdOf(JobTerms calldata terms) external view returns (bytes32);
    /// @notice As jobIdOf; reverts with WrongResult unless it is what the operator committed to.
    function identify(JobTerms calldata terms, Result calldata result) external view returns (bytes32 jobId);
    function job(bytes32 jobId) external view returns (Job memory);
    /// @notice The phase by now, and when it ends (Settled: 0).
    function phaseOf(bytes32 jobId) external view returns (Phase phase, uint48 until);
    /// @notice Whose randomness draws the auditors of a job that has a result.
    function seedTimeOf(bytes32 jobId) external view returns (uint64);
    /// @notice keccak256(abi.encode(chainid, this, renter, nonce, salt)); a job that is no canary has any other word.
    function canarySeal(address renter, uint256 nonce, bytes32 salt) external view returns (bytes32);
    /// @notice keccak256(abi.encode("millrace canary", salt, leaf)).
    function canaryStateHash(bytes32 salt, uint32 leaf) external pure returns (bytes32);
    /// @notice Jobs that an operator has yet to have replayed whole: 10 at first and after each slash.
    function probationOf(uint64 operatorId) external view returns (uint256);
    /// @notice What canaries can win, by token.
    function canaryPool(address token) external view returns (uint256);
    /// @notice Held for jobs that are not settled, and for the pools, by token.
    function held(address token) external view returns (uint256);
    function taskLog() external view returns (uint256 batches, bytes32 head);
}
