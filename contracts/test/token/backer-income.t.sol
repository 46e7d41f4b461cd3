// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {BackerHooks} from "../../src/token/BackerHooks.sol";
import {BackerIncome} from "../../src/token/BackerIncome.sol";
import {IBackerIncome, IIncomeSource} from "../../src/token/IBackerIncome.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {deployBackerIncome, deployNetworkToken} from "../deploy/token.sol";
import {TokenFixture} from "./fixture.sol";

/// @notice Income waits here until it is released.
contract SourceDouble is IIncomeSource {
    BackerIncome private immutable income;
    NetworkToken private immutable paid;
    uint256 public waiting;

    constructor(BackerIncome income_, NetworkToken paid_) {
        (income, paid) = (income_, paid_);
        paid_.approve(address(income_), type(uint256).max);
    }

    function put(uint256 amount) external {
        waiting += amount;
    }

    function release(uint64 operatorId) external returns (uint256 amount) {
        amount = waiting;
        waiting = 0;
        if (amount != 0) income.distribute(operatorId, address(paid), amount);
    }
}

/// @notice Fails, and burns all the gas that it gets.
contract BrokenListener {
    fallback() external {
        while (true) {}
    }
}

contract BackerIncomeTest is TokenFixture {
    BackerIncome private income;
    NetworkToken private paid;
    SourceDouble private source;
    SourceDouble private otherSource;
    address private owner = makeAddr("owner");
    address private beneficiary = makeAddr("beneficiary");
    address private backer = makeAddr("backer");
    address private other = makeAddr("other");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        paid = deployNetworkToken("Income", "INC", 2_000_000_000e18);
        address[] memory list = new address[](1);
        list[0] = address(paid);
        income = deployBackerIncome(1_800, 7 days, registry, vault, operators, list);
        registry.set("backerIncome", address(income), false);
        source = new SourceDouble(income, paid);
        registry.set("subnetEpochs", address(source), false);
        otherSource = new SourceDouble(income, paid);
        registry.set("computeRewards", address(otherSource), false);
        operatorId = registerOperator(owner, beneficiary);
        depositStake(operatorId, owner, 100e18);
    }

    function pay(uint256 amount) private {
        paid.mint(address(this), amount);
        paid.approve(address(income), amount);
        income.distribute(operatorId, address(paid), amount);
    }

    function claimable(address who) private view returns (uint256) {
        return income.claimableOf(operatorId, address(paid), who);
    }

    function test_theOperatorKeepsItsTakeAndStakeSharesTheRest() public {
        backStake(operatorId, backer, 300e18);
        pay(100e18);
        assertApproxEqAbs(claimable(backer), 61.5e18, 1); // three quarters of 82
        assertEq(income.operatorClaimable(operatorId, address(paid)), 38.5e18);
        vm.prank(backer);
        income.claim(operatorId, address(paid), other);
        assertApproxEqAbs(paid.balanceOf(other), 61.5e18, 1);
        income.claimOperator(operatorId, address(paid));
        assertEq(paid.balanceOf(beneficiary), 38.5e18);
        bytes memory nothing = abi.encodeWithSelector(IBackerIncome.NothingToClaim.selector, operatorId, paid, backer);
        vm.prank(backer);
        vm.expectRevert(nothing);
        income.claim(operatorId, address(paid), other);
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.NothingToClaim.selector, operatorId, paid, beneficiary));
        income.claimOperator(operatorId, address(paid));
    }

    function test_withoutBackersAllIsTheOperators() public {
        pay(10e18);
        assertEq(income.operatorClaimable(operatorId, address(paid)), 10e18);
    }

    function test_whoLeavesKeepsWhatItEarnedAndEarnsNoMore() public {
        uint256 held = backStake(operatorId, backer, 100e18);
        backStake(operatorId, other, 100e18);
        pay(300e18);
        uint256 earned = claimable(backer);
        vm.prank(backer);
        vault.requestBackerExit(operatorId, held);
        pay(300e18);
        assertEq(claimable(backer), earned);
        assertGt(claimable(other), earned);
    }

    /// What waits when somebody backs is distributed first, so that nobody buys a part of what others' stake has earned.
    function test_attack_backingJustBeforeAPayout() public {
        backStake(operatorId, other, 100e18);
        paid.mint(address(source), 100e18);
        source.put(100e18);
        paid.mint(address(otherSource), 100e18);
        otherSource.put(100e18);
        backStake(operatorId, backer, 1_000_000e18);
        assertEq(source.waiting() + otherSource.waiting(), 0);
        assertEq(claimable(backer), 0);
        assertApproxEqAbs(claimable(other), 82e18, 2); // half of 82 of each: as its honest twin without the attack
    }

    function test_attack_ownStakeJustBeforeAPayout() public {
        backStake(operatorId, backer, 100e18);
        paid.mint(address(source), 100e18);
        source.put(100e18);
        // Half of what is left of the take is the backer's, also when the owner puts in ninefold stake a moment before it is shared out.
        depositStake(operatorId, owner, 800e18);
        assertEq(source.waiting(), 0);
        assertApproxEqAbs(claimable(backer), 41e18, 2);
        pay(100e18);
        assertApproxEqAbs(claimable(backer), 49.2e18, 4);
    }

    function test_aSlashMovesNoIncome() public {
        backStake(operatorId, backer, 300e18);
        pay(100e18);
        uint256 earned = claimable(backer);
        lockStake(operatorId, 200e18);
        slashStake(operatorId, 200e18);
        assertEq(claimable(backer), earned);
        pay(100e18);
        assertGt(claimable(backer), earned);
    }

    /// Slashed to nothing the pool begins anew: the old backers keep what they earned and have no part in what comes.
    function test_aDepletedPoolBeginsAnewMoreThanOnce() public {
        parameters.set("vault.backerLossCapBps", 10_000);
        backStake(operatorId, backer, 100e18);
        pay(100e18);
        uint256 first = claimable(backer);
        for (uint256 i; i < 2; ++i) {
            uint256 all = vault.slashableOf(operatorId);
            depositStake(operatorId, owner, all); // own stake enough for the lock
            lockStake(operatorId, vault.slashableOf(operatorId));
            slashStake(operatorId, vault.slashableOf(operatorId));
            assertEq(vault.pool(operatorId).activeAssets, 0);
            depositStake(operatorId, owner, 100e18);
            backStake(operatorId, other, 100e18);
            pay(100e18);
        }
        assertEq(claimable(backer), first);
        assertApproxEqAbs(claimable(other), 82e18, 2); // half of 82, twice
        vm.prank(other);
        income.claim(operatorId, address(paid), other);
        vm.prank(backer);
        income.claim(operatorId, address(paid), backer);
        assertLe(income.backersPurse(operatorId, address(paid)), 3); // dust
    }

    function test_takeChangesAfterADelayAndHasABound() public {
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.NotOperatorOwner.selector, operatorId, address(this)));
        income.proposeTake(operatorId, 0);
        vm.startPrank(owner);
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.TakeTooHigh.selector, 5_001, 5_000));
        income.proposeTake(operatorId, 5_001);
        income.proposeTake(operatorId, 5_000);
        assertEq(income.takeBpsOf(operatorId), 1_800);
        vm.warp(block.timestamp + 7 days - 1);
        assertEq(income.takeBpsOf(operatorId), 1_800);
        vm.warp(block.timestamp + 1);
        assertEq(income.takeBpsOf(operatorId), 5_000);
        income.proposeTake(operatorId, 0);
        assertEq(income.takeBpsOf(operatorId), 5_000);
        (uint16 next, uint64 from) = income.nextTakeOf(operatorId);
        assertEq(next, 0);
        assertEq(from, block.timestamp + 7 days);
    }

    function test_tokensAreAddedByTheTimelockAndAreFew() public {
        vm.prank(owner);
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.NotTimelock.selector, owner));
        income.addToken(address(token));
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.UnknownToken.selector, address(token)));
        income.distribute(operatorId, address(token), 1);
        income.addToken(address(token));
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.DuplicateToken.selector, address(token)));
        income.addToken(address(token));
        income.addToken(makeAddr("third"));
        income.addToken(makeAddr("fourth"));
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.TooManyTokens.selector, 4));
        income.addToken(makeAddr("fifth"));
        assertEq(income.tokens().length, 4);
    }

    function testFuzz_distributionsAreChecked(uint256 amount, uint64 id) public {
        vm.assume(id != operatorId);
        vm.expectRevert();
        income.distribute(id, address(paid), 1);
        vm.expectRevert(IBackerIncome.ZeroAmount.selector);
        income.distribute(operatorId, address(paid), 0);
        amount = bound(amount, uint256(type(uint96).max) + 1, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.AmountTooLarge.selector, amount, type(uint96).max));
        income.distribute(operatorId, address(paid), amount);
    }

    function testFuzz_onlyTheVaultTellsOfShares(address stranger, uint256 shares, uint32 generation) public {
        vm.assume(stranger != address(vault));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IBackerIncome.NotVault.selector, stranger));
        income.beforeSharesChange(operatorId, stranger, shares, generation);
    }

    /// A listener that fails, however it fails, stops neither backing nor leaving.
    function test_aBrokenListenerStopsNoExit() public {
        uint256 held = backStake(operatorId, backer, 100e18);
        registry.set("backerIncome", address(new BrokenListener()), false);
        vm.prank(backer);
        vault.requestBackerExit(operatorId, held / 2);
        backStake(operatorId, other, 1e18);
        assertEq(vault.sharesOf(operatorId, backer), held - held / 2);
    }

    /// Too little gas is refused: nobody can make the listener miss a change on purpose.
    function testFuzz_attack_gasCannotSilenceTheListener(uint256 gas_) public {
        uint256 held = backStake(operatorId, backer, 100e18);
        backStake(operatorId, other, 100e18);
        pay(100e18);
        uint256 earned = claimable(backer);
        gas_ = bound(gas_, 30_000, 1_500_000);
        vm.prank(backer);
        (bool left,) = address(vault).call{gas: gas_}(abi.encodeCall(vault.requestBackerExit, (operatorId, held)));
        assertEq(claimable(backer), earned);
        pay(100e18);
        if (left) assertEq(claimable(backer), earned);
        else assertGt(claimable(backer), earned);
    }

    /// The worst that the hook can cost: every token new to the backer, and income that waits. It fits what the vault gives it.
    function test_theHookFitsItsGas() public {
        NetworkToken[] memory more = new NetworkToken[](3);
        backStake(operatorId, other, 100e18);
        for (uint256 i; i < 3; ++i) {
            more[i] = deployNetworkToken("More", "MORE", 1e30);
            income.addToken(address(more[i]));
            more[i].mint(address(this), 2e18);
            more[i].approve(address(income), 2e18);
            income.distribute(operatorId, address(more[i]), 1e18);
        }
        pay(1e18);
        paid.mint(address(source), 1e18);
        source.put(1e18);
        paid.mint(address(otherSource), 1e18);
        otherSource.put(1e18);
        vm.prank(address(vault));
        uint256 before = gasleft();
        income.beforeSharesChange(operatorId, backer, 0, 0);
        assertLt(before - gasleft(), 700_000);
        for (uint256 i; i < 3; ++i) {
            income.distribute(operatorId, address(more[i]), 1e18);
        }
        (uint256 shares, uint32 generation,) = vault.positionOf(operatorId, other);
        vm.prank(address(vault));
        before = gasleft();
        income.beforeSharesChange(operatorId, other, shares, generation);
        assertLt(before - gasleft(), 700_000);
    }

    function testGas_income() public {
        backStake(operatorId, other, 100e18);
        pay(100e18);
        token.mint(backer, 100e18);
        vm.startPrank(backer);
        token.approve(address(vault), 100e18);
        vm.warp(block.timestamp + 60);
        uint256 held = vault.back(operatorId, 100e18);
        vm.snapshotGasLastCall("BackerIncome", "StakeVault.back through the hook, first time");
        vm.stopPrank();
        vm.warp(block.timestamp + 60);
        paid.mint(address(this), 100e18);
        paid.approve(address(income), 100e18);
        income.distribute(operatorId, address(paid), 100e18);
        vm.snapshotGasLastCall("BackerIncome", "distribute");
        vm.prank(backer);
        vault.requestBackerExit(operatorId, held);
        vm.snapshotGasLastCall("BackerIncome", "StakeVault.requestBackerExit through the hook");
        vm.prank(backer);
        income.claim(operatorId, address(paid), backer);
        vm.snapshotGasLastCall("BackerIncome", "claim");
    }

    /// Any stakes, any income: nobody gets more than its part, and no more than a unit for each holder is lost to rounding.
    function testFuzz_partsAreFair(uint96 own, uint96 one, uint96 two, uint96 amount) public {
        (one, two) = (uint96(bound(one, 1, 1e27)), uint96(bound(two, 1, 1e27)));
        amount = uint96(bound(amount, 1, 1e27));
        if (own != 0) depositStake(operatorId, owner, bound(own, 1, 1e27));
        backStake(operatorId, backer, one);
        backStake(operatorId, other, two);
        pay(amount);
        uint256 all = ownActive(operatorId) + uint256(one) + two;
        uint256 shared = amount - uint256(amount) * 1_800 / 10_000;
        assertLe(claimable(backer), shared * one / all + 1);
        assertGe(claimable(backer) + 2, shared * one / all);
        uint256 sum = claimable(backer) + claimable(other) + income.operatorClaimable(operatorId, address(paid));
        assertLe(sum, amount);
        assertLe(amount - sum, 2);
    }

    function test_tooLittleGasHasItsError() public {
        token.mint(backer, 1e18);
        vm.startPrank(backer);
        token.approve(address(vault), 1e18);
        (bool done, bytes memory reason) = address(vault).call{gas: 300_000}(abi.encodeCall(vault.back, (operatorId, 1e18)));
        assertFalse(done);
        assertEq(bytes4(reason), BackerHooks.TooLittleGas.selector);
    }

    function test_stakeOfThePastIsKnown() public {
        uint256 start = block.timestamp;
        vm.warp(start + 10);
        backStake(operatorId, backer, 50e18);
        vm.warp(start + 20);
        assertEq(vault.stakeAt(operatorId, start - 1), 0);
        assertEq(vault.stakeAt(operatorId, start + 9), 100e18);
        assertEq(vault.stakeAt(operatorId, start + 10), 150e18);
        lockStake(operatorId, 30e18);
        slashStake(operatorId, 30e18);
        vm.warp(start + 21);
        assertEq(vault.stakeAt(operatorId, start + 19), 150e18);
        assertEq(vault.stakeAt(operatorId, start + 20), 120e18);
        vm.expectRevert();
        vault.stakeAt(operatorId, block.timestamp);
    }
}
