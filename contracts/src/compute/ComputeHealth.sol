// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {FigureTree} from "./FigureTree.sol";
import {HealthDraw} from "./HealthDraw.sol";
import {HealthFigures} from "./HealthFigures.sol";
import {HealthSeats} from "./HealthSeats.sol";
import {IComputeHealth} from "./IComputeHealth.sol";
import {IComputeMarket} from "./IComputeMarket.sol";

/// @notice When an emission began.
interface IEmissionStart {
    function startTime() external view returns (uint64);
}

/// @title ComputeHealth: see IComputeHealth for the rules. No owner, no parameter that can change.
contract ComputeHealth is HealthSeats, IModule, EIP712 {
    bytes32 private constant REPORT_TYPEHASH = keccak256("HealthReport(uint64 operatorId,uint32 hour,uint32 page,bytes32 dataHash)");
    uint256 private constant BPS = 10_000;
    uint256 private constant EMISSION_HOUR = 3_600;
    uint256 private constant ROUNDS_MAX = 15;

    /// A partner whose word about a device counts.
    struct Partner {
        uint32 round;
        uint32 seat;
        uint64 operatorId;
    }

    IRandomness public immutable randomness;

    Config private _config; // written once, in the constructor
    mapping(bytes32 key => bytes32) private _reports;
    mapping(uint32 hour => Proposal) private _proposals;
    mapping(uint32 hour => FinalHour) private _finalHours;
    /// Later than the usual one, where a proposal fell.
    mapping(uint32 hour => uint64) private _passableFrom;
    /// @inheritdoc IComputeHealth
    uint32 public nextHour = 1;
    uint64 private _finalCount;

    constructor(
        Config memory c,
        IComputeMarket market_,
        IOperators operators_,
        IStakeVault stakeVault_,
        IRandomness randomness_,
        IEmissionStart emission
    )
        HealthSeats(market_, operators_, stakeVault_, emission.startTime(), c.hourSeconds, c.deviceStake)
        EIP712("Millrace Compute Health", "1")
    {
        _checkTimes(c);
        if (c.rounds == 0 || c.rounds > ROUNDS_MAX) revert BadConfig("rounds", c.rounds, ROUNDS_MAX);
        if (c.statementsMin > c.rounds) revert BadConfig("statementsMin", c.statementsMin, c.rounds);
        if (c.bandwidthRef == 0) revert BadConfig("bandwidthRef", 0, 1);
        if (c.latencyRef == 0) revert BadConfig("latencyRef", 0, 1);
        uint256 fill = uint256(c.rateFillBps) + c.memoryFillBps;
        if (fill <= BPS / 2 || fill > BPS) revert BadConfig("fillBps", fill, BPS);
        if (c.bond == 0) revert BadConfig("bond", 0, 1);
        (_config, randomness) = (c, randomness_);
    }

    function _checkTimes(Config memory c) private pure {
        if (c.hourSeconds == 0 || EMISSION_HOUR % c.hourSeconds != 0) revert BadConfig("hourSeconds", c.hourSeconds, EMISSION_HOUR);
        if (c.reportSeconds == 0) revert BadConfig("reportSeconds", 0, 1);
        if (c.proposeSeconds == 0) revert BadConfig("proposeSeconds", 0, 1);
        if (c.windowSeconds == 0) revert BadConfig("windowSeconds", 0, 1);
        if (c.slotSeconds == 0 || c.hourSeconds % c.slotSeconds != 0) revert BadConfig("slotSeconds", c.slotSeconds, c.hourSeconds);
        // A challenge takes less than a hundredth of a device's time.
        if (c.deadlineMs == 0 || c.deadlineMs > c.hourSeconds * 10) revert BadConfig("deadlineMs", c.deadlineMs, c.hourSeconds * 10);
        if (c.deadlineMs > c.slotSeconds * 1_000) revert BadConfig("deadlineMs", c.deadlineMs, c.slotSeconds * 1_000);
    }

    // ------------------------------------------------------------------------------------------------------------ reports

    /// @inheritdoc IComputeHealth
    function report(Report[] calldata reports) external returns (uint256 taken) {
        for (uint256 i; i < reports.length; ++i) {
            if (_take(reports[i])) ++taken;
        }
    }

    function _take(Report calldata r) private returns (bool) {
        bytes32 key = _reportKey(r.operatorId, r.hour, r.page);
        if (_reports[key] != 0) return false;
        uint64 from = startOf(r.hour + 1);
        uint64 until = from + _config.reportSeconds;
        if (block.timestamp < from || block.timestamp >= until) revert NotInReportTime(r.hour, from, until, block.timestamp);
        uint256 size = 1 + _config.rounds * HealthFigures.STATEMENT_BYTES;
        if (r.data.length == 0 || r.data.length % size != 0 || r.data.length > HealthFigures.PAGE_SEATS * size) {
            revert BadReport(r.data.length, size, HealthFigures.PAGE_SEATS);
        }
        if (r.signature.length == 0) {
            _requireOperator(r.operatorId);
        } else {
            address signer = operators.nodeKeyOf(r.operatorId);
            bytes32 digest = reportDigest(r.operatorId, r.hour, r.page, r.data);
            if (!SignatureChecker.isValidSignatureNowCalldata(signer, digest, r.signature)) revert BadSignature(signer);
        }
        _reports[key] = keccak256(r.data);
        emit Reported(r.operatorId, r.hour, r.page, r.data);
        return true;
    }

    /// @inheritdoc IComputeHealth
    function reportDigest(uint64 operatorId, uint32 hour, uint32 page, bytes calldata data) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(REPORT_TYPEHASH, operatorId, hour, page, keccak256(data))));
    }

    /// @inheritdoc IComputeHealth
    function reportHash(uint64 operatorId, uint32 hour, uint32 page) public view returns (bytes32) {
        return _reports[_reportKey(operatorId, hour, page)];
    }

    function _reportKey(uint64 operatorId, uint32 hour, uint32 page) private pure returns (bytes32) {
        return bytes32(uint256(operatorId) << 64 | uint256(hour) << 32 | page);
    }

    // ---------------------------------------------------------------------------------------------------------- proposals

    /// @inheritdoc IComputeHealth
    function propose(uint32 hour, uint64 operatorId, bytes calldata figures) external {
        _requireOperator(operatorId);
        uint64 reportsUntil = startOf(hour + 1) + _config.reportSeconds;
        if (block.timestamp < reportsUntil) revert ReportsStillOpen(hour, reportsUntil, block.timestamp);
        if (hour < nextHour) revert HourOutOfReach(hour, nextHour, hourAt(block.timestamp));
        Proposal storage p = _proposals[hour];
        if (p.root != 0) revert AlreadyProposed(hour, p.root);
        uint256 length = uint256(seatsAt(hour)) * FigureTree.FIGURE_BYTES;
        if (figures.length != length) revert WrongLength(figures.length, length);
        (bytes32 root, uint64 total) = FigureTree.build(figures);
        uint64 finalFrom = uint64(block.timestamp) + _config.windowSeconds;
        (p.root, p.operatorId, p.finalFrom, p.total) = (root, operatorId, finalFrom, total);
        emit FiguresProposed(hour, operatorId, root, total, finalFrom, figures);
        stakeVault.lock(operatorId, _config.bond);
    }

    /// @inheritdoc IComputeHealth
    function dispute(uint32 hour, uint32 seat, Opening calldata opening, bytes[] calldata pages) external {
        Proposal memory p = _proposals[hour];
        if (p.root == 0) revert NotProposed(hour);
        if (block.timestamp >= p.finalFrom) revert WindowOver(hour, p.finalFrom);
        uint64 proposed = _open(hour, seat, opening, p.root);
        uint64 computed = compute(hour, seat, pages);
        if (proposed == computed) revert FigureIsRight(hour, seat, computed);
        delete _proposals[hour];
        _passableFrom[hour] = uint64(block.timestamp) + _config.proposeSeconds;
        uint96 bond = _config.bond;
        (,, uint256 reward) = stakeVault.slash(p.operatorId, bond, IStakeVault.Payout(address(0), 0, msg.sender, bond / 2));
        emit FiguresRefuted(hour, seat, p.operatorId, msg.sender, proposed, computed, reward);
    }

    /// @inheritdoc IComputeHealth
    function advance(uint256 hoursMax) external returns (uint256 hours_) {
        for (uint32 hour = nextHour; hours_ < hoursMax; ++hour) {
            if (_proposals[hour].root == 0 ? block.timestamp < passableFrom(hour) : block.timestamp < _proposals[hour].finalFrom) break;
            nextHour = hour + 1;
            ++hours_;
            _decide(hour);
        }
    }

    /// @inheritdoc IComputeHealth
    function passableFrom(uint32 hour) public view returns (uint64) {
        uint64 usual = startOf(hour + 1) + _config.reportSeconds + _config.proposeSeconds;
        return _passableFrom[hour] > usual ? _passableFrom[hour] : usual;
    }

    function _decide(uint32 hour) private {
        Proposal memory p = _proposals[hour];
        if (p.root == 0) {
            emit HourPassedOver(hour);
            return;
        }
        delete _proposals[hour];
        uint64 ordinal = ++_finalCount;
        _finalHours[hour] = FinalHour(p.root, p.total, ordinal);
        emit HourFinal(hour, p.root, p.total, ordinal);
        stakeVault.unlock(p.operatorId, _config.bond);
    }

    function _open(uint32 hour, uint32 seat, Opening calldata opening, bytes32 root) private view returns (uint64 figure) {
        bool isThere;
        (isThere, figure) = FigureTree.open(root, seatsAt(hour), seat, opening);
        if (!isThere) revert WrongOpening(hour, seat, root);
    }

    // ------------------------------------------------------------------------------------------------------------ figures

    /// @inheritdoc IComputeHealth
    function compute(uint32 hour, uint32 seat, bytes[] calldata pages) public view returns (uint64) {
        Occupant memory device = occupantAt(seat, hour);
        if (device.deviceId == 0) return uint64(Reason.Vacant);
        HealthFigures.Evidence memory e = _evidenceOf(hour, seat, device.operatorId, pages);
        return HealthFigures.figureOf(_config, device.rate, device.memoryMbs, e);
    }

    function _evidenceOf(uint32 hour, uint32 seat, uint64 operatorId, bytes[] calldata pages)
        private
        view
        returns (HealthFigures.Evidence memory e)
    {
        e = HealthFigures.begin(_config.rounds);
        uint256 own = _checkPage(operatorId, hour, seat, pages, 0) ? 1 : 0;
        uint256 used = own;
        Partner[] memory partners = _countedPartners(hour, seat, operatorId);
        for (uint256 i; i < partners.length; ++i) {
            Partner memory p = partners[i];
            if (!_checkPage(p.operatorId, hour, p.seat, pages, used)) continue;
            HealthFigures.add(e, _said(pages[used++], p.seat, p.round), own == 1 ? _said(pages[0], seat, p.round) : 0);
        }
        if (used != pages.length) revert WrongPageCount(pages.length, used);
    }

    function _said(bytes calldata page, uint32 seat, uint32 round) private view returns (uint256) {
        return HealthFigures.statementIn(page, _config.rounds, seat, round);
    }

    /// @inheritdoc IComputeHealth
    function pagesOf(uint32 hour, uint32 seat) external view returns (uint64[] memory operatorIds, uint32[] memory pages) {
        Occupant memory device = occupantAt(seat, hour);
        if (device.deviceId == 0) return (operatorIds, pages);
        Partner[] memory partners = _countedPartners(hour, seat, device.operatorId);
        (operatorIds, pages) = (new uint64[](partners.length + 1), new uint32[](partners.length + 1));
        uint256 count;
        for (uint256 i; i <= partners.length; ++i) {
            (uint64 operatorId, uint32 page) =
                i == 0 ? (device.operatorId, _pageOf(seat)) : (partners[i - 1].operatorId, _pageOf(partners[i - 1].seat));
            if (reportHash(operatorId, hour, page) != 0) (operatorIds[count], pages[count++]) = (operatorId, page);
        }
        assembly ("memory-safe") {
            mstore(operatorIds, count)
            mstore(pages, count)
        }
    }

    /// @inheritdoc IComputeHealth
    function partnersOf(uint32 hour, uint32 seat) public view returns (uint32[] memory partners) {
        bytes32 seed = randomness.valueOf(startOf(hour));
        uint32 seats = seatsAt(hour);
        partners = new uint32[](_config.rounds);
        for (uint256 i; i < partners.length; ++i) {
            partners[i] = seat < seats ? HealthDraw.partnerOf(seed, i, seat, seats) : HealthDraw.NOBODY;
        }
    }

    /// Partners whose word counts: of another operator, and the first of that operator.
    function _countedPartners(uint32 hour, uint32 seat, uint64 operatorId) private view returns (Partner[] memory partners) {
        uint32[] memory seats = partnersOf(hour, seat);
        partners = new Partner[](seats.length);
        uint256 count;
        for (uint32 round; round < seats.length; ++round) {
            if (seats[round] == HealthDraw.NOBODY) continue;
            uint64 other = occupantAt(seats[round], hour).operatorId;
            if (other == 0 || other == operatorId || _isAmong(partners, count, other)) continue;
            partners[count++] = Partner(round, seats[round], other);
        }
        assembly ("memory-safe") {
            mstore(partners, count)
        }
    }

    function _isAmong(Partner[] memory partners, uint256 count, uint64 operatorId) private pure returns (bool) {
        for (uint256 i; i < count; ++i) {
            if (partners[i].operatorId == operatorId) return true;
        }
        return false;
    }

    /// Whether an operator reported the page of a seat; if so, it must be the one at `index`.
    function _checkPage(uint64 operatorId, uint32 hour, uint32 seat, bytes[] calldata pages, uint256 index) private view returns (bool) {
        bytes32 expected = reportHash(operatorId, hour, _pageOf(seat));
        if (expected == 0) return false;
        if (index >= pages.length) revert WrongPageCount(pages.length, index + 1);
        bytes32 got = keccak256(pages[index]);
        if (got != expected) revert WrongPage(operatorId, _pageOf(seat), got, expected);
        return true;
    }

    function _pageOf(uint32 seat) private pure returns (uint32) {
        return uint32(seat / HealthFigures.PAGE_SEATS);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IComputeHealth
    function figureOf(uint32 hour, uint32 seat, Opening calldata opening) external view returns (uint64 performance, Reason reason) {
        uint64 figure = _open(hour, seat, opening, _finalHours[hour].root);
        // Codes beyond the last one stand in a wrong figure that nobody disputed; its performance is what it is.
        uint256 code = figure & 0xffff;
        return (figure >> 16, code > uint256(type(Reason).max) ? Reason.Vacant : Reason(code));
    }

    /// @inheritdoc IComputeHealth
    function proposalOf(uint32 hour) external view returns (Proposal memory) {
        return _proposals[hour];
    }

    /// @inheritdoc IComputeHealth
    function finalHour(uint32 hour) external view returns (FinalHour memory) {
        return _finalHours[hour];
    }

    /// @inheritdoc IComputeHealth
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @notice A bond may be slashed until its proposal's window is over.
    /// @inheritdoc IModule
    function exposureSeconds() external view returns (uint64) {
        return _config.windowSeconds;
    }
}
