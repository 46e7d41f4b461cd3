// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ComputeRewards} from "../../src/compute/ComputeRewards.sol";
import {DeviceCalendar} from "../../src/compute/DeviceCalendar.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {IComputeRewards, IFeeSource} from "../../src/compute/IComputeRewards.sol";
import {LeaseFees} from "../../src/compute/LeaseFees.sol";
import {BackerIncome} from "../../src/token/BackerIncome.sol";
import {deployCode} from "../deploy/code.sol";
import {deployBackerIncome} from "../deploy/token.sol";
import {HealthFixture} from "./health-fixture.sol";

/// @notice Rewards on top of all that they depend on, and a renter with money at the rails.
abstract contract RewardsFixture is HealthFixture {
    uint16 internal constant SHARE_BPS = 5_000;
    uint16 internal constant BASE_BPS = 2_000;
    uint32 internal constant STREAK = 4;
    uint32 internal constant VEST = 10_800;
    uint16 internal constant TAKE_BPS = 1_800;

    BackerIncome internal income;
    LeaseFees internal leaseFees;
    ComputeRewards internal rewards;
    address internal renter = makeAddr("renter");

    function setUp() public virtual override {
        super.setUp();
        address[] memory tokens = new address[](1);
        tokens[0] = address(native);
        income = deployBackerIncome(TAKE_BPS, 1 days, registry, vault, operators, tokens);
        registry.set("backerIncome", address(income), false);
        leaseFees = LeaseFees(deployCode("LeaseFees", abi.encode(market, rails)));
        IFeeSource[] memory sources = new IFeeSource[](1);
        sources[0] = leaseFees;
        rewards = newRewards(IComputeRewards.Config(SHARE_BPS, BASE_BPS, STREAK, VEST), sources);
        registry.set("computeRewards", address(rewards), false);
        fund(renter, 10_000_000e6, 100_000e18);
    }

    function newRewards(IComputeRewards.Config memory c, IFeeSource[] memory sources) internal returns (ComputeRewards) {
        return ComputeRewards(deployCode("ComputeRewards", abi.encode(c, health, emission, auction, income, sources)));
    }

    /// Money in an account at the rails, for which the market is approved.
    function fund(address who, uint256 stableAmount, uint256 nativeAmount) internal {
        for (uint256 left = stableAmount; left != 0;) {
            uint256 part = left < 1_000_000e6 ? left : 1_000_000e6;
            stable.mint(who, part);
            left -= part;
        }
        native.transfer(who, nativeAmount);
        vm.startPrank(who);
        stable.approve(address(rails), stableAmount);
        rails.deposit(address(stable), who, stableAmount);
        native.approve(address(rails), nativeAmount);
        rails.deposit(address(native), who, nativeAmount);
        rails.approve(address(market), address(stable), stableAmount);
        rails.approve(address(market), address(native), nativeAmount);
        vm.stopPrank();
    }

    /// A lease of a device by a renter, reserved now, ended and closed before it begins: reservation fees only.
    function rentAndClose(address who, uint64 deviceId, address token, uint64 length) internal returns (uint64 leaseId) {
        uint64 from = uint64(block.timestamp) + 1;
        DeviceCalendar.Candidate[] memory one = new DeviceCalendar.Candidate[](1);
        one[0].deviceId = deviceId;
        vm.startPrank(who);
        leaseId = market.reserve(IComputeMarket.Request(CLASS, token, PRICE, from, from + length, who, false, 0), one, 1)[0];
        market.end(leaseId);
        vm.stopPrank();
        market.close(leaseId);
    }

    function countLease(uint64 leaseId) internal {
        uint64[] memory ids = new uint64[](1);
        ids[0] = leaseId;
        rewards.countFees(0, ids);
    }

    /// Sells the auction's next lot to a buyer at the price of its first second.
    function sellLotTo(address buyer) internal returns (uint256 cost) {
        uint64 lotId = auction.open();
        vm.warp(auction.lot().startsAt);
        cost = auction.cost();
        native.transfer(buyer, cost);
        vm.startPrank(buyer);
        native.approve(address(auction), cost);
        auction.buy(lotId, cost, buyer);
        vm.stopPrank();
    }

    function claimHour(uint32 hour, uint32 seat, bytes memory figures) internal returns (uint256) {
        return rewards.claim(claimOf(hour, seat, figures));
    }

    function claimOf(uint32 hour, uint32 seat, bytes memory figures) internal pure returns (IComputeRewards.Claim[] memory claims) {
        claims = new IComputeRewards.Claim[](1);
        claims[0] = IComputeRewards.Claim(hour, seat, openingOf(figures));
    }
}
