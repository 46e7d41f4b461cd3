// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice A thief has alice's node key: it signs a deal with itself, surrenders it, and is compensated out of alice's stake. The owner's
/// lock limit bounds that; bob, with the same limit, works as before.
contract StolenNodeKeyAttack is StorageFixture {
    uint256 private constant SEED = 1 << 100;
    uint96 private constant LIMIT = 3e18;
    address private thief;

    function setUp() public override {
        super.setUp();
        (thief, clientSecret) = makeAddrAndKey("thief");
        client = thief;
        fund(thief, 1_000e18);
    }

    function termsOf(uint64 operatorId, uint128 collateral) private returns (IStorageMarket.DealTerms memory terms) {
        terms = termsFor(operatorId, SEED, 5, 1000, 100);
        (terms.pricePerPeriod, terms.collateral) = (1e18, collateral);
    }

    function test_a_stolen_node_key_takes_at_most_half_of_what_the_owner_lets_it_lock() public {
        vm.prank(makeAddr("alice"));
        vault.setLockLimit(alice, LIMIT);
        assertEq(vault.availableOf(alice), LIMIT);
        IStorageMarket.DealTerms memory greedy = termsOf(alice, 50e18);
        bytes32 digest = desk.dealTermsDigest(greedy);
        bytes memory byThief = sign(clientSecret, digest);
        bytes memory byNode = sign(nodeSecret[alice], digest);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, alice, 50e18 + uint256(BOND), LIMIT));
        desk.openDeal(greedy, CID, byThief, byNode);

        uint256 wealth = funds(thief);
        uint64 dealId = openDeal(termsOf(alice, LIMIT - BOND), SEED);
        activate(dealId);
        vm.prank(nodeKey(alice));
        market.surrender(dealId);
        assertEq(funds(thief), wealth);
        assertEq(claimable(thief), (LIMIT - BOND) / 2);
        (uint256 active,) = vault.ownStake(alice);
        assertEq(active, 100e18 - (LIMIT - BOND));
        // the node key cannot raise the limit, nor can the thief; the owner can shut it out at once
        vm.prank(nodeKey(alice));
        vm.expectPartialRevert(IStakeVault.NotOperatorOwner.selector);
        vault.setLockLimit(alice, 0);
        vm.prank(thief);
        vm.expectPartialRevert(IStakeVault.NotOperatorOwner.selector);
        vault.setLockLimit(alice, 0);
    }

    function test_without_a_limit_half_of_all_unlocked_stake_is_at_risk() public {
        // not a wish but the measure of the risk that decision 0003 names
        IStorageMarket.DealTerms memory terms = termsOf(alice, 100e18 - BOND);
        terms.pricePerPeriod = 1e18;
        uint64 dealId = openDeal(terms, SEED);
        activate(dealId);
        vm.prank(nodeKey(alice));
        market.surrender(dealId);
        assertEq(claimable(thief), (100e18 - BOND) / 2);
    }

    function test_a_stolen_node_key_moves_neither_exits_nor_keys_nor_earnings() public {
        address stolen = nodeKey(alice);
        vm.startPrank(stolen);
        vm.expectPartialRevert(IStakeVault.NotOperatorOwner.selector);
        vault.requestExit(alice, 1);
        vm.expectPartialRevert(IOperators.NotOwner.selector);
        operators.requestRotation(alice, IOperators.Role.Beneficiary, stolen);
        vm.expectPartialRevert(IOperators.NotOwner.selector);
        operators.setNodeKey(alice, stolen, "");
        vm.stopPrank();
    }

    function testFuzz_a_limit_bounds_all_locks_together_and_work_below_it_goes_on(uint96 limit, uint128 collateral) public {
        limit = uint96(bound(limit, 0, 200e18));
        collateral = uint128(bound(collateral, 1, 150e18));
        vm.prank(makeAddr("bob"));
        vault.setLockLimit(bob, limit);
        assertEq(vault.lockLimitOf(bob), limit);
        uint256 most = limit == 0 || limit > 100e18 ? 100e18 : limit;
        assertEq(vault.availableOf(bob), most);
        IStorageMarket.DealTerms memory terms = termsOf(bob, collateral);
        if (uint256(collateral) + BOND > most) {
            vm.expectPartialRevert(IStakeVault.InsufficientUnlocked.selector);
            this.openExternal(terms);
            return;
        }
        uint64 dealId = openDeal(terms, SEED);
        activate(dealId);
        assertEq(vault.lockedOf(bob), collateral);
        // a limit set below what is locked frees and breaks nothing
        vm.prank(makeAddr("bob"));
        vault.setLockLimit(bob, 1);
        assertEq(vault.availableOf(bob), 0);
        assertEq(vault.lockedOf(bob), collateral);
        vm.prank(nodeKey(bob));
        market.surrender(dealId);
        assertEq(vault.lockedOf(bob), 0);
    }

    function openExternal(IStorageMarket.DealTerms calldata terms) external {
        openDeal(terms, SEED);
    }
}
