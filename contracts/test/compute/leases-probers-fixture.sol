// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {ILeaseProbers} from "../../src/compute/ILeaseProbers.sol";
import {LeaseProbers} from "../../src/compute/LeaseProbers.sol";
import {deployRandomness} from "../deploy/chain.sol";
import {deployLeaseProbers} from "../deploy/leases.sol";
import {BeaconDouble} from "../storage/fixture.sol";
import {MarketFixture} from "./leases-fixture.sol";

/// @notice The market with its probers: seven seats of seven owners, of which five are drawn and three decide.
abstract contract ProbersFixture is MarketFixture {
    IComputeMarket.Side internal constant NODE = IComputeMarket.Side.Node;
    IComputeMarket.Side internal constant RENTER = IComputeMarket.Side.Renter;
    IComputeMarket.Side internal constant PROBERS = IComputeMarket.Side.Probers;
    uint256 internal constant ALL = type(uint256).max;
    uint128 internal constant ALL128 = type(uint128).max;
    uint128 internal constant SEAT = 5e18;
    uint128 internal constant FEE = 1e6;
    uint64 internal constant SEATS = 7;

    BeaconDouble internal beacon;
    Randomness internal randomness;
    LeaseProbers internal probers;
    mapping(uint64 operatorId => uint256) internal proberSecret;

    function setUp() public virtual override {
        super.setUp();
        beacon = new BeaconDouble();
        randomness = deployRandomness(IRandomness.Source.Beacon, address(beacon), 1 days);
        probers = newProbers(probersConfig());
        registry.set("leaseProbers", address(probers), true);
        for (uint64 i; i < SEATS; ++i) {
            newProber(string.concat("prober ", vm.toString(i)));
        }
        vm.warp(block.timestamp + 1);
        fundProberPayer(nodeKey);
        vm.prank(renter);
        rails.approve(address(probers), address(stable), FUNDS);
    }

    function probersConfig() internal pure returns (ILeaseProbers.Config memory) {
        return ILeaseProbers.Config({
            seatStake: SEAT, fee: FEE, leaveSeconds: 1 days, leadSeconds: 60, seedQuantum: 10, drawn: 5, threshold: 3, missesMax: 2
        });
    }

    function newProbers(ILeaseProbers.Config memory c) internal returns (LeaseProbers) {
        return deployLeaseProbers(c, market, operators, vault, rails, randomness, address(stable));
    }

    function newProber(string memory name) internal returns (uint64 id) {
        (address key, uint256 secret) = makeAddrAndKey(string.concat(name, " node"));
        id = newOperator(makeAddr(name), key, secret, makeAddr(string.concat(name, " beneficiary")));
        proberSecret[id] = secret;
        depositStake(id, 100e18);
        vm.prank(key);
        probers.enrol(id);
    }

    function fundProberPayer(address payer) internal {
        stable.mint(payer, 1_000e6);
        vm.startPrank(payer);
        stable.approve(address(rails), 1_000e6);
        rails.deposit(address(stable), payer, 1_000e6);
        rails.approve(address(probers), address(stable), 1_000e6);
        vm.stopPrank();
    }

    /// Asked before the stretch begins, so that the panel covers all of it; drawn.
    function panelFor(uint64 leaseId, uint32 stretch) internal returns (uint64[] memory) {
        vm.prank(nodeKey);
        uint64 seedTime = probers.ask(leaseId, stretch);
        vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        probers.draw(leaseId, stretch);
        return probers.panelOf(leaseId, stretch);
    }

    function finding(uint64 leaseId, uint32 stretch, uint8 index, uint128 spoken, uint128 up)
        internal
        view
        returns (ILeaseProbers.Finding memory)
    {
        uint256 secret = proberSecret[probers.panelOf(leaseId, stretch)[index]];
        return ILeaseProbers.Finding(index, spoken, up, sign(secret, probers.findingDigest(leaseId, stretch, spoken, up)));
    }

    /// The first `count` of the panel say the same.
    function findings(uint64 leaseId, uint8 count, uint128 up) internal view returns (ILeaseProbers.Finding[] memory list) {
        list = new ILeaseProbers.Finding[](count);
        for (uint8 i; i < count; ++i) {
            list[i] = finding(leaseId, 0, i, ALL128, up);
        }
    }

    /// A lease of ten intervals that begins in 50 seconds, with its panel.
    function watchedLease() internal returns (uint64 leaseId) {
        leaseId = rent(600);
        vm.warp(start - 50);
        panelFor(leaseId, 0);
        vm.warp(start + 600);
    }

    function closeLate(uint64 leaseId) internal {
        vm.warp(uint256(market.lease(leaseId).until) + SPEAK);
        market.close(leaseId);
    }

    function locked() internal view returns (uint256) {
        return vault.lockedOfModule(operatorId, address(market));
    }
}
