// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

// Compiled as the product is (tools/solc.cjs): its double inherits product code, whose gas is measured.

import {Test} from "forge-std/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ComputeFees} from "../../src/compute/ComputeFees.sol";
import {IRails} from "../../src/token/IRails.sol";
import {AuctionFixture} from "./fixture.sol";

/// @notice A market that does nothing but take fees.
contract FeeMarket is ComputeFees {
    constructor(IRails rails_, address native_, address stable_, address auction_) ComputeFees(rails_, native_, stable_, auction_) {}

    function reserve(uint256 leaseId, address renter, address token, uint128 price) external returns (uint128) {
        return _takeReservationFees(leaseId, renter, token, price);
    }

    function pay(uint256 leaseId, uint256 paid) external returns (uint256) {
        return _takeStableFee(leaseId, paid);
    }

    function close(uint256 leaseId, uint256 paid) external returns (uint256) {
        return _closeStableFee(leaseId, paid);
    }
}

abstract contract FeesFixture is AuctionFixture {
    uint128 internal constant PRICE_MAX = type(uint120).max;
    FeeMarket internal market;

    function setUp() public virtual override {
        super.setUp();
        market = new FeeMarket(rails, address(native), address(stable), address(auction));
        vm.startPrank(renter);
        rails.approve(address(market), address(native), type(uint256).max);
        rails.approve(address(market), address(stable), type(uint256).max);
        vm.stopPrank();
    }

    /// Gives the renter an account at the rails; `deal` so that any price can be paid.
    function fund(address token, uint256 amount) internal {
        deal(token, renter, amount);
        vm.startPrank(renter);
        IERC20(token).approve(address(rails), amount);
        rails.deposit(token, renter, amount);
        vm.stopPrank();
    }

    function up(uint256 price, uint256 bps) internal pure returns (uint256) {
        return Math.ceilDiv(price * bps, 10_000);
    }
}

contract ComputeFeesTest is FeesFixture {
    function test_aQuarterPercentFromEachSideAndTwoPercentInTheStableToken() public {
        fund(address(stable), 1_100e6);
        vm.expectEmit(address(market));
        emit ComputeFees.ReservationFees(1, address(stable), 1_000e6, 2.5e6, 2.5e6);
        vm.expectEmit(address(market));
        emit ComputeFees.StableFeeAside(1, 20e6);
        assertEq(market.reserve(1, renter, address(stable), 1_000e6), 997.5e6);
        assertEq(auction.held(), 5e6);
        assertEq(market.feesAside(), 20e6);
        // Half of it is used: one per cent of the price.
        vm.expectEmit(address(market));
        emit ComputeFees.StableFeeTaken(1, 10e6);
        assertEq(market.pay(1, 498.75e6), 10e6);
        assertEq(market.pay(1, 498.75e6), 0);
        (uint256 aside, uint256 taken) = market.stableFeeOf(1);
        assertEq(aside, 20e6);
        assertEq(taken, 10e6);
        vm.expectEmit(address(market));
        emit ComputeFees.StableFeeReturned(1, renter, 10e6);
        assertEq(market.close(1, 498.75e6), 10e6);
        assertEq(rails.balanceOf(address(stable), renter), 1_100e6 - 5e6 - 10e6);
        assertEq(auction.held(), 15e6);
        assertEq(market.close(1, 0), 0); // forgotten
    }

    function test_inTheNativeTokenOnlyTheReservationCostsAndThatIsBurnt() public {
        fund(address(native), 2_000e18);
        uint256 supply = native.totalSupply();
        assertEq(market.reserve(1, renter, address(native), 1_000e18), 997.5e18);
        assertEq(rails.balanceOf(address(native), renter), 1_995e18);
        assertEq(market.pay(1, 997.5e18), 0);
        assertEq(market.close(1, 997.5e18), 0);
        assertEq(auction.burnNativeFees(), 5e18);
        assertEq(native.totalSupply(), supply - 5e18);
    }

    function testFuzz_eachFeeIsRoundedUpAndExactWhereItCanBe(uint120 price, bool inStable) public view {
        address token = inStable ? address(stable) : address(native);
        (uint256 renterFee, uint256 supplierFee, uint256 stableFee) = market.feesOn(token, price);
        assertEq(renterFee, up(price, 25));
        assertEq(supplierFee, renterFee);
        assertEq(stableFee, inStable ? up(price, 200) : 0);
        (renterFee,, stableFee) = market.feesOn(token, uint256(price) * 400);
        assertEq(renterFee, price);
        assertEq(stableFee, inStable ? uint256(price) * 8 : 0);
    }

    function testFuzz_cuttingAReservationIntoPartsIsNeverCheaper(uint120 one, uint120 two) public view {
        (uint256 a,, uint256 b) = market.feesOn(address(stable), one);
        (uint256 c,, uint256 d) = market.feesOn(address(stable), two);
        (uint256 whole,, uint256 wholeStable) = market.feesOn(address(stable), uint256(one) + two);
        assertLe(whole, a + c);
        assertLe(wholeStable, b + d);
    }

    /// However often the fee is taken: of the whole price it is two per cent, rounded up; what is not used comes back but for one rounding.
    function testFuzz_oneStepOrMany(uint120 price, uint120 more, uint256[4] memory steps) public {
        price = uint120(bound(price, 2, PRICE_MAX));
        fund(address(stable), 3 * uint256(PRICE_MAX));
        uint256 net = market.reserve(1, renter, address(stable), price);
        uint256 fee = up(price, 200);
        uint256 paid;
        uint256 taken;
        for (uint256 i; i < 4; ++i) {
            paid = bound(steps[i], paid, net);
            taken += market.pay(1, paid);
            if (i < 2) assertEq(taken, Math.mulDiv(fee, paid, net, Math.Rounding.Ceil));
            if (i == 1) {
                // An extension: from now on both prices count.
                more = uint120(bound(more, 2, PRICE_MAX));
                net += market.reserve(1, renter, address(stable), more);
                fee += up(more, 200);
            }
        }
        assertLe(taken, fee);
        assertEq(market.feesAside(), fee - taken);
        assertEq(rails.balanceOf(address(stable), address(market)), fee - taken);
        if (steps[0] % 2 == 0) {
            assertEq(market.close(1, net), 0);
            assertEq(auction.held(), fee + 2 * (up(price, 25) + up(more, 25)));
        } else {
            uint256 due = Math.max(taken, Math.mulDiv(fee, paid, net, Math.Rounding.Ceil));
            assertEq(market.close(1, paid), fee - due);
        }
        assertEq(market.feesAside(), 0);
        assertEq(rails.balanceOf(address(stable), address(market)), 0);
    }

    function testFuzz_whatCannotBeIsRefused(address token, uint128 price, uint256 paid) public {
        vm.assume(token != address(stable) && token != address(native));
        vm.expectRevert(abi.encodeWithSelector(ComputeFees.TokenNotAccepted.selector, token));
        market.reserve(1, renter, token, 100);
        price = price % 2 == 0 ? price % 4 / 2 : uint128(bound(price, uint256(PRICE_MAX) + 1, type(uint128).max));
        vm.expectRevert(abi.encodeWithSelector(ComputeFees.PriceOutOfBounds.selector, price, 2, PRICE_MAX));
        market.reserve(1, renter, address(stable), price);
        vm.expectPartialRevert(IRails.InsufficientBalance.selector);
        market.reserve(1, renter, address(stable), 100);
        fund(address(stable), 1_000);
        market.reserve(1, renter, address(stable), 100);
        paid = bound(paid, 100, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(ComputeFees.PaidTooMuch.selector, 1, paid, 99));
        market.pay(1, paid);
    }
}

/// @notice Leases that begin, are extended, are paid for and end, in both tokens.
contract FeesHandler is Test {
    FeeMarket private immutable market;
    address private immutable renter;
    address private immutable native;
    address private immutable stable;
    uint256 private constant LEASES = 6; // even ones in the stable token
    mapping(uint256 leaseId => uint256) private net;
    mapping(uint256 leaseId => uint256) private paid;
    mapping(uint256 leaseId => uint256) public asideOf;
    mapping(address token => uint256) public reservationFees;
    uint256 public stableFees;
    uint256 public returned;

    constructor(FeeMarket market_, address renter_) {
        (market, renter, native, stable) = (market_, renter_, market_.native(), market_.stable());
    }

    function reserve(uint256 seed, uint64 price) external {
        price = uint64(bound(price, 2, 1e12));
        uint256 leaseId = seed % LEASES;
        address token = leaseId % 2 == 0 ? stable : native;
        (uint256 renterFee, uint256 supplierFee, uint256 stableFee) = market.feesOn(token, price);
        net[leaseId] += market.reserve(leaseId, renter, token, price);
        reservationFees[token] += renterFee + supplierFee;
        asideOf[leaseId] += stableFee;
    }

    function pay(uint256 seed, uint256 part) external {
        uint256 leaseId = seed % LEASES;
        paid[leaseId] = bound(part, paid[leaseId], net[leaseId]);
        uint256 amount = market.pay(leaseId, paid[leaseId]);
        stableFees += amount;
        asideOf[leaseId] -= amount;
    }

    function close(uint256 seed) external {
        uint256 leaseId = seed % LEASES;
        uint256 amount = market.close(leaseId, paid[leaseId]);
        returned += amount;
        stableFees += asideOf[leaseId] - amount;
        (net[leaseId], paid[leaseId], asideOf[leaseId]) = (0, 0, 0);
    }
}

contract FeesInvariantTest is FeesFixture {
    FeesHandler private handler;

    function setUp() public override {
        super.setUp();
        handler = new FeesHandler(market, renter);
        fund(address(stable), 1e15);
        fund(address(native), 1e15);
        targetContract(address(handler));
    }

    function invariant_whatTheRenterPaysIsWithTheAuctionOrSetAside() public view {
        uint256 aside;
        for (uint256 i; i < 6; ++i) {
            aside += handler.asideOf(i);
        }
        assertEq(market.feesAside(), aside);
        assertEq(rails.balanceOf(address(stable), address(market)), aside);
        uint256 fees = handler.reservationFees(address(stable)) + handler.stableFees();
        assertEq(auction.held(), fees);
        assertEq(rails.balanceOf(address(stable), renter), 1e15 - fees - aside);
        uint256 nativeFees = handler.reservationFees(address(native));
        assertEq(rails.balanceOf(address(native), address(auction)), nativeFees);
        assertEq(rails.balanceOf(address(native), renter), 1e15 - nativeFees);
        assertEq(rails.balanceOf(address(native), address(market)), 0);
    }
}

contract ComputeFeesGasTest is FeesFixture {
    function testGas_fees() public {
        fund(address(stable), 10_000e6);
        market.reserve(1, renter, address(stable), 100e6);
        market.reserve(2, renter, address(stable), 100e6);
        vm.snapshotGasLastCall("ComputeFees", "reservation in the stable token");
        market.pay(2, 1e6);
        vm.snapshotGasLastCall("ComputeFees", "fee on a payment");
    }
}
