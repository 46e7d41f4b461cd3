// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IRails} from "../token/IRails.sol";
import {IBuybackAuction} from "./IBuybackAuction.sol";

/// @title BuybackAuction: see IBuybackAuction for the rules.
/// @dev It holds no stable token: a sale moves a balance within the rails and calls no token but the native one, whose burning is checked
/// by its total supply. Its account there falls by sales alone, so a lot that is open is always covered.
contract BuybackAuction is IBuybackAuction, ReentrancyGuardTransient {
    /// Prices are for so many stable base units.
    uint256 private constant PRICE_UNIT = 1e18;
    uint256 private constant HISTORY = 5;

    IRails public immutable rails;
    address public immutable stable;
    ERC20Burnable public immutable native;

    Config private _config; // written once, in the constructor
    Lot private _lot;
    uint256[HISTORY] private _history;
    uint256 private _fullLots;
    /// When the latest lot was sold; for one that nobody took its end counts, before the first lot the deployment.
    uint64 private _closedAt;
    /// @inheritdoc IBuybackAuction
    uint256 public sold;
    /// @inheritdoc IBuybackAuction
    uint256 public burnt;
    /// @inheritdoc IBuybackAuction
    uint256 public paid;

    constructor(Config memory c, IRails rails_, address stable_, ERC20Burnable native_) {
        if (c.lotMin == 0) revert BadConfig("lotMin", 0, 1);
        if (c.lotMax < c.lotMin) revert BadConfig("lotMax", c.lotMax, c.lotMin);
        if (c.floorPrice == 0) revert BadConfig("floorPrice", 0, 1);
        if (c.firstPrice < c.floorPrice) revert BadConfig("firstPrice", c.firstPrice, c.floorPrice);
        if (c.firstPrice > type(uint128).max) revert BadConfig("firstPrice", c.firstPrice, type(uint128).max);
        if (c.halfLifeSeconds == 0) revert BadConfig("halfLifeSeconds", 0, 1);
        (_config, rails, stable, native) = (c, rails_, stable_, native_);
        for (uint256 i; i < HISTORY; ++i) {
            _history[i] = c.firstPrice;
        }
        _closedAt = uint64(block.timestamp);
    }

    /// @inheritdoc IBuybackAuction
    function open() external nonReentrant returns (uint64 lotId) {
        Lot memory last = _lot;
        uint64 closedAt = _closedAt;
        if (last.id != 0 && !last.sold) {
            if (block.timestamp < last.endsAt) revert LotStillOpen(last.id, last.endsAt);
            closedAt = last.endsAt;
            emit LotRolledOver(last.id, last.amount);
        }
        Config memory c = _config;
        uint256 fees = held();
        uint64 lotMinFrom = closedAt + c.patienceSeconds;
        uint256 needed = block.timestamp < lotMinFrom ? c.lotMax : c.lotMin;
        if (fees < needed) revert LotTooSmall(fees, needed, lotMinFrom);

        lotId = last.id + 1;
        uint256 startPrice = 2 * medianPrice();
        uint64 startsAt = uint64(block.timestamp) + c.noticeSeconds;
        // Until the end of the half-life in which the price reaches the floor: the start is at least twice the floor.
        uint64 endsAt = startsAt + uint64((Math.log2(startPrice / c.floorPrice) + 1) * c.halfLifeSeconds);
        uint128 amount = uint128(Math.min(fees, c.lotMax));
        _lot = Lot(lotId, startsAt, endsAt, false, amount, startPrice);
        emit LotOpened(lotId, amount, startPrice, startsAt, endsAt);
    }

    /// @inheritdoc IBuybackAuction
    function buy(uint64 lotId, uint256 costMax, address to) external nonReentrant returns (uint256 cost_) {
        Lot memory l = _onSale(lotId);
        uint256 price_ = _priceOf(l);
        cost_ = _costOf(l, price_);
        if (cost_ > costMax) revert CostAboveLimit(cost_, costMax);
        (_lot.sold, _closedAt) = (true, uint64(block.timestamp));
        if (l.amount == _config.lotMax) _history[_fullLots++ % HISTORY] = price_;
        sold += l.amount;
        burnt += cost_;
        paid += cost_;
        emit LotSold(lotId, msg.sender, to, l.amount, price_, cost_);

        uint256 supply = native.totalSupply();
        native.burnFrom(msg.sender, cost_);
        _requireBurnt(supply, cost_);
        rails.transfer(stable, to, l.amount);
    }

    /// @inheritdoc IBuybackAuction
    function burnNativeFees() external nonReentrant returns (uint256 amount) {
        uint256 credited = rails.balanceOf(address(native), address(this));
        if (credited != 0) rails.withdraw(address(native), credited, address(this));
        amount = native.balanceOf(address(this));
        if (amount == 0) return 0;
        burnt += amount;
        emit NativeFeesBurnt(amount);
        uint256 supply = native.totalSupply();
        native.burn(amount);
        _requireBurnt(supply, amount);
    }

    /// @inheritdoc IBuybackAuction
    function lot() external view returns (Lot memory) {
        return _lot;
    }

    /// @inheritdoc IBuybackAuction
    function price() external view returns (uint256) {
        return _priceOf(_onSale(_lot.id));
    }

    /// @inheritdoc IBuybackAuction
    function cost() external view returns (uint256) {
        Lot memory l = _onSale(_lot.id);
        return _costOf(l, _priceOf(l));
    }

    /// @inheritdoc IBuybackAuction
    function history() external view returns (uint256[5] memory) {
        return _history;
    }

    /// @inheritdoc IBuybackAuction
    function medianPrice() public view returns (uint256) {
        uint256[HISTORY] memory prices = _history;
        for (uint256 i = 1; i < HISTORY; ++i) {
            for (uint256 j = i; j > 0 && prices[j] < prices[j - 1]; --j) {
                (prices[j], prices[j - 1]) = (prices[j - 1], prices[j]);
            }
        }
        return prices[HISTORY / 2];
    }

    /// @inheritdoc IBuybackAuction
    function held() public view returns (uint256) {
        return rails.balanceOf(stable, address(this));
    }

    /// @inheritdoc IBuybackAuction
    function config() external view returns (Config memory) {
        return _config;
    }

    function _requireBurnt(uint256 supply, uint256 amount) private view {
        uint256 left = native.totalSupply();
        if (left > supply || supply - left != amount) revert BurnDiffers(supply, left, amount);
    }

    function _onSale(uint64 lotId) private view returns (Lot memory l) {
        l = _lot;
        if (lotId != l.id || l.sold || block.timestamp < l.startsAt || block.timestamp >= l.endsAt) {
            revert LotNotOnSale(lotId, l.id, l.startsAt, l.endsAt);
        }
    }

    /// Half of itself each half-life, in a straight line between; rounded so that it never rises with time.
    function _priceOf(Lot memory l) private view returns (uint256) {
        uint256 halfLife = _config.halfLifeSeconds;
        uint256 since = block.timestamp - l.startsAt;
        uint256 base = l.startPrice >> (since / halfLife);
        return Math.max(base - base * (since % halfLife) / (2 * halfLife), _config.floorPrice);
    }

    function _costOf(Lot memory l, uint256 price_) private pure returns (uint256) {
        return Math.mulDiv(l.amount, price_, PRICE_UNIT, Math.Rounding.Ceil);
    }
}
