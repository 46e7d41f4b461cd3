// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {DeviceCalendar} from "./DeviceCalendar.sol";

/// @title ComputeMarket: devices on offer, reserved by time, leased second by second (decision 0028).
/// @notice An operator offers each device with its class, the hash of its attributes, a price an hour in each token and the time in which it
/// can be had. A renter reserves one device or a gang, for one time, at a price of its own at most. Each device of it is a lease: a slot in the
/// calendar and a rail, whose escrow is the lease's whole price, so escrow, lease and duty end in the same second. An extension is a lease
/// of the same device that follows, with the first as its hint.
/// @notice Time counts in intervals of `meterSeconds` from the lease's beginning (the last may be shorter). Each side says, with a signature,
/// which intervals it speaks of and which of them it found up; what it has said it cannot take back. Paid are the intervals that both found
/// up. An interval that one of them denies, or of which one says nothing until `speakSeconds` after its end, is neither paid nor charged: its
/// money goes back to the renter, and both records stay.
/// @dev A renter that stays silent does not pay: until drawn probers speak for it, a supplier's risk is the time that it serves unsigned.
interface IComputeMarket {
    struct Offer {
        uint64 operatorId;
        uint64 from; // can be had from here
        uint64 until; // up to here; 0: withdrawn
        bytes32 deviceClass;
        bytes32 attributes; // hash of the document that says them
        uint128 stablePrice; // base units an hour; 0: not in this token
        uint128 nativePrice;
    }

    /// What a renter wants.
    struct Request {
        bytes32 deviceClass;
        address token;
        uint128 priceMax; // base units an hour and device
        uint64 from;
        uint64 until;
        address agent; // signs meters for the renter; 0: the renter itself
    }

    struct Lease {
        address renter;
        uint64 deviceId;
        address agent;
        uint64 operatorId;
        address token;
        uint64 from;
        uint64 until; // where it ends: earlier than reserved when one side ended it
        bool closed;
        uint256 railId;
    }

    enum Side {
        Node,
        Renter
    }

    /// @notice What one side said of 256 intervals; bit i of word w is interval 256 w + i.
    struct Statement {
        uint256 spoken;
        uint256 up;
    }

    event OfferSet(uint64 indexed deviceId, uint64 indexed operatorId, bytes32 indexed deviceClass, Offer offer);
    event LeaseOpened(
        uint64 indexed leaseId, address indexed renter, uint64 indexed operatorId, uint64 deviceId, uint256 railId, uint128 price
    );
    event LeaseEnded(uint64 indexed leaseId, address by, uint64 until);
    event LeaseClosed(uint64 indexed leaseId, uint128 paid, uint128 refunded);
    /// @param spoken intervals of which this statement is the side's first word
    /// @param denied of them, where the other side had said the opposite
    event MeterStated(uint64 indexed leaseId, Side indexed side, uint32 word, uint256 spoken, uint256 up, uint256 denied);

    error BadMeter(uint32 meterSeconds, uint32 speakSeconds);
    error NotOperator(uint64 operatorId, address caller);
    error UnknownDevice(uint64 deviceId);
    error LeaseTimeOutOfBounds(uint64 from, uint64 until, uint256 earliest, uint64 secondsMax);
    error UnknownLease(uint64 leaseId);
    error NotParty(uint64 leaseId, address caller);
    error LeaseIsOver(uint64 leaseId, uint64 until);
    error LeaseNotOver(uint64 leaseId, uint64 closableFrom);
    error LeaseIsClosed(uint64 leaseId);
    error BadSignature(address expectedSigner);
    error NothingToState(uint64 leaseId, uint32 word);

    /// @notice Owner or node key of the operator: puts a device on offer (`deviceId` 0: a new one), or changes its offer. Leases stay as they are.
    function setOffer(uint64 deviceId, Offer calldata offer_) external returns (uint64);
    /// @notice Reserves `wanted` of the candidates for the caller, or reverts and reserves none; pays fees and escrow from its account at the rails.
    function reserve(Request calldata request, DeviceCalendar.Candidate[] calldata candidates, uint256 wanted)
        external
        returns (uint64[] memory leaseIds);
    /// @notice Anybody brings what a side signed about 256 intervals: those that are over and not yet too old count, once.
    function state(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up, bytes calldata signature) external;
    /// @notice The renter or the operator: ends a lease with the interval that runs; one that has not begun, wholly.
    function end(uint64 leaseId) external returns (uint64 until);
    /// @notice Anybody: pays what is sure, and the fee on it.
    function settle(uint64 leaseId) external;
    /// @notice Anybody, once the last interval is sure: pays, returns the rest.
    function close(uint64 leaseId) external;

    function offerOf(uint64 deviceId) external view returns (Offer memory);
    function lease(uint64 leaseId) external view returns (Lease memory);
    function statementOf(uint64 leaseId, Side side, uint32 word) external view returns (Statement memory);
    function meterDigest(uint64 leaseId, Side side, uint32 word, uint256 spoken, uint256 up) external view returns (bytes32);
}
