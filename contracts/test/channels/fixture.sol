// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {IX402BatchSettlement} from "../../src/token/IX402BatchSettlement.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {X402BatchSettlement} from "../../src/token/X402BatchSettlement.sol";
import {deployDevStable, deployNetworkToken, deployX402BatchSettlement} from "../deploy/token.sol";

/// @notice The channels contract with the network's token (this contract is its minter) at 2.5 % and a stable token.
abstract contract ChannelsFixture is Test {
    uint256 internal constant FEE_BPS = 250;
    uint40 internal constant DELAY = 1 days;

    NetworkToken internal token;
    DevStable internal stable;
    X402BatchSettlement internal channels;
    address internal payer;
    uint256 internal payerKey;
    address internal receiver;
    uint256 internal receiverKey;
    address internal stranger = makeAddr("stranger");

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        token = deployNetworkToken("Test", "TST", 2_000_000_000e18);
        stable = deployDevStable();
        channels = deployX402BatchSettlement(address(token), FEE_BPS);
        (payer, payerKey) = makeAddrAndKey("payer");
        (receiver, receiverKey) = makeAddrAndKey("receiver");
    }

    /// @dev A channel of `payer` to `receiver`; `salt` makes it another one.
    function configOf(address asset, uint256 salt) internal view returns (IX402BatchSettlement.ChannelConfig memory) {
        return IX402BatchSettlement.ChannelConfig(payer, payer, receiver, receiver, asset, DELAY, keccak256(abi.encode(salt)));
    }

    function give(address asset, address to, uint256 amount) internal {
        if (asset == address(token)) token.mint(to, amount);
        else deal(asset, to, stable.balanceOf(to) + amount, true);
    }

    function fund(IX402BatchSettlement.ChannelConfig memory config, uint128 amount) internal returns (bytes32) {
        give(config.token, config.payer, amount);
        vm.startPrank(config.payer);
        DevStable(config.token).approve(address(channels), amount);
        channels.deposit(config, amount, address(channels), "");
        vm.stopPrank();
        return channels.getChannelId(config);
    }

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function voucher(IX402BatchSettlement.ChannelConfig memory config, uint128 ceiling, uint128 total)
        internal
        view
        returns (IX402BatchSettlement.VoucherClaim memory)
    {
        bytes memory signature = sign(payerKey, channels.getVoucherDigest(channels.getChannelId(config), ceiling));
        return IX402BatchSettlement.VoucherClaim(IX402BatchSettlement.Voucher(config, ceiling), signature, total);
    }

    function one(IX402BatchSettlement.VoucherClaim memory row) internal pure returns (IX402BatchSettlement.VoucherClaim[] memory rows) {
        rows = new IX402BatchSettlement.VoucherClaim[](1);
        rows[0] = row;
    }

    function claim(IX402BatchSettlement.ChannelConfig memory config, uint128 total) internal {
        IX402BatchSettlement.VoucherClaim[] memory rows = one(voucher(config, total, total));
        vm.prank(config.receiver);
        channels.claim(rows);
    }
}
