// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPanelSeats} from "../token/IPanelSeats.sol";

/// @title Checkers: drawn operators who fetch a deal's data where its client is silent, and say that it can be read.
/// @notice A seat is locked stake, so that many seats cost much; nobody is slashed for an opinion. Seats of a deal are drawn, without
/// repetition, from the randomness of its activation, among those enrolled before the deal was opened and not left then, other than the
/// provider's operator and owner. A seat that does not sign earns nothing, and after `missesMax` verdicts in a row without it, anyone may
/// take it away. EIP-712 domain "Millrace Checkers" / "1": `Retrievable(uint64 dealId,bytes32 contentHash)`, by the node key.
interface ICheckers is IPanelSeats {
    struct Config {
        uint128 seatStake;
        uint128 fee; // for each drawn seat; those who sign share the whole
        uint32 leaveSeconds; // from leaving to the unlock of the stake
        uint8 drawn;
        uint8 threshold; // more than half of `drawn`
        uint8 missesMax;
    }

    struct Request {
        address payer; // 0: none
        bool confirmed; // the verdict is recorded
        bool closed; // fee paid or returned
        uint32 signed; // bit i: seat i of the draw has signed
        uint128 fee; // all of it
        uint64[] seats;
    }

    event VerdictRequested(uint64 indexed dealId, uint64 indexed operatorId, uint64[] operators, uint128 fee);
    event VerdictGiven(uint64 indexed dealId, uint32 signed);
    event CheckerMissed(uint64 indexed dealId, uint64 indexed seatId, uint64 indexed operatorId, uint8 missed);
    event CheckerPaid(uint64 indexed dealId, uint64 indexed operatorId, uint128 amount);
    event FeeReturned(uint64 indexed dealId, address indexed payer, uint128 amount);

    error NotProvider(uint64 dealId, address caller);
    error NotOpen(uint64 dealId);
    error AlreadyRequested(uint64 dealId);
    error NotRequested(uint64 dealId);
    error AlreadyClosed(uint64 dealId);
    error NotOver(uint64 dealId);
    error WrongCount(uint256 got, uint256 expected);
    error BadSignature(address expectedSigner);
    error TooFewSignatures(uint256 got, uint256 needed);
    error NotDrawn(uint64 dealId, uint64 operatorId);

    /// @notice Node key of an open deal whose activation seed is fixed: draws the seats; fee * seats is taken from the node key's account at
    /// Rails, where it has approved this contract.
    function request(uint64 dealId) external;
    /// @notice Anyone. `signatures[i]` by the node key of seat i of the draw; empty: has not signed.
    function verdict(uint64 dealId, bytes[] calldata signatures) external;
    /// @notice A drawn checker whose signature was left out of the verdict says so: its miss is taken back.
    function attest(uint64 dealId) external;
    /// @notice Anyone, once the deal is no longer open: without a verdict the fee goes back.
    function returnFee(uint64 dealId) external;

    function hasVerdict(uint64 dealId) external view returns (bool);
    /// @notice The draw as it is, or will be made by `request`: operators.
    function drawOf(uint64 dealId) external view returns (uint64[] memory operatorIds);
    function requestOf(uint64 dealId) external view returns (Request memory);
    function retrievableDigest(uint64 dealId) external view returns (bytes32);
    function config() external view returns (Config memory);
}
