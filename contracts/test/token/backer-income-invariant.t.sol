// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {BackerIncome} from "../../src/token/BackerIncome.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {deployBackerIncome, deployNetworkToken} from "../deploy/token.sol";
import {TokenFixture} from "./fixture.sol";

/// @notice Actors back, leave, are slashed (also to nothing, over and over), are paid and claim, in any order.
contract IncomeHandler is Test {
    StakeVault private immutable vault;
    NetworkToken private immutable token;
    NetworkToken private immutable paid;
    BackerIncome private immutable income;
    address private immutable module;
    address private immutable minter;
    address[] public actors;
    uint64[] public operatorIds;
    mapping(uint64 operatorId => uint256) public received;
    mapping(uint64 operatorId => uint256) public paidOut;
    /// The most that each backer could have earned: of each income its part as a fraction of all stake, rounded up.
    mapping(uint64 operatorId => mapping(address actor => uint256)) public fairMost;
    mapping(uint64 operatorId => mapping(address actor => uint256)) public got;

    constructor(
        StakeVault vault_,
        NetworkToken token_,
        NetworkToken paid_,
        BackerIncome income_,
        address module_,
        address[] memory actors_,
        uint64[] memory ids
    ) {
        (vault, token, paid, income, module, minter) = (vault_, token_, paid_, income_, module_, msg.sender);
        (actors, operatorIds) = (actors_, ids);
    }

    function back(uint256 seed, uint96 amount) external {
        (address actor, uint64 id) = pick(seed);
        amount = uint96(bound(amount, 1, 1e26));
        vm.prank(minter);
        token.mint(actor, amount);
        vm.startPrank(actor);
        token.approve(address(vault), amount);
        vault.back(id, amount);
        vm.stopPrank();
    }

    function depositOwn(uint256 seed, uint96 amount) external {
        (address actor, uint64 id) = pick(seed);
        amount = uint96(bound(amount, 1, 1e26));
        vm.prank(minter);
        token.mint(actor, amount);
        vm.startPrank(actor);
        token.approve(address(vault), amount);
        vault.deposit(id, amount);
        vm.stopPrank();
    }

    function leave(uint256 seed, uint256 shares) external {
        (address actor, uint64 id) = pick(seed);
        uint256 held = vault.sharesOf(id, actor);
        if (held == 0) return;
        vm.prank(actor);
        vault.requestBackerExit(id, bound(shares, 1, held));
    }

    /// Locks all that can be locked and slashes a part of it, often all.
    function slash(uint256 seed, uint256 amount) external {
        (, uint64 id) = pick(seed);
        uint256 available = vault.availableOf(id);
        if (available == 0) return;
        amount = seed >> 9 & 1 == 0 ? available : bound(amount, 1, available);
        IStakeVault.Payout memory nobody;
        vm.startPrank(module);
        vault.lock(id, amount);
        vault.slash(id, amount, nobody);
        vm.stopPrank();
    }

    function distribute(uint256 seed, uint96 amount) external {
        (, uint64 id) = pick(seed);
        amount = uint96(bound(amount, 1, 1e26));
        IStakeVault.Pool memory pool = vault.pool(id);
        (uint256 own,) = vault.ownStake(id);
        for (uint256 i; i < actors.length; ++i) {
            uint256 shares = vault.sharesOf(id, actors[i]);
            if (shares == 0 || pool.activeAssets == 0) continue;
            uint256 toBackers =
                (uint256(amount) - uint256(amount) * income.takeBpsOf(id) / 10_000) * pool.activeAssets / (own + pool.activeAssets);
            fairMost[id][actors[i]] += toBackers * shares / pool.activeShares + 1;
        }
        vm.prank(minter);
        paid.mint(address(this), amount);
        paid.approve(address(income), amount);
        income.distribute(id, address(paid), amount);
        received[id] += amount;
    }

    function claim(uint256 seed) external {
        (address actor, uint64 id) = pick(seed);
        if (income.claimableOf(id, address(paid), actor) == 0) return;
        vm.prank(actor);
        uint256 amount = income.claim(id, address(paid), actor);
        (paidOut[id], got[id][actor]) = (paidOut[id] + amount, got[id][actor] + amount);
    }

    function claimOperator(uint256 seed) external {
        (, uint64 id) = pick(seed);
        if (income.operatorClaimable(id, address(paid)) == 0) return;
        paidOut[id] += income.claimOperator(id, address(paid));
    }

    function propose(uint256 seed, uint16 takeBps) external {
        (, uint64 id) = pick(seed);
        vm.prank(vault.operators().ownerOf(id));
        income.proposeTake(id, uint16(bound(takeBps, 0, 5_000)));
    }

    function wait(uint32 time) external {
        vm.warp(block.timestamp + bound(time, 1, 4 days));
    }

    function pick(uint256 seed) private view returns (address actor, uint64 id) {
        return (actors[seed % actors.length], operatorIds[(seed >> 4) % operatorIds.length]);
    }
}

contract BackerIncomeInvariantTest is TokenFixture {
    BackerIncome private income;
    NetworkToken private paid;
    IncomeHandler private handler;
    address[] private actors;
    uint64[] private ids;

    function setUp() public override {
        super.setUp();
        parameters.set("vault.backerLossCapBps", 10_000); // slashes to nothing happen
        paid = deployNetworkToken("Income", "INC", type(uint128).max);
        address[] memory list = new address[](1);
        list[0] = address(paid);
        income = deployBackerIncome(1_800, 7 days, registry, vault, operators, list);
        registry.set("backerIncome", address(income), false);
        actors = [makeAddr("a"), makeAddr("b"), makeAddr("c")];
        ids = [registerOperator(actors[0], actors[0]), registerOperator(actors[1], actors[2])];
        parameters.set("vault.ownShareMinBps", 0);
        handler = new IncomeHandler(vault, token, paid, income, module, actors, ids);
        targetContract(address(handler));
    }

    /// paid + claimable + dust = received, for each operator.
    function invariant_incomeIsConserved() public view {
        uint256 held;
        for (uint256 o; o < ids.length; ++o) {
            uint256 claimable;
            for (uint256 i; i < actors.length; ++i) {
                claimable += income.claimableOf(ids[o], address(paid), actors[i]);
            }
            uint256 purse = income.backersPurse(ids[o], address(paid));
            uint256 operators_ = income.operatorClaimable(ids[o], address(paid));
            assertLe(claimable, purse); // the rest is dust
            assertEq(handler.paidOut(ids[o]) + purse + operators_, handler.received(ids[o]));
            held += purse + operators_;
        }
        assertEq(paid.balanceOf(address(income)), held);
    }

    /// Nobody gets more than its part of each income that came while it held shares.
    function invariant_nobodyGetsMoreThanItsPart() public view {
        for (uint256 o; o < ids.length; ++o) {
            for (uint256 i; i < actors.length; ++i) {
                uint256 all = handler.got(ids[o], actors[i]) + income.claimableOf(ids[o], address(paid), actors[i]);
                assertLe(all, handler.fairMost(ids[o], actors[i]));
            }
        }
    }
}
