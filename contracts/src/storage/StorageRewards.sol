// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IEmissionPolicy} from "../token/IEmissionPolicy.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageMarket} from "./IStorageMarket.sol";
import {IFeeBook, IFeeBurner, IProofListener, IStorageRewards} from "./IStorageRewards.sol";

/// @title StorageRewards: see IStorageRewards for the rules. No owner, no parameter that can change.
contract StorageRewards is IStorageRewards {
    using SafeERC20 for IERC20;

    uint256 private constant BPS = 10_000;
    /// @notice Of every burnt fee at least a tenth stays burnt.
    uint16 public constant SHARE_MAX_BPS = 9_000;

    /// Minting by time alone takes 80,000 after any pause (fuzzed); with a power module it may take more: then anyone mints beforehand.
    uint256 private constant MINT_GAS = 150_000;
    /// Periods that one proof brings the rate forward by; after a longer pause `catchUp` is called first. With it the listener at its
    /// worst fits the gas that ProofHooks gives it (contracts/test/rewards/rewards-invariant.t.sol).
    uint64 private constant ROLL_MAX = 32;

    /// One deal's part of an operator's rate: `fee` in each period of [from, to).
    struct Span {
        uint64 operatorId;
        uint64 from;
        uint64 to;
        uint128 fee;
    }

    struct Vesting {
        uint64 firstBucket; // all before it are in `settled`
        uint128 settled; // wholly vested
        uint128 claimed;
        uint128 granted; // ever
    }

    IRegistry public immutable registry;
    IOperators public immutable operators;
    IPossession public immutable possession;
    IStorageMarket public immutable market;
    IEmissionPolicy public immutable emission;
    IERC20 public immutable token;

    Config private _config; // written once, in the constructor
    mapping(uint64 operatorId => Record) private _records;
    /// How the rate changes when a period begins.
    mapping(uint64 operatorId => mapping(uint64 period => int256)) private _changes;
    mapping(uint64 dealId => Span) private _spans;
    mapping(address receiver => uint256) private _counted;
    mapping(address account => Vesting) private _vestings;
    mapping(address account => mapping(uint64 bucket => uint256)) private _buckets;
    /// @inheritdoc IStorageRewards
    uint256 public obligations;

    modifier onlyPossession() {
        if (msg.sender != address(possession)) revert NotPossession(msg.sender);
        _;
    }

    constructor(
        Config memory c,
        IRegistry registry_,
        IOperators operators_,
        IPossession possession_,
        IStorageMarket market_,
        IEmissionPolicy emission_
    ) {
        uint256 share = Math.max(c.storageShareBps, c.retrievalShareBps);
        if (share > SHARE_MAX_BPS) revert BadConfig("shareBps", share, SHARE_MAX_BPS);
        if (c.baseBps > BPS) revert BadConfig("baseBps", c.baseBps, BPS);
        if (c.streakPeriods == 0) revert BadConfig("streakPeriods", 0, 1);
        if (c.bucketSeconds == 0) revert BadConfig("bucketSeconds", 0, 1);
        if (c.vestSeconds < c.bucketSeconds) revert BadConfig("vestSeconds", c.vestSeconds, c.bucketSeconds);
        _config = c;
        registry = registry_;
        operators = operators_;
        possession = possession_;
        market = market_;
        emission = emission_;
        token = IERC20(emission_.token());
    }

    // ------------------------------------------------------------------------------------------------------------ storage

    /// @inheritdoc IProofListener
    function pieceInserted(uint64 operatorId, uint64 dealId) external onlyPossession {
        IFeeBook book = IFeeBook(registry.get("orderBook"));
        uint128 fee = book.feePerPeriod(dealId);
        if (fee == 0) return;
        IStorageMarket.Deal memory d = market.deal(dealId);
        // A repair, now and when it comes back: see `from` below.
        if (_spans[dealId].to == 0 && book.claimOperator(dealId) != 0) _spans[dealId].to = type(uint64).max;
        // A fee counts once for each period of the deal, however often the piece comes and goes: what was taken out is not made up for.
        uint64 from = uint64(Math.max(Math.max(_current() + 1, d.firstPeriod), _spans[dealId].to));
        if (from >= d.endPeriod) return;
        _spans[dealId] = Span(operatorId, from, d.endPeriod, fee);
        _change(operatorId, from, d.endPeriod, int256(uint256(fee)));
    }

    /// @inheritdoc IProofListener
    function pieceRemoved(uint64 operatorId, uint64 dealId) external onlyPossession {
        Span storage span = _spans[dealId];
        if (span.fee == 0 || span.operatorId != operatorId) return;
        uint64 to = span.to;
        uint64 end = uint64(Math.max(_current(), span.from));
        if (end >= to) return;
        span.to = end;
        _change(operatorId, end, to, -int256(uint256(span.fee)));
    }

    /// @inheritdoc IProofListener
    function periodProven(uint64 operatorId, uint64 period) external onlyPossession {
        Record storage r = _records[operatorId];
        uint128 fees = _rollTo(r, operatorId, period, ROLL_MAX) ? r.ratePerPeriod : 0;
        uint64 before = r.provenThrough;
        (uint64 unpaid,) = before == 0 ? (0, 0) : possession.misses(operatorId, before, period);
        uint32 streak = unpaid == 0 ? r.streak + 1 : 1;
        (r.streak, r.provenThrough) = (streak, period + 1);
        if (fees == 0) return;
        uint16 reliability = _reliabilityBps(streak);
        uint256 reward = uint256(fees) * _config.storageShareBps * reliability / (BPS * BPS);
        address account = operators.beneficiaryOf(operatorId);
        reward = _grant(account, reward);
        r.earned += reward;
        emit PointsAdded(operatorId, period, account, fees, reliability, reward);
    }

    /// @inheritdoc IStorageRewards
    function catchUp(uint64 operatorId, uint64 periods) external {
        _rollTo(_records[operatorId], operatorId, _current() - 1, periods);
    }

    function _change(uint64 operatorId, uint64 from, uint64 to, int256 fee) private {
        Record storage r = _records[operatorId];
        // The first deal, ever or since all others ended: nothing lies between.
        if (r.lastChange < from) (r.rolledTo, r.ratePerPeriod) = (from - 1, 0);
        if (to > r.lastChange) r.lastChange = to;
        // What is rolled already stays: an end in the past would never be seen.
        _changes[operatorId][uint64(Math.max(from, r.rolledTo + 1))] += fee;
        _changes[operatorId][to] -= fee;
    }

    /// Brings the rate to that of `period`, over at most `periods` of them; returns whether it got there.
    function _rollTo(Record storage r, uint64 operatorId, uint64 period, uint64 periods) private returns (bool) {
        (uint64 at, uint64 last) = (r.rolledTo, r.lastChange);
        if (last == 0 || at > period) return false;
        int256 rate = int256(uint256(r.ratePerPeriod));
        for (uint64 steps; at < period && at < last && steps < periods; ++steps) {
            rate += _changes[operatorId][++at];
        }
        if (at >= last) at = period; // nothing changes after it
        (r.rolledTo, r.ratePerPeriod) = (at, uint128(uint256(rate)));
        return at == period;
    }

    // ---------------------------------------------------------------------------------------------------------- retrieval

    /// @inheritdoc IStorageRewards
    function rewardRetrieval(address receiver) external returns (uint256 reward) {
        uint256 burnt = IFeeBurner(registry.get("channels")).feesBurntOf(receiver);
        uint256 fees = burnt - _counted[receiver];
        _counted[receiver] = burnt;
        reward = _grant(receiver, fees * _config.retrievalShareBps / BPS);
        emit RetrievalRewarded(receiver, fees, reward);
    }

    // ------------------------------------------------------------------------------------------------------------ vesting

    /// @inheritdoc IStorageRewards
    function claim(address to) external returns (uint256 amount) {
        Vesting storage v = _vestings[msg.sender];
        if (v.granted == 0) revert NothingVested(msg.sender);
        uint256 vested = _settle(msg.sender, v);
        amount = vested - v.claimed;
        if (amount == 0) revert NothingVested(msg.sender);
        v.claimed = uint128(vested);
        obligations -= amount;
        emit RewardClaimed(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @dev Grants what there is: mints what is due first, and owes nothing beyond what the contract holds.
    function _grant(address account, uint256 earned) private returns (uint256 granted) {
        if (earned == 0) return 0;
        uint256 available = token.balanceOf(address(this)) - obligations;
        if (available < earned) {
            // Bounded: a proof must not fail for it. Anyone may mint in a transaction of its own.
            try emission.mint{gas: MINT_GAS}() {} catch {}
            available = token.balanceOf(address(this)) - obligations;
        }
        granted = Math.min(earned, available);
        if (granted < earned) emit RewardCut(account, earned, granted);
        uint64 bucket = _bucket();
        Vesting storage v = _vestings[account];
        if (v.granted == 0) v.firstBucket = bucket;
        v.granted += uint128(granted);
        _buckets[account][bucket] += granted;
        obligations += granted;
    }

    /// Folds the buckets that have vested wholly, and returns what has vested of all.
    function _settle(address account, Vesting storage v) private returns (uint256 vested) {
        uint64 wholly = _whollyVested();
        uint64 bucket = v.firstBucket;
        uint256 settled = v.settled;
        for (; bucket < wholly; ++bucket) {
            settled += _buckets[account][bucket];
        }
        (v.firstBucket, v.settled) = (bucket, uint128(settled));
        return settled + _vestingNow(account, bucket);
    }

    function _vestingNow(address account, uint64 bucket) private view returns (uint256 vested) {
        (uint256 length, uint256 whole, uint64 last) = (_config.bucketSeconds, _config.vestSeconds, _bucket());
        for (; bucket < last; ++bucket) {
            uint256 since = Math.min(block.timestamp - (bucket + 1) * length, whole);
            vested += _buckets[account][bucket] * since / whole;
        }
    }

    function _bucket() private view returns (uint64) {
        return uint64(block.timestamp / _config.bucketSeconds);
    }

    /// Buckets before it ended vestSeconds ago or earlier.
    function _whollyVested() private view returns (uint64) {
        return uint64((block.timestamp - _config.vestSeconds) / _config.bucketSeconds);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IStorageRewards
    function vestedOf(address account) external view returns (uint256 vested) {
        Vesting storage v = _vestings[account];
        if (v.granted == 0) return 0;
        uint64 bucket = v.firstBucket;
        vested = v.settled;
        for (uint64 wholly = _whollyVested(); bucket < wholly; ++bucket) {
            vested += _buckets[account][bucket];
        }
        return vested + _vestingNow(account, bucket) - v.claimed;
    }

    /// @inheritdoc IStorageRewards
    function owedTo(address account) external view returns (uint256) {
        Vesting storage v = _vestings[account];
        return v.granted - v.claimed;
    }

    /// @inheritdoc IStorageRewards
    function recordOf(uint64 operatorId) external view returns (Record memory) {
        return _records[operatorId];
    }

    /// @inheritdoc IStorageRewards
    function reliabilityBps(uint64 operatorId) external view returns (uint16) {
        return _reliabilityBps(_records[operatorId].streak);
    }

    /// @inheritdoc IStorageRewards
    function config() external view returns (Config memory) {
        return _config;
    }

    function _reliabilityBps(uint256 streak) private view returns (uint16) {
        if (streak == 0) return 0;
        (uint256 base, uint256 whole) = (_config.baseBps, _config.streakPeriods);
        return uint16(base + (BPS - base) * (Math.min(streak, whole + 1) - 1) / whole);
    }

    function _current() private view returns (uint64) {
        return possession.periodAt(block.timestamp);
    }
}
