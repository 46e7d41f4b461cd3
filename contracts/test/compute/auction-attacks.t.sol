// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {BuybackAuction} from "../../src/compute/BuybackAuction.sol";
import {IBuybackAuction} from "../../src/compute/IBuybackAuction.sol";
import {AuctionFixture} from "./fixture.sol";

/// @notice A native token that lies about burning, or calls back in the middle of it.
contract HostileNative is ERC20Burnable {
    enum Mode {
        Honest,
        BurnNothing,
        BurnMore,
        MintInstead,
        CallBack
    }

    Mode private mode;
    BuybackAuction private auction;
    bytes private call;
    bytes public answer;

    constructor() ERC20("Hostile", "HOST") {
        _mint(msg.sender, 1_000_000e18);
    }

    function set(Mode mode_, BuybackAuction auction_, bytes calldata call_) external {
        (mode, auction, call) = (mode_, auction_, call_);
    }

    function burnFrom(address account, uint256 amount) public override {
        _act(account, amount);
    }

    function burn(uint256 amount) public override {
        _act(msg.sender, amount);
    }

    function _act(address account, uint256 amount) private {
        if (mode == Mode.BurnNothing) return;
        if (mode == Mode.MintInstead) return _mint(account, amount);
        if (mode == Mode.CallBack) (, answer) = address(auction).call(call);
        _burn(account, mode == Mode.BurnMore ? amount + 1 : amount);
    }
}

/// @notice A stable token that refuses everything once it is told to.
contract FrozenStable is ERC20("Frozen", "FRZ") {
    bool private frozen;

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function freeze() external {
        frozen = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!frozen);
        super._update(from, to, amount);
    }
}

/// @notice What people may try against the price or the money of the auction.
contract AuctionAttacksTest is AuctionFixture {
    function openPaidLot() private returns (uint64 lotId) {
        payFees(LOT_MAX);
        return openLot();
    }

    // ------------------------------------------------------------------------------------------------ raising the median

    /// Who raises the median by filling lots at the start price burns, for each doubling, three lots' worth of the price so far in excess of
    /// what it gets. All that others lose is one half-life of waiting for each doubling; the price that they pay is the market's.
    function test_raisingTheMedianCostsMoreWithEachDoublingAndBuysOnlyDelay() public {
        uint256 lost;
        for (uint256 doubling = 1; doubling <= 5; ++doubling) {
            for (uint256 i; i < 3; ++i) {
                lost += buyAs(attacker, openPaidLot()) - 1_000e18; // what a full lot is worth at par
            }
            assertEq(auction.medianPrice(), PAR << doubling);
            assertGe(lost, 3 * 1_000e18 * ((1 << doubling) - 1));
        }
        uint64 lotId = openPaidLot();
        uint256 from = block.timestamp;
        uint256 cost = sellAtMarket(lotId, PAR);
        assertEq(block.timestamp - from, 6 * HALF_LIFE);
        assertEq(cost, 1_000e18);
        // Three honest lots, and the median is the market's again.
        fullLotAtMarket(PAR);
        fullLotAtMarket(PAR);
        assertEq(auction.medianPrice(), PAR);
    }

    /// Two lots of five at any price leave the median among the honest ones.
    function testFuzz_twoLotsAtAnyPriceMoveNothing(uint32 first, uint32 second, uint8 places) public {
        uint256 one = uint256(places) % 5;
        uint256 two = uint256(places / 5) % 5;
        for (uint256 i; i < 5; ++i) {
            if (i != one && i != two) {
                fullLotAtMarket(PAR);
                continue;
            }
            uint64 lotId = openPaidLot();
            vm.warp(bound(i == one ? first : second, block.timestamp, auction.lot().endsAt - 1));
            buyAs(attacker, lotId);
        }
        assertEq(auction.medianPrice(), PAR);
    }

    /// With own money for fees it is the same: what the lot brings back was put in before.
    function test_fillingOnesOwnLotWithOnesOwnFeesLosesAllThatIsBurntAboveTheMarket() public {
        stable.mint(attacker, LOT_MAX);
        vm.startPrank(attacker);
        stable.approve(address(rails), LOT_MAX);
        rails.deposit(address(stable), attacker, LOT_MAX);
        rails.transfer(address(stable), address(auction), LOT_MAX);
        vm.stopPrank();
        uint256 burnt = buyAs(attacker, openLot());
        assertEq(burnt, 2_000e18);
        assertEq(rails.balanceOf(address(stable), attacker), LOT_MAX); // no more than before
    }

    // --------------------------------------------------------------------------------------------------------- tiny lots

    /// Small lots never count in the median, and nobody can cut full lots up: one small lot at most in each time of patience.
    function testFuzz_tinyLotsNeitherMoveTheMedianNorReplaceFullOnes(uint32 wait) public {
        payFees(LOT_MAX - 1);
        uint64 patient = uint64(block.timestamp) + PATIENCE;
        vm.warp(bound(wait, block.timestamp, patient - 1));
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotTooSmall.selector, LOT_MAX - 1, LOT_MAX, patient));
        vm.prank(attacker);
        auction.open();
        vm.warp(patient);
        uint64 lotId = openLot();
        vm.warp(bound(wait, block.timestamp, auction.lot().endsAt - 1));
        buyAs(attacker, lotId);
        assertEq(auction.medianPrice(), PAR);
        for (uint256 i; i < 5; ++i) {
            assertEq(auction.history()[i], PAR);
        }
        // And the next must be full, or wait.
        payFees(LOT_MIN);
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotTooSmall.selector, LOT_MIN, LOT_MAX, uint64(block.timestamp) + PATIENCE));
        auction.open();
        payFees(LOT_MAX - LOT_MIN);
        assertEq(auction.open(), 2);
    }

    // ----------------------------------------------------------------------------------- empty periods, jumps, no history

    function test_emptyTimeChangesNothing() public {
        fullLotAtMarket(PAR);
        uint256 median = auction.medianPrice();
        vm.warp(block.timestamp + 3 * 365 days);
        vm.expectRevert(
            abi.encodeWithSelector(IBuybackAuction.LotTooSmall.selector, 0, LOT_MIN, auction.lot().startsAt + HALF_LIFE + PATIENCE)
        );
        auction.open();
        assertEq(auction.medianPrice(), median);
        payFees(LOT_MAX);
        openLot();
        assertEq(auction.lot().startPrice, 2 * median);
    }

    /// The native token has lost value, so that a lot is worth 2^k times the median: at most three lots for each doubling beyond the start
    /// are sold below their worth, then the start is above it again.
    function testFuzz_aStaleMedianCostsAtMostThreeLotsForEachDoubling(uint8 doublings) public {
        uint256 k = bound(doublings, 1, 6);
        uint256 market = PAR << k;
        uint256 cheap;
        while (auction.medianPrice() * 2 < market) {
            uint64 lotId = openPaidLot();
            assertLt(auction.price(), market);
            buyAs(attacker, lotId); // at once, as anybody would
            ++cheap;
        }
        assertEq(cheap, 3 * (k - 1));
    }

    /// The native token has gained value: lots wait for the price to fall to the market, however far, down to the floor.
    function testFuzz_aMarketBelowTheMedianIsReached(uint256 market) public {
        market = bound(market, FLOOR, PAR);
        uint256 cost = fullLotAtMarket(market);
        assertApproxEqRel(cost, uint256(LOT_MAX) * market / 1e18, 1e14);
    }

    function test_belowTheFloorNothingIsSoldAndNothingIsLost() public {
        assertEq(fullLotAtMarket(FLOOR - 1), 0);
        assertEq(auction.held(), LOT_MAX);
        assertEq(openLot(), 2);
    }

    /// The first lots: history is what deployment states, five times. Stated too low it is mended at three lots a doubling, too high by waiting.
    function test_theFirstLotsNeedNoHistory() public {
        auction = newAuction(configOf(FLOOR), address(stable), address(native));
        vm.prank(attacker);
        native.approve(address(auction), type(uint256).max);
        vm.prank(buyer);
        native.approve(address(auction), type(uint256).max);
        uint256 lots;
        for (; auction.medianPrice() * 2 < PAR; ++lots) {
            buyAs(attacker, openPaidLot());
        }
        assertEq(lots, 3 * 9); // from a 1024th
        assertApproxEqRel(fullLotAtMarket(PAR), 1_000e18, 1e14);

        auction = newAuction(configOf(PAR << 20), address(stable), address(native));
        vm.prank(buyer);
        native.approve(address(auction), type(uint256).max);
        assertApproxEqRel(fullLotAtMarket(PAR), 1_000e18, 1e14);
    }

    // ------------------------------------------------------------------------------------------------------- sandwiching

    /// A price depends on time and on the history alone. What others do before a buyer's transaction can take the lot, never make it dearer.
    function testFuzz_nothingInFrontOfABuyerMakesItsLotDearer(uint96 fees, bool native_, bool taken) public {
        uint64 lotId = openPaidLot();
        vm.warp(block.timestamp + HALF_LIFE);
        uint256 quoted = auction.cost();
        payFees(bound(fees, 1, 100 * uint256(LOT_MAX)));
        if (native_) {
            vm.prank(attacker);
            native.transfer(address(auction), 1e18);
            auction.burnNativeFees();
        }
        if (taken) {
            buyAs(attacker, lotId);
            payFees(LOT_MAX);
            vm.prank(attacker);
            assertEq(auction.open(), 2);
            vm.warp(auction.lot().startsAt);
            IBuybackAuction.Lot memory l = auction.lot();
            // The buyer meant lot 1: it never gets another one instead.
            vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotNotOnSale.selector, lotId, l.id, l.startsAt, l.endsAt));
            vm.prank(buyer);
            auction.buy(lotId, quoted, buyer);
        } else {
            vm.prank(buyer);
            assertEq(auction.buy(lotId, quoted, buyer), quoted);
            assertEq(rails.balanceOf(address(stable), buyer), LOT_MAX);
        }
    }

    /// Who opens a lot cannot take it in the same transaction, before all others know the price.
    function test_whoOpensIsNotFirst() public {
        payFees(LOT_MAX);
        vm.startPrank(attacker);
        uint64 lotId = auction.open();
        IBuybackAuction.Lot memory l = auction.lot();
        vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.LotNotOnSale.selector, lotId, lotId, l.startsAt, l.endsAt));
        auction.buy(lotId, type(uint256).max, attacker);
    }

    // ---------------------------------------------------------------------------------------------------- hostile tokens

    function hostile() private returns (HostileNative token) {
        token = new HostileNative();
        auction = newAuction(configOf(PAR), address(stable), address(token));
        token.approve(address(auction), type(uint256).max);
        openPaidLot();
    }

    function test_aNativeTokenThatDoesNotBurnSellsNothing() public {
        HostileNative token = hostile();
        uint256 cost = auction.cost();
        uint256 supply = token.totalSupply();
        int256[3] memory burnt = [int256(0), int256(cost) + 1, -int256(cost)];
        for (uint256 i; i < 3; ++i) {
            token.set(HostileNative.Mode(i + 1), auction, "");
            uint256 left = uint256(int256(supply) - burnt[i]);
            vm.expectRevert(abi.encodeWithSelector(IBuybackAuction.BurnDiffers.selector, supply, left, cost));
            auction.buy(1, cost, address(this));
        }
        token.set(HostileNative.Mode.Honest, auction, "");
        auction.buy(1, cost, address(this));
    }

    function test_aNativeTokenThatCallsBackGetsNowhere() public {
        HostileNative token = hostile();
        payFees(LOT_MAX);
        bytes[3] memory calls = [
            abi.encodeCall(BuybackAuction.buy, (1, type(uint256).max, address(token))),
            abi.encodeCall(BuybackAuction.open, ()),
            abi.encodeCall(BuybackAuction.burnNativeFees, ())
        ];
        uint256 state = vm.snapshotState();
        for (uint256 i; i < 3; ++i) {
            token.set(HostileNative.Mode.CallBack, auction, calls[i]);
            auction.buy(1, type(uint256).max, address(this));
            assertEq(bytes4(token.answer()), ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
            assertEq(auction.held(), LOT_MAX);
            assertEq(rails.balanceOf(address(stable), address(this)), LOT_MAX);
            vm.revertToState(state);
        }
        token.transfer(address(auction), 5e18);
        token.set(HostileNative.Mode.CallBack, auction, calls[2]);
        auction.burnNativeFees();
        assertEq(auction.burnt(), 5e18);
    }

    /// A sale calls no stable token: one that is frozen stops withdrawals at the rails, and nothing here.
    function test_aFrozenStableTokenStopsNoSale() public {
        FrozenStable frozen = new FrozenStable();
        auction = newAuction(configOf(PAR), address(frozen), address(native));
        frozen.mint(address(this), LOT_MAX);
        frozen.approve(address(rails), LOT_MAX);
        rails.deposit(address(frozen), address(auction), LOT_MAX);
        frozen.freeze();
        openLot();
        vm.startPrank(buyer);
        native.approve(address(auction), type(uint256).max);
        auction.buy(1, type(uint256).max, buyer);
        assertEq(rails.balanceOf(address(frozen), buyer), LOT_MAX);
    }
}
