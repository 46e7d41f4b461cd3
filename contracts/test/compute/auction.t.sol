// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IBuybackAuction} from "../../src/compute/IBuybackAuction.sol";
import {AuctionFixture} from "./fixture.sol";

contract BuybackAuctionTest is AuctionFixture {
    function test_aLotIsBoughtAndItsCostIsBurntInTheSameTransaction() public {
        payFees(1_500e6);
        uint64 opened = uint64(block.timestamp);
        vm.expectEmit(address(auction));
        emit IBuybackAuction.LotOpened(1, LOT_MAX, 2 * PAR, opened + NOTICE, opened + NOTICE + 12 * HALF_LIFE);
        assertEq(auction.open(), 1);
        vm.warp(opened + NOTICE + HALF_LIFE);
        assertEq(auction.price(), PAR);
        assertEq(auction.cost(), 1_000e18);
        uint256 supply = native.totalSupply();
        address treasury = makeAddr("treasury");
        vm.expectEmit(address(auction));
        emit IBuybackAuction.LotSold(1, buyer, treasury, LOT_MAX, PAR, 1_000e18);
        vm.prank(buyer);
        assertEq(auction.buy(1, 1_000e18, treasury), 1_000e18);
        assertEq(native.totalSupply(), supply - 1_000e18);
        assertEq(native.balanceOf(buyer), 100_000_000e18 - 1_000e18);
        assertEq(rails.balanceOf(address(stable), treasury), LOT_MAX);
        assertEq(auction.held(), 500e6);
        assertEq(auction.sold(), LOT_MAX);
        assertEq(auction.burnt(), 1_000e18);
        assertTrue(auction.lot().sold);
        vm.prank(treasury);
        rails.withdraw(address(stable), LOT_MAX, treasury);
        assertEq(stable.balanceOf(treasury), LOT_MAX);
    }

    function testFuzz_thePriceNeverRisesAndHalvesInEachHalfLife(uint256 firstPrice, uint32 one, uint32 more) public {
        firstPrice = bound(firstPrice, FLOOR, type(uint128).max);
        auction = newAuction(configOf(firstPrice), address(stable), address(native));
        payFees(LOT_MAX);
        openLot();
        IBuybackAuction.Lot memory l = auction.lot();
        uint256 at = bound(one, l.startsAt, l.endsAt - 1);
        vm.warp(at);
        uint256 before = auction.price();
        uint256 costBefore = auction.cost();
        assertLe(before, l.startPrice);
        assertGe(before, FLOOR);
        assertEq(costBefore, Math.mulDiv(LOT_MAX, before, 1e18, Math.Rounding.Ceil));
        vm.warp(bound(more, at, l.endsAt - 1));
        assertLe(auction.price(), before);
        assertLe(auction.cost(), costBefore);
        if (at + HALF_LIFE < l.endsAt) {
            vm.warp(at + HALF_LIFE);
            // Halves, to the rounding of one shift, until the floor holds it.
            assertApproxEqAbs(auction.price(), Math.max(before / 2, FLOOR), 2);
        }
        vm.warp(l.startsAt);
        assertEq(auction.price(), 2 * firstPrice);
        vm.warp(l.endsAt - 1);
        assertEq(auction.price(), FLOOR);
    }

    function test_aLotThatNobodyTakesRollsOver() public {
        payFees(600e6);
        vm.warp(block.timestamp + PATIENCE);
        openLot();
        IBuybackAuction.Lot memory first = auction.lot();
        payFees(300e6);
        vm.warp(first.endsAt - 1);
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotStillOpen.selector, 1, first.endsAt));
        auction.open();
        vm.warp(first.endsAt);
        expectNotOnSale(1);
        buyAs(buyer, 1);
        // The next partial lot waits for its time again; a full one need not.
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotTooSmall.selector, 900e6, LOT_MAX, first.endsAt + PATIENCE));
        auction.open();
        payFees(400e6);
        vm.expectEmit(address(auction));
        emit IBuybackAuction.LotRolledOver(1, 600e6);
        assertEq(openLot(), 2);
        assertEq(auction.lot().amount, LOT_MAX);
        assertEq(auction.lot().startPrice, 2 * PAR);
        buyAs(buyer, 2);
        assertEq(auction.held(), 300e6);
    }

    function test_lotsLieBetweenTheLeastAndTheGreatestSize() public {
        uint64 patient = uint64(block.timestamp) + PATIENCE;
        payFees(LOT_MAX - 1);
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotTooSmall.selector, LOT_MAX - 1, LOT_MAX, patient));
        auction.open();
        payFees(1);
        openLot();
        buyAs(buyer, 1);
        patient = uint64(block.timestamp) + PATIENCE;
        payFees(LOT_MIN - 1);
        vm.warp(patient);
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotTooSmall.selector, LOT_MIN - 1, LOT_MIN, patient));
        auction.open();
        payFees(1);
        openLot();
        assertEq(auction.lot().amount, LOT_MIN);
    }

    function test_nothingIsSoldBeforeItsTimeOrTwice() public {
        expectNotOnSale(0);
        auction.price();
        payFees(LOT_MAX);
        auction.open();
        IBuybackAuction.Lot memory l = auction.lot();
        vm.warp(l.startsAt - 1);
        expectNotOnSale(1);
        buyAs(buyer, 1);
        vm.warp(l.startsAt);
        expectNotOnSale(2);
        buyAs(buyer, 2);
        buyAs(buyer, 1);
        expectNotOnSale(1);
        buyAs(buyer, 1);
        expectNotOnSale(1);
        auction.cost();
    }

    function testFuzz_aBuyerPaysNoMoreThanItSaid(uint256 costMax) public {
        payFees(LOT_MAX);
        uint64 lotId = openLot();
        uint256 cost = auction.cost();
        costMax = bound(costMax, 0, cost - 1);
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.CostAboveLimit.selector, cost, costMax));
        vm.prank(buyer);
        auction.buy(lotId, costMax, buyer);
    }

    /// The median of the last five full lots, whatever their order.
    function testFuzz_theStartIsTwiceTheMedianOfTheLastFiveFullLots(uint32[8] memory waits) public {
        uint256[8] memory prices;
        for (uint256 i; i < 8; ++i) {
            payFees(LOT_MAX);
            uint64 lotId = openLot();
            assertEq(auction.lot().startPrice, 2 * auction.medianPrice());
            vm.warp(block.timestamp + bound(waits[i], 0, 5 * HALF_LIFE));
            if (block.timestamp >= auction.lot().endsAt) vm.warp(auction.lot().endsAt - 1);
            prices[i] = auction.price();
            buyAs(attacker, lotId);
        }
        uint256 median = auction.medianPrice();
        (uint256 below, uint256 above) = (0, 0);
        for (uint256 i = 3; i < 8; ++i) {
            if (prices[i] < median) ++below;
            if (prices[i] > median) ++above;
            assertEq(auction.history()[i % 5], prices[i]);
        }
        assertLe(below, 2);
        assertLe(above, 2);
    }

    /// What came in the native token is burnt by anybody's call, and so is what was sent here by mistake.
    function testFuzz_nativeFeesAreBurntAsTheyAre(uint96 credited, uint96 sent) public {
        credited = uint96(bound(credited, 0, 1_000_000e18));
        sent = uint96(bound(sent, 0, 1_000_000e18));
        vm.startPrank(buyer);
        native.approve(address(rails), credited);
        if (credited != 0) rails.deposit(address(native), address(auction), credited);
        native.transfer(address(auction), sent);
        vm.stopPrank();
        uint256 supply = native.totalSupply();
        if (credited != 0 || sent != 0) {
            vm.expectEmit(address(auction));
            emit IBuybackAuction.NativeFeesBurnt(uint256(credited) + sent);
        }
        assertEq(auction.burnNativeFees(), uint256(credited) + sent);
        assertEq(auction.burnNativeFees(), 0);
        assertEq(native.totalSupply(), supply - credited - sent);
        assertEq(auction.burnt(), uint256(credited) + sent);
    }

    function test_badConfigurationsAreRefused() public {
        IBuybackAuction.Config memory c = configOf(PAR);
        c.lotMin = 0;
        expectBadConfig(c, "lotMin", 0, 1);
        c = configOf(PAR);
        c.lotMax = c.lotMin - 1;
        expectBadConfig(c, "lotMax", c.lotMax, c.lotMin);
        c = configOf(PAR);
        c.floorPrice = 0;
        expectBadConfig(c, "floorPrice", 0, 1);
        expectBadConfig(configOf(FLOOR - 1), "firstPrice", FLOOR - 1, FLOOR);
        expectBadConfig(configOf(1 << 128), "firstPrice", 1 << 128, type(uint128).max);
        c = configOf(PAR);
        c.halfLifeSeconds = 0;
        expectBadConfig(c, "halfLifeSeconds", 0, 1);
        assertEq(auction.config().patienceSeconds, PATIENCE);
    }

    function testGas_auction() public {
        fullLotAtMarket(PAR);
        payFees(LOT_MAX);
        auction.open();
        vm.snapshotGasLastCall("BuybackAuction", "open");
        vm.warp(block.timestamp + NOTICE + HALF_LIFE);
        buyAs(buyer, 2);
        vm.snapshotGasLastCall("BuybackAuction", "buy a full lot");
        vm.startPrank(buyer);
        native.approve(address(rails), 1e18);
        rails.deposit(address(native), address(auction), 1e18);
        auction.burnNativeFees();
        vm.snapshotGasLastCall("BuybackAuction", "burnNativeFees");
    }

    /// deployCode gives no reason of its own: the call is made by hand.
    function expectBadConfig(IBuybackAuction.Config memory c, string memory field, uint256 got, uint256 limit) private {
        bytes memory code = abi.encodePacked(vm.getCode("BuybackAuction.sol"), abi.encode(c, rails, address(stable), address(native)));
        bytes memory expected = abi.encodeWithSelector(IBuybackAuction.BadConfig.selector, field, got, limit);
        vm.expectRevert(expected);
        assembly ("memory-safe") {
            pop(create(0, add(code, 32), mload(code)))
        }
    }

    function expectNotOnSale(uint64 lotId) private {
        IBuybackAuction.Lot memory l = auction.lot();
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotNotOnSale.selector, lotId, l.id, l.startsAt, l.endsAt));
    }
}
