// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {DevStable} from "../../src/token/DevStable.sol";
import {ERC3009DepositCollector} from "../../src/token/ERC3009DepositCollector.sol";
import {IX402BatchSettlement} from "../../src/token/IX402BatchSettlement.sol";
import {deployERC3009DepositCollector, deployX402BatchSettlement} from "../deploy/token.sol";
import {ContractWallet} from "./doubles.sol";
import {ChannelsFixture} from "./fixture.sol";

/// @notice Every external function, with fuzzed amounts.
contract ChannelsTest is ChannelsFixture {
    function test_constantsAndDomainAreThoseOfTheScheme() public view {
        assertEq(channels.MIN_WITHDRAW_DELAY(), 900);
        assertEq(channels.MAX_WITHDRAW_DELAY(), 2_592_000);
        (bytes1 fields, string memory name, string memory version, uint256 chainId, address at,,) = channels.eip712Domain();
        assertEq(fields, bytes1(0x0f));
        assertEq(name, "x402 Batch Settlement");
        assertEq(version, "1");
        assertEq(chainId, block.chainid);
        assertEq(at, address(channels));
    }

    function testFuzz_hashesAreThoseOfEip712(IX402BatchSettlement.ChannelConfig memory config, uint128 amount, uint256 nonce) public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("x402 Batch Settlement"),
                keccak256("1"),
                block.chainid,
                address(channels)
            )
        );
        bytes32 id = keccak256(abi.encodePacked(hex"1901", domain, keccak256(abi.encode(channels.CHANNEL_CONFIG_TYPEHASH(), config))));
        assertEq(channels.getChannelId(config), id);
        bytes32 hash = keccak256(abi.encode(channels.VOUCHER_TYPEHASH(), id, amount));
        assertEq(channels.getVoucherDigest(id, amount), keccak256(abi.encodePacked(hex"1901", domain, hash)));
        hash = keccak256(abi.encode(channels.REFUND_TYPEHASH(), id, nonce, amount));
        assertEq(channels.getRefundDigest(id, nonce, amount), keccak256(abi.encodePacked(hex"1901", domain, hash)));
        IX402BatchSettlement.VoucherClaim[] memory rows =
            one(IX402BatchSettlement.VoucherClaim(IX402BatchSettlement.Voucher(config, amount), "", amount / 2));
        bytes32 entry = keccak256(abi.encode(channels.CLAIM_ENTRY_TYPEHASH(), id, amount, amount / 2));
        hash = keccak256(abi.encode(channels.CLAIM_BATCH_TYPEHASH(), keccak256(abi.encodePacked(entry))));
        assertEq(channels.getClaimBatchDigest(rows), keccak256(abi.encodePacked(hex"1901", domain, hash)));
    }

    function test_theFeeIsBounded() public {
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.FeeOutOfBounds.selector, 1_001, 1_000));
        deployX402BatchSettlement(address(token), 1_001);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.FeeOutOfBounds.selector, 1, 1_000));
        deployX402BatchSettlement(address(0), 1);
        assertEq(deployX402BatchSettlement(address(0), 0).feesBurntOf(receiver), 0);
    }

    function testFuzz_depositsAddUpAndMakeOneChannel(uint64 first, uint64 second) public {
        first = uint64(bound(first, 1, 1e15));
        second = uint64(bound(second, 1, 1e15));
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = channels.getChannelId(config);
        give(address(stable), payer, uint256(first) + second);
        vm.startPrank(payer);
        stable.approve(address(channels), type(uint256).max);
        vm.expectEmit(address(channels));
        emit IX402BatchSettlement.ChannelCreated(id, config);
        vm.expectEmit(address(channels));
        emit IX402BatchSettlement.Deposited(id, payer, first, first);
        channels.deposit(config, first, address(channels), "");
        vm.expectEmit(address(channels));
        emit IX402BatchSettlement.Deposited(id, payer, second, first + second);
        channels.deposit(config, second, address(channels), "");
        (uint128 balance, uint128 claimed) = channels.channels(id);
        assertEq(balance, uint256(first) + second);
        assertEq(claimed, 0);
        assertEq(stable.balanceOf(address(channels)), balance);
    }

    function test_channelsMustBeComplete() public {
        for (uint256 field; field < 4; ++field) {
            IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
            if (field == 0) config.payer = address(0);
            if (field == 1) config.receiver = address(0);
            if (field == 2) config.receiverAuthorizer = address(0);
            if (field == 3) config.token = address(0);
            vm.expectPartialRevert(IX402BatchSettlement.ChannelIncomplete.selector);
            channels.deposit(config, 1, address(channels), "");
        }
        IX402BatchSettlement.ChannelConfig memory late = configOf(address(stable), 1);
        uint40[2] memory delays = [uint40(899), uint40(2_592_001)];
        for (uint256 i; i < 2; ++i) {
            late.withdrawDelay = delays[i];
            vm.expectRevert(
                abi.encodeWithSelector(IX402BatchSettlement.WithdrawDelayOutOfRange.selector, delays[i], uint40(900), uint40(2_592_000))
            );
            channels.deposit(late, 1, address(channels), "");
        }
        vm.expectRevert(IX402BatchSettlement.ZeroAmount.selector);
        channels.deposit(configOf(address(stable), 1), 0, address(channels), "");
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NotAToken.selector, stranger));
        channels.deposit(configOf(stranger, 1), 1, address(channels), "");
    }

    function testFuzz_depositByAuthorization(uint64 amount, uint256 salt, bool byCollector) public {
        amount = uint64(bound(amount, 1, 1e15));
        ERC3009DepositCollector collector = deployERC3009DepositCollector(address(channels));
        address to = byCollector ? address(collector) : address(channels);
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = channels.getChannelId(config);
        give(address(stable), payer, amount);
        bytes memory data = authorization(to, amount, keccak256(abi.encode(id, salt)), salt);
        // The nonce names the channel: the same authorization cannot fill another one.
        IX402BatchSettlement.ChannelConfig memory other = configOf(address(stable), 2);
        vm.startPrank(stranger);
        vm.expectRevert();
        channels.deposit(other, amount, to, data);
        channels.deposit(config, amount, to, data);
        (uint128 balance,) = channels.channels(id);
        assertEq(balance, amount);
        vm.expectRevert();
        channels.deposit(config, amount, to, data);
        vm.expectRevert(abi.encodeWithSelector(ERC3009DepositCollector.NotChannels.selector, stranger, address(channels)));
        collector.collect(payer, address(stable), amount, id, data);
    }

    function testFuzz_claimsUpToTheVoucherAndOnlyOnce(uint128 balance, uint128 ceiling, uint128 total) public {
        balance = uint128(bound(balance, 1, 1e27));
        ceiling = uint128(bound(ceiling, 0, 2e27));
        total = uint128(bound(total, 1, 2e27));
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(token), 1);
        bytes32 id = fund(config, balance);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, ceiling, total));
        vm.startPrank(receiver);
        if (total > ceiling) {
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.ClaimExceedsCeiling.selector, id, total, ceiling));
            channels.claim(rows);
            return;
        }
        if (total > balance) {
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.ClaimExceedsBalance.selector, id, total, balance));
            channels.claim(rows);
            return;
        }
        vm.expectEmit(address(channels));
        emit IX402BatchSettlement.Claimed(id, receiver, total, total);
        channels.claim(rows);
        channels.claim(rows);
        (uint128 claimed, uint128 settled) = channels.receivers(receiver, address(token));
        assertEq(claimed, total);
        assertEq(settled, 0);
        uint256 fee = uint256(total) * FEE_BPS / 10_000;
        uint256 supply = token.totalSupply();
        channels.settle(receiver, address(token));
        channels.settle(receiver, address(token));
        assertEq(token.balanceOf(receiver), total - fee);
        assertEq(token.totalSupply(), supply - fee);
        assertEq(channels.feesBurntOf(receiver), fee);
        assertEq(token.balanceOf(address(channels)), balance - total);
    }

    function test_onlyTheReceiversSideClaims() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 60, 60));
        address[2] memory others = [payer, stranger];
        for (uint256 i; i < 2; ++i) {
            vm.prank(others[i]);
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NotChannelReceiver.selector, id, others[i]));
            channels.claim(rows);
        }
        vm.startPrank(receiver);
        vm.expectRevert(IX402BatchSettlement.EmptyBatch.selector);
        channels.claim(new IX402BatchSettlement.VoucherClaim[](0));
        vm.expectRevert(IX402BatchSettlement.EmptyBatch.selector);
        channels.claimWithSignature(new IX402BatchSettlement.VoucherClaim[](0), "");
        vm.expectRevert(IX402BatchSettlement.EmptyBatch.selector);
        channels.claimAndSettle(new IX402BatchSettlement.VoucherClaim[](0));
    }

    function testFuzz_anyoneRelaysABatchThatTheAuthorizerSigned(uint64 total, uint64 other) public {
        total = uint64(bound(total, 1, 100e6));
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        fund(config, 100e6);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 100e6, total));
        bytes memory signature = sign(receiverKey, channels.getClaimBatchDigest(rows));
        vm.startPrank(stranger);
        if (other != total && other <= 100e6) {
            rows[0].totalClaimed = other;
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.BadSignature.selector, receiver));
            channels.claimWithSignature(rows, signature);
            rows[0].totalClaimed = total;
        }
        channels.claimWithSignature(rows, signature);
        channels.settle(receiver, address(stable));
        assertEq(stable.balanceOf(receiver), total);
    }

    function test_aSignedBatchHasOneAuthorizer() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        IX402BatchSettlement.ChannelConfig memory foreign = configOf(address(stable), 2);
        foreign.receiverAuthorizer = stranger;
        fund(config, 100);
        bytes32 id = fund(foreign, 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = new IX402BatchSettlement.VoucherClaim[](2);
        (rows[0], rows[1]) = (voucher(config, 1, 1), voucher(foreign, 1, 1));
        bytes memory signature = sign(receiverKey, channels.getClaimBatchDigest(rows));
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.OtherReceiverAuthorizer.selector, id, stranger, receiver));
        channels.claimWithSignature(rows, signature);
    }

    function test_vouchersOfContractWallets() public {
        ContractWallet wallet = new ContractWallet();
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        (config.payer, config.payerAuthorizer) = (address(wallet), address(0));
        fund(config, 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 60, 60));
        wallet.set(false);
        vm.startPrank(receiver);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.BadSignature.selector, address(wallet)));
        channels.claim(rows);
        wallet.set(true);
        channels.claim(rows);
    }

    function testFuzz_thePayerGetsBackWhatIsNotClaimedAfterTheDelay(uint64 claimedBefore, uint64 claimedAfter, uint64 wanted) public {
        claimedBefore = uint64(bound(claimedBefore, 1, 99e6));
        claimedAfter = uint64(bound(claimedAfter, claimedBefore, 100e6));
        wanted = uint64(bound(wanted, 1, 100e6));
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100e6);
        claim(config, claimedBefore);
        vm.startPrank(payer);
        if (wanted > 100e6 - claimedBefore) {
            vm.expectPartialRevert(IX402BatchSettlement.WithdrawExceedsAvailable.selector);
            channels.initiateWithdraw(config, wanted);
            return;
        }
        vm.expectEmit(address(channels));
        emit IX402BatchSettlement.WithdrawInitiated(id, wanted, uint40(block.timestamp) + DELAY);
        channels.initiateWithdraw(config, wanted);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.WithdrawalPending.selector, id, uint40(block.timestamp)));
        channels.initiateWithdraw(config, wanted);
        vm.stopPrank();
        claim(config, claimedAfter);
        vm.warp(block.timestamp + DELAY - 1);
        vm.startPrank(payer);
        vm.expectPartialRevert(IX402BatchSettlement.WithdrawDelayNotElapsed.selector);
        channels.finalizeWithdraw(config);
        vm.warp(block.timestamp + 1);
        channels.finalizeWithdraw(config);
        uint256 left = 100e6 - claimedAfter;
        uint256 paid = wanted < left ? wanted : left;
        assertEq(stable.balanceOf(payer), paid);
        (uint128 balance,) = channels.channels(id);
        assertEq(balance, 100e6 - paid);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NoWithdrawalPending.selector, id));
        channels.finalizeWithdraw(config);
    }

    function test_onlyThePayersSideWithdraws() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100);
        vm.startPrank(receiver);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NotChannelPayer.selector, id, receiver));
        channels.initiateWithdraw(config, 1);
        vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NotChannelPayer.selector, id, receiver));
        channels.finalizeWithdraw(config);
        vm.startPrank(payer);
        vm.expectRevert(IX402BatchSettlement.ZeroAmount.selector);
        channels.initiateWithdraw(config, 0);
    }

    function testFuzz_aRefundGoesToThePayerAndLowersThePendingWithdrawal(uint64 amount, uint64 wanted, bool signed) public {
        amount = uint64(bound(amount, 1, 150e6));
        wanted = uint64(bound(wanted, 1, 90e6));
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100e6);
        claim(config, 10e6);
        vm.prank(payer);
        channels.initiateWithdraw(config, wanted);
        if (signed) {
            bytes memory signature = sign(receiverKey, channels.getRefundDigest(id, 0, amount));
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.WrongRefundNonce.selector, id, 1, 0));
            channels.refundWithSignature(config, amount, 1, signature);
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.BadSignature.selector, receiver));
            channels.refundWithSignature(config, amount + 1, 0, signature);
            channels.refundWithSignature(config, amount, 0, signature);
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.WrongRefundNonce.selector, id, 0, 1));
            channels.refundWithSignature(config, amount, 0, signature);
        } else {
            vm.expectRevert(abi.encodeWithSelector(IX402BatchSettlement.NotChannelReceiver.selector, id, address(this)));
            channels.refund(config, amount);
            vm.prank(receiver);
            channels.refund(config, amount);
        }
        uint256 paid = amount < 90e6 ? amount : 90e6;
        assertEq(stable.balanceOf(payer), paid);
        assertEq(channels.refundNonce(id), 1);
        (uint128 pending, uint40 initiatedAt) = channels.pendingWithdrawals(id);
        assertEq(pending, paid < wanted ? wanted - paid : 0);
        assertEq(initiatedAt == 0, paid >= wanted);
        vm.startPrank(receiver);
        vm.expectRevert(IX402BatchSettlement.ZeroAmount.selector);
        channels.refund(config, 0);
        channels.refund(config, 1e9);
        channels.refund(config, 1e9);
        assertEq(stable.balanceOf(payer), 90e6);
    }

    function test_anEmptyChannelIsClosedAndMayBeFilledAgain() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100);
        vm.expectEmit(address(channels));
        emit IX402BatchSettlement.ChannelClosed(id, config);
        vm.prank(receiver);
        channels.refund(config, 100);
        fund(config, 7);
        (uint128 balance,) = channels.channels(id);
        assertEq(balance, 7);
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_pathIndependence(uint256 seed, uint8 cuts) public {
        uint256 n = 6;
        IX402BatchSettlement.ChannelConfig[] memory configs = new IX402BatchSettlement.ChannelConfig[](n);
        uint128[] memory totals = new uint128[](n);
        uint256 sum;
        for (uint256 i; i < n; ++i) {
            configs[i] = configOf(address(token), i);
            totals[i] = uint128(uint256(keccak256(abi.encode(seed, i))) % 1e6) + 1;
            fund(configs[i], 1e6);
            sum += totals[i];
        }
        uint256 before = vm.snapshotState();
        // In pieces, channels in any order, settled in between or not …
        for (uint256 step; step < uint256(cuts % 12) + 1; ++step) {
            uint256 draw = uint256(keccak256(abi.encode(seed, "step", step)));
            uint256 i = draw % n;
            uint128 part = uint128((draw >> 16) % totals[i]) + 1;
            claim(configs[i], part);
            if (draw >> 200 & 1 == 1) channels.settle(receiver, address(token));
        }
        for (uint256 i = n; i > 0; --i) {
            claim(configs[i - 1], totals[i - 1]);
        }
        channels.settle(receiver, address(token));
        (uint256 got, uint256 burnt, uint256 supply) = (token.balanceOf(receiver), channels.feesBurntOf(receiver), token.totalSupply());
        // … or all at once: the same.
        vm.revertToState(before);
        IX402BatchSettlement.VoucherClaim[] memory rows = new IX402BatchSettlement.VoucherClaim[](n);
        for (uint256 i; i < n; ++i) {
            rows[i] = voucher(configs[i], totals[i], totals[i]);
        }
        vm.prank(receiver);
        channels.claimAndSettle(rows);
        assertEq(token.balanceOf(receiver), got);
        assertEq(channels.feesBurntOf(receiver), burnt);
        assertEq(token.totalSupply(), supply);
        assertEq(got + burnt, sum);
        assertEq(burnt, sum * FEE_BPS / 10_000);
    }

    function test_severalReceiversAndTokensInOneBatch() public {
        IX402BatchSettlement.VoucherClaim[] memory rows = new IX402BatchSettlement.VoucherClaim[](6);
        address[2] memory assets = [address(stable), address(token)];
        for (uint256 i; i < 6; ++i) {
            IX402BatchSettlement.ChannelConfig memory config = configOf(assets[i % 2], i);
            (config.receiver, config.receiverAuthorizer) = (i < 3 ? receiver : stranger, receiver);
            fund(config, 1_000);
            rows[i] = voucher(config, uint128(i + 1), uint128(i + 1));
        }
        vm.prank(receiver);
        channels.claim(rows);
        uint256[4] memory expected = [uint256(1 + 3), 2, 5, 4 + 6];
        for (uint256 i; i < 4; ++i) {
            (uint128 claimed,) = channels.receivers(i < 2 ? receiver : stranger, assets[i % 2]);
            assertEq(claimed, expected[i]);
        }
    }

    function test_multicallClaimsAndRefundsTogether() public {
        IX402BatchSettlement.ChannelConfig memory config = configOf(address(stable), 1);
        bytes32 id = fund(config, 100);
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, 60, 60));
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(channels.claimWithSignature, (rows, sign(receiverKey, channels.getClaimBatchDigest(rows))));
        calls[1] = abi.encodeCall(channels.refundWithSignature, (config, 100, 0, sign(receiverKey, channels.getRefundDigest(id, 0, 100))));
        vm.prank(stranger);
        channels.multicall(calls);
        assertEq(stable.balanceOf(payer), 40);
        (uint128 balance, uint128 claimed) = channels.channels(id);
        assertEq(balance, 60);
        assertEq(claimed, 60);
    }

    function authorization(address to, uint256 amount, bytes32 nonce, uint256 salt) private view returns (bytes memory) {
        bytes32 typeHash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes32 hash = keccak256(abi.encode(typeHash, payer, to, amount, 0, block.timestamp + 60, nonce));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", DevStable(address(stable)).DOMAIN_SEPARATOR(), hash));
        return abi.encode(0, block.timestamp + 60, salt, sign(payerKey, digest));
    }
}
