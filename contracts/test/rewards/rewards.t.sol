// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IFeeBook, IFeeBurner, IStorageRewards} from "../../src/storage/IStorageRewards.sol";
import {ProofHooks} from "../../src/storage/ProofHooks.sol";
import {StorageRewards} from "../../src/storage/StorageRewards.sol";
import {IEmissionPolicy} from "../../src/token/IEmissionPolicy.sol";
import {deployStorageRewards} from "../deploy/storage.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice Says what fees were burnt, as the order book and the channels do.
contract FeesDouble is IFeeBook, IFeeBurner {
    mapping(uint64 => uint128) public feePerPeriod;
    mapping(uint64 => uint64) public claimOperator;
    mapping(address => uint256) public feesBurntOf;

    function setFee(uint64 dealId, uint128 fee) external {
        feePerPeriod[dealId] = fee;
    }

    function setClaim(uint64 dealId, uint64 operatorId) external {
        claimOperator[dealId] = operatorId;
    }

    function burn(address receiver, uint256 fee) external {
        feesBurntOf[receiver] += fee;
    }
}

/// @notice Gives what it holds to the rewards, or nothing while it is broken.
contract EmissionDouble {
    IERC20 public immutable token;
    address public rewards;
    bool public broken;

    constructor(IERC20 token_) {
        token = token_;
    }

    function aim(address rewards_, bool broken_) external {
        (rewards, broken) = (rewards_, broken_);
    }

    function mint() external returns (uint256 amount) {
        require(!broken, "broken");
        amount = token.balanceOf(address(this));
        token.transfer(rewards, amount);
    }
}

/// @notice A listener that burns all gas it is given.
contract HungryListener {
    fallback() external {
        while (true) {}
    }
}

abstract contract RewardsFixture is StorageFixture {
    uint256 internal constant SEED = 1 << 100;
    uint128 internal constant FEE = 1e15;

    FeesDouble internal fees;
    EmissionDouble internal emission;
    StorageRewards internal rewards;

    function rewardsConfig() internal view virtual returns (IStorageRewards.Config memory) {
        return IStorageRewards.Config({
            storageShareBps: 5_000,
            retrievalShareBps: 4_000,
            baseBps: 2_000,
            streakPeriods: 4,
            vestSeconds: 1_000_000,
            bucketSeconds: 10_000
        });
    }

    function setUp() public virtual override {
        super.setUp();
        fees = new FeesDouble();
        emission = new EmissionDouble(token);
        token.mint(address(emission), 1_000e18);
        registry.set("orderBook", address(fees), false);
        registry.set("channels", address(fees), false);
        useRewards(rewardsConfig());
    }

    function useRewards(IStorageRewards.Config memory c) internal {
        rewards = newRewards(c);
        emission.aim(address(rewards), false);
        registry.set("rewards", address(rewards), false);
    }

    function newRewards(IStorageRewards.Config memory c) internal returns (StorageRewards) {
        return deployStorageRewards(c, registry, operators, possession, market, IEmissionPolicy(address(emission)));
    }

    /// A deal for which a fee was burnt, active.
    function paidDeal(uint64 operatorId, uint256 pieceSeed, uint32 periods, uint128 fee) internal returns (uint64 dealId) {
        dealId = openDeal(operatorId, pieceSeed, periods);
        fees.setFee(dealId, fee);
        activate(dealId);
    }

    function owed(uint64 operatorId) internal view returns (uint256) {
        return rewards.owedTo(operators.beneficiaryOf(operatorId));
    }
}

contract StorageRewardsTest is RewardsFixture {
    function test_a_proof_is_rewarded_in_its_own_transaction_by_the_fee_of_its_period_and_the_streak() public {
        uint64 dealId = paidDeal(alice, SEED, 8, FEE);
        uint64 first = market.deal(dealId).firstPeriod;
        toWindow(first - 1);
        prove(alice); // the period in which it came in is not paid, nor rewarded
        assertEq(owed(alice), 0);
        uint256 expected;
        uint16[6] memory reliability = [uint16(4_000), 6_000, 8_000, 10_000, 10_000, 10_000]; // the unpaid proof was the first of the row
        for (uint64 i; i < 6; ++i) {
            toWindow(first + i);
            bytes memory openings = openTable(tables[alice], alice, first + i, 1, false);
            vm.expectEmit(address(rewards));
            emit IStorageRewards.PointsAdded(
                alice, first + i, makeAddr("alice"), FEE, reliability[i], FEE * uint256(reliability[i]) / 20_000
            );
            proveWith(alice, openings);
            assertEq(rewards.reliabilityBps(alice), reliability[i]);
            expected += FEE * uint256(reliability[i]) / 20_000;
            assertEq(owed(alice), expected);
        }
        assertEq(rewards.recordOf(alice).earned, expected);
        assertEq(rewards.obligations(), expected);
    }

    function test_a_deal_without_a_burnt_fee_earns_nothing_whatever_its_size() public {
        activeDeal(alice, SEED, 8);
        for (uint256 i; i < 5; ++i) {
            proveNext(alice);
        }
        assertEq(owed(alice), 0);
    }

    function test_a_miss_costs_the_period_and_the_streak() public {
        uint64 dealId = paidDeal(alice, SEED, 20, FEE);
        uint64 first = market.deal(dealId).firstPeriod;
        for (uint64 p = first - 1; p < first + 4; ++p) {
            toWindow(p);
            prove(alice);
        }
        assertEq(rewards.reliabilityBps(alice), 10_000);
        uint256 before = owed(alice);
        toWindow(first + 5); // nothing proven in first + 4
        bytes memory now_ = openTable(tables[alice], alice, first + 5, 2, false);
        bytes memory late = openTable(tables[alice], alice, first + 4, 1, true);
        proveWith(alice, bytes.concat(now_, late));
        assertEq(owed(alice) - before, uint256(FEE) * 2_000 / 20_000);
        assertEq(rewards.reliabilityBps(alice), 2_000);
    }

    function test_what_was_taken_out_earns_no_more_and_what_comes_back_counts_from_the_next_period() public {
        uint64 dealId = paidDeal(alice, SEED, 20, FEE);
        uint64 keep = paidDeal(alice, SEED + 1, 20, 3 * FEE);
        uint64 first = market.deal(dealId).firstPeriod;
        for (uint64 p = first - 1; p <= first; ++p) {
            toWindow(p);
            prove(alice);
        }
        assertEq(rewards.recordOf(alice).ratePerPeriod, 4 * FEE);
        toStart(first + 1);
        uint32 slot = market.deal(dealId).slot;
        bytes memory path = tablePath(tables[alice], slot);
        vm.prank(nodeKey(alice));
        market.declareFault(dealId, path);
        delete tables[alice][slot];
        toWindow(first + 1);
        prove(alice);
        assertEq(rewards.recordOf(alice).ratePerPeriod, 3 * FEE);
        toWindow(first + 2);
        prove(alice);
        bytes32 seed = seedOf(market.recentSeedTime());
        bytes memory openings = openPiece(leafOf(dealId), SEED, seed, marketConfig().activationLeaves);
        path = tablePath(tables[alice], slot);
        vm.prank(nodeKey(alice));
        market.recoverFault(dealId, openings, slot, path);
        put(alice, slot, leafOf(dealId));
        for (uint64 p = first + 3; p < first + 5; ++p) {
            toWindow(p);
            prove(alice);
            assertEq(rewards.recordOf(alice).ratePerPeriod, 4 * FEE);
        }
        assertEq(market.deal(keep).operatorId, alice);
    }

    function test_after_its_end_a_deal_that_nobody_drops_earns_nothing() public {
        uint64 dealId = paidDeal(alice, SEED, 2, FEE);
        uint64 end = market.deal(dealId).endPeriod;
        for (uint256 i; i < 3; ++i) {
            proveNext(alice);
        }
        uint256 before = owed(alice);
        toWindow(end);
        prove(alice);
        assertEq(owed(alice), before);
        assertEq(rewards.recordOf(alice).ratePerPeriod, 0);
    }

    function test_after_a_long_pause_the_rate_is_brought_forward_by_anyone() public {
        paidDeal(alice, SEED, 200, FEE);
        proveNext(alice);
        IStorageMarket.Deal memory d = market.deal(1);
        toStart(period() + 1);
        bytes memory openings = openPiece(leafOf(1), SEED, seedOf(market.recentSeedTime()), marketConfig().activationLeaves);
        vm.prank(nodeKey(alice));
        market.leave(1, openings);
        drop(1);
        vm.warp(possession.periodStart(d.endPeriod - 50));
        uint64 next = paidDeal(alice, SEED + 1, 20, FEE);
        uint64 first = market.deal(next).firstPeriod;
        toWindow(first - 1);
        prove(alice);
        toWindow(first);
        prove(alice);
        assertEq(owed(alice), 0); // still behind
        vm.prank(makeAddr("anyone"));
        rewards.catchUp(alice, 1_000);
        toWindow(first + 1);
        prove(alice);
        assertGt(owed(alice), 0);
    }

    function test_whoever_had_nothing_for_long_is_not_behind() public {
        paidDeal(alice, SEED, 2, FEE);
        proveNext(alice);
        uint64 end = market.deal(1).endPeriod;
        for (uint64 p = end - 2; p < end; ++p) {
            toWindow(p);
            prove(alice);
        }
        toStart(end);
        drop(1);
        vm.warp(possession.periodStart(end + 500));
        uint64 next = paidDeal(alice, SEED + 1, 20, FEE);
        uint64 first = market.deal(next).firstPeriod;
        uint256 before = owed(alice);
        toWindow(first - 1);
        prove(alice);
        toWindow(first);
        prove(alice);
        assertGt(owed(alice), before);
    }

    function testGas_a_proof_with_its_reward() public {
        paidDeal(alice, SEED, 20, FEE);
        for (uint256 i; i < 4; ++i) {
            proveNext(alice);
        }
        vm.snapshotGasLastCall("Possession", "prove one piece with its reward");
    }

    /// The hostile form: one client with many operators loses its deal on purpose, repairs it by its next operator, and so on; every
    /// table still proves the piece, and each would count the one fee that was burnt.
    function test_a_repair_counts_no_fee_again_not_even_when_it_comes_back_after_the_claim() public {
        uint64 lost = paidDeal(alice, SEED, 20, FEE);
        uint64 repair = openDeal(bob, SEED + 1, 10);
        fees.setFee(repair, FEE);
        fees.setClaim(repair, bob);
        activate(repair);
        fees.setClaim(repair, 0);
        uint64 first = market.deal(lost).firstPeriod;
        for (uint64 p = first - 1; p <= first; ++p) {
            toWindow(p);
            prove(alice);
            prove(bob);
        }
        assertEq(rewards.recordOf(alice).ratePerPeriod, FEE);
        vm.startPrank(address(possession));
        rewards.pieceRemoved(bob, repair);
        rewards.pieceInserted(bob, repair);
        vm.stopPrank();
        for (uint64 p = first + 1; p <= first + 2; ++p) {
            toWindow(p);
            prove(alice);
            prove(bob);
        }
        assertEq(owed(bob), 0);
        assertGt(owed(alice), 0);
    }

    function test_retrieval_is_rewarded_once_by_what_it_burnt() public {
        address retriever = makeAddr("retriever");
        fees.burn(retriever, 1e18);
        assertEq(rewards.rewardRetrieval(retriever), 4e17);
        assertEq(rewards.rewardRetrieval(retriever), 0);
        fees.burn(retriever, 5);
        assertEq(rewards.rewardRetrieval(retriever), 2);
        assertEq(rewards.owedTo(retriever), 4e17 + 2);
        assertEq(rewards.rewardRetrieval(makeAddr("nobody")), 0);
    }

    function test_rewards_vest_evenly_from_the_end_of_their_bucket() public {
        address who = makeAddr("retriever");
        fees.burn(who, 1e18);
        rewards.rewardRetrieval(who);
        uint256 start = (block.timestamp / 10_000 + 1) * 10_000;
        vm.prank(who);
        vm.expectRevert(abi.encodeWithSelector(IStorageRewards.NothingVested.selector, who));
        rewards.claim(who);
        vm.warp(start + 250_000);
        assertEq(rewards.vestedOf(who), 1e17);
        vm.prank(who);
        assertEq(rewards.claim(who), 1e17);
        assertEq(token.balanceOf(who), 1e17);
        assertEq(rewards.vestedOf(who), 0);
        vm.warp(start + 5_000_000);
        assertEq(rewards.vestedOf(who), 3e17);
        vm.prank(who);
        rewards.claim(makeAddr("purse"));
        assertEq(token.balanceOf(makeAddr("purse")), 3e17);
        assertEq(rewards.owedTo(who), 0);
        vm.prank(who);
        vm.expectRevert(abi.encodeWithSelector(IStorageRewards.NothingVested.selector, who));
        rewards.claim(who);
        assertEq(rewards.obligations(), 0);
        assertEq(rewards.vestedOf(makeAddr("nobody")), 0);
        vm.prank(makeAddr("nobody"));
        vm.expectRevert(abi.encodeWithSelector(IStorageRewards.NothingVested.selector, makeAddr("nobody")));
        rewards.claim(who);
    }

    function test_more_than_there_is_is_not_owed_and_a_broken_emission_stops_no_proof() public {
        emission.aim(address(rewards), true);
        token.mint(address(rewards), 7);
        uint64 dealId = paidDeal(alice, SEED, 8, FEE);
        for (uint256 i; i < 2; ++i) {
            proveNext(alice);
        }
        assertEq(owed(alice), 7);
        assertEq(rewards.obligations(), 7);
        assertEq(possession.standing(alice).provenThrough, market.deal(dealId).firstPeriod + 1);
    }

    function test_only_the_possession_contract_is_listened_to() public {
        bytes memory refused = abi.encodeWithSelector(IStorageRewards.NotPossession.selector, address(this));
        vm.expectRevert(refused);
        rewards.pieceInserted(alice, 1);
        vm.expectRevert(refused);
        rewards.pieceRemoved(alice, 1);
        vm.expectRevert(refused);
        rewards.periodProven(alice, 1);
    }

    function test_a_listener_that_hangs_or_is_missing_stops_nothing_and_too_little_gas_is_refused() public {
        registry.set("rewards", address(new HungryListener()), false);
        uint64 dealId = activeDeal(alice, SEED, 8);
        proveNext(alice);
        assertEq(market.deal(dealId).slot, 0);
        uint64 p = period() + 1;
        toWindow(p);
        bytes memory openings = openTable(tables[alice], alice, p, 1, false);
        vm.prank(nodeKey(alice));
        vm.expectPartialRevert(ProofHooks.TooLittleGas.selector);
        possession.prove{gas: 450_000}(alice, p, openings, "", "", "");
        proveWith(alice, openings);
    }

    function test_a_config_beyond_its_bounds_is_refused() public {
        IStorageRewards.Config memory c = rewardsConfig();
        c.storageShareBps = 9_001;
        refuse(c, "shareBps", 9_001, 9_000);
        (c.storageShareBps, c.retrievalShareBps) = (0, 10_000);
        refuse(c, "shareBps", 10_000, 9_000);
        (c.retrievalShareBps, c.baseBps) = (0, 10_001);
        refuse(c, "baseBps", 10_001, 10_000);
        (c.baseBps, c.streakPeriods) = (0, 0);
        refuse(c, "streakPeriods", 0, 1);
        (c.streakPeriods, c.bucketSeconds) = (1, 0);
        refuse(c, "bucketSeconds", 0, 1);
        (c.bucketSeconds, c.vestSeconds) = (10, 9);
        refuse(c, "vestSeconds", 9, 10);
        c.vestSeconds = 10;
        assertEq(newRewards(c).config().vestSeconds, 10);
    }

    function refuse(IStorageRewards.Config memory c, string memory field, uint256 got, uint256 limit) private {
        vm.expectRevert(abi.encodeWithSelector(IStorageRewards.BadConfig.selector, field, got, limit));
        newRewards(c);
    }
}

/// @notice Wash trading: whoever is client, provider and retriever at once, under many names, at any parameters that the bounds allow,
/// gets back less than it burnt; the honest twin that idles burns nothing and gets nothing.
contract WashTradeAttack is RewardsFixture {
    /// forge-config: default.fuzz.runs = 32
    function testFuzz_rewards_never_exceed_the_share_of_the_fees_burnt(
        uint16 share,
        uint16 base,
        uint16 streak,
        uint128 fee,
        uint256 moves,
        uint8 names
    ) public {
        IStorageRewards.Config memory c = rewardsConfig();
        c.storageShareBps = uint16(bound(share, 0, rewards.SHARE_MAX_BPS()));
        c.retrievalShareBps = uint16(bound(uint256(share) * 7, 0, rewards.SHARE_MAX_BPS()));
        (c.baseBps, c.streakPeriods) = (uint16(bound(base, 0, 10_000)), uint16(bound(streak, 1, 50)));
        fee = uint128(bound(fee, 0, 1e18));
        useRewards(c);
        uint256 burnt;
        uint256 got;
        uint32 periods = uint32(2 + moves % 7);
        uint64 wash = paidDeal(alice, SEED, periods, fee);
        uint64 other = paidDeal(bob, SEED + 1, periods + 1, fee / 3);
        burnt = uint256(fee) * periods + uint256(fee / 3) * (periods + 1);
        for (uint256 i; i < 12; ++i) {
            // proves, or stays away for a period, as the moves say
            uint64 p = period();
            if (possession.standing(alice).provenThrough > p || moves >> i & 1 == 1) ++p;
            toWindow(p);
            proveAny(alice, p);
            proveAny(bob, p);
        }
        for (uint256 i; i < names % 8; ++i) {
            address name = address(uint160(uint256(keccak256(abi.encode(names, i)))));
            fees.burn(name, fee);
            burnt += fee;
            got += rewards.rewardRetrieval(name) + rewards.rewardRetrieval(name);
        }
        got += owed(alice) + owed(bob);
        assertLe(got * 10_000, burnt * rewards.SHARE_MAX_BPS());
        if (burnt != 0) assertLt(got, burnt);
        assertGe(token.balanceOf(address(rewards)), rewards.obligations());
        assertEq(market.deal(wash).operatorId + market.deal(other).operatorId, alice + bob);
    }

    function proveAny(uint64 operatorId, uint64 p) private {
        if (!possession.stands(operatorId) || possession.standing(operatorId).provenThrough > p) return;
        possession.sync(operatorId);
        if (!possession.stands(operatorId)) return;
        uint64 miss = possession.standing(operatorId).openMiss;
        bytes memory openings = openTable(tables[operatorId], operatorId, p, miss == 0 ? 1 : 2, false);
        if (miss != 0) openings = bytes.concat(openings, openTable(tables[operatorId], operatorId, miss - 1, 1, true));
        proveWith(operatorId, openings);
    }
}
