// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IModule, IRegistry} from "../chain/IRegistry.sol";
import {IRailMeter, IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IPossession} from "./IPossession.sol";
import {IStorageMarket} from "./IStorageMarket.sol";

/// @notice What the market needs of the network's token.
interface IBurnableToken {
    function burn(uint256 amount) external;
}

/// @title StorageMarket: see IStorageMarket for the rules. No owner, no parameter that can change: old deals finish under old code.
/// @notice Money: the client's escrow and bond are a rail at Rails, the provider's collateral and bond a lock in StakeVault; this
/// contract holds nothing. `Deal.locked` is exactly what the vault holds locked for the deal.
contract StorageMarket is IStorageMarket, IRailMeter, IModule, EIP712 {
    using SafeCast for uint256;

    uint256 private constant BPS = 10_000;
    uint256 private constant CID_BYTES_MAX = 100;
    uint256 private constant PIECE_HEIGHT_MAX = 32;
    uint32 private constant NO_SLOT = type(uint32).max;
    uint32 private constant DEMAND_LEAVES_MAX = 256; // 8 KiB in one answer
    bytes32 private constant DEAL_DESK = "dealDesk";
    bytes32 private constant ORDER_BOOK = "orderBook";
    bytes32 private constant ACTIVATION_TYPEHASH = keccak256("Activation(uint64 dealId)");

    IRegistry public immutable registry;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    IRails public immutable rails;
    IPossession public immutable possession;
    IRandomness public immutable randomness;
    address public immutable token;
    uint64 private immutable _genesis;
    uint32 private immutable _period;
    uint32 private immutable _window;

    Config private _config; // written once, in the constructor
    uint64 public dealCount;
    mapping(uint64 dealId => Deal) private _deals;
    mapping(uint256 railId => uint64) private _dealOfRail;

    constructor(
        Config memory c,
        IRegistry registry_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRails rails_,
        IPossession possession_,
        IRandomness randomness_,
        address token_
    ) EIP712("Millrace Storage", "1") {
        _checkConfig(c);
        if (token_ != stakeVault_.stakeToken()) revert WrongToken(token_, stakeVault_.stakeToken());
        _config = c;
        registry = registry_;
        operators = operators_;
        stakeVault = stakeVault_;
        rails = rails_;
        possession = possession_;
        randomness = randomness_;
        token = token_;
        IPossession.Config memory clock = possession_.config();
        (_genesis, _period, _window) = (clock.genesis, clock.period, clock.window);
        // Else whoever must answer could let a seed go stale and answer the one that replaces it.
        uint256 longest = Math.max(clock.window, c.challengeWindow);
        if (randomness_.staleAfterSeconds() < longest) revert BadTerms("staleAfter", randomness_.staleAfterSeconds(), longest);
    }

    // ----------------------------------------------------------------------------------------------------- from offer to deal

    /// @inheritdoc IStorageMarket
    function open(DealTerms calldata terms, bytes calldata cid, bool secured) external returns (uint64 dealId) {
        _requireDesk(DEAL_DESK, ORDER_BOOK);
        uint64 leaves = _checkTerms(terms, cid);
        dealId = ++dealCount;
        _write(_deals[dealId], terms, leaves);
        _secure(dealId, terms, secured);
        _emitOpened(dealId, terms, cid);
    }

    function _write(Deal storage d, DealTerms calldata terms, uint64 leaves) private {
        d.client = terms.client;
        d.operatorId = terms.operatorId;
        d.state = State.Open;
        d.pieceRoot = terms.pieceRoot;
        d.pieceHeight = terms.pieceHeight;
        d.leaves = leaves;
        d.rawSize = terms.rawSize;
        d.contentHash = terms.contentHash;
        d.openedAt = uint64(block.timestamp);
        d.endPeriod = terms.periods; // a number of periods until the deal is active
        d.slot = NO_SLOT;
        d.pricePerPeriod = terms.pricePerPeriod;
        d.collateral = terms.collateral;
        d.locked = terms.collateral + terms.bond;
        d.bond = terms.bond;
    }

    /// Locks the provider's collateral and bond, takes the client's price and bond into escrow.
    function _secure(uint64 dealId, DealTerms calldata terms, bool secured) private {
        if (!secured) stakeVault.lock(terms.operatorId, uint256(terms.collateral) + terms.bond);
        uint128 escrow = (uint256(terms.pricePerPeriod) * terms.periods + terms.bond).toUint128();
        uint256 railId = rails.open(terms.client, terms.operatorId, token, terms.pricePerPeriod, _period, 0, escrow);
        _deals[dealId].railId = railId;
        _dealOfRail[railId] = dealId;
    }

    /// @inheritdoc IStorageMarket
    function activate(uint64 dealId, bytes calldata acknowledgement, bytes calldata openings, uint32 slot, bytes calldata tablePath)
        external
    {
        Deal storage d = _known(dealId);
        _onlyNodeKey(dealId, d);
        if (d.state != State.Open) _wrongState(dealId, d);
        uint64 deadline = d.openedAt + _config.activationDeadline;
        _deadline(deadline);
        _checkSignature(d.client, _hashTypedDataV4(keccak256(abi.encode(ACTIVATION_TYPEHASH, dealId))), acknowledgement);
        _checkPiece(dealId, d, activationSeedTime(dealId), openings);

        uint64 firstPeriod = _currentPeriod() + 1;
        uint64 endPeriod = firstPeriod + d.endPeriod;
        d.state = State.Active;
        d.firstPeriod = firstPeriod;
        d.feesTo = firstPeriod;
        d.endPeriod = endPeriod;
        d.locked -= d.bond;
        _insert(dealId, d, slot, tablePath);
        rails.begin(d.railId, _startOf(firstPeriod), _startOf(endPeriod));
        _unlock(d.operatorId, d.bond);
        emit DealActivated(dealId, d.operatorId, firstPeriod, endPeriod, slot);
    }

    /// @inheritdoc IStorageMarket
    function expire(uint64 dealId) external {
        Deal storage d = _known(dealId);
        if (d.state != State.Open) _wrongState(dealId, d);
        uint64 deadline = d.openedAt + _config.activationDeadline;
        if (block.timestamp <= deadline) revert DeadlineNotReached(deadline, block.timestamp);
        uint128 bond = d.bond;
        d.state = State.Expired;
        d.locked = 0;
        _unlock(d.operatorId, d.collateral);
        if (bond != 0) _slash(d.operatorId, bond, address(0), 0, address(0), 0);
        _close(d.railId, 0, 0, bond);
        if (bond != 0) {
            rails.withdraw(token, bond, address(this));
            IBurnableToken(token).burn(bond);
        }
        emit DealExpired(dealId, bond);
    }

    // ---------------------------------------------------------------------------------------------------------- a deal's life

    /// @inheritdoc IStorageMarket
    function extend(uint64 dealId, uint32 periods) external {
        Deal storage d = _known(dealId);
        _requireDesk(DEAL_DESK, DEAL_DESK);
        uint64 endPeriod = d.endPeriod;
        if (d.state != State.Active || d.endsEarly || _currentPeriod() >= endPeriod) _wrongState(dealId, d);
        uint64 newEnd = endPeriod + periods;
        if (periods == 0) revert BadTerms("periods", periods, 1);
        uint64 last = _currentPeriod() + 1 + _config.maxPeriods;
        if (newEnd > last) revert BadTerms("periods", newEnd, last);
        d.endPeriod = newEnd;
        rails.topUp(d.railId, (uint256(d.pricePerPeriod) * periods).toUint128(), _startOf(newEnd));
        emit DealExtended(dealId, newEnd, d.pricePerPeriod);
    }

    /// @inheritdoc IStorageMarket
    /// @dev Ends with the current period, which is still proven and paid. Not while a fault is declared: that deal ends by itself.
    function endEarly(uint64 dealId) external {
        Deal storage d = _known(dealId);
        if (msg.sender != d.client) revert NotClient(dealId, msg.sender);
        _progress(dealId, d);
        if (d.state != State.Active || d.endsEarly) _wrongState(dealId, d);
        if (d.challengedAt != 0) revert ChallengeOpen(dealId);
        uint64 endPeriod = uint64(Math.max(_currentPeriod() + 1, d.firstPeriod));
        uint256 remaining = d.endPeriod - endPeriod;
        d.endsEarly = true;
        d.earlyEndFee = uint128(remaining * d.pricePerPeriod * _config.earlyEndFeeBps / BPS);
        d.endPeriod = endPeriod;
        emit DealEndsEarly(dealId, endPeriod, d.earlyEndFee);
    }

    /// @inheritdoc IStorageMarket
    function settle(uint64 dealId) external {
        Deal storage d = _known(dealId);
        if (!_isRunning(d)) _wrongState(dealId, d);
        _progress(dealId, d);
    }

    /// @inheritdoc IStorageMarket
    function drop(uint64 dealId, bytes calldata tablePath) external {
        Deal storage d = _known(dealId);
        if (_currentPeriod() < d.endPeriod + _config.maxFaultPeriods) _onlyNodeKey(dealId, d);
        if (_isRunning(d)) _progress(dealId, d);
        if (d.state != State.Ended && (d.state != State.Terminated || (d.slot == NO_SLOT && d.locked == 0))) _wrongState(dealId, d);
        uint32 slot = d.slot;
        uint128 locked = d.locked;
        d.locked = 0;
        if (d.state == State.Ended) d.state = State.Dropped;
        if (slot != NO_SLOT) _remove(dealId, d, slot, tablePath);
        _unlock(d.operatorId, locked);
        emit DealDropped(dealId, d.operatorId, slot);
    }

    // ------------------------------------------------------------------------------------------------------ faults, challenges

    /// @inheritdoc IStorageMarket
    /// @dev The piece leaves the table, which is refused once the table is frozen: a fault is declared before the seed exists.
    function declareFault(uint64 dealId, bytes calldata tablePath) external {
        Deal storage d = _running(dealId);
        if (d.state != State.Active) _wrongState(dealId, d);
        uint32 slot = d.slot;
        d.state = State.Faulty;
        d.faultySince = d.feesTo; // fees are taken up to the current period
        _remove(dealId, d, slot, tablePath);
        emit FaultDeclared(dealId, d.faultySince);
    }

    /// @inheritdoc IStorageMarket
    function recoverFault(uint64 dealId, bytes calldata openings, uint32 slot, bytes calldata tablePath) external {
        Deal storage d = _running(dealId);
        if (d.state != State.Faulty) _wrongState(dealId, d);
        uint64 seedAt = recentSeedTime();
        uint64 needed = _seedTimeOf(d.faultySince);
        if (seedAt < needed) revert SeedTooOld(seedAt, needed);
        _checkPiece(dealId, d, seedAt, openings);
        uint64 resumesAt = _currentPeriod() + 1;
        _takeFees(dealId, d, resumesAt);
        d.state = State.Active;
        d.faultySince = 0;
        d.resumesAt = resumesAt;
        _insert(dealId, d, slot, tablePath);
        emit FaultRecovered(dealId, resumesAt);
    }

    /// @inheritdoc IStorageMarket
    function surrender(uint64 dealId) external {
        Deal storage d = _running(dealId);
        _terminate(dealId, d, Cause.Lost, d.locked, address(0));
    }

    /// @inheritdoc IStorageMarket
    function leave(uint64 dealId, bytes calldata openings) external {
        Deal storage d = _running(dealId);
        if (d.state != State.Active) _wrongState(dealId, d);
        if (d.challengedAt != 0) revert ChallengeOpen(dealId);
        _requireAnswered(d.operatorId);
        _checkPiece(dealId, d, recentSeedTime(), openings);
        uint256 fee = Math.min(d.locked, uint256(d.collateral) * _config.leaveFeeBps / BPS);
        _terminate(dealId, d, Cause.ProviderLeft, uint128(fee), address(0));
    }

    /// @inheritdoc IStorageMarket
    function challenge(uint64 dealId) external {
        _challenge(dealId, 0, 0, _config.challengeBond);
    }

    /// @inheritdoc IStorageMarket
    function demandBytes(uint64 dealId, uint64 firstLeaf, uint32 count) external {
        if (count == 0 || count > DEMAND_LEAVES_MAX) revert BadTerms("count", count, DEMAND_LEAVES_MAX);
        uint64 leaves = _known(dealId).leaves;
        if (firstLeaf >= leaves || count > leaves - firstLeaf) revert BadTerms("firstLeaf", firstLeaf, leaves);
        _challenge(dealId, firstLeaf, count, _config.challengeBond * count);
    }

    /// The deadline lies within the deal, so that the deal's end cannot overtake the answer.
    function _challenge(uint64 dealId, uint64 firstLeaf, uint32 count, uint128 bond) private {
        Deal storage d = _known(dealId);
        if (msg.sender != d.client) revert NotClient(dealId, msg.sender);
        if (d.state != State.Active) _wrongState(dealId, d);
        if (d.challengedAt != 0) revert ChallengeOpen(dealId);
        uint64 seedAt = _seedTimeAfter(block.timestamp);
        uint64 deadline = seedAt + _config.challengeWindow;
        uint64 end = _startOf(d.endPeriod);
        if (deadline >= end) revert DeadlinePassed(end, deadline);
        (d.challengedAt, d.demandedFrom, d.demanded) = (seedAt, firstLeaf, count);
        d.challengeRailId = rails.open(msg.sender, d.operatorId, token, bond, _period, 0, bond);
        emit Challenged(dealId, d.operatorId, seedAt, deadline, firstLeaf, count);
    }

    /// @inheritdoc IStorageMarket
    function answer(uint64 dealId, bytes calldata openings) external {
        Deal storage d = _known(dealId);
        _onlyNodeKey(dealId, d);
        uint64 seedAt = d.challengedAt;
        if (seedAt == 0) revert NoChallengeOpen(dealId);
        uint64 deadline = seedAt + _config.challengeWindow;
        _deadline(deadline);
        uint128 bond = _config.challengeBond;
        if (d.demanded == 0) {
            _checkPiece(dealId, d, seedAt, openings);
        } else {
            bond *= d.demanded;
            possession.verifyRange(_leafOf(dealId, d), d.demandedFrom, d.demanded, openings);
        }
        d.challengedAt = 0;
        _close(d.challengeRailId, 0, bond, 0);
        emit ChallengeAnswered(dealId);
    }

    /// @inheritdoc IStorageMarket
    function terminate(uint64 dealId) external {
        Deal storage d = _known(dealId);
        if (_isRunning(d)) _progress(dealId, d);
        else _wrongState(dealId, d);
        if (d.state != State.Terminated) revert NothingToTerminate(dealId);
    }

    // ------------------------------------------------------------------------------------------------------------- settlement

    /// Makes all ended periods final and draws the consequences: fault fees, termination, pay, natural end.
    function _progress(uint64 dealId, Deal storage d) private {
        possession.sync(d.operatorId);
        uint64 current = _currentPeriod();
        _takeFees(dealId, d, current);
        (bool beyondMending, Cause cause) = _causeOf(d, current);
        if (beyondMending) {
            _terminate(dealId, d, cause, d.locked, msg.sender);
        } else if (current >= d.endPeriod) {
            d.state = State.Ended;
            _close(d.railId, _startOf(d.endPeriod), d.earlyEndFee, 0);
            emit DealEnded(dealId, d.endPeriod, d.earlyEndFee);
        } else {
            rails.settle(d.railId);
        }
    }

    /// Takes the fault fees of the final periods before `upTo`: declared faults by time, the others by charged misses.
    function _takeFees(uint64 dealId, Deal storage d, uint64 upTo) private {
        uint64 from = d.feesTo;
        if (upTo > d.endPeriod) upTo = d.endPeriod;
        if (upTo <= from) return;
        d.feesTo = upTo;
        uint64 charged;
        uint256 feeBps = _config.faultFeeBps;
        if (d.state == State.Faulty) (charged, feeBps) = (upTo - from, _config.declaredFaultFeeBps);
        else (, charged) = possession.misses(d.operatorId, from, upTo);
        uint256 fee = Math.min(d.locked, charged * feeBps * d.collateral / BPS);
        if (fee == 0) return;
        d.locked -= uint128(fee);
        _slash(d.operatorId, fee, address(0), 0, address(0), 0);
        emit FaultFee(dealId, charged, fee);
    }

    function _causeOf(Deal storage d, uint64 current) private view returns (bool, Cause) {
        // period + 1. Equal to firstPeriod: activated in the very period whose miss failed the table; what starts anew begins later.
        uint64 failedAt = possession.standing(d.operatorId).failedAt;
        if (failedAt >= d.firstPeriod && failedAt <= d.endPeriod) return (true, Cause.TableFailed);
        if (d.challengedAt != 0 && block.timestamp > d.challengedAt + _config.challengeWindow) return (true, Cause.ChallengeUnanswered);
        if (d.locked == 0) return (true, Cause.FaultTooLong);
        if (d.state == State.Faulty && (current >= d.endPeriod || current >= d.faultySince + _config.maxFaultPeriods)) {
            return (true, Cause.FaultTooLong);
        }
        return (false, Cause.Lost);
    }

    /// Ends the rail at the current period, slashes `amount` of what is locked and compensates the client: the price of all its
    /// periods that were not proven, and of `replacementPeriods` more; the vault clips it. Reward and compensation together are never
    /// more than the client has paid for the deal: who is client and provider by a stolen node key pays the victim what it takes.
    function _terminate(uint64 dealId, Deal storage d, Cause cause, uint128 amount, address reporter) private {
        uint64 end = uint64(Math.max(Math.min(_currentPeriod(), d.endPeriod), d.firstPeriod));
        uint256 periods = d.endPeriod - d.firstPeriod;
        uint256 challengeRailId = d.challengedAt == 0 ? 0 : d.challengeRailId;
        d.state = State.Terminated;
        d.challengedAt = 0;
        d.endPeriod = end;
        d.locked -= amount;
        if (challengeRailId != 0) _close(challengeRailId, 0, 0, 0);
        uint256 refunded = _close(d.railId, _startOf(end), 0, 0);
        IRails.Rail memory rail = rails.rail(d.railId);
        uint256 unproven = periods - rail.provenSeconds / _period;
        uint256 reward = reporter == address(0) ? 0 : _rewardOf(Math.min(amount, rail.paid));
        uint256 compensation = Math.min((unproven + _config.replacementPeriods) * d.pricePerPeriod, rail.paid - reward);
        if (amount != 0) (compensation, reward) = _slash(d.operatorId, amount, d.client, compensation, reporter, reward);
        else (compensation, reward) = (0, 0);
        emit DealTerminated(dealId, d.operatorId, cause, end, amount, compensation, reward, refunded);
    }

    function _slash(uint64 operatorId, uint256 amount, address client, uint256 compensation, address reporter, uint256 reward)
        private
        returns (uint256 compensationPaid, uint256 rewardPaid)
    {
        (, compensationPaid, rewardPaid) = stakeVault.slash(operatorId, amount, IStakeVault.Payout(client, compensation, reporter, reward));
    }

    /// @inheritdoc IRailMeter
    /// @dev Whole periods only. Before a fault is declared the rail is settled, so that of the time still open at most one stretch is
    /// unpaid by a fault: that before resumesAt, or that from faultySince.
    function measure(uint256 railId, uint64 from, uint64 to) external view returns (uint64 provenSeconds, uint64 settledTo) {
        Deal storage d = _deals[_dealOfRail[railId]];
        uint64 first = _periodAt(from);
        uint64 end = uint64(Math.min(_periodAt(to), d.endPeriod));
        end = uint64(Math.min(end, possession.standing(d.operatorId).syncedTo));
        if (end <= first) return (0, from);
        uint64 paidTo = d.faultySince == 0 ? end : uint64(Math.min(end, d.faultySince));
        uint64 paidFrom = uint64(Math.max(first, d.resumesAt));
        if (paidFrom < paidTo) {
            (uint64 unpaid,) = possession.misses(d.operatorId, paidFrom, paidTo);
            provenSeconds = (paidTo - paidFrom - unpaid) * _period;
        }
        return (provenSeconds, _startOf(end));
    }

    // ------------------------------------------------------------------------------------------------------------------ views

    /// @inheritdoc IModule
    /// @dev From an offence (data deleted) to the last slash for it: a fault declared or missed for as long as is borne, and the
    /// challenge that is open then; one period more for the freeze. What is locked stays locked until `drop`, which settles first.
    function exposureSeconds() external view returns (uint64) {
        IPossession.Config memory p = possession.config();
        uint64 periods = uint64(Math.max(_config.maxFaultPeriods, uint256(p.maxMisses) + 2)) + 1;
        return periods * p.period + _config.activationDelay + _config.seedQuantum + _config.challengeWindow;
    }

    /// @inheritdoc IStorageMarket
    function isOver(uint64 dealId) external view returns (bool) {
        Deal storage d = _known(dealId);
        if (_isRunning(d)) return _currentPeriod() >= d.endPeriod;
        return d.state != State.Open;
    }

    /// @inheritdoc IStorageMarket
    function activationSeedTime(uint64 dealId) public view returns (uint64) {
        return _seedTimeAfter(_known(dealId).openedAt);
    }

    /// @inheritdoc IStorageMarket
    function recentSeedTime() public view returns (uint64) {
        uint64 seedAt = _seedTimeOf(_currentPeriod());
        return block.timestamp >= seedAt ? seedAt : seedAt - _period;
    }

    /// @inheritdoc IStorageMarket
    function deal(uint64 dealId) external view returns (Deal memory) {
        return _known(dealId);
    }

    /// @inheritdoc IStorageMarket
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IStorageMarket
    function config() external view returns (Config memory) {
        return _config;
    }

    // ----------------------------------------------------------------------------------------------------------------- checks

    /// A running deal, by its node key, with everything final drawn; it may have ended by that.
    function _running(uint64 dealId) private returns (Deal storage d) {
        d = _known(dealId);
        _onlyNodeKey(dealId, d);
        if (_isRunning(d)) _progress(dealId, d);
        if (!_isRunning(d)) _wrongState(dealId, d);
    }

    function _known(uint64 dealId) private view returns (Deal storage d) {
        d = _deals[dealId];
        if (d.state == State.None) revert UnknownDeal(dealId);
    }

    function _isRunning(Deal storage d) private view returns (bool) {
        return d.state == State.Active || d.state == State.Faulty;
    }

    function _onlyNodeKey(uint64 dealId, Deal storage d) private view {
        if (_nodeKeyOf(d) != msg.sender) revert NotProvider(dealId, msg.sender);
    }

    /// A market that was replaced finishes its deals, but takes no new ones and makes none longer: else it could never be retired.
    function _requireDesk(bytes32 one, bytes32 other) private view {
        address current = registry.get("storageMarket");
        if (current != address(this)) revert MarketReplaced(current);
        if (msg.sender != registry.get(one) && (other == one || msg.sender != registry.get(other))) revert NotDesk(msg.sender);
    }

    /// Nothing that was drawn is unanswered: else a provider that lost a part would leave, for the smaller fee, as soon as it is hit.
    function _requireAnswered(uint64 operatorId) private view {
        IPossession.Standing memory s = possession.standing(operatorId);
        uint64 current = _currentPeriod();
        if (s.openMiss != 0 || (s.provenThrough <= current && block.timestamp >= possession.freezeTime(current))) {
            revert ProofOutstanding(operatorId, s.openMiss == 0 ? current : s.openMiss - 1);
        }
    }

    function _checkSignature(address signer, bytes32 digest, bytes calldata signature) private view {
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, digest, signature)) revert BadSignature(signer);
    }

    function _checkPiece(uint64 dealId, Deal storage d, uint64 seedAt, bytes calldata openings) private view {
        possession.verifyPiece(_leafOf(dealId, d), randomness.valueOf(seedAt), _config.activationLeaves, openings);
    }

    function _leafOf(uint64 dealId, Deal storage d) private view returns (IPossession.Leaf memory) {
        return IPossession.Leaf(d.pieceRoot, d.pieceHeight, d.leaves, d.collateral, dealId);
    }

    function _insert(uint64 dealId, Deal storage d, uint32 slot, bytes calldata tablePath) private {
        d.slot = slot;
        possession.insert(d.operatorId, slot, _leafOf(dealId, d), tablePath);
    }

    function _remove(uint64 dealId, Deal storage d, uint32 slot, bytes calldata tablePath) private {
        d.slot = NO_SLOT;
        possession.remove(d.operatorId, slot, _leafOf(dealId, d), tablePath);
    }

    function _currentPeriod() private view returns (uint64) {
        return _periodAt(block.timestamp);
    }

    function _periodAt(uint256 timestamp) private view returns (uint64) {
        return uint64((timestamp - _genesis) / _period);
    }

    function _startOf(uint64 period) private view returns (uint64) {
        return _genesis + period * _period;
    }

    function _seedTimeOf(uint64 period) private view returns (uint64) {
        return _startOf(period + 1) - _window;
    }

    function _wrongState(uint64 dealId, Deal storage d) private view {
        revert WrongState(dealId, d.state);
    }

    function _deadline(uint64 deadline) private view {
        if (block.timestamp > deadline) revert DeadlinePassed(deadline, block.timestamp);
    }

    function _nodeKeyOf(Deal storage d) private view returns (address) {
        return operators.nodeKeyOf(d.operatorId);
    }

    function _close(uint256 railId, uint64 end, uint128 fee, uint128 forfeit) private returns (uint128) {
        return rails.close(railId, end, fee, forfeit);
    }

    function _unlock(uint64 operatorId, uint128 amount) private {
        if (amount != 0) stakeVault.unlock(operatorId, amount);
    }

    function _rewardOf(uint256 slashed) private view returns (uint256) {
        return Math.min(slashed * _config.reporterRewardBps / BPS, _config.reporterRewardMax);
    }

    /// The first multiple of seedQuantum that is at least activationDelay later.
    function _seedTimeAfter(uint256 timestamp) private view returns (uint64) {
        uint256 quantum = _config.seedQuantum;
        return uint64(Math.ceilDiv(timestamp + _config.activationDelay, quantum) * quantum);
    }

    /// @return leaves payload leaves: fr32 puts 254 bits into each leaf of 32 bytes
    function _checkTerms(DealTerms calldata terms, bytes calldata cid) private view returns (uint64 leaves) {
        if (cid.length > CID_BYTES_MAX) revert BadTerms("cid", cid.length, CID_BYTES_MAX);
        if (keccak256(cid) != terms.contentHash) revert WrongCid(keccak256(cid), terms.contentHash);
        if (terms.periods < _config.minPeriods) revert BadTerms("periods", terms.periods, _config.minPeriods);
        if (terms.periods > _config.maxPeriods) revert BadTerms("periods", terms.periods, _config.maxPeriods);
        if (terms.pricePerPeriod == 0) revert BadTerms("pricePerPeriod", 0, 1);
        if (terms.collateral == 0) revert BadTerms("collateral", 0, 1);
        if (terms.bond < _config.minBond) revert BadTerms("bond", terms.bond, _config.minBond);
        if (terms.pieceHeight > PIECE_HEIGHT_MAX) revert BadTerms("pieceHeight", terms.pieceHeight, PIECE_HEIGHT_MAX);
        if (terms.rawSize == 0) revert BadTerms("rawSize", 0, 1);
        uint256 count = Math.ceilDiv(uint256(terms.rawSize) * 4, 127);
        uint256 limit = uint256(1) << terms.pieceHeight;
        if (count > limit) revert BadTerms("leaves", count, limit);
        return uint64(count);
    }

    function _emitOpened(uint64 dealId, DealTerms calldata terms, bytes calldata cid) private {
        emit DealOpened(
            dealId,
            terms.operatorId,
            terms.contentHash,
            terms.client,
            terms.pieceRoot,
            terms.rawSize,
            terms.periods,
            terms.pricePerPeriod,
            terms.collateral,
            cid
        );
        emit DealOfClient(terms.client, dealId);
    }

    function _checkConfig(Config memory c) private pure {
        if (c.seedQuantum == 0) revert BadTerms("seedQuantum", 0, 1);
        if (c.activationDelay == 0) revert BadTerms("activationDelay", 0, 1);
        uint256 soonest = uint256(c.activationDelay) + c.seedQuantum;
        if (c.activationDeadline <= soonest) revert BadTerms("activationDeadline", c.activationDeadline, soonest);
        if (c.activationLeaves == 0) revert BadTerms("activationLeaves", 0, 1);
        if (c.challengeWindow == 0) revert BadTerms("challengeWindow", 0, 1);
        if (c.challengeBond == 0) revert BadTerms("challengeBond", 0, 1);
        if (c.minPeriods == 0 || c.maxPeriods < c.minPeriods) revert BadTerms("minPeriods", c.minPeriods, c.maxPeriods);
        if (c.maxFaultPeriods == 0) revert BadTerms("maxFaultPeriods", 0, 1);
        uint256 bps = Math.max(Math.max(c.faultFeeBps, c.declaredFaultFeeBps), Math.max(c.earlyEndFeeBps, c.leaveFeeBps));
        bps = Math.max(bps, c.reporterRewardBps);
        if (bps > BPS) revert BadTerms("bps", bps, BPS);
    }
}
