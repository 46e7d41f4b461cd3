// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {ISubnetEmission, IEmissionShares} from "./ISubnetEmission.sol";
import {ISubnets} from "./ISubnets.sol";
import {SubnetRules} from "./SubnetRules.sol";

/// @title SubnetBase: subnets from their creation to their end, their owners and rules (see ISubnets).
abstract contract SubnetBase is ISubnets {
    using SafeERC20 for IERC20;

    /// @notice What is the same for all subnets and never changes. Money in base units of the network's token.
    struct Config {
        uint32 tempoMin;
        uint32 tempoMax;
        uint32 changeSeconds; // least time between two changes of a subnet's rules
        uint16 subnetsMax; // live ones
        uint16 uidsMax; // of a subnet, at most 256
        uint16 minNonImmune; // while no more are not immune, the immune are pruned
        uint32 lockSeconds; // after genesis, before which no lock is returned
        uint32 idleSeconds; // without a settled epoch, after which anybody ends a subnet
        uint128 lockMin;
        uint32 lockIntervalSeconds; // in which the lock's cost falls by the last lock
        uint32 priceHalfLifeSeconds;
        uint128 priceMin;
        uint128 priceMax;
        uint128 priceFirst;
        uint16 barEpochs; // how long a revoked permit stays away
    }

    struct Rules {
        uint64 fromEpoch;
        Hyperparameters values;
    }

    uint256 internal constant UIDS_LIMIT = 256;

    IRegistry public immutable registry;
    IOperators public immutable operators;
    IStakeVault public immutable vault;
    ISubnetEmission public immutable emission;
    IERC20 public immutable token;
    Config internal _config; // written once, in the constructor

    /// @inheritdoc ISubnets
    uint64 public subnetCount;
    /// @inheritdoc ISubnets
    uint256 public liveSubnets;
    uint256 private _lastLock;
    uint256 private _lockDecaysFrom;
    mapping(uint64 subnetId => Subnet) internal _subnets;
    mapping(uint64 subnetId => Rules[]) private _rules;
    mapping(uint64 subnetId => uint256) private _rulesChangedAt;
    mapping(uint64 subnetId => address) private _proposedOwner;
    /// When an epoch was last settled; at first the genesis.
    mapping(uint64 subnetId => uint256) internal _settledAt;

    error BadConfig(bytes32 field, uint256 got, uint256 limit);

    modifier onlyModule(bytes32 name) {
        if (msg.sender != registry.get(name)) revert NotModule(msg.sender, name);
        _;
    }

    constructor(Config memory c, IRegistry registry_, IOperators operators_, IStakeVault vault_, ISubnetEmission emission_) {
        if (c.uidsMax == 0 || c.uidsMax > UIDS_LIMIT) revert BadConfig("uidsMax", c.uidsMax, UIDS_LIMIT);
        if (c.tempoMin == 0) revert BadConfig("tempoMin", 0, 1);
        if (c.tempoMax < c.tempoMin) revert BadConfig("tempoMax", c.tempoMax, c.tempoMin);
        if (c.lockMin == 0) revert BadConfig("lockMin", 0, 1);
        if (c.lockIntervalSeconds == 0) revert BadConfig("lockIntervalSeconds", 0, 1);
        if (c.priceHalfLifeSeconds == 0) revert BadConfig("priceHalfLifeSeconds", 0, 1);
        if (c.priceMin == 0) revert BadConfig("priceMin", 0, 1);
        if (c.priceMax < c.priceFirst) revert BadConfig("priceMax", c.priceMax, c.priceFirst);
        if (c.priceFirst < c.priceMin) revert BadConfig("priceFirst", c.priceFirst, c.priceMin);
        _config = c;
        (registry, operators, vault, emission) = (registry_, operators_, vault_, emission_);
        token = IERC20(vault_.stakeToken());
    }

    // ------------------------------------------------------------------------------------------------------ start and end

    /// @inheritdoc ISubnets
    function create(bytes32 kind, uint32 tempoSeconds, Hyperparameters calldata hyperparameters, uint256 maxLock)
        external
        returns (uint64 subnetId)
    {
        if (liveSubnets >= _config.subnetsMax) revert NetworkFull(liveSubnets);
        if (tempoSeconds < _config.tempoMin || tempoSeconds > _config.tempoMax) {
            revert OutOfRange("tempoSeconds", tempoSeconds, _config.tempoMin, _config.tempoMax);
        }
        SubnetRules.check(hyperparameters);
        uint256 lock = lockCost();
        if (lock > maxLock) revert LockAboveLimit(lock, maxLock);
        subnetId = ++subnetCount;
        ++liveSubnets;
        (_lastLock, _lockDecaysFrom) = (lock, block.timestamp);
        _subnets[subnetId] = Subnet(msg.sender, uint40(block.timestamp), tempoSeconds, 0, false, kind, msg.sender, uint96(lock));
        _settledAt[subnetId] = block.timestamp;
        _rulesChangedAt[subnetId] = block.timestamp;
        _rules[subnetId].push(Rules(0, hyperparameters));
        emit SubnetCreated(subnetId, msg.sender, kind, uint64(block.timestamp), tempoSeconds, lock);
        emit HyperparametersSet(subnetId, 0, hyperparameters);
        token.safeTransferFrom(msg.sender, address(this), lock);
    }

    /// @inheritdoc ISubnets
    function dissolve(uint64 subnetId) external {
        Subnet storage s = _live(subnetId);
        uint256 idleFrom = _settledAt[subnetId] + _config.idleSeconds;
        if (msg.sender != s.owner && block.timestamp < idleFrom) revert NotIdle(subnetId, idleFrom, block.timestamp);
        s.dissolved = true;
        // While the network was full the cost did not fall: it falls from now on.
        if (liveSubnets-- == _config.subnetsMax) _lockDecaysFrom = block.timestamp;
        emit SubnetDissolved(subnetId, msg.sender);
        _shares().dissolved(subnetId);
    }

    /// @inheritdoc ISubnets
    function returnLock(uint64 subnetId) external returns (uint256 amount) {
        Subnet storage s = _known(subnetId);
        uint256 notBefore = s.dissolved ? uint256(s.genesis) + _config.lockSeconds : type(uint256).max;
        if (block.timestamp < notBefore) revert LockNotDue(subnetId, notBefore, block.timestamp);
        amount = s.lock;
        if (amount == 0) revert ZeroAmount();
        s.lock = 0;
        emit LockReturned(subnetId, s.creator, amount);
        token.safeTransfer(s.creator, amount);
    }

    /// @inheritdoc ISubnets
    function lockCost() public view returns (uint256) {
        uint256 elapsed = liveSubnets >= _config.subnetsMax ? 0 : block.timestamp - _lockDecaysFrom;
        return SubnetRules.lockCost(_lastLock, elapsed, _config.lockIntervalSeconds, _config.lockMin);
    }

    // --------------------------------------------------------------------------------------------------- owner and rules

    /// @inheritdoc ISubnets
    function proposeOwner(uint64 subnetId, address proposed) external {
        _requireOwner(subnetId);
        _proposedOwner[subnetId] = proposed;
        emit OwnerProposed(subnetId, proposed);
    }

    /// @inheritdoc ISubnets
    function acceptOwner(uint64 subnetId) external {
        Subnet storage s = _live(subnetId);
        address proposed = _proposedOwner[subnetId];
        if (msg.sender != proposed) revert NotProposedOwner(subnetId, msg.sender, proposed);
        delete _proposedOwner[subnetId];
        emit OwnerChanged(subnetId, s.owner, proposed);
        s.owner = proposed;
    }

    /// @inheritdoc ISubnets
    function setHyperparameters(uint64 subnetId, Hyperparameters calldata hyperparameters) external {
        _requireOwner(subnetId);
        uint256 notBefore = _rulesChangedAt[subnetId] + _config.changeSeconds;
        if (block.timestamp < notBefore) revert ChangedTooRecently(subnetId, notBefore, block.timestamp);
        SubnetRules.check(hyperparameters);
        _rulesChangedAt[subnetId] = block.timestamp;
        uint64 from = _present(subnetId) + 1;
        Rules[] storage rules = _rules[subnetId];
        if (rules[rules.length - 1].fromEpoch == from) rules.pop();
        rules.push(Rules(from, hyperparameters));
        emit HyperparametersSet(subnetId, from, hyperparameters);
    }

    /// @inheritdoc ISubnets
    function hyperparametersAt(uint64 subnetId, uint64 epoch) external view returns (Hyperparameters memory) {
        _known(subnetId);
        return _rulesOf(subnetId, epoch);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc ISubnets
    function subnet(uint64 subnetId) external view returns (Subnet memory) {
        return _known(subnetId);
    }

    /// @inheritdoc ISubnets
    function ownerOf(uint64 subnetId) external view returns (address) {
        return _known(subnetId).owner;
    }

    /// @inheritdoc ISubnets
    function epochAt(uint64 subnetId, uint256 time) public view returns (uint64) {
        Subnet storage s = _known(subnetId);
        return time <= s.genesis ? 0 : uint64((time - s.genesis) / s.tempoSeconds);
    }

    /// @inheritdoc ISubnets
    function epochStart(uint64 subnetId, uint64 epoch) public view returns (uint256) {
        Subnet storage s = _known(subnetId);
        return s.genesis + uint256(epoch) * s.tempoSeconds;
    }

    /// @inheritdoc ISubnets
    function timesOf(uint64 subnetId, uint64 epoch) external view returns (uint256 endsAt, uint256 opensAt, uint256 closesAt) {
        Subnet storage s = _known(subnetId);
        uint256 start = s.genesis + uint256(epoch) * s.tempoSeconds;
        opensAt = start + uint256(_rulesOf(subnetId, epoch).revealDelayEpochs) * s.tempoSeconds;
        return (start + s.tempoSeconds, opensAt, opensAt + s.tempoSeconds);
    }

    function config() external view returns (Config memory) {
        return _config;
    }

    // ------------------------------------------------------------------------------------------------------------- inside

    function _present(uint64 subnetId) internal view returns (uint64) {
        return epochAt(subnetId, block.timestamp);
    }

    function _rulesOf(uint64 subnetId, uint64 epoch) internal view returns (Hyperparameters storage) {
        Rules[] storage rules = _rules[subnetId];
        uint256 i = rules.length - 1;
        while (rules[i].fromEpoch > epoch) --i;
        return rules[i].values;
    }

    function _shares() internal view returns (IEmissionShares) {
        return IEmissionShares(registry.get("emissionShares"));
    }

    function _known(uint64 subnetId) internal view returns (Subnet storage s) {
        s = _subnets[subnetId];
        if (s.genesis == 0) revert UnknownSubnet(subnetId);
    }

    function _live(uint64 subnetId) internal view returns (Subnet storage s) {
        s = _known(subnetId);
        if (s.dissolved) revert SubnetIsDissolved(subnetId);
    }

    function _requireOwner(uint64 subnetId) private view {
        address owner = _live(subnetId).owner;
        if (msg.sender != owner) revert NotSubnetOwner(subnetId, msg.sender, owner);
    }
}
