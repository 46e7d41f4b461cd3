// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {FilecoinSchedule as Schedule} from "../../src/token/FilecoinSchedule.sol";

contract FilecoinScheduleTest is Test {
    uint256 private constant ONE = 1 << 128;
    uint64 private constant YEAR = 1_051_200;
    uint64 private constant LAST = 63_072_000;

    /// Filecoin's TestSimpleReward.golden (rows 0, 5000, 10000, 2555000), and the function at one and six years.
    function test_theSimpleRewardIsFilecoinsBitForBit() public pure {
        assertEq(Schedule.simpleReward(0), 36266264293777134739);
        assertEq(Schedule.simpleReward(5_000), 36246341860983438171);
        assertEq(Schedule.simpleReward(10_000), 36226430372336764970);
        assertEq(Schedule.simpleReward(1_051_200), 32309568371064807033);
        assertEq(Schedule.simpleReward(2_555_000), 27387841182142501307);
        assertEq(Schedule.simpleReward(6_307_200), 18133132146888567369);
        // From the same integers in another language, beyond the golden file.
        assertEq(Schedule.simpleReward(12_614_400), 9066566073444283684);
        assertEq(Schedule.simpleReward(20_000_000), 4026641524415841474);
        assertEq(Schedule.simpleReward(30_000_000), 1341723544068197157);
        assertEq(Schedule.simpleReward(44_150_399), 283330220932392639);
    }

    /// Rows of Filecoin's TestBaselineReward.golden: t0, t1, y, computed as the reference does.
    function test_theBaselineRewardIsFilecoinsBitForBit() public pure {
        uint256 step = 5_000 * ONE - 77777777777;
        uint256 delta = ONE - 33333333333;
        uint256[2][5] memory rows = [
            [uint256(0), 84621274052457285111],
            [uint256(1), 84574788381047331439],
            [uint256(2), 84528328245977625901],
            [uint256(100), 80096873356914618796],
            [uint256(511), 63904955735320338264]
        ];
        uint256 simple = (Schedule.SIMPLE_TOTAL * 37396273494747879394193016954629); // expneg(0) is one
        for (uint256 i; i < rows.length; ++i) {
            uint256 from = rows[i][0] * step;
            uint256 baseline = Schedule.baselineSupply(from + delta) - Schedule.baselineSupply(from);
            assertEq(((simple + baseline) >> 128) - (simple >> 128), rows[i][1]);
        }
    }

    function test_theCumulativeSimpleSupplyIsThePublishedOne() public pure {
        assertEq(Schedule.simpleSupply(YEAR) >> 128, 36_003_423_013688029435725352);
        assertApproxEqAbs(Schedule.simpleSupply(6 * YEAR) >> 128, 165_000_000e18, 1);
        assertApproxEqAbs(Schedule.simpleSupply(12 * YEAR) >> 128, 247_500_000e18, 1);
        assertApproxEqAbs(Schedule.simpleSupply(20 * YEAR) >> 128, 297_259_853e18, 1e18);
        assertApproxEqAbs(Schedule.simpleSupply(60 * YEAR) >> 128, 330_000_000e18 - uint256(330_000_000e18) / 1024, 1);
        assertEq(Schedule.simpleSupply(type(uint64).max) >> 128, 330_000_000e18);
    }

    function test_aFullNetworkGetsSevenThirdsOfTheSimplePartFromTheBaseline() public pure {
        uint256[] memory table = Schedule.growthTable();
        uint256 theta = Schedule.theta(table, Schedule.baselineSum(table, YEAR));
        assertEq(theta, uint256(YEAR) << 128);
        assertApproxEqAbs(Schedule.baselineSupply(theta) >> 128, (Schedule.simpleSupply(YEAR) >> 128) * 7 / 3, 2);
    }

    function test_theBaselineDoublesEveryYear() public pure {
        uint256[] memory table = Schedule.growthTable();
        assertEq(Schedule.baselineAt(table, 0), 2_888_888_880_000_000_000);
        for (uint64 year = 1; year <= 60; ++year) {
            assertApproxEqRel(Schedule.baselineAt(table, year * YEAR), uint256(2_888_888_880_000_000_000) << year, 1e3); // 1e-15
        }
        assertEq(Schedule.baselineAt(table, type(uint64).max), Schedule.baselineAt(table, LAST));
    }

    function testFuzz_simpleSupplyIsTheSumOfTheRewardsOfItsEpochs(uint64 epoch) public pure {
        epoch = uint64(bound(epoch, 1, 40_000_000));
        uint256 sum;
        for (uint64 i; i < 20; ++i) {
            sum += Schedule.simpleReward(epoch + i);
        }
        // each reward is rounded down; for exponents above 1.725 the polynomial itself is less exact
        uint256 supply = (Schedule.simpleSupply(epoch + 19) - Schedule.simpleSupply(epoch - 1)) >> 128;
        if (epoch < 15_000_000) assertApproxEqAbs(supply, sum, 21);
        else assertApproxEqRel(supply, sum, 1e9); // 1e-9
    }

    function testFuzz_suppliesNeverFallAndNeverPassTheirTotals(uint64 a, uint64 b) public pure {
        (a, b) = a < b ? (a, b) : (b, a);
        assertLe(Schedule.simpleSupply(a), Schedule.simpleSupply(b));
        assertLe(Schedule.simpleSupply(b) >> 128, Schedule.SIMPLE_TOTAL);
        (uint256 x, uint256 y) = (uint256(a % LAST) << 100, uint256(b % LAST) << 128);
        (x, y) = x < y ? (x, y) : (y, x);
        assertLe(Schedule.baselineSupply(x), Schedule.baselineSupply(y));
        assertLe(Schedule.baselineSupply(y) >> 128, Schedule.BASELINE_TOTAL);
    }

    function testFuzz_theRateNeverRises(uint64 a, uint64 b) public pure {
        (a, b) = a < b ? (a, b) : (b, a);
        assertGe(Schedule.simpleReward(a), Schedule.simpleReward(b));
    }

    /// At seven half-lives the exponent starts to be reduced: no step there.
    function testFuzz_theReductionOfTheExponentLeavesNoStep(uint64 offset) public pure {
        uint64 at = 7 * Schedule.HALF_LIFE_EPOCHS - 1_000 + uint64(bound(offset, 0, 2_000));
        assertLt(Schedule.simpleSupply(at), Schedule.simpleSupply(at + 1));
        assertLt(Schedule.baselineSupply(uint256(at) << 128), Schedule.baselineSupply(uint256(at + 1) << 128));
        assertApproxEqRel(Schedule.simpleReward(at), Schedule.simpleReward(at + 1), 1e12); // 1e-6
    }

    /// The closed form beside the reference's way, epoch by epoch.
    function testFuzz_realizedPowerIsTheSumOverEpochsOfTheSmallerOfPowerAndBaseline(uint64 from, uint64 length, uint256 power) public pure {
        uint256[] memory table = Schedule.growthTable();
        from = uint64(bound(from, 0, LAST - 100));
        uint64 to = from + uint64(bound(length, 0, 60));
        uint256 first = Schedule.baselineAt(table, from);
        power = power % 3 == 0 ? bound(power, 0, type(uint256).max) : bound(power, first, first + first / 10_000);
        uint256 sum;
        for (uint64 epoch = from + 1; epoch <= to; ++epoch) {
            uint256 baseline = Schedule.baselineAt(table, epoch);
            sum += baseline < power ? baseline : power;
        }
        assertApproxEqRel(Schedule.realizedSum(table, from, to, power), sum, 1e4); // 1e-14: rounding of sums since epoch 0
    }

    function testFuzz_realizedPowerIsTheSameInOneStepOrInTwo(uint64 a, uint64 b, uint64 c, uint256 power) public pure {
        uint256[] memory table = Schedule.growthTable();
        a = uint64(bound(a, 0, LAST));
        b = uint64(bound(b, a, LAST + 10));
        c = uint64(bound(c, b, type(uint64).max));
        assertEq(
            Schedule.realizedSum(table, a, c, power), Schedule.realizedSum(table, a, b, power) + Schedule.realizedSum(table, b, c, power)
        );
    }

    function testFuzz_effectiveTimeInvertsTheSumOfTheBaseline(uint64 epoch, uint256 part) public pure {
        uint256[] memory table = Schedule.growthTable();
        epoch = uint64(bound(epoch, 1, LAST));
        assertEq(Schedule.theta(table, Schedule.baselineSum(table, epoch)), uint256(epoch) << 128);
        uint256 below = Schedule.baselineSum(table, epoch - 1);
        uint256 realized = bound(part, below, Schedule.baselineSum(table, epoch));
        uint256 theta = Schedule.theta(table, realized);
        assertGe(theta, uint256(epoch - 1) << 128);
        assertLe(theta, uint256(epoch) << 128);
        assertLe(theta, Schedule.theta(table, realized + 1));
    }

    /// As compute_r_theta in the reference: a quarter of the 16th epoch's baseline gives 15.25 (here the sum starts after epoch 0).
    function test_effectiveTimeIsLinearWithinAnEpoch() public pure {
        uint256[] memory table = Schedule.growthTable();
        uint256 quarter = Schedule.baselineAt(table, 16) / 4;
        assertApproxEqRel(Schedule.theta(table, Schedule.baselineSum(table, 15) + quarter), (uint256(15) << 128) + (ONE / 4), 1e4);
    }

    function test_effectiveTimeEndsAfterSixtyYears() public pure {
        uint256[] memory table = Schedule.growthTable();
        assertEq(Schedule.theta(table, type(uint256).max), uint256(LAST) << 128);
        assertEq(Schedule.theta(table, 0), 0);
        assertEq(Schedule.realizedSum(table, LAST, LAST + 5, 1e30), 0);
        assertEq(Schedule.realizedSum(table, 5, 9, 0), 0);
    }
}
