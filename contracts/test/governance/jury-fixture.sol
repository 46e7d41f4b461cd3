// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {IArbitrable, IArbitrator} from "../../src/governance/IArbitration.sol";
import {IJury} from "../../src/governance/IJury.sol";
import {Jury} from "../../src/governance/Jury.sol";
import {JuryTerms} from "../../src/governance/JuryTerms.sol";
import {deployRandomness} from "../deploy/chain.sol";
import {deployJury} from "../deploy/governance.sol";
import {BeaconDouble} from "../storage/fixture.sol";
import {TokenFixture} from "../token/fixture.sol";

/// @notice Opens disputes, appeals them, and remembers its ruling; can be told to refuse it.
contract ArbitrableDouble is IArbitrable {
    IJury private immutable jury;
    bool public refuses;
    uint256 public ruled; // times
    mapping(uint256 disputeId => uint256) public rulingOf;

    constructor(IJury jury_) {
        jury = jury_;
    }

    function open(uint256 choices, bytes memory terms) external payable returns (uint256) {
        return jury.createDispute{value: msg.value}(choices, terms);
    }

    function appeal(uint256 disputeId, bytes memory terms) external payable {
        jury.appeal{value: msg.value}(disputeId, terms);
    }

    function setRefuses(bool refuses_) external {
        refuses = refuses_;
    }

    function rule(uint256 _disputeID, uint256 _ruling) external {
        require(msg.sender == address(jury) && !refuses, "refused");
        ++ruled;
        rulingOf[_disputeID] = _ruling;
        emit Ruling(IArbitrator(msg.sender), _disputeID, _ruling);
    }
}

/// @notice A jury over the real vault, operators and randomness (its beacon is a double), and a few jurors.
abstract contract JuryFixture is TokenFixture {
    uint128 internal constant SEAT = 10e18;
    uint128 internal constant PENALTY = 2e18;
    uint128 internal constant FEE = 1e15;
    bytes32 internal constant SALT = keccak256("salt");

    BeaconDouble internal beacon;
    Randomness internal randomness;
    Jury internal jury;
    ArbitrableDouble internal arbitrable;
    address internal payer = makeAddr("payer");

    function setUp() public virtual override {
        super.setUp();
        beacon = new BeaconDouble();
        randomness = deployRandomness(IRandomness.Source.Beacon, address(beacon), 1 days);
        jury = deployJury(juryConfig(), operators, vault, randomness);
        registry.set("jury", address(jury), true);
        arbitrable = new ArbitrableDouble(jury);
        vm.deal(address(this), 1_000e18);
        vm.deal(payer, 1_000e18);
    }

    function juryConfig() internal pure virtual returns (IJury.Config memory) {
        return IJury.Config({
            seatStake: SEAT,
            penalty: PENALTY,
            voteFee: FEE,
            votes: 3,
            appealsMax: 2,
            leaveSeconds: 1_000,
            drawDelay: 60,
            seedQuantum: 10,
            drawSeconds: 600,
            commitSeconds: 300,
            revealSeconds: 300,
            appealSeconds: 300
        });
    }

    // ------------------------------------------------------------------------------------------------------------------ jurors

    function newJuror(uint32 seats) internal returns (uint64 operatorId) {
        string memory name = string.concat("juror ", vm.toString(operators.operatorCount() + 1));
        operatorId = registerOperator(makeAddr(name), makeAddr(string.concat(name, " beneficiary")));
        depositStake(operatorId, makeAddr(name), uint256(SEAT) * (seats + 1));
        enrol(operatorId, seats);
    }

    /// New operators with a seat each, which count from the next second.
    function addJurors(uint256 count) internal {
        for (uint256 i; i < count; ++i) {
            newJuror(1);
        }
        vm.warp(block.timestamp + 1);
    }

    function enrol(uint64 operatorId, uint32 seats) internal {
        vm.prank(operators.nodeKeyOf(operatorId));
        jury.enrol(operatorId, seats);
    }

    function lockedOf(uint64 operatorId) internal view returns (uint256) {
        return vault.lockedOfModule(operatorId, address(jury));
    }

    // ---------------------------------------------------------------------------------------------------------------- disputes

    function termsOf(uint64 party) internal view returns (bytes memory) {
        uint64[] memory parties = new uint64[](1);
        parties[0] = party;
        return JuryTerms.encode(payer, parties, new address[](0));
    }

    function open(bytes memory terms) internal returns (uint256) {
        return arbitrable.open{value: jury.arbitrationCost(terms)}(2, terms);
    }

    function appeal(uint256 disputeId) internal {
        arbitrable.appeal{value: jury.appealCost(disputeId, "")}(disputeId, abi.encodePacked(payer));
    }

    function draw(uint256 disputeId) internal returns (uint64[] memory) {
        uint64 seedTime = jury.dispute(disputeId).seedTime;
        if (block.timestamp < seedTime) vm.warp(seedTime);
        randomness.fix(seedTime, "", "", "");
        jury.draw(disputeId);
        return jurors(disputeId);
    }

    function jurors(uint256 disputeId) internal view returns (uint64[] memory) {
        return jury.roundOf(disputeId, jury.dispute(disputeId).round).jurors;
    }

    function votesOf(uint256 disputeId, uint64 operatorId) internal view returns (uint256) {
        return jury.voteOf(disputeId, jury.dispute(disputeId).round, operatorId).votes;
    }

    function commit(uint256 disputeId, uint64 operatorId, uint256 ruling) internal {
        bytes32 commitment = jury.commitmentOf(disputeId, jury.dispute(disputeId).round, operatorId, ruling, SALT);
        vm.prank(operators.nodeKeyOf(operatorId));
        jury.commit(disputeId, commitment);
    }

    /// Every juror votes as `rulings` says, the last entry for all who come after; then the round is closed.
    function vote(uint256 disputeId, uint256[] memory rulings) internal {
        uint64[] memory list = jurors(disputeId);
        for (uint256 i; i < list.length; ++i) {
            commit(disputeId, list[i], rulings[i < rulings.length ? i : rulings.length - 1]);
        }
        for (uint256 i; i < list.length; ++i) {
            jury.reveal(disputeId, list[i], rulings[i < rulings.length ? i : rulings.length - 1], SALT);
        }
        jury.close(disputeId);
    }

    function voteAll(uint256 disputeId, uint256 ruling) internal {
        uint256[] memory rulings = new uint256[](1);
        rulings[0] = ruling;
        vote(disputeId, rulings);
    }

    function toFinal(uint256 disputeId) internal {
        uint256 until = jury.dispute(disputeId).appealUntil;
        if (block.timestamp < until) vm.warp(until);
    }

    function settleAll(uint256 disputeId) internal {
        for (uint8 round; round <= jury.dispute(disputeId).round; ++round) {
            if (!jury.roundOf(disputeId, round).settled) jury.settle(disputeId, round);
        }
    }

    function coinsOf(address account) internal view returns (uint256 coins) {
        (coins,) = jury.owed(account);
    }

    function tokensOf(address account) internal view returns (uint256 tokens) {
        (, tokens) = jury.owed(account);
    }
}
