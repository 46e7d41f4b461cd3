// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {ComputeEmission} from "../../src/compute/ComputeEmission.sol";
import {ComputeSchedule} from "../../src/compute/ComputeSchedule.sol";
import {IComputeEmission} from "../../src/compute/IComputeEmission.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";

/// @notice Stands where the module that shares the emission will be.
contract RewardsSink {}

contract ComputeEmissionTest is Test {
    uint256 private constant START = 1_700_000_000;
    uint256 private constant TOTAL = 300_000_000e18;
    uint64 private constant LAST_HOUR = 175_319;

    Registry private registry;
    ComputeEmission private emission;
    NetworkToken private token;
    address private sink;

    function setUp() public {
        vm.warp(START);
        registry = newRegistry();
        emission = newEmission(registry, launchOf(300_000_000e18, 200_000_000e18));
        token = NetworkToken(emission.token());
        sink = address(new RewardsSink());
        registry.set("computeRewards", sink, false);
    }

    function launchOf(uint256 first, uint256 second) private pure returns (NetworkToken.Allocation[] memory launch) {
        launch = new NetworkToken.Allocation[](2);
        launch[0] = NetworkToken.Allocation(address(0xA11CE), first);
        launch[1] = NetworkToken.Allocation(address(0xB0B), second);
    }

    function newEmission(Registry registry_, NetworkToken.Allocation[] memory launch) private returns (ComputeEmission) {
        return ComputeEmission(vm.deployCode("ComputeEmission.sol:ComputeEmission", abi.encode(registry_, "Test Compute", "TCO", launch)));
    }

    function newRegistry() private returns (Registry) {
        return Registry(vm.deployCode("Registry.sol:Registry", abi.encode(address(this))));
    }

    function toHour(uint256 hour) private {
        vm.warp(START + hour * 1 hours);
    }

    function test_theLaunchSupplyIsAllocatedAndTheEmissionIsTheOnlyMinter() public {
        assertEq(token.balanceOf(address(0xA11CE)), 300_000_000e18);
        assertEq(token.totalSupply(), 500_000_000e18);
        assertEq(token.cap(), 800_000_000e18);
        assertEq(emission.emissionMax(), TOTAL);
        assertEq(emission.CAP(), 800_000_000e18);
        vm.expectRevert(abi.encodeWithSelector(NetworkToken.NotMinter.selector, address(this), address(emission)));
        token.mint(address(this), 1);
    }

    function testFuzz_anotherLaunchSupplyIsRefused(uint256 first, uint256 second) public {
        first = bound(first, 0, 800_000_000e18);
        second = bound(second, 0, 800_000_000e18 - first);
        vm.assume(first + second != 500_000_000e18);
        // deployCode gives no reason of its own: the call is made by hand.
        bytes memory args = abi.encode(registry, "Test Compute", "TCO", launchOf(first, second));
        bytes memory code = abi.encodePacked(vm.getCode("ComputeEmission.sol"), args);
        bytes memory expected = abi.encodeWithSelector(IComputeEmission.LaunchSupplyDiffers.selector, first + second, 500_000_000e18);
        vm.expectRevert(expected);
        assembly ("memory-safe") {
            pop(create(0, add(code, 32), mload(code)))
        }
    }

    /// The same sums as src/compute/emission-schedule.test.ts compares with exact numbers hour by hour.
    function test_theSumsAreThoseOfTheScheduleInTypeScript() public view {
        string memory json = vm.readFile("contracts/test/compute/emission-vectors.json");
        uint256[] memory hours_ = vm.parseJsonUintArray(json, ".hours");
        uint256[] memory sums = vm.parseJsonUintArray(json, ".sums");
        assertGt(hours_.length, 200);
        for (uint256 i; i < hours_.length; ++i) {
            assertEq(ComputeSchedule.emittedBy(uint64(hours_[i])), sums[i], vm.toString(hours_[i]));
        }
    }

    function test_theFirstHoursAreThePublishedRows() public view {
        assertEq(emission.emissionOf(0), 0);
        assertEq(emission.emissionOf(1), 4_566_210045662100456621);
        assertEq(emission.emissionOf(1) / 1e16, 4_566_21);
        assertApproxEqAbs(emission.emissionOf(2), 4_566_150000000000000000, 5e15);
        assertApproxEqAbs(emission.emissionOf(3), 4_566_080000000000000000, 5e15);
        assertEq(ComputeSchedule.emittedBy(8_760) / 1e16, 37_662_980_66);
        assertEq(emission.emissionOf(LAST_HOUR), TOTAL - ComputeSchedule.emittedBy(LAST_HOUR - 1));
        assertEq(emission.emissionOf(LAST_HOUR + 1), 0);
    }

    /// The recursion of the source, E' = E (1 - d), holds from hour to hour within one base unit of each side.
    function testFuzz_eachHourBringsALittleLessThanTheOneBefore(uint64 hour) public view {
        hour = uint64(bound(hour, 1, LAST_HOUR - 2));
        uint256 now_ = emission.emissionOf(hour);
        uint256 next = emission.emissionOf(hour + 1);
        assertLt(next, now_);
        assertApproxEqAbs(next, now_ * (10 ** 19 - 138_869_523_959_793) / 10 ** 19, 2);
    }

    function testFuzz_oneStepOrMany(uint32[8] memory waits) public {
        uint256 minted;
        for (uint256 i; i < waits.length; ++i) {
            vm.warp(block.timestamp + bound(waits[i], 0, 4 * 365 days));
            uint256 due = emission.scheduled();
            minted += emission.mint();
            assertEq(emission.mint(), 0);
            assertEq(minted, due);
            assertEq(emission.emitted(), due);
            assertEq(token.balanceOf(sink), due);
            assertEq(token.totalSupply(), 500_000_000e18 + due);
            assertLe(token.mintedTotal(), 800_000_000e18);
        }
        assertEq(minted, ComputeSchedule.emittedBy(emission.hoursPassed()));
    }

    function test_nothingIsMintedBeforeAnHourIsOver() public {
        vm.warp(START + 1 hours - 1);
        assertEq(emission.mint(), 0);
        vm.warp(START + 1 hours);
        vm.expectEmit(address(emission));
        emit IComputeEmission.Minted(1, sink, 4_566_210045662100456621);
        emission.mint();
    }

    function test_afterTwentyYearsTheTotalIsExactAndNothingFollows() public {
        toHour(LAST_HOUR - 1);
        emission.mint();
        assertLt(emission.emitted(), TOTAL);
        toHour(LAST_HOUR);
        emission.mint();
        assertEq(emission.emitted(), TOTAL);
        toHour(10 * uint256(LAST_HOUR));
        assertEq(emission.mint(), 0);
        assertEq(token.totalSupply(), 800_000_000e18);
    }

    /// What is burnt cannot be minted again: 800 million is all that there will ever have been.
    function test_burningMakesNoRoomForMore() public {
        vm.prank(address(0xA11CE));
        token.burn(300_000_000e18);
        toHour(LAST_HOUR);
        emission.mint();
        assertEq(token.totalSupply(), 500_000_000e18);
        assertEq(token.mintedTotal(), 800_000_000e18);
    }

    function test_withoutARewardsModuleNothingIsMintedAndNothingIsLost() public {
        Registry bare = newRegistry();
        ComputeEmission other = newEmission(bare, launchOf(500_000_000e18, 0));
        toHour(100);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.UnknownModule.selector, bytes32("computeRewards")));
        other.mint();
        bare.set("computeRewards", sink, false);
        toHour(200);
        assertEq(other.mint(), ComputeSchedule.emittedBy(200));
    }

    function testGas_mint() public {
        toHour(1);
        emission.mint();
        toHour(2);
        emission.mint();
        vm.snapshotGasLastCall("ComputeEmission", "mint an hour");
        toHour(LAST_HOUR - 1);
        emission.mint();
        vm.snapshotGasLastCall("ComputeEmission", "mint twenty years");
    }
}
