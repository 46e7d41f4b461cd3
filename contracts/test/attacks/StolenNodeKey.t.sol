// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice A thief has alice's node key, and is client and reporter of deals that it signs with itself. Whatever it agrees, proves, loses and
/// reports, it ends with no more than it began with: it burns alice's stake, up to her lock limit, and pays her for each proven period.
/// The honest twin: bob's client, who lost a file that it had paid for, is compensated.
contract StolenNodeKeyAttack is StorageFixture {
    uint256 private constant SEED = 7; // equal leaves: proofs are cheap
    uint96 private constant LIMIT = 3e18;
    address private thief;
    address private reporter = makeAddr("the thief's reporter");

    /// Everything there is, by who has it.
    struct Books {
        uint256 thief;
        uint256 beneficiary;
        uint256 stake;
        uint256 supply;
    }

    function setUp() public override {
        super.setUp();
        (thief, clientSecret) = makeAddrAndKey("thief");
        client = thief;
        fund(thief, 1_000_000e18);
    }

    function books() private view returns (Books memory b) {
        b.thief = token.balanceOf(thief) + funds(thief) + claimable(thief) + claimable(reporter);
        b.beneficiary = funds(makeAddrView("alice"));
        (b.stake,) = vault.ownStake(alice);
        b.supply = token.totalSupply();
    }

    function makeAddrView(string memory name) private pure returns (address) {
        return vm.addr(uint256(keccak256(abi.encodePacked(name))));
    }

    function termsOf(uint64 operatorId, uint128 price, uint128 collateral, uint32 periods)
        private
        returns (IStorageMarket.DealTerms memory terms)
    {
        terms = termsFor(operatorId, SEED, 5, 1000, periods);
        (terms.pricePerPeriod, terms.collateral) = (price, collateral);
    }

    function provePeriods(uint64 operatorId, uint64 dealId, uint256 proven) private {
        uint64 end = market.deal(dealId).firstPeriod + uint64(proven);
        while (period() < end) {
            toWindow(period());
            prove(operatorId);
            toStart(period() + 1);
        }
    }

    function testFuzz_a_stolen_node_key_gains_nothing(uint128 price, uint128 collateral, uint8 proven, uint8 way) public {
        price = uint128(bound(price, 1, 20_000e18));
        collateral = uint128(bound(collateral, 1, 100e18 - BOND));
        proven = proven % 6;
        Books memory before = books();
        uint64 dealId = openDeal(termsOf(alice, price, collateral, 40), SEED);
        activate(dealId);
        provePeriods(alice, dealId, proven);
        endAs(dealId, way % 5);
        Books memory now_ = books();
        assertLe(now_.thief, before.thief);
        assertGe(now_.beneficiary, before.beneficiary + uint256(price) * proven); // she is paid for what was proven with her key
        uint256 burnt = before.supply - now_.supply;
        assertEq(before.thief + before.beneficiary + before.stake, now_.thief + now_.beneficiary + now_.stake + burnt);
        assertGe(burnt * 2, before.stake - now_.stake);
    }

    /// The ways in which a deal can be made to pay: surrendered, left, challenged in vain, a fault that lasts, silence.
    function endAs(uint64 dealId, uint256 way) private {
        address stolen = nodeKey(alice);
        if (way == 0) {
            vm.prank(stolen);
            market.surrender(dealId);
        } else if (way == 1) {
            if (possession.standing(alice).provenThrough <= period()) proveNext(alice);
            bytes memory openings = openPiece(leafOf(dealId), SEED, seedOf(market.recentSeedTime()), 4);
            vm.prank(stolen);
            market.leave(dealId, openings);
        } else if (way == 2) {
            vm.prank(thief);
            market.challenge(dealId);
            vm.warp(market.deal(dealId).challengedAt + 121);
        } else if (way == 3) {
            bytes memory path = tablePath(tables[alice], 0);
            vm.prank(stolen);
            market.declareFault(dealId, path);
            toStart(period() + 7);
        } else {
            toStart(period() + 6);
        }
        if (way < 2) return;
        vm.prank(reporter);
        market.terminate(dealId);
    }

    function test_what_a_stolen_node_key_burns_is_bounded_by_the_lock_limit() public {
        vm.prank(makeAddr("alice"));
        vault.setLockLimit(alice, LIMIT);
        assertEq(vault.availableOf(alice), LIMIT);
        IStorageMarket.DealTerms memory greedy = termsOf(alice, 1e18, 50e18, 100);
        bytes32 digest = desk.dealTermsDigest(greedy);
        bytes memory byThief = sign(clientSecret, digest);
        bytes memory byNode = sign(nodeSecret[alice], digest);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientUnlocked.selector, alice, 50e18 + uint256(BOND), LIMIT));
        desk.openDeal(greedy, CID, byThief, byNode);

        Books memory before = books();
        uint64 dealId = openDeal(termsOf(alice, 1e18, LIMIT - BOND, 100), SEED);
        activate(dealId);
        vm.prank(nodeKey(alice));
        market.surrender(dealId);
        Books memory now_ = books();
        assertEq(now_.thief, before.thief);
        assertEq(now_.stake, before.stake - (LIMIT - BOND));
        assertEq(now_.supply, before.supply - (LIMIT - BOND)); // all of it is burnt
        // the node key cannot raise the limit, nor can the thief; the owner can shut it out at once
        vm.prank(nodeKey(alice));
        vm.expectPartialRevert(IStakeVault.NotOperatorOwner.selector);
        vault.setLockLimit(alice, 0);
        vm.prank(thief);
        vm.expectPartialRevert(IStakeVault.NotOperatorOwner.selector);
        vault.setLockLimit(alice, 0);
    }

    function testFuzz_the_honest_twin_is_compensated_up_to_what_it_has_paid(uint128 price, uint8 proven) public {
        price = uint128(bound(price, 1, 1e18));
        proven = uint8(bound(proven, 1, 5));
        uint64 dealId = openDeal(termsOf(bob, price, 90e18, 40), SEED);
        activate(dealId);
        provePeriods(bob, dealId, proven);
        uint256 before = funds(thief);
        vm.prank(nodeKey(bob));
        market.surrender(dealId);
        uint256 paid = uint256(price) * proven;
        uint256 wanted = uint256(price) * (40 - proven + 4);
        assertEq(claimable(client), wanted < paid ? wanted : paid);
        assertEq(funds(client) - before, uint256(price) * (40 - proven) + BOND); // and what was not paid is back
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
        IStorageMarket.DealTerms memory terms = termsOf(bob, 1e18, collateral, 100);
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
