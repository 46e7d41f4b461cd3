// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {BurntShares} from "../../src/inference/BurntShares.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {IWeightsBoard} from "../../src/inference/IWeightsBoard.sol";
import {SubnetBase} from "../../src/inference/SubnetBase.sol";
import {SubnetEmission} from "../../src/inference/SubnetEmission.sol";
import {Subnets} from "../../src/inference/Subnets.sol";
import {WeightsBoard} from "../../src/inference/WeightsBoard.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {deployBurntShares, deploySubnetEmission, deploySubnets, deployWeightsBoard} from "../deploy/inference.sol";
import {TokenFixture} from "../token/fixture.sol";

/// @notice Stands for the module that settles epochs: the tests call as it.
contract EpochsDouble {}

/// @notice The real contracts of subnets over the real vault; `epochs` is called as by the tests.
abstract contract SubnetsFixture is TokenFixture {
    uint32 internal constant TEMPO = 3_600;
    uint128 internal constant LOCK_MIN = 1_000e18;
    uint128 internal constant PRICE_FIRST = 1e18;

    SubnetEmission internal emission;
    BurntShares internal shares;
    Subnets internal subnets;
    WeightsBoard internal board;
    NetworkToken internal inferenceToken;
    address internal epochs;
    address internal creator = makeAddr("creator");
    uint64 internal subnetId;

    function setUp() public virtual override {
        super.setUp();
        emission = deploySubnetEmission(registry, "Test Inference", "TIN");
        inferenceToken = NetworkToken(emission.token());
        shares = deployBurntShares(registry, emission, 90 days);
        subnets = deploySubnets(subnetsConfig(), registry, operators, vault, emission);
        board = deployWeightsBoard(subnets);
        epochs = address(new EpochsDouble());
        registry.set("emissionShares", address(shares), false);
        registry.set("subnets", address(subnets), false);
        registry.set("weightsBoard", address(board), false);
        registry.set("subnetEpochs", epochs, false);
        subnetId = createSubnet(creator);
    }

    function subnetsConfig() internal view virtual returns (SubnetBase.Config memory) {
        return SubnetBase.Config({
            tempoMin: 60,
            tempoMax: 30 days,
            changeSeconds: 1 days,
            subnetsMax: 4,
            uidsMax: 8,
            minNonImmune: 2,
            lockSeconds: 30 days,
            idleSeconds: 90 days,
            lockMin: LOCK_MIN,
            lockIntervalSeconds: 14 days,
            priceHalfLifeSeconds: 2 hours,
            priceMin: 0.001e18,
            priceMax: 100e18,
            priceFirst: PRICE_FIRST,
            barEpochs: 16
        });
    }

    function rules() internal pure returns (ISubnets.Hyperparameters memory) {
        return ISubnets.Hyperparameters({
            mode: ISubnets.Yuma.Yuma3Liquid,
            consensusMode: ISubnets.ConsensusMode.Previous,
            kappa: 32_767,
            bondsPenalty: 0,
            bondsMovingAverage: 900_000,
            alphaLow: 6_554,
            alphaHigh: 19_660,
            alphaSteepness: 1_000,
            stakeCapPercentile: 0,
            maxValidators: 4,
            bondRowCap: 64,
            revealDelayEpochs: 1,
            immunityEpochs: 5,
            optimistic: false,
            stakeThreshold: 10e18
        });
    }

    function createSubnet(address owner) internal returns (uint64) {
        uint256 lock = subnets.lockCost();
        token.mint(owner, lock);
        vm.startPrank(owner);
        token.approve(address(subnets), lock);
        uint64 id = subnets.create("chat", TEMPO, rules(), lock);
        vm.stopPrank();
        return id;
    }

    /// A new operator with a uid in the subnet.
    function joinSubnet(string memory name) internal returns (uint64 operatorId, uint16 uid) {
        operatorId = registerOperator(makeAddr(name), makeAddr(name));
        uid = takeUid(operatorId);
    }

    function takeUid(uint64 operatorId) internal returns (uint16 uid) {
        address owner = operators.ownerOf(operatorId);
        uint256 price = subnets.registrationPrice(subnetId);
        token.mint(owner, price);
        vm.startPrank(owner);
        token.approve(address(subnets), price);
        uid = subnets.register(subnetId, operatorId, price);
        vm.stopPrank();
    }

    /// A new operator with stake, a uid and a permit.
    function joinValidator(string memory name, uint256 stake) internal returns (uint64 operatorId, uint16 uid) {
        (operatorId, uid) = joinSubnet(name);
        depositStake(operatorId, operators.ownerOf(operatorId), stake);
        vm.warp(block.timestamp + 1);
        subnets.claimPermit(subnetId, uid);
    }

    function warpToEpoch(uint64 epoch) internal {
        vm.warp(subnets.epochStart(subnetId, epoch));
    }

    function present() internal view returns (uint64) {
        return subnets.epochAt(subnetId, block.timestamp);
    }

    function recordRanks(uint64 epoch, uint256 permits, bytes memory ranks) internal {
        if (subnets.metagraphHash(subnetId, epoch) == 0) subnets.closeEpoch(subnetId, epoch);
        vm.prank(epochs);
        subnets.record(subnetId, epoch, permits, ranks);
    }

    function commitRow(uint16 uid, bytes memory row, bytes32 salt) internal {
        uint64 operatorId = subnets.holderAt(subnetId, uid, block.timestamp).operatorId;
        bytes32 commitment = board.commitmentOf(subnetId, present(), uid, salt, row);
        vm.prank(operators.nodeKeyOf(operatorId));
        board.commit(subnetId, uid, commitment, "");
    }

    function openRow(uint64 epoch, uint16 uid, bytes memory row, bytes32 salt) internal {
        board.reveal(subnetId, epoch, IWeightsBoard.Opening(uid, salt, row));
    }

    /// Entries for uids 0 to count - 1, the first with the greatest weight.
    function rowOf(uint256 count) internal pure returns (bytes memory row) {
        for (uint256 i; i < count; ++i) {
            row = bytes.concat(row, abi.encodePacked(uint16(i), uint16(i == 0 ? 65_535 : 100 + i)));
        }
    }
}
