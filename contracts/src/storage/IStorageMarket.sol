// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title StorageMarket: deals signed by both sides, their life, their money. Paid and secured in the network's token.
/// @notice Life: open (recorded, escrow and collateral held) -> activate (possession proof from a seed later than the record, and the
/// client's acknowledgement that the data can be read) -> paid for every proven period -> ended, or terminated (lost, faulted too
/// long, challenge unanswered, table failed, provider left): the remaining collateral is slashed and the client compensated.
/// An open deal that is not active at its deadline: both sides lose `bond`, nobody is slashed.
interface IStorageMarket {
    struct Config {
        uint32 activationDelay; // seconds between record and seed time
        uint32 seedQuantum; // seed times are multiples of it, so that many deals share one
        uint32 activationDeadline; // seconds after the record
        uint8 activationLeaves; // leaves opened at activation, recovery and targeted challenge
        uint32 challengeWindow; // seconds after the seed time
        uint128 challengeBond;
        uint16 faultFeeBps; // of collateral per charged missed period
        uint16 declaredFaultFeeBps; // of collateral per period while a fault is declared
        uint16 maxFaultPeriods;
        uint16 earlyEndFeeBps; // of the remaining price, paid by a client who ends early
        uint16 leaveFeeBps; // of collateral, slashed when the provider ends early
        uint16 reporterRewardBps; // of the slash
        uint128 reporterRewardMax;
        uint32 replacementPeriods; // cost of replacing a copy = price * this
        uint32 minPeriods;
        uint32 maxPeriods;
        uint128 minBond;
    }

    /// What a desk has agreed for both sides. At the deal desk it is the EIP-712 message that client and node key sign (IDealDesk).
    struct DealTerms {
        address client;
        uint64 operatorId;
        bytes32 pieceRoot; // CommP
        uint8 pieceHeight; // CommP tree has 2^height leaves of 32 bytes
        uint64 rawSize; // payload bytes before fr32 padding
        bytes32 contentHash; // keccak256 of the binary root CID
        uint32 periods;
        uint128 pricePerPeriod;
        uint128 collateral;
        uint128 bond;
        uint256 clientNonce;
        uint256 providerNonce;
        uint64 expiry; // the offer, not the deal
    }

    enum State {
        None,
        Open,
        Active,
        Faulty, // declared
        Ended, // over, collateral still locked until drop
        Dropped, // over and out of the table
        Expired, // never became active
        Terminated
    }

    enum Cause {
        Lost, // surrendered by the provider
        FaultTooLong,
        ChallengeUnanswered,
        TableFailed,
        ProviderLeft
    }

    struct Deal {
        address client;
        uint64 operatorId;
        State state;
        bytes32 pieceRoot;
        uint8 pieceHeight;
        uint64 leaves;
        uint64 rawSize;
        bytes32 contentHash;
        uint64 openedAt;
        uint64 firstPeriod;
        uint64 endPeriod; // exclusive
        uint64 feesTo; // fault fees are taken for periods < feesTo
        uint64 faultySince; // first period of a declared fault, 0: none
        uint64 resumesAt; // after a recovered fault: first period that is paid again
        uint64 challengedAt; // seed time of the open challenge or demand, 0: none
        uint64 demandedFrom; // first leaf of the open demand for bytes
        uint32 demanded; // leaves; 0: the open challenge draws its leaves by lot
        uint32 slot; // in the piece table; type(uint32).max: not in it
        uint128 pricePerPeriod;
        uint128 collateral; // as agreed; the weight in the table
        uint128 locked; // what is left of it
        uint128 bond;
        uint128 earlyEndFee; // promised to the provider by a client who ended early
        bool endsEarly;
        uint256 railId;
        uint256 challengeRailId; // holds the bond of the open challenge
    }

    event DealOpened(uint64 indexed dealId, uint64 indexed operatorId, bytes32 indexed contentHash, address client, bytes32 pieceRoot, uint64 rawSize, uint32 periods, uint128 pricePerPeriod, uint128 collateral, bytes cid);
    event DealOfClient(address indexed client, uint64 indexed dealId);
    event DealActivated(uint64 indexed dealId, uint64 indexed operatorId, uint64 firstPeriod, uint64 endPeriod, uint32 slot);
    event DealExpired(uint64 indexed dealId, uint128 bondLost);
    event DealExtended(uint64 indexed dealId, uint64 endPeriod, uint128 pricePerPeriod);
    event DealEndsEarly(uint64 indexed dealId, uint64 endPeriod, uint128 fee);
    event DealEnded(uint64 indexed dealId, uint64 endPeriod, uint128 fee);
    event DealDropped(uint64 indexed dealId, uint64 indexed operatorId, uint32 slot);
    event DealTerminated(uint64 indexed dealId, uint64 indexed operatorId, Cause cause, uint64 period, uint256 slashed, uint256 compensation, uint256 reward, uint256 refunded);
    event FaultDeclared(uint64 indexed dealId, uint64 period);
    event FaultRecovered(uint64 indexed dealId, uint64 period);
    event FaultFee(uint64 indexed dealId, uint64 chargedPeriods, uint256 slashed);
    /// `demanded` leaves from `firstLeaf` must be published, or, when it is 0, `activationLeaves` drawn by lot be opened.
    event Challenged(uint64 indexed dealId, uint64 indexed operatorId, uint64 seedTime, uint64 deadline, uint64 firstLeaf, uint32 demanded);
    event ChallengeAnswered(uint64 indexed dealId);

    error NotDesk(address caller);
    error BadSignature(address expectedSigner);
    error BadTerms(string field, uint256 got, uint256 limit);
    error WrongCid(bytes32 got, bytes32 expected);
    error UnknownDeal(uint64 dealId);
    error WrongState(uint64 dealId, State got);
    error NotClient(uint64 dealId, address caller);
    error NotProvider(uint64 dealId, address caller);
    error DeadlinePassed(uint64 deadline, uint256 timestamp);
    error DeadlineNotReached(uint64 deadline, uint256 timestamp);
    error NoChallengeOpen(uint64 dealId);
    error ChallengeOpen(uint64 dealId);
    error SeedTooOld(uint64 seedTime, uint64 needed);
    error NothingToTerminate(uint64 dealId);
    /// New deals and extensions are made at the market that the registry names.
    error MarketReplaced(address successor);
    error ProofOutstanding(uint64 operatorId, uint64 period);
    /// Price, collateral and compensation compare only in one token.
    error WrongToken(address got, address stakeToken);

    /// @notice Called by the modules registered as "dealDesk" and "orderBook", which answer for the consent of both sides. `secured`: the
    /// desk has handed over (StakeVault.giveLock) the collateral and the bond, which it held locked.
    function open(DealTerms calldata terms, bytes calldata cid, bool secured) external returns (uint64 dealId);
    /// @notice Node key. `acknowledgement` is the client's EIP-712 `Activation(uint64 dealId)`.
    function activate(uint64 dealId, bytes calldata acknowledgement, bytes calldata openings, uint32 slot, bytes calldata tablePath) external;
    function expire(uint64 dealId) external;
    /// @notice Deal desk only: `periods` more at the same price.
    function extend(uint64 dealId, uint32 periods) external;
    function endEarly(uint64 dealId) external;
    /// @notice Anyone: pays for proven periods, returns money of unproven ones, takes fault fees (burnt), ends a deal whose time is over.
    function settle(uint64 dealId) external;
    /// @notice Takes a deal that is over out of the table and frees its collateral. Node key; from `endPeriod + maxFaultPeriods` on anyone
    /// (the path is public), so that no operator that is gone keeps a market that was replaced from being retired.
    function drop(uint64 dealId, bytes calldata tablePath) external;
    function declareFault(uint64 dealId, bytes calldata tablePath) external;
    /// @notice Node key; the leaves are drawn from `recentSeedTime()`, which must be later than the declaration.
    function recoverFault(uint64 dealId, bytes calldata openings, uint32 slot, bytes calldata tablePath) external;
    /// @notice Node key admits that the data is gone: terminated at once, all collateral slashed.
    function surrender(uint64 dealId) external;
    /// @notice Node key leaves while it still holds the data, which it proves by leaves drawn from `recentSeedTime()`: only the leave fee is slashed.
    /// Refused while the operator has an open miss, and from the freeze on until the period is proven.
    function leave(uint64 dealId, bytes calldata openings) external;
    /// @notice Client only; a bond is taken from its account at Rails: to the provider when answered, back when not.
    function challenge(uint64 dealId) external;
    /// @notice Client only: the provider must publish `count` leaves in its answer, so that a client whom it does not serve has its bytes all
    /// the same. The bond is `challengeBond` for each leaf.
    function demandBytes(uint64 dealId, uint64 firstLeaf, uint32 count) external;
    function answer(uint64 dealId, bytes calldata openings) external;
    /// @notice Anyone: ends a deal whose fault, challenge or table is beyond mending.
    function terminate(uint64 dealId) external;

    function deal(uint64 dealId) external view returns (Deal memory);
    function dealCount() external view returns (uint64);
    function isOver(uint64 dealId) external view returns (bool);
    function activationSeedTime(uint64 dealId) external view returns (uint64);
    /// @notice Seed time of the latest period whose seed time has been reached.
    function recentSeedTime() external view returns (uint64);
    /// @notice EIP-712 domain "Millrace Storage" / "1" of this contract: every signature about its deals is bound to it.
    function domainSeparator() external view returns (bytes32);
    function config() external view returns (Config memory);
}
