// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {StakePot, StakePots} from "../../src/token/StakePots.sol";

contract StakePotsTest is Test {
    using StakePots for StakePot;

    struct Holding {
        uint256 shares;
        uint256 exiting;
        uint32 generation;
    }

    StakePot private pot;
    Holding[3] private holdings;

    function testFuzz_LawsHoldAfterAnySequence(uint256 seed, uint8 steps) public {
        for (uint256 i; i < steps; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint256 activeBefore = pot.activeAssets();
            uint256 slashed = step(seed);
            uint256 active = pot.activeAssets();
            if (slashed != type(uint256).max) assertGe(active + slashed, activeBefore, "active fell by more than the slash");
            assertLe(pot.assets, pot.totalShares(), "a share is worth more than one unit");
            assertLe(pot.totalShares(), pot.assets * StakePots.SHARES_PER_ASSET_MAX, "shares inflate without bound");
            assertSharesCovered();
        }
    }

    /// @return slashed what was taken; the highest number when the step was an exit, which may lower active stake
    function step(uint256 seed) private returns (uint256 slashed) {
        Holding storage holding = holdings[seed % 3];
        uint256 amount = seed >> 160;
        uint256 kind = (seed >> 8) % 5;
        (holding.shares, holding.exiting) =
        (pot.carryOver(holding.shares, holding.generation), pot.carryOver(holding.exiting, holding.generation));
        holding.generation = pot.generation;
        if (kind == 0) {
            uint96 assets = uint96(bound(amount, 1, 10 ** bound(seed >> 16, 0, 26)));
            uint256 shares = pot.add(assets);
            holding.shares += shares;
            assertGe(shares, assets, "fewer shares than units");
            assertGe(pot.toAssetsDown(shares) + 1, assets, "a deposit loses more than one unit");
        } else if (kind == 1) {
            uint256 shares = bound(amount, 0, holding.shares);
            pot.startExit(shares);
            (holding.shares, holding.exiting) = (holding.shares - shares, holding.exiting + shares);
            return type(uint256).max;
        } else if (kind == 2) {
            uint256 shares = bound(amount, 0, holding.exiting);
            uint256 worth = pot.toAssetsDown(shares);
            assertEq(pot.finishExit(shares), worth);
            holding.exiting -= shares;
        } else {
            // Deep cuts are frequent, so that generations end.
            uint256 keep = (seed >> 24) % 3 == 0 ? pot.assets / 10 ** ((seed >> 32) % 14) : bound(amount, 0, pot.assets);
            slashed = pot.assets - keep;
            slashAndCompare(slashed);
        }
    }

    function slashAndCompare(uint256 slashed) private {
        uint256 assets = pot.assets;
        uint256[3] memory before;
        for (uint256 i; i < 3; ++i) {
            before[i] = valueOf(i);
        }
        uint32 generation = pot.generation;
        assertEq(pot.slash(slashed), pot.generation != generation, "says when a generation ends");
        for (uint256 i; i < 3; ++i) {
            if (assets == 0) continue;
            uint256 expected = before[i] * (assets - slashed) / assets;
            assertApproxEqAbs(valueOf(i), expected, 2, "every holder loses the same ratio");
        }
    }

    function valueOf(uint256 index) private view returns (uint256) {
        Holding storage holding = holdings[index];
        return pot.toAssetsDown(pot.carryOver(holding.shares, holding.generation) + pot.carryOver(holding.exiting, holding.generation));
    }

    function assertSharesCovered() private view {
        (uint256 shares, uint256 exiting) = (0, 0);
        for (uint256 i; i < 3; ++i) {
            shares += pot.carryOver(holdings[i].shares, holdings[i].generation);
            exiting += pot.carryOver(holdings[i].exiting, holdings[i].generation);
        }
        assertLe(shares, pot.activeShares, "more active shares are held than there are");
        assertLe(exiting, pot.exitingShares, "more exiting shares are held than there are");
    }

    function testFuzz_AnExitOfAnAmountPaysThatAmount(uint96 assets, uint96 slashed, uint96 wanted) public {
        assets = uint96(bound(assets, 1, 2e27));
        pot.add(assets);
        pot.slash(bound(slashed, 0, assets - 1));
        wanted = uint96(bound(wanted, 1, pot.activeAssets()));
        uint256 shares = pot.toSharesUp(wanted);
        assertLe(shares, pot.activeShares);
        pot.startExit(shares);
        assertEq(pot.finishExit(shares), wanted);
    }

    function test_APotSlashedToZeroEndsAndOldSharesAreWorthNothing() public {
        pot.add(100);
        pot.startExit(40);
        assertTrue(pot.slash(100));
        assertEq(pot.generation, 1);
        assertEq(pot.totalShares(), 0);
        assertEq(pot.carryOver(60, 0), 0);
        assertEq(pot.add(7), 7, "the new generation starts at one to one");
        assertEq(pot.carryOver(7, 1), 7);
    }

    function test_AnEmptyPotIsSlashedByNothingWithoutEnding() public {
        assertFalse(pot.slash(0));
        assertEq(pot.generation, 0);
        assertEq(pot.toSharesUp(5), 5);
        assertEq(pot.toAssetsDown(5), 0);
    }

    function test_AGenerationWithTinySharesIsRescaledAndNobodyLosesByIt() public {
        pot.add(4e27);
        pot.startExit(1e27);
        assertTrue(pot.slash(4e27 - 4e9), "1e-18 of its shares");
        assertEq(pot.assets, 4e9, "nothing but the slash is taken");
        assertEq(pot.generation, 1);
        assertEq(pot.activeAssets(), 3e9);
        assertEq(pot.toAssetsDown(pot.carryOver(3e27, 0)), 3e9);
        assertEq(pot.finishExit(pot.carryOver(1e27, 0)), 1e9);
    }
}
