// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title StorageFile: the account of one file. It is the client of the deals of all its shards, and holds their money at Rails.
/// @notice A clone for each bid. The owner may withdraw what is not reserved; nobody else ever takes anything out but by the rules below.
/// Healthy is a shard whose deal is not over. A shard is lost when its deal was terminated, or expired before it was active; it is a
/// job while fewer than `repairBelow` shards are healthy. The bounty rises linearly from the moment from which both hold. Of a shard whose
/// provider never became active it is at most half of the bond that the provider lost.
/// Reserved: what each lost shard's next deal will cost (remaining periods at the file's price, and a bond), bounties of open claims,
/// the reserve, the challenge budget; before the bid is filled everything, until the bid is no longer valid.
interface IStorageFile {
    enum ShardState {
        None,
        Live,
        Lost,
        Claimed,
        Ended // by the owner, or with the file
    }

    struct ShardAccount {
        ShardState state;
        uint64 dealId; // the last deal that was not a failed claim
        uint64 operatorId; // of that deal
        uint64 claimDealId; // while claimed
        uint64 claimOperatorId;
        uint64 lostAt; // when the loss was noted
        uint128 bountyMax;
        uint128 bounty; // fixed by the claim
        bytes32 networkPrefix; // where the bid asks for distinct networks
        bytes32 region; // where the bid bounds regions
    }

    /// What does not change over the file's life.
    struct Terms {
        address owner;
        uint8 count;
        uint8 needed;
        uint8 repairBelow; // 0: no repair
        bool distinctNetworks;
        uint8 regionMax;
        uint32 periods;
        address agent;
        bytes32 contentHash;
        uint128 bountyMax;
    }

    /// What changes.
    struct Account {
        uint64 endPeriod; // exclusive; 0: not filled
        uint8 healthy;
        uint64 belowSince; // when fewer than repairBelow shards became healthy, 0: enough are
        uint128 pricePerPeriod; // of a shard
        uint128 collateral; // of a shard
        uint128 reserve; // left
        uint128 challengeBudget; // left
        uint128 compensation; // collected, not spent on bounties
        uint128 bounties; // of open claims
    }

    struct Placement {
        uint64 dealId;
        uint64 operatorId;
        bytes32 networkPrefix;
        bytes32 region;
    }

    struct Job {
        uint8 shard;
        uint64 dealId; // the one that was lost
        uint32 periods;
        uint128 pricePerPeriod;
        uint128 collateral;
        uint128 bounty; // now
        uint128 bountyMax;
        uint64 risesFrom;
    }

    event FileFilled(uint64[] deals, uint64 endPeriod, uint128 pricePerPeriod);
    event AgentChanged(address agent);
    event ShardLost(uint8 indexed shard, uint64 indexed dealId, uint64 indexed operatorId, uint8 healthy);
    event ShardEnded(uint8 indexed shard, uint64 indexed dealId);
    event RepairClaimed(uint8 indexed shard, uint64 indexed dealId, uint64 indexed operatorId, uint128 bounty);
    event RepairFinished(uint8 indexed shard, uint64 indexed dealId, uint64 indexed operatorId, uint128 bounty, uint8 healthy);
    event ClaimFailed(uint8 indexed shard, uint64 indexed dealId, uint64 indexed operatorId);
    event CompensationCollected(uint256 amount);
    event Allotted(uint128 toReserve, uint128 toChallengeBudget);
    event Withdrawn(address indexed to, uint256 amount);

    error NotBook(address caller);
    error NotOwner(address caller);
    error NotOwnerOrAgent(address caller);
    error AlreadyMade();
    error NotFilled();
    error UnknownShard(uint8 shard);
    error WrongShardState(uint8 shard, ShardState got);
    error NotLost(uint8 shard, uint64 dealId);
    error EnoughHealthy(uint8 healthy, uint8 repairBelow);
    error TooLate(uint64 endPeriod, uint64 period);
    error NoOperator(address caller);
    error OperatorRefused(uint64 operatorId, string why);
    error ClaimNotFulfilled(uint8 shard, uint64 dealId);
    error ClaimNotOver(uint8 shard, uint64 dealId);
    error BudgetSpent(uint256 wanted, uint256 left);
    error Reserved(uint256 wanted, uint256 free);

    // -------------------------------------------------------------------------------------------------------- order book only

    function make(Terms calldata terms, uint128 reserve, uint128 challengeBudget) external;
    function fill(Placement[] calldata placements, uint64 endPeriod, uint128 pricePerPeriod, uint128 collateral) external;

    // ------------------------------------------------------------------------------------------------------------ the client

    /// @notice ERC-1271, for `Activation(uint64 dealId)` of this file's own deals and for nothing else. `signature` is
    /// - 65 bytes: the owner's or the agent's ECDSA signature of `digest` (an owner that is a contract: any length, by ERC-1271);
    /// - 32 bytes, abi.encode(uint64 dealId): the drawn checkers' verdict, recorded for that deal;
    /// - empty: only for a claimed repair, whose proof of possession says enough.
    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4);
    /// @notice Owner.
    function setAgent(address agent) external;
    /// @notice Owner or agent; paid out of the challenge budget.
    function challenge(uint8 shard) external;
    /// @notice Owner or agent; the bond of all leaves must be in the budget, what comes back of it is free.
    function demandBytes(uint8 shard, uint64 firstLeaf, uint32 count) external;
    /// @notice Owner: moves free money (anyone may deposit to the file's account at Rails) to the reserve and to the challenge budget.
    function allot(uint128 toReserve, uint128 toChallengeBudget) external;
    /// @notice Owner: gives up a shard.
    function endEarly(uint8 shard) external;
    /// @notice Owner: notes all losses, collects, and takes `amount` of what is free out to `to`.
    function withdraw(uint256 amount, address to) external;

    // ---------------------------------------------------------------------------------------------------------------- repair

    /// @notice Anyone: the shard's deal is over before the file.
    function noteLoss(uint8 shard) external;
    /// @notice A node key claims a lost shard: locks the claim bond, the collateral and the deal's bond; the deal is open from now on and
    /// must be active before the market's deadline. `cid` of the shard; `networkPrefix` as in an ask.
    function claimRepair(uint8 shard, bytes calldata cid, bytes32 networkPrefix) external returns (uint64 dealId);
    /// @notice Anyone: the claimed deal is active; the bounty goes to the operator's beneficiary (its account at Rails).
    function finishRepair(uint8 shard) external;
    /// @notice Anyone: the claimed deal was not active in time; the claim bond is lost, the operator is refused from now on.
    function failClaim(uint8 shard) external;
    /// @notice Anyone: brings compensation from the vault into the account.
    function collect() external returns (uint256 amount);

    // ----------------------------------------------------------------------------------------------------------------- views

    function terms() external view returns (Terms memory);
    function account() external view returns (Account memory);
    function shard(uint8 index) external view returns (ShardAccount memory);
    function shards() external view returns (ShardAccount[] memory);
    /// @notice Of the losses noted so far.
    function openJobs() external view returns (Job[] memory);
    /// @notice Lost a shard of this file, or failed to repair one: never taken again.
    function hasFailed(uint64 operatorId) external view returns (bool);
    function reserved() external view returns (uint256);
    /// @notice What the owner could withdraw now, losses that nobody has noted and compensation not collected left aside.
    function free() external view returns (uint256);
}
