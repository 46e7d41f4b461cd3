// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IOperators} from "../chain/IOperators.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IJury} from "./IJury.sol";

/// @title JurySeats: seats with locked stake, and the draw of a jury from them.
/// @notice A place is a seat's number; a place that was left is taken again, so that places do not thin out. Who held it is remembered by
/// time: a draw sees the seats as they were in the second before the round was opened, and nobody changes it once the seed is known.
/// What is drawn is backed: locked stake >= seats * seatStake until a loss, and >= open votes * penalty always.
abstract contract JurySeats is IJury {
    using Checkpoints for Checkpoints.Trace208;
    using Shuffle for Shuffle.Order;

    uint32 public constant SEATS_MAX = 64; // of one operator
    /// Places looked at in one draw, and jurors looked at when a round is opened.
    uint256 private constant STEPS_MAX = 256;

    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;

    Config internal _config; // written once, in the constructor
    Checkpoints.Trace208 private _counts; // places ever, by time
    mapping(uint256 place => Checkpoints.Trace208) private _holders; // operator, by time; 0: nobody
    uint32[] private _free;
    mapping(uint64 operatorId => uint32[]) private _placesOf;
    mapping(uint64 operatorId => Juror) internal _jurors;
    uint64[] private _list; // operators with a seat

    /// Who may not judge: operators, and whoever has a key among `keys`.
    struct Excluded {
        uint64[] parties;
        address[] keys;
    }

    /// A draw on its way: operators that were met, and for each how many votes it got and may get.
    struct Draw {
        uint64[] met;
        uint16[] votes;
        uint256[] room;
        uint256 count;
        uint256 drawn;
    }

    constructor(IOperators operators_, IStakeVault stakeVault_) {
        operators = operators_;
        stakeVault = stakeVault_;
    }

    // ------------------------------------------------------------------------------------------------------------------- seats

    /// @inheritdoc IJury
    function enrol(uint64 operatorId, uint32 count) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        Juror storage j = _jurors[operatorId];
        if (count == 0 || count > SEATS_MAX - j.seats) revert BadSeatCount(count, SEATS_MAX - j.seats);
        for (uint32 i; i < count; ++i) {
            uint32 place = _takePlace();
            _holders[place].push(uint48(block.timestamp), operatorId);
            _placesOf[operatorId].push(place);
        }
        if (j.place == 0) {
            _list.push(operatorId);
            (j.place, j.since) = (uint32(_list.length), uint48(block.timestamp));
        }
        j.seats += count;
        emit SeatsTaken(operatorId, count, j.seats);
        uint256 needed = uint256(j.seats) * _config.seatStake;
        uint256 locked = _lockedOf(operatorId);
        if (needed > locked) stakeVault.lock(operatorId, needed - locked);
    }

    /// @inheritdoc IJury
    function leave(uint64 operatorId, uint32 count) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender && operators.ownerOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        Juror storage j = _jurors[operatorId];
        if (count == 0 || count > j.seats) revert BadSeatCount(count, j.seats);
        _vacate(operatorId, j, count);
    }

    /// @inheritdoc IJury
    function unlock(uint64 operatorId) external {
        Juror storage j = _jurors[operatorId];
        if (block.timestamp < j.unlocksAt) revert StillLocked(operatorId, j.unlocksAt, block.timestamp);
        uint256 seats = uint256(j.seats) * _config.seatStake;
        uint256 atRisk = uint256(j.openVotes) * _config.penalty;
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

    function _vacate(uint64 operatorId, Juror storage j, uint32 count) private {
        uint32[] storage places = _placesOf[operatorId];
        for (uint32 i; i < count; ++i) {
            uint32 place = places[places.length - 1];
            places.pop();
            _holders[place].push(uint48(block.timestamp), 0);
            _free.push(place);
        }
        j.seats -= count;
        j.unlocksAt = uint48(block.timestamp) + _config.leaveSeconds;
        if (j.seats == 0) {
            uint64 last = _list[_list.length - 1];
            (_list[j.place - 1], _jurors[last].place) = (last, j.place);
            _list.pop();
            j.place = 0;
        }
        emit SeatsLeft(operatorId, count, j.seats, j.unlocksAt);
    }

    /// Takes the penalty for some open votes; seats that the rest does not cover are lost.
    function _penalise(uint64 operatorId, uint256 votes, IStakeVault.Payout memory payout)
        internal
        returns (uint256 amount, uint256 compensation)
    {
        Juror storage j = _jurors[operatorId];
        j.openVotes -= uint32(votes);
        amount = votes * _config.penalty;
        (, compensation,) = stakeVault.slash(operatorId, amount, payout);
        uint256 covered = _lockedOf(operatorId) / _config.seatStake;
        if (covered < j.seats) _vacate(operatorId, j, j.seats - uint32(covered));
    }

    // ---------------------------------------------------------------------------------------------------------------- the draw

    /// The votes of a round, or fewer (`drawn`) when there are not enough eligible seats. Entries of `met` with 0 votes were not drawn.
    function _drawVotes(uint256 seed, uint256 openedAt, uint256 votes, Excluded memory excluded) internal view returns (Draw memory d) {
        uint48 at = uint48(openedAt - 1);
        Shuffle.Order memory order = Shuffle.begin(seed, _counts.upperLookup(at), STEPS_MAX);
        d.met = new uint64[](order.stepsMax);
        d.votes = new uint16[](order.stepsMax);
        d.room = new uint256[](order.stepsMax);
        while (d.drawn < votes && !order.isDone()) {
            uint64 operatorId = uint64(_holders[order.next()].upperLookup(at));
            if (operatorId == 0) continue;
            uint256 i;
            while (i < d.count && d.met[i] != operatorId) ++i;
            if (i == d.count) {
                d.met[i] = operatorId;
                d.room[i] = _roomOf(operatorId, excluded);
                ++d.count;
            }
            if (d.votes[i] == d.room[i]) continue;
            ++d.votes[i];
            ++d.drawn;
        }
    }

    /// @dev As many operators that may be drawn as there are votes; from a place in the list that nobody chose, and no further than STEPS_MAX.
    function _requireEnough(uint256 votes, Excluded memory excluded) internal view {
        uint256 count = _list.length;
        uint256 steps = count < STEPS_MAX ? count : STEPS_MAX;
        uint256 found;
        if (count != 0) {
            uint256 start = uint256(keccak256(abi.encode(blockhash(block.number - 1), block.timestamp))) % count;
            for (uint256 i; i < steps && found < votes; ++i) {
                uint64 operatorId = _list[(start + i) % count];
                if (_jurors[operatorId].since < block.timestamp && _roomOf(operatorId, excluded) != 0) ++found;
            }
        }
        if (found < votes) revert TooFewJurors(found, votes);
    }

    /// The keys of the parties and the accounts that were named with them.
    function _excluded(uint64[] memory parties, address[] memory accounts) internal view returns (Excluded memory excluded) {
        excluded.parties = parties;
        excluded.keys = new address[](accounts.length + 3 * parties.length);
        uint256 count;
        for (; count < accounts.length; ++count) {
            excluded.keys[count] = accounts[count];
        }
        for (uint256 i; i < parties.length; ++i) {
            address[3] memory keys = operators.keysOf(parties[i]);
            for (uint256 k; k < 3; ++k) {
                excluded.keys[count++] = keys[k];
            }
        }
    }

    /// How many more votes the locked stake of an operator backs; 0 for whoever may not judge.
    function _roomOf(uint64 operatorId, Excluded memory excluded) private view returns (uint256) {
        uint256 backed = _lockedOf(operatorId) / _config.penalty;
        uint256 open = _jurors[operatorId].openVotes;
        if (backed <= open) return 0;
        address[3] memory keys = operators.keysOf(operatorId);
        for (uint256 k; k < 3; ++k) {
            for (uint256 i; i < excluded.keys.length; ++i) {
                if (keys[k] == excluded.keys[i]) return 0;
            }
        }
        for (uint256 i; i < excluded.parties.length; ++i) {
            if (excluded.parties[i] == operatorId || stakeVault.isBackedBy(excluded.parties[i], keys)) return 0;
        }
        return backed - open;
    }

    function _lockedOf(uint64 operatorId) private view returns (uint256) {
        return stakeVault.lockedOfModule(operatorId, address(this));
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IJury
    function juror(uint64 operatorId) external view returns (Juror memory) {
        return _jurors[operatorId];
    }

    /// @inheritdoc IJury
    function jurorCount() external view returns (uint256) {
        return _list.length;
    }

    /// @inheritdoc IJury
    function config() external view returns (Config memory) {
        return _config;
    }
}
