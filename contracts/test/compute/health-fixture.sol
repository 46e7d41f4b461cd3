// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {BuybackAuction} from "../../src/compute/BuybackAuction.sol";
import {ComputeEmission} from "../../src/compute/ComputeEmission.sol";
import {ComputeHealth} from "../../src/compute/ComputeHealth.sol";
import {ComputeMarket} from "../../src/compute/ComputeMarket.sol";
import {HealthDraw} from "../../src/compute/HealthDraw.sol";
import {IBuybackAuction} from "../../src/compute/IBuybackAuction.sol";
import {IComputeHealth} from "../../src/compute/IComputeHealth.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {deployRandomness} from "../deploy/chain.sol";
import {deployCode} from "../deploy/code.sol";
import {deployComputeMarket} from "../deploy/leases.sol";
import {deployDevStable} from "../deploy/token.sol";
import {BeaconDouble} from "../storage/fixture.sol";
import {TokenFixture} from "../token/fixture.sol";

/// @notice The real contracts of the compute network around ComputeHealth; only the source of randomness is a double.
abstract contract HealthFixture is TokenFixture {
    uint32 internal constant HOUR = 3_600;
    uint32 internal constant REPORT = 600;
    uint32 internal constant PROPOSE = 600;
    uint32 internal constant WINDOW = 7_200;
    uint8 internal constant ROUNDS = 5;
    uint96 internal constant BOND = 10e18;
    uint96 internal constant DEVICE_STAKE = 1e18;
    uint32 internal constant RATE = 300;
    uint32 internal constant MEMORY_MBS = 8_000;
    uint256 internal constant STATEMENT_BYTES = 15;
    bytes32 internal constant CLASS = "cpu-8";
    /// One native token for one stable unit.
    uint256 internal constant PAR = 1e30;
    uint128 internal constant LOT_MAX = 1_000e6;
    uint128 internal constant PRICE = 3_600e6; // one stable unit a second

    DevStable internal stable;
    NetworkToken internal native;
    ComputeEmission internal emission;
    BuybackAuction internal auction;
    ComputeMarket internal market;
    BeaconDouble internal beacon;
    Randomness internal randomness;
    ComputeHealth internal health;
    /// Operators and devices in the order in which they came; device i + 1 is `deviceOwners[i]`'s.
    uint64[] internal deviceOwners;

    function setUp() public virtual override {
        super.setUp();
        NetworkToken.Allocation[] memory launch = new NetworkToken.Allocation[](1);
        launch[0] = NetworkToken.Allocation(address(this), 500_000_000e18);
        emission = ComputeEmission(deployCode("ComputeEmission", abi.encode(registry, "Test Compute", "TCO", launch)));
        native = NetworkToken(emission.token());
        stable = deployDevStable();
        IBuybackAuction.Config memory lots = IBuybackAuction.Config(1e6, LOT_MAX, PAR / 1024, PAR, 6 hours, 10 minutes, 1 days);
        auction = BuybackAuction(deployCode("BuybackAuction", abi.encode(lots, rails, stable, native)));
        market = deployComputeMarket(
            IComputeMarket.Config(60, 3 hours, 120, 500, 1, 60, 600),
            registry,
            operators,
            vault,
            rails,
            address(native),
            address(stable),
            address(auction)
        );
        beacon = new BeaconDouble();
        randomness = deployRandomness(IRandomness.Source.Beacon, address(beacon), 1 days);
        health = newHealth(config());
        registry.set("computeMarket", address(market), true);
        registry.set("computeHealth", address(health), true);
    }

    function config() internal pure returns (IComputeHealth.Config memory c) {
        (c.hourSeconds, c.reportSeconds, c.proposeSeconds, c.windowSeconds) = (HOUR, REPORT, PROPOSE, WINDOW);
        (c.rounds, c.statementsMin, c.rateWeight, c.memoryWeight) = (ROUNDS, 2, 10, 1);
        (c.bandwidthRef, c.latencyRef) = (1_000, 50_000);
        (c.slotSeconds, c.deadlineMs, c.rateFillBps, c.memoryFillBps) = (60, 20_000, 5_000, 2_500);
        (c.bond, c.deviceStake) = (BOND, DEVICE_STAKE);
    }

    function newHealth(IComputeHealth.Config memory c) internal returns (ComputeHealth) {
        return ComputeHealth(deployCode("ComputeHealth", abi.encode(c, market, operators, vault, randomness, emission)));
    }

    // ------------------------------------------------------------------------------------------------------------- devices

    function newOperator() internal returns (uint64 operatorId) {
        string memory name = vm.toString(operators.operatorCount() + 1);
        operatorId = registerOperator(makeAddr(string.concat("owner", name)), makeAddr(string.concat("beneficiary", name)));
        depositStake(operatorId, makeAddr(string.concat("owner", name)), 1_000e18);
    }

    function newDevice(uint64 operatorId) internal returns (uint64 deviceId) {
        vm.startPrank(operators.nodeKeyOf(operatorId));
        deviceId = market.setOffer(0, offerOf(operatorId));
        health.enrol(deviceId, RATE, MEMORY_MBS);
        vm.stopPrank();
        deviceOwners.push(operatorId);
    }

    function offerOf(uint64 operatorId) internal view returns (IComputeMarket.Offer memory o) {
        (o.operatorId, o.from, o.until, o.deviceClass) = (operatorId, uint64(block.timestamp), uint64(block.timestamp) + 1_000 days, CLASS);
        (o.stablePrice, o.nativePrice) = (PRICE, PRICE);
    }

    /// Operators with one device each, seated from hour 2.
    function newDevices(uint256 count) internal {
        for (uint256 i; i < count; ++i) {
            newDevice(newOperator());
        }
    }

    function secretOf(uint64 operatorId) internal returns (uint256 secret) {
        (, secret) = makeAddrAndKey(string.concat("node", vm.toString(operatorId)));
    }

    // ------------------------------------------------------------------------------------------------------------- reports

    function statement(IComputeHealth.Verdict verdict, uint16 upBps, uint32 latencyUs, uint32 bandwidthKbs)
        internal
        pure
        returns (uint256)
    {
        return uint256(verdict) << 112 | uint256(upBps) << 96 | uint256(latencyUs) << 64 | uint256(bandwidthKbs) << 32 | 1_500;
    }

    function goodStatement() internal pure returns (uint256) {
        return statement(IComputeHealth.Verdict.Passed, 10_000, 20_000, 5_000);
    }

    /// Once the hour is over: fixes its randomness.
    function endHour(uint32 hour) internal {
        vm.warp(health.startOf(hour + 1));
        randomness.fix(health.startOf(hour), "", "", "");
    }

    /// What an operator with one seat says, the same of each partner that is there.
    function entry(uint32 hour, uint32 seat, uint256 said) internal view returns (bytes memory data) {
        data = abi.encodePacked(uint8(seat % 64));
        uint32[] memory partners = health.partnersOf(hour, seat);
        for (uint256 i; i < partners.length; ++i) {
            bool isThere = partners[i] != HealthDraw.NOBODY && health.occupantAt(partners[i], hour).deviceId != 0;
            data = bytes.concat(data, bytes15(uint120(isThere ? said : 0)));
        }
    }

    function reportOf(uint64 operatorId, uint32 hour, uint32 page, bytes memory data)
        internal
        pure
        returns (IComputeHealth.Report[] memory reports)
    {
        reports = new IComputeHealth.Report[](1);
        reports[0] = IComputeHealth.Report(operatorId, hour, page, data, "");
    }

    /// Each operator with one device on the seat of its number says the same of all its partners.
    function reportAll(uint32 hour, uint256 said) internal {
        for (uint32 seat; seat < deviceOwners.length; ++seat) {
            reportAs(hour, seat, said);
        }
    }

    function reportAs(uint32 hour, uint32 seat, uint256 said) internal {
        IComputeHealth.Report[] memory reports = reportOf(deviceOwners[seat], hour, seat / 64, entry(hour, seat, said));
        vm.prank(operators.nodeKeyOf(deviceOwners[seat]));
        health.report(reports);
    }

    /// The reports about a seat, as a disputer brings them; every operator said `said`.
    function pagesFor(uint32 hour, uint32 seat, uint256 said) internal view returns (bytes[] memory pages) {
        (uint64[] memory ids,) = health.pagesOf(hour, seat);
        pages = new bytes[](ids.length);
        for (uint256 i; i < ids.length; ++i) {
            pages[i] = entry(hour, seatOfOperator(ids[i]), said);
        }
    }

    function seatOfOperator(uint64 operatorId) internal view returns (uint32 seat) {
        while (deviceOwners[seat] != operatorId) ++seat;
    }

    // ------------------------------------------------------------------------------------------------------------- figures

    /// The figures of all seats when everybody said the same, of operators with one device each.
    function figuresOf(uint32 hour, uint256 said) internal view returns (bytes memory figures) {
        for (uint32 seat; seat < health.seatsAt(hour); ++seat) {
            figures = bytes.concat(figures, bytes8(health.compute(hour, seat, pagesFor(hour, seat, said))));
        }
    }

    function proposeAs(uint64 operatorId, uint32 hour, bytes memory figures) internal {
        vm.prank(operators.nodeKeyOf(operatorId));
        health.propose(hour, operatorId, figures);
    }

    /// Of fewer than 65 seats: one chunk.
    function openingOf(bytes memory figures) internal pure returns (IComputeHealth.Opening memory) {
        return IComputeHealth.Opening(figures, new bytes32[](0));
    }

    /// An hour in which everybody says the same of everybody, proposed.
    function proposeHour(uint32 hour, uint256 said) internal returns (bytes memory figures) {
        endHour(hour);
        reportAll(hour, said);
        figures = figuresOf(hour, said);
        vm.warp(health.startOf(hour + 1) + REPORT);
        proposeAs(deviceOwners[0], hour, figures);
    }

    /// The same, made final.
    function settleHour(uint32 hour, uint256 said) internal returns (bytes memory figures) {
        figures = proposeHour(hour, said);
        vm.warp(block.timestamp + WINDOW);
        health.advance(10);
    }
}
