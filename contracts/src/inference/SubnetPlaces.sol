// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ISubnets} from "./ISubnets.sol";
import {SubnetBase} from "./SubnetBase.sol";
import {SubnetRules} from "./SubnetRules.sol";

/// @notice What registration needs of the network's token beside ERC-20.
interface IBurnableFrom {
    function burnFrom(address account, uint256 amount) external;
}

/// @title SubnetPlaces: the uids of a subnet: who holds them, at which price, under which permit, and who is pruned (see ISubnets).
/// @dev A place is one half of a word: operatorId:u64 registeredAt:u48 holdersBefore:u16.
abstract contract SubnetPlaces is SubnetBase {
    struct Price {
        uint128 last;
        uint64 at; // 0: nobody registered yet
    }

    struct PermitSet {
        uint64 fromEpoch;
        uint256 bits;
    }

    struct Bar {
        uint64 operatorId;
        uint64 untilEpoch;
    }

    mapping(uint64 subnetId => Price) private _prices;
    mapping(uint64 subnetId => uint128[UIDS_LIMIT]) private _places;
    mapping(uint64 subnetId => mapping(uint256 uid => Holder[])) private _before;
    mapping(uint64 subnetId => mapping(uint64 operatorId => uint256)) private _uidPlusOne;
    /// Ascending in fromEpoch; at most the last one begins after the present epoch.
    mapping(uint64 subnetId => PermitSet[]) private _permits;
    mapping(uint64 subnetId => mapping(uint256 uid => Bar)) private _bars;
    /// incentive:u16 dividends:u16 for each uid, eight in a word, the lowest uid first.
    mapping(uint64 subnetId => uint256[UIDS_LIMIT / 8]) private _ranks;
    /// The last epoch recorded + 1.
    mapping(uint64 subnetId => uint64) internal _recordedThrough;

    // ------------------------------------------------------------------------------------------------------- registration

    /// @inheritdoc ISubnets
    function register(uint64 subnetId, uint64 operatorId, uint256 maxPrice) external returns (uint16 uid) {
        Subnet storage s = _live(subnetId);
        if (operators.ownerOf(operatorId) != msg.sender) revert NotOperatorOwner(operatorId, msg.sender);
        uint256 held = _uidPlusOne[subnetId][operatorId];
        if (held != 0) revert AlreadyRegistered(subnetId, operatorId, uint16(held - 1));
        uint256 price = registrationPrice(subnetId);
        if (price > maxPrice) revert PriceAboveLimit(price, maxPrice);
        _prices[subnetId] = Price(uint128(Math.min(price * 126 / 100, _config.priceMax)), uint64(block.timestamp));
        uid = s.uidCount < _config.uidsMax ? s.uidCount++ : _prune(subnetId);
        uint256 before = _before[subnetId][uid].length;
        _places[subnetId][uid] = uint128(operatorId) << 64 | uint128(block.timestamp) << 16 | uint128(before);
        _uidPlusOne[subnetId][operatorId] = uid + 1;
        emit UidRegistered(subnetId, uid, operatorId, price);
        _burn(subnetId, price);
    }

    /// @inheritdoc ISubnets
    function burnFor(uint64 subnetId, uint256 amount) external {
        _live(subnetId);
        if (amount == 0) revert ZeroAmount();
        _burn(subnetId, amount);
    }

    /// @inheritdoc ISubnets
    function registrationPrice(uint64 subnetId) public view returns (uint256) {
        _known(subnetId);
        Price memory price = _prices[subnetId];
        if (price.at == 0) return _config.priceFirst;
        return SubnetRules.decayed(price.last, block.timestamp - price.at, _config.priceHalfLifeSeconds, _config.priceMin, _config.priceMax);
    }

    /// @inheritdoc ISubnets
    function worst(uint64 subnetId) public view returns (uint16 uid, uint256 score, bool immune) {
        Subnet storage s = _known(subnetId);
        uint256 immuneFor = uint256(_rulesOf(subnetId, _present(subnetId)).immunityEpochs) * s.tempoSeconds;
        uint256 recordedEnd = epochStart(subnetId, _recordedThrough[subnetId]);
        uint256[2] memory least = [type(uint256).max, type(uint256).max]; // of those not immune, and of the immune
        uint256 open;
        for (uint256 i; i < s.uidCount; ++i) {
            (, uint256 registeredAt) = _place(subnetId, i);
            bool isImmune = block.timestamp < registeredAt + immuneFor;
            if (!isImmune) ++open;
            // Lowest rank, then earliest registration, then lowest uid, in one number.
            uint256 key = registeredAt < recordedEnd ? _rankSum(subnetId, i) : 0;
            key = key << 64 | registeredAt << 16 | i;
            uint256 which = isImmune ? 1 : 0;
            if (key < least[which]) least[which] = key;
        }
        immune = open <= _config.minNonImmune && least[1] != type(uint256).max;
        uint256 chosen = immune ? least[1] : least[0];
        return (uint16(chosen), chosen >> 64, immune);
    }

    function _prune(uint64 subnetId) private returns (uint16 uid) {
        uint256 score;
        bool immune;
        (uid, score, immune) = worst(subnetId);
        (uint64 operatorId, uint256 registeredAt) = _place(subnetId, uid);
        _before[subnetId][uid].push(Holder(operatorId, uint48(registeredAt)));
        delete _uidPlusOne[subnetId][operatorId];
        delete _bars[subnetId][uid];
        _changePermit(subnetId, uid, false);
        emit UidPruned(subnetId, uid, operatorId, score, immune);
    }

    function _burn(uint64 subnetId, uint256 amount) private {
        emit BurntFor(subnetId, msg.sender, amount);
        IBurnableFrom(address(token)).burnFrom(msg.sender, amount);
        _shares().burntFor(subnetId, amount);
    }

    // ------------------------------------------------------------------------------------------------------------ permits

    /// @inheritdoc ISubnets
    function claimPermit(uint64 subnetId, uint16 uid) external {
        _live(subnetId);
        uint64 present = _present(subnetId);
        Hyperparameters storage rules = _rulesOf(subnetId, present);
        uint256 bits = permitsAt(subnetId, present);
        if (bits >> uid & 1 != 0) revert AlreadyPermitted(subnetId, uid);
        if (_count(bits) >= rules.maxValidators) revert NoSeatFree(subnetId, _count(bits));
        uint64 until = barredUntil(subnetId, uid);
        if (until > present) revert BarredUntil(subnetId, uid, until);
        (uint64 operatorId,) = _place(subnetId, uid);
        uint256 stake = operatorId == 0 ? 0 : vault.stakeAt(operatorId, block.timestamp - 1);
        uint256 needed = Math.max(rules.stakeThreshold, 1);
        if (stake < needed) revert StakeTooSmall(subnetId, uid, stake, needed);
        _changePermit(subnetId, uid, true);
        emit PermitClaimed(subnetId, uid, present);
    }

    /// @inheritdoc ISubnets
    function revokePermit(uint64 subnetId, uint16 uid, uint64 operatorId) external onlyModule("weightsBoard") {
        (uint64 holder,) = _place(subnetId, uid);
        if (holder != operatorId) return; // it is somebody else's by now
        uint64 until = _present(subnetId) + 1 + _config.barEpochs;
        _bars[subnetId][uid] = Bar(operatorId, until);
        _changePermit(subnetId, uid, false);
        emit PermitRevoked(subnetId, uid, operatorId, until);
    }

    /// @inheritdoc ISubnets
    function permitsAt(uint64 subnetId, uint64 epoch) public view returns (uint256) {
        PermitSet[] storage sets = _permits[subnetId];
        for (uint256 i = sets.length; i > 0; --i) {
            if (sets[i - 1].fromEpoch <= epoch) return sets[i - 1].bits;
        }
        return 0;
    }

    /// @inheritdoc ISubnets
    function barredUntil(uint64 subnetId, uint16 uid) public view returns (uint64 epoch) {
        Bar memory bar = _bars[subnetId][uid];
        (uint64 operatorId,) = _place(subnetId, uid);
        return bar.operatorId == operatorId ? bar.untilEpoch : 0;
    }

    /// @dev Permits that a settlement gives from the next epoch on: not to the barred, nor to who registered after that epoch.
    function _setPermits(uint64 subnetId, uint256 bits, uint256 epochEnd) internal returns (uint64 from, uint256 given) {
        from = _present(subnetId) + 1;
        if (_count(bits) > 64) revert OutOfRange("permits", _count(bits), 0, 64);
        for (uint256 left = bits; left != 0; left &= left - 1) {
            uint256 uid = Math.log2(left & (~left + 1));
            (, uint256 registeredAt) = _place(subnetId, uid);
            if (registeredAt >= epochEnd || registeredAt == 0 || barredUntil(subnetId, uint16(uid)) > from) bits &= ~(1 << uid);
        }
        PermitSet[] storage sets = _permits[subnetId];
        if (sets.length != 0 && sets[sets.length - 1].fromEpoch == from) sets.pop();
        sets.push(PermitSet(from, bits));
        return (from, bits);
    }

    /// @dev Gives or takes one permit from the present epoch on, in what the next one holds too. Epochs that are over stay as they were.
    function _changePermit(uint64 subnetId, uint256 uid, bool given) private {
        uint64 present = _present(subnetId);
        PermitSet[] storage sets = _permits[subnetId];
        PermitSet memory next;
        if (sets.length != 0 && sets[sets.length - 1].fromEpoch > present) {
            next = sets[sets.length - 1];
            sets.pop();
        }
        uint256 bits = permitsAt(subnetId, present);
        if (sets.length != 0 && sets[sets.length - 1].fromEpoch == present) sets.pop();
        sets.push(PermitSet(present, _withBit(bits, uid, given)));
        if (next.fromEpoch == 0) return;
        // A permit claimed now is not added to those that a settlement has already given out for the next epoch.
        sets.push(PermitSet(next.fromEpoch, given ? next.bits : _withBit(next.bits, uid, false)));
    }

    function _withBit(uint256 bits, uint256 uid, bool on) private pure returns (uint256) {
        return on ? bits | 1 << uid : bits & ~(1 << uid);
    }

    function _count(uint256 bits) private pure returns (uint256 count) {
        for (; bits != 0; bits &= bits - 1) {
            ++count;
        }
    }

    // -------------------------------------------------------------------------------------------------------------- ranks

    /// @inheritdoc ISubnets
    function rankOf(uint64 subnetId, uint16 uid) external view returns (uint16 incentive, uint16 dividends) {
        (uint64 operatorId, uint256 registeredAt) = _place(subnetId, uid);
        if (operatorId == 0 || registeredAt >= epochStart(subnetId, _recordedThrough[subnetId])) return (0, 0);
        uint256 rank = _rank(subnetId, uid);
        return (uint16(rank >> 16), uint16(rank));
    }

    function _setRanks(uint64 subnetId, bytes calldata ranks) internal {
        for (uint256 word; word * 32 < ranks.length; ++word) {
            bytes32 value;
            assembly ("memory-safe") {
                value := calldataload(add(ranks.offset, mul(word, 32)))
            }
            uint256 missing = (word + 1) * 32 > ranks.length ? (word + 1) * 32 - ranks.length : 0;
            _ranks[subnetId][word] = uint256(value) >> missing * 8 << missing * 8;
        }
    }

    function _rank(uint64 subnetId, uint256 uid) private view returns (uint256) {
        return _ranks[subnetId][uid / 8] >> (7 - uid % 8) * 32 & 0xffffffff;
    }

    function _rankSum(uint64 subnetId, uint256 uid) private view returns (uint256) {
        uint256 rank = _rank(subnetId, uid);
        return (rank >> 16) + (rank & 0xffff);
    }

    // ------------------------------------------------------------------------------------------------------------ holders

    /// @inheritdoc ISubnets
    function holderAt(uint64 subnetId, uint16 uid, uint256 time) public view returns (Holder memory holder) {
        (uint64 operatorId, uint256 registeredAt) = _place(subnetId, uid);
        if (operatorId == 0 || registeredAt <= time) return Holder(operatorId, uint48(registeredAt));
        Holder[] storage past = _before[subnetId][uid];
        for (uint256 i = uint16(_places[subnetId][uid]); i > 0; --i) {
            holder = past[i - 1];
            if (holder.registeredAt <= time) return holder;
        }
        return Holder(0, 0);
    }

    /// @inheritdoc ISubnets
    function uidOf(uint64 subnetId, uint64 operatorId) external view returns (uint16) {
        uint256 held = _uidPlusOne[subnetId][operatorId];
        if (held == 0) revert NotRegistered(subnetId, operatorId);
        return uint16(held - 1);
    }

    /// @inheritdoc ISubnets
    function requireValidator(uint64 subnetId, uint16 uid, address account) external view returns (uint64 epoch, uint64 operatorId) {
        _live(subnetId);
        if (uid >= UIDS_LIMIT) revert OutOfRange("uid", uid, 0, UIDS_LIMIT - 1);
        (operatorId,) = _place(subnetId, uid);
        if (operatorId == 0 || operators.operatorOfNodeKey(account) != operatorId) revert NotHolder(subnetId, uid, account);
        epoch = _present(subnetId);
        if (permitsAt(subnetId, epoch) >> uid & 1 == 0) revert NoPermit(subnetId, uid, epoch);
    }

    function _place(uint64 subnetId, uint256 uid) internal view returns (uint64 operatorId, uint256 registeredAt) {
        if (uid >= UIDS_LIMIT) return (0, 0);
        uint128 place = _places[subnetId][uid];
        return (uint64(place >> 64), uint48(place >> 16));
    }
}
