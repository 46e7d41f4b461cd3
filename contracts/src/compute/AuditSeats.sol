// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule, IRegistry} from "../chain/IRegistry.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IAuditors} from "./IAuditors.sol";
import {IComputeJobs} from "./IComputeJobs.sol";

/// @title AuditSeats: seats with locked stake, and the draw from them. Part of Auditors.
/// @notice A place is a seat's number, as in JurySeats: one that was left is taken again, and who held it when is remembered, so a draw sees
/// the seats of an earlier second. Locked stake >= seats * seatStake until a loss, and >= duties * liePenalty always.
/// Who has left and unlocked before a late draw has no stake that backs a duty, and is passed over.
abstract contract AuditSeats is IAuditors, IModule {
    using Checkpoints for Checkpoints.Trace208;
    using Shuffle for Shuffle.Order;

    uint32 public constant SEATS_MAX = 64; // of one operator
    /// Places looked at in one draw.
    uint256 private constant STEPS_MAX = 256;
    uint32 private constant SECONDS_MAX = 30 days;
    /// Strict, Module and Image.
    uint8 private constant ENGINES_ALL = 0x0e;

    IRegistry public immutable registry;
    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;

    Config internal _config; // written once, in the constructor
    /// @inheritdoc IAuditors
    mapping(IComputeJobs.Engine engine => uint256) public auditorCount;
    Checkpoints.Trace208 private _counts; // places ever, by time
    mapping(uint256 place => Seat) private _seats;
    mapping(uint256 place => Checkpoints.Trace208) private _formerSeats; // by the time that they began: operator, and from bit 64 on its engines
    uint32[] private _free;
    mapping(uint64 operatorId => uint32[]) private _placesOf;
    mapping(uint64 operatorId => Auditor) internal _auditors;

    /// Who holds a place; operator 0: nobody.
    struct Seat {
        uint64 operatorId;
        uint8 engines;
        uint48 since;
    }

    /// Who is looked for.
    struct Search {
        Wanted wanted;
        bool needsStake;
        address[4] keys; // of the provider, and the renter
    }

    constructor(Config memory c, IRegistry registry_, IOperators operators_, IStakeVault stakeVault_) {
        if (c.liePenalty == 0 || c.liePenalty > c.seatStake) revert BadConfig("liePenalty", c.liePenalty, c.seatStake);
        if (c.silencePenalty > c.liePenalty) revert BadConfig("silencePenalty", c.silencePenalty, c.liePenalty);
        if (c.leaveSeconds == 0 || c.leaveSeconds > SECONDS_MAX) revert BadConfig("leaveSeconds", c.leaveSeconds, SECONDS_MAX);
        (_config, registry, operators, stakeVault) = (c, registry_, operators_, stakeVault_);
    }

    // ------------------------------------------------------------------------------------------------------------------- seats

    /// @inheritdoc IAuditors
    function enrol(uint64 operatorId, uint32 count, uint8 engines) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        Auditor storage a = _auditors[operatorId];
        if (count == 0 || count > SEATS_MAX - a.seats) revert BadSeatCount(count, SEATS_MAX - a.seats);
        _requireKnown(engines);
        if (a.seats != 0 && engines != a.engines) revert OtherEngines(operatorId, engines, a.engines);
        if (a.seats == 0) _count(engines, true);
        a.engines = engines;
        for (uint32 i; i < count; ++i) {
            uint32 place = _takePlace();
            _give(place, operatorId, engines);
            _placesOf[operatorId].push(place);
        }
        a.seats += count;
        emit SeatsTaken(operatorId, count, a.seats, engines);
        uint256 needed = uint256(a.seats) * _config.seatStake;
        uint256 locked = _lockedOf(operatorId);
        if (needed > locked) stakeVault.lock(operatorId, needed - locked);
    }

    /// @inheritdoc IAuditors
    function changeEngines(uint64 operatorId, uint8 engines) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        _requireKnown(engines);
        Auditor storage a = _auditors[operatorId];
        if (a.seats == 0) revert NoSeats(operatorId);
        _count(a.engines, false);
        _count(engines, true);
        a.engines = engines;
        uint32[] storage places = _placesOf[operatorId];
        for (uint256 i; i < places.length; ++i) {
            _give(places[i], operatorId, engines);
        }
        emit EnginesChanged(operatorId, engines);
    }

    function _requireKnown(uint8 engines) private pure {
        if (engines == 0 || engines & ~ENGINES_ALL != 0) revert BadEngines(engines, ENGINES_ALL);
    }

    function _give(uint32 place, uint64 operatorId, uint8 engines) private {
        Seat storage s = _seats[place];
        if (s.since != 0) _formerSeats[place].push(s.since, uint208(s.engines) << 64 | s.operatorId);
        (s.operatorId, s.engines, s.since) = (operatorId, engines, uint48(block.timestamp));
    }

    /// Who held a place then; most have changed hands before.
    function _holderAt(uint256 place, uint48 at) private view returns (uint64 operatorId, uint8 engines) {
        Seat storage s = _seats[place];
        if (s.since <= at) return (s.operatorId, s.engines);
        uint208 former = _formerSeats[place].upperLookup(at);
        return (uint64(former), uint8(former >> 64));
    }

    /// @inheritdoc IAuditors
    function leave(uint64 operatorId, uint32 count) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender && operators.ownerOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        uint32 seats = _auditors[operatorId].seats;
        if (count == 0 || count > seats) revert BadSeatCount(count, seats);
        _vacate(operatorId, count);
    }

    /// @inheritdoc IAuditors
    function unlock(uint64 operatorId) external {
        Auditor storage a = _auditors[operatorId];
        if (block.timestamp < a.unlocksAt) revert StillLocked(operatorId, a.unlocksAt, block.timestamp);
        uint256 seats = uint256(a.seats) * _config.seatStake;
        uint256 atRisk = uint256(a.duties) * _config.liePenalty;
        uint256 kept = seats > atRisk ? seats : atRisk;
        uint256 locked = _lockedOf(operatorId);
        if (locked <= kept) revert NothingToUnlock(operatorId);
        emit SeatsUnlocked(operatorId, locked - kept);
        stakeVault.unlock(operatorId, locked - kept);
    }

    function _takePlace() private returns (uint32 place) {
        if (_free.length != 0) {
            place = _free[_free.length - 1];
            _free.pop();
        } else {
            place = uint32(_counts.latest());
            _counts.push(uint48(block.timestamp), place + 1);
        }
    }

    /// Takes a penalty; seats that the rest does not cover are lost.
    function _penalise(uint64 operatorId, uint256 amount, IStakeVault.Payout memory payout) internal {
        stakeVault.slash(operatorId, amount, payout);
        uint256 covered = _lockedOf(operatorId) / _config.seatStake;
        uint32 seats = _auditors[operatorId].seats;
        if (covered < seats) _vacate(operatorId, seats - uint32(covered));
    }

    function _vacate(uint64 operatorId, uint32 count) private {
        Auditor storage a = _auditors[operatorId];
        uint32[] storage places = _placesOf[operatorId];
        for (uint32 i; i < count; ++i) {
            uint32 place = places[places.length - 1];
            places.pop();
            _give(place, 0, 0);
            _free.push(place);
        }
        a.seats -= count;
        a.unlocksAt = uint48(block.timestamp) + _config.leaveSeconds;
        if (a.seats == 0) _count(a.engines, false);
        emit SeatsLeft(operatorId, count, a.seats, a.unlocksAt);
    }

    /// An operator has these engines from now on, or no more.
    function _count(uint8 engines, bool isMore) private {
        for (uint8 i; i <= uint8(type(IComputeJobs.Engine).max); ++i) {
            IComputeJobs.Engine engine = IComputeJobs.Engine(i);
            if (!_isOf(engines, engine)) continue;
            if (isMore) ++auditorCount[engine];
            else --auditorCount[engine];
        }
    }

    function _isOf(uint8 engines, IComputeJobs.Engine engine) private pure returns (bool) {
        return engine == IComputeJobs.Engine.None || engines >> uint8(engine) & 1 != 0;
    }

    // ---------------------------------------------------------------------------------------------------------------- the draw

    /// @inheritdoc IAuditors
    function draw(bytes32 seed, Wanted calldata wanted) public view returns (uint64[] memory) {
        return _draw(seed, _searchFor(wanted, true));
    }

    /// @inheritdoc IAuditors
    function drawCommittee(bytes32 seed, Wanted calldata wanted) external view returns (uint64[] memory) {
        return _draw(seed, _searchFor(wanted, false));
    }

    function _searchFor(Wanted calldata wanted, bool needsStake) private view returns (Search memory) {
        address[3] memory keys = operators.keysOf(wanted.provider);
        return Search(wanted, needsStake, [keys[0], keys[1], keys[2], wanted.renter]);
    }

    function _draw(bytes32 seed, Search memory s) private view returns (uint64[] memory found) {
        uint48 at = s.wanted.seenAt - 1;
        Shuffle.Order memory order = Shuffle.begin(uint256(seed), _counts.upperLookup(at), STEPS_MAX);
        found = new uint64[](s.wanted.count);
        uint256 count;
        while (count < found.length && !order.isDone()) {
            (uint64 operatorId, uint8 engines) = _holderAt(order.next(), at);
            if (operatorId == 0 || !_isOf(engines, s.wanted.engine)) continue;
            if (_isIn(found, count, operatorId) || !_isEligible(operatorId, s)) continue;
            found[count++] = operatorId;
        }
        assembly ("memory-safe") {
            mstore(found, count)
        }
    }

    function _isIn(uint64[] memory list, uint256 count, uint64 operatorId) private pure returns (bool) {
        for (uint256 i; i < count; ++i) {
            if (list[i] == operatorId) return true;
        }
        return false;
    }

    function _isEligible(uint64 operatorId, Search memory s) private view returns (bool) {
        uint64 provider = s.wanted.provider;
        if (operatorId == provider) return false;
        if (s.needsStake && _backedDutiesOf(operatorId) == 0) return false;
        address[3] memory keys = operators.keysOf(operatorId);
        for (uint256 i; i < 4; ++i) {
            address key = s.keys[i];
            if (key == keys[0] || key == keys[1] || key == keys[2]) return false;
        }
        return !stakeVault.isBackedBy(provider, keys);
    }

    /// Duties that its stake backs at once.
    function _backedDutiesOf(uint64 operatorId) internal view returns (uint256) {
        return _lockedOf(operatorId) / _config.liePenalty;
    }

    function _lockedOf(uint64 operatorId) private view returns (uint256) {
        return stakeVault.lockedOfModule(operatorId, address(this));
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IAuditors
    function auditor(uint64 operatorId) external view returns (Auditor memory) {
        return _auditors[operatorId];
    }

    /// @inheritdoc IAuditors
    function replays(uint64 operatorId, IComputeJobs.Engine engine) external view returns (bool) {
        return _auditors[operatorId].seats != 0 && _isOf(_auditors[operatorId].engines, engine);
    }

    /// @inheritdoc IAuditors
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @notice From leaving a seat to its unlock. What backs a duty stays locked until its job is settled, however late that is.
    function exposureSeconds() external view returns (uint64) {
        return _config.leaveSeconds;
    }
}
