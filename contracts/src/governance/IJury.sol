// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IArbitrable, IArbitrator} from "./IArbitration.sol";

/// @title Jury: the one dispute contract of all networks (ERC-792).
/// @notice Jurors are operators. Each seat locks `seatStake` in the stake vault, and each seat may be drawn for one vote: power is stake,
/// and dividing stake among many operators gives no more of it. A round of a dispute: votes are drawn, from randomness later than the
/// dispute, among the seats taken before it; jurors commit to a vote, then reveal it; a ruling needs more than half of all votes of the
/// round. Without such a majority the ruling stays what it was: of the round before, at first 0, refused. The arbitrable may appeal to 2 n + 1
/// votes, `appealsMax` times. In the end every vote for the final ruling shares the fee of its round, and with it half of what the others
/// lose: those who voted otherwise or did not reveal lose `penalty` a vote, the rest of it is burnt (the vault's waterfall).
/// Where there is no majority at all, those who revealed lose nothing.
/// Not drawn: operators named as parties; operators one of whose keys is one of theirs or a named account; who backs a party.
/// A dispute for which there are not as many eligible operators as votes is refused when it is opened. A jury that cannot be drawn whole
/// is never drawn smaller: the dispute ends refused, or with the ruling before the appeal, and the fee of the round goes back.
/// Terms of a dispute (`_extraData`): empty, or packed: address refundTo (0: the arbitrable), uint8 n, n uint64 parties, then addresses.
/// Terms of an appeal: empty, or the address refundTo, packed.
interface IJury is IArbitrator {
    struct Config {
        uint128 seatStake;
        uint128 penalty; // for each vote; at most the stake of a seat
        uint128 voteFee; // for each vote, in the chain's own coin
        uint8 votes; // of the first round; odd
        uint8 appealsMax;
        uint32 leaveSeconds; // from leaving a seat to its unlock; longer than any draw may take
        uint32 drawDelay; // from the dispute to its randomness, at least; time for evidence
        uint32 seedQuantum;
        uint32 drawSeconds; // in which the jury must be drawn
        uint32 commitSeconds;
        uint32 revealSeconds;
        uint32 appealSeconds;
    }

    enum Phase {
        None,
        Drawing,
        Voting,
        Ruled, // may be appealed until appealUntil
        Executed
    }

    struct Dispute {
        IArbitrable arbitrable;
        Phase phase;
        uint8 round;
        bool decided; // some round had a majority
        uint48 openedAt; // of the present round, as all times here
        uint48 seedTime;
        uint48 commitUntil;
        uint48 revealUntil;
        uint48 appealUntil;
        uint256 choices;
        uint256 ruling; // as things stand
        uint64[] parties;
        address[] accounts;
    }

    struct RoundView {
        address refundTo;
        uint16 votes;
        uint16 committed;
        uint16 revealed; // and struck
        bool settled;
        uint64[] jurors;
    }

    enum VoteState {
        None,
        Committed,
        Revealed,
        Struck // shown by another before its time
    }

    struct Vote {
        uint256 word; // the commitment, and once revealed the ruling
        uint16 votes; // 0: not drawn
        VoteState state;
    }

    struct Juror {
        uint32 seats; // in office
        uint32 openVotes; // drawn and not settled: each is backed by `penalty` of the locked stake
        uint48 since; // first of the present seats
        uint48 unlocksAt; // when what was left or lost may be unlocked
        uint32 place; // in the list of jurors, from 1; 0: holds no seat
    }

    event SeatsTaken(uint64 indexed operatorId, uint32 count, uint32 seats);
    event SeatsLeft(uint64 indexed operatorId, uint32 count, uint32 seats, uint48 unlocksAt);
    event SeatsUnlocked(uint64 indexed operatorId, uint256 amount);
    event RoundOpened(uint256 indexed disputeId, uint8 round, uint16 votes, uint48 seedTime, address refundTo);
    event JuryDrawn(uint256 indexed disputeId, uint8 round, uint64[] jurors, uint16[] votes, uint48 commitUntil, uint48 revealUntil);
    event JuryNotDrawn(uint256 indexed disputeId, uint8 round, uint16 votes);
    event VoteCommitted(uint256 indexed disputeId, uint8 round, uint64 indexed operatorId);
    event VoteRevealed(uint256 indexed disputeId, uint8 round, uint64 indexed operatorId, uint256 ruling);
    event VoteStruck(uint256 indexed disputeId, uint8 round, uint64 indexed operatorId, address reporter);
    event RoundRuled(uint256 indexed disputeId, uint8 round, bool majority, uint256 ruling, uint48 appealUntil);
    event JurorPaid(uint256 indexed disputeId, uint8 round, uint64 indexed operatorId, uint256 fee, uint256 tokens);
    event JurorPenalised(uint256 indexed disputeId, uint8 round, uint64 indexed operatorId, uint256 amount);
    event FeeReturned(uint256 indexed disputeId, uint8 round, address to, uint256 amount);
    event Withdrawn(address indexed account, uint256 coins, uint256 tokens);

    error BadConfig(string field, uint256 got, uint256 limit);
    error BadTerms(uint256 length, uint256 expected);
    error TooManyExcluded(uint256 got, uint256 max);
    error BadChoices(uint256 got);
    error FeeTooSmall(uint256 got, uint256 needed);
    error TooFewJurors(uint256 got, uint256 needed);
    error NoOperator(address caller);
    error BadSeatCount(uint256 got, uint256 max);
    error StillLocked(uint64 operatorId, uint64 unlocksAt, uint256 timestamp);
    error NothingToUnlock(uint64 operatorId);
    error WrongPhase(uint256 disputeId, Phase phase, Phase expected);
    error TooEarly(uint256 disputeId, uint256 from, uint256 timestamp);
    error TooLate(uint256 disputeId, uint256 until, uint256 timestamp);
    error NotOnJury(uint256 disputeId, uint64 operatorId);
    error AlreadyVoted(uint256 disputeId, uint64 operatorId, VoteState state);
    error WrongOpening(uint256 disputeId, uint64 operatorId);
    error UnknownRuling(uint256 disputeId, uint256 ruling, uint256 choices);
    error NotArbitrable(uint256 disputeId, address caller, address arbitrable);
    error UnknownRound(uint256 disputeId, uint256 round);
    error AlreadySettled(uint256 disputeId, uint256 round);
    error NothingOwed(address account);
    error CoinsRefused(address account, uint256 amount);

    /// @notice Node key: takes seats; locks what they cost beyond what is still locked here.
    function enrol(uint64 operatorId, uint32 count) external;
    /// @notice Node key or owner.
    function leave(uint64 operatorId, uint32 count) external;
    /// @notice Anyone, `leaveSeconds` after the last seat was left or lost: all that backs neither a seat nor an open vote.
    function unlock(uint64 operatorId) external;

    /// @notice Anyone, once the seed is fixed and within `drawSeconds` of its time: draws the jury of the present round. Refused while too many
    /// jurors have all of their stake behind other votes; it may be tried again until the time is over.
    function draw(uint256 disputeId) external;
    /// @notice Anyone: ends a round whose jury was not drawn in time.
    function expire(uint256 disputeId) external;
    /// @notice Node key of a drawn operator, once. The phase ends early with the last commitment.
    function commit(uint256 disputeId, bytes32 commitment) external;
    /// @notice Anyone who knows a vote while votes are still committed strikes it: its juror loses the penalty, the reporter is rewarded.
    /// So votes are not shown, sold or copied beforehand.
    function strike(uint256 disputeId, uint64 operatorId, uint256 ruling, bytes32 salt) external;
    /// @notice Anyone who knows the opening; the phase ends early with the last one.
    function reveal(uint256 disputeId, uint64 operatorId, uint256 ruling, bytes32 salt) external;
    /// @notice Anyone, after the reveals: the round's ruling stands unless it is appealed in time.
    function close(uint256 disputeId) external;
    /// @notice Anyone, when no appeal is possible any more: tells the arbitrable. Can be repeated when the arbitrable has reverted.
    function execute(uint256 disputeId) external;
    /// @notice Anyone, when no appeal is possible any more, whether or not it was executed: penalties and pay of one round.
    function settle(uint256 disputeId, uint8 round) external;
    /// @notice Anyone: pays an account the coins and tokens that it is owed.
    function withdraw(address account) external returns (uint256 coins);
    function withdrawTokens(address account) external returns (uint256 tokens);

    /// @notice What a juror commits to; bound to chain, contract, dispute, round and operator, so that a copy is worth nothing.
    function commitmentOf(uint256 disputeId, uint8 round, uint64 operatorId, uint256 ruling, bytes32 salt) external view returns (bytes32);
    function dispute(uint256 disputeId) external view returns (Dispute memory);
    function roundOf(uint256 disputeId, uint8 round) external view returns (RoundView memory);
    function voteOf(uint256 disputeId, uint8 round, uint64 operatorId) external view returns (Vote memory);
    function juror(uint64 operatorId) external view returns (Juror memory);
    /// @notice Operators with a seat.
    function jurorCount() external view returns (uint256);
    function owed(address account) external view returns (uint256 coins, uint256 tokens);
    function isFinal(uint256 disputeId) external view returns (bool);
    function disputeCount() external view returns (uint256);
    function config() external view returns (Config memory);
}
