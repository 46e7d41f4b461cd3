// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IX402BatchSettlement} from "../../src/token/IX402BatchSettlement.sol";
import {X402BatchSettlement} from "../../src/token/X402BatchSettlement.sol";
import {ChannelsFixture} from "./fixture.sol";

/// @notice Payers and receivers, every one of them hostile: they sign anything, claim anything, and call for channels of others too.
contract ChannelsHandler is Test {
    X402BatchSettlement private immutable channels;
    address[2] public assets;
    uint256[4] private keys;
    address[4] public actors;
    uint256 private constant CHANNELS = 12;
    /// What each actor put in and took out, by token; and the highest voucher that each channel's payer ever signed.
    mapping(address actor => mapping(address asset => uint256)) public paidIn;
    mapping(address actor => mapping(address asset => uint256)) public takenOut;
    mapping(bytes32 channelId => uint256) public signedMost;
    mapping(bytes32 channelId => uint256) public depositedInto;
    mapping(bytes32 channelId => uint256) public givenBack;

    constructor(X402BatchSettlement channels_, address[2] memory assets_) {
        (channels, assets) = (channels_, assets_);
        for (uint256 i; i < 4; ++i) {
            (actors[i], keys[i]) = makeAddrAndKey(string.concat("actor", vm.toString(i)));
        }
    }

    function channelCount() external pure returns (uint256) {
        return CHANNELS;
    }

    function configAt(uint256 index) public view returns (IX402BatchSettlement.ChannelConfig memory) {
        address payer = actors[index % 4];
        address receiver = actors[(index / 4 + index + 1) % 4];
        return IX402BatchSettlement.ChannelConfig(payer, payer, receiver, receiver, assets[index % 2], 1 hours, bytes32(index));
    }

    function idAt(uint256 index) public view returns (bytes32) {
        return channels.getChannelId(configAt(index));
    }

    function deposit(uint256 index, uint96 amount) external {
        index %= CHANNELS;
        amount = uint96(bound(amount, 1, 1e24));
        IX402BatchSettlement.ChannelConfig memory config = configAt(index);
        deal(config.token, config.payer, IERC20(config.token).balanceOf(config.payer) + amount, true);
        vm.startPrank(config.payer);
        IERC20(config.token).approve(address(channels), amount);
        channels.deposit(config, amount, address(channels), "");
        vm.stopPrank();
        paidIn[config.payer][config.token] += amount;
        depositedInto[idAt(index)] += amount;
    }

    /// The voucher may be overdrawn, signed by the wrong key, or sent by the wrong actor.
    function claim(uint256 index, uint256 other, uint128 ceiling, uint128 total, uint256 seed) external {
        (index, other) = (index % CHANNELS, other % CHANNELS);
        IX402BatchSettlement.VoucherClaim[] memory rows = new IX402BatchSettlement.VoucherClaim[](seed % 2 + 1);
        rows[0] = voucher(index, ceiling, total, seed);
        if (rows.length == 2) rows[1] = voucher(other, ceiling / 2, total / 2, seed >> 8);
        address sender = seed >> 16 & 7 == 0 ? actors[seed % 4] : rows[0].voucher.channel.receiver;
        address[4] memory all = actors;
        uint256[4] memory before;
        for (uint256 i; i < 4; ++i) {
            before[i] = IERC20(rows[0].voucher.channel.token).balanceOf(all[i]);
        }
        vm.prank(sender);
        if (seed >> 20 & 1 == 0) try channels.claim(rows) {} catch {} else try channels.claimAndSettle(rows) {} catch {}
        for (uint256 i; i < 4; ++i) {
            takenOut[all[i]][rows[0].voucher.channel.token] += IERC20(rows[0].voucher.channel.token).balanceOf(all[i]) - before[i];
        }
    }

    function settle(uint256 seed) external {
        (address receiver, address asset) = (actors[seed % 4], assets[(seed >> 8) % 2]);
        uint256 before = IERC20(asset).balanceOf(receiver);
        channels.settle(receiver, asset);
        takenOut[receiver][asset] += IERC20(asset).balanceOf(receiver) - before;
    }

    function initiate(uint256 index, uint128 amount, uint256 seed) external {
        IX402BatchSettlement.ChannelConfig memory config = configAt(index % CHANNELS);
        (uint128 balance,) = channels.channels(idAt(index % CHANNELS));
        vm.prank(seed % 4 == 0 ? actors[(seed >> 8) % 4] : config.payer);
        try channels.initiateWithdraw(config, uint128(bound(amount, 0, uint256(balance) + 1))) {} catch {}
    }

    function finalize(uint256 index, uint256 seed) external {
        give(index % CHANNELS, seed, abi.encodeCall(channels.finalizeWithdraw, (configAt(index % CHANNELS))), true);
    }

    function refund(uint256 index, uint128 amount, uint256 seed) external {
        give(index % CHANNELS, seed, abi.encodeCall(channels.refund, (configAt(index % CHANNELS), amount)), false);
    }

    function wait(uint16 time) external {
        vm.warp(block.timestamp + time % 2 hours);
    }

    function give(uint256 index, uint256 seed, bytes memory call, bool byPayer) private {
        IX402BatchSettlement.ChannelConfig memory config = configAt(index);
        uint256 before = IERC20(config.token).balanceOf(config.payer);
        vm.prank(seed % 4 == 0 ? actors[(seed >> 8) % 4] : byPayer ? config.payer : config.receiver);
        (bool done,) = address(channels).call(call);
        uint256 got = IERC20(config.token).balanceOf(config.payer) - before;
        assertTrue(done || got == 0);
        takenOut[config.payer][config.token] += got;
        givenBack[idAt(index)] += got;
    }

    function voucher(uint256 index, uint128 ceiling, uint128 total, uint256 seed)
        private
        returns (IX402BatchSettlement.VoucherClaim memory row)
    {
        IX402BatchSettlement.ChannelConfig memory config = configAt(index);
        bytes32 id = idAt(index);
        (uint128 balance,) = channels.channels(id);
        ceiling = uint128(bound(ceiling, 0, uint256(balance) * 5 / 4));
        total = uint128(bound(total, 0, uint256(ceiling) * 9 / 8));
        uint256 signer = seed >> 24 & 7 == 0 ? (seed >> 32) % 4 : index % 4;
        if (signer == index % 4 && ceiling > signedMost[id]) signedMost[id] = ceiling;
        bytes memory signature = sign(keys[signer], channels.getVoucherDigest(id, ceiling));
        row = IX402BatchSettlement.VoucherClaim(IX402BatchSettlement.Voucher(config, ceiling), signature, total);
    }

    function sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }
}

contract ChannelsInvariants is ChannelsFixture {
    ChannelsHandler private handler;

    function setUp() public override {
        super.setUp();
        handler = new ChannelsHandler(channels, [address(token), address(stable)]);
        targetContract(address(handler));
    }

    /// forge-config: default.invariant.fail-on-revert = true
    function invariant_whatIsHeldIsWhatIsOwed() public view {
        address[2] memory assets = [address(token), address(stable)];
        for (uint256 a; a < 2; ++a) {
            uint256 owed;
            for (uint256 i; i < handler.channelCount(); ++i) {
                if (handler.configAt(i).token != assets[a]) continue;
                (uint128 balance, uint128 claimed) = channels.channels(handler.idAt(i));
                assertLe(claimed, balance);
                owed += balance - claimed;
            }
            for (uint256 i; i < 4; ++i) {
                (uint128 claimed, uint128 settled) = channels.receivers(handler.actors(i), assets[a]);
                assertLe(settled, claimed);
                owed += claimed - settled;
            }
            assertEq(IERC20(assets[a]).balanceOf(address(channels)), owed);
        }
    }

    function invariant_nobodyTakesMoreThanIsTheirs() public view {
        address[2] memory assets = [address(token), address(stable)];
        for (uint256 a; a < 2; ++a) {
            for (uint256 p; p < 4; ++p) {
                (address actor, uint256 mine) = (handler.actors(p), 0);
                // At most: what was signed to me and covered, and what I put in and nobody claimed.
                for (uint256 i; i < handler.channelCount(); ++i) {
                    IX402BatchSettlement.ChannelConfig memory config = handler.configAt(i);
                    if (config.token != assets[a]) continue;
                    bytes32 id = handler.idAt(i);
                    (uint128 balance, uint128 claimed) = channels.channels(id);
                    assertLe(claimed, handler.signedMost(id));
                    assertEq(balance, handler.depositedInto(id) - handler.givenBack(id));
                    if (config.receiver == actor) mine += claimed;
                    if (config.payer == actor) mine += handler.givenBack(id);
                }
                uint256 burnt = a == 0 ? channels.feesBurntOf(actor) : 0;
                assertLe(handler.takenOut(actor, assets[a]) + burnt, mine);
            }
        }
    }
}
