// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice What the possession contract tells the rewards, in the transaction of the proof or of the change itself.
interface IProofListener {
    function pieceInserted(uint64 operatorId, uint64 dealId) external;
    function pieceRemoved(uint64 operatorId, uint64 dealId) external;
    function periodProven(uint64 operatorId, uint64 period) external;
}

/// @notice Where fees on stored bytes were burnt, and what falls on one period of a deal.
interface IFeeBook {
    function feePerPeriod(uint64 dealId) external view returns (uint128);
    /// @notice Not 0 while the deal is an open claim of a repair, which it is when its piece first comes into a table.
    function claimOperator(uint64 dealId) external view returns (uint64);
}

/// @notice Where fees on served bytes were burnt: in all, by the receivers' settlements.
interface IFeeBurner {
    function feesBurntOf(address receiver) external view returns (uint256);
}

/// @title StorageRewards: what a reliable provider or retriever gets out of the network's emission, all of it on chain.
/// @notice A reward is a share, below one, of the fees that were burnt on the very demand that it rewards; bytes that nobody paid for earn
/// nothing. So whoever is its own client, under any number of names, burns more than it gets. Storage: with each proof, the burnt fee
/// that falls on the period of each deal in the table, times the share, times the operator's reliability: baseBps after a miss, growing
/// with each period proven in a row to the whole. A repair's deal earns none: the fee was burnt for the shard's first deal, and would
/// count twice where that one's piece is still proven; repairers are paid by bounty. Retrieval: with a call after a settlement, the fee burnt by it, times its share.
/// Rewards vest evenly over vestSeconds, counted from the end of the bucket of time in which they were earned.
/// @dev This is the module "rewards", which the emission policy mints to. What no demand has earned stays here; nobody can take it.
interface IStorageRewards is IProofListener {
    struct Config {
        uint16 storageShareBps; // of burnt fees; at most SHARE_MAX_BPS
        uint16 retrievalShareBps;
        uint16 baseBps; // reliability after a miss
        uint16 streakPeriods; // proven in a row until reliability is whole
        uint32 vestSeconds;
        uint32 bucketSeconds; // rewards of one bucket vest together
    }

    struct Record {
        uint64 rolledTo; // `ratePerPeriod` is that of this period
        uint64 lastChange; // latest period with which it changes, as known now
        uint64 provenThrough; // last proven period + 1
        uint32 streak; // periods proven in a row
        uint128 ratePerPeriod; // burnt fees that fall on the period
        uint256 earned; // base units, ever
    }

    event PointsAdded(
        uint64 indexed operatorId, uint64 indexed period, address indexed account, uint128 fees, uint16 reliabilityBps, uint256 reward
    );
    event RetrievalRewarded(address indexed account, uint256 fees, uint256 reward);
    event RewardClaimed(address indexed account, address to, uint256 amount);
    /// More was earned than the emission has brought so far; the rest is not owed.
    event RewardCut(address indexed account, uint256 earned, uint256 granted);

    error BadConfig(string field, uint256 got, uint256 limit);
    error NotPossession(address caller);
    error NothingVested(address account);

    /// @notice Anyone: brings an operator's rate forward by at most `periods`, after a pause that is too long for one proof.
    function catchUp(uint64 operatorId, uint64 periods) external;
    /// @notice Anyone: rewards what a receiver's settlements have burnt since the last time.
    function rewardRetrieval(address receiver) external returns (uint256 reward);
    /// @notice Pays what has vested of the caller's rewards.
    function claim(address to) external returns (uint256 amount);
    function vestedOf(address account) external view returns (uint256);
    /// @notice Granted and not yet claimed, vested or not.
    function owedTo(address account) external view returns (uint256);
    function recordOf(uint64 operatorId) external view returns (Record memory);
    function reliabilityBps(uint64 operatorId) external view returns (uint16);
    /// @notice Granted and not yet claimed, of all. Never more than the contract holds.
    function obligations() external view returns (uint256);
    function config() external view returns (Config memory);
}
