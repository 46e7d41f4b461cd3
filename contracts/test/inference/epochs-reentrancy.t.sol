// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ISubnetEpochs} from "../../src/inference/ISubnetEpochs.sol";
import {SubnetEpochs} from "../../src/inference/SubnetEpochs.sol";
import {AuthorizedERC20} from "../../src/token/AuthorizedERC20.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {EpochsFixture} from "./epochs-fixture.sol";

/// @notice The network's token, stored as it is stored, with callbacks: a listener is called before and after each movement, as ERC-777 does.
contract CallingToken is AuthorizedERC20 {
    uint256 public mintedTotal; // where NetworkToken has it
    ReenteringReceiver private _listener;

    constructor() AuthorizedERC20("Calling", "CALL") {}

    function tell(ReenteringReceiver listener) external {
        _listener = listener;
    }

    function mint(address to, uint256 amount) external {
        mintedTotal += amount;
        _mint(to, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (address(_listener) != address(0)) _listener.onMove(false);
        super._update(from, to, amount);
        if (address(_listener) != address(0)) _listener.onMove(true);
    }
}

/// @notice Calls back into the settlement in the middle of a movement of tokens, once, with whatever it was given.
contract ReenteringReceiver {
    SubnetEpochs private immutable SETTLEMENT;
    bytes private _call;
    bool private _isAfter;
    bool public entered;
    bool public accepted;
    bytes public answer;

    constructor(SubnetEpochs settlement) {
        SETTLEMENT = settlement;
    }

    function plan(bytes calldata call_, bool isAfter) external {
        (_call, _isAfter, entered, accepted) = (call_, isAfter, false, false);
        delete answer;
    }

    function onMove(bool isAfter) external {
        if (entered || isAfter != _isAfter || _call.length == 0) return;
        entered = true;
        (accepted, answer) = address(SETTLEMENT).call(_call);
    }

    function run(bytes calldata call_) external returns (bool done) {
        (done,) = address(SETTLEMENT).call(call_);
    }

    function approve(NetworkToken token) external {
        token.approve(address(SETTLEMENT), type(uint256).max);
    }
}

/// @notice The deployed token has no callbacks. Here it has, and whoever is paid or pays calls back into the settlement: nobody gets more than without it.
contract EpochsReentrancyTest is EpochsFixture {
    ReenteringReceiver private thief;
    uint64 private epoch;
    uint64[4] private holders;

    function setUp() public override {
        super.setUp();
        populate();
        makeOptimistic();
        epoch = judge();
        finish(epoch - 1);
        CallingToken calling = new CallingToken();
        vm.etch(address(inferenceToken), address(calling).code);
        thief = new ReenteringReceiver(settlement);
        thief.approve(inferenceToken);
        for (uint16 uid; uid < 4; ++uid) {
            holders[uid] = subnets.holderAt(subnetId, uid, block.timestamp).operatorId;
        }
    }

    /// The thief has a bond to claim, two miners and two validators have pay that waits, and others' money is there to be taken.
    function _finishedByTheThief() private {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        uint256 bond = _fundThief();
        assertTrue(thief.run(abi.encodeCall(settlement.propose, (subnetId, epoch, right, bond))));
        vm.warp(block.timestamp + TEMPO / 2);
        finalizeEpoch(epoch, right);
        creditAll(epoch, right);
        assertEq(settlement.owedTo(address(thief)), bond);
    }

    function _fundThief() private returns (uint256 bond) {
        (, bond) = settlement.stakesOf(subnetId, epoch);
        deal(address(inferenceToken), address(thief), bond);
    }

    function _payouts() private view returns (bytes[5] memory) {
        return [
            abi.encodeCall(settlement.claim, (address(thief))),
            abi.encodeCall(settlement.payMiner, (holders[2])),
            abi.encodeCall(settlement.payMiner, (holders[3])),
            abi.encodeCall(settlement.release, (holders[0])),
            abi.encodeCall(settlement.release, (holders[1]))
        ];
    }

    /// What everybody has in the end, and what is still owed; what is there is what is owed.
    function _books() private returns (bytes32) {
        CallingToken(address(inferenceToken)).tell(ReenteringReceiver(address(0)));
        bytes[5] memory calls = _payouts();
        for (uint256 i; i < calls.length; ++i) {
            thief.run(calls[i]); // whatever was not paid in the attempt
        }
        assertEq(settlement.obligations(), inferenceToken.balanceOf(address(settlement)));
        uint256[4] memory paid;
        for (uint256 uid; uid < 4; ++uid) {
            paid[uid] = uid < 2
                ? income.operatorClaimable(holders[uid], address(inferenceToken))
                : inferenceToken.balanceOf(operators.beneficiaryOf(holders[uid]));
        }
        uint256 ofThief = inferenceToken.balanceOf(address(thief)) + settlement.owedTo(address(thief));
        return keccak256(abi.encode(paid, ofThief, settlement.obligations(), settlement.accountOf(subnetId)));
    }

    /// Each way to be paid, re-entered by each way to be paid, before and after the tokens move: 50 attempts, and the twin without any.
    function test_whoIsPaidTwiceInOnePaymentGetsNoMore() public {
        _finishedByTheThief();
        uint256 snapshot = vm.snapshotState();
        bytes32 honest = _books();
        bytes[5] memory calls = _payouts();
        for (uint256 i; i < 50; ++i) {
            vm.revertToState(snapshot);
            uint256 outer = i / 10;
            thief.plan(calls[i % 5], (i / 5) % 2 == 0);
            CallingToken(address(inferenceToken)).tell(thief);
            assertTrue(thief.run(calls[outer]), "the payment itself goes through");
            assertTrue(thief.entered());
            if (outer == i % 5 && outer < 3) assertFalse(thief.accepted(), "the same pay a second time");
            assertEq(_books(), honest);
        }
    }

    /// While its bond is on its way in, the proposer has its own proposal upheld and takes the bond out: it has paid it all the same.
    function test_aBondThatIsTakenBackWhileItIsPaidIsPaidAllTheSame() public {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        bytes[3] memory inner = [
            abi.encodeCall(settlement.propose, (subnetId, epoch, right, 1)),
            abi.encodeCall(settlement.settle, (subnetId, epoch, evidenceOf(epoch))),
            abi.encodeCall(settlement.claim, (address(thief)))
        ];
        bool[3] memory isAccepted = [false, true, false];
        uint256 bond = _fundThief();
        uint256 snapshot = vm.snapshotState();
        for (uint256 i; i < 6; ++i) {
            vm.revertToState(snapshot);
            thief.plan(inner[i % 3], i < 3);
            CallingToken(address(inferenceToken)).tell(thief);
            assertTrue(thief.run(abi.encodeCall(settlement.propose, (subnetId, epoch, right, bond))));
            assertEq(thief.accepted(), isAccepted[i % 3]);
            CallingToken(address(inferenceToken)).tell(ReenteringReceiver(address(0)));
            assertEq(inferenceToken.balanceOf(address(thief)), 0);
            assertEq(settlement.owedTo(address(thief)), i % 3 == 1 ? bond : 0);
            assertEq(settlement.obligations(), inferenceToken.balanceOf(address(settlement)));
        }
    }

    /// While what it lost is burnt, the one who was refuted (or its challenger) asks for a share: it is the challenger's half, once.
    function test_aRefutedBondIsSharedOnceWhileItIsBurnt() public {
        ISubnetEpochs.Result memory wrong = resultOf(epoch);
        wrong.state = bytes.concat(wrong.state, hex"00");
        uint256 bond = proposeEpoch(epoch, wrong);
        bytes memory settle = abi.encodeCall(settlement.settle, (subnetId, epoch, evidenceOf(epoch)));
        bytes[2] memory inner = [settle, abi.encodeCall(settlement.claim, (address(thief)))];
        uint256 snapshot = vm.snapshotState();
        for (uint256 i; i < 4; ++i) {
            vm.revertToState(snapshot);
            thief.plan(inner[i % 2], i < 2);
            CallingToken(address(inferenceToken)).tell(thief);
            assertTrue(thief.run(settle));
            assertEq(thief.accepted(), i % 2 == 1);
            assertEq(inferenceToken.balanceOf(address(thief)) + settlement.owedTo(address(thief)), bond / 2);
            assertEq(settlement.owedTo(proposer), 0);
            assertEq(settlement.obligations(), inferenceToken.balanceOf(address(settlement)));
        }
    }

    /// While the emission is minted, the epoch is finalized again, its pay is credited and taken: each once.
    function test_anEpochIsFinalizedAndPaidOnceWhileItsEmissionIsMinted() public {
        ISubnetEpochs.Result memory right = resultOf(epoch);
        settleEpoch(epoch, evidenceOf(epoch));
        bytes memory finalize = abi.encodeCall(settlement.finalize, (subnetId, epoch, right.payments, right.ranks, keccak256(right.state)));
        bytes[3] memory inner = [
            finalize,
            abi.encodeCall(settlement.credit, (subnetId, epoch, right.payments, only(2))),
            abi.encodeCall(settlement.skip, (subnetId))
        ];
        bool[3] memory isAccepted = [false, true, false];
        uint256 snapshot = vm.snapshotState();
        bytes32 honest;
        for (uint256 i; i < 7; ++i) {
            vm.revertToState(snapshot);
            if (i != 0) {
                thief.plan(inner[i % 3], i < 4);
                CallingToken(address(inferenceToken)).tell(thief);
            }
            assertTrue(thief.run(finalize));
            if (i != 0) assertEq(thief.accepted(), isAccepted[i % 3]);
            creditAll(epoch, right);
            bytes32 books = _books();
            if (i == 0) honest = books;
            assertEq(books, honest);
        }
    }

    /// While the emission of an epoch that is passed over is minted, it is passed over again, or settled without the state: it is carried once.
    function test_anEpochIsPassedOverOnceWhileItsEmissionIsMinted() public {
        (, uint256 from) = board.windowOf(subnetId, epoch);
        vm.warp(from + uint256(RESET_EPOCHS) * TEMPO);
        (uint256 total,) = settlement.stakesOf(subnetId, epoch);
        bytes memory skip = abi.encodeCall(settlement.skip, (subnetId));
        ISubnetEpochs.Evidence memory stateless = evidenceOf(epoch);
        stateless.state = "";
        bytes[2] memory inner = [skip, abi.encodeCall(settlement.settle, (subnetId, epoch, stateless))];
        uint256 snapshot = vm.snapshotState();
        for (uint256 i; i < 5; ++i) {
            vm.revertToState(snapshot);
            if (i != 0) {
                thief.plan(inner[i % 2], i < 3);
                CallingToken(address(inferenceToken)).tell(thief);
            }
            assertTrue(thief.run(skip));
            assertFalse(thief.accepted());
            assertEq(settlement.decisionOf(subnetId).root, 0);
            assertEq(settlement.accountOf(subnetId).carried, total);
            assertEq(settlement.accountOf(subnetId).next, epoch + 1);
            assertEq(settlement.obligations(), inferenceToken.balanceOf(address(settlement)));
        }
    }
}
