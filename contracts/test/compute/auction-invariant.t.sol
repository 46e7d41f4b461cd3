// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {BuybackAuction} from "../../src/compute/BuybackAuction.sol";
import {IBuybackAuction} from "../../src/compute/IBuybackAuction.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {Rails} from "../../src/token/Rails.sol";
import {AuctionFixture} from "./fixture.sol";

/// @notice Fees of any size, buyers at any time, and whoever burns, opens and waits.
contract AuctionHandler is Test {
    BuybackAuction private immutable auction;
    Rails private immutable rails;
    DevStable private immutable stable;
    NetworkToken private immutable native;
    address[3] public buyers = [address(0xB001), address(0xB002), address(0xB003)];
    uint256 public feesIn;
    uint256 public nativeFeesIn;
    uint256 public paid;
    uint256 public nativeBurnt;

    constructor(BuybackAuction auction_, Rails rails_, DevStable stable_, NetworkToken native_) {
        (auction, rails, stable, native) = (auction_, rails_, stable_, native_);
        for (uint256 i; i < 3; ++i) {
            vm.prank(buyers[i]);
            native_.approve(address(auction_), type(uint256).max);
        }
        native_.approve(address(rails_), type(uint256).max);
        stable_.approve(address(rails_), type(uint256).max);
    }

    function payFees(uint256 amount) external {
        amount = bound(amount, 1, 2 * uint256(auction.config().lotMax));
        stable.mint(address(this), amount);
        rails.deposit(address(stable), address(auction), amount);
        feesIn += amount;
    }

    function payNativeFees(uint64 amount, bool plainly) external {
        amount = uint64(bound(amount, 1, type(uint64).max));
        if (plainly) native.transfer(address(auction), amount);
        else rails.deposit(address(native), address(auction), amount);
        nativeFeesIn += amount;
    }

    function burnNativeFees() external {
        nativeBurnt += auction.burnNativeFees();
    }

    /// As time goes on: the next lot is opened when it may be, and waits for its sale.
    function open(uint32 wait) external {
        vm.warp(block.timestamp + wait % 10 days);
        IBuybackAuction.Lot memory l = auction.lot();
        bool free = l.id == 0 || l.sold || block.timestamp >= l.endsAt;
        try auction.open() {
            assertTrue(free);
            vm.warp(auction.lot().startsAt + wait % 1 days);
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), free ? IBuybackAuction.LotTooSmall.selector : IBuybackAuction.LotStillOpen.selector);
        }
    }

    function buy(uint256 seed, uint64 guess) external {
        address who = buyers[seed % 3];
        IBuybackAuction.Lot memory l = auction.lot();
        bool onSale = l.id != 0 && !l.sold && block.timestamp >= l.startsAt && block.timestamp < l.endsAt;
        uint64 lotId = seed % 8 == 0 ? guess : l.id;
        uint256 supply = native.totalSupply();
        vm.prank(who);
        try auction.buy(lotId, type(uint256).max, buyers[(seed >> 8) % 3]) returns (uint256 cost) {
            assertTrue(onSale && lotId == l.id);
            assertEq(native.totalSupply(), supply - cost);
            paid += cost;
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), IBuybackAuction.LotNotOnSale.selector);
            assertFalse(onSale && lotId == l.id);
        }
    }
}

contract AuctionInvariantTest is AuctionFixture {
    AuctionHandler private handler;
    uint256 private supply;

    function setUp() public override {
        super.setUp();
        handler = new AuctionHandler(auction, rails, stable, native);
        native.mint(address(handler), 10_000_000e18);
        for (uint256 i; i < 3; ++i) {
            native.mint(handler.buyers(i), 10_000_000e18);
        }
        supply = native.totalSupply();
        targetContract(address(handler));
    }

    function invariant_feesInAreFeesSoldAndFeesHeldAndWhatIsPaidIsBurnt() public view {
        assertEq(auction.sold() + auction.held(), handler.feesIn());
        assertEq(auction.burnt(), handler.paid() + handler.nativeBurnt());
        assertEq(native.totalSupply(), supply - auction.burnt());
        uint256 credited;
        for (uint256 i; i < 3; ++i) {
            credited += rails.balanceOf(address(stable), handler.buyers(i));
        }
        assertEq(credited, auction.sold());
        assertEq(stable.balanceOf(address(rails)), handler.feesIn());
        assertEq(
            handler.nativeFeesIn() - handler.nativeBurnt(),
            native.balanceOf(address(auction)) + rails.balanceOf(address(native), address(auction))
        );
        // A lot that may yet be sold is covered, and no price is below the floor.
        IBuybackAuction.Lot memory l = auction.lot();
        if (l.id != 0 && !l.sold) assertGe(auction.held(), l.amount);
        assertGe(auction.medianPrice(), FLOOR);
    }
}
