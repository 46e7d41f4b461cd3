// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnetEmission} from "../../src/inference/ISubnetEmission.sol";
import {SubnetEmission} from "../../src/inference/SubnetEmission.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {BurntShares} from "../../src/inference/BurntShares.sol";
import {deployBurntShares, deploySubnetEmission} from "../deploy/inference.sol";
import {TokenFixture} from "../token/fixture.sol";

contract EmissionTest is TokenFixture {
    uint256 private constant CAP = 21_000_000e18;
    uint256 private constant ERA = 10_500_000;
    SubnetEmission private emission;

    function setUp() public override {
        super.setUp();
        emission = newEmission();
        registry.set("emissionShares", address(this), false);
        registry.set("subnets", address(this), false);
        registry.set("subnetEpochs", address(this), false);
    }

    function newEmission() private returns (SubnetEmission) {
        return deploySubnetEmission(registry, "Test Inference", "TIN");
    }

    function test_theRateHalvesByIssuance() public view {
        assertEq(emission.rateAt(0), 1e18);
        assertEq(emission.rateAt(10_499_999e18), 1e18);
        assertEq(emission.rateAt(10_500_000e18), 0.5e18);
        assertEq(emission.rateAt(15_749_999e18), 0.5e18);
        assertEq(emission.rateAt(15_750_000e18), 0.25e18);
        assertEq(emission.rateAt(18_374_999e18), 0.25e18);
        assertEq(emission.rateAt(18_375_000e18), 0.125e18);
        assertEq(emission.rateAt(CAP - 1), 0);
        assertEq(emission.rateAt(CAP), 0);
        assertEq(emission.rateAt(type(uint256).max), 0);
    }

    function test_eachEraTakesTheSameNumberOfBlocks() public view {
        assertEq(emission.issuedBy(0, ERA), 10_500_000e18);
        assertEq(emission.issuedBy(0, 2 * ERA), 15_750_000e18);
        assertEq(emission.issuedBy(0, 3 * ERA), 18_375_000e18);
        assertEq(emission.issuedBy(0, 7_200), 7_200e18); // a day
        uint256 all = emission.issuedBy(0, type(uint128).max);
        assertLe(all, CAP);
        assertEq(CAP - all, CAP >> 60); // then the rate is below one base unit
    }

    function testFuzz_theRateNeverRisesAndNeverPassesTheCap(uint256 one, uint256 more) public view {
        one = bound(one, 0, CAP);
        more = bound(more, 0, CAP - one);
        assertGe(emission.rateAt(one), emission.rateAt(one + more));
        assertLe(one + emission.rateAt(one), CAP);
    }

    function testFuzz_oneStepOrMany(uint256 start, uint64 blocks, uint256 cut) public view {
        start = bound(start, 0, CAP);
        cut = bound(cut, 0, blocks);
        uint256 first = emission.issuedBy(start, cut);
        assertEq(first + emission.issuedBy(start + first, blocks - cut), emission.issuedBy(start, blocks));
    }

    function testFuzz_issuingInStepsIsIssuingAtOnce(uint32[8] memory seconds_) public {
        SubnetEmission other = newEmission();
        emission.setShare(1, 1);
        other.setShare(1, 1);
        for (uint256 i; i < seconds_.length; ++i) {
            vm.warp(block.timestamp + seconds_[i]);
            emission.issue();
        }
        other.issue();
        assertEq(emission.issued(), other.issued());
        assertEq(emission.issued(), emission.issuedBy(0, (block.timestamp - emission.startTime()) / 12));
    }

    function test_blocksWithoutSubnetsIssueNothing() public {
        vm.warp(block.timestamp + 1200);
        assertEq(emission.issue(), 0);
        emission.setShare(1, 5);
        vm.warp(block.timestamp + 120);
        assertEq(emission.issue(), 10e18);
        emission.setShare(1, 0);
        vm.warp(block.timestamp + 1200);
        assertEq(emission.issue(), 0);
        assertEq(emission.issued(), 10e18);
        assertEq(emission.unassignedOf(1), 10e18);
    }

    function test_subnetsShareByTheirShares() public {
        emission.setShare(1, 1);
        emission.setShare(2, 3);
        vm.warp(block.timestamp + 48);
        emission.issue();
        assertEq(emission.unassignedOf(1), 1e18);
        assertEq(emission.unassignedOf(2), 3e18);
        emission.setShare(1, 3);
        vm.warp(block.timestamp + 24);
        emission.issue();
        assertApproxEqAbs(emission.unassignedOf(1), 2e18, 1);
        assertApproxEqAbs(emission.unassignedOf(2), 4e18, 1);
    }

    function test_anEpochGetsItsTimesPart() public {
        uint256 start = block.timestamp;
        emission.setShare(1, 1);
        vm.warp(start + 2400);
        uint256 amount = emission.assign(1, 0, start, start + 1200);
        assertEq(amount, 100e18);
        assertEq(emission.emissionOf(1, 0), 100e18);
        assertEq(emission.unassignedOf(1), 100e18);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.AlreadyAssigned.selector, 1, 0));
        emission.assign(1, 0, start, start + 1200);
        assertEq(emission.assign(1, 1, start + 1200, start + 2400), 100e18);
        assertEq(emission.unassignedOf(1), 0);
    }

    function test_mintsOnceAndToTheSettlingModuleAlone() public {
        NetworkToken minted = NetworkToken(emission.token());
        uint256 start = block.timestamp;
        emission.setShare(1, 1);
        vm.warp(start + 12);
        emission.assign(1, 0, start, block.timestamp);
        assertEq(emission.collect(1, 0), 1e18);
        assertEq(minted.balanceOf(address(this)), 1e18);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.NothingDue.selector, 1, 0));
        emission.collect(1, 0);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.NothingDue.selector, 1, 1));
        emission.collect(1, 1);
        vm.expectRevert(abi.encodeWithSelector(NetworkToken.NotMinter.selector, address(this), address(emission)));
        minted.mint(address(this), 1);
        assertEq(minted.cap(), emission.cap());
    }

    function testFuzz_nobodyElseMovesAnything(address stranger) public {
        vm.assume(stranger != address(this));
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.NotModule.selector, stranger, bytes32("emissionShares")));
        emission.setShare(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.NotModule.selector, stranger, bytes32("subnets")));
        emission.assign(1, 1, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.NotModule.selector, stranger, bytes32("subnetEpochs")));
        emission.collect(1, 1);
    }

    function testFuzz_aShareHasABound(uint256 share) public {
        share = bound(share, uint256(type(uint160).max) + 1, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(ISubnetEmission.ShareTooLarge.selector, share, type(uint160).max));
        emission.setShare(1, share);
    }

    /// Whatever shares change when: what subnets get is what was issued, to less than a unit for each change and subnet.
    function testFuzz_subnetsGetWhatIsIssued(uint160[6] memory sizes, uint16[6] memory waits) public {
        for (uint256 i; i < sizes.length; ++i) {
            emission.setShare(uint64(1 + i % 3), sizes[i]);
            vm.warp(block.timestamp + waits[i]);
        }
        emission.issue();
        uint256 got = emission.unassignedOf(1) + emission.unassignedOf(2) + emission.unassignedOf(3);
        assertLe(got, emission.issued());
        assertLe(emission.issued() - got, 16);
    }

    // ------------------------------------------------------------------------------------------------------- BurntShares

    function test_anOldBurnCountsHalfAfterAHalfLife() public {
        BurntShares shares = deployBurntShares(registry, emission, 90 days);
        registry.set("emissionShares", address(shares), false);
        shares.burntFor(1, 100e18);
        vm.warp(block.timestamp + 90 days);
        shares.burntFor(2, 50e18);
        assertEq(emission.shareOf(1), emission.shareOf(2));
        shares.dissolved(1);
        assertEq(emission.shareOf(1), 0);
        assertEq(emission.totalShares(), emission.shareOf(2));
    }

    /// Splitting one burn over many subnets, or many calls, buys not a unit more than one burn for one subnet.
    function testFuzz_splittingBuysNothing(uint96 amount, uint8 parts, uint32 time) public {
        BurntShares shares = deployBurntShares(registry, emission, 90 days);
        uint256 whole = shares.weightOf(amount, block.timestamp + time);
        uint256 count = uint256(parts) % 16 + 1;
        uint256 split = count * shares.weightOf(amount / count, block.timestamp + time);
        assertLe(split, whole);
    }

    function testFuzz_newBurnsNeverCountLess(uint96 amount, uint64 one, uint64 more) public {
        BurntShares shares = deployBurntShares(registry, emission, 90 days);
        uint256 time = block.timestamp + uint256(one);
        assertGe(shares.weightOf(amount, time + more), shares.weightOf(amount, time));
        assertLe(shares.weightOf(amount, time), uint256(amount) << 64); // 64 doublings, then no more
    }

    function test_sharesAreMovedBySubnetsAlone() public {
        BurntShares shares = deployBurntShares(registry, emission, 90 days);
        address stranger = makeAddr("stranger");
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(BurntShares.NotSubnets.selector, stranger));
        shares.burntFor(1, 1);
        vm.expectRevert(abi.encodeWithSelector(BurntShares.NotSubnets.selector, stranger));
        shares.dissolved(1);
        vm.expectRevert(abi.encodeWithSelector(BurntShares.BadHalfLife.selector, 0));
        deployBurntShares(registry, emission, 0);
    }
}
