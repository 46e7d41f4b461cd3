// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {BuybackAuction} from "../../src/compute/BuybackAuction.sol";
import {ComputeRewards} from "../../src/compute/ComputeRewards.sol";
import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";
import {IComputeRewards, IFeeSource} from "../../src/compute/IComputeRewards.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {Rails} from "../../src/token/Rails.sol";
import {RewardsFixture} from "./compute-rewards-fixture.sol";

/// @notice Works that pay real fees into the auction's account, whatever their sizes.
contract FeePayer is IFeeSource {
    struct Work {
        uint64 operatorId;
        uint256 stableFees;
        uint256 nativeFees;
    }

    Rails private immutable rails;
    DevStable private immutable stable;
    IERC20 private immutable native;
    address private immutable auction;
    Work[] private _works;
    uint256 public nativePaid;

    constructor(Rails rails_, DevStable stable_, IERC20 native_, address auction_) {
        (rails, stable, native, auction) = (rails_, stable_, native_, auction_);
    }

    function pay(uint64 operatorId, uint256 stableFees, uint256 nativeFees) external returns (uint64 id) {
        _works.push(Work(operatorId, stableFees, nativeFees));
        stable.mint(address(this), stableFees);
        stable.approve(address(rails), stableFees);
        if (stableFees != 0) rails.deposit(address(stable), auction, stableFees);
        native.approve(address(rails), nativeFees);
        if (nativeFees != 0) rails.deposit(address(native), auction, nativeFees);
        nativePaid += nativeFees;
        return uint64(_works.length - 1);
    }

    function count() external view returns (uint64) {
        return uint64(_works.length);
    }

    function feesOf(uint64 id) external view returns (uint64, uint256, uint256) {
        Work memory w = _works[id];
        return (w.operatorId, w.stableFees, w.nativeFees);
    }
}

/// @notice Everything that anybody may do with rewards, in any order.
contract RewardsHandler is Test {
    uint32 private constant HOURS = 4;
    uint32 private constant SEATS = 6;

    ComputeRewards private immutable rewards;
    BuybackAuction private immutable auction;
    FeePayer private immutable payer;
    IERC20 private immutable native;
    bytes[HOURS] private _figures;
    uint64 private _counted;

    constructor(ComputeRewards rewards_, BuybackAuction auction_, FeePayer payer_, IERC20 native_, bytes[HOURS] memory figures) {
        (rewards, auction, payer, native, _figures) = (rewards_, auction_, payer_, native_, figures);
        native_.approve(address(auction_), type(uint256).max);
    }

    function claim(uint256 hourSeed, uint256 seatSeed) external {
        uint32 hour = uint32(hourSeed % HOURS);
        IComputeRewards.Claim[] memory claims = new IComputeRewards.Claim[](1);
        claims[0] = IComputeRewards.Claim(hour + 2, uint32(seatSeed % SEATS), IComputeHealth.Opening(_figures[hour], new bytes32[](0)));
        try rewards.claim(claims) {}
        catch (bytes memory reason) {
            assertEq(bytes4(reason), IComputeRewards.ClaimedBefore.selector);
        }
    }

    function pay(uint256 operatorSeed, uint96 stableFees, uint96 nativeFees) external {
        payer.pay(uint64(operatorSeed % SEATS) + 1, stableFees % 1_000e6 + 1, nativeFees % 100e18);
    }

    /// Fees are counted late, and not in the order of anything.
    function count() external {
        if (_counted == payer.count()) return;
        uint64[] memory ids = new uint64[](1);
        ids[0] = _counted++;
        rewards.countFees(1, ids);
    }

    function sell(uint256 waited) external {
        try auction.open() {} catch {}
        if (auction.lot().id == 0) return;
        uint64 from = auction.lot().startsAt;
        vm.warp(vm.getBlockTimestamp() > from ? vm.getBlockTimestamp() : from + waited % 1 days);
        if (auction.lot().sold || vm.getBlockTimestamp() >= auction.lot().endsAt) return;
        auction.buy(auction.lot().id, type(uint256).max, address(this));
    }

    function burnNativeFees(uint96 gift) external {
        native.transfer(address(auction), gift % 10e18);
        auction.burnNativeFees();
    }

    function grant(uint256 operatorSeed) external {
        rewards.grant(uint64(operatorSeed % SEATS) + 1);
    }

    function release(uint256 operatorSeed) external {
        rewards.release(uint64(operatorSeed % SEATS) + 1);
    }

    function wait(uint256 time) external {
        vm.warp(vm.getBlockTimestamp() + time % 2 days);
    }
}

contract RewardsInvariantTest is RewardsFixture {
    FeePayer private payer;
    RewardsHandler private handler;

    function setUp() public override {
        super.setUp();
        newDevices(6);
        payer = new FeePayer(rails, stable, native, address(auction));
        native.transfer(address(payer), 1_000_000e18);
        IFeeSource[] memory sources = new IFeeSource[](2);
        (sources[0], sources[1]) = (leaseFees, payer);
        rewards = newRewards(IComputeRewards.Config(9_000, BASE_BPS, STREAK, VEST), sources);
        registry.set("computeRewards", address(rewards), false);
        bytes[4] memory figures;
        for (uint32 i; i < 4; ++i) {
            figures[i] = proposeHour(i + 2, statement(IComputeHealth.Verdict.Passed, uint16(9_000 + i), 20_000, 700 + i));
        }
        vm.warp(block.timestamp + WINDOW);
        health.advance(10);
        handler = new RewardsHandler(rewards, auction, payer, native, figures);
        native.transfer(address(handler), 100_000_000e18);
        targetContract(address(handler));
    }

    function invariant_nothingIsOwedThatIsNotThereAndNothingGrantedBeyondEmissionAndBurntFees() public view {
        uint256 entitled;
        uint256 granted;
        uint256 released;
        uint256 burnt;
        for (uint64 id = 1; id <= 6; ++id) {
            IComputeRewards.Account memory a = rewards.accountOf(id);
            assertLe(a.granted, a.entitled);
            assertLe(a.granted, uint256(a.burntFees) * 9_000 / 10_000);
            assertLe(a.released, a.granted);
            entitled += a.entitled;
            granted += a.granted;
            released += a.released;
            burnt += a.burntFees;
        }
        uint256 shared;
        for (uint32 hour = 2; hour < 6; ++hour) {
            shared += rewards.emissionOf(hour);
        }
        assertLe(entitled, shared);
        assertLe(burnt, auction.paid() + payer.nativePaid());
        assertEq(rewards.obligations(), granted - released);
        assertLe(rewards.obligations(), native.balanceOf(address(rewards)));
        assertEq(native.balanceOf(address(rewards)) + released, emission.emitted());
        assertEq(native.balanceOf(address(income)), released);
    }
}
