// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Operators} from "../../src/chain/Operators.sol";
import {Parameters} from "../../src/chain/Parameters.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {ComputeMarket} from "../../src/compute/ComputeMarket.sol";
import {DeviceCalendar} from "../../src/compute/DeviceCalendar.sol";
import {IComputeMarket} from "../../src/compute/IComputeMarket.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {deployOperators, deployParameters, deployRegistry, stakeParameters} from "../deploy/chain.sol";
import {deployComputeMarket} from "../deploy/leases.sol";
import {deployRails, deployStakeVault} from "../deploy/token.sol";
import {AuctionFixture} from "./fixture.sol";

/// @notice An operator with stake and three devices, a renter with money at the rails, one stable unit a second.
abstract contract MarketFixture is AuctionFixture {
    uint32 internal constant METER = 60;
    uint32 internal constant SPEAK = 3 hours;
    bytes32 internal constant CLASS = "cpu-8";
    uint128 internal constant PRICE = 3_600e6; // one stable unit a second
    uint128 internal constant FUNDS = 1_000_000e6;
    uint128 internal constant COLLATERAL = 10e18;
    uint256 internal constant STAKE = 1_000e18;
    uint32 internal constant NOTICE_SECONDS = 120;
    uint32 internal constant LEAD_SECONDS = 30;
    uint32 internal constant COLLATERAL_SECONDS = 600;

    Registry internal registry;
    Operators internal operators;
    StakeVault internal vault;
    ComputeMarket internal market;
    uint64 internal operatorId;
    address internal owner = makeAddr("owner");
    address internal beneficiary = makeAddr("beneficiary");
    uint256 internal nodeSecret;
    address internal nodeKey;
    uint256 internal agentSecret;
    address internal agent;
    uint64 internal start;

    function setUp() public virtual override {
        super.setUp();
        registry = deployRegistry(address(this));
        Parameters parameters = deployParameters(registry, stakeParameters(1 hours));
        operators = deployOperators(parameters);
        vault = deployStakeVault(address(native), registry, operators, parameters);
        rails = deployRails(operators);
        auction = newAuction(configOf(PAR), address(stable), address(native));
        market = deployComputeMarket(config(), registry, operators, vault, rails, address(native), address(stable), address(auction));
        registry.set("stakeVault", address(vault), false);
        registry.set("computeMarket", address(market), true);

        (nodeKey, nodeSecret) = makeAddrAndKey("node");
        (agent, agentSecret) = makeAddrAndKey("agent");
        operatorId = newOperator(owner, nodeKey, nodeSecret, beneficiary);
        depositStake(operatorId, STAKE);
        start = uint64(block.timestamp) + 100;
        for (uint256 i; i < 3; ++i) {
            vm.prank(nodeKey);
            market.setOffer(0, offer());
        }
        stable.mint(renter, FUNDS);
        native.mint(renter, FUNDS);
        vm.startPrank(renter);
        stable.approve(address(rails), FUNDS);
        rails.deposit(address(stable), renter, FUNDS);
        native.approve(address(rails), FUNDS);
        rails.deposit(address(native), renter, FUNDS);
        rails.approve(address(market), address(stable), FUNDS);
        rails.approve(address(market), address(native), FUNDS);
        vm.stopPrank();
    }

    /// A notice of two intervals; 5 % of a lease may be found down without loss; one of an interval is the shortest, one of ten risks all collateral.
    function config() internal pure virtual returns (IComputeMarket.Config memory) {
        return IComputeMarket.Config(METER, SPEAK, NOTICE_SECONDS, 500, LEAD_SECONDS, METER, COLLATERAL_SECONDS);
    }

    function newOperator(address owner_, address key, uint256 secret, address beneficiary_) internal returns (uint64) {
        bytes memory consent = sign(secret, operators.nodeKeyConsentDigest(owner_, key));
        vm.prank(owner_);
        return operators.register(key, beneficiary_, bytes32(0), "", bytes32(0), consent);
    }

    function depositStake(uint64 operatorId_, uint256 amount) internal {
        native.mint(address(this), amount);
        native.approve(address(vault), amount);
        vault.deposit(operatorId_, amount);
    }

    /// An interruptible lease costs half.
    function offer() internal view returns (IComputeMarket.Offer memory) {
        return IComputeMarket.Offer({
            operatorId: operatorId,
            from: start - 100,
            until: start + 1_000 days,
            interruptibleBps: 5_000,
            deviceClass: CLASS,
            attributes: "attributes",
            stablePrice: PRICE,
            nativePrice: PRICE,
            collateral: COLLATERAL
        });
    }

    function request(uint64 from, uint64 length) internal view returns (IComputeMarket.Request memory) {
        return IComputeMarket.Request({
            deviceClass: CLASS,
            token: address(stable),
            priceMax: PRICE,
            from: from,
            until: from + length,
            agent: agent,
            interruptible: false,
            collateralMin: COLLATERAL
        });
    }

    function devices(uint64 count) internal pure returns (DeviceCalendar.Candidate[] memory candidates) {
        candidates = new DeviceCalendar.Candidate[](count);
        for (uint64 i; i < count; ++i) {
            candidates[i].deviceId = i + 1;
        }
    }

    function rent(uint64 length) internal returns (uint64) {
        vm.prank(renter);
        return market.reserve(request(start, length), devices(1), 1)[0];
    }

    function sign(uint256 secret, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, digest);
        return abi.encodePacked(r, s, v);
    }

    function signed(uint64 leaseId, IComputeMarket.Side side, uint32 word, uint256 spoken, uint256 up)
        internal
        view
        returns (bytes memory)
    {
        bytes32 digest = market.meterDigest(leaseId, side, word, spoken, up);
        return sign(side == IComputeMarket.Side.Node ? nodeSecret : agentSecret, digest);
    }

    function say(uint64 leaseId, IComputeMarket.Side side, uint32 word, uint256 spoken, uint256 up) internal {
        bytes memory signature = signed(leaseId, side, word, spoken, up);
        market.state(leaseId, side, word, spoken, up, signature);
    }

    function balance(address account) internal view returns (uint256) {
        return rails.balanceOf(address(stable), account);
    }
}
