// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {BuybackAuction} from "../../src/compute/BuybackAuction.sol";
import {IBuybackAuction} from "../../src/compute/IBuybackAuction.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {Rails} from "../../src/token/Rails.sol";

/// @notice The auction with its rails and tokens, and a market in which one stable unit is worth one native token.
abstract contract AuctionFixture is Test {
    uint128 internal constant LOT_MIN = 100e6;
    uint128 internal constant LOT_MAX = 1_000e6;
    /// One native token (1e18) for one stable unit (1e6), as a price for 1e18 stable base units.
    uint256 internal constant PAR = 1e30;
    uint256 internal constant FLOOR = PAR / 1024;
    uint32 internal constant HALF_LIFE = 6 hours;
    uint32 internal constant NOTICE = 10 minutes;
    uint32 internal constant PATIENCE = 30 days;

    NetworkToken internal native;
    DevStable internal stable;
    Rails internal rails;
    BuybackAuction internal auction;
    address internal renter = makeAddr("renter");
    address internal buyer = makeAddr("buyer");
    address internal attacker = makeAddr("attacker");

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        NetworkToken.Allocation[] memory none;
        native = NetworkToken(vm.deployCode("NetworkToken.sol:NetworkToken", abi.encode("Test Compute", "TCO", 800_000_000e18, none)));
        stable = DevStable(vm.deployCode("DevStable.sol:DevStable"));
        rails = Rails(vm.deployCode("Rails.sol:Rails", abi.encode(address(0)))); // without operators: accounts alone are used
        auction = newAuction(configOf(PAR), address(stable), address(native));
        native.mint(buyer, 100_000_000e18);
        native.mint(attacker, 400_000_000e18);
        for (uint256 i; i < 2; ++i) {
            vm.prank(i == 0 ? buyer : attacker);
            native.approve(address(auction), type(uint256).max);
        }
    }

    function newAuction(IBuybackAuction.Config memory c, address stable_, address native_) internal returns (BuybackAuction) {
        return BuybackAuction(vm.deployCode("BuybackAuction.sol:BuybackAuction", abi.encode(c, rails, stable_, native_)));
    }

    function configOf(uint256 firstPrice) internal pure returns (IBuybackAuction.Config memory) {
        return IBuybackAuction.Config(LOT_MIN, LOT_MAX, FLOOR, firstPrice, HALF_LIFE, NOTICE, PATIENCE);
    }

    /// Credits the auction's account at the rails, as the market does.
    function payFees(uint256 amount) internal {
        for (uint256 left = amount; left != 0;) {
            uint256 part = left < 1_000_000e6 ? left : 1_000_000e6;
            stable.mint(renter, part);
            left -= part;
        }
        vm.startPrank(renter);
        stable.approve(address(rails), amount);
        rails.deposit(address(stable), address(auction), amount);
        vm.stopPrank();
    }

    /// Opens the next lot and waits until it is on sale.
    function openLot() internal returns (uint64 lotId) {
        lotId = auction.open();
        vm.warp(auction.lot().startsAt);
    }

    function buyAs(address who, uint64 lotId) internal returns (uint256 cost) {
        vm.prank(who);
        return auction.buy(lotId, type(uint256).max, who);
    }

    /// Whoever watches a market with this price takes the lot in the first second in which it costs no more than that, or leaves it.
    function sellAtMarket(uint64 lotId, uint256 marketPrice) internal returns (uint256 cost) {
        (uint256 from, uint256 to) = (block.timestamp, auction.lot().endsAt);
        while (from < to) {
            uint256 middle = (from + to) / 2;
            vm.warp(middle);
            if (auction.price() > marketPrice) from = middle + 1;
            else to = middle;
        }
        vm.warp(to);
        return to < auction.lot().endsAt ? buyAs(buyer, lotId) : 0;
    }

    /// A full lot, paid for, opened, and sold at the market.
    function fullLotAtMarket(uint256 marketPrice) internal returns (uint256 cost) {
        payFees(LOT_MAX);
        return sellAtMarket(openLot(), marketPrice);
    }
}
