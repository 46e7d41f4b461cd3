// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IBeacon} from "../../src/chain/IBeacon.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Operators} from "../../src/chain/Operators.sol";
import {Parameters} from "../../src/chain/Parameters.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {Registry} from "../../src/chain/Registry.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {DealDesk} from "../../src/storage/DealDesk.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {Possession} from "../../src/storage/Possession.sol";
import {StorageMarket} from "../../src/storage/StorageMarket.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {Rails} from "../../src/token/Rails.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {deployOperators, deployParameters, deployRandomness, deployRegistry, stakeParameters} from "../deploy/chain.sol";
import {deployDealDesk, deployPossession, deployStorageMarket} from "../deploy/storage.sol";
import {deployNetworkToken, deployRails, deployStakeVault} from "../deploy/token.sol";
import {Pieces} from "./pieces.sol";

/// @notice Gives each time its own value, once the time has come.
contract BeaconDouble is IBeacon {
    uint256 public salt;

    function reseed(uint256 salt_) external {
        salt = salt_;
    }

    function randomnessAt(uint64 time) external view returns (bytes32 value, uint64 effectiveTime) {
        require(block.timestamp >= time, "early");
        return (keccak256(abi.encode("beacon", salt, time)), time);
    }
}

/// @notice The real contracts of the storage network; only the source of randomness is a double. Two operators, one client.
abstract contract StorageFixture is Test, Pieces {
    uint128 internal constant PRICE = 7e15;
    uint128 internal constant COLLATERAL = 1e18;
    uint128 internal constant BOND = 1e16;
    uint32 internal constant PERIOD = 300;
    bytes internal constant CID = hex"0170122011223344556677889900aabbccddeeff00112233445566778899aabbccddeeff";

    Registry internal registry;
    Parameters internal parameters;
    Operators internal operators;
    NetworkToken internal token;
    StakeVault internal vault;
    Rails internal rails;
    BeaconDouble internal beacon;
    Randomness internal randomness;
    Possession internal possession;
    StorageMarket internal market;
    DealDesk internal desk;

    address internal client;
    uint256 internal clientSecret;
    uint64 internal alice; // operator ids
    uint64 internal bob;
    mapping(uint64 operatorId => uint256) internal nodeSecret;
    mapping(uint64 operatorId => IPossession.Leaf[]) internal tables;
    mapping(uint64 dealId => uint256) internal pieceSeeds;
    uint256 internal nonces;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        registry = deployRegistry(address(this));
        parameters = deployParameters(registry, stakeParameters(1 hours));
        operators = deployOperators(parameters);
        token = deployNetworkToken("Test", "TST", 2_000_000_000e18);
        vault = deployStakeVault(address(token), registry, operators, parameters);
        rails = deployRails(operators);
        beacon = new BeaconDouble();
        randomness = deployRandomness(IRandomness.Source.Beacon, address(beacon), 1 days);
        possession = deployPossession(possessionConfig(), registry, operators, randomness);
        market = deployStorageMarket(marketConfig(), registry, operators, vault, rails, possession, randomness, address(token));
        desk = deployDealDesk(market, operators);
        registry.set("dealDesk", address(desk), false);
        registry.set("timelock", address(this), false);
        registry.set("stakeVault", address(vault), false);
        registry.set("possession", address(possession), false);
        registry.set("storageMarket", address(market), true);
        alice = newOperator("alice");
        bob = newOperator("bob");
        (client, clientSecret) = makeAddrAndKey("client");
        fund(client, 1_000e18);
    }

    function possessionConfig() internal view virtual returns (IPossession.Config memory) {
        return IPossession.Config({
            genesis: uint64(block.timestamp),
            period: PERIOD,
            window: 150,
            freeze: 10,
            byBytes: 4,
            byWeight: 4,
            rotationMin: 1,
            rotationPeriods: 8,
            maxSlots: 64,
            graceEvery: 12,
            maxMisses: 3
        });
    }

    function marketConfig() internal pure virtual returns (IStorageMarket.Config memory) {
        return IStorageMarket.Config({
            activationDelay: 5,
            seedQuantum: 10,
            activationDeadline: 900,
            activationLeaves: 4,
            challengeWindow: 120,
            challengeBond: 1e15,
            faultFeeBps: 500,
            declaredFaultFeeBps: 100,
            maxFaultPeriods: 6,
            earlyEndFeeBps: 1_000,
            leaveFeeBps: 2_000,
            reporterRewardBps: 500,
            reporterRewardMax: 5e16,
            replacementPeriods: 4,
            minPeriods: 2,
            maxPeriods: 10_000,
            minBond: 1e15
        });
    }

    // ------------------------------------------------------------------------------------------------ parties

    function newOperator(string memory name) internal returns (uint64 operatorId) {
        (address key, uint256 secret) = makeAddrAndKey(string.concat(name, " node"));
        address owner = makeAddr(name);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, operators.nodeKeyConsentDigest(owner, key));
        vm.prank(owner);
        operatorId = operators.register(key, owner, bytes32(0), "https://127.0.0.1:9000", "test", abi.encodePacked(r, s, v));
        nodeSecret[operatorId] = secret;
        token.mint(owner, 1_000e18);
        vm.startPrank(owner);
        token.approve(address(vault), 100e18);
        vault.deposit(operatorId, 100e18);
        vm.stopPrank();
    }

    function fund(address account, uint256 amount) internal {
        token.mint(account, amount);
        vm.startPrank(account);
        token.approve(address(rails), amount);
        rails.deposit(address(token), account, amount);
        rails.approve(address(market), address(token), type(uint256).max);
        vm.stopPrank();
    }

    function sign(uint256 secret, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, digest);
        return abi.encodePacked(r, s, v);
    }

    function typedDigest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Millrace Storage"),
                keccak256("1"),
                block.chainid,
                address(market)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function nodeKey(uint64 operatorId) internal view returns (address) {
        return operators.nodeKeyOf(operatorId);
    }

    // ------------------------------------------------------------------------------------------------ deals

    function termsFor(uint64 operatorId, uint256 pieceSeed, uint8 height, uint64 rawSize, uint32 periods)
        internal
        returns (IStorageMarket.DealTerms memory)
    {
        ++nonces;
        return IStorageMarket.DealTerms({
            client: client,
            operatorId: operatorId,
            pieceRoot: pieceRootOf(pieceSeed, height),
            pieceHeight: height,
            rawSize: rawSize,
            contentHash: keccak256(CID),
            periods: periods,
            pricePerPeriod: PRICE,
            collateral: COLLATERAL,
            bond: BOND,
            clientNonce: nonces,
            providerNonce: nonces,
            expiry: uint64(block.timestamp + 60)
        });
    }

    function openDeal(IStorageMarket.DealTerms memory terms, uint256 pieceSeed) internal returns (uint64 dealId) {
        bytes32 digest = desk.dealTermsDigest(terms);
        dealId = desk.openDeal(terms, CID, sign(clientSecret, digest), sign(nodeSecret[terms.operatorId], digest));
        pieceSeeds[dealId] = pieceSeed;
    }

    function openDeal(uint64 operatorId, uint256 pieceSeed, uint32 periods) internal returns (uint64) {
        return openDeal(termsFor(operatorId, pieceSeed, 5, 1000, periods), pieceSeed);
    }

    function leafOf(uint64 dealId) internal view returns (IPossession.Leaf memory) {
        IStorageMarket.Deal memory d = market.deal(dealId);
        return IPossession.Leaf(d.pieceRoot, d.pieceHeight, d.leaves, d.collateral, dealId);
    }

    function acknowledge(uint64 dealId) internal view returns (bytes memory) {
        return sign(clientSecret, typedDigest(keccak256(abi.encode(keccak256("Activation(uint64 dealId)"), dealId))));
    }

    function seedOf(uint64 time) internal returns (bytes32) {
        return randomness.fix(time, "", "", "");
    }

    function freeSlot(uint64 operatorId) internal view returns (uint32 slot) {
        IPossession.Leaf[] storage leaves = tables[operatorId];
        while (slot < leaves.length && leaves[slot].leaves != 0) ++slot;
    }

    function activate(uint64 dealId) internal {
        uint64 seedAt = market.activationSeedTime(dealId);
        if (block.timestamp < seedAt) vm.warp(seedAt);
        uint64 operatorId = market.deal(dealId).operatorId;
        IPossession.Leaf memory leaf = leafOf(dealId);
        bytes memory openings = openPiece(leaf, pieceSeeds[dealId], seedOf(seedAt), marketConfig().activationLeaves);
        uint32 slot = freeSlot(operatorId);
        bytes memory path = tablePath(tables[operatorId], slot);
        bytes memory acknowledgement = acknowledge(dealId);
        vm.prank(nodeKey(operatorId));
        market.activate(dealId, acknowledgement, openings, slot, path);
        put(operatorId, slot, leaf);
    }

    function activeDeal(uint64 operatorId, uint256 pieceSeed, uint32 periods) internal returns (uint64 dealId) {
        dealId = openDeal(operatorId, pieceSeed, periods);
        activate(dealId);
    }

    function drop(uint64 dealId) internal {
        IStorageMarket.Deal memory d = market.deal(dealId);
        bytes memory path = d.slot == type(uint32).max ? bytes("") : tablePath(tables[d.operatorId], d.slot);
        vm.prank(nodeKey(d.operatorId));
        market.drop(dealId, path);
        if (d.slot != type(uint32).max) delete tables[d.operatorId][d.slot];
    }

    function put(uint64 operatorId, uint32 slot, IPossession.Leaf memory leaf) internal {
        if (slot == tables[operatorId].length) tables[operatorId].push(leaf);
        else tables[operatorId][slot] = leaf;
    }

    // ------------------------------------------------------------------------------------------------ proofs

    function config() internal view returns (IPossession.Config memory) {
        return possession.config();
    }

    function period() internal view returns (uint64) {
        return possession.periodAt(block.timestamp);
    }

    function toWindow(uint64 p) internal {
        vm.warp(possession.seedTime(p));
    }

    function toStart(uint64 p) internal {
        vm.warp(possession.periodStart(p));
    }

    /// Openings of one table; deals of `over` are answered with flag 2.
    function openTable(IPossession.Leaf[] memory leaves, uint64 operatorId, uint64 p, uint256 times, bool late)
        internal
        returns (bytes memory)
    {
        Drawn[] memory drawn = drawsOf(leaves, config(), seedOf(possession.seedTime(p)), operatorId, p, times);
        Tree memory tree = tableTree(leaves);
        bytes[] memory parts = new bytes[](drawn.length);
        for (uint256 i; i < drawn.length; ++i) {
            parts[i] = openSlot(leaves[drawn[i].slot], drawn[i].slot, drawn[i].leaf, tree, late);
        }
        return join(parts);
    }

    function openSlot(IPossession.Leaf memory leaf, uint256 slot, uint256 index, Tree memory tree, bool late)
        internal
        view
        returns (bytes memory)
    {
        bytes memory path = pathIn(tree, slot);
        if (leaf.leaves == 0) return abi.encodePacked(uint32(slot), uint8(1), path);
        bytes memory packed = abi.encodePacked(leaf.pieceRoot, leaf.pieceHeight, leaf.leaves, leaf.weight, leaf.dealId);
        if (late && market.isOver(leaf.dealId)) return abi.encodePacked(uint32(slot), uint8(2), packed, path);
        return abi.encodePacked(uint32(slot), uint8(0), packed, path, openLeaf(pieceSeeds[leaf.dealId], leaf.pieceHeight, index));
    }

    function proveWith(uint64 operatorId, bytes memory openings) internal {
        uint64 p = period();
        vm.prank(nodeKey(operatorId));
        possession.prove(operatorId, p, openings, "", "", "");
    }

    function prove(uint64 operatorId) internal {
        proveWith(operatorId, openTable(tables[operatorId], operatorId, period(), 1, false));
    }

    /// Goes to the window of the current period (or the next one) and proves.
    function proveNext(uint64 operatorId) internal {
        uint64 p = period();
        if (possession.standing(operatorId).provenThrough > p) ++p;
        toWindow(p);
        prove(operatorId);
    }

    function claimable(address account) internal view returns (uint256) {
        return vault.claimableOf(account);
    }

    function funds(address account) internal view returns (uint256) {
        return rails.balanceOf(address(token), account);
    }
}
