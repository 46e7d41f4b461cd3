// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {DeviceCalendar} from "./DeviceCalendar.sol";

/// @title ComputeMarket: devices on offer, reserved by time, leased second by second (decisions 0028 and 0035).
/// @notice An operator offers each device with its class, the hash of its attributes, a price an hour in each token, the time in which it
/// can be had, and the stake that it puts behind each lease. A renter reserves one device or a gang, for one time, at a price of its own at
/// most. Each device of it is a lease: a slot in the calendar, a rail whose escrow is the lease's whole price, and collateral locked in the
/// stake vault. So escrow, lease and duty end in the same second. An extension is a lease of the same device that follows, with the first as
/// its hint.
/// @notice Time counts in intervals of `meterSeconds` from the lease's beginning (the last may be shorter). Each side says, with a signature,
/// which intervals it speaks of and which of them it found up; what it has said it cannot take back. Where the renter says nothing, drawn
/// probers speak for it (`ILeaseProbers`). Paid are the intervals that node and renter's side both found up. An interval that one of them
/// denies, or of which one says nothing until `speakSeconds` after its end, is neither paid nor charged: its money goes back to the renter, and
/// all records stay.
/// @notice A renter may end a lease with the interval that runs. A supplier may end one too, `noticeSeconds` later. An interruptible lease
/// (cheaper by the share that the offer says) it ends without loss; any other costs it collateral for the time that it takes away. So does
/// time that was found down, where that is more than `downBpsMax` of the reserved time: time of which two of node, renter and probers say down,
/// or which the renter denies while the node is silent. Half of what is taken is the renter's (at most half of what comes out of the
/// operator's own stake), the rest is burnt.
/// @notice A lease shorter than `collateralSeconds` has at risk only its time's share of the offer's collateral: however a renter cuts time into
/// leases, a second that is missed never costs more than the offer's collateral divided by `collateralSeconds`, rounded up by lease. No lease
/// is shorter than `leaseSecondsMin`, and none begins sooner than `leadSeconds` after its reservation, so that its supplier has seen it.
interface IComputeMarket {
    struct Config {
        uint32 meterSeconds;
        uint32 speakSeconds; // after an interval's end, in which it may be spoken of
        uint32 noticeSeconds; // between a supplier's word that it ends a lease and the end
        uint16 downBpsMax; // of the reserved time that may be found down without loss
        uint32 leadSeconds; // at least, between a reservation and the beginning
        uint32 leaseSecondsMin; // at least an interval
        uint32 collateralSeconds; // a lease so long, or longer, has the offer's whole collateral at risk; a shorter one its share
    }

    struct Offer {
        uint64 operatorId;
        uint64 from; // can be had from here
        uint64 until; // up to here; 0: withdrawn
        uint16 interruptibleBps; // price of an interruptible lease as a share of the price; 0: not offered
        bytes32 deviceClass;
        bytes32 attributes; // hash of the document that says them
        uint128 stablePrice; // base units an hour; 0: not in this token
        uint128 nativePrice;
        uint128 collateral; // stake behind a lease of `collateralSeconds` or more, base units
    }

    /// What a renter wants.
    struct Request {
        bytes32 deviceClass;
        address token;
        uint128 priceMax; // base units an hour and device
        uint64 from;
        uint64 until;
        address agent; // signs meters for the renter; 0: the renter itself
        bool interruptible;
        uint128 collateralMin; // of the offer, whatever the lease's length
    }

    struct Lease {
        address renter;
        uint64 deviceId;
        bool interruptible;
        bool closed;
        address agent;
        uint64 operatorId;
        uint32 takenSeconds; // reserved time that the supplier took away against its word
        uint64 from;
        uint64 until; // where it ends: earlier than reserved when one side ended it
        uint128 collateral; // locked for it until it is closed
        address token;
        uint64 railId;
    }

    enum Side {
        Node,
        Renter,
        Probers
    }

    struct Statement {
        uint256 spoken;
        uint256 up;
    }

    event OfferSet(uint64 indexed deviceId, uint64 indexed operatorId, bytes32 indexed deviceClass, Offer offer);
    event LeaseOpened(
        uint64 indexed leaseId,
        address indexed renter,
        uint64 indexed operatorId,
        uint64 deviceId,
        uint256 railId,
        uint128 price,
        uint128 collateral,
        bool interruptible
    );
    /// @param takenSeconds reserved time that the supplier takes away against its word
    event LeaseEnded(uint64 indexed leaseId, address by, uint64 until, uint32 takenSeconds);
    event LeaseClosed(uint64 indexed leaseId, uint128 paid, uint128 refunded);
    /// @param downSeconds time of the lease that was found down
    /// @param slashed of the lease's collateral; the rest is free again
    /// @param compensation of it to the renter, to be claimed at the vault
    event CollateralFreed(uint64 indexed leaseId, uint64 indexed operatorId, uint256 downSeconds, uint256 slashed, uint256 compensation);
    /// @param spoken intervals of which this statement is the side's first word
    /// @param denied of them, where node and renter (node and probers) had said the opposite
    event MeterStated(uint64 indexed leaseId, Side indexed side, uint32 word, uint256 spoken, uint256 up, uint256 denied);

    error BadMeter(uint32 meterSeconds, uint32 speakSeconds);
    error BadLeaseSeconds(uint32 meterSeconds, uint32 leaseSecondsMin, uint32 collateralSeconds);
    error BadShare(uint256 bps, uint256 bpsMax);
    error NotOperator(uint64 operatorId, address caller);
    error UnknownDevice(uint64 deviceId);
    error LeaseTimeOutOfBounds(uint64 from, uint64 until, uint256 earliest, uint64 secondsMin, uint64 secondsMax);
    error UnknownLease(uint64 leaseId);
    error NotParty(uint64 leaseId, address caller);
    error NotProbers(address caller, address probers);
    error LeaseIsOver(uint64 leaseId, uint64 until);
    error LeaseNotOver(uint64 leaseId, uint64 closableFrom);
    error LeaseIsClosed(uint64 leaseId);
    error BadSignature(address expectedSigner);
    error NothingToState(uint64 leaseId, uint32 word);

    /// @notice Owner or node key of the operator: puts a device on offer (`deviceId` 0: a new one), or changes its offer. Leases stay as they are.
    function setOffer(uint64 deviceId, Offer calldata offer_) external returns (uint64);
    /// @notice Reserves `wanted` of the candidates for the caller, or reverts and reserves none; pays fees and escrow from its account at the
    /// rails. A candidate whose operator has no free stake for the collateral is passed over.
    function reserve(Request calldata request, DeviceCalendar.Candidate[] calldata candidates, uint256 wanted)
        external
        returns (uint64[] memory leaseIds);
    /// @notice Anybody brings what node or renter signed about 256 intervals: those that are over and not yet too old count, once.
    function state(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up, bytes calldata signature) external;
    /// @notice The module `leaseProbers`: what enough drawn probers found.
    function stateOfProbers(uint64 leaseId, uint32 word, uint256 spoken, uint256 up) external;
    /// @notice The renter: ends a lease with the interval that runs. The operator: with the interval in which `noticeSeconds` are over. A lease
    /// that has not begun by then, wholly.
    function end(uint64 leaseId) external returns (uint64 until);
    /// @notice Anybody: pays what is sure, and the fee on it.
    function settle(uint64 leaseId) external;
    /// @notice Anybody, once the last interval is sure: pays, returns the rest, slashes or frees the collateral.
    function close(uint64 leaseId) external;

    function offerOf(uint64 deviceId) external view returns (Offer memory);
    function lease(uint64 leaseId) external view returns (Lease memory);
    function statementOf(uint64 leaseId, Side side, uint32 word) external view returns (Statement memory);
    /// @notice Intervals of a word that are over and may still be spoken of.
    function speakableOf(uint64 leaseId, uint32 word) external view returns (uint256);
    /// @notice Seconds found up by both sides, and found down, of a whole lease as things stand.
    function recordOf(uint64 leaseId) external view returns (uint256 upSeconds, uint256 downSeconds);
    function meterDigest(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up) external view returns (bytes32);
    function meterSeconds() external view returns (uint32);
    function speakSeconds() external view returns (uint32);
    function noticeSeconds() external view returns (uint32);
    function downBpsMax() external view returns (uint16);
    function leadSeconds() external view returns (uint32);
    function leaseSecondsMin() external view returns (uint32);
    function collateralSeconds() external view returns (uint32);
}
