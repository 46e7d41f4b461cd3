// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {TokenFixture} from "./fixture.sol";

/// @notice Deposits, locks, exits, freezes. Slashes are in stake-slash.t.sol, votes in stake-votes.t.sol.
contract StakeVaultTest is TokenFixture {
    address private owner = makeAddr("owner");
    address private backer = makeAddr("backer");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
    }

    // ---------------------------------------------------------------- deposits

    function testFuzz_ADepositFromAnyoneIsOwnStake(address from, uint96 amount) public {
        vm.assume(from != address(0) && from != address(vault));
        amount = uint96(bound(amount, 1, 2e27));
        depositStake(operatorId, from, amount);
        (uint256 active, uint256 exiting) = vault.ownStake(operatorId);
        assertEq(active, amount);
        assertEq(exiting, 0);
        assertEq(token.balanceOf(address(vault)), amount);
        assertEq(vault.obligations(), amount);
    }

    function testFuzz_ADepositByPermitNeedsNoApproval(uint96 amount, bool usedBefore) public {
        amount = uint96(bound(amount, 1, 2e27));
        (address from, uint256 secret) = makeAddrAndKey("permitter");
        token.mint(from, amount);
        (uint8 v, bytes32 r, bytes32 s) = permit(from, secret, amount);
        // Somebody who saw the permit uses it first: the deposit works all the same.
        if (usedBefore) token.permit(from, address(vault), amount, block.timestamp, v, r, s);
        vm.prank(from);
        vault.depositWithPermit(operatorId, amount, block.timestamp, v, r, s);
        assertEq(ownActive(operatorId), amount);
    }

    function permit(address from, uint256 secret, uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 typehash = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 terms = keccak256(abi.encode(typehash, from, address(vault), amount, 0, block.timestamp));
        return vm.sign(secret, keccak256(abi.encodePacked("\x19\x01", token.DOMAIN_SEPARATOR(), terms)));
    }

    function test_ADepositByABadPermitFailsForWantOfAllowance() public {
        token.mint(owner, 5);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(vault), 0, 5));
        vm.prank(owner);
        vault.depositWithPermit(operatorId, 5, block.timestamp, 27, bytes32(0), bytes32(0));
    }

    function test_NothingIsTakenForZeroOrForAnUnknownOperatorOrAboveTheLimitOfTheBooks() public {
        vm.expectRevert(IStakeVault.ZeroAmount.selector);
        vault.deposit(operatorId, 0);
        vm.expectRevert(IStakeVault.ZeroAmount.selector);
        vault.back(operatorId, 0);
        vm.expectRevert(abi.encodeWithSelector(IOperators.UnknownOperator.selector, 99));
        vault.deposit(99, 1);
        vm.expectRevert(abi.encodeWithSelector(IOperators.UnknownOperator.selector, 99));
        vault.back(99, 1);
        vm.expectRevert(abi.encodeWithSelector(SafeCast.SafeCastOverflowedUintDowncast.selector, 96, 1 << 96));
        vault.deposit(operatorId, 1 << 96);
    }

    function testFuzz_BackersGetOneShareForOneUnitUntilASlash(uint96 first, uint96 second) public {
        first = uint96(bound(first, 1, 1e27));
        second = uint96(bound(second, 1, 1e27));
        assertEq(backStake(operatorId, backer, first), first);
        assertEq(backStake(operatorId, owner, second), second);
        assertEq(vault.sharesOf(operatorId, backer), first);
        address other = makeAddr("no backer");
        assertTrue(vault.isBackedBy(operatorId, [backer, other, other]) && vault.isBackedBy(operatorId, [other, backer, other]));
        assertTrue(vault.isBackedBy(operatorId, [other, other, backer]));
        assertFalse(vault.isBackedBy(operatorId, [other, other, other]) || vault.isBackedBy(operatorId + 1, [backer, backer, backer]));
        assertEq(vault.backedBy(operatorId, backer), first);
        assertEq(vault.pool(operatorId).activeAssets, uint256(first) + second);
        assertEq(vault.pool(operatorId).activeShares, uint256(first) + second);
    }

    /// The two tricks against pools of shares: a gift that raises the price, and a first share that is worth a fortune.
    function testFuzz_AGiftAndAFirstDepositorChangeNothing(uint96 gift, uint96 amount, bool tinyFirst) public {
        gift = uint96(bound(gift, 0, 1e27));
        amount = uint96(bound(amount, 1, 1e27));
        if (tinyFirst) backStake(operatorId, owner, 1);
        token.mint(address(vault), gift);
        assertEq(backStake(operatorId, backer, amount), amount);
        assertEq(vault.backedBy(operatorId, backer), amount);
        assertEq(vault.obligations() + gift, token.balanceOf(address(vault)));
    }

    // ---------------------------------------------------------------- locks

    function testFuzz_OfAvailableStakeAllCanBeLockedAndNotOneUnitMore(uint96 own, uint96 backed, uint96 already, uint16 ownMinBps) public {
        parameters.set("vault.ownShareMinBps", bound(ownMinBps, 0, 10_000));
        depositStake(operatorId, owner, bound(own, 1, 1e27));
        backStake(operatorId, backer, bound(backed, 1, 1e27));
        lockStake(operatorId, bound(already, 0, vault.availableOf(operatorId)));
        uint256 available = vault.availableOf(operatorId);
        vm.startPrank(module);
        vm.expectPartialRevert(
            vault.slashableOf(operatorId) - vault.lockedOf(operatorId) == available
                ? IStakeVault.InsufficientUnlocked.selector
                : IStakeVault.OwnStakeTooSmall.selector
        );
        vault.lock(operatorId, available + 1);
        vault.lock(operatorId, available);
        vm.stopPrank();
        assertEq(vault.availableOf(operatorId), 0);
        assertLe(vault.lockedOf(operatorId), vault.slashableOf(operatorId));
    }

    function test_SlashableStakeIsOwnPlusTheCappedPartOfBackers() public {
        depositStake(operatorId, owner, 1_000);
        backStake(operatorId, backer, 3_001);
        assertEq(vault.slashableOf(operatorId), 2_500);
        assertEq(vault.availableOf(operatorId), 2_500);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, 2_501, 2_500));
        vm.prank(module);
        vault.lock(operatorId, 2_501);
    }

    function test_OwnStakeMustBeAShareOfTheLocks() public {
        depositStake(operatorId, owner, 100);
        backStake(operatorId, backer, 10_000);
        assertEq(vault.availableOf(operatorId), 500, "100 is 20 % of 500");
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.OwnStakeTooSmall.selector, operatorId, 100, 101));
        vm.prank(module);
        vault.lock(operatorId, 501);
    }

    function testFuzz_EachModuleFreesOnlyWhatItLocked(uint96 mine, uint96 others, uint96 freed) public {
        depositStake(operatorId, owner, 2e27);
        mine = uint96(bound(mine, 0, 1e27));
        others = uint96(bound(others, 0, 1e27));
        freed = uint96(bound(freed, 0, mine));
        lockStake(operatorId, mine);
        vm.prank(otherModule);
        vault.lock(operatorId, others);
        vm.startPrank(module);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLock.selector, operatorId, module, uint256(mine) + 1, mine));
        vault.unlock(operatorId, uint256(mine) + 1);
        vault.unlock(operatorId, freed);
        vm.stopPrank();
        assertEq(vault.lockedOfModule(operatorId, module), mine - freed);
        assertEq(vault.lockedBy(module), mine - freed);
        assertEq(vault.lockedOfModule(operatorId, otherModule), others);
        assertEq(vault.lockedOf(operatorId), uint256(mine) - freed + others);
    }

    function testFuzz_OnlySlashersLockSlashAndFreeze(address caller) public {
        vm.assume(caller != module && caller != otherModule);
        IStakeVault.Payout memory payout;
        bytes memory refusal = abi.encodeWithSelector(IStakeVault.NotSlasher.selector, caller);
        vm.startPrank(caller);
        vm.expectRevert(refusal);
        vault.lock(operatorId, 1);
        vm.expectRevert(refusal);
        vault.slash(operatorId, 1, payout);
        vm.expectRevert(refusal);
        vault.freeze(operatorId);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLock.selector, operatorId, caller, 1, 0));
        vault.unlock(operatorId, 1);
        vm.expectRevert(abi.encodeWithSelector(StakeVault.NotFrozen.selector, operatorId, caller));
        vault.unfreeze(operatorId);
    }

    function test_ARetiredModuleNeitherLocksNorSlashesAndIsRetiredOnlyWithoutLocks() public {
        depositStake(operatorId, owner, 100);
        lockStake(operatorId, 60);
        vm.expectRevert();
        registry.retire(module);
        vm.prank(module);
        vault.unlock(operatorId, 60);
        registry.retire(module);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotSlasher.selector, module));
        vm.prank(module);
        vault.lock(operatorId, 1);
    }

    // ---------------------------------------------------------------- own exits

    function testFuzz_AnOwnExitPaysTheOwnerAfterTheDelay(uint96 deposited, uint96 wanted) public {
        deposited = uint96(bound(deposited, 1, 2e27));
        wanted = uint96(bound(wanted, 1, deposited));
        depositStake(operatorId, owner, deposited);
        vm.prank(owner);
        uint256 exitId = vault.requestExit(operatorId, wanted);
        (uint256 active, uint256 exiting) = vault.ownStake(operatorId);
        assertEq(active, deposited - wanted);
        assertEq(exiting, wanted);
        uint64 from = uint64(block.timestamp) + DELAY;
        (address who, uint64 id, uint256 amount, uint64 withdrawableFrom) = vault.exitOf(exitId);
        assertEq(abi.encode(who, id, amount, withdrawableFrom), abi.encode(owner, operatorId, wanted, from));
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ExitTooEarly.selector, from, from - 1));
        vault.finishExit(exitId);
        vm.warp(from);
        assertEq(vault.finishExit(exitId), wanted);
        assertEq(token.balanceOf(owner), wanted);
        assertEq(vault.obligations(), deposited - wanted);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.UnknownExit.selector, exitId));
        vault.finishExit(exitId);
        (who,,,) = vault.exitOf(exitId);
        assertEq(who, address(0));
    }

    function testFuzz_OnlyTheOwnerTakesOwnStakeOut(address caller) public {
        vm.assume(caller != owner);
        depositStake(operatorId, owner, 100);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NotOperatorOwner.selector, operatorId, caller));
        vm.prank(caller);
        vault.requestExit(operatorId, 1);
    }

    function testFuzz_LockedStakeDoesNotLeave(uint96 own, uint96 backed, uint96 locked) public {
        own = uint96(bound(own, 1, 1e27));
        depositStake(operatorId, owner, own);
        backStake(operatorId, backer, bound(backed, 1, 1e27));
        locked = uint96(bound(locked, 0, vault.availableOf(operatorId)));
        lockStake(operatorId, locked);
        uint256 free = vault.slashableOf(operatorId) - locked;
        if (free > own) free = own;
        vm.startPrank(owner);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, free + 1, free));
        vault.requestExit(operatorId, free + 1);
        uint256 needed = (uint256(locked) * OWN_MIN_BPS + 9_999) / 10_000;
        if (own - free < needed) {
            vm.expectRevert(abi.encodeWithSelector(IStakeVault.OwnStakeTooSmall.selector, operatorId, own - free, needed));
            vault.requestExit(operatorId, free);
            free = own - needed;
        }
        if (free != 0) vault.requestExit(operatorId, free);
        vm.stopPrank();
        assertLe(vault.lockedOf(operatorId), vault.slashableOf(operatorId));
    }

    function test_AnExitPaysWhoeverOwnsTheOperatorAtTheEnd() public {
        depositStake(operatorId, owner, 100);
        vm.prank(owner);
        uint256 exitId = vault.requestExit(operatorId, 100);
        address newOwner = makeAddr("newOwner");
        rotateOwner(operatorId, newOwner);
        vm.warp(block.timestamp + DELAY);
        vault.finishExit(exitId);
        assertEq(token.balanceOf(newOwner), 100);
    }

    function test_ALongerDelayHoldsForPendingExitsAndAShorterDoesNot() public {
        depositStake(operatorId, owner, 100);
        vm.startPrank(owner);
        uint256 first = vault.requestExit(operatorId, 10);
        vm.stopPrank();
        uint256 requested = block.timestamp;
        parameters.set("vault.withdrawalDelay", 5 days);
        vm.warp(requested + DELAY);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ExitTooEarly.selector, requested + 5 days, requested + DELAY));
        vault.finishExit(first);
        parameters.set("vault.withdrawalDelay", 2 days);
        vault.finishExit(first);
        vm.prank(owner);
        uint256 second = vault.requestExit(operatorId, 10);
        vm.warp(block.timestamp + 2 days);
        vault.finishExit(second);
        assertEq(token.balanceOf(owner), 20);
    }

    function test_NoExitOfZeroAndNoUnknownExit() public {
        vm.startPrank(owner);
        vm.expectRevert(IStakeVault.ZeroAmount.selector);
        vault.requestExit(operatorId, 0);
        vm.expectRevert(IStakeVault.ZeroAmount.selector);
        vault.requestBackerExit(operatorId, 0);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.UnknownExit.selector, 7));
        vault.finishExit(7);
    }

    // ---------------------------------------------------------------- backers' exits

    function testFuzz_ABackersExitPaysTheBacker(uint96 backed, uint96 shares, address caller) public {
        backed = uint96(bound(backed, 1, 2e27));
        shares = uint96(bound(shares, 1, backed));
        backStake(operatorId, backer, backed);
        vm.prank(backer);
        uint256 exitId = vault.requestBackerExit(operatorId, shares);
        IStakeVault.Pool memory pool = vault.pool(operatorId);
        assertEq(abi.encode(pool), abi.encode(backed - shares, backed - shares, shares, shares, 0));
        (address who,, uint256 amount,) = vault.exitOf(exitId);
        assertEq(who, backer);
        assertEq(amount, shares);
        vm.warp(block.timestamp + DELAY);
        vm.prank(caller);
        vault.finishExit(exitId);
        assertEq(token.balanceOf(backer), shares);
        assertEq(vault.sharesOf(operatorId, backer), backed - shares);
    }

    function testFuzz_ABackerTakesOutNoMoreThanTheOwnShares(uint96 mine, uint96 others) public {
        mine = uint96(bound(mine, 0, 1e27));
        if (mine != 0) backStake(operatorId, backer, mine);
        backStake(operatorId, owner, bound(others, 1, 1e27));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, uint256(mine) + 1, mine));
        vm.prank(backer);
        vault.requestBackerExit(operatorId, uint256(mine) + 1);
    }

    function testFuzz_BackersStakeThatBacksALockDoesNotLeave(uint96 backed, uint96 locked) public {
        backed = uint96(bound(backed, 2, 1e27));
        depositStake(operatorId, owner, 1e27);
        backStake(operatorId, backer, backed);
        locked = uint96(bound(locked, 1e27 + 1, 1e27 + uint256(backed) / 2));
        lockStake(operatorId, locked);
        uint256 free = vault.slashableOf(operatorId) - locked;
        uint256 leaving = uint256(backed) / 2;
        vm.startPrank(backer);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, leaving, free));
        vault.requestBackerExit(operatorId, backed);
        if (free != 0) vault.requestBackerExit(operatorId, free * 2);
        vm.stopPrank();
        assertLe(vault.lockedOf(operatorId), vault.slashableOf(operatorId));
    }

    function test_WhenALowerCapLeavesLocksUncoveredNothingLeavesAndNothingIsLocked() public {
        depositStake(operatorId, owner, 100);
        backStake(operatorId, backer, 200);
        lockStake(operatorId, 200);
        parameters.set("vault.backerLossCapBps", 1_000);
        assertEq(vault.availableOf(operatorId), 0);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, 1, 0));
        vm.prank(owner);
        vault.requestExit(operatorId, 1);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, 20, 0));
        vm.prank(backer);
        vault.requestBackerExit(operatorId, 200);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, operatorId, 1, 0));
        vm.prank(module);
        vault.lock(operatorId, 1);
    }

    // ---------------------------------------------------------------- freezes

    function test_NoExitIsPaidWhileAnyDisputeIsOpen() public {
        depositStake(operatorId, owner, 100);
        backStake(operatorId, backer, 100);
        vm.prank(owner);
        uint256 own = vault.requestExit(operatorId, 100);
        vm.prank(backer);
        uint256 backers = vault.requestBackerExit(operatorId, 100);
        vm.warp(block.timestamp + DELAY);
        vm.prank(module);
        vault.freeze(operatorId);
        vm.prank(otherModule);
        vault.freeze(operatorId);
        assertEq(vault.disputesOf(operatorId), 2);
        vm.prank(module);
        vault.unfreeze(operatorId);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ReleaseFrozen.selector, operatorId, 1));
        vault.finishExit(own);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ReleaseFrozen.selector, operatorId, 1));
        vault.finishExit(backers);
        vm.prank(otherModule);
        vault.unfreeze(operatorId);
        assertEq(vault.finishExit(own) + vault.finishExit(backers), 200);
    }

    function test_AModuleEndsOnlyItsOwnFreezes() public {
        vm.prank(module);
        vault.freeze(operatorId);
        vm.expectRevert(abi.encodeWithSelector(StakeVault.NotFrozen.selector, operatorId, otherModule));
        vm.prank(otherModule);
        vault.unfreeze(operatorId);
    }

    function test_FreezesOfARetiredModuleAreEndedByAnyone() public {
        vm.startPrank(module);
        vault.freeze(operatorId);
        vault.freeze(operatorId);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(StakeVault.StillSlasher.selector, module));
        vault.unfreezeRetired(operatorId, module);
        registry.retire(module);
        vault.unfreezeRetired(operatorId, module);
        assertEq(vault.disputesOf(operatorId), 0);
        vm.expectRevert(abi.encodeWithSelector(StakeVault.NotFrozen.selector, operatorId, module));
        vault.unfreezeRetired(operatorId, module);
    }

    function test_TheVaultNamesItsPartsAndItsDelay() public view {
        assertEq(vault.stakeToken(), address(token));
        assertEq(address(vault.registry()), address(registry));
        assertEq(address(vault.operators()), address(operators));
        assertEq(address(vault.parameters()), address(parameters));
        assertEq(vault.withdrawalDelaySeconds(), DELAY);
    }
}
