// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title ReceiptCourt: stake behind the receipts that miners sign, and what takes it.
/// @notice A miner's operator locks a bond and so binds its node key: from then on receipts of this key convict it. A receipt is the project's
/// EIP-712 envelope of kind "inference", domain "Millrace Receipt" / "1" with this chain and this contract: one for another chain or
/// court is worth nothing here. What the contract decides itself, on the spot:
///   two receipts of one key with one receipt id that say different things of request, answer, model, counts or money;
///   one receipt with more output than agreed on, or a price above the voucher that covers it.
/// A payer's own word never convicts: what a payer has signed counts only as far as the miner's receipt says so too.
/// Everything else (a worse model, a wrong answer) goes to the jury: whoever challenges posts a bond and pays the jury. Guilty: the bond comes
/// back, and the miner is slashed; not guilty: the bond is the miner's; refused: the bond comes back. An acquittal ends one case and
/// shields nobody: another may be opened. For each receipt id a miner is slashed once, whatever the ways.
/// Rewards come out of the slash by the vault's waterfall and stay far below it; what a stolen node key can win by convicting itself is
/// `rewardMax` a receipt, and at most bond / slash of them.
/// A miner that leaves stays answerable for `leaveSeconds` and until its open cases are over; so does a key that was replaced.
interface IReceiptCourt {
    struct Config {
        uint128 bond; // locked for each miner
        uint128 slash; // for each receipt id
        uint128 caseBond; // of a challenger, in the network's token, from its account at Rails
        uint128 rewardMax;
        uint16 rewardBps; // of the slash, to who reports what the contract decides
        uint16 challengeBps; // of the slash, to a challenger whom the jury found right
        uint32 leaveSeconds;
    }

    struct Subject {
        uint256 operatorId;
        address miner;
        string model;
        bytes32 modelRoot;
    }

    struct Inputs {
        bytes32 receiptId;
        bytes32 requestHash;
        string path;
        uint64 units;
        uint64 outputUnitsMax;
        bytes32 channelId;
        uint128 voucher;
        bool zeroRetention;
        bool replayAllowed;
        bytes32 witnessNonce;
    }

    struct Outputs {
        bytes32 responseHash;
        bytes32 outputDigest;
        bytes32 witness;
        string unit;
        uint64 units;
        uint128 price;
        uint64 ttftUs;
        uint64 tpotUs;
        string end;
        uint64 finishedAt;
    }

    /// The envelope; its kind is always "inference".
    struct Receipt {
        Subject subject;
        Inputs inputs;
        Outputs outputs;
        string evidence;
        string profile;
    }

    struct Miner {
        address key; // 0: never enrolled or unlocked
        uint48 unlocksAt; // 0: in office
        uint32 openCases;
    }

    struct Case {
        address challenger;
        uint64 operatorId;
        bool closed;
        bytes32 receiptId;
    }

    enum Offence {
        Contradiction,
        UnitsAboveLimit,
        PriceAboveVoucher,
        JuryVerdict
    }

    event Enrolled(uint64 indexed operatorId, address indexed key, uint256 locked);
    event KeyReplaced(uint64 indexed operatorId, address indexed oldKey, address indexed newKey, uint256 oldUntil);
    event Left(uint64 indexed operatorId, uint48 unlocksAt);
    event Unlocked(uint64 indexed operatorId, uint256 amount);
    event Convicted(
        uint64 indexed operatorId, bytes32 indexed receiptId, Offence offence, address indexed reporter, uint256 amount, uint256 reward
    );
    event Challenged(uint256 indexed disputeId, uint64 indexed operatorId, bytes32 indexed receiptId, address challenger);
    event CaseClosed(uint256 indexed disputeId, uint64 indexed operatorId, uint256 ruling);

    error BadConfig(string field, uint256 got, uint256 limit);
    error NoOperator(address caller);
    error NotEnrolled(uint64 operatorId);
    error AlreadyLeft(uint64 operatorId, uint64 unlocksAt);
    error NotLeft(uint64 operatorId);
    error StillLocked(uint64 operatorId, uint64 unlocksAt, uint256 timestamp);
    error CasesOpen(uint64 operatorId, uint256 count);
    error SameKey(uint64 operatorId, address key);
    error KeyNotBound(uint256 operatorId, address key);
    error BadSignature(address expectedSigner);
    error NotSameReceipt(bytes32 receiptId, bytes32 otherId);
    error NoContradiction(bytes32 receiptId);
    error WithinLimits(bytes32 receiptId);
    error AlreadyPunished(uint64 operatorId, bytes32 receiptId);
    error NothingLocked(uint64 operatorId);
    error EvidenceTooLong(uint256 length, uint256 max);
    error UnknownCase(uint256 disputeId);
    error AlreadyClosed(uint256 disputeId);
    error NotArbitrator(address caller);

    /// @notice Node key: locks the bond, or what a slash took of it, and binds the key. After `leave` it comes back into office.
    function enrol(uint64 operatorId) external;
    /// @notice Anyone: binds the operator's present node key; the old one stays answerable for `leaveSeconds`.
    function replaceKey(uint64 operatorId) external;
    /// @notice Node key or owner.
    function leave(uint64 operatorId) external;
    /// @notice Anyone, `leaveSeconds` later and without open cases.
    function unlock(uint64 operatorId) external;

    /// @notice Anyone: two receipts of one key that contradict one another. The operator of the first is convicted.
    function reportContradiction(Receipt calldata one, bytes calldata signature, Receipt calldata other, bytes calldata otherSignature)
        external
        returns (uint256 reward);
    /// @notice Anyone: one receipt with counts above its own limits.
    function reportExcess(Receipt calldata receipt, bytes calldata signature) external returns (uint256 reward);
    /// @notice Anyone, with the jury's cost: opens a case. The bond is taken at Rails. More than the cost comes back through the jury.
    /// @param evidence where jurors read it (a CID or URL), at most 2,048 bytes
    function challenge(Receipt calldata receipt, bytes calldata signature, string calldata evidence)
        external
        payable
        returns (uint256 disputeId);
    /// @notice Anyone, while the case is open.
    function submitEvidence(uint256 disputeId, string calldata evidence) external;
    /// @notice Anyone, with the jury's cost of an appeal.
    function appeal(uint256 disputeId) external payable;

    /// @notice Whether an operator is in office with its whole bond locked, and `key` is its bound key: what gateways ask before they pay.
    function isBonded(uint64 operatorId, address key) external view returns (bool);
    /// @notice Whether receipts of a key convict an operator now.
    function isAnswerable(uint256 operatorId, address key) external view returns (bool);
    function isPunished(uint64 operatorId, bytes32 receiptId) external view returns (bool);
    function miner(uint64 operatorId) external view returns (Miner memory);
    function caseOf(uint256 disputeId) external view returns (Case memory);
    function digestOf(Receipt calldata receipt) external view returns (bytes32);
    function config() external view returns (Config memory);
}
