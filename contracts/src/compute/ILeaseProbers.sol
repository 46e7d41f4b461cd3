// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IPanelSeats} from "../token/IPanelSeats.sol";

/// @title LeaseProbers: drawn operators who reach for a rental where its renter is silent, and say what they found (decision 0035).
/// @notice A seat is locked stake, so that many seats cost much; nobody is slashed for an opinion. Whoever wants a lease's record (a supplier
/// whose renter says nothing, a renter that is denied) asks for a stretch of 128 of its intervals and pays a fee for each prober. The panel is
/// drawn by the randomness of a time after the asking, without repetition, among the seats taken before it and not left then: not the
/// supplier, not who shares a key with supplier or renter, not who backs the supplier. An interval was up, or down, when `threshold` of the
/// panel say so, and the market is told at once. Afterwards each prober is paid for the intervals in which it said what the panel found, and
/// the rest of the fee goes back. A prober that spoke of less than half of what it could have missed; after `missesMax` misses in a row
/// anybody may take its seat away. EIP-712 domain "Millrace Lease Probers" / "1":
/// `Finding(uint64 leaseId,uint32 stretch,uint128 spoken,uint128 up)`, by the node key.
interface ILeaseProbers is IPanelSeats {
    struct Config {
        uint128 seatStake;
        uint128 fee; // for each prober and stretch, base units of the stable token
        uint32 leaveSeconds; // from leaving to the unlock of the stake
        uint32 leadSeconds; // before a stretch in which it may be asked for
        uint32 seedQuantum;
        uint8 drawn;
        uint8 threshold; // more than half of `drawn`
        uint8 missesMax;
    }

    /// Intervals of a stretch, bit i for the i-th of it.
    struct Bits {
        uint128 spoken;
        uint128 up;
    }

    struct Panel {
        address payer; // 0: nobody asked
        uint48 askedAt;
        bool drawn;
        bool settled;
        uint128 fee; // of all
        Bits found; // by the threshold
        uint64[] seats;
    }

    struct Finding {
        uint8 index; // of the panel's prober
        uint128 spoken;
        uint128 up;
        bytes signature; // by its node key
    }

    event PanelAsked(uint64 indexed leaseId, uint32 indexed stretch, address indexed payer, uint64 seedTime, uint128 fee);
    event PanelDrawn(uint64 indexed leaseId, uint32 indexed stretch, uint64[] operators);
    /// @param spoken of which this is the prober's first word
    event ProberSpoke(uint64 indexed leaseId, uint32 indexed stretch, uint64 indexed operatorId, uint128 spoken, uint128 up);
    /// @param found intervals of which the panel now says the same by its threshold, and did not before
    event PanelFound(uint64 indexed leaseId, uint32 indexed stretch, uint128 found, uint128 up);
    event ProberPaid(uint64 indexed leaseId, uint32 indexed stretch, uint64 indexed operatorId, uint256 amount);
    event ProberMissed(uint64 indexed leaseId, uint32 indexed stretch, uint64 indexed operatorId, uint8 missed);
    event PanelSettled(uint64 indexed leaseId, uint32 indexed stretch, uint256 returned);

    error AlreadyAsked(uint64 leaseId, uint32 stretch);
    error NotAsked(uint64 leaseId, uint32 stretch);
    error StretchNotOpen(uint64 leaseId, uint32 stretch, uint256 from, uint256 until);
    error NotOver(uint64 leaseId, uint32 stretch, uint256 settlesFrom);
    error AlreadySettled(uint64 leaseId, uint32 stretch);
    error NotOnPanel(uint64 leaseId, uint32 stretch, uint8 index);
    error BadSignature(address expectedSigner);
    error NothingToSay(uint64 leaseId, uint32 stretch, uint64 operatorId);

    /// @notice Anybody, from `leadSeconds` before a stretch of a lease until its end, once: pays for a panel.
    /// @return seedTime the panel speaks of intervals that begin from here on
    function ask(uint64 leaseId, uint32 stretch) external returns (uint64 seedTime);
    /// @notice Anybody, once the seed is fixed. Speaking draws too.
    function draw(uint64 leaseId, uint32 stretch) external;
    /// @notice Anybody brings what probers of the panel signed: intervals that are over, not too old, and of which the prober has not spoken, count.
    function speak(uint64 leaseId, uint32 stretch, Finding[] calldata findings) external;
    /// @notice Anybody, when nothing can be said of the stretch any more: pays the probers, returns the rest.
    function settle(uint64 leaseId, uint32 stretch) external;

    /// @notice The panel as it was drawn or, once the seed is fixed, will be: operators.
    function panelOf(uint64 leaseId, uint32 stretch) external view returns (uint64[] memory operatorIds);
    function panel(uint64 leaseId, uint32 stretch) external view returns (Panel memory);
    function seedTimeOf(uint64 leaseId, uint32 stretch) external view returns (uint64);
    function findingOf(uint64 leaseId, uint32 stretch, uint8 index) external view returns (Bits memory);
    function findingDigest(uint64 leaseId, uint32 stretch, uint128 spoken, uint128 up) external view returns (bytes32);
    function config() external view returns (Config memory);
}
