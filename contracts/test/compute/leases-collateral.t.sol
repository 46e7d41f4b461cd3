// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {DeviceCalendar} from "../../src/compute/DeviceCalendar.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {MarketFixture} from "./leases-fixture.sol";

/// @notice What stands behind a lease, and what it costs the supplier to break its word. The test itself speaks for the probers.
contract LeaseCollateralTest is MarketFixture {
    IComputeMarket.Side private constant NODE = IComputeMarket.Side.Node;
    IComputeMarket.Side private constant RENTER = IComputeMarket.Side.Renter;
    IComputeMarket.Side private constant PROBERS = IComputeMarket.Side.Probers;
    uint256 private constant ALL = type(uint256).max;

    function setUp() public override {
        super.setUp();
        registry.set("leaseProbers", address(this), false);
    }

    function locked() private view returns (uint256) {
        return vault.lockedOfModule(operatorId, address(market));
    }

    function rentInterruptible(uint64 length) private returns (uint64) {
        IComputeMarket.Request memory r = request(start, length);
        r.interruptible = true;
        vm.prank(renter);
        return market.reserve(r, devices(1), 1)[0];
    }

    function endAs(address who, uint64 leaseId) private returns (uint64) {
        vm.prank(who);
        return market.end(leaseId);
    }

    function closeLate(uint64 leaseId) private {
        vm.warp(uint256(market.lease(leaseId).until) + SPEAK);
        market.close(leaseId);
    }

    function test_collateralIsLockedForTheLeaseAndFreeAfterIt() public {
        uint64 leaseId = rent(600);
        assertEq(locked(), COLLATERAL);
        vm.warp(start + 600);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, ALL);
        vm.warp(start + 600 + SPEAK);
        vm.expectEmit(address(market));
        emit IComputeMarket.CollateralFreed(leaseId, operatorId, 0, 0, 0);
        market.close(leaseId);
        assertEq(locked(), 0);
        assertEq(vault.claimableOf(renter), 0);
    }

    function test_aCandidateWithoutStakeIsPassedOver() public {
        (address key, uint256 secret) = makeAddrAndKey("poor");
        IComputeMarket.Offer memory o = offer();
        o.operatorId = newOperator(makeAddr("poor owner"), key, secret, key);
        vm.prank(key);
        uint64 poor = market.setOffer(0, o);
        depositStake(o.operatorId, COLLATERAL - 1);
        DeviceCalendar.Candidate[] memory candidates = new DeviceCalendar.Candidate[](2);
        (candidates[0].deviceId, candidates[1].deviceId) = (poor, 2);
        vm.prank(renter);
        uint64 leaseId = market.reserve(request(start, 600), candidates, 1)[0];
        assertEq(market.lease(leaseId).deviceId, 2);
        // Honest twin: with the stake it is taken.
        depositStake(o.operatorId, 1);
        vm.prank(renter);
        assertEq(market.lease(market.reserve(request(start, 600), candidates, 1)[0]).deviceId, poor);
    }

    function test_aShortLeaseLocksItsShareOfTheCollateral() public {
        uint64 leaseId = rent(61); // of 600 seconds, for which all of it is locked
        uint256 share = (COLLATERAL * uint256(61) + 599) / 600;
        assertEq(locked(), share);
        assertEq(market.lease(leaseId).collateral, share);
        vm.warp(start + 61);
        say(leaseId, RENTER, 0, ALL, 0); // the node is silent: all of it is found down
        vm.expectEmit(address(market));
        emit IComputeMarket.CollateralFreed(leaseId, operatorId, 61, share, share / 2);
        closeLate(leaseId);
        assertEq(locked(), 0);
    }

    function test_aRenterWantsSoMuchCollateralAtLeast() public {
        IComputeMarket.Request memory r = request(start, 600);
        r.collateralMin = COLLATERAL + 1;
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 0, 1));
        vm.prank(renter);
        market.reserve(r, devices(3), 1);
    }

    function test_aSupplierThatEndsEarlyLosesCollateralForTheTimeItTakesAway() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 30);
        vm.expectEmit(address(market));
        emit IComputeMarket.LeaseEnded(leaseId, nodeKey, start + 180, 420); // with the interval in which the notice is over
        assertEq(endAs(nodeKey, leaseId), start + 180);
        // It serves to the end that it announced, and is paid for it.
        vm.warp(start + 180);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, ALL);
        uint256 supply = native.totalSupply();
        closeLate(leaseId);
        assertEq(balance(beneficiary), 179.55e6);
        assertEq(vault.claimableOf(renter), 3.5e18); // 70 % of ten, half of it
        assertEq(supply - native.totalSupply(), 3.5e18); // the other half is burnt
        assertEq(locked(), 0);
        (uint256 active,) = vault.ownStake(operatorId);
        assertEq(active, STAKE - 7e18);
        vm.prank(renter);
        vault.claim(renter);
    }

    /// The honest twin of the one above.
    function test_aRenterThatEndsEarlyCostsTheSupplierNothing() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 30);
        assertEq(endAs(renter, leaseId), start + 60);
        closeLate(leaseId);
        assertEq(vault.claimableOf(renter), 0);
        (uint256 active,) = vault.ownStake(operatorId);
        assertEq(active, STAKE);
    }

    function test_aSupplierThatEndsBeforeTheBeginningLosesAll() public {
        vm.prank(renter);
        uint64 leaseId = market.reserve(request(start + 100, 600), devices(1), 1)[0];
        vm.warp(start + 100 - NOTICE_SECONDS);
        assertEq(endAs(owner, leaseId), start + 100);
        market.close(leaseId);
        assertEq(vault.claimableOf(renter), COLLATERAL / 2);
        assertEq(balance(renter), FUNDS - 3e6); // all but the reservation fees
    }

    function test_aRenterThatLeavesDuringTheNoticeChangesNothingOfTheLoss() public {
        uint64 leaseId = rent(600);
        vm.warp(start);
        endAs(nodeKey, leaseId);
        vm.warp(start + 10);
        assertEq(endAs(renter, leaseId), start + 60);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.LeaseIsOver.selector, leaseId, start + 60));
        endAs(nodeKey, leaseId);
        closeLate(leaseId);
        assertEq(vault.claimableOf(renter), 4e18); // 480 of 600 seconds
    }

    function test_anInterruptibleLeaseIsCheaperAndEndsWithNoticeWithoutLoss() public {
        uint64 leaseId = rentInterruptible(600);
        assertEq(rails.rail(market.lease(leaseId).railId).escrow, 299.25e6); // half
        vm.warp(start + 30);
        assertEq(endAs(nodeKey, leaseId), start + 180);
        closeLate(leaseId);
        assertEq(vault.claimableOf(renter), 0);
        (uint256 active,) = vault.ownStake(operatorId);
        assertEq(active, STAKE);
    }

    function test_interruptibleIsOnlyWhatIsOfferedSo() public {
        IComputeMarket.Offer memory o = offer();
        o.interruptibleBps = 0;
        for (uint64 i = 1; i <= 3; ++i) {
            vm.prank(owner);
            market.setOffer(i, o);
        }
        IComputeMarket.Request memory r = request(start, 600);
        r.interruptible = true;
        vm.expectRevert(abi.encodeWithSelector(DeviceCalendar.GangIncomplete.selector, 0, 1));
        vm.prank(renter);
        market.reserve(r, devices(3), 1);
    }

    function test_timeFoundDownCostsNothingUpToTheAllowedShare() public {
        uint64 leaseId = rent(1_200);
        vm.warp(start + 1_200);
        say(leaseId, RENTER, 0, ALL, ALL - 1); // one of twenty: 5 %
        closeLate(leaseId);
        assertEq(vault.claimableOf(renter), 0);
    }

    function test_moreTimeFoundDownCostsCollateralForAllOfIt() public {
        uint64 leaseId = rent(1_200);
        vm.warp(start + 1_200);
        say(leaseId, RENTER, 0, ALL, ALL - 3); // two of twenty; the node is silent
        (uint256 up, uint256 down) = market.recordOf(leaseId);
        assertEq(up, 0);
        assertEq(down, 120);
        closeLate(leaseId);
        assertEq(vault.claimableOf(renter), 0.5e18); // half of a tenth of ten
    }

    function test_whatTheNodeContradictsIsNotFoundDownByTheRenterAlone() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 600);
        say(leaseId, NODE, 0, ALL, ALL);
        say(leaseId, RENTER, 0, ALL, 0);
        closeLate(leaseId);
        assertEq(balance(beneficiary), 0);
        assertEq(vault.claimableOf(renter), 0);
        // Both records stand.
        assertEq(market.statementOf(leaseId, NODE, 0).up, 1023);
        assertEq(market.statementOf(leaseId, RENTER, 0).spoken, 1023);
        assertEq(market.statementOf(leaseId, RENTER, 0).up, 0);
    }

    function test_onlyTheProbersSpeakAsProbers() public {
        uint64 leaseId = rent(600);
        vm.warp(start + 600);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.NotProbers.selector, attacker, address(this)));
        vm.prank(attacker);
        market.stateOfProbers(leaseId, 0, ALL, ALL);
        bytes memory signature = signed(leaseId, PROBERS, 0, ALL, ALL);
        vm.expectRevert(abi.encodeWithSelector(IComputeMarket.NotProbers.selector, address(this), address(0)));
        market.state(leaseId, PROBERS, 0, ALL, ALL, signature);
    }

    /// Whatever three sides say and whoever ends it: paid is what node and renter's side found up, lost is what the rule says, beside a model
    /// that looks at each interval by itself.
    function testFuzz_whatIsPaidAndWhatIsLost(uint256[6] memory said, uint16 length, uint8 ender, uint16 endsAfter, bool interruptible)
        public
    {
        length = uint16(bound(length, METER, 150 * uint256(METER))); // all of it may still be spoken of at its end
        uint64 leaseId = interruptible ? rentInterruptible(length) : rent(length);
        uint256 net = rails.rail(market.lease(leaseId).railId).amount;
        vm.warp(start + bound(endsAfter, 0, length - 1));
        if (ender % 3 != 0) {
            vm.prank(ender % 3 == 1 ? renter : nodeKey);
            try market.end(leaseId) {} catch {}
        }
        uint256 time = market.lease(leaseId).until - start;
        vm.warp(start + time);
        speakAll(leaseId, said, time);
        closeLate(leaseId);
        (uint256 up, uint256 down) = recordOf(said, time);
        assertEq(balance(beneficiary), net * up / length);
        uint256 lost = ender % 3 == 2 && !interruptible ? length - time : 0;
        if (down * 10_000 > 500 * uint256(length)) lost += down;
        (uint256 active,) = vault.ownStake(operatorId);
        assertEq(STAKE - active, lossOf(length, lost));
        assertEq(vault.claimableOf(renter), (STAKE - active) / 2);
        assertEq(locked(), 0);
    }

    /// The share of what a lease has at risk; both rounded up.
    function lossOf(uint256 length, uint256 lost) private pure returns (uint256) {
        uint256 atRisk = COLLATERAL;
        if (length < COLLATERAL_SECONDS) atRisk = (COLLATERAL * length + COLLATERAL_SECONDS - 1) / COLLATERAL_SECONDS;
        return (atRisk * lost + length - 1) / length;
    }

    /// Node, renter and probers, of one word, in any order; a lease that is over is spoken of within SPEAK.
    function speakAll(uint64 leaseId, uint256[6] memory said, uint256 time) private {
        if (time == 0) return;
        uint256 passed = (1 << ((time + METER - 1) / METER)) - 1;
        if (said[0] & passed != 0) say(leaseId, NODE, 0, said[0], said[1]);
        if (said[4] & passed != 0) market.stateOfProbers(leaseId, 0, said[4], said[5]);
        if (said[2] & passed != 0) say(leaseId, RENTER, 0, said[2], said[3]);
    }

    function recordOf(uint256[6] memory said, uint256 time) private pure returns (uint256 up, uint256 down) {
        for (uint256 i; i * METER < time; ++i) {
            uint256 length = time - i * METER < METER ? time - i * METER : METER;
            // 0: silent, 1: down, 2: up
            uint256 node = wordOf(said[0], said[1], i);
            uint256 renter_ = wordOf(said[2], said[3], i);
            uint256 panel = wordOf(said[4], said[5], i);
            if (node == 2 && (renter_ == 2 || (renter_ == 0 && panel == 2))) up += length;
            if (panel == 1 && renter_ != 2) down += length;
            else if (renter_ == 1 && node != 2 && panel == 0) down += length;
        }
    }

    function wordOf(uint256 spoken, uint256 up, uint256 i) private pure returns (uint256) {
        return spoken >> i & 1 == 0 ? 0 : 1 + (up >> i & 1);
    }
}
