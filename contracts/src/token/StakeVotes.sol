// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Votes} from "@openzeppelin/contracts/governance/utils/Votes.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";
import {ERC6372Utils} from "@openzeppelin/contracts/utils/ERC6372Utils.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

/// @title StakeVotes: votes that equal active stake, held by the operator's owner.
/// @notice ERC-5805 with a timestamp clock (ERC-6372). An owner who never delegated votes for itself, and to delegate to nobody
/// means to oneself, so the sum of all votes is always the active stake. A change of owner is seen at the next touch of the stake,
/// or at once when anybody calls `syncVotes`.
abstract contract StakeVotes is Votes {
    using Checkpoints for Checkpoints.Trace208;

    /// Who holds an operator's votes, and how many: one slot.
    struct Seat {
        address holder;
        uint96 units;
    }

    mapping(uint64 operatorId => Seat) private _seats;
    mapping(address owner => uint256) private _units;
    mapping(uint64 operatorId => Checkpoints.Trace208) private _stakes;

    event VotesMoved(uint64 indexed operatorId, address indexed from, address indexed to, uint256 units);

    function clock() public view override returns (uint48) {
        return Time.timestamp();
    }

    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public view override returns (string memory) {
        return ERC6372Utils.timestampClockMode(clock);
    }

    function delegates(address account) public view override returns (address) {
        address chosen = super.delegates(account);
        return chosen == address(0) ? account : chosen;
    }

    /// @notice Active stake of all operators, own and backers'.
    function activeStake() external view returns (uint256) {
        return _getTotalSupply();
    }

    /// @notice Who holds an operator's votes now, and how many.
    function votesOfOperator(uint64 operatorId) external view returns (address holder, uint256 units) {
        Seat storage seat = _seats[operatorId];
        return (seat.holder, seat.units);
    }

    function _delegate(address account, address delegatee) internal override {
        super._delegate(account, delegatee == address(0) ? account : delegatee);
    }

    function _getVotingUnits(address account) internal view override returns (uint256) {
        return _units[account];
    }

    function _stakeAt(uint64 operatorId, uint256 time) internal view returns (uint256) {
        return _stakes[operatorId].upperLookupRecent(_validateTimepoint(time));
    }

    /// @dev Gives the operator's owner exactly `units` for this operator, whoever held them before.
    function _seatVotes(uint64 operatorId, address owner, uint256 units) internal {
        Seat storage seat = _seats[operatorId];
        (address holder, uint256 held) = (seat.holder, seat.units);
        if (holder != owner && held != 0) {
            _units[holder] -= held;
            _units[owner] += held;
            _transferVotingUnits(holder, owner, held);
            emit VotesMoved(operatorId, holder, owner, held);
        }
        if (units > held) {
            _units[owner] += units - held;
            _transferVotingUnits(address(0), owner, units - held);
        } else if (units < held) {
            _units[owner] -= held - units;
            _transferVotingUnits(owner, address(0), held - units);
        }
        if (units != held) _stakes[operatorId].push(clock(), uint208(units));
        if (holder != owner || units != held) (seat.holder, seat.units) = (owner, uint96(units));
    }
}
