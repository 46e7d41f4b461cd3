// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../../src/chain/IRegistry.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {Possession} from "../../src/storage/Possession.sol";
import {DealDesk} from "../../src/storage/DealDesk.sol";
import {StorageMarket} from "../../src/storage/StorageMarket.sol";
import {deployDealDesk, deployPossession, deployStorageMarket} from "../deploy/storage.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice A vote replaces a faulty market. Whoever profits from the fault goes on opening and extending deals at the old one, so that it
/// always holds a lock and can never be retired. Deals that run finish under the old code; new ones are opened at the new market.
contract ReplacedMarketAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;

    function extensionOf(uint64 dealId, uint32 periods, uint64 expiry) private view returns (bytes[2] memory signatures) {
        bytes32 digest = typedDigest(
            keccak256(
                abi.encode(
                    keccak256("Extension(uint64 dealId,uint32 periods,uint64 endPeriod,uint64 expiry)"),
                    dealId,
                    periods,
                    market.deal(dealId).endPeriod,
                    expiry
                )
            )
        );
        return [sign(clientSecret, digest), sign(nodeSecret[alice], digest)];
    }

    function test_a_replaced_market_finishes_its_deals_takes_no_new_ones_and_is_retired() public {
        uint64 running = activeDeal(alice, SEED, 3);
        uint64 endPeriod = market.deal(running).endPeriod;
        StorageMarket old = market;
        Possession oldPossession = possession;
        Possession nextPossession = deployPossession(possessionConfig(), registry, operators, randomness);
        StorageMarket next =
            deployStorageMarket(marketConfig(), registry, operators, vault, rails, nextPossession, randomness, address(token));
        registry.set("possession", address(nextPossession), false);
        registry.set("storageMarket", address(next), true);
        DealDesk nextDesk = deployDealDesk(next, operators);

        IStorageMarket.DealTerms memory terms = termsFor(alice, SEED, 5, 1000, 100);
        bytes32 digest = desk.dealTermsDigest(terms);
        bytes memory byClient = sign(clientSecret, digest);
        bytes memory byNode = sign(nodeSecret[alice], digest);
        bytes[2] memory extension = extensionOf(running, 10, uint64(block.timestamp));
        bytes memory replaced = abi.encodeWithSelector(IStorageMarket.MarketReplaced.selector, address(next));
        vm.expectRevert(replaced);
        desk.openDeal(terms, CID, byClient, byNode);
        vm.expectRevert(replaced);
        desk.extend(running, 10, uint64(block.timestamp), extension[0], extension[1]);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.ModuleStillLocks.selector, address(old), uint256(COLLATERAL)));
        registry.retire(address(old));

        // the old deal goes on to its end, proven and paid
        while (period() < endPeriod) {
            proveNext(alice);
            toStart(period() + 1);
        }
        assertEq(address(oldPossession), address(possession));
        drop(running);
        assertEq(funds(makeAddr("alice")), 3 * uint256(PRICE));
        registry.retire(address(old));

        // the twin at the new market
        registry.set("dealDesk", address(nextDesk), false);
        terms.expiry = uint64(block.timestamp + 60);
        digest = nextDesk.dealTermsDigest(terms);
        (byClient, byNode) = (sign(clientSecret, digest), sign(nodeSecret[alice], digest));
        vm.prank(client);
        rails.approve(address(next), address(token), type(uint256).max);
        nextDesk.openDeal(terms, CID, byClient, byNode);
        assertEq(vault.lockedBy(address(next)), uint256(COLLATERAL) + BOND);
    }
}
