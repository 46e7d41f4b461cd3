// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOrderBook} from "../../src/storage/IOrderBook.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageFile} from "../../src/storage/IStorageFile.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {IRails} from "../../src/token/IRails.sol";
import {OrderFixture} from "./fixture.sol";

/// @notice Random lives of files. A hostile party is client, provider (three operators), matcher and repairer at once; beside it are an
/// honest client and three honest providers. Periods are long, so that nothing is earned by storing: whatever anybody has more than before
/// came from somebody else.
contract OrdersHandler is OrderFixture {
    uint256 private constant SEED = 1 << 20;

    struct Flow {
        uint256 funded; // by the bid, deposits afterwards
        uint256 fee;
        uint256 tip;
        uint256 bounties;
        uint256 withdrawn;
        uint256 compensation;
    }

    address public hostile = makeAddr("hostile client");
    uint256 private hostileSecret;
    address public hostileMatcher = makeAddr("hostile matcher");
    IStorageFile[] private files;
    mapping(address file => Flow) public flows;
    mapping(address file => bool) public isHostile;
    mapping(address file => uint64) private bidOf;
    uint64[] private asks;
    uint256 public hostileStart;
    uint256 public hostileBounties; // out of honest files
    uint256 public honestBounties; // out of hostile files
    uint256 public tipsToHostile; // out of honest bids
    mapping(string action => uint256) public done;

    function setUp() public override {
        super.setUp();
        (hostile, hostileSecret) = makeAddrAndKey("hostile client");
        fund(hostile, 1_000e18);
        approveBook(hostile);
        addProviders(6);
        hostileStart = wealthOf(true);
    }

    function possessionConfig() internal view override returns (IPossession.Config memory c) {
        c = super.possessionConfig();
        (c.period, c.window) = (9 hours, 4 hours);
    }

    // ----------------------------------------------------------------------------------------------------------------- actions

    function postOrders(uint256 which, uint8 count, bool byHostile) external {
        if (files.length >= 12) return;
        count = uint8(bound(count, 1, 3));
        IOrderBook.Bid memory b = bidFor(SEED + 10 * files.length, count, 1);
        b.periods = 10;
        b.maxPrice = uint128(bound(which, ASK_PRICE, BID_PRICE));
        if (byHostile) b.client = hostile;
        uint64[] memory placed = new uint64[](count);
        for (uint256 i; i < count; ++i) {
            uint64 operatorId = providers[(which % 6 + i) % 6];
            IOrderBook.Ask memory a = askFor(operatorId);
            if (vault.availableOf(operatorId) < book.askLock(a)) return;
            placed[i] = postAsk(a);
        }
        bytes memory signature = sign(byHostile ? hostileSecret : clientSecret, book.bidDigest(b));
        uint256 seed = SEED + 10 * files.length;
        (uint64 bidId, address at) = book.postBid(b, new uint64[](0), shardsOf(seed, count), ROOT_CID, signature);
        (bidSeeds[bidId], bidCounts[bidId], bidOf[at]) = (seed, count, bidId);
        flows[at].funded = book.bidCost(b);
        isHostile[at] = byHostile;
        files.push(IStorageFile(at));
        ++done["post"];
        if (which % 5 == 0) return; // stands unmatched
        _clear(bidId, placed);
    }

    function _clear(uint64 bidId, uint64[] memory placed) private {
        uint64 batch = close();
        IOrderBook.Matching memory m = straight(bidId, placed);
        vm.prank(hostileMatcher);
        book.submit(batch, m);
        toSettlement(batch);
        IStorageFile file = fileOf(bidId);
        uint256 supply = token.totalSupply();
        settle(batch, m, 0);
        flows[address(file)].fee = supply - token.totalSupply();
        flows[address(file)].tip = TIP;
        if (!isHostile[address(file)]) tipsToHostile += TIP;
        for (uint256 i; i < placed.length; ++i) {
            asks.push(placed[i]);
        }
        ++done["fill"];
    }

    function activateShard(uint256 which, uint8 shard) external {
        (IStorageFile file, IStorageFile.ShardAccount memory s) = _pick(which, shard);
        if (s.state != IStorageFile.ShardState.Live || !_inTime(s.dealId)) return;
        _activate(file, s.dealId);
    }

    function _activate(IStorageFile file, uint64 dealId) private {
        bytes32 digest = typedDigest(keccak256(abi.encode(keccak256("Activation(uint64 dealId)"), dealId)));
        activateWith(dealId, sign(isHostile[address(file)] ? hostileSecret : clientSecret, digest));
        ++done["activate"];
    }

    /// Only hostile operators lose data, renege, are silent.
    function breakShard(uint256 which, uint8 shard) external {
        (IStorageFile file, IStorageFile.ShardAccount memory s) = _pick(which, shard);
        if (s.state != IStorageFile.ShardState.Live || !_isHostileOperator(s.operatorId)) return;
        IStorageMarket.State state = market.deal(s.dealId).state;
        if (state == IStorageMarket.State.Active) {
            vm.prank(nodeKey(s.operatorId));
            market.surrender(s.dealId);
            ++done["surrender"];
        } else if (state == IStorageMarket.State.Open) {
            _passDeadline();
            market.expire(s.dealId);
            ++done["expire"];
        }
        if (which % 2 == 0) {
            if (_isLost(s.dealId)) file.noteLoss(uint8(shard % file.shards().length));
        }
    }

    /// All honest providers activate in time, whatever else happens.
    function _passDeadline() private {
        for (uint256 i; i < files.length; ++i) {
            IStorageFile.ShardAccount[] memory list = files[i].shards();
            for (uint256 s; s < list.length; ++s) {
                bool claimed = list[s].state == IStorageFile.ShardState.Claimed;
                uint64 dealId = claimed ? list[s].claimDealId : list[s].dealId;
                if (dealId == 0 || !_inTime(dealId) || _isHostileOperator(market.deal(dealId).operatorId)) continue;
                _activate(files[i], dealId);
            }
        }
        vm.warp(block.timestamp + 901);
    }

    function noteLoss(uint256 which, uint8 shard) external {
        (IStorageFile file, IStorageFile.ShardAccount memory s) = _pick(which, shard);
        if (s.state != IStorageFile.ShardState.Live || !_isLost(s.dealId)) return;
        file.noteLoss(uint8(shard % file.shards().length));
        ++done["noteLoss"];
    }

    function claimRepair(uint256 which, uint8 shard, uint256 by) external {
        (IStorageFile file, uint8 index, bool found) = _find(which, shard, IStorageFile.ShardState.Lost);
        if (!found) return;
        uint64 operatorId = providers[by % 6];
        vm.warp(block.timestamp + by % 700);
        uint256 before = vault.claimableOf(address(file));
        vm.prank(nodeKey(operatorId));
        try file.claimRepair(index, cidOf(bidSeeds[bidOf[address(file)]] + index), "n") returns (uint64 dealId) {
            pieceSeeds[dealId] = bidSeeds[bidOf[address(file)]] + index;
            flows[address(file)].compensation += before;
            ++done["claim"];
            if (which % 3 != 0) activateWith(dealId, "");
        } catch {
            ++done["claim refused"];
        }
    }

    function fulfil(uint256 which, uint8 shard, bool pay) external {
        (IStorageFile file, uint8 index, bool found) = _find(which, shard, IStorageFile.ShardState.Claimed);
        if (!found) return;
        IStorageFile.ShardAccount memory s = file.shard(index);
        if (_inTime(s.claimDealId)) activateWith(s.claimDealId, "");
        if (!pay || _isOpen(s.claimDealId) || _isLost(s.claimDealId)) return;
        file.finishRepair(index);
        flows[address(file)].bounties += s.bounty;
        bool toHostile = _isHostileOperator(s.claimOperatorId);
        if (toHostile && !isHostile[address(file)]) hostileBounties += s.bounty;
        if (!toHostile && isHostile[address(file)]) honestBounties += s.bounty;
        ++done["finish"];
    }

    function failClaim(uint256 which, uint8 shard) external {
        (IStorageFile file, uint8 index, bool found) = _find(which, shard, IStorageFile.ShardState.Claimed);
        if (!found) return;
        IStorageFile.ShardAccount memory s = file.shard(index);
        if (!_isHostileOperator(s.claimOperatorId)) return;
        if (_isOpen(s.claimDealId)) {
            _passDeadline();
        } else if (!_isLost(s.claimDealId)) {
            vm.prank(nodeKey(s.claimOperatorId));
            market.surrender(s.claimDealId);
        }
        file.failClaim(index);
        ++done["failClaim"];
    }

    function withdraw(uint256 which, uint256 amount, bool all) external {
        if (files.length == 0) return;
        IStorageFile file = files[which % files.length];
        address owner = file.terms().owner;
        uint256 free = file.free();
        amount = all ? free : bound(amount, 0, funds(address(file)) + 1);
        if (amount == 0) return;
        uint256 credit = vault.claimableOf(address(file));
        vm.prank(owner);
        try file.withdraw(amount, owner) {
            flows[address(file)].withdrawn += amount;
            flows[address(file)].compensation += credit;
            ++done["withdraw"];
        } catch {
            ++done["withdraw refused"];
        }
    }

    function challenge(uint256 which, uint8 shard) external {
        (IStorageFile file, IStorageFile.ShardAccount memory s) = _pick(which, shard);
        // An honest provider would answer; only hostile ones are asked here.
        if (s.state != IStorageFile.ShardState.Live || !_isHostileOperator(s.operatorId)) return;
        if (_inTime(s.dealId)) _activate(file, s.dealId);
        uint8 index = uint8(shard % file.shards().length);
        vm.prank(file.terms().owner);
        try file.challenge(index) {
            ++done["challenge"];
            vm.warp(market.deal(s.dealId).challengedAt + 121);
            market.terminate(s.dealId);
        } catch {}
    }

    function cancel(uint256 which) external {
        if (files.length == 0) return;
        uint64 bidId = bidOf[address(files[which % files.length])];
        if (book.bid(bidId).filled) return;
        vm.prank(files[which % files.length].terms().owner);
        book.cancelBid(bidId);
        close();
        ++done["cancel"];
    }

    function release(uint256 which) external {
        if (asks.length == 0) return;
        uint64 askId = asks[which % asks.length];
        IOrderBook.AskState memory a = book.ask(askId);
        vm.prank(nodeKey(a.operatorId));
        book.cancelAsk(askId);
        close();
        if (a.locked != 0) book.releaseAsk(askId);
    }

    // ----------------------------------------------------------------------------------------------------------- what is known

    function fileCount() external view returns (uint256) {
        return files.length;
    }

    function fileAt(uint256 index) external view returns (IStorageFile) {
        return files[index];
    }

    /// What a file has spent on its deals: escrow still held, paid, or lost as a bond.
    function spentOnRails(address file) public view returns (uint256 spent) {
        uint256 count = rails.railCount();
        for (uint256 id = 1; id <= count; ++id) {
            IRails.Rail memory r = rails.rail(id);
            if (r.payer == file) spent += uint256(r.escrow) + r.paid;
        }
        uint64 deals = market.dealCount();
        for (uint64 id = 1; id <= deals; ++id) {
            IStorageMarket.Deal memory d = market.deal(id);
            if (d.client == file && d.state == IStorageMarket.State.Expired) spent += d.bond;
        }
    }

    function balances() external view returns (uint256[] memory held, uint256[] memory expected) {
        held = new uint256[](files.length);
        expected = new uint256[](files.length);
        for (uint256 i; i < files.length; ++i) {
            address file = address(files[i]);
            Flow memory f = flows[file];
            held[i] = funds(file) + spentOnRails(file) + f.fee + f.tip + f.bounties + f.withdrawn;
            expected[i] = f.funded + f.compensation;
        }
    }

    /// Everything that a party has anywhere: tokens, accounts, stake, claims, its files and what they hold in escrow.
    function wealthOf(bool bad) public view returns (uint256 sum) {
        address who = bad ? hostile : client;
        sum = token.balanceOf(who) + funds(who) + vault.claimableOf(who);
        if (bad) sum += funds(hostileMatcher);
        for (uint256 i; i < 6; ++i) {
            if (_isHostileOperator(providers[i]) != bad) continue;
            (uint256 active, uint256 exiting) = vault.ownStake(providers[i]);
            sum += active + exiting + token.balanceOf(ownerOf(i)) + funds(ownerOf(i)) + vault.claimableOf(ownerOf(i));
        }
        for (uint256 i; i < files.length; ++i) {
            address file = address(files[i]);
            if (isHostile[file] != bad) continue;
            sum += funds(file) + vault.claimableOf(file);
            uint256 count = rails.railCount();
            for (uint256 id = 1; id <= count; ++id) {
                IRails.Rail memory r = rails.rail(id);
                if (r.payer == file) sum += r.escrow;
            }
        }
    }

    /// The vault holds locked for the book exactly what asks and open claims say.
    function locksOfBook() external view returns (uint256 locked, uint256 expected) {
        locked = vault.lockedBy(address(book));
        for (uint64 id = 1; id <= book.askCount(); ++id) {
            expected += book.ask(id).locked;
        }
        for (uint64 id = 1; id <= market.dealCount(); ++id) {
            if (book.claimOperator(id) != 0) expected += CLAIM_BOND;
        }
    }

    function leftInTheBook() external view returns (uint256) {
        return token.balanceOf(address(book)) + funds(address(book)) + funds(address(market)) + token.balanceOf(address(market));
    }

    function ownerOf(uint256 index) private view returns (address) {
        return operators.ownerOf(providers[index]);
    }

    function _isHostileOperator(uint64 operatorId) private view returns (bool) {
        return operatorId == providers[1] || operatorId == providers[3] || operatorId == providers[5];
    }

    function _pick(uint256 which, uint8 shard) private view returns (IStorageFile file, IStorageFile.ShardAccount memory s) {
        if (files.length == 0) return (file, s);
        file = files[which % files.length];
        s = file.shard(uint8(shard % file.shards().length));
    }

    /// The first shard in that state, from a file and a shard drawn by lot on.
    function _find(uint256 which, uint8 shard, IStorageFile.ShardState state)
        private
        view
        returns (IStorageFile file, uint8 index, bool found)
    {
        for (uint256 f; f < files.length; ++f) {
            file = files[(which % files.length + f) % files.length];
            IStorageFile.ShardAccount[] memory list = file.shards();
            for (uint256 i; i < list.length; ++i) {
                index = uint8((shard % list.length + i) % list.length);
                if (list[index].state == state) return (file, index, true);
            }
        }
        return (file, index, false);
    }

    function _isOpen(uint64 dealId) private view returns (bool) {
        return market.deal(dealId).state == IStorageMarket.State.Open;
    }

    /// Open, and its deadline not passed when the seed is there.
    function _inTime(uint64 dealId) private view returns (bool) {
        return _isOpen(dealId) && block.timestamp <= market.deal(dealId).openedAt + 880;
    }

    function _isLost(uint64 dealId) private view returns (bool) {
        IStorageMarket.State state = market.deal(dealId).state;
        return state == IStorageMarket.State.Expired || state == IStorageMarket.State.Terminated;
    }
}
