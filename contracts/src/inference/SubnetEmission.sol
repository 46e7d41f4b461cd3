// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {NetworkToken} from "../token/NetworkToken.sol";
import {ISubnetEmission} from "./ISubnetEmission.sol";

/// @title SubnetEmission: see ISubnetEmission for the rules. No owner; who sets shares and who is minted to, the registry names.
/// @notice Bittensor's schedule (opentensor/subtensor, coinbase/block_emission.rs): 2^-floor(log2(1 / (1 - issued / cap))) tokens a block.
contract SubnetEmission is ISubnetEmission {
    uint256 public constant BLOCK_SECONDS = 12;
    /// @inheritdoc ISubnetEmission
    uint256 public constant cap = 21_000_000e18;
    uint256 private constant FIRST_RATE = 1e18;
    uint256 private constant SCALE = 1 << 168;
    uint256 private constant SHARE_MAX = type(uint160).max;

    struct Account {
        uint256 share;
        uint256 perShare; // as it was when the subnet was last settled
        uint256 unassigned;
    }

    struct Due {
        uint128 amount;
        bool assigned;
        bool collected;
    }

    IRegistry public immutable registry;
    NetworkToken private immutable TOKEN;
    /// @notice Block 0 of emission began then.
    uint256 public immutable startTime;

    /// @inheritdoc ISubnetEmission
    uint256 public issued;
    /// @inheritdoc ISubnetEmission
    uint256 public totalShares;
    uint256 private _blocksPast;
    /// Issued for each share, and what the last division left, both in parts of 2^-168: 2^85 base units at most, and shares of 2^160.
    uint256 private _perShare;
    uint256 private _remainder;
    mapping(uint64 subnetId => Account) private _accounts;
    mapping(uint64 subnetId => mapping(uint64 epoch => Due)) private _due;

    modifier onlyModule(bytes32 name) {
        if (msg.sender != registry.get(name)) revert NotModule(msg.sender, name);
        _;
    }

    /// @param name at most 31 bytes (it is the EIP-712 domain)
    constructor(IRegistry registry_, string memory name, string memory symbol) {
        registry = registry_;
        startTime = block.timestamp;
        TOKEN = new NetworkToken(name, symbol, cap, new NetworkToken.Allocation[](0));
    }

    /// @inheritdoc ISubnetEmission
    function issue() public returns (uint256 amount) {
        uint256 blocks = (block.timestamp - startTime) / BLOCK_SECONDS - _blocksPast;
        if (blocks == 0) return 0;
        _blocksPast += blocks;
        uint256 shares = totalShares;
        if (shares == 0) return 0;
        amount = issuedBy(issued, blocks);
        issued += amount;
        uint256 each = amount * SCALE + _remainder;
        _perShare += each / shares;
        _remainder = each % shares;
        emit Issued(blocks, amount, issued);
    }

    /// @inheritdoc ISubnetEmission
    function setShare(uint64 subnetId, uint256 share) external onlyModule("emissionShares") {
        if (share > SHARE_MAX) revert ShareTooLarge(share, SHARE_MAX);
        Account storage account = _settle(subnetId);
        uint256 total = totalShares - account.share + share;
        (account.share, totalShares) = (share, total);
        emit ShareSet(subnetId, share, total);
    }

    /// @inheritdoc ISubnetEmission
    function assign(uint64 subnetId, uint64 epoch, uint256 from, uint256 until) external onlyModule("subnets") returns (uint256 amount) {
        Due storage due = _due[subnetId][epoch];
        if (due.assigned) revert AlreadyAssigned(subnetId, epoch);
        Account storage account = _settle(subnetId);
        amount = account.unassigned;
        if (block.timestamp > until) amount = Math.mulDiv(amount, until - from, block.timestamp - from);
        account.unassigned -= amount;
        (due.amount, due.assigned) = (uint128(amount), true);
        emit Assigned(subnetId, epoch, amount);
    }

    /// @inheritdoc ISubnetEmission
    function collect(uint64 subnetId, uint64 epoch) external onlyModule("subnetEpochs") returns (uint256 amount) {
        Due storage due = _due[subnetId][epoch];
        if (!due.assigned || due.collected) revert NothingDue(subnetId, epoch);
        due.collected = true;
        amount = due.amount;
        emit Collected(subnetId, epoch, msg.sender, amount);
        if (amount != 0) TOKEN.mint(msg.sender, amount);
    }

    /// @inheritdoc ISubnetEmission
    function rateAt(uint256 issued_) public pure returns (uint256) {
        return issued_ >= cap ? 0 : FIRST_RATE >> Math.log2(cap / (cap - issued_));
    }

    /// @notice What `blocks` blocks issue after `issued_`: era by era, at most 60 of them.
    function issuedBy(uint256 issued_, uint256 blocks) public pure returns (uint256 amount) {
        while (blocks != 0) {
            uint256 rate = rateAt(issued_ + amount);
            if (rate == 0) break;
            uint256 eraEnd = cap - (cap >> (Math.log2(cap / (cap - issued_ - amount)) + 1));
            uint256 count = Math.min(blocks, Math.ceilDiv(eraEnd - issued_ - amount, rate));
            amount += count * rate;
            blocks -= count;
        }
    }

    /// @inheritdoc ISubnetEmission
    function token() external view returns (address) {
        return address(TOKEN);
    }

    /// @inheritdoc ISubnetEmission
    function emissionOf(uint64 subnetId, uint64 epoch) external view returns (uint256) {
        return _due[subnetId][epoch].amount;
    }

    /// @inheritdoc ISubnetEmission
    function unassignedOf(uint64 subnetId) external view returns (uint256) {
        Account storage account = _accounts[subnetId];
        return account.unassigned + Math.mulDiv(account.share, _perShare - account.perShare, SCALE);
    }

    /// @inheritdoc ISubnetEmission
    function shareOf(uint64 subnetId) external view returns (uint256) {
        return _accounts[subnetId].share;
    }

    function _settle(uint64 subnetId) private returns (Account storage account) {
        issue();
        account = _accounts[subnetId];
        account.unassigned += Math.mulDiv(account.share, _perShare - account.perShare, SCALE);
        account.perShare = _perShare;
    }
}
