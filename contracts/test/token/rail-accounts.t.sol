// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {IRails} from "../../src/token/IRails.sol";
import {RailAccounts} from "../../src/token/RailAccounts.sol";
import {deployDevStable} from "../deploy/token.sol";
import {TokenFixture} from "./fixture.sol";
import {FeeToken, LyingToken, ReenteringToken} from "./rail-doubles.sol";

/// @notice Money in and out of Rails, with honest and hostile tokens.
contract RailAccountsTest is TokenFixture {
    address private alice = makeAddr("alice");
    address private bob = makeAddr("bob");

    function testFuzz_ADepositCreditsAnyAccountAndAWithdrawalPaysAnyAddress(uint96 amount, uint96 taken, address account, address to)
        public
    {
        amount = uint96(bound(amount, 1, 1e27));
        taken = uint96(bound(taken, 1, amount));
        vm.assume(to != address(0) && to != address(rails) && to != alice);
        token.mint(alice, amount);
        vm.startPrank(alice);
        token.approve(address(rails), amount);
        vm.expectEmit(address(rails));
        emit IRails.Deposited(address(token), account, alice, amount);
        rails.deposit(address(token), account, amount);
        vm.stopPrank();
        assertEq(rails.balanceOf(address(token), account), amount);
        vm.startPrank(account);
        vm.expectEmit(address(rails));
        emit IRails.Withdrawn(address(token), account, to, taken);
        rails.withdraw(address(token), taken, to);
        assertEq(token.balanceOf(to), taken);
        assertEq(rails.obligationsOf(address(token)), amount - taken);
        vm.expectRevert(
            abi.encodeWithSelector(
                IRails.InsufficientBalance.selector, address(token), account, uint256(amount) - taken + 1, amount - taken
            )
        );
        rails.withdraw(address(token), uint256(amount) - taken + 1, to);
    }

    function testFuzz_AnAccountGivesWhatItHasToAnother(uint96 held, uint96 amount, address to) public {
        held = uint96(bound(held, 1, 1e27));
        amount = uint96(bound(amount, 1, held));
        vm.assume(to != alice);
        credit(alice, held);
        vm.startPrank(alice);
        vm.expectEmit(address(rails));
        emit IRails.Transferred(address(token), alice, to, amount);
        rails.transfer(address(token), to, amount);
        assertEq(rails.balanceOf(address(token), alice), held - amount);
        assertEq(rails.balanceOf(address(token), to), amount);
        assertEq(rails.obligationsOf(address(token)), held);
        vm.expectRevert(
            abi.encodeWithSelector(IRails.InsufficientBalance.selector, address(token), alice, uint256(held) - amount + 1, held - amount)
        );
        rails.transfer(address(token), to, uint256(held) - amount + 1);
        if (held == amount) return;
        rails.transfer(address(token), alice, 1); // to itself: nothing changes
        assertEq(rails.balanceOf(address(token), alice), held - amount);
    }

    function testFuzz_AMeterMovesOnlyWhatWasApprovedForItAndIsThere(uint96 held, uint96 allowed, uint96 amount) public {
        held = uint96(bound(held, 1, 1e27));
        allowed = uint96(bound(allowed, 0, 1e27));
        amount = uint96(bound(amount, 1, 1e27));
        credit(alice, held);
        vm.prank(alice);
        rails.approve(module, address(token), allowed);
        address payee = makeAddr("payee");
        vm.prank(module);
        if (amount > allowed) {
            vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientAllowance.selector, alice, module, address(token), amount, allowed));
            rails.transferFrom(address(token), alice, payee, amount);
        } else if (amount > held) {
            vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientBalance.selector, address(token), alice, amount, held));
            rails.transferFrom(address(token), alice, payee, amount);
        } else {
            vm.expectEmit(address(rails));
            emit IRails.Transferred(address(token), alice, payee, amount);
            rails.transferFrom(address(token), alice, payee, amount);
            assertEq(rails.allowanceOf(alice, module, address(token)), allowed - amount);
            assertEq(rails.balanceOf(address(token), payee), amount);
        }
        assertEq(rails.balanceOf(address(token), alice) + rails.balanceOf(address(token), payee), held);
        vm.expectRevert(abi.encodeWithSelector(IRails.InsufficientAllowance.selector, alice, bob, address(token), 1, 0));
        vm.prank(bob);
        rails.transferFrom(address(token), alice, bob, 1);
    }

    function credit(address account, uint256 amount) private {
        token.mint(address(this), amount);
        token.approve(address(rails), amount);
        rails.deposit(address(token), account, amount);
    }

    function test_ZeroIsNeitherTakenNorGiven() public {
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.transfer(address(token), alice, 0);
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.transferFrom(address(token), alice, bob, 0);
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.deposit(address(token), alice, 0);
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.withdraw(address(token), 0, alice);
        vm.expectRevert(IRails.ZeroAmount.selector);
        rails.depositWithAuthorization(address(token), 0, 0, 0, 0, "");
    }

    function testFuzz_AnApprovalIsSetNotAdded(address meter, uint256 first, uint256 second) public {
        vm.startPrank(alice);
        rails.approve(meter, address(token), first);
        vm.expectEmit(address(rails));
        emit IRails.Approved(alice, meter, address(token), second);
        rails.approve(meter, address(token), second);
        assertEq(rails.allowanceOf(alice, meter, address(token)), second);
    }

    function testFuzz_ADepositByAuthorizationNeedsNoApproval(uint64 amount, bytes32 nonce) public {
        DevStable stable = deployDevStable();
        amount = uint64(bound(amount, 1, stable.MINT_MAX()));
        (address from, uint256 secret) = makeAddrAndKey("authorizer");
        stable.mint(from, amount);
        bytes memory signature = authorize(stable, from, secret, amount, nonce);
        vm.expectRevert();
        vm.prank(bob);
        rails.depositWithAuthorization(address(stable), amount, 0, block.timestamp + 1, nonce, signature);
        vm.startPrank(from);
        rails.depositWithAuthorization(address(stable), amount, 0, block.timestamp + 1, nonce, signature);
        assertEq(rails.balanceOf(address(stable), from), amount);
        assertEq(stable.balanceOf(address(rails)), amount);
        vm.expectRevert();
        rails.depositWithAuthorization(address(stable), amount, 0, block.timestamp + 1, nonce, signature);
    }

    function authorize(DevStable stable, address from, uint256 secret, uint256 amount, bytes32 nonce) private view returns (bytes memory) {
        bytes32 typehash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 terms = keccak256(abi.encode(typehash, from, address(rails), amount, 0, block.timestamp + 1, nonce));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, keccak256(abi.encodePacked("\x19\x01", stable.DOMAIN_SEPARATOR(), terms)));
        return abi.encodePacked(r, s, v);
    }

    function testFuzz_ASignatureOfAnotherLengthIsRefused(bytes calldata signature) public {
        vm.assume(signature.length != 65);
        vm.expectRevert(abi.encodeWithSelector(RailAccounts.BadSignatureLength.selector, signature.length, 65));
        rails.depositWithAuthorization(address(token), 1, 0, 0, 0, signature);
    }

    // ---------------------------------------------------------------- hostile tokens

    function testFuzz_ATokenThatKeepsAFeeIsRefusedOnTheWayIn(uint96 amount, uint96 fee) public {
        FeeToken feeToken = new FeeToken();
        amount = uint96(bound(amount, 1, 1e27));
        fee = uint96(bound(fee, 1, amount));
        feeToken.mint(address(this), amount);
        feeToken.approve(address(rails), amount);
        feeToken.set(fee, 0);
        vm.expectRevert(abi.encodeWithSelector(IRails.TokenShortfall.selector, address(feeToken), amount, amount - fee));
        rails.deposit(address(feeToken), alice, amount);
    }

    function test_ATokenThatTakesAFeeOnTopIsRefusedOnTheWayOut() public {
        FeeToken feeToken = new FeeToken();
        feeToken.mint(address(this), 200);
        feeToken.approve(address(rails), 200);
        rails.deposit(address(feeToken), alice, 100);
        rails.deposit(address(feeToken), bob, 100);
        feeToken.set(0, 1);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IRails.TokenShortfall.selector, address(feeToken), 50, 51));
        rails.withdraw(address(feeToken), 50, alice);
    }

    function test_AWithdrawalToTheContractItselfIsRefused() public {
        token.mint(address(this), 10);
        token.approve(address(rails), 10);
        rails.deposit(address(token), address(this), 10);
        vm.expectRevert(abi.encodeWithSelector(IRails.TokenShortfall.selector, address(token), 10, 0));
        rails.withdraw(address(token), 10, address(rails));
    }

    function test_AnAddressWithoutCodeIsNoToken() public {
        vm.expectRevert(abi.encodeWithSelector(RailAccounts.NotAToken.selector, bob));
        rails.deposit(bob, alice, 1);
    }

    function testFuzz_ATokenThatMovesNothingCreditsNothing(uint256 amount, uint256 balance, bytes32 nonce) public {
        amount = bound(amount, 1, type(uint256).max);
        LyingToken liar = new LyingToken();
        liar.say(balance);
        vm.expectRevert(abi.encodeWithSelector(IRails.TokenShortfall.selector, address(liar), amount, 0));
        rails.deposit(address(liar), alice, amount);
        vm.expectRevert(abi.encodeWithSelector(IRails.TokenShortfall.selector, address(liar), amount, 0));
        rails.depositWithAuthorization(address(liar), amount, 0, 0, nonce, new bytes(65));
    }

    function test_ReentryDuringADepositOrAWithdrawalIsRefused() public {
        ReenteringToken hostile = new ReenteringToken(rails);
        hostile.mint(alice, 100);
        hostile.mint(address(hostile), 100);
        vm.prank(address(hostile));
        hostile.approve(address(rails), 100);
        vm.startPrank(alice);
        hostile.approve(address(rails), 100);
        bytes memory refused = abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        bytes[3] memory calls = [
            abi.encodeCall(rails.deposit, (address(hostile), address(hostile), 10)),
            abi.encodeCall(rails.withdraw, (address(hostile), 10, address(hostile))),
            abi.encodeCall(rails.depositWithAuthorization, (address(hostile), 10, 0, 0, 0, new bytes(65)))
        ];
        for (uint256 i; i < 3; ++i) {
            hostile.reenterWith(calls[i]);
            rails.deposit(address(hostile), alice, 20);
            assertFalse(hostile.answered());
            assertEq(hostile.answer(), refused);
            rails.withdraw(address(hostile), 10, alice);
            assertFalse(hostile.answered());
            assertEq(hostile.answer(), refused);
        }
        assertEq(rails.balanceOf(address(hostile), alice), 30);
        assertEq(rails.obligationsOf(address(hostile)), hostile.balanceOf(address(rails)));
    }

    function test_ReentryIntoRailsDuringATransferFindsBooksThatAreClosed() public {
        ReenteringToken hostile = new ReenteringToken(rails);
        uint64 payee = registerOperator(bob, bob);
        hostile.mint(address(this), 100);
        hostile.approve(address(rails), 100);
        rails.deposit(address(hostile), address(this), 100);
        rails.approve(address(hostile), address(hostile), 1_000);
        // While 60 are on their way out, the token (a meter that the caller approved) tries to open a rail with 41.
        hostile.reenterWith(abi.encodeCall(rails.open, (address(this), payee, address(hostile), 1, 1, 0, 41)));
        rails.withdraw(address(hostile), 60, address(this));
        assertFalse(hostile.answered());
        assertEq(hostile.answer(), abi.encodeWithSelector(IRails.InsufficientBalance.selector, address(hostile), address(this), 41, 40));
    }
}
