// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../chain/IOperators.sol";
import {Shuffle} from "../chain/Shuffle.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {PanelSeats} from "../token/PanelSeats.sol";
import {ILeaseProbers} from "./ILeaseProbers.sol";

/// @title ProberSeats: the draw of a panel from the probers' seats. Part of LeaseProbers.
abstract contract ProberSeats is ILeaseProbers, PanelSeats {
    using Shuffle for Shuffle.Order;

    /// Seats looked at in one draw: those that have left or may not speak are passed over.
    uint256 private constant STEPS_MAX = 128;
    /// Counts of a panel fit three bits (`_atLeast`).
    uint256 internal constant DRAWN_MAX = 7;

    Config internal _config; // written once, in the constructor

    /// Who may not speak of a lease.
    struct Parties {
        uint64 operatorId; // its supplier
        address[5] keys; // the supplier's, the renter's and its agent's
    }

    constructor(Config memory c, IOperators operators_, IStakeVault stakeVault_)
        PanelSeats(c.seatStake, c.leaveSeconds, c.missesMax, operators_, stakeVault_)
    {
        if (c.seedQuantum == 0) revert BadConfig("seedQuantum", 0, 1);
        _checkPanel(c.drawn, c.threshold, DRAWN_MAX);
        _config = c;
    }

    /// @inheritdoc ILeaseProbers
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @dev The first seats that may speak, of a random order of all that were taken before `askedAt`.
    function _drawSeats(uint256 seed, uint48 askedAt, Parties memory parties) internal view returns (uint64[] memory found) {
        Shuffle.Order memory order = Shuffle.begin(seed, _seatsBefore(askedAt), STEPS_MAX);
        found = new uint64[](_config.drawn);
        uint256 count;
        while (count < found.length && !order.isDone()) {
            uint64 seatId = uint64(order.next() + 1);
            if (_maySpeak(_seats[seatId], askedAt, parties)) found[count++] = seatId;
        }
        assembly ("memory-safe") {
            mstore(found, count)
        }
    }

    function _partiesOf(uint64 operatorId, address renter, address agent) internal view returns (Parties memory) {
        address[3] memory keys = operators.keysOf(operatorId);
        return Parties(operatorId, [keys[0], keys[1], keys[2], renter, agent]);
    }

    function _maySpeak(Seat storage s, uint48 askedAt, Parties memory parties) private view returns (bool) {
        uint64 operatorId = s.operatorId;
        if ((s.leftAt != 0 && s.leftAt <= askedAt) || operatorId == parties.operatorId) return false;
        address[3] memory keys = operators.keysOf(operatorId);
        for (uint256 i; i < 3; ++i) {
            for (uint256 k; k < 5; ++k) {
                if (keys[i] == parties.keys[k]) return false;
            }
        }
        return !stakeVault.isBackedBy(parties.operatorId, keys);
    }
}
