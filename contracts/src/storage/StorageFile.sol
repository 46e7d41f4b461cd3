// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ICheckers} from "./ICheckers.sol";
import {IOrderBook} from "./IOrderBook.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageFile} from "./IStorageFile.sol";
import {IStorageMarket} from "./IStorageMarket.sol";
import {MatchingRules} from "./MatchingRules.sol";

/// @title StorageFile: see IStorageFile for the rules. The implementation of all clones of one order book.
/// @notice All of the file's money is its account at Rails (and, until `collect`, its claim at StakeVault); this contract holds nothing.
contract StorageFile is IStorageFile, IERC1271 {
    bytes32 private constant ACTIVATION_TYPEHASH = keccak256("Activation(uint64 dealId)");

    IOrderBook public immutable book;
    IStorageMarket public immutable market;
    IPossession public immutable possession;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    IRails public immutable rails;
    ICheckers public immutable checkers;
    address public immutable token;
    uint128 private immutable _challengeBond;
    uint32 private immutable _periodsMin;

    Terms private _terms;
    Account private _account;
    mapping(uint8 index => ShardAccount) private _shards;
    /// @inheritdoc IStorageFile
    mapping(uint64 operatorId => bool) public hasFailed;

    modifier onlyBook() {
        if (msg.sender != address(book)) revert NotBook(msg.sender);
        _;
    }

    modifier onlyOwner() {
        if (msg.sender != _terms.owner) revert NotOwner(msg.sender);
        _;
    }

    modifier onlyOwnerOrAgent() {
        if (msg.sender != _terms.owner && msg.sender != _terms.agent) revert NotOwnerOrAgent(msg.sender);
        _;
    }

    constructor(
        IOrderBook book_,
        IStorageMarket market_,
        IPossession possession_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        ICheckers checkers_
    ) {
        book = book_;
        market = market_;
        possession = possession_;
        operators = operators_;
        stakeVault = stakeVault_;
        rails = rails_;
        checkers = checkers_;
        token = stakeVault_.stakeToken();
        IStorageMarket.Config memory c = market_.config();
        (_challengeBond, _periodsMin) = (c.challengeBond, c.minPeriods);
    }

    // -------------------------------------------------------------------------------------------------------- order book only

    /// @inheritdoc IStorageFile
    function make(Terms calldata t, uint128 reserve, uint128 challengeBudget) external onlyBook {
        if (_terms.owner != address(0)) revert AlreadyMade();
        _terms = t;
        (_account.reserve, _account.challengeBudget) = (reserve, challengeBudget);
        rails.approve(address(market), token, type(uint256).max);
        rails.approve(address(book), token, type(uint256).max);
    }

    /// @inheritdoc IStorageFile
    function fill(Placement[] calldata placements, uint64 endPeriod, uint128 pricePerPeriod, uint128 collateral) external onlyBook {
        if (_account.endPeriod != 0) revert AlreadyMade();
        (_account.endPeriod, _account.healthy) = (endPeriod, uint8(placements.length));
        (_account.pricePerPeriod, _account.collateral) = (pricePerPeriod, collateral);
        uint64[] memory deals = new uint64[](placements.length);
        for (uint8 i; i < placements.length; ++i) {
            Placement calldata p = placements[i];
            ShardAccount storage s = _shards[i];
            (s.state, s.dealId, s.operatorId) = (ShardState.Live, p.dealId, p.operatorId);
            _place(s, p.networkPrefix, p.region);
            deals[i] = p.dealId;
        }
        emit FileFilled(deals, endPeriod, pricePerPeriod);
    }

    function _place(ShardAccount storage s, bytes32 networkPrefix, bytes32 region) private {
        if (_terms.distinctNetworks) s.networkPrefix = networkPrefix;
        if (_terms.regionMax != 0) s.region = region;
    }

    // ------------------------------------------------------------------------------------------------------------ the client

    /// @inheritdoc IStorageFile
    function isValidSignature(bytes32 digest, bytes calldata signature) external view override(IERC1271, IStorageFile) returns (bytes4) {
        return _accepts(digest, signature) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }

    function _accepts(bytes32 digest, bytes calldata signature) private view returns (bool) {
        (uint64 dealId, bool claimed) = _dealOfDigest(digest);
        if (dealId == 0) return false;
        if (signature.length == 0) return claimed;
        if (signature.length == 32) return uint256(bytes32(signature)) == dealId && checkers.hasVerdict(dealId);
        address agent = _terms.agent;
        if (SignatureChecker.isValidSignatureNowCalldata(_terms.owner, digest, signature)) return true;
        return agent != address(0) && SignatureChecker.isValidSignatureNowCalldata(agent, digest, signature);
    }

    /// The deal of this file of whose activation `digest` is; 0: none.
    function _dealOfDigest(bytes32 digest) private view returns (uint64, bool claimed) {
        bytes32 domain = market.domainSeparator();
        for (uint8 i; i < _terms.count; ++i) {
            ShardAccount storage s = _shards[i];
            claimed = s.state == ShardState.Claimed;
            if (!claimed && s.state != ShardState.Live) continue;
            uint64 dealId = claimed ? s.claimDealId : s.dealId;
            bytes32 structHash = keccak256(abi.encode(ACTIVATION_TYPEHASH, dealId));
            if (MessageHashUtils.toTypedDataHash(domain, structHash) == digest) return (dealId, claimed);
        }
        return (0, false);
    }

    /// @inheritdoc IStorageFile
    function setAgent(address agent) external onlyOwner {
        _terms.agent = agent;
        emit AgentChanged(agent);
    }

    /// @inheritdoc IStorageFile
    function challenge(uint8 index) external onlyOwnerOrAgent {
        _spendBudget(_challengeBond);
        market.challenge(_live(index).dealId);
    }

    /// @inheritdoc IStorageFile
    function demandBytes(uint8 index, uint64 firstLeaf, uint32 count) external onlyOwnerOrAgent {
        _spendBudget(uint256(_challengeBond) * count);
        market.demandBytes(_live(index).dealId, firstLeaf, count);
    }

    function _spendBudget(uint256 amount) private {
        uint256 left = _account.challengeBudget;
        if (amount > left) revert BudgetSpent(amount, left);
        _account.challengeBudget = uint128(left - amount);
        _requireUnpromised(amount);
    }

    /// @inheritdoc IStorageFile
    function endEarly(uint8 index) external onlyOwner {
        ShardAccount storage s = _live(index);
        uint64 dealId = s.dealId;
        s.state = ShardState.Ended;
        _oneFewer();
        emit ShardEnded(index, dealId);
        market.endEarly(dealId);
    }

    /// @inheritdoc IStorageFile
    function allot(uint128 toReserve, uint128 toChallengeBudget) external onlyOwner {
        _requireFree(uint256(toReserve) + toChallengeBudget);
        _account.reserve += toReserve;
        _account.challengeBudget += toChallengeBudget;
        emit Allotted(toReserve, toChallengeBudget);
    }

    /// @inheritdoc IStorageFile
    function withdraw(uint256 amount, address to) external onlyOwner {
        _requireFree(amount);
        emit Withdrawn(to, amount);
        rails.withdraw(token, amount, to);
    }

    // ---------------------------------------------------------------------------------------------------------------- repair

    /// @inheritdoc IStorageFile
    function noteLoss(uint8 index) external {
        ShardAccount storage s = _live(index);
        if (!_noteLoss(index, s)) revert NotLost(index, s.dealId);
    }

    function _noteLoss(uint8 index, ShardAccount storage s) private returns (bool) {
        uint64 dealId = s.dealId;
        IStorageMarket.Deal memory d = market.deal(dealId);
        bool expired = d.state == IStorageMarket.State.Expired;
        if (!expired && d.state != IStorageMarket.State.Terminated) return false;
        s.state = ShardState.Lost;
        s.lostAt = uint64(block.timestamp);
        // More would pay a provider for reneging and repairing what it never stored.
        s.bountyMax = expired ? uint128(Math.min(_terms.bountyMax, d.bond / 2)) : _terms.bountyMax;
        hasFailed[s.operatorId] = true;
        _oneFewer();
        emit ShardLost(index, dealId, s.operatorId, _account.healthy);
        return true;
    }

    function _oneFewer() private {
        uint8 healthy = --_account.healthy;
        if (healthy < _terms.repairBelow && _account.belowSince == 0) _account.belowSince = uint64(block.timestamp);
    }

    /// @inheritdoc IStorageFile
    function claimRepair(uint8 index, bytes calldata cid, bytes32 networkPrefix) external returns (uint64 dealId) {
        ShardAccount storage s = _in(index, ShardState.Lost);
        if (_account.belowSince == 0) revert EnoughHealthy(_account.healthy, _terms.repairBelow);
        uint32 periods = _periodsLeft();
        if (periods == 0) revert TooLate(_account.endPeriod, _currentPeriod());
        uint64 operatorId = operators.operatorOfNodeKey(msg.sender);
        if (operatorId == 0) revert NoOperator(msg.sender);
        bytes32 region = _terms.regionMax == 0 ? bytes32(0) : operators.operator(operatorId).region;
        _requireAccepted(operatorId, networkPrefix, region);
        collect();
        uint128 bounty = _promise(_bountyOf(s), periods);
        (s.state, s.claimOperatorId, s.bounty) = (ShardState.Claimed, operatorId, bounty);
        _place(s, networkPrefix, region);
        dealId = book.openClaim(_repairTerms(s.dealId, operatorId, periods), cid);
        s.claimDealId = dealId;
        emit RepairClaimed(index, dealId, operatorId, bounty);
    }

    /// Sets the bounty aside: out of compensation that is not needed for lost shards' deals first, then out of the reserve.
    function _promise(uint256 wanted, uint32 periods) private returns (uint128 bounty) {
        uint256 cost = _costOf(periods);
        uint256 unpromised = _requireUnpromised(cost) - cost;
        // The deals of all lost shards, this one too, are in `reserved`.
        uint256 spare = Math.saturatingSub(_balance(), reserved());
        uint256 fromCompensation = Math.min(Math.min(wanted, _account.compensation), spare);
        uint256 fromReserve = Math.min(wanted - fromCompensation, _account.reserve);
        if (fromCompensation + fromReserve > unpromised) fromReserve = Math.saturatingSub(unpromised, fromCompensation);
        _account.compensation -= uint128(fromCompensation);
        _account.reserve -= uint128(fromReserve);
        bounty = uint128(fromCompensation + fromReserve);
        _account.bounties += bounty;
    }

    function _repairTerms(uint64 lostDealId, uint64 operatorId, uint32 periods) private view returns (IStorageMarket.DealTerms memory t) {
        IStorageMarket.Deal memory d = market.deal(lostDealId);
        t.client = address(this);
        t.operatorId = operatorId;
        (t.pieceRoot, t.pieceHeight, t.rawSize, t.contentHash) = (d.pieceRoot, d.pieceHeight, d.rawSize, d.contentHash);
        (t.periods, t.pricePerPeriod, t.collateral, t.bond) = (periods, d.pricePerPeriod, d.collateral, d.bond);
        t.expiry = uint64(block.timestamp);
    }

    function _requireAccepted(uint64 operatorId, bytes32 networkPrefix, bytes32 region) private view {
        if (hasFailed[operatorId]) revert OperatorRefused(operatorId, "failed");
        bool distinct = _terms.distinctNetworks;
        if (distinct && networkPrefix == 0) revert OperatorRefused(operatorId, "network");
        MatchingRules.Party memory party = _partyOf(operatorId);
        uint256 inRegion = 1;
        for (uint8 i; i < _terms.count; ++i) {
            ShardAccount storage s = _shards[i];
            bool claimed = s.state == ShardState.Claimed;
            if (!claimed && s.state != ShardState.Live) continue;
            uint64 other = claimed ? s.claimOperatorId : s.operatorId;
            if (other == operatorId) revert OperatorRefused(operatorId, "operator");
            if (MatchingRules.related(party, _partyOf(other))) revert OperatorRefused(operatorId, "owner");
            if (distinct && s.networkPrefix == networkPrefix) revert OperatorRefused(operatorId, "network");
            if (_terms.regionMax != 0 && s.region == region && ++inRegion > _terms.regionMax) revert OperatorRefused(operatorId, "region");
        }
    }

    function _partyOf(uint64 operatorId) private view returns (MatchingRules.Party memory) {
        return MatchingRules.Party(operators.ownerOf(operatorId), operators.beneficiaryOf(operatorId));
    }

    /// @inheritdoc IStorageFile
    function finishRepair(uint8 index) external {
        ShardAccount storage s = _in(index, ShardState.Claimed);
        (uint64 dealId, uint64 operatorId, uint128 bounty) = (s.claimDealId, s.claimOperatorId, s.bounty);
        IStorageMarket.State state = market.deal(dealId).state;
        if (state == IStorageMarket.State.Open || _isLost(state)) revert ClaimNotFulfilled(index, dealId);
        (s.state, s.dealId, s.operatorId) = (ShardState.Live, dealId, operatorId);
        _endClaim(s);
        uint8 healthy = ++_account.healthy;
        if (healthy >= _terms.repairBelow) _account.belowSince = 0;
        emit RepairFinished(index, dealId, operatorId, bounty, healthy);
        book.closeClaim(dealId, true);
        if (bounty != 0) rails.transfer(token, operators.beneficiaryOf(operatorId), bounty);
    }

    /// @inheritdoc IStorageFile
    /// @dev A repairer that was active and is thrown out before anybody called finishRepair has failed as well. The bounty, whatever it was
    /// taken from, goes to the reserve.
    function failClaim(uint8 index) external {
        ShardAccount storage s = _in(index, ShardState.Claimed);
        (uint64 dealId, uint64 operatorId) = (s.claimDealId, s.claimOperatorId);
        IStorageMarket.State state = market.deal(dealId).state;
        if (state != IStorageMarket.State.Open && !_isLost(state)) revert ClaimNotOver(index, dealId);
        s.state = ShardState.Lost;
        hasFailed[operatorId] = true;
        _account.reserve += s.bounty;
        _endClaim(s);
        emit ClaimFailed(index, dealId, operatorId);
        if (state == IStorageMarket.State.Open) market.expire(dealId); // reverts before the deadline
        book.closeClaim(dealId, false);
    }

    function _endClaim(ShardAccount storage s) private {
        _account.bounties -= s.bounty;
        (s.claimDealId, s.claimOperatorId, s.bounty) = (0, 0, 0);
    }

    /// @inheritdoc IStorageFile
    function collect() public returns (uint256 amount) {
        if (stakeVault.claimableOf(address(this)) == 0) return 0;
        amount = stakeVault.claim(address(this));
        _account.compensation += uint128(amount);
        IERC20(token).approve(address(rails), amount);
        rails.deposit(token, address(this), amount);
        emit CompensationCollected(amount);
    }

    // ----------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IStorageFile
    function terms() external view returns (Terms memory) {
        return _terms;
    }

    /// @inheritdoc IStorageFile
    function account() external view returns (Account memory) {
        return _account;
    }

    /// @inheritdoc IStorageFile
    function shard(uint8 index) external view returns (ShardAccount memory) {
        return _shards[index];
    }

    /// @inheritdoc IStorageFile
    function shards() external view returns (ShardAccount[] memory list) {
        list = new ShardAccount[](_terms.count);
        for (uint8 i; i < list.length; ++i) {
            list[i] = _shards[i];
        }
    }

    /// @inheritdoc IStorageFile
    function openJobs() external view returns (Job[] memory jobs) {
        uint32 periods = _periodsLeft();
        if (periods == 0 || _account.belowSince == 0) return jobs;
        jobs = new Job[](_countIn(ShardState.Lost));
        uint256 found;
        for (uint8 i; found < jobs.length; ++i) {
            ShardAccount storage s = _shards[i];
            if (s.state != ShardState.Lost) continue;
            jobs[found++] =
                Job(i, s.dealId, periods, _account.pricePerPeriod, _account.collateral, uint128(_bountyOf(s)), s.bountyMax, _risesFrom(s));
        }
    }

    /// @inheritdoc IStorageFile
    function reserved() public view returns (uint256) {
        if (_account.endPeriod == 0) return _isBidStanding() ? _balance() : 0;
        if (_currentPeriod() >= _account.endPeriod) return _account.bounties;
        uint256 escrow = _countIn(ShardState.Lost) * _costOf(_periodsLeft());
        return uint256(_account.bounties) + _account.reserve + _account.challengeBudget + escrow;
    }

    /// @inheritdoc IStorageFile
    function free() public view returns (uint256) {
        return Math.saturatingSub(_balance(), reserved());
    }

    // ---------------------------------------------------------------------------------------------------------------- inside

    /// Notes every loss and collects first: else the owner could take what a lost shard's next deal needs.
    function _requireFree(uint256 amount) private {
        for (uint8 i; i < _terms.count; ++i) {
            if (_shards[i].state == ShardState.Live) _noteLoss(i, _shards[i]);
        }
        collect();
        uint256 available = free();
        if (amount > available) revert Reserved(amount, available);
    }

    /// Bounties of open claims are out of everybody's reach.
    function _requireUnpromised(uint256 amount) private view returns (uint256 unpromised) {
        unpromised = Math.saturatingSub(_balance(), _account.bounties);
        if (amount > unpromised) revert Reserved(amount, unpromised);
    }

    function _live(uint8 index) private view returns (ShardAccount storage) {
        return _in(index, ShardState.Live);
    }

    function _in(uint8 index, ShardState state) private view returns (ShardAccount storage s) {
        if (_account.endPeriod == 0) revert NotFilled();
        if (index >= _terms.count) revert UnknownShard(index);
        s = _shards[index];
        if (s.state != state) revert WrongShardState(index, s.state);
    }

    function _countIn(ShardState state) private view returns (uint256 count) {
        for (uint8 i; i < _terms.count; ++i) {
            if (_shards[i].state == state) ++count;
        }
    }

    function _isLost(IStorageMarket.State state) private pure returns (bool) {
        return state == IStorageMarket.State.Expired || state == IStorageMarket.State.Terminated;
    }

    function _isBidStanding() private view returns (bool) {
        return block.timestamp < book.bid(book.bidOfFile(address(this))).validUntil;
    }

    function _risesFrom(ShardAccount storage s) private view returns (uint64) {
        return uint64(Math.max(s.lostAt, _account.belowSince));
    }

    function _bountyOf(ShardAccount storage s) private view returns (uint256) {
        uint256 rise = book.config().bountySeconds;
        return uint256(s.bountyMax) * Math.min(block.timestamp - _risesFrom(s), rise) / rise;
    }

    /// What the deal of a repair that is claimed now would run; 0: the file is over too soon for the market.
    function _periodsLeft() private view returns (uint32) {
        uint64 next = _currentPeriod() + 1;
        uint64 end = _account.endPeriod;
        return end < next + _periodsMin ? 0 : uint32(end - next);
    }

    function _costOf(uint32 periods) private view returns (uint256) {
        return periods == 0 ? 0 : uint256(_account.pricePerPeriod) * periods + book.config().dealBond;
    }

    function _currentPeriod() private view returns (uint64) {
        return possession.periodAt(block.timestamp);
    }

    function _balance() private view returns (uint256) {
        return rails.balanceOf(token, address(this));
    }
}
