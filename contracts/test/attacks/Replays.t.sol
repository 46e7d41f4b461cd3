// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";
import {DealDesk} from "../../src/storage/DealDesk.sol";
import {IDealDesk} from "../../src/storage/IDealDesk.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageMarket} from "../../src/storage/StorageMarket.sol";
import {deployDealDesk, deployStorageMarket} from "../deploy/storage.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice Signatures and proofs used where, when or more often than they were made for.
contract ReplayAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint256 private constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    IStorageMarket.DealTerms private terms;
    bytes private byClient;
    bytes private byNode;

    function setUp() public override {
        super.setUp();
        terms = termsFor(alice, SEED, 5, 1000, 100);
        bytes32 digest = desk.dealTermsDigest(terms);
        (byClient, byNode) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
    }

    function assertBadSignature(DealDesk at, bytes memory first, bytes memory second) private {
        vm.expectPartialRevert(IStorageMarket.BadSignature.selector);
        at.openDeal(terms, CID, first, second);
    }

    /// The other signature over the same digest: (r, n - s, v ^ 1); and the short form of EIP-2098.
    function mirrored(bytes memory signature) private pure returns (bytes memory high, bytes memory short) {
        (bytes32 r, bytes32 s, uint8 v) = split(signature);
        high = abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        short = abi.encodePacked(r, bytes32(uint256(s) | (v == 28 ? 1 << 255 : 0)));
    }

    function split(bytes memory signature) private pure returns (bytes32 r, bytes32 s, uint8 v) {
        assembly ("memory-safe") {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
            v := byte(0, mload(add(signature, 96)))
        }
    }

    function test_an_offer_is_good_on_one_chain_at_one_market_and_once() public {
        uint256 home = block.chainid;
        vm.chainId(home + 1); // a fork
        assertBadSignature(desk, byClient, byNode);
        vm.chainId(home);
        StorageMarket next = deployStorageMarket(marketConfig(), registry, operators, vault, rails, possession, randomness, address(token));
        registry.set("storageMarket", address(next), true);
        assertBadSignature(deployDealDesk(next, operators), byClient, byNode);
        registry.set("storageMarket", address(market), true);
        (bytes memory high, bytes memory short) = mirrored(byClient);
        assertBadSignature(desk, high, byNode);
        assertBadSignature(desk, short, byNode);
        assertBadSignature(desk, byNode, byClient);
        // the twin
        desk.openDeal(terms, CID, byClient, byNode);
        vm.expectPartialRevert(IDealDesk.NonceUsed.selector);
        desk.openDeal(terms, CID, byClient, byNode);
    }

    function test_an_offer_of_a_node_key_that_was_replaced_is_void() public {
        (address fresh, uint256 secret) = makeAddrAndKey("fresh");
        address owner = makeAddr("alice");
        bytes memory consent = sign(secret, operators.nodeKeyConsentDigest(owner, fresh));
        vm.prank(owner);
        operators.setNodeKey(alice, fresh, consent);
        assertBadSignature(desk, byClient, byNode);
    }

    function test_an_extension_is_good_for_one_deal_and_one_end() public {
        uint64 one = activeDeal(alice, SEED, 50);
        uint64 two = activeDeal(alice, SEED + 1, 50);
        uint64 expiry = uint64(block.timestamp + 1 days);
        uint64 end = market.deal(one).endPeriod;
        assertEq(end, market.deal(two).endPeriod);
        bytes32 digest = typedDigest(
            keccak256(
                abi.encode(
                    keccak256("Extension(uint64 dealId,uint32 periods,uint64 endPeriod,uint64 expiry)"), one, uint32(10), end, expiry
                )
            )
        );
        bytes memory client_ = sign(clientSecret, digest);
        bytes memory node = sign(nodeSecret[alice], digest);
        vm.expectPartialRevert(IStorageMarket.BadSignature.selector);
        desk.extend(two, 10, expiry, client_, node);
        vm.expectPartialRevert(IStorageMarket.BadSignature.selector);
        desk.extend(one, 11, expiry, client_, node);
        desk.extend(one, 10, expiry, client_, node);
        vm.expectPartialRevert(IStorageMarket.BadSignature.selector);
        desk.extend(one, 10, expiry, client_, node);
        assertEq(market.deal(one).endPeriod, end + 10);
    }

    function test_leaves_of_the_activation_answer_no_challenge_and_those_of_another_deal_do_not_either() public {
        uint64 one = openDeal(alice, SEED, 50);
        uint64 seedAt = market.activationSeedTime(one);
        vm.warp(seedAt);
        bytes memory kept = openPiece(leafOf(one), SEED, seedOf(seedAt), 4);
        activate(one);
        uint64 two = activeDeal(alice, SEED, 50); // the same piece
        vm.prank(client);
        market.challenge(one);
        vm.prank(client);
        market.challenge(two);
        uint64 challengeAt = market.deal(one).challengedAt;
        assertEq(challengeAt, market.deal(two).challengedAt);
        vm.warp(challengeAt);
        bytes32 seed = seedOf(challengeAt);
        bytes memory ofTwo = openPiece(leafOf(two), SEED, seed, 4);
        bytes memory ofOne = openPiece(leafOf(one), SEED, seed, 4);
        vm.startPrank(nodeKey(alice));
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        market.answer(one, kept);
        vm.expectPartialRevert(IPossession.PiecePathWrong.selector);
        market.answer(one, ofTwo);
        market.answer(one, ofOne);
        market.answer(two, ofTwo);
        vm.stopPrank();
    }
}
