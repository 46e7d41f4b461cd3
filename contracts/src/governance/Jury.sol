// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRandomness} from "../chain/IRandomness.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IArbitrable, IArbitrator} from "./IArbitration.sol";
import {IJury} from "./IJury.sol";
import {JurySeats} from "./JurySeats.sol";
import {JuryTerms} from "./JuryTerms.sol";

/// @title Jury: see IJury for the rules. No owner, no parameter that can change.
/// @notice Money: fees of rounds and what is owed in the chain's own coin; in tokens only what settled rounds owe. All is pulled.
/// Every phase ends at a known time, and anyone moves a dispute on; whether an arbitrable takes its ruling does not touch jurors' pay.
contract Jury is JurySeats, IModule {
    using SafeERC20 for IERC20;

    uint256 private constant VOTES_MAX = 63; // of the last round
    uint32 private constant SECONDS_MAX = 30 days; // of any time in the configuration
    /// What Kleros answers where there is no appeal: no sum with it overflows.
    uint256 private constant NOT_PAYABLE = (type(uint256).max - 1) / 2;

    struct Round {
        address refundTo;
        uint16 votes;
        uint16 committed;
        uint16 revealed;
        bool settled;
        uint64[] jurors;
        mapping(uint64 operatorId => Vote) voteOf;
        mapping(uint256 ruling => uint256) votesFor;
    }

    /// What the coherent votes of a round divide among themselves.
    struct Shares {
        uint256 votes;
        uint256 coins;
        uint256 tokens;
    }

    IRandomness public immutable randomness;
    IERC20 public immutable token;

    /// @inheritdoc IJury
    uint256 public disputeCount;
    mapping(uint256 disputeId => Dispute) private _cases;
    mapping(uint256 disputeId => mapping(uint256 round => Round)) private _rounds;
    mapping(address account => uint256) private _coins;
    mapping(address account => uint256) private _tokens;

    constructor(Config memory c, IOperators operators_, IStakeVault stakeVault_, IRandomness randomness_)
        JurySeats(operators_, stakeVault_)
    {
        if (c.penalty == 0 || c.penalty > c.seatStake) {
            revert BadConfig("penalty", c.penalty, c.seatStake);
        }
        if (c.voteFee > type(uint96).max) revert BadConfig("voteFee", c.voteFee, type(uint96).max);
        if (c.votes % 2 == 0) revert BadConfig("votes", c.votes, 1);
        if (_votesIn(c.votes, c.appealsMax) > VOTES_MAX) revert BadConfig("appealsMax", c.appealsMax, VOTES_MAX);
        _requireTime("drawDelay", c.drawDelay);
        _requireTime("seedQuantum", c.seedQuantum);
        _requireTime("drawSeconds", c.drawSeconds);
        _requireTime("commitSeconds", c.commitSeconds);
        _requireTime("revealSeconds", c.revealSeconds);
        _requireTime("appealSeconds", c.appealSeconds);
        _requireTime("leaveSeconds", c.leaveSeconds);
        uint256 longestDraw = uint256(c.drawDelay) + c.seedQuantum + c.drawSeconds;
        if (c.leaveSeconds < longestDraw) revert BadConfig("leaveSeconds", c.leaveSeconds, longestDraw);
        _config = c;
        randomness = randomness_;
        token = IERC20(stakeVault_.stakeToken());
    }

    // ---------------------------------------------------------------------------------------------------- disputes and appeals

    /// @inheritdoc IArbitrator
    function createDispute(uint256 _choices, bytes calldata _extraData) external payable returns (uint256 disputeID) {
        if (_choices == 0) revert BadChoices(0);
        (address refundTo, uint64[] memory parties, address[] memory accounts) = JuryTerms.decode(_extraData);
        disputeID = ++disputeCount;
        Dispute storage c = _cases[disputeID];
        (c.arbitrable, c.choices, c.parties, c.accounts) = (IArbitrable(msg.sender), _choices, parties, accounts);
        emit DisputeCreation(disputeID, IArbitrable(msg.sender));
        _openRound(disputeID, c, 0, refundTo);
    }

    /// @inheritdoc IArbitrator
    /// @dev Only the arbitrable: who is a party, and who paid for which appeal, is its knowledge.
    function appeal(uint256 _disputeID, bytes calldata _extraData) external payable {
        Dispute storage c = _inPhase(_disputeID, Phase.Ruled);
        if (msg.sender != address(c.arbitrable)) revert NotArbitrable(_disputeID, msg.sender, address(c.arbitrable));
        if (block.timestamp >= c.appealUntil) revert TooLate(_disputeID, c.appealUntil, block.timestamp);
        emit AppealDecision(_disputeID, c.arbitrable);
        _openRound(_disputeID, c, ++c.round, JuryTerms.decodeRefund(_extraData));
    }

    function _openRound(uint256 disputeId, Dispute storage c, uint8 round, address refundTo) private {
        uint256 votes = _votesIn(_config.votes, round);
        uint256 fee = votes * _config.voteFee;
        if (msg.value < fee) revert FeeTooSmall(msg.value, fee);
        _requireEnough(votes, _excluded(c.parties, c.accounts));
        uint256 quantum = _config.seedQuantum;
        uint48 seedTime = uint48((block.timestamp + _config.drawDelay + quantum - 1) / quantum * quantum);
        (c.phase, c.openedAt, c.seedTime) = (Phase.Drawing, uint48(block.timestamp), seedTime);
        Round storage r = _rounds[disputeId][round];
        (r.refundTo, r.votes) = (refundTo == address(0) ? msg.sender : refundTo, uint16(votes));
        _coins[r.refundTo] += msg.value - fee;
        emit RoundOpened(disputeId, round, uint16(votes), seedTime, r.refundTo);
    }

    // --------------------------------------------------------------------------------------------------------------- the draw

    /// @inheritdoc IJury
    function draw(uint256 disputeId) external {
        Dispute storage c = _inPhase(disputeId, Phase.Drawing);
        uint256 until = uint256(c.seedTime) + _config.drawSeconds;
        if (block.timestamp >= until) revert TooLate(disputeId, until, block.timestamp);
        uint256 seed = uint256(keccak256(abi.encode("jury", randomness.valueOf(c.seedTime), disputeId, c.round)));
        Round storage r = _rounds[disputeId][c.round];
        Draw memory d = _drawVotes(seed, c.openedAt, r.votes, _excluded(c.parties, c.accounts));
        if (d.drawn < r.votes) revert TooFewJurors(d.drawn, r.votes);
        uint256 count;
        for (uint256 i; i < d.count; ++i) {
            if (d.votes[i] == 0) continue;
            (uint64 operatorId, uint16 votes) = (d.met[i], d.votes[i]);
            r.jurors.push(operatorId);
            r.voteOf[operatorId].votes = votes;
            _jurors[operatorId].openVotes += votes;
            (d.met[count], d.votes[count]) = (operatorId, votes);
            ++count;
        }
        (uint64[] memory jurors, uint16[] memory votesOf) = (d.met, d.votes);
        assembly ("memory-safe") {
            mstore(jurors, count)
            mstore(votesOf, count)
        }
        c.phase = Phase.Voting;
        c.commitUntil = uint48(block.timestamp) + _config.commitSeconds;
        c.revealUntil = c.commitUntil + _config.revealSeconds;
        emit JuryDrawn(disputeId, c.round, jurors, votesOf, c.commitUntil, c.revealUntil);
    }

    /// @inheritdoc IJury
    /// @dev The fee goes back; what was the ruling before (at first: refused) is final.
    function expire(uint256 disputeId) external {
        Dispute storage c = _inPhase(disputeId, Phase.Drawing);
        uint256 until = uint256(c.seedTime) + _config.drawSeconds;
        if (block.timestamp < until) revert TooEarly(disputeId, until, block.timestamp);
        Round storage r = _rounds[disputeId][c.round];
        r.settled = true;
        emit JuryNotDrawn(disputeId, c.round, r.votes);
        _returnFee(disputeId, c.round, r);
        (c.phase, c.appealUntil) = (Phase.Ruled, uint48(block.timestamp));
        emit RoundRuled(disputeId, c.round, false, c.ruling, c.appealUntil);
    }

    function _returnFee(uint256 disputeId, uint8 round, Round storage r) private {
        uint256 fee = uint256(r.votes) * _config.voteFee;
        _coins[r.refundTo] += fee;
        emit FeeReturned(disputeId, round, r.refundTo, fee);
    }

    // ------------------------------------------------------------------------------------------------------------------ votes

    /// @inheritdoc IJury
    function commit(uint256 disputeId, bytes32 commitment) external {
        Dispute storage c = _inPhase(disputeId, Phase.Voting);
        if (block.timestamp >= c.commitUntil) revert TooLate(disputeId, c.commitUntil, block.timestamp);
        uint64 operatorId = operators.operatorOfNodeKey(msg.sender);
        Round storage r = _rounds[disputeId][c.round];
        Vote storage v = _openVote(disputeId, r, operatorId, VoteState.None);
        (v.word, v.state) = (uint256(commitment), VoteState.Committed);
        r.committed += v.votes;
        emit VoteCommitted(disputeId, c.round, operatorId);
        if (r.committed == r.votes) c.commitUntil = uint48(block.timestamp);
    }

    /// @inheritdoc IJury
    function strike(uint256 disputeId, uint64 operatorId, uint256 ruling, bytes32 salt) external {
        Dispute storage c = _inPhase(disputeId, Phase.Voting);
        if (block.timestamp >= c.commitUntil) revert TooLate(disputeId, c.commitUntil, block.timestamp);
        Round storage r = _rounds[disputeId][c.round];
        Vote storage v = _opened(disputeId, c.round, r, operatorId, ruling, salt);
        v.state = VoteState.Struck;
        r.revealed += v.votes;
        emit VoteStruck(disputeId, c.round, operatorId, msg.sender);
        uint256 whole = uint256(v.votes) * _config.penalty;
        (uint256 amount,) = _penalise(operatorId, v.votes, IStakeVault.Payout(address(0), 0, msg.sender, whole));
        emit JurorPenalised(disputeId, c.round, operatorId, amount);
    }

    /// @inheritdoc IJury
    function reveal(uint256 disputeId, uint64 operatorId, uint256 ruling, bytes32 salt) external {
        Dispute storage c = _inPhase(disputeId, Phase.Voting);
        if (block.timestamp < c.commitUntil) revert TooEarly(disputeId, c.commitUntil, block.timestamp);
        if (block.timestamp >= c.revealUntil) revert TooLate(disputeId, c.revealUntil, block.timestamp);
        if (ruling > c.choices) revert UnknownRuling(disputeId, ruling, c.choices);
        Round storage r = _rounds[disputeId][c.round];
        Vote storage v = _opened(disputeId, c.round, r, operatorId, ruling, salt);
        (v.word, v.state) = (ruling, VoteState.Revealed);
        r.revealed += v.votes;
        r.votesFor[ruling] += v.votes;
        emit VoteRevealed(disputeId, c.round, operatorId, ruling);
        if (2 * r.votesFor[ruling] > r.votes) (c.ruling, c.decided) = (ruling, true);
        if (r.revealed == r.votes) c.revealUntil = uint48(block.timestamp);
    }

    function _openVote(uint256 disputeId, Round storage r, uint64 operatorId, VoteState expected) private view returns (Vote storage v) {
        v = r.voteOf[operatorId];
        if (v.votes == 0) revert NotOnJury(disputeId, operatorId);
        if (v.state != expected) revert AlreadyVoted(disputeId, operatorId, v.state);
    }

    function _opened(uint256 disputeId, uint8 round, Round storage r, uint64 operatorId, uint256 ruling, bytes32 salt)
        private
        view
        returns (Vote storage v)
    {
        v = _openVote(disputeId, r, operatorId, VoteState.Committed);
        if (bytes32(v.word) != commitmentOf(disputeId, round, operatorId, ruling, salt)) revert WrongOpening(disputeId, operatorId);
    }

    // ----------------------------------------------------------------------------------------------------------------- ruling

    /// @inheritdoc IJury
    function close(uint256 disputeId) external {
        Dispute storage c = _inPhase(disputeId, Phase.Voting);
        if (block.timestamp < c.revealUntil) revert TooEarly(disputeId, c.revealUntil, block.timestamp);
        bool isLast = c.round == _config.appealsMax;
        (c.phase, c.appealUntil) = (Phase.Ruled, uint48(block.timestamp) + (isLast ? 0 : _config.appealSeconds));
        Round storage r = _rounds[disputeId][c.round];
        emit RoundRuled(disputeId, c.round, 2 * r.votesFor[c.ruling] > r.votes, c.ruling, c.appealUntil);
        if (!isLast) emit AppealPossible(disputeId, c.arbitrable);
    }

    /// @inheritdoc IJury
    function execute(uint256 disputeId) external {
        Dispute storage c = _inPhase(disputeId, Phase.Ruled);
        if (block.timestamp < c.appealUntil) revert TooEarly(disputeId, c.appealUntil, block.timestamp);
        c.phase = Phase.Executed;
        c.arbitrable.rule(disputeId, c.ruling);
    }

    /// @inheritdoc IJury
    function settle(uint256 disputeId, uint8 round) external {
        Dispute storage c = _cases[disputeId];
        if (!isFinal(disputeId)) revert WrongPhase(disputeId, c.phase, Phase.Executed);
        if (round > c.round) revert UnknownRound(disputeId, round);
        Round storage r = _rounds[disputeId][round];
        if (r.settled) revert AlreadySettled(disputeId, round);
        r.settled = true;
        uint64[] memory jurors = r.jurors;
        uint256 coherent = _coherentVotes(c, r, jurors);
        IStakeVault.Payout memory payout;
        if (coherent != 0) (payout.client, payout.compensation) = (address(this), type(uint256).max);
        uint256 taken;
        for (uint256 i; i < jurors.length; ++i) {
            Vote storage v = r.voteOf[jurors[i]];
            if (v.state == VoteState.Struck || _isCoherent(c, v)) continue;
            (uint256 amount, uint256 compensation) = _penalise(jurors[i], v.votes, payout);
            taken += compensation;
            emit JurorPenalised(disputeId, round, jurors[i], amount);
        }
        if (coherent == 0) return _returnFee(disputeId, round, r);
        if (taken != 0) stakeVault.claim(address(this));
        _payJurors(disputeId, round, jurors, Shares(coherent, uint256(r.votes) * _config.voteFee, taken));
    }

    function _coherentVotes(Dispute storage c, Round storage r, uint64[] memory jurors) private view returns (uint256 coherent) {
        for (uint256 i; i < jurors.length; ++i) {
            Vote storage v = r.voteOf[jurors[i]];
            if (_isCoherent(c, v)) coherent += v.votes;
        }
    }

    /// Every coherent vote has the same share; what the division leaves goes to the first juror.
    function _payJurors(uint256 disputeId, uint8 round, uint64[] memory jurors, Shares memory shares) private {
        uint256 restCoins = shares.coins % shares.votes;
        uint256 restTokens = shares.tokens % shares.votes;
        for (uint256 i; i < jurors.length; ++i) {
            uint64 operatorId = jurors[i];
            Vote storage v = _rounds[disputeId][round].voteOf[operatorId];
            if (!_isCoherent(_cases[disputeId], v)) continue;
            _jurors[operatorId].openVotes -= v.votes;
            uint256 coins = shares.coins / shares.votes * v.votes + restCoins;
            uint256 tokens = shares.tokens / shares.votes * v.votes + restTokens;
            (restCoins, restTokens) = (0, 0);
            address beneficiary = operators.beneficiaryOf(operatorId);
            _coins[beneficiary] += coins;
            _tokens[beneficiary] += tokens;
            emit JurorPaid(disputeId, round, operatorId, coins, tokens);
        }
    }

    function _isCoherent(Dispute storage c, Vote storage v) private view returns (bool) {
        return v.state == VoteState.Revealed && (!c.decided || v.word == c.ruling);
    }

    // ------------------------------------------------------------------------------------------------------------------ money

    /// @inheritdoc IJury
    function withdraw(address account) external returns (uint256 coins) {
        coins = _coins[account];
        if (coins == 0) revert NothingOwed(account);
        _coins[account] = 0;
        emit Withdrawn(account, coins, 0);
        (bool accepted,) = account.call{value: coins}("");
        if (!accepted) revert CoinsRefused(account, coins);
    }

    /// @inheritdoc IJury
    function withdrawTokens(address account) external returns (uint256 tokens) {
        tokens = _tokens[account];
        if (tokens == 0) revert NothingOwed(account);
        _tokens[account] = 0;
        emit Withdrawn(account, 0, tokens);
        token.safeTransfer(account, tokens);
    }

    // ------------------------------------------------------------------------------------------------------------------ views

    /// @inheritdoc IArbitrator
    /// @dev Terms that createDispute would refuse are refused here too.
    function arbitrationCost(bytes calldata _extraData) external view returns (uint256) {
        JuryTerms.decode(_extraData);
        return _votesIn(_config.votes, 0) * _config.voteFee;
    }

    /// @inheritdoc IArbitrator
    function appealCost(uint256 _disputeID, bytes calldata _extraData) external view returns (uint256) {
        JuryTerms.decodeRefund(_extraData);
        Dispute storage c = _known(_disputeID);
        return c.round == _config.appealsMax ? NOT_PAYABLE : _votesIn(_config.votes, c.round + 1) * _config.voteFee;
    }

    /// @inheritdoc IArbitrator
    function appealPeriod(uint256 _disputeID) external view returns (uint256 start, uint256 end) {
        Dispute storage c = _known(_disputeID);
        if (c.phase != Phase.Ruled || block.timestamp >= c.appealUntil) return (0, 0);
        return (c.appealUntil - _config.appealSeconds, c.appealUntil);
    }

    /// @inheritdoc IArbitrator
    function disputeStatus(uint256 _disputeID) external view returns (DisputeStatus) {
        Dispute storage c = _known(_disputeID);
        if (c.phase == Phase.Executed) return DisputeStatus.Solved;
        return c.phase == Phase.Ruled && block.timestamp < c.appealUntil ? DisputeStatus.Appealable : DisputeStatus.Waiting;
    }

    /// @inheritdoc IArbitrator
    function currentRuling(uint256 _disputeID) external view returns (uint256) {
        return _known(_disputeID).ruling;
    }

    /// @inheritdoc IJury
    function isFinal(uint256 disputeId) public view returns (bool) {
        Dispute storage c = _known(disputeId);
        return c.phase == Phase.Executed || (c.phase == Phase.Ruled && block.timestamp >= c.appealUntil);
    }

    /// @inheritdoc IJury
    function commitmentOf(uint256 disputeId, uint8 round, uint64 operatorId, uint256 ruling, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), disputeId, round, operatorId, ruling, salt));
    }

    /// @inheritdoc IJury
    function dispute(uint256 disputeId) external view returns (Dispute memory) {
        return _known(disputeId);
    }

    /// @inheritdoc IJury
    function roundOf(uint256 disputeId, uint8 round) external view returns (RoundView memory) {
        Round storage r = _rounds[disputeId][round];
        return RoundView(r.refundTo, r.votes, r.committed, r.revealed, r.settled, r.jurors);
    }

    /// @inheritdoc IJury
    function voteOf(uint256 disputeId, uint8 round, uint64 operatorId) external view returns (Vote memory) {
        return _rounds[disputeId][round].voteOf[operatorId];
    }

    /// @inheritdoc IJury
    function owed(address account) external view returns (uint256 coins, uint256 tokens) {
        return (_coins[account], _tokens[account]);
    }

    /// @notice All rounds at their longest. A vote's stake stays locked until its round is settled, however late that is.
    function exposureSeconds() external view returns (uint64) {
        Config storage c = _config;
        uint64 round = uint64(c.drawDelay) + c.seedQuantum + c.drawSeconds + c.commitSeconds + c.revealSeconds + c.appealSeconds;
        return round * (c.appealsMax + 1);
    }

    // ----------------------------------------------------------------------------------------------------------------- inside

    /// n, 2 n + 1, 4 n + 3, …: odd, so that a majority is possible.
    function _votesIn(uint256 votes, uint256 round) private pure returns (uint256) {
        return ((votes + 1) << round) - 1;
    }

    function _requireTime(string memory field, uint32 time) private pure {
        if (time == 0 || time > SECONDS_MAX) revert BadConfig(field, time, SECONDS_MAX);
    }

    function _known(uint256 disputeId) private view returns (Dispute storage c) {
        c = _cases[disputeId];
        if (c.phase == Phase.None) revert WrongPhase(disputeId, Phase.None, Phase.Drawing);
    }

    function _inPhase(uint256 disputeId, Phase expected) private view returns (Dispute storage c) {
        c = _cases[disputeId];
        if (c.phase != expected) revert WrongPhase(disputeId, c.phase, expected);
    }
}
