// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {MarketFixture} from "./leases-fixture.sol";

/// @notice Leases on three devices, opened, ended by either side, spoken of by three, settled and closed in any order. It speaks for the probers.
contract LeaseHandler is MarketFixture {
    uint64[] public open;
    uint256 public everOpened;

    function prepare() external {
        setUp();
        registry.set("leaseProbers", address(this), false);
    }

    function reserve(uint64 delay, uint16 length, bool interruptible, uint256 count) external {
        IComputeMarket.Request memory r = request(uint64(block.timestamp + LEAD_SECONDS + delay % 600), uint64(bound(length, METER, 7_200)));
        (r.interruptible, count) = (interruptible, bound(count, 1, 3));
        vm.prank(renter);
        try market.reserve(r, devices(3), count) returns (uint64[] memory leaseIds) {
            for (uint256 i; i < leaseIds.length; ++i) {
                open.push(leaseIds[i]);
            }
            everOpened += leaseIds.length;
        } catch {}
    }

    function pass(uint16 time) external {
        vm.warp(block.timestamp + bound(time, 1, 4_000));
    }

    function end(uint256 seed, bool bySupplier) external {
        if (open.length == 0) return;
        vm.prank(bySupplier ? nodeKey : renter);
        try market.end(open[seed % open.length]) {} catch {}
    }

    function speak(uint256 seed, uint8 side, uint256 spoken, uint256 up) external {
        if (open.length == 0) return;
        uint64 leaseId = open[seed % open.length];
        if (side % 3 == 2) {
            try market.stateOfProbers(leaseId, 0, spoken, up) {} catch {}
            return;
        }
        IComputeMarket.Side speaker = IComputeMarket.Side(side % 3);
        try market.state(leaseId, speaker, 0, spoken, up, signed(leaseId, speaker, 0, spoken, up)) {} catch {}
    }

    function settle(uint256 seed) external {
        if (open.length != 0) market.settle(open[seed % open.length]);
    }

    function close(uint256 seed) external {
        if (open.length == 0) return;
        uint256 index = seed % open.length;
        try market.close(open[index]) {
            open[index] = open[open.length - 1];
            open.pop();
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), IComputeMarket.LeaseNotOver.selector);
        }
    }

    function closeAll() external {
        vm.warp(block.timestamp + 20_000);
        for (uint256 i; i < open.length; ++i) {
            market.close(open[i]);
        }
        delete open;
    }

    /// Locks at the vault are the collateral of the leases that are open; nothing else.
    function checkLocks() external view {
        uint256 collateral;
        for (uint256 i; i < open.length; ++i) {
            collateral += market.lease(open[i]).collateral;
        }
        assertEq(vault.lockedOfModule(operatorId, address(market)), collateral);
    }

    /// All stable money is somewhere: with the renter, the supplier, the auction, the market's fees aside, or in escrow of an open lease.
    function checkMoney() external view {
        uint256 sum = balance(renter) + balance(beneficiary) + balance(address(auction)) + balance(address(market));
        assertEq(balance(address(market)), market.feesAside());
        for (uint256 i; i < open.length; ++i) {
            sum += rails.rail(market.lease(open[i]).railId).escrow;
        }
        assertEq(sum, FUNDS);
        assertLe(rails.obligationsOf(address(stable)), stable.balanceOf(address(rails)));
    }

    /// Of what was slashed the renter has half, and the other half exists no more.
    function checkStake() external view {
        (uint256 active, uint256 exiting) = vault.ownStake(operatorId);
        uint256 slashed = STAKE - active - exiting;
        assertLe(vault.claimableOf(renter), slashed / 2);
        assertGe(vault.claimableOf(renter) + everOpened, slashed / 2); // a base unit a lease is lost in rounding
    }
}

contract LeaseInvariantTest is MarketFixture {
    LeaseHandler private handler;

    function setUp() public override {
        handler = new LeaseHandler();
        handler.prepare();
        bytes4[] memory actions = new bytes4[](6);
        actions[0] = LeaseHandler.reserve.selector;
        actions[1] = LeaseHandler.pass.selector;
        actions[2] = LeaseHandler.end.selector;
        actions[3] = LeaseHandler.speak.selector;
        actions[4] = LeaseHandler.settle.selector;
        actions[5] = LeaseHandler.close.selector;
        targetSelector(FuzzSelector(address(handler), actions));
        targetContract(address(handler));
    }

    function invariant_locksMoneyAndStakeAddUp() public view {
        handler.checkLocks();
        handler.checkMoney();
        handler.checkStake();
    }

    function afterInvariant() public {
        handler.closeAll();
        handler.checkLocks();
        handler.checkMoney();
        handler.checkStake();
    }
}
