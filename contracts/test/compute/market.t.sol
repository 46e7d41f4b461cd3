// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ComputeFees} from "../../src/compute/ComputeFees.sol";
import {DeviceCalendar} from "../../src/compute/DeviceCalendar.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {deployComputeMarket} from "../deploy/leases.sol";
import {MarketFixture} from "./leases-fixture.sol";

contract ComputeMarketTest is MarketFixture {
    IComputeMarket.Side private constant NODE = IComputeMarket.Side.Node;
    IComputeMarket.Side private constant RENTER = IComputeMarket.Side.Renter;
    uint256 private constant ALL = type(uint256).max;

    function test_aLeaseIsPaidForWhatBothSidesSigned() public {
        uint64 leaseId = rent(600);
        IComputeMarket.Lease memory l = market.lease(leaseId);
        assertEq(rails.endOf(l.railId), l.until);
        assertEq(rails.rail(l.railId).escrow, 598.5e6);
        assertEq(balance(renter), FUNDS - 600e6 - 1.5e6 - 12e6);
        vm.warp(start + 600);
        say(leaseId, NODE, 0, ALL, ALL);
        vm.expectEmit(address(market));
        emit IComputeMarket.MeterStated(leaseId, RENTER, 0, 1023, 1023 - 4, 4); // it denies the third
        say(leaseId, RENTER, 0, ALL, ALL - 4);
        assertEq(market.statementOf(leaseId, NODE, 0).up, 1023);
        vm.warp(start + 600 + SPEAK - 1);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.LeaseNotOver.selector, leaseId, start + 600 + SPEAK));
        market.close(leaseId);
        vm.warp(start + 600 + SPEAK);
        market.close(leaseId);
        // Nine tenths: paid, and 2 % of that; the tenth is neither paid nor charged.
        assertEq(balance(beneficiary), 538.65e6);
        assertEq(auction.held(), 3e6 + 10.8e6);
        assertEq(balance(renter), FUNDS - 538.65e6 - 3e6 - 10.8e6);
        assertEq(market.feesAside(), 0);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.LeaseIsClosed.selector, leaseId));
        market.close(leaseId);
    }

    /// Whatever both say, in whatever pieces it is settled: paid are the seconds that both found up, and not a unit is lost.
    function testFuzz_paidAreTheSecondsThatBothFoundUp(uint256 node, uint256 renter_, uint16 length, bool settles, bool inNative) public {
        length = uint16(bound(length, METER, 350 * uint256(METER)));
        IComputeMarket.Request memory r = request(start, length);
        if (inNative) r.token = address(native);
        vm.prank(renter);
        uint64 leaseId = market.reserve(r, devices(3), 1)[0];
        uint256 net = rails.rail(market.lease(leaseId).railId).amount;
        speakOfAll(leaseId, length, [node, renter_], settles);
        vm.warp(uint256(start) + length + SPEAK);
        market.close(leaseId);
        uint256 paid = net * secondsUp(node, renter_, length) / length;
        uint256 price = uint256(PRICE) * length / 3_600;
        uint256 fees = 2 * ((price + 399) / 400) + (inNative ? 0 : ((price + 49) / 50 * paid + net - 1) / net);
        assertEq(rails.balanceOf(r.token, beneficiary), paid);
        assertEq(rails.balanceOf(r.token, address(auction)), fees);
        assertEq(rails.balanceOf(r.token, renter), FUNDS - paid - fees);
        assertEq(rails.balanceOf(r.token, address(market)), 0);
    }

    /// Both sides speak of all that is over, before it is too late, each of every word.
    function speakOfAll(uint64 leaseId, uint256 length, uint256[2] memory seeds, bool settles) private {
        for (uint256 time;;) {
            time = time + 8_000 < length ? time + 8_000 : length;
            vm.warp(start + time);
            for (uint256 i; i < 4; ++i) {
                speakIfAny(leaseId, IComputeMarket.Side(i % 2), uint32(i / 2), bitsOf(seeds[i % 2], i / 2));
            }
            if (settles) market.settle(leaseId);
            if (time == length) break;
        }
    }

    function secondsUp(uint256 node, uint256 renter_, uint256 length) private pure returns (uint256 up) {
        for (uint256 i; i * METER < length; ++i) {
            uint256 left = length - i * METER;
            if (bitsOf(node, i / 256) & bitsOf(renter_, i / 256) & (1 << i % 256) != 0) up += left < METER ? left : METER;
        }
    }

    /// Three of four intervals up.
    function bitsOf(uint256 seed, uint256 word) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, word))) | uint256(keccak256(abi.encode(word, seed)));
    }

    function speakIfAny(uint64 leaseId, IComputeMarket.Side side, uint32 word, uint256 up) private {
        try market.state(leaseId, side, word, ALL, up, signed(leaseId, side, word, ALL, up)) {}
        catch (bytes memory reason) {
            assertEq(bytes4(reason), IComputeMarket.NothingToState.selector);
        }
    }

    function test_whatOneSideAloneSaysIsNeitherPaidNorCharged() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 300);
        say(leaseId, NODE, 0, ALL, ALL); // the renter says nothing
        vm.warp(start + 600 + SPEAK);
        market.close(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(balance(renter), FUNDS - 3e6); // the reservation
    }

    function test_aWordOnceSaidStaysAndLateOnesDoNotCount() public {
        uint64 leaseId = rent(5 * SPEAK);
        expectNothingToState(leaseId, NODE, ALL, ALL); // nothing has passed
        vm.warp(start + 119);
        say(leaseId, RENTER, 0, ALL, 0);
        assertEq(market.statementOf(leaseId, RENTER, 0).spoken, 1);
        expectNothingToState(leaseId, RENTER, ALL, ALL); // of the first it has spoken
        vm.warp(start + 120 + SPEAK);
        say(leaseId, NODE, 0, ALL, ALL);
        // Of the first two nobody speaks any more; 182 have passed.
        assertEq(market.statementOf(leaseId, NODE, 0).spoken, (1 << 182) - 1 - 3);
    }

    function expectNothingToState(uint64 leaseId, IComputeMarket.Side side, uint256 spoken, uint256 up) private {
        bytes memory signature = signed(leaseId, side, 0, spoken, up);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.NothingToState.selector, leaseId, 0));
        market.state(leaseId, side, 0, spoken, up, signature);
    }

    function testFuzz_onlyTheRightKeySpeaks(uint256 secret, uint256 spoken, uint256 up, uint8 mode) public {
        uint64 leaseId = rent(600);
        vm.warp(start + 600);
        secret = bound(secret, 1, 1e40);
        bytes32 digest = market.meterDigest(leaseId, NODE, 0, spoken, up);
        if (mode % 4 == 0) digest = market.meterDigest(leaseId + 1, NODE, 0, spoken, up);
        if (mode % 4 == 1) digest = market.meterDigest(leaseId, RENTER, 0, spoken, up);
        if (mode % 4 == 2) digest = market.meterDigest(leaseId, NODE, 1, spoken, up);
        bytes memory signature = sign(mode % 4 == 3 ? secret : nodeSecret, digest);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.BadSignature.selector, nodeKey));
        market.state(leaseId, NODE, 0, spoken, up, signature);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.UnknownLease.selector, leaseId + 1));
        market.state(leaseId + 1, NODE, 0, spoken, up, signature);
    }

    function test_aLeaseIsEndedWithTheIntervalThatRuns() public {
        uint64 leaseId = rent(600);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.NotParty.selector, leaseId, attacker));
        vm.prank(attacker);
        market.end(leaseId);
        vm.warp(start + 61);
        vm.prank(renter);
        assertEq(market.end(leaseId), start + 120);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.LeaseIsOver.selector, leaseId, start + 120));
        vm.prank(owner);
        market.end(leaseId);
        // The device is free again from there on.
        vm.prank(renter);
        uint64 next = market.reserve(request(start + 120, 60), devices(1), 1)[0];
        vm.prank(renter);
        assertEq(market.end(next), start + 120); // it has not begun: wholly
        vm.warp(start + 120);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, ALL);
        market.close(next);
        vm.warp(start + 120 + SPEAK);
        market.settle(leaseId);
        market.close(leaseId);
        assertEq(balance(beneficiary), 119.7e6);
        assertEq(balance(renter), FUNDS - 119.7e6 - 3e6 - 2.4e6 - 0.3e6);
    }

    function test_aGangIsReservedAndPaidWholeOrNotAtAll() public {
        vm.startPrank(renter);
        uint64[] memory leaseIds = market.reserve(request(start, 600), devices(3), 2);
        assertEq(market.lease(leaseIds[1]).deviceId, 2);
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 1, 2));
        market.reserve(request(start, 600), devices(3), 2);
        assertEq(market.slotCount(), 2);
        // Money for two of three: none.
        rails.withdraw(address(stable), balance(renter) - 2_000e6, renter);
        vm.expectPartialRevert(bytes4(keccak256("InsufficientBalance(address,address,uint256,uint256)")));
        market.reserve(request(start + 600, 900), devices(3), 3);
        assertEq(market.slotCount(), 2);
        assertEq(balance(renter), 2_000e6);
        // An extension is a lease that follows.
        DeviceCalendar.Candidate[] memory same = devices(1);
        same[0].hint = leaseIds[0];
        IComputeMarket.Request memory r = request(start + 600, 60);
        r.agent = address(0); // the renter signs itself
        uint64 more = market.reserve(r, same, 1)[0];
        assertEq(market.lease(more).agent, renter);
        assertEq(market.slot(more).previous, leaseIds[0]);
    }

    function test_onlyWhatIsOfferedOnTheRentersTermsIsReserved() public {
        IComputeMarket.Request memory r = request(start, 600);
        r.deviceClass = "gpu";
        expectNothing(r);
        r = request(start, 600);
        r.priceMax = PRICE - 1;
        expectNothing(r);
        r = request(start, 600);
        r.token = address(this);
        expectNothing(r);
        expectNothing(request(start + 1_000 days - 599, 600));
        IComputeMarket.Offer memory o = offer();
        o.from = start + 1;
        o.nativePrice = 0;
        vm.startPrank(owner);
        for (uint64 i = 1; i <= 3; ++i) {
            market.setOffer(i, o);
        }
        vm.stopPrank();
        expectNothing(request(start, 600));
        r = request(start + 1, 600);
        r.token = address(native);
        expectNothing(r);
        assertEq(market.offerOf(3).from, start + 1);
    }

    function expectNothing(IComputeMarket.Request memory r) private {
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 0, 1));
        vm.prank(renter);
        market.reserve(r, devices(3), 1);
    }

    function test_impossibleReservationsAreRefused() public {
        uint64 secondsMax = 64 * 256 * METER;
        uint64 earliest = start - 100 + LEAD_SECONDS;
        IComputeMarket.Request[5] memory bad =
            [request(earliest - 1, 600), request(start, 0), request(start, 0), request(start, METER - 1), request(start, secondsMax + 1)];
        bad[1].until = start - 1;
        for (uint256 i; i < 5; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(IComputeMarket.LeaseTimeOutOfBounds.selector, bad[i].from, bad[i].until, earliest, METER, secondsMax)
            );
            market.reserve(bad[i], devices(1), 1);
        }
        // What just fits is taken.
        vm.prank(renter);
        assertEq(market.reserve(request(earliest, METER), devices(1), 1)[0], 1);
        IComputeMarket.Config memory c = config();
        c.leaseSecondsMin = METER - 1;
        refuseConfig(c, abi.encodeWithSelector(IComputeMarket.BadLeaseSeconds.selector, METER, METER - 1, COLLATERAL_SECONDS));
        c = config();
        c.collateralSeconds = METER - 1;
        refuseConfig(c, abi.encodeWithSelector(IComputeMarket.BadLeaseSeconds.selector, METER, METER, METER - 1));
        c = config();
        c.speakSeconds = 0;
        refuseConfig(c, abi.encodeWithSelector(IComputeMarket.BadMeter.selector, METER, 0));
        c = config();
        c.downBpsMax = 10_001;
        refuseConfig(c, abi.encodeWithSelector(IComputeMarket.BadShare.selector, 10_001, 10_000));
        IComputeMarket.Offer memory o = offer();
        o.interruptibleBps = 10_001;
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.BadShare.selector, 10_001, 10_000));
        vm.prank(owner);
        market.setOffer(1, o);
    }

    function refuseConfig(IComputeMarket.Config memory c, bytes memory reason) private {
        vm.expectRevert(reason);
        deployComputeMarket(c, registry, operators, vault, rails, address(native), address(stable), address(auction));
    }

    function test_aPriceThatNoTokenCanPayIsRefused() public {
        IComputeMarket.Offer memory o = offer();
        o.stablePrice = type(uint128).max;
        vm.prank(owner);
        market.setOffer(1, o);
        IComputeMarket.Request memory r = request(start, 7_200);
        r.priceMax = type(uint128).max;
        uint256 price = 2 * uint256(type(uint128).max);
        vm.expectRevert(abi.encodeWithSelector(ComputeFees.PriceOutOfBounds.selector, price, 2, type(uint120).max));
        vm.prank(renter);
        market.reserve(r, devices(1), 1);
    }

    function test_anOfferIsItsOperatorsAlone() public {
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.NotOperator.selector, operatorId, attacker));
        vm.prank(attacker);
        market.setOffer(1, offer());
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.UnknownDevice.selector, 4));
        vm.prank(owner);
        market.setOffer(4, offer());
        // Another operator cannot take a device over.
        (address otherKey, uint256 otherSecret) = makeAddrAndKey("other");
        bytes memory consent = sign(otherSecret, operators.nodeKeyConsentDigest(attacker, otherKey));
        vm.startPrank(attacker);
        IComputeMarket.Offer memory o = offer();
        o.operatorId = operators.register(otherKey, attacker, bytes32(0), "", bytes32(0), consent);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.NotOperator.selector, operatorId, attacker));
        market.setOffer(1, o);
    }

    function testGas_market() public {
        rent(600);
        vm.startPrank(renter);
        uint64 leaseId = market.reserve(request(start + 600, SPEAK), devices(1), 1)[0];
        vm.snapshotGasLastCall("ComputeMarket", "reserve");
        market.reserve(request(start + 20_000, 600), devices(3), 3);
        vm.snapshotGasLastCall("ComputeMarket", "reserve a gang of 3");
        vm.stopPrank();
        vm.warp(start + 600 + SPEAK);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, ALL);
        vm.snapshotGasLastCall("ComputeMarket", "state");
        vm.warp(start + 600 + 2 * SPEAK);
        market.close(leaseId);
        vm.snapshotGasLastCall("ComputeMarket", "close");
    }
}
