// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IStorageRewards} from "../../src/storage/IStorageRewards.sol";
import {StorageRewards} from "../../src/storage/StorageRewards.sol";
import {FilecoinEmission} from "../../src/token/FilecoinEmission.sol";
import {IEmissionPolicy} from "../../src/token/IEmissionPolicy.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {deployRegistry} from "../deploy/chain.sol";
import {deployStorageRewards} from "../deploy/storage.sol";
import {deployFilecoinEmission} from "../deploy/token.sol";

/// @notice Everything around the rewards, at will: registry, operators, possession, market, order book and channels, played by one
/// contract that also keeps a naive model of what each period of each operator is worth.
abstract contract World is Test {
    uint64 internal constant GENESIS = 1_700_000_000;
    uint64 internal constant PERIOD = 300;

    struct Planned {
        uint64 operatorId;
        uint64 firstPeriod;
        uint64 endPeriod;
        uint128 fee;
        bool claim;
        bool inside;
    }

    IEmissionPolicy public emission;
    StorageRewards public rewards;
    Planned[] public deals; // number 0 is deal 1
    mapping(uint64 operatorId => mapping(uint64 period => uint256)) public worth;
    mapping(uint64 dealId => mapping(uint64 period => bool)) public counted;
    mapping(uint64 operatorId => mapping(uint64 period => bool)) public proven;
    mapping(address receiver => uint256) public feesBurntOf;
    uint256 public burnt;

    function get(bytes32) external view returns (address) {
        return address(this);
    }

    function beneficiaryOf(uint64 operatorId) public pure returns (address) {
        return address(uint160(0xBEEF0000 + operatorId));
    }

    function periodAt(uint256 time) public pure returns (uint64) {
        return uint64((time - GENESIS) / PERIOD);
    }

    function misses(uint64 operatorId, uint64 from, uint64 to) external view returns (uint64 unpaid, uint64 charged) {
        for (; from < to; ++from) {
            if (!proven[operatorId][from]) ++unpaid;
        }
        return (unpaid, unpaid);
    }

    function deal(uint64 dealId) external view returns (IStorageMarket.Deal memory d) {
        Planned storage p = deals[dealId - 1];
        (d.operatorId, d.firstPeriod, d.endPeriod) = (p.operatorId, p.firstPeriod, p.endPeriod);
    }

    function feePerPeriod(uint64 dealId) external view returns (uint128) {
        return deals[dealId - 1].fee;
    }

    function claimOperator(uint64 dealId) external view returns (uint64) {
        return deals[dealId - 1].claim ? 1 : 0;
    }

    function current() public view returns (uint64) {
        return periodAt(block.timestamp);
    }

    function addDeal(Planned memory p) internal returns (uint64 dealId) {
        deals.push(p);
        dealId = uint64(deals.length);
        if (!p.claim) burnt += uint256(p.fee) * (p.endPeriod - p.firstPeriod);
        rewards.pieceInserted(p.operatorId, dealId);
    }
}

/// @notice Moves of hostile actors: deals with any terms, pieces that come and go, silence, claims by and for everyone, and calls of
/// everything that is open to anyone, in any order.
contract RewardsHandler is World {
    uint256 public granted;
    uint256 public claimed;

    constructor() {
        vm.warp(GENESIS);
        Registry registry = deployRegistry(address(this));
        emission = deployFilecoinEmission(registry, "Test", "TST", new NetworkToken.Allocation[](0));
        rewards = newRewards(
            IStorageRewards.Config({
                storageShareBps: 9_000, retrievalShareBps: 9_000, baseBps: 3_000, streakPeriods: 3, vestSeconds: 3_000, bucketSeconds: 700
            })
        );
        registry.set("rewards", address(rewards), false);
    }

    function newRewards(IStorageRewards.Config memory c) private returns (StorageRewards) {
        address here = address(this);
        return deployStorageRewards(c, IRegistry(here), IOperators(here), IPossession(here), IStorageMarket(here), emission);
    }

    function open(uint64 operatorId, uint64 delay, uint64 periods, uint128 fee, bool claim) external {
        if (deals.length >= 12) return;
        uint64 first = current() + 1 + delay % 3;
        fee = uint128(bound(fee, 0, 1e24)); // up to more than the emission brings
        addDeal(Planned(1 + operatorId % 3, first, first + 1 + periods % 100, fee, claim && fee % 2 == 0, true));
        note(uint64(deals.length), current() + 1);
    }

    function remove(uint64 which) external {
        if (deals.length == 0) return;
        uint64 dealId = 1 + which % uint64(deals.length);
        Planned storage p = deals[dealId - 1];
        if (!p.inside) return;
        p.inside = false;
        rewards.pieceRemoved(p.operatorId, dealId);
        // A period that is proven already has counted.
        uint64 from = current() + (proven[p.operatorId][current()] ? 1 : 0);
        for (uint64 period = from; period < p.endPeriod; ++period) {
            if (counted[dealId][period]) worth[p.operatorId][period] -= p.fee;
            counted[dealId][period] = false;
        }
    }

    function bringBack(uint64 which) external {
        if (deals.length == 0) return;
        uint64 dealId = 1 + which % uint64(deals.length);
        Planned storage p = deals[dealId - 1];
        if (p.inside) return;
        p.inside = true;
        rewards.pieceInserted(p.operatorId, dealId);
        note(dealId, current() + 1);
    }

    function note(uint64 dealId, uint64 from) private {
        Planned storage p = deals[dealId - 1];
        if (p.claim) return;
        if (from < p.firstPeriod) from = p.firstPeriod;
        for (; from < p.endPeriod; ++from) {
            if (counted[dealId][from]) continue;
            counted[dealId][from] = true;
            worth[p.operatorId][from] += p.fee;
        }
    }

    function prove(uint64 which) external {
        uint64 operatorId = 1 + which % 3;
        uint64 period = current();
        if (proven[operatorId][period]) return;
        proven[operatorId][period] = true;
        uint256 owed = rewards.owedTo(beneficiaryOf(operatorId));
        rewards.periodProven(operatorId, period);
        if (rewards.recordOf(operatorId).rolledTo == period) {
            assertEq(rewards.recordOf(operatorId).ratePerPeriod, worth[operatorId][period], "the rate is not the sum of the deals' fees");
        }
        granted += rewards.owedTo(beneficiaryOf(operatorId)) - owed;
    }

    function pass(uint256 periods) external {
        vm.warp(block.timestamp + bound(periods, 1, 4) * PERIOD);
    }

    function sleep(uint256 periods) external {
        vm.warp(block.timestamp + bound(periods, 50, 90) * PERIOD);
    }

    function serve(address receiver, uint128 fee) external {
        fee = uint128(bound(fee, 0, 1e22));
        feesBurntOf[receiver] += fee;
        burnt += fee;
        granted += rewards.rewardRetrieval(receiver);
        granted += rewards.rewardRetrieval(receiver);
    }

    function catchUp(uint64 operatorId, uint64 periods) external {
        if (current() != 0) rewards.catchUp(1 + operatorId % 3, periods % 200);
    }

    function mint() external {
        emission.mint();
    }

    function claim(uint64 operatorId, address stranger) external {
        if (stranger == address(0) || stranger == address(rewards)) return;
        address account = beneficiaryOf(1 + operatorId % 3);
        uint256 vested = rewards.vestedOf(account);
        vm.prank(account);
        try rewards.claim(stranger) returns (uint256 amount) {
            assertEq(amount, vested, "what can be claimed is what is said to have vested");
            claimed += amount;
        } catch {
            assertEq(vested, 0, "what has vested could not be claimed");
        }
    }
}

contract RewardsInvariantTest is Test {
    RewardsHandler private world;

    function setUp() public {
        world = RewardsHandler(vm.deployCode("rewards-invariant.t.sol:RewardsHandler"));
        bytes4[] memory moves = new bytes4[](10);
        moves[0] = RewardsHandler.open.selector;
        moves[1] = RewardsHandler.remove.selector;
        moves[2] = RewardsHandler.bringBack.selector;
        moves[3] = RewardsHandler.prove.selector;
        moves[4] = RewardsHandler.pass.selector;
        moves[5] = RewardsHandler.sleep.selector;
        moves[6] = RewardsHandler.serve.selector;
        moves[7] = RewardsHandler.catchUp.selector;
        moves[8] = RewardsHandler.mint.selector;
        moves[9] = RewardsHandler.claim.selector;
        targetContract(address(world));
        targetSelector(FuzzSelector(address(world), moves));
    }

    function invariant_nobody_is_owed_more_than_is_there_and_grants_stay_below_the_share_of_what_was_burnt() public view {
        StorageRewards rewards = world.rewards();
        IERC20 token = IERC20(world.emission().token());
        assertLe(rewards.obligations(), token.balanceOf(address(rewards)));
        assertEq(rewards.obligations() + world.claimed(), world.granted());
        assertLe(world.granted() * 10_000, world.burnt() * 9_000);
        assertEq(token.totalSupply(), world.emission().emitted());
    }
}

/// @notice What the listener costs at worst: first reward of an operator whose rate changes in every one of the periods it is behind, with
/// an emission that has not been minted for years; and what minting costs after any pause.
contract RewardsGasTest is World {
    uint256 private constant LISTENER_GAS = 500_000; // as in ProofHooks
    uint256 private constant MINT_GAS = 150_000; // as in StorageRewards

    function setUp() public {
        vm.warp(GENESIS);
        Registry registry = deployRegistry(address(this));
        emission = deployFilecoinEmission(registry, "Test", "TST", new NetworkToken.Allocation[](0));
        IStorageRewards.Config memory c = IStorageRewards.Config(5_000, 5_000, 2_000, 12, 180 days, 1 days);
        address here = address(this);
        rewards = deployStorageRewards(c, IRegistry(here), IOperators(here), IPossession(here), IStorageMarket(here), emission);
        registry.set("rewards", address(rewards), false);
    }

    function testGas_the_listener_at_its_worst_fits_what_it_is_given() public {
        addDeal(Planned(1, 1, 500, 1e15, false, true));
        for (uint64 i; i < 40; ++i) {
            addDeal(Planned(1, 1 + i, 501 + i, 1e15, false, true));
        }
        // Cold, with lookups in a long trace of misses, which cost what 20 more cold words do.
        vm.warp(GENESIS + 32 * PERIOD);
        rewards.periodProven{gas: LISTENER_GAS - 20 * 2_500}(1, 32);
        vm.snapshotGasLastCall("StorageRewards", "periodProven at its worst");
        assertEq(rewards.recordOf(1).ratePerPeriod, 33e15);
        assertGt(rewards.recordOf(1).earned, 0);
    }

    function testGas_the_listener_as_usual() public {
        addDeal(Planned(1, 1, 500, 1e15, false, true));
        emission.mint();
        for (uint64 p = 1; p < 4; ++p) {
            vm.warp(GENESIS + p * PERIOD);
            rewards.periodProven(1, p);
        }
        vm.snapshotGasLastCall("StorageRewards", "periodProven");
    }

    function earnAYear() external {
        for (uint64 day = 1; day < 366; ++day) {
            vm.warp(GENESIS + day * 1 days);
            rewards.catchUp(1, 288);
            rewards.periodProven(1, current());
        }
    }

    function testGas_a_claim_after_a_year() public {
        addDeal(Planned(1, 1, 200_000, 1e9, false, true));
        this.earnAYear(); // one call: each is a transaction of its own where gas is measured
        vm.prank(beneficiaryOf(1));
        rewards.claim(beneficiaryOf(1));
        vm.snapshotGasLastCall("StorageRewards", "claim of a year's daily rewards");
    }

    /// forge-config: default.fuzz.runs = 500
    function testFuzz_minting_by_time_alone_fits_its_gas_after_any_pause(uint256 first, uint256 pause) public {
        first = bound(first, 0, 50 * 365 days);
        pause = bound(pause, 30, 50 * 365 days);
        vm.warp(GENESIS + first);
        emission.mint();
        vm.warp(GENESIS + first + pause);
        emission.mint{gas: MINT_GAS}();
        assertEq(emission.emitted(), emission.scheduled());
    }
}
