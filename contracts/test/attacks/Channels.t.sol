// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IX402BatchSettlement} from "../../src/token/IX402BatchSettlement.sol";
import {X402BatchSettlement} from "../../src/token/X402BatchSettlement.sol";
import {HostileCollector, ReenteringToken} from "../channels/doubles.sol";
import {ChannelsFixture} from "../channels/fixture.sol";
import {deployX402BatchSettlement} from "../deploy/token.sol";
import {FeeToken, LyingToken} from "../token/rail-doubles.sol";

/// @notice Clients with overdrawn, replayed and foreign vouchers; hostile tokens and collectors; withdrawal while the payee sleeps.
contract ChannelAttacks is ChannelsFixture {
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    function test_anOverdrawnVoucherIsRefusedAndItsHonestTwinIsPaid() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 101, 101));
        vm.startPrank(receiver);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.ClaimExceedsBalance.selector, id, 101, 100));
        channels.claim(rows);
        // The same voucher is good for what is there.
        rows[0].totalClaimed = 100;
        channels.claim(rows);
    }

    function test_aReplayedVoucherChangesNothing() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        fund(config, 100);
        claim(config, 39);
        claim(config, 64);
        claim(config, 39);
        (uint128 claimed,) = channels.receivers(receiver, address(stable));
        assertEq(claimed, 64);
        (uint128 balance, uint128 total) = channels.channels(channels.getChannelId(config));
        assertEq(total, 64);
        assertEq(balance, 100);
    }

    function test_aVoucherOfAnotherContractChainOrChannelIsNotValid() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100);
        fund(configOf(address(stable), 2), 100);
        X402BatchSettlement other = deployX402BatchSettlement(address(token), FEE_BPS);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 60, 60));
        rows[0].signature = sign(payerKey, other.getVoucherDigest(id, 60));
        refuses(rows, payer);
        rows[0].signature = sign(payerKey, other.getVoucherDigest(other.getChannelId(config), 60));
        refuses(rows, payer);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        rows[0].signature = sign(payerKey, channels.getVoucherDigest(channels.getChannelId(config), 60));
        vm.chainId(here);
        refuses(rows, payer);
        rows[0] = voucher(config, 60, 60);
        rows[0].voucher.channel.salt = keccak256(abi.encode(uint256(2)));
        refuses(rows, payer);
    }

    function testFuzz_aMangledSignatureIsRefused(uint256 flip, uint8 length) public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        fund(config, 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 60, 60));
        bytes memory good = rows[0].signature;
        rows[0].signature = abi.encodePacked(good);
        uint256 bit = flip % (65 * 8);
        rows[0].signature[bit / 8] = bytes1(uint8(rows[0].signature[bit / 8]) ^ uint8(1 << (bit % 8)));
        refuses(rows, payer);
        vm.assume(length != 65);
        rows[0].signature = new bytes(length);
        for (uint256 i; i < length && i < 65; ++i) {
            rows[0].signature[i] = good[i];
        }
        refuses(rows, payer);
    }

    function test_theOtherHalfOfSIsRefused() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        fund(config, 100);
        bytes32 digest = channels.getVoucherDigest(channels.getChannelId(config), 60);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(payerKey, digest);
        assertLe(uint256(s), HALF_ORDER);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 60, 60));
        rows[0].signature = abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        assertEq(ecrecover(digest, v == 27 ? 28 : 27, r, bytes32(ORDER - uint256(s))), payer);
        refuses(rows, payer);
    }

    /// The payee that claims within the delay loses nothing; the one that sleeps through it loses what it did not claim, nobody else does.
    function test_withdrawalWhileThePayeeSleeps() public {
        IX402BatchSettlement.ChannelConfig memory awake = configOf(address(stable), 1);
        IX402BatchSettlement.ChannelConfig memory asleep = configOf(address(stable), 2);
        IX402BatchSettlement.ChannelConfig memory bystander = configOf(address(stable), 3);
        fund(awake, 100);
        bytes32 id = fund(asleep, 100);
        fund(bystander, 100);
        vm.startPrank(payer);
        channels.initiateWithdraw(awake, 100);
        channels.initiateWithdraw(asleep, 100);
        vm.stopPrank();
        claim(awake, 60);
        vm.warp(block.timestamp + DELAY);
        vm.startPrank(payer);
        channels.finalizeWithdraw(awake);
        channels.finalizeWithdraw(asleep);
        vm.stopPrank();
        assertEq(stable.balanceOf(payer), 40 + 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(asleep, 60, 60));
        vm.prank(receiver);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.ClaimExceedsBalance.selector, id, 60, 0));
        channels.claim(rows);
        claim(bystander, 100);
        channels.settle(receiver, address(stable));
        assertEq(stable.balanceOf(receiver), 160);
        assertEq(stable.balanceOf(address(channels)), 0);
    }

    /// A victim that has approved the channels contract: nobody else can put its money into a channel that a thief can claim.
    function test_anAllowanceIsUsedByItsOwnerOnly() public {
        give(address(stable), payer, 100);
        vm.prank(payer);
        stable.approve(address(channels), 100);
        IX402BatchSettlement.ChannelConfig memory trap = configOf(address(stable), 1);
        (trap.payerAuthorizer, trap.receiver, trap.receiverAuthorizer) = (stranger, stranger, stranger);
        bytes32 id = channels.getChannelId(trap);
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NotChannelPayer.selector, id, stranger));
        channels.deposit(trap, 100, address(channels), "");
    }

    function testFuzz_aCollectorCannotBringOtherThanItSays(uint64 brings) public {
        HostileCollector collector = new HostileCollector();
        give(address(stable), address(collector), uint256(brings) + 1);
        collector.set(brings, "");
        vm.assume(brings != 50);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.TokenShortfall.selector, address(stable), 50, brings));
        channels.deposit(configOf(address(stable), 1), 50, address(collector), "");
    }

    function test_aCollectorCannotCountOneDepositTwice() public {
        HostileCollector collector = new HostileCollector();
        give(address(stable), address(collector), 100);
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        collector.set(50, abi.encodeCall(channels.deposit, (config, 50, address(collector), "")));
        channels.deposit(config, 50, address(collector), "");
        assertFalse(collector.answered());
        (uint128 balance,) = channels.channels(channels.getChannelId(config));
        assertEq(balance, 50);
        assertEq(stable.balanceOf(address(channels)), 50);
    }

    function test_aTokenThatReentersGetsNothingTwice() public {
        ReenteringToken hostile = new ReenteringToken();
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(hostile), 1);
        hostile.mint(payer, 100);
        vm.startPrank(payer);
        hostile.approve(address(channels), 100);
        channels.deposit(config, 100, address(channels), "");
        vm.stopPrank();
        claim(config, 60);
        hostile.reenterWith(address(channels), abi.encodeCall(channels.settle, (receiver, address(hostile))));
        channels.settle(receiver, address(hostile));
        assertFalse(hostile.answered());
        assertEq(hostile.balanceOf(receiver), 60);
    }

    function test_tokensThatKeepAFeeAreRefusedBothWays() public {
        FeeToken fee = new FeeToken();
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(fee), 1);
        fee.mint(payer, 1_000);
        vm.startPrank(payer);
        fee.approve(address(channels), 1_000);
        fee.set(1, 0);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.TokenShortfall.selector, address(fee), 100, 99));
        channels.deposit(config, 100, address(channels), "");
        fee.set(0, 0);
        channels.deposit(config, 100, address(channels), "");
        vm.stopPrank();
        claim(config, 60);
        fee.set(0, 1);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.TokenShortfall.selector, address(fee), 60, 61));
        channels.settle(receiver, address(fee));
    }

    function test_aTokenThatLiesIsNotBelieved() public {
        LyingToken liar = new LyingToken();
        vm.startPrank(payer);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.TokenShortfall.selector, address(liar), 100, 0));
        channels.deposit(configOf(address(liar), 1), 100, address(channels), "");
    }

    /// Words with bits beyond their type: another channel's id without a balance, never a second name of a funded one.
    function testFuzz_wordsWithTooManyBits(uint8 field, uint96 dirt) public {
        vm.assume(dirt != 0);
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        fund(config, 100);
        bytes memory call = abi.encodeCall(channels.claim, (one(voucher(config, 60, 60))));
        // selector, offset, length, offset of the row; then the seven words of the channel
        uint256 at = 4 + 32 * 3 + 32 * uint256(field % 6) + (field % 6 == 5 ? 15 : 0);
        for (uint256 i; i < 12; ++i) {
            call[at + i] = bytes1(uint8(call[at + i]) | uint8(dirt >> (8 * i)));
        }
        vm.prank(receiver);
        (bool done,) = address(channels).call(call);
        assertFalse(done);
        bytes memory deposit = abi.encodeCall(channels.deposit, (config, 1, address(channels), ""));
        at = 4 + 32 * uint256(field % 6) + (field % 6 == 5 ? 15 : 0);
        for (uint256 i; i < 12; ++i) {
            deposit[at + i] = bytes1(uint8(deposit[at + i]) | uint8(dirt >> (8 * i)));
        }
        give(address(stable), payer, 1);
        vm.startPrank(payer);
        stable.approve(address(channels), 1);
        (done,) = address(channels).call(deposit);
        assertFalse(done);
    }

    function refuses(IX402BatchSettlement.VoucherClaim[] memory rows, address signer) private {
        vm.prank(receiver);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.BadSignature.selector, signer));
        channels.claim(rows);
    }
}
