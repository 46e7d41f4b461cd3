// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {IRails} from "../../src/token/IRails.sol";
import {Rails} from "../../src/token/Rails.sol";
import {deployDevStable} from "../deploy/token.sol";
import {TokenFixture} from "./fixture.sol";
import {LyingMeter, MeterDouble} from "./rail-doubles.sol";

/// @notice Payers, an honest meter and a lying one (which also tries to touch rails and money of others), two tokens.
contract RailsHandler is Test {
    Rails private immutable rails;
    MeterDouble private immutable honestMeter;
    LyingMeter private immutable liar;
    uint64 private immutable payee;
    DevStable[2] public tokens;
    address[] public accounts; // payers, then meters, then the beneficiary
    uint256 private constant PAYERS = 3;
    mapping(address token => uint256) public deposited;
    mapping(address token => uint256) public withdrawn;
    /// What a payer approved for the liar, in all, and what has gone out of the payer's account by its doing.
    mapping(address payer => mapping(address token => uint256)) public approvedForLiar;
    mapping(address payer => mapping(address token => uint256)) public takenByLiar;
    uint256 public refusals;

    constructor(Rails rails_, MeterDouble honest_, LyingMeter liar_, uint64 payee_, address[] memory accounts_) {
        (rails, honestMeter, liar, payee, accounts) = (rails_, honest_, liar_, payee_, accounts_);
        (tokens[0], tokens[1]) = (deployDevStable(), deployDevStable());
    }

    function deposit(uint256 seed, uint64 amount) external {
        (address payer, DevStable token) = pick(seed);
        amount = uint64(bound(amount, 1, 10 ** ((seed >> 64) % 12)));
        token.mint(payer, amount);
        vm.startPrank(payer);
        token.approve(address(rails), amount);
        rails.deposit(address(token), accounts[seed % accounts.length], amount);
        vm.stopPrank();
        deposited[address(token)] += amount;
    }

    function withdraw(uint256 seed, uint256 amount) external {
        (, DevStable token) = pick(seed);
        address account = accounts[(seed >> 96) % accounts.length];
        uint256 balance = rails.balanceOf(address(token), account);
        if (balance == 0) return;
        amount = bound(amount, 1, balance);
        vm.prank(account);
        rails.withdraw(address(token), amount, account);
        withdrawn[address(token)] += amount;
    }

    function transfer(uint256 seed, uint256 amount) external {
        (, DevStable token) = pick(seed);
        address from = accounts[(seed >> 96) % accounts.length];
        uint256 balance = rails.balanceOf(address(token), from);
        if (balance == 0) return;
        vm.prank(from);
        rails.transfer(address(token), accounts[(seed >> 104) % accounts.length], bound(amount, 1, balance));
    }

    function transferFrom(uint256 seed, uint256 amount) external {
        (address payer, DevStable token) = pick(seed);
        address meter = pickMeter(seed);
        amount = bound(amount, 1, 1e12);
        vm.prank(meter);
        try rails.transferFrom(address(token), payer, accounts[(seed >> 104) % accounts.length], amount) {
            if (meter == address(liar)) takenByLiar[payer][address(token)] += amount;
        } catch (bytes memory reason) {
            requireOwnError(reason);
        }
    }

    function approve(uint256 seed, uint64 amount) external {
        (address payer, DevStable token) = pick(seed);
        vm.startPrank(payer);
        if (seed % 2 == 0) {
            rails.approve(address(honestMeter), address(token), amount);
        } else {
            amount = uint64(amount % 1e9);
            rails.approve(address(liar), address(token), amount);
            approvedForLiar[payer][address(token)] += amount;
        }
        vm.stopPrank();
    }

    function open(uint256 seed, uint64 amount, uint32 interval, uint32 lockup, uint256 escrow, uint32 length) external {
        (address payer, DevStable token) = pick(seed);
        address meter = pickMeter(seed);
        uint256 balance = rails.balanceOf(address(token), payer);
        uint256 allowance = rails.allowanceOf(payer, meter, address(token));
        escrow = bound(escrow, 0, balance < allowance ? balance : allowance);
        interval = uint32(bound(interval, 1, 1_000));
        amount = uint64(bound(amount, 0, escrow));
        vm.prank(meter);
        rails.open(payer, payee, address(token), amount, interval, uint32(lockup % 100), uint128(escrow));
        if (meter == address(liar)) takenByLiar[payer][address(token)] += escrow;
        if (seed % 7 != 0) begin(rails.railCount(), seed, length);
    }

    function begin(uint256 railId, uint256 seed, uint32 length) private {
        IRails.Rail memory track = rails.rail(railId);
        uint64 start = uint64(block.timestamp) + uint64(seed >> 128) % 50;
        uint64 most = track.amount == 0 ? 1_000 : uint64(uint256(track.escrow) * track.interval / track.amount);
        uint64 end = seed % 3 == 0 || most == 0 ? 0 : start + uint64(bound(length, 1, most));
        vm.prank(track.meter);
        try rails.begin(railId, start, end) {}
        catch (bytes memory reason) {
            require(bytes4(reason) == IRails.EscrowTooSmall.selector, "begin failed for another reason");
        }
    }

    function settle(uint256 seed, uint256 proven, uint16 sure, uint64 lie, uint64 lieTo) external {
        if (rails.railCount() == 0) return;
        honestMeter.set(proven, uint64(block.timestamp) - sure % 200);
        uint256 railId = pickRail(seed);
        IRails.Rail memory track = rails.rail(railId);
        uint64 truthful = track.settledTo + lieTo % 100;
        liar.say(seed % 3 == 0 ? lie : lie % 50, seed % 5 == 0 ? lieTo : truthful);
        try rails.settle(railId) {}
        catch (bytes memory reason) {
            ++refusals;
            require(bytes4(reason) == IRails.MeterOutOfRange.selector && track.meter == address(liar), "settle failed for another reason");
        }
    }

    function topUp(uint256 seed, uint256 amount, uint16 later) external {
        if (rails.railCount() == 0) return;
        uint256 railId = pickRail(seed);
        IRails.Rail memory track = rails.rail(railId);
        bool byMeter = seed % 2 == 0;
        uint256 balance = rails.balanceOf(track.token, track.payer);
        amount = bound(amount, 0, balance);
        vm.prank(byMeter ? track.meter : track.payer);
        try rails.topUp(railId, uint128(amount), byMeter && track.end != 0 ? track.end + later : 0) {
            if (byMeter && track.meter == address(liar)) takenByLiar[track.payer][track.token] += amount;
        } catch (bytes memory reason) {
            requireOwnError(reason);
        }
    }

    function reduce(uint256 seed, uint128 amount) external {
        if (rails.railCount() == 0) return;
        uint256 railId = pickRail(seed);
        IRails.Rail memory track = rails.rail(railId);
        vm.prank(track.payer);
        try rails.reduce(railId, uint128(bound(amount, 0, track.escrow))) {}
        catch (bytes memory reason) {
            requireOwnError(reason);
        }
    }

    function close(uint256 seed, uint64 end, uint256 fee, uint256 forfeit) external {
        if (rails.railCount() == 0) return;
        uint256 railId = pickRail(seed);
        IRails.Rail memory track = rails.rail(railId);
        honestMeter.set(seed, uint64(block.timestamp));
        liar.say(end % 20, track.settledTo + end % 40);
        fee = bound(fee, 0, track.escrow);
        vm.prank(seed % 5 == 0 ? address(liar) : track.meter);
        try rails.close(railId, uint64(bound(end, 0, block.timestamp)), uint128(fee), uint128(bound(forfeit, 0, track.escrow - fee))) {
            assertTrue(seed % 5 != 0 || track.meter == address(liar), "only the rail's own meter closes it");
        } catch (bytes memory reason) {
            requireOwnError(reason);
        }
    }

    function wait(uint16 time) external {
        vm.warp(block.timestamp + time % 500);
    }

    function pick(uint256 seed) private view returns (address payer, DevStable token) {
        return (accounts[(seed >> 8) % PAYERS], tokens[(seed >> 16) % 2]);
    }

    function pickMeter(uint256 seed) private view returns (address) {
        return (seed >> 24) % 3 == 0 ? address(liar) : address(honestMeter);
    }

    function pickRail(uint256 seed) private view returns (uint256) {
        return 1 + (seed >> 32) % rails.railCount();
    }

    /// Every refusal is one of our own errors, never a panic.
    function requireOwnError(bytes memory reason) private pure {
        bytes4 selector = bytes4(reason);
        require(selector != bytes4(keccak256("Panic(uint256)")) && reason.length >= 4, "a panic");
    }

    function accountCount() external view returns (uint256) {
        return accounts.length;
    }
}

contract RailsInvariantTest is TokenFixture {
    RailsHandler private handler;
    address[] private accounts;
    LyingMeter private liar;

    function setUp() public override {
        super.setUp();
        MeterDouble meter = new MeterDouble(uint64(block.timestamp));
        liar = new LyingMeter();
        for (uint256 i; i < 3; ++i) {
            accounts.push(makeAddr(string.concat("payer", vm.toString(i))));
        }
        accounts.push(address(meter));
        accounts.push(address(liar));
        accounts.push(makeAddr("beneficiary"));
        handler = new RailsHandler(rails, meter, liar, registerOperator(makeAddr("owner"), accounts[5]), accounts);
        targetContract(address(handler));
    }

    function invariant_TheContractHoldsExactlyWhatItOwesInEachToken() public view {
        for (uint256 i; i < 2; ++i) {
            address held = address(handler.tokens(i));
            uint256 owed;
            for (uint256 j; j < accounts.length; ++j) {
                owed += rails.balanceOf(held, accounts[j]);
            }
            for (uint256 railId = 1; railId <= rails.railCount(); ++railId) {
                IRails.Rail memory track = rails.rail(railId);
                if (track.token == held) owed += track.escrow;
            }
            assertEq(owed, rails.obligationsOf(held));
            assertEq(owed, handler.tokens(i).balanceOf(address(rails)));
            assertEq(owed, handler.deposited(held) - handler.withdrawn(held));
        }
    }

    function invariant_EveryRailPaysForItsTimeToTheUnit() public view {
        for (uint256 railId = 1; railId <= rails.railCount(); ++railId) {
            IRails.Rail memory track = rails.rail(railId);
            if (track.start == 0 || track.closed) continue;
            uint256 unproven = track.settledTo - track.start - track.provenSeconds;
            assertEq(track.paid, uint256(track.amount) * track.provenSeconds / track.interval);
            // What came back is that for unproven time, and what the payer took out by `reduce` of an open-ended rail.
            uint256 returned = uint256(track.amount) * unproven / track.interval;
            assertGe(track.refunded, returned);
            assertLe(track.settledTo, rails.endOf(railId) > track.start ? rails.endOf(railId) : track.start);
        }
    }

    function invariant_WhatIsToComeIsCovered() public view {
        for (uint256 railId = 1; railId <= rails.railCount(); ++railId) {
            IRails.Rail memory track = rails.rail(railId);
            if (track.start == 0 || track.closed || track.end == 0) continue;
            assertGe(track.escrow, uint256(track.amount) * (track.end - track.settledTo) / track.interval);
        }
    }

    function invariant_AHostileMeterTakesNoMoreThanWasApprovedForIt() public view {
        for (uint256 i; i < 3; ++i) {
            for (uint256 j; j < 2; ++j) {
                address held = address(handler.tokens(j));
                assertLe(handler.takenByLiar(accounts[i], held), handler.approvedForLiar(accounts[i], held));
            }
        }
    }
}
