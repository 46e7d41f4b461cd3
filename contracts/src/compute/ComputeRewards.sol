// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IBackerIncome, IIncomeSource} from "../token/IBackerIncome.sol";
import {BurntFees} from "./BurntFees.sol";
import {IBuybackAuction} from "./IBuybackAuction.sol";
import {IComputeEmission} from "./IComputeEmission.sol";
import {IComputeHealth} from "./IComputeHealth.sol";
import {IComputeRewards, IFeeSource} from "./IComputeRewards.sol";

/// @title ComputeRewards: see IComputeRewards for the rules. No owner, no parameter that can change.
/// @dev The token is the network's own, without callbacks.
contract ComputeRewards is IComputeRewards, BurntFees {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    uint256 private constant BPS = 10_000;
    uint256 private constant EMISSION_HOUR = 3_600;
    /// @notice Of every burnt fee at least a tenth stays burnt.
    uint16 public constant SHARE_MAX_BPS = 9_000;

    /// Grants of one period of `vestSeconds` vest in the next, evenly.
    struct Vesting {
        uint64 period; // as of which the rest is
        uint128 fresh; // granted in it
        uint128 running; // granted in the one before
        uint128 vested; // granted before that
    }

    IComputeHealth public immutable health;
    IComputeEmission public immutable emission;
    IBackerIncome public immutable income;
    IERC20 public immutable token;
    uint32 private immutable hourSeconds;

    Config private _config; // written once, in the constructor
    IFeeSource[] private _sources; // likewise
    mapping(uint64 operatorId => Account) private _accounts;
    mapping(uint64 operatorId => Vesting) private _vestings;
    mapping(uint64 deviceId => Record) private _records;
    mapping(uint256 source => mapping(uint64 id => bool)) private _counted;
    /// @inheritdoc IComputeRewards
    uint256 public obligations;

    constructor(
        Config memory c,
        IComputeHealth health_,
        IComputeEmission emission_,
        IBuybackAuction auction_,
        IBackerIncome income_,
        IFeeSource[] memory sources_
    ) BurntFees(auction_) {
        if (c.shareBps > SHARE_MAX_BPS) revert BadConfig("shareBps", c.shareBps, SHARE_MAX_BPS);
        if (c.baseBps > BPS) revert BadConfig("baseBps", c.baseBps, BPS);
        if (c.streakHours == 0) revert BadConfig("streakHours", 0, 1);
        uint256 window = health_.config().windowSeconds;
        hourSeconds = health_.config().hourSeconds;
        if (c.vestSeconds < window) revert BadConfig("vestSeconds", c.vestSeconds, window);
        (_config, _sources) = (c, sources_);
        (health, emission, income) = (health_, emission_, income_);
        token = IERC20(emission_.token());
    }

    // ------------------------------------------------------------------------------------------------------------- claims

    /// @inheritdoc IComputeRewards
    function claim(Claim[] calldata claims) external returns (uint256 amount) {
        for (uint256 i; i < claims.length; ++i) {
            amount += _claim(claims[i]);
        }
    }

    function _claim(Claim calldata c) private returns (uint256 amount) {
        (uint64 performance, IComputeHealth.Reason reason) = health.figureOf(c.hour, c.seat, c.opening);
        if (performance == 0) revert NoPerformance(c.hour, c.seat, reason);
        IComputeHealth.Occupant memory device = health.occupantAt(c.seat, c.hour);
        IComputeHealth.FinalHour memory hour = health.finalHour(c.hour);
        uint256 stability = stabilityBps(_countHour(device.deviceId, c.hour, hour.ordinal));
        _requireMinted(c.hour);
        amount = Math.mulDiv(emissionOf(c.hour), performance * stability, hour.total * BPS);
        _accounts[device.operatorId].entitled += amount.toUint128();
        emit HourClaimed(device.operatorId, device.deviceId, c.hour, performance, uint16(stability), amount);
    }

    /// @return streak final hours in a row, this one among them
    function _countHour(uint64 deviceId, uint32 hour, uint64 ordinal) private returns (uint32 streak) {
        Record storage r = _records[deviceId];
        if (ordinal <= r.ordinal) revert ClaimedBefore(deviceId, hour, ordinal, r.ordinal);
        streak = ordinal == r.ordinal + 1 ? r.streak + 1 : 1;
        (r.ordinal, r.streak) = (ordinal, streak);
    }

    /// What an hour shares out is here before anybody is entitled to it.
    function _requireMinted(uint32 hour) private {
        uint64 emissionHour = _emissionHour(hour);
        uint64 passed = emission.hoursPassed();
        if (emissionHour > passed) revert EmissionNotDue(hour, emissionHour, passed);
        if (emission.emitted() < emission.scheduled()) emission.mint();
    }

    /// @inheritdoc IComputeRewards
    function emissionOf(uint32 hour) public view returns (uint256) {
        uint256 whole = emission.emissionOf(_emissionHour(hour));
        uint256 length = hourSeconds;
        uint256 from = (uint256(hour) - 1) * length % EMISSION_HOUR;
        return whole * (from + length) / EMISSION_HOUR - whole * from / EMISSION_HOUR;
    }

    function _emissionHour(uint32 hour) private view returns (uint64) {
        return (health.startOf(hour) - health.startOf(1)) / uint64(EMISSION_HOUR) + 1;
    }

    // --------------------------------------------------------------------------------------------------------------- fees

    /// @inheritdoc IComputeRewards
    function countFees(uint256 source, uint64[] calldata ids) external {
        if (source >= _sources.length) revert UnknownSource(source, _sources.length);
        for (uint256 i; i < ids.length; ++i) {
            _countFee(source, ids[i]);
        }
    }

    function _countFee(uint256 source, uint64 id) private {
        if (_counted[source][id]) revert AlreadyCounted(source, id);
        (uint64 operatorId, uint256 stableFees, uint256 nativeFees) = _sources[source].feesOf(id);
        if (operatorId == 0) revert NothingToCount(source, id);
        _counted[source][id] = true;
        if (stableFees != 0) _countStableFees(operatorId, stableFees);
        if (nativeFees != 0) _accounts[operatorId].burntFees += nativeFees.toUint128();
        emit FeesCounted(operatorId, address(_sources[source]), id, stableFees, nativeFees);
    }

    // ------------------------------------------------------------------------------------------------------------- grants

    /// @inheritdoc IComputeRewards
    function grant(uint64 operatorId) external returns (uint256 amount) {
        Account storage a = _accounts[operatorId];
        (uint256 stableFees, uint256 burnt) = _takeBurnt(operatorId);
        if (burnt != 0) {
            a.burntFees += burnt.toUint128();
            emit StableFeesBurnt(operatorId, stableFees, burnt);
        }
        uint256 allowed = uint256(a.burntFees) * _config.shareBps / BPS;
        // What is not here is not owed: another module may have got what was minted since.
        uint256 here = token.balanceOf(address(this)) - obligations;
        amount = Math.min(Math.min(a.entitled, allowed) - a.granted, here);
        if (amount == 0) return 0;
        a.granted += uint128(amount);
        obligations += amount;
        Vesting storage v = _roll(operatorId);
        v.fresh += uint128(amount);
        emit Granted(operatorId, amount, a.entitled, allowed);
    }

    /// @inheritdoc IIncomeSource
    function release(uint64 operatorId) external returns (uint256 amount) {
        amount = releasable(operatorId);
        if (amount == 0) return 0;
        _roll(operatorId);
        _accounts[operatorId].released += uint128(amount);
        obligations -= amount;
        emit Released(operatorId, amount);
        token.forceApprove(address(income), amount);
        income.distribute(operatorId, address(token), amount);
    }

    function _roll(uint64 operatorId) private returns (Vesting storage v) {
        v = _vestings[operatorId];
        (v.period, v.fresh, v.running, v.vested) = _rolled(v);
    }

    /// As of the period that runs.
    function _rolled(Vesting memory v) private view returns (uint64 period, uint128 fresh, uint128 running, uint128 vested) {
        period = uint64(block.timestamp / _config.vestSeconds);
        if (period == v.period) return (period, v.fresh, v.running, v.vested);
        if (period == v.period + 1) return (period, 0, v.fresh, v.vested + v.running);
        return (period, 0, 0, v.vested + v.running + v.fresh);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IComputeRewards
    function releasable(uint64 operatorId) public view returns (uint256) {
        uint256 length = _config.vestSeconds;
        (,, uint128 running, uint128 vested) = _rolled(_vestings[operatorId]);
        return vested + running * (block.timestamp % length) / length - _accounts[operatorId].released;
    }

    /// @inheritdoc IComputeRewards
    function stabilityBps(uint256 streak) public view returns (uint16) {
        if (streak == 0) return 0;
        (uint256 base, uint256 whole) = (_config.baseBps, _config.streakHours);
        return uint16(base + (BPS - base) * (Math.min(streak, whole + 1) - 1) / whole);
    }

    /// @inheritdoc IComputeRewards
    function accountOf(uint64 operatorId) external view returns (Account memory) {
        return _accounts[operatorId];
    }

    /// @inheritdoc IComputeRewards
    function recordOf(uint64 deviceId) external view returns (Record memory) {
        return _records[deviceId];
    }

    /// @inheritdoc IComputeRewards
    function waitingFees(uint64 operatorId) external view returns (uint256 queued, uint256 unqueued) {
        return _waitingFees(operatorId);
    }

    /// @inheritdoc IComputeRewards
    function sources() external view returns (IFeeSource[] memory) {
        return _sources;
    }

    /// @inheritdoc IComputeRewards
    function config() external view returns (Config memory) {
        return _config;
    }
}
