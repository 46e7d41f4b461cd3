// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IRails} from "../token/IRails.sol";

/// @title ComputeFees: what the compute network takes of a reservation, and where it goes (decision 0028). Part of the market.
/// @notice Of the price of a reservation 0.25 % from each side, when it is made, whether it is used or not: the renter pays its part on top of
/// the price, the supplier's part is taken out of it. Who pays in the stable token pays 2 % of what is used besides: set aside for the whole
/// price, taken as the supplier is paid, the rest returned at the end. In the native token nothing. Each fee is rounded up to a base unit, so
/// cutting a reservation into many never makes it cheaper. All fees go to the auction's account at the rails, in their token: there the stable
/// token buys back the native one, and the native one is burnt.
/// @dev Money is taken from the renter's account at the rails, for which the renter has approved this contract. What is set aside is this
/// contract's account there in the stable token; a market keeps no other stable money in that account.
abstract contract ComputeFees {
    uint256 public constant RESERVATION_FEE_BPS = 25;
    uint256 public constant STABLE_FEE_BPS = 200;
    uint256 private constant BPS = 10_000;

    /// Amounts are base units of the stable token, and of one lease.
    struct Aside {
        address renter;
        uint128 fee; // 2 % of the price, set aside
        uint128 net; // what the supplier gets at most
        uint128 taken; // of `fee`
    }

    IRails public immutable rails;
    address public immutable native;
    address public immutable stable;
    /// @notice The account at the rails that all fees go to.
    address public immutable auction;

    mapping(uint256 leaseId => Aside) private _aside;
    /// @notice Set aside for fees and neither taken nor returned, of all leases.
    uint256 public feesAside;

    event ReservationFees(uint256 indexed leaseId, address indexed token, uint128 price, uint256 renterFee, uint256 supplierFee);
    event StableFeeAside(uint256 indexed leaseId, uint256 amount);
    event StableFeeTaken(uint256 indexed leaseId, uint256 amount);
    event StableFeeReturned(uint256 indexed leaseId, address indexed renter, uint256 amount);

    error TokenNotAccepted(address token);
    error PriceOutOfBounds(uint256 price, uint256 min, uint256 max);
    error PaidTooMuch(uint256 leaseId, uint256 paid, uint256 limit);

    constructor(IRails rails_, address native_, address stable_, address auction_) {
        (rails, native, stable, auction) = (rails_, native_, stable_, auction_);
    }

    /// @notice Fees on a reservation of a price, each rounded up.
    /// @return renterFee on top of the price
    /// @return supplierFee out of the price
    /// @return stableFee on top of the price when all of it is used
    function feesOn(address token, uint256 price) public view returns (uint256 renterFee, uint256 supplierFee, uint256 stableFee) {
        if (token != stable && token != native) revert TokenNotAccepted(token);
        renterFee = supplierFee = Math.mulDiv(price, RESERVATION_FEE_BPS, BPS, Math.Rounding.Ceil);
        stableFee = token == stable ? Math.mulDiv(price, STABLE_FEE_BPS, BPS, Math.Rounding.Ceil) : 0;
    }

    /// @notice Of a lease's fee in the stable token: what is set aside in all, and what of it was taken.
    function stableFeeOf(uint256 leaseId) external view returns (uint256 aside, uint256 taken) {
        return (_aside[leaseId].fee, _aside[leaseId].taken);
    }

    /// @dev Takes the fees of a reservation, or of an extension of one by the same renter in the same token.
    /// @param price at least 2, so that something is left for the supplier
    /// @return net the price less the supplier's part: what the lease's rail may pay
    function _takeReservationFees(uint256 leaseId, address renter, address token, uint256 price) internal returns (uint128 net) {
        if (price < 2 || price > type(uint120).max) revert PriceOutOfBounds(price, 2, type(uint120).max);
        (uint256 renterFee, uint256 supplierFee, uint256 stableFee) = feesOn(token, price);
        net = uint128(price - supplierFee);
        emit ReservationFees(leaseId, token, uint128(price), renterFee, supplierFee);
        rails.transferFrom(token, renter, auction, renterFee + supplierFee);
        if (stableFee == 0) return net;
        Aside storage a = _aside[leaseId];
        a.renter = renter;
        a.fee += uint128(stableFee);
        a.net += net;
        feesAside += stableFee;
        emit StableFeeAside(leaseId, stableFee);
        rails.transferFrom(token, renter, address(this), stableFee);
    }

    /// @dev Takes the fee on what the lease has paid, in proportion, rounded up; in one step or in many the same.
    /// @param paid what the supplier has got in all, of the net prices
    function _takeStableFee(uint256 leaseId, uint256 paid) internal returns (uint256 amount) {
        Aside storage a = _aside[leaseId];
        (uint256 fee, uint256 net, uint256 taken) = (a.fee, a.net, a.taken);
        if (fee == 0) return 0;
        if (paid > net) revert PaidTooMuch(leaseId, paid, net);
        uint256 due = Math.mulDiv(fee, paid, net, Math.Rounding.Ceil);
        if (due <= taken) return 0;
        amount = due - taken;
        a.taken = uint128(due);
        feesAside -= amount;
        emit StableFeeTaken(leaseId, amount);
        rails.transfer(stable, auction, amount);
    }

    /// @dev At the end of a lease: takes what is due, returns the rest to the renter and forgets the lease.
    function _closeStableFee(uint256 leaseId, uint256 paid) internal returns (uint256 returned) {
        _takeStableFee(leaseId, paid);
        Aside memory a = _aside[leaseId];
        delete _aside[leaseId];
        returned = a.fee - a.taken;
        if (returned == 0) return 0;
        feesAside -= returned;
        emit StableFeeReturned(leaseId, a.renter, returned);
        rails.transfer(stable, a.renter, returned);
    }
}
