// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IRails} from "../../src/token/IRails.sol";
import {IStakeVault} from "../../src/token/IStakeVault.sol";
import {Vm} from "forge-std/Vm.sol";
import {StorageFixture} from "./fixture.sol";

/// @notice Random lives of many deals. Alice is hostile and is her own client and reporter: she loses data, is silent, surrenders,
/// leaves, declares faults, lets offers expire. Bob is honest and serves another client, who may be a nuisance. Time passes only
/// here, period by period, so that bob never misses one.
contract StorageHandler is StorageFixture {
    struct Change {
        uint64 time;
        uint32 slot;
        IPossession.Leaf leaf; // leaves 0: removed
    }

    uint256 private constant DEALS_MAX = 10; // in a table at a time
    mapping(uint64 operatorId => Change[]) private changes;
    mapping(uint64 dealId => bool) public lost;
    address public accomplice; // alice's client
    uint256 private accompliceSecret;
    address public reporter;
    uint64[] public deals;
    uint256 public coalitionBefore;
    uint256 public bobBefore;
    mapping(bytes32 action => uint256) public done;
    uint256 public paidByVault; // all payouts of all slashes
    uint256 public paidForDeals; // what terminated deals say of theirs

    /// Adds up the payouts of an action, of which no deal gives more than its client has paid for it.
    modifier counted() {
        vm.recordLogs();
        _;
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].topics[0] == IStakeVault.Slashed.selector) {
                (,,,, uint256 compensation, uint256 reward) =
                    abi.decode(logs[i].data, (uint256, uint256, uint256, uint256, uint256, uint256));
                paidByVault += compensation + reward;
            } else if (logs[i].topics[0] == IStorageMarket.DealTerminated.selector) {
                (,,, uint256 compensation, uint256 reward,) = abi.decode(logs[i].data, (uint8, uint64, uint256, uint256, uint256, uint256));
                paidForDeals += compensation + reward;
                assertLe(compensation + reward, rails.rail(market.deal(uint64(uint256(logs[i].topics[1]))).railId).paid);
                if (compensation + reward != 0) ++done["pay out"];
            }
        }
    }

    function setUp() public override {
        super.setUp();
        (accomplice, accompliceSecret) = makeAddrAndKey("accomplice");
        fund(accomplice, 1_000e18);
        reporter = makeAddr("reporter");
        coalitionBefore = coalition();
        bobBefore = vault.slashableOf(bob);
    }

    // ------------------------------------------------------------------------------------------------ actions

    function open(uint256 seed) external {
        uint64 operatorId = seed % 2 == 0 ? alice : bob;
        if (inTable(operatorId) >= DEALS_MAX) return;
        (address honest, uint256 honestSecret) = (client, clientSecret);
        if (operatorId == alice) (client, clientSecret) = (accomplice, accompliceSecret);
        IStorageMarket.DealTerms memory terms =
            termsFor(operatorId, 1 + seed % 50, uint8(5 + seed % 4), uint64(1 + (seed >> 8) % 1000), uint32(2 + (seed >> 16) % 12));
        terms.collateral = uint128(1 + (seed >> 32) % 6e18);
        terms.pricePerPeriod = uint128(1 + (seed >> 64) % 1e17);
        terms.bond = uint128(1e15 + (seed >> 96) % 1e16);
        if (vault.availableOf(operatorId) < 10e18) restake();
        if (
            vault.availableOf(operatorId) >= uint256(terms.collateral) + terms.bond
                && funds(client) >= uint256(terms.pricePerPeriod) * terms.periods + terms.bond
        ) {
            uint64 id = openDeal(terms, 1 + seed % 50);
            deals.push(id);
            ++done["open"];
            if (operatorId == bob || seed % 5 != 0) activateNow(id);
        }
        (client, clientSecret) = (honest, honestSecret);
    }

    function restake() private {
        address owner = makeAddrView("alice");
        if (token.balanceOf(owner) < 50e18) return;
        vm.startPrank(owner);
        token.approve(address(vault), 50e18);
        vault.deposit(alice, 50e18);
        vm.stopPrank();
    }

    function activateNow(uint64 id) private {
        uint64 seedAt = market.activationSeedTime(id);
        if (possession.periodAt(seedAt) != period()) pass(0);
        IStorageMarket.Deal memory d = market.deal(id);
        if (block.timestamp < seedAt) vm.warp(seedAt);
        possession.sync(d.operatorId);
        if (!possession.stands(d.operatorId) && possession.table(d.operatorId).leaves != 0) return;
        if (block.timestamp > d.openedAt + 900) return;
        activate(id);
        record(d.operatorId, market.deal(id).slot, leafOf(id));
        ++done["activate"];
    }

    function activateLater(uint256 seed) external {
        uint64 id = pick(seed, IStorageMarket.State.Open);
        if (id == 0) return;
        (address honest, uint256 honestSecret) = (client, clientSecret);
        if (market.deal(id).operatorId == alice) (client, clientSecret) = (accomplice, accompliceSecret);
        if (block.timestamp + 30 < market.deal(id).openedAt + 900) activateNow(id);
        (client, clientSecret) = (honest, honestSecret);
    }

    /// Time passes: some periods, in each of which bob proves and alice does as she likes and can.
    function advance(uint256 seed) external {
        uint256 periods = 1 + (seed % 16 == 0 ? seed % 9 : seed % 2);
        for (uint256 i; i < periods; ++i) {
            pass(uint256(keccak256(abi.encode(seed, i))));
        }
        vm.warp(block.timestamp + seed % 130); // before the freeze
        answerForBob();
    }

    function loseData(uint256 seed) external {
        uint64 id = pickOf(seed, alice, IStorageMarket.State.Active);
        if (id == 0 || seed % 3 != 0) return;
        lost[id] = true;
        ++done["lose"];
    }

    function settle(uint256 seed) external counted {
        uint64 id = pickRunning(seed);
        if (id == 0) return;
        vm.prank(reporter);
        market.settle(id);
        ++done["settle"];
    }

    function settleRail(uint256 seed) external {
        if (deals.length == 0) return;
        rails.settle(market.deal(deals[seed % deals.length]).railId);
    }

    function terminate(uint256 seed) external counted {
        uint64 id = pickRunning(seed);
        if (id == 0) return;
        vm.prank(reporter);
        try market.terminate(id) {
            ++done["terminate"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            assertEq(bytes4(reason), IStorageMarket.NothingToTerminate.selector);
        }
    }

    function expire(uint256 seed) external counted {
        uint64 id = pick(seed, IStorageMarket.State.Open);
        if (id == 0 || block.timestamp <= market.deal(id).openedAt + 900) return;
        market.expire(id);
        ++done["expire"];
    }

    function dropOne(uint256 seed) external counted {
        uint256 start = seed % (deals.length + 1);
        for (uint256 i; i < deals.length; ++i) {
            uint64 id = deals[(start + i) % deals.length];
            if (running(market.deal(id).state) && market.isOver(id) && seed % 2 == 0) market.settle(id);
            IStorageMarket.Deal memory d = market.deal(id);
            bool held = d.slot != type(uint32).max || d.locked != 0;
            bool over = d.state == IStorageMarket.State.Ended || (d.state == IStorageMarket.State.Terminated && held)
                || (d.state == IStorageMarket.State.Active && market.isOver(id));
            if (!over) continue;
            if (isFrozen(d.operatorId) && d.slot != type(uint32).max) return;
            drop(id);
            if (d.slot != type(uint32).max) record(d.operatorId, d.slot, IPossession.Leaf(0, 0, 0, 0, 0));
            ++done["drop"];
            return;
        }
    }

    function declareFault(uint256 seed) external counted {
        uint64 id = pickOf(seed, alice, IStorageMarket.State.Active);
        if (id == 0 || isFrozen(alice)) return;
        uint32 slot = market.deal(id).slot;
        bytes memory path = tablePath(tables[alice], slot);
        vm.prank(nodeKey(alice));
        try market.declareFault(id, path) {
            delete tables[alice][slot];
            record(alice, slot, IPossession.Leaf(0, 0, 0, 0, 0));
            ++done["declare"];
            if (seed % 2 == 0) recoverNow(id);
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            assertEq(bytes4(reason), IStorageMarket.WrongState.selector); // it was over
        }
    }

    function recoverFault(uint256 seed) external counted {
        uint64 id = pickOf(seed, alice, IStorageMarket.State.Faulty);
        if (id != 0) recoverNow(id);
    }

    function recoverNow(uint64 id) private {
        if (lost[id] || inTable(alice) >= DEALS_MAX) return;
        pass(1);
        seedOf(market.recentSeedTime());
        bytes memory openings = openPiece(leafOf(id), pieceSeeds[id], seedOf(market.recentSeedTime()), 4);
        uint32 slot = freeSlot(alice);
        bytes memory path = tablePath(tables[alice], slot);
        vm.prank(nodeKey(alice));
        try market.recoverFault(id, openings, slot, path) {
            put(alice, slot, leafOf(id));
            record(alice, slot, leafOf(id));
            ++done["recover"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            bytes4 got = bytes4(reason);
            assertTrue(
                got == IStorageMarket.WrongState.selector || got == IStorageMarket.SeedTooOld.selector
                    || got == IPossession.TableHasFailed.selector
            );
        }
    }

    function surrender(uint256 seed) external counted {
        uint64 id = pickOf(seed, alice, seed % 2 == 0 ? IStorageMarket.State.Active : IStorageMarket.State.Faulty);
        if (id == 0 || seed % 3 == 0) return;
        vm.prank(nodeKey(alice));
        try market.surrender(id) {
            ++done["surrender"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            assertEq(bytes4(reason), IStorageMarket.WrongState.selector);
        }
    }

    function leave(uint256 seed) external counted {
        uint64 id = pickOf(seed, alice, IStorageMarket.State.Active);
        if (id == 0 || lost[id] || seed % 8 == 0) return;
        bytes memory openings = openPiece(leafOf(id), pieceSeeds[id], seedOf(market.recentSeedTime()), 4);
        vm.prank(nodeKey(alice));
        try market.leave(id, openings) {
            ++done["leave"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            bytes4 got = bytes4(reason);
            assertTrue(
                got == IStorageMarket.WrongState.selector || got == IStorageMarket.ChallengeOpen.selector
                    || got == IStorageMarket.ProofOutstanding.selector
            );
        }
    }

    function endEarly(uint256 seed) external counted {
        uint64 id = pickRunning(seed);
        if (id == 0) return;
        vm.prank(market.deal(id).client);
        try market.endEarly(id) {
            ++done["endEarly"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            bytes4 got = bytes4(reason);
            assertTrue(got == IStorageMarket.WrongState.selector || got == IStorageMarket.ChallengeOpen.selector);
        }
    }

    function extend(uint256 seed) external {
        uint64 id = pickRunning(seed);
        if (id == 0) return;
        IStorageMarket.Deal memory d = market.deal(id);
        uint32 periods = uint32(1 + seed % 4);
        uint64 expiry = uint64(block.timestamp);
        bytes32 digest = typedDigest(
            keccak256(
                abi.encode(
                    keccak256("Extension(uint64 dealId,uint32 periods,uint64 endPeriod,uint64 expiry)"), id, periods, d.endPeriod, expiry
                )
            )
        );
        bytes memory byClient = sign(d.operatorId == alice ? accompliceSecret : clientSecret, digest);
        try desk.extend(id, periods, expiry, byClient, sign(nodeSecret[d.operatorId], digest)) {
            ++done["extend"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            bytes4 got = bytes4(reason);
            assertTrue(got == IStorageMarket.WrongState.selector || got == IRails.InsufficientBalance.selector);
        }
    }

    function demandBytes(uint256 seed) external {
        uint64 id = pickRunning(seed);
        if (id == 0) return;
        IStorageMarket.Deal memory d = market.deal(id);
        uint64 first = uint64((seed >> 16) % d.leaves);
        uint32 count = uint32(1 + (seed >> 80) % (d.leaves - first));
        if (count > 8) count = 8;
        if (funds(d.client) < uint256(count) * 1e15) return;
        vm.prank(d.client);
        try market.demandBytes(id, first, count) {
            ++done["demand"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            bytes4 got = bytes4(reason);
            assertTrue(
                got == IStorageMarket.WrongState.selector || got == IStorageMarket.ChallengeOpen.selector
                    || got == IStorageMarket.DeadlinePassed.selector
            );
        }
        if (d.operatorId == bob) answerForBob();
        else if (seed % 2 == 0) answerFor(id);
    }

    function challenge(uint256 seed) external {
        uint64 id = pickRunning(seed);
        if (id == 0) return;
        IStorageMarket.Deal memory d = market.deal(id);
        if (funds(d.client) < 1e15) return;
        vm.prank(d.client);
        try market.challenge(id) {
            ++done["challenge"];
        } catch (bytes memory reason) {
            vm.getRecordedLogs(); // what was undone was not paid
            bytes4 got = bytes4(reason);
            assertTrue(
                got == IStorageMarket.WrongState.selector || got == IStorageMarket.ChallengeOpen.selector
                    || got == IStorageMarket.DeadlinePassed.selector
            );
        }
        if (d.operatorId == bob) answerForBob();
        else if (seed % 2 == 0) answerFor(id);
    }

    function claim(uint256 seed) external {
        address who = [reporter, accomplice, client, makeAddr("alice")][seed % 4];
        if (claimable(who) == 0) return;
        vm.prank(who);
        vault.claim(who);
    }

    // ------------------------------------------------------------------------------------------------ time

    /// One period: through its window to the start of the next.
    function pass(uint256 choice) private {
        uint64 p = period();
        if (block.timestamp < possession.seedTime(p)) vm.warp(possession.seedTime(p));
        seedOf(possession.seedTime(p));
        answerForBob();
        proveFor(bob, p);
        if (choice % 5 != 0) proveFor(alice, p);
        toStart(p + 1);
        answerForBob();
    }

    function proveFor(uint64 operatorId, uint64 p) private {
        possession.sync(operatorId);
        IPossession.Standing memory s = possession.standing(operatorId);
        if (s.provenThrough > p || !possession.stands(operatorId)) return;
        IPossession.Leaf[] memory leaves = tableAt(operatorId, p);
        if (possession.tableOf(operatorId, p).leaves == 0) return;
        assertEq(possession.tableOf(operatorId, p).root, rootOf(leaves));
        if (holdsLost(leaves)) return; // some draw may be beyond her; she keeps silent
        bytes memory proof = openTable(leaves, operatorId, p, s.openMiss == 0 ? 1 : 2, false);
        if (s.openMiss != 0) {
            leaves = tableAt(operatorId, s.openMiss - 1);
            assertEq(possession.tableOf(operatorId, s.openMiss - 1).root, rootOf(leaves));
            proof = bytes.concat(proof, openTable(leaves, operatorId, s.openMiss - 1, 1, true));
        }
        proveWith(operatorId, proof);
        ++done[operatorId == bob ? bytes32("bob proved") : bytes32("alice proved")];
    }

    function holdsLost(IPossession.Leaf[] memory leaves) private view returns (bool) {
        for (uint256 i; i < leaves.length; ++i) {
            if (leaves[i].leaves != 0 && lost[leaves[i].dealId]) return true;
        }
        return false;
    }

    function answerForBob() private {
        for (uint256 i; i < deals.length; ++i) {
            if (market.deal(deals[i]).operatorId == bob && market.deal(deals[i]).challengedAt != 0) answerFor(deals[i]);
        }
    }

    function answerFor(uint64 id) private {
        IStorageMarket.Deal memory d = market.deal(id);
        if (d.challengedAt == 0 || lost[id] || block.timestamp > d.challengedAt + 120) return;
        if (block.timestamp < d.challengedAt) vm.warp(d.challengedAt);
        bytes memory openings = d.demanded == 0
            ? openPiece(leafOf(id), pieceSeeds[id], seedOf(d.challengedAt), 4)
            : openRange(pieceSeeds[id], d.pieceHeight, d.demandedFrom, d.demanded);
        vm.prank(nodeKey(d.operatorId));
        market.answer(id, openings);
        ++done["answer"];
    }

    // ------------------------------------------------------------------------------------------------ books

    function record(uint64 operatorId, uint32 slot, IPossession.Leaf memory leaf) private {
        changes[operatorId].push(Change(uint64(block.timestamp), slot, leaf));
    }

    /// The table that a proof of a period is checked against: all changes of blocks before its freeze. (The rule of the clients.)
    function tableAt(uint64 operatorId, uint64 p) private view returns (IPossession.Leaf[] memory leaves) {
        uint64 before = possession.freezeTime(p);
        Change[] storage all = changes[operatorId];
        uint256 slots;
        for (uint256 i; i < all.length && all[i].time < before; ++i) {
            if (all[i].slot == slots) ++slots;
        }
        leaves = new IPossession.Leaf[](slots);
        for (uint256 i; i < all.length && all[i].time < before; ++i) {
            leaves[all[i].slot] = all[i].leaf;
        }
    }

    function isFrozen(uint64 operatorId) private returns (bool) {
        possession.sync(operatorId);
        return block.timestamp >= possession.freezeTime(period()) && possession.stands(operatorId);
    }

    function running(IStorageMarket.State state) public pure returns (bool) {
        return state == IStorageMarket.State.Active || state == IStorageMarket.State.Faulty;
    }

    function inTable(uint64 operatorId) private view returns (uint256 count) {
        for (uint256 i; i < tables[operatorId].length; ++i) {
            if (tables[operatorId][i].leaves != 0) ++count;
        }
    }

    function pick(uint256 seed, IStorageMarket.State state) private view returns (uint64) {
        for (uint256 i; i < deals.length; ++i) {
            uint64 id = deals[(seed % deals.length + i) % deals.length];
            if (market.deal(id).state == state) return id;
        }
        return 0;
    }

    function pickOf(uint256 seed, uint64 operatorId, IStorageMarket.State state) private view returns (uint64) {
        for (uint256 i; i < deals.length; ++i) {
            uint64 id = deals[(seed % deals.length + i) % deals.length];
            IStorageMarket.Deal memory d = market.deal(id);
            if (d.state == state && d.operatorId == operatorId) return id;
        }
        return 0;
    }

    function pickRunning(uint256 seed) private view returns (uint64) {
        uint64 id = pick(seed, seed % 4 == 0 ? IStorageMarket.State.Faulty : IStorageMarket.State.Active);
        return id;
    }

    function dealsLength() external view returns (uint256) {
        return deals.length;
    }

    /// Everything that alice, her client and her reporter have: tokens, accounts, claims, stake, escrow of their deals.
    function coalition() public view returns (uint256 wealth) {
        address[3] memory members = [makeAddrView("alice"), accomplice, reporter];
        for (uint256 i; i < 3; ++i) {
            wealth += token.balanceOf(members[i]) + funds(members[i]) + claimable(members[i]);
        }
        (uint256 active, uint256 exiting) = vault.ownStake(alice);
        wealth += active + exiting;
        for (uint256 i; i < deals.length; ++i) {
            IStorageMarket.Deal memory d = market.deal(deals[i]);
            if (d.client != accomplice) continue;
            wealth += rails.rail(d.railId).escrow;
            if (d.challengedAt != 0) wealth += rails.rail(d.challengeRailId).escrow;
        }
    }

    function makeAddrView(string memory name) private pure returns (address) {
        return vm.addr(uint256(keccak256(abi.encodePacked(name))));
    }

    // ------------------------------------------------------------------------------------------------ invariants

    function assertLocksEqualDeals() external view {
        uint256 ofAlice;
        uint256 ofBob;
        for (uint256 i; i < deals.length; ++i) {
            IStorageMarket.Deal memory d = market.deal(deals[i]);
            if (d.operatorId == alice) ofAlice += d.locked;
            else ofBob += d.locked;
        }
        assertEq(vault.lockedBy(address(market)), ofAlice + ofBob);
        assertEq(vault.lockedOfModule(alice, address(market)), ofAlice);
        assertEq(vault.lockedOfModule(bob, address(market)), ofBob);
    }

    function assertEscrowIsWhatTheDealsSay() external view {
        for (uint256 i; i < deals.length; ++i) {
            IStorageMarket.Deal memory d = market.deal(deals[i]);
            IRails.Rail memory r = rails.rail(d.railId);
            bool open_ = d.state == IStorageMarket.State.Open || running(d.state);
            assertEq(r.closed, !open_);
            if (!open_) {
                assertEq(r.escrow, 0);
                assertGe(r.paid, uint256(d.pricePerPeriod) * (r.provenSeconds / PERIOD));
            } else if (d.state == IStorageMarket.State.Open) {
                assertEq(r.escrow, uint256(d.pricePerPeriod) * d.endPeriod + d.bond);
            } else {
                uint256 left = (r.end - r.settledTo) / PERIOD;
                assertEq(r.escrow, left * d.pricePerPeriod + d.bond);
                assertEq(r.paid, uint256(d.pricePerPeriod) * (r.provenSeconds / PERIOD));
                assertLe(d.earlyEndFee, uint256(d.pricePerPeriod) * (r.end - possession.periodStart(d.endPeriod)) / PERIOD);
            }
            if (d.challengedAt != 0) assertEq(rails.rail(d.challengeRailId).escrow, d.demanded == 0 ? 1e15 : 1e15 * uint256(d.demanded));
        }
        assertLe(rails.obligationsOf(address(token)), token.balanceOf(address(rails)));
        assertLe(vault.obligations(), token.balanceOf(address(vault)));
        assertEq(token.balanceOf(address(market)) + funds(address(market)) + claimable(address(market)), 0);
    }

    function assertTablesHoldTheDeals() external view {
        uint64[2] memory both = [alice, bob];
        for (uint256 j; j < 2; ++j) {
            uint256 leaves;
            uint256 weight;
            for (uint256 i; i < deals.length; ++i) {
                IStorageMarket.Deal memory d = market.deal(deals[i]);
                if (d.operatorId != both[j] || d.slot == type(uint32).max) continue;
                (leaves, weight) = (leaves + d.leaves, weight + d.collateral);
            }
            IPossession.Table memory t = possession.table(both[j]);
            assertEq(t.leaves, leaves);
            assertEq(t.weight, weight);
            assertEq(t.root, tables[both[j]].length == 0 ? bytes32(0) : rootOf(tables[both[j]]));
        }
    }

    function assertNobodyGains() external view {
        assertLe(coalition(), coalitionBefore);
        assertEq(paidByVault, paidForDeals); // no slash but a termination pays anybody
        assertEq(vault.slashableOf(bob), bobBefore);
        assertEq(possession.standing(bob).graceUsedAt, 0);
    }
}
