// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IRails} from "../token/IRails.sol";
import {IFeeSource} from "./IComputeRewards.sol";
import {IComputeMarket} from "./IComputeMarket.sol";

/// @notice The market's rule of fees (ComputeFees).
interface IFeeRule {
    function feesOn(address token, uint256 price) external view returns (uint256 renterFee, uint256 supplierFee, uint256 stableFee);
    function stable() external view returns (address);
    function RESERVATION_FEE_BPS() external view returns (uint256);
}

/// @title LeaseFees: the fees that a closed lease has paid, from what the market and its rail say of it.
/// @notice Of the prices that give the same net price the lowest is taken, so the fees are at most a base unit or two below those paid.
contract LeaseFees is IFeeSource {
    uint256 private constant BPS = 10_000;

    IComputeMarket public immutable market;
    IRails public immutable rails;

    constructor(IComputeMarket market_, IRails rails_) {
        (market, rails) = (market_, rails_);
    }

    /// @inheritdoc IFeeSource
    function feesOf(uint64 id) external view returns (uint64 operatorId, uint256 stableFees, uint256 nativeFees) {
        IComputeMarket.Lease memory l = market.lease(id);
        if (!l.closed) return (0, 0, 0);
        IFeeRule rule = IFeeRule(address(market));
        IRails.Rail memory track = rails.rail(l.railId);
        uint256 supplierBps = rule.RESERVATION_FEE_BPS();
        uint256 price = track.amount + Math.mulDiv(track.amount, supplierBps, BPS - supplierBps, Math.Rounding.Ceil);
        (uint256 renterFee, uint256 supplierFee, uint256 stableFee) = rule.feesOn(l.token, price);
        if (l.token != rule.stable()) return (l.operatorId, 0, renterFee + supplierFee);
        // On what was used, as the market takes it.
        uint256 taken = Math.mulDiv(stableFee, track.paid, track.amount, Math.Rounding.Ceil);
        return (l.operatorId, renterFee + supplierFee + taken, 0);
    }
}
