// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IJury} from "../../src/governance/IJury.sol";
import {Jury} from "../../src/governance/Jury.sol";
import {JuryTerms} from "../../src/governance/JuryTerms.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {JuryFixture} from "./jury-fixture.sol";

/// @notice Everything that anybody can do to a jury: jurors who come and go, vote as they like, are silent or struck; disputes and appeals.
contract JuryHandler is JuryFixture {
    uint256 private constant OPERATORS = 9;
    uint256 private constant DISPUTES_MAX = 8; // the laws look at all of them after every call
    uint64[] public ids;
    mapping(bytes32 what => uint256) public done;
    mapping(uint256 disputeId => mapping(uint64 operatorId => uint256)) private chosen;

    function setUp() public override {
        super.setUp();
        for (uint256 i; i < OPERATORS; ++i) {
            ids.push(newJuror(2));
            depositStake(ids[i], address(this), 100 * SEAT);
        }
        vm.warp(block.timestamp + 1);
    }

    function count() external view returns (uint256) {
        return ids.length;
    }

    function contracts() external view returns (Jury, StakeVault, NetworkToken) {
        return (jury, vault, token);
    }

    function beneficiaryOf(uint64 id) external view returns (address) {
        return operators.beneficiaryOf(id);
    }

    function payerAndArbitrable() external view returns (address, address) {
        return (payer, address(arbitrable));
    }

    function comeOrGo(uint256 lot, uint32 seats) external {
        uint64 id = ids[lot % OPERATORS];
        uint32 held = jury.juror(id).seats;
        vm.startPrank(operators.nodeKeyOf(id));
        if (lot >> 128 & 3 != 0 && held < 4) jury.enrol(id, uint32(bound(seats, 1, 4 - held)));
        else if (held != 0) jury.leave(id, uint32(bound(seats, 1, held)));
        vm.stopPrank();
        vm.warp(block.timestamp + 1);
        ++done["comeOrGo"];
    }

    function unlock(uint256 lot) external {
        uint64 id = ids[lot % OPERATORS];
        vm.warp(block.timestamp + lot % 900);
        try jury.unlock(id) {
            ++done["unlock"];
        } catch (bytes memory reason) {
            require(bytes4(reason) == IJury.StillLocked.selector || bytes4(reason) == IJury.NothingToUnlock.selector, "unlock");
        }
    }

    function open(uint256 lot) external {
        if (jury.disputeCount() == DISPUTES_MAX) return;
        bytes memory terms = lot & 1 == 0 ? termsOf(ids[lot % OPERATORS]) : JuryTerms.encode(payer, new uint64[](0), new address[](0));
        try arbitrable.open{value: 3 * FEE + lot % 3}(1 + lot % 3, terms) returns (uint256) {
            ++done["open"];
        } catch (bytes memory reason) {
            require(bytes4(reason) == IJury.TooFewJurors.selector, "open");
        }
    }

    /// One step of one dispute, whatever it is ready for.
    function step(uint256 lot, uint256 votes) public {
        uint256 total = jury.disputeCount();
        if (total == 0) return;
        uint256 id = 1 + lot % total;
        IJury.Dispute memory d = jury.dispute(id);
        if (d.phase == IJury.Phase.Drawing) _drawOrExpire(id, d, votes);
        else if (d.phase == IJury.Phase.Voting) _voteInPart(id, d, votes);
        else if (d.phase == IJury.Phase.Ruled) _appealOrEnd(id, d, votes);
        else _settle(id, d, votes);
    }

    function steps(uint256 lot, uint256 votes) external {
        for (uint256 i; i < 4; ++i) {
            step(lot, uint256(keccak256(abi.encode(votes, i))));
        }
    }

    function _drawOrExpire(uint256 id, IJury.Dispute memory d, uint256 votes) private {
        if (votes % 8 == 0) {
            vm.warp(uint256(d.seedTime) + 600 + block.timestamp - d.openedAt);
            jury.expire(id);
            ++done["expire"];
        } else if (block.timestamp < uint256(d.seedTime) + 600) {
            uint64 seedTime = d.seedTime;
            if (block.timestamp < seedTime) vm.warp(seedTime);
            randomness.fix(seedTime, "", "", "");
            try jury.draw(id) {
                ++done["draw"];
            } catch (bytes memory reason) {
                require(bytes4(reason) == IJury.TooFewJurors.selector, "draw");
            }
        } else {
            jury.expire(id);
        }
    }

    function _voteInPart(uint256 id, IJury.Dispute memory d, uint256 votes) private {
        uint64[] memory list = jurors(id);
        if (block.timestamp < d.commitUntil) {
            for (uint256 i; i < list.length; ++i) {
                uint256 lot = uint256(keccak256(abi.encode(votes, list[i])));
                if (lot % 7 == 0 || jury.voteOf(id, d.round, list[i]).state != IJury.VoteState.None) continue;
                chosen[id][list[i]] = lot % 4 % (d.choices + 1);
                commit(id, list[i], chosen[id][list[i]]);
                if (lot % 5 != 0 || block.timestamp >= jury.dispute(id).commitUntil) continue;
                jury.strike(id, list[i], chosen[id][list[i]], SALT);
                ++done["strike"];
            }
            if (votes % 3 != 0) return;
            vm.warp(d.commitUntil);
        }
        d = jury.dispute(id);
        for (uint256 i; i < list.length && block.timestamp >= d.commitUntil && block.timestamp < d.revealUntil; ++i) {
            if (jury.voteOf(id, d.round, list[i]).state != IJury.VoteState.Committed) continue;
            if (uint256(keccak256(abi.encode(votes, i))) % 6 != 0) jury.reveal(id, list[i], chosen[id][list[i]], SALT);
            ++done["reveal"];
        }
        d = jury.dispute(id);
        if (block.timestamp < d.revealUntil) vm.warp(d.revealUntil);
        jury.close(id);
        ++done["close"];
        if (votes & 8 == 0) _appealOrEnd(id, jury.dispute(id), votes >> 8);
    }

    function _appealOrEnd(uint256 id, IJury.Dispute memory d, uint256 votes) private {
        if (block.timestamp < d.appealUntil && votes & 3 == 0) {
            uint256 cost = jury.appealCost(id, "");
            try arbitrable.appeal{value: cost}(id, abi.encodePacked(payer)) {
                ++done["appeal"];
            } catch (bytes memory reason) {
                require(bytes4(reason) == IJury.TooFewJurors.selector, "appeal");
            }
            return;
        }
        toFinal(id);
        if (votes & 4 == 0) return _settle(id, jury.dispute(id), votes);
        jury.execute(id);
        ++done["execute"];
    }

    function _settle(uint256 id, IJury.Dispute memory d, uint256 votes) private {
        uint8 round = uint8(votes % (uint256(d.round) + 1));
        if (!jury.roundOf(id, round).settled) jury.settle(id, round);
        ++done["settle"];
    }

    function pay(uint256 lot) external {
        address account = lot % 10 == 9 ? payer : operators.beneficiaryOf(ids[lot % OPERATORS]);
        (uint256 coins, uint256 tokens) = jury.owed(account);
        if (coins != 0) jury.withdraw(account);
        if (tokens != 0) jury.withdrawTokens(account);
        ++done["pay"];
    }
}

/// @notice Laws of the jury's money and locks that hold after every sequence of calls.
contract JuryInvariants is JuryFixture {
    JuryHandler private handler;

    function setUp() public override {
        handler = JuryHandler(vm.deployCode("jury-invariant.t.sol:JuryHandler"));
        handler.setUp();
        vm.deal(address(handler), 1_000e18);
        bytes4[] memory actions = new bytes4[](6);
        actions[0] = handler.comeOrGo.selector;
        actions[1] = handler.unlock.selector;
        actions[2] = handler.open.selector;
        actions[3] = handler.step.selector;
        actions[4] = handler.steps.selector;
        actions[5] = handler.pay.selector;
        targetContract(address(handler));
        targetSelector(FuzzSelector(address(handler), actions));
        (jury, vault, token) = handler.contracts();
    }

    /// forge-config: default.invariant.runs = 4
    /// forge-config: deep.invariant.runs = 200
    /// forge-config: default.invariant.depth = 48
    /// forge-config: deep.invariant.depth = 64
    function invariant_theLawsOfTheJury() public view {
        _lawsOfMoney();
        _lawsOfLocks();
    }

    /// Coins: what is owed and the fees of rounds that are not settled, and nothing else. Tokens: what is owed.
    function _lawsOfMoney() private view {
        (address payer_, address arbitrable_) = handler.payerAndArbitrable();
        uint256 coins = coinsOf(payer_) + coinsOf(arbitrable_);
        uint256 tokens = tokensOf(payer_) + tokensOf(arbitrable_);
        for (uint256 i; i < handler.count(); ++i) {
            coins += coinsOf(handler.beneficiaryOf(handler.ids(i)));
            tokens += tokensOf(handler.beneficiaryOf(handler.ids(i)));
        }
        for (uint256 id = 1; id <= jury.disputeCount(); ++id) {
            for (uint8 round; round <= jury.dispute(id).round; ++round) {
                IJury.RoundView memory r = jury.roundOf(id, round);
                if (!r.settled) coins += uint256(r.votes) * FEE;
            }
        }
        assertEq(address(jury).balance, coins);
        assertEq(token.balanceOf(address(jury)), tokens);
    }

    /// Every seat and every open vote is backed; open votes are those that were drawn and are neither struck nor settled.
    function _lawsOfLocks() private view {
        uint256[] memory open = _openVotes();
        uint256 locked;
        for (uint256 i; i < handler.count(); ++i) {
            uint64 operatorId = handler.ids(i);
            IJury.Juror memory j = jury.juror(operatorId);
            uint256 own = lockedOf(operatorId);
            assertGe(own, uint256(j.openVotes) * PENALTY);
            assertGe(own, uint256(j.seats) * SEAT);
            assertEq(j.seats == 0, j.place == 0);
            assertEq(j.openVotes, open[operatorId]);
            locked += own;
        }
        assertEq(vault.lockedBy(address(jury)), locked);
    }

    function _openVotes() private view returns (uint256[] memory open) {
        open = new uint256[](handler.count() + 1); // operators are numbered from 1
        uint256 disputes = jury.disputeCount();
        for (uint256 id = 1; id <= disputes; ++id) {
            uint8 last = jury.dispute(id).round;
            for (uint8 round; round <= last; ++round) {
                IJury.RoundView memory r = jury.roundOf(id, round);
                for (uint256 i; i < r.jurors.length && !r.settled; ++i) {
                    IJury.Vote memory v = jury.voteOf(id, round, r.jurors[i]);
                    if (v.state != IJury.VoteState.Struck) open[r.jurors[i]] += v.votes;
                }
            }
        }
    }

    /// The same actions by a fixed lot: they do reach what the laws are about.
    function test_theActionsReachWhatTheLawsAreAbout() public {
        for (uint256 i; i < 160; ++i) {
            uint256 lot = uint256(keccak256(abi.encode(i)));
            uint256 action = lot % 16;
            if (action == 0) handler.comeOrGo(lot >> 8, uint32(lot >> 100));
            else if (action == 1) handler.unlock(lot >> 8);
            else if (action < 4) handler.open(lot >> 8);
            else if (action == 4) handler.pay(lot >> 8);
            else handler.step(lot >> 8, lot >> 16);
            if (i % 50 == 49) invariant_theLawsOfTheJury();
        }
        string[12] memory reached =
            ["comeOrGo", "unlock", "open", "draw", "expire", "strike", "reveal", "close", "appeal", "execute", "settle", "pay"];
        for (uint256 i; i < reached.length; ++i) {
            assertGt(handler.done(bytes32(bytes(reached[i]))), 0, reached[i]);
        }
    }
}
