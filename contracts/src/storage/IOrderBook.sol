// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStorageMarket} from "./IStorageMarket.sol";

/// @title OrderBook: asks and bids that are funded when they are posted, batches that clear at one price.
/// @notice Prices and collateral are base units of the network's token per GiB (2^30 payload bytes) and, for prices, per period of the
/// possession contract. Of a shard: pricePerPeriod = max(1, ceil(shardSize * price / 2^30)), collateral = max(1, ceil(shardSize *
/// bid.collateralPerGiB / 2^30)), feePerPeriod = floor(pricePerPeriod * feeBps / 10,000).
/// Time: batch b collects orders in [start(b), start(b + 1)), start(b) = genesis + b * batchSeconds. Its matching is submitted in
/// [start(b + 1), start(b + 1) + matchSeconds) and settled from then until start(b + 2). An order serves batch b when it was posted before
/// start(b + 1) and is valid until start(b + 2) at least; what is cancelled is valid until the end of the running batch, so that a
/// matching already under way keeps it. Nothing that an order depends on changes between the submission and the end of the settlement.
/// EIP-712 domain "Millrace Orders" / "1" of this contract.
interface IOrderBook {
    struct Config {
        uint64 genesis;
        uint32 batchSeconds;
        uint32 matchSeconds; // of the batch's seconds, for submissions; the rest is for settlement
        uint16 feeBps; // of the price, burnt when a bid is filled
        uint32 bountySeconds; // a repair's bounty rises from nothing to its maximum in this time
        uint128 dealBond; // of each side, for each deal
        uint128 claimBond; // of a repairer; at least twice dealBond
        uint128 matcherTip; // for each filled bid, out of the bid
    }

    /// A provider's offer of capacity; EIP-712 message, signed by the node key.
    struct Ask {
        uint64 operatorId;
        uint128 minPrice; // per GiB and period
        uint128 collateralPerGiB; // the most that a bid may demand
        uint64 capacityBytes;
        uint64 minBytes; // of a piece
        uint64 maxBytes;
        uint32 minPeriods;
        uint32 maxPeriods;
        uint32 maxDeals;
        bytes32 networkPrefix; // as the node declares it, for example keccak256 of its /16
        uint256 nonce;
        uint64 expiry;
    }

    /// A client's order to store one file as `count` shards of which `needed` give it back; EIP-712 message, signed by the client (EOA or
    /// ERC-1271). All shards have one size and one tree height (erasure coding makes them equal); copies are `needed` 1.
    struct Bid {
        address client; // owner of the file
        address agent; // may acknowledge and challenge in the owner's name; zero: none
        bytes32 contentHash; // keccak256 of the whole file's root CID
        bytes32 shardsHash; // keccak256(abi.encode(Shard[]))
        uint64 shardSize; // payload bytes of each shard
        uint8 pieceHeight;
        uint8 count;
        uint8 needed;
        uint8 repairBelow; // jobs are open while fewer shards than this are healthy; needed < repairBelow <= count, or 0: no repair
        uint32 periods;
        uint128 maxPrice; // per GiB and period
        uint128 collateralPerGiB;
        bool distinctNetworks; // no two shards in one declared network prefix
        uint8 regionMax; // shards in one declared region; 0: any number
        bytes32 excludedHash; // keccak256(abi.encode(uint64[])) of operators that must not be taken
        uint128 reserve; // for bounties
        uint128 bountyMax; // for one repair; less than bountyLimit(collateral of a shard)
        uint128 challengeBudget;
        uint256 nonce;
        uint64 expiry;
    }

    struct Shard {
        bytes32 pieceRoot; // CommP
        bytes cid; // root CID of the shard's CAR
    }

    /// Which asks fill which bids. Ids ascend strictly; every ask is used.
    struct Matching {
        uint64[] bids;
        uint64[] asks;
        bytes assignment; // for each bid in turn, for each of its shards: index in `asks`, two bytes, big endian
    }

    struct AskState {
        uint64 operatorId; // 0: unknown
        uint64 postedAt;
        uint64 validUntil; // exclusive
        uint32 minPeriods;
        uint32 maxPeriods;
        uint128 minPrice;
        uint128 collateralPerGiB;
        uint64 freeBytes;
        uint64 minBytes;
        uint64 maxBytes;
        uint32 freeDeals;
        uint128 locked; // in the vault, for this ask
        bytes32 networkPrefix;
        bytes32 region; // of the operator when the ask was posted
    }

    struct BidState {
        address file; // 0: unknown
        bool filled;
        uint8 count;
        uint8 pieceHeight;
        uint8 regionMax;
        bool distinctNetworks;
        uint32 periods;
        uint128 maxPrice;
        uint128 collateralPerGiB;
        uint64 shardSize;
        uint64 postedAt;
        uint64 validUntil; // exclusive
        bytes32 shardsHash;
        uint64[] excluded;
    }

    /// The best submission of a batch so far.
    struct Best {
        address submitter; // 0: none
        bool cleared; // the first bid of it has been settled
        uint64 sizeBytes; // of all shards
        uint256 score;
        uint128 price;
        bytes32 matchingHash; // keccak256(abi.encode(Matching))
    }

    event AskPosted(uint64 indexed askId, uint64 indexed operatorId, Ask ask, bytes32 region, uint128 locked);
    event AskCancelled(uint64 indexed askId, uint64 validUntil);
    event AskReleased(uint64 indexed askId, uint64 indexed operatorId, uint128 unlocked);
    /// The index from a file's root CID to its shards: whoever knows the CID finds all others here.
    event BidPosted(
        uint64 indexed bidId,
        address indexed client,
        bytes32 indexed contentHash,
        address file,
        Bid bid,
        bytes cid,
        Shard[] shards,
        uint64[] excluded
    );
    event BidCancelled(uint64 indexed bidId, uint64 validUntil);
    event NonceCancelled(address indexed signer, uint256 nonce);
    event MatchingSubmitted(uint64 indexed batch, address indexed submitter, uint256 score, uint128 price, Matching matching);
    /// The public series of prices. Once for each batch, with its first settlement. `sizeBytes`: of all its shards.
    event BatchCleared(uint64 indexed batch, uint128 price, uint256 sizeBytes, uint256 score, address submitter, uint64[] bids);
    event BidFilled(uint64 indexed bidId, uint64 indexed batch, address indexed file, uint128 price, uint64[] deals, uint256 feeBurnt);
    event ClaimOpened(address indexed file, uint64 indexed operatorId, uint64 indexed dealId, uint128 bond);
    event ClaimClosed(address indexed file, uint64 indexed operatorId, uint64 indexed dealId, bool fulfilled);

    error BadConfig(string field, uint256 got, uint256 limit);
    error BadOrder(string field, uint256 got, uint256 limit);
    error BadSignature(address expectedSigner);
    error OrderExpired(uint64 expiry, uint256 timestamp);
    error NonceUsed(address signer, uint256 nonce);
    error HashMismatch(string field, bytes32 got, bytes32 expected);
    error UnknownAsk(uint64 askId);
    error UnknownBid(uint64 bidId);
    error NotOperator(uint64 operatorId, address caller);
    error NotClient(uint64 bidId, address caller);
    error NotFile(address caller);
    error StillUsable(uint64 validUntil, uint256 timestamp);
    error NothingLocked(uint64 askId);
    error BidAlreadyFilled(uint64 bidId);
    error OutsideWindow(uint256 timestamp, uint64 from, uint64 to);
    error NotBetter(uint256 score, uint256 best);
    error NotTheBest(bytes32 got, bytes32 expected);
    error NothingMatched();
    error NotAscending(uint64 id, uint64 previous);
    error AssignmentLength(uint256 got, uint256 expected);
    error UnknownIndex(uint256 index, uint256 count);
    error AskUnused(uint64 askId);
    /// An order that the batch cannot have: posted after the close, or not valid until its end.
    error NotInBatch(uint64 orderId, uint64 postedAt, uint64 validUntil);
    error PriceCrossed(uint128 highestAsk, uint128 lowestBid);
    error DoesNotFit(uint64 bidId, uint64 askId, string what);
    /// Two shards of one bid would depend on one party or network, or too many on one region.
    error NotDiverse(uint64 bidId, uint64 askId, uint64 otherAskId, string what);
    error OperatorExcluded(uint64 bidId, uint64 operatorId);

    // ------------------------------------------------------------------------------------------------------------------ orders

    /// @notice Anyone brings a signed ask; locks ceil(capacity * collateralPerGiB / 2^30) + maxDeals * (dealBond + 1) of the operator's stake.
    function postAsk(Ask calldata ask, bytes calldata signature) external returns (uint64 askId);
    /// @notice Node key or owner; valid until the end of the running batch.
    function cancelAsk(uint64 askId) external;
    /// @notice Anyone: unlocks what is left of an ask that no batch can use any more.
    function releaseAsk(uint64 askId) external;
    /// @notice Anyone brings a signed bid. Makes the file's account (IStorageFile) and moves `bidCost` to it from the client's account at
    /// Rails; the client has approved the order book there. `cid`: the whole file's root CID.
    function postBid(Bid calldata bid, uint64[] calldata excluded, Shard[] calldata shards, bytes calldata cid, bytes calldata signature)
        external
        returns (uint64 bidId, address file);
    /// @notice Client; valid until the end of the running batch, then the file's money is free (IStorageFile.withdraw).
    function cancelBid(uint64 bidId) external;
    /// @notice A signed order that has not been posted yet becomes worthless.
    function cancelNonce(uint256 nonce) external;

    // ----------------------------------------------------------------------------------------------------------------- batches

    /// @notice Anyone, in the batch's window. Kept when its score is greater than the best: sum over all shards of
    /// shardSize * periods * (bid - ask + 1). The 1 makes a trade without surplus count, so that none is left out for nothing.
    function submit(uint64 batch, Matching calldata matching) external;
    /// @notice Anyone: opens all deals of the bid at `bidIndex` of the best matching.
    function settle(uint64 batch, Matching calldata matching, uint256 bidIndex, Shard[] calldata shards) external;

    // ------------------------------------------------------------------------------------------------------------- files only

    /// @notice Called by a file whose lost shard `operatorId` has claimed: locks the claim bond, opens the deal.
    function openClaim(IStorageMarket.DealTerms calldata terms, bytes calldata cid) external returns (uint64 dealId);
    /// @notice Called by a file: the bond of the claim comes back, or is slashed and the file compensated for its own bond.
    function closeClaim(uint64 dealId, bool fulfilled) external;

    // ------------------------------------------------------------------------------------------------------------------- views

    function config() external view returns (Config memory);
    function ask(uint64 askId) external view returns (AskState memory);
    function bid(uint64 bidId) external view returns (BidState memory);
    function best(uint64 batch) external view returns (Best memory);
    function askCount() external view returns (uint64);
    function bidCount() external view returns (uint64);
    /// @return 0 when it is no file of this book
    function bidOfFile(address file) external view returns (uint64);
    /// @return 0 unless the deal is an open claim of a repair
    function claimOperator(uint64 dealId) external view returns (uint64);
    /// @notice Where the file of a bid is, or will be.
    function fileAddress(Bid calldata bid) external view returns (address);
    function fileImplementation() external view returns (address);
    /// @notice What posting takes from the client: price at maxPrice, bonds, fee, tip, reserve and challenge budget.
    function bidCost(Bid calldata bid) external view returns (uint256);
    function askLock(Ask calldata ask) external view returns (uint256);
    /// @notice A bid's bountyMax must be below it: a provider that breaks a shard loses at least as much.
    function bountyLimit(uint128 collateral) external view returns (uint128);
    /// @notice Of the fee that was burnt when the file was filled, what falls on one period of this deal; 0 for deals of others.
    function feePerPeriod(uint64 dealId) external view returns (uint128);
    function batchAt(uint256 timestamp) external view returns (uint64);
    function batchStart(uint64 batch) external view returns (uint64);
    function isNonceUsed(address signer, uint256 nonce) external view returns (bool);
    function askDigest(Ask calldata ask) external view returns (bytes32);
    function bidDigest(Bid calldata bid) external view returns (bytes32);
}
