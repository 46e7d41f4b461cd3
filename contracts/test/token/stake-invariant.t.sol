// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IOperators} from "../../src/chain/IOperators.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {TokenFixture} from "./fixture.sol";

/// @notice Everything that anybody can do to the vault, by actors who are owner, backer, client and reporter in any mixture, with
/// modules that lock and slash as those actors please. One backer, `honest`, takes part in nothing but backing and leaving.
contract StakeHandler is Test {
    StakeVault private immutable vault;
    NetworkToken private immutable token;
    IOperators private immutable operators;
    address private immutable minter;
    address[] public actors;
    address[] public modules;
    uint64[] public operatorIds;
    address public immutable honest;

    uint256[] public exitIds;
    uint256 public donated;
    uint256 public creditedTotal;
    uint256 public claimedTotal;
    uint256 public honestBurnt; // what slashes took from `honest`, rounded up
    uint256 public honestIn;
    uint256 public honestOut;
    uint256 public roundings; // operations that may have cost `honest` one base unit by rounding
    mapping(uint64 => uint256) public ownIn;
    mapping(uint64 => uint256) public ownOut;
    mapping(uint64 => uint256) public ownSlashed;
    mapping(uint64 => uint256) public backersIn;
    mapping(uint64 => uint256) public backersOut;
    mapping(uint64 => uint256) public backersSlashed;

    constructor(
        StakeVault vault_,
        NetworkToken token_,
        IOperators operators_,
        address[] memory actors_,
        address[] memory modules_,
        uint64[] memory ids
    ) {
        (vault, token, operators, minter) = (vault_, token_, operators_, msg.sender); // the fixture created the token, so it may mint
        (actors, modules, operatorIds) = (actors_, modules_, ids);
        honest = actors_[actors_.length - 1];
    }

    function deposit(uint256 seed, uint96 amount) external {
        (address actor, uint64 id) = pick(seed);
        amount = fund(actor, amount, seed);
        vm.prank(actor);
        vault.deposit(id, amount);
        ownIn[id] += amount;
    }

    function back(uint256 seed, uint96 amount) external {
        (address actor, uint64 id) = pick(seed);
        amount = fund(actor, amount, seed);
        vm.prank(actor);
        vault.back(id, amount);
        backersIn[id] += amount;
        if (actor == honest) honestIn += amount;
        ++roundings;
    }

    function requestExit(uint256 seed, uint256 amount) external {
        (, uint64 id) = pick(seed);
        (uint256 active,) = vault.ownStake(id);
        if (active == 0) return;
        vm.prank(operators.ownerOf(id));
        try vault.requestExit(id, bound(amount, 1, active)) returns (uint256 exitId) {
            exitIds.push(exitId);
        } catch (bytes memory reason) {
            requireRefusal(reason);
        }
    }

    function requestBackerExit(uint256 seed, uint256 shares) external {
        (address actor, uint64 id) = pick(seed);
        uint256 held = vault.sharesOf(id, actor);
        if (held == 0) return;
        vm.prank(actor);
        try vault.requestBackerExit(id, bound(shares, 1, held)) returns (uint256 exitId) {
            exitIds.push(exitId);
            ++roundings;
        } catch (bytes memory reason) {
            requireRefusal(reason);
        }
    }

    function finishExit(uint256 seed) external {
        if (exitIds.length == 0) return;
        uint256 index = seed % exitIds.length;
        uint256 exitId = exitIds[index];
        (address who, uint64 id, uint256 expected, uint64 from) = vault.exitOf(exitId);
        if (block.timestamp < from) vm.warp(from);
        (uint256 ownActive, uint256 ownExiting) = vault.ownStake(id);
        try vault.finishExit(exitId) returns (uint256 amount) {
            assertEq(amount, expected);
            exitIds[index] = exitIds[exitIds.length - 1];
            exitIds.pop();
            (uint256 active, uint256 exiting) = vault.ownStake(id);
            uint256 fromOwn = ownActive + ownExiting - active - exiting;
            assertTrue(fromOwn == 0 || fromOwn == amount, "an exit comes from one pot");
            ownOut[id] += fromOwn;
            backersOut[id] += amount - fromOwn;
            if (who == honest) honestOut += amount;
            ++roundings;
        } catch (bytes memory reason) {
            require(bytes4(reason) == IStakeVault.ReleaseFrozen.selector, "finishExit failed for another reason");
        }
    }

    function lock(uint256 seed, uint256 amount) external {
        (, uint64 id) = pick(seed);
        uint256 available = vault.availableOf(id);
        if (available == 0) return;
        vm.prank(pickModule(seed));
        vault.lock(id, bound(amount, 0, available));
    }

    function unlock(uint256 seed, uint256 amount) external {
        (, uint64 id) = pick(seed);
        address module = pickModule(seed);
        vm.startPrank(module);
        vault.unlock(id, bound(amount, 0, vault.lockedOfModule(id, module)));
        vm.stopPrank();
    }

    function giveLock(uint256 seed, uint256 amount) external {
        (, uint64 id) = pick(seed);
        address giver = pickModule(seed);
        address taker = pickModule(seed >> 128);
        uint256 locked = vault.lockedOf(id);
        vm.startPrank(giver);
        vault.giveLock(id, taker, bound(amount, 0, vault.lockedOfModule(id, giver)));
        vm.stopPrank();
        assertEq(vault.lockedOf(id), locked);
    }

    struct Before {
        uint256 own;
        uint256 backers;
        uint256 supply;
        uint256 honest;
        uint256 others;
        uint256 coalition;
        uint256 slashable;
    }

    struct Outcome {
        uint256 amount;
        uint256 fromOwn;
        uint256 paid;
        uint256 rewarded;
    }

    function slash(uint256 seed, uint256 amount, uint256 compensation, uint256 reward) external {
        (address client, uint64 id) = pick(seed);
        address module = pickModule(seed);
        uint256 locked = vault.lockedOfModule(id, module);
        IStakeVault.Payout memory payout = IStakeVault.Payout(client, compensation, actors[(seed >> 40) % actors.length], reward);
        Before memory b = Before(own(id), pool(id), token.totalSupply(), honestIn_(id), worthElsewhere(id), wealth(), vault.slashableOf(id));
        Outcome memory o;
        o.amount = seed % 4 == 0 ? locked : bound(amount, 0, locked);
        vm.prank(module);
        (o.fromOwn, o.paid, o.rewarded) = vault.slash(id, o.amount, payout);
        requireWaterfall(id, b, o);
    }

    function requireWaterfall(uint64 id, Before memory b, Outcome memory o) private {
        uint256 fromBackers = b.backers - pool(id);
        assertEq(b.own - own(id), o.fromOwn);
        assertEq(o.fromOwn + fromBackers, o.amount, "locked stake is always there");
        assertTrue(fromBackers == 0 || own(id) == 0, "own first");
        assertLe(fromBackers * 2, b.backers, "backers lose at most the cap");
        assertLe(o.paid + o.rewarded, o.fromOwn / 2);
        uint256 burnt = o.amount - o.paid - o.rewarded;
        assertEq(b.supply - token.totalSupply(), burnt, "the rest is burnt");
        assertEq(worthElsewhere(id), b.others, "no other operator's stake moves");
        // All actors together own everything: even as one coalition they lose what is burnt, at least half of the slash.
        assertEq(wealth() + burnt, b.coalition);
        assertLe(b.slashable, vault.slashableOf(id) + o.amount, "what covers the other locks stays");
        ownSlashed[id] += o.fromOwn;
        backersSlashed[id] += fromBackers;
        creditedTotal += o.paid + o.rewarded;
        uint256 share = b.backers == 0 ? 0 : (b.honest * fromBackers + b.backers - 1) / b.backers;
        honestBurnt += share;
        // One base unit for each holding (shares and pending exits) may go to rounding.
        assertGe(honestIn_(id) + share + exitIds.length + 1, b.honest, "a backer loses its ratio, no more");
        roundings += exitIds.length + 1;
    }

    function claim(uint256 seed) external {
        (address actor,) = pick(seed);
        if (vault.claimableOf(actor) == 0) return;
        vm.prank(actor);
        claimedTotal += vault.claim(actor);
    }

    function freeze(uint256 seed) external {
        (, uint64 id) = pick(seed);
        vm.prank(pickModule(seed));
        vault.freeze(id);
    }

    function unfreeze(uint256 seed) external {
        (, uint64 id) = pick(seed);
        for (uint256 i; i < modules.length; ++i) {
            vm.prank(modules[i]);
            try vault.unfreeze(id) {} catch {}
        }
    }

    function delegate(uint256 seed, uint256 to) external {
        (address actor,) = pick(seed);
        vm.prank(actor);
        vault.delegate(to % 5 == 0 ? address(0) : actors[to % actors.length]);
    }

    function rotateOwner(uint256 seed, bool sync) external {
        (address actor, uint64 id) = pick(seed);
        if (actor == honest) return;
        vm.prank(operators.ownerOf(id));
        operators.requestRotation(id, IOperators.Role.Owner, actor);
        vm.warp(block.timestamp + 1 days);
        vm.prank(actor);
        operators.finishRotation(id, IOperators.Role.Owner);
        if (sync) vault.syncVotes(id);
    }

    function donate(uint96 amount) external {
        amount = uint96(bound(amount, 0, 1e24));
        vm.prank(minter);
        token.mint(address(vault), amount);
        donated += amount;
    }

    function wait(uint32 time) external {
        vm.warp(block.timestamp + time % 5 days);
    }

    // ---------------------------------------------------------------- what the handler knows

    function pick(uint256 seed) private view returns (address actor, uint64 id) {
        return (actors[(seed >> 8) % actors.length], operatorIds[(seed >> 16) % operatorIds.length]);
    }

    function pickModule(uint256 seed) private view returns (address) {
        return modules[(seed >> 24) % modules.length];
    }

    /// Amounts of all magnitudes: rounding shows in the small ones.
    function fund(address actor, uint96 amount, uint256 seed) private returns (uint96 funded) {
        funded = uint96(bound(amount, 1, 10 ** ((seed >> 32) % 24)));
        vm.prank(minter);
        token.mint(actor, funded);
        vm.prank(actor);
        token.approve(address(vault), funded);
    }

    function own(uint64 id) public view returns (uint256) {
        (uint256 active, uint256 exiting) = vault.ownStake(id);
        return active + exiting;
    }

    function pool(uint64 id) public view returns (uint256) {
        IStakeVault.Pool memory p = vault.pool(id);
        return p.activeAssets + p.exitingAssets;
    }

    /// What `honest` has with one operator, active and leaving.
    function honestIn_(uint64 id) public view returns (uint256 worth) {
        worth = vault.backedBy(id, honest);
        for (uint256 i; i < exitIds.length; ++i) {
            (address who, uint64 at, uint256 amount,) = vault.exitOf(exitIds[i]);
            if (who == honest && at == id) worth += amount;
        }
    }

    function worthElsewhere(uint64 id) private view returns (uint256 worth) {
        for (uint256 i; i < operatorIds.length; ++i) {
            if (operatorIds[i] != id) worth += own(operatorIds[i]) + pool(operatorIds[i]);
        }
    }

    /// All that all actors have: wallets, stake, claims.
    function wealth() private view returns (uint256 worth) {
        for (uint256 i; i < operatorIds.length; ++i) {
            worth += own(operatorIds[i]) + pool(operatorIds[i]);
        }
        for (uint256 i; i < actors.length; ++i) {
            worth += token.balanceOf(actors[i]) + vault.claimableOf(actors[i]);
        }
    }

    /// A refusal must be one of the vault's own errors, never a panic.
    function requireRefusal(bytes memory reason) private pure {
        bytes4 selector = bytes4(reason);
        require(
            selector == IStakeVault.InsufficientUnlocked.selector || selector == IStakeVault.OwnStakeTooSmall.selector,
            "refused for another reason"
        );
    }

    function actorCount() external view returns (uint256) {
        return actors.length;
    }
}

contract StakeInvariantTest is TokenFixture {
    StakeHandler private handler;
    uint64[] private ids;
    address[] private actors;
    address[] private modules;

    function setUp() public override {
        super.setUp();
        for (uint256 i; i < 4; ++i) {
            actors.push(makeAddr(string.concat("actor", vm.toString(i))));
        }
        ids.push(registerOperator(actors[0], actors[0]));
        ids.push(registerOperator(actors[1], actors[1]));
        actors.push(makeAddr("honest"));
        modules.push(module);
        modules.push(otherModule);
        handler = new StakeHandler(vault, token, operators, actors, modules, ids);
        targetContract(address(handler));
    }

    function invariant_TheVaultHoldsExactlyWhatItOwes() public view {
        uint256 owed;
        for (uint256 i; i < ids.length; ++i) {
            owed += handler.own(ids[i]) + handler.pool(ids[i]);
        }
        for (uint256 i; i < actors.length; ++i) {
            owed += vault.claimableOf(actors[i]);
        }
        assertEq(owed, vault.obligations());
        assertEq(token.balanceOf(address(vault)), owed + handler.donated());
    }

    function invariant_LocksAreCoveredAndAddUp() public view {
        uint256[2] memory byModule;
        for (uint256 i; i < ids.length; ++i) {
            uint256 locked = vault.lockedOf(ids[i]);
            assertLe(locked, vault.slashableOf(ids[i]));
            assertEq(vault.lockedOfModule(ids[i], module) + vault.lockedOfModule(ids[i], otherModule), locked);
            byModule[0] += vault.lockedOfModule(ids[i], module);
            byModule[1] += vault.lockedOfModule(ids[i], otherModule);
        }
        assertEq(byModule[0], vault.lockedBy(module));
        assertEq(byModule[1], vault.lockedBy(otherModule));
    }

    function invariant_VotesAreTheActiveStake() public view {
        uint256 active;
        uint256 seats;
        for (uint256 i; i < ids.length; ++i) {
            uint256 stake = ownActive(ids[i]) + vault.pool(ids[i]).activeAssets;
            (, uint256 units) = vault.votesOfOperator(ids[i]);
            assertEq(units, stake);
            active += stake;
            seats += units;
        }
        uint256 votes;
        for (uint256 i; i < actors.length; ++i) {
            votes += vault.getVotes(actors[i]);
        }
        assertEq(vault.activeStake(), active);
        assertEq(votes, active, "every unit of active stake votes once");
    }

    function invariant_WhatCameInLeftOrWasSlashedOrIsThere() public view {
        for (uint256 i; i < ids.length; ++i) {
            uint64 id = ids[i];
            assertEq(handler.ownIn(id), handler.ownOut(id) + handler.ownSlashed(id) + handler.own(id));
            assertEq(handler.backersIn(id), handler.backersOut(id) + handler.backersSlashed(id) + handler.pool(id));
            assertLe(handler.ownSlashed(id), handler.ownIn(id));
            assertLe(handler.backersSlashed(id), handler.backersIn(id));
        }
    }

    function invariant_OnlyOwnStakeIsEverPaidOut() public view {
        uint256 ownSlashed;
        for (uint256 i; i < ids.length; ++i) {
            ownSlashed += handler.ownSlashed(ids[i]);
        }
        assertLe(handler.creditedTotal() * 2, ownSlashed);
        assertLe(handler.claimedTotal(), handler.creditedTotal());
    }

    function invariant_TheHonestBackerLosesNothingButSlashes() public view {
        uint256 worth;
        for (uint256 i; i < ids.length; ++i) {
            worth += handler.honestIn_(ids[i]);
        }
        uint256 has = worth + handler.honestOut() + handler.honestBurnt();
        assertGe(has + handler.roundings(), handler.honestIn());
    }
}
