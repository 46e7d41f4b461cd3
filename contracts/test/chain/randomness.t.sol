// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {RLP} from "@openzeppelin/contracts/utils/RLP.sol";
import {IBeacon} from "../../src/chain/IBeacon.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {deployRandomness} from "../deploy/chain.sol";

/// @notice Builds headers of today's 21 fields and puts their hashes into the real EIP-2935 contract.
abstract contract HeaderFixture is Test {
    using RLP for RLP.Encoder;

    address internal constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;
    /// The runtime code of EIP-2935.
    bytes internal constant HISTORY_CODE =
        hex"3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500";
    address internal constant COINBASE = address(0xC01B);
    uint64 internal constant STALE = 1000;

    Randomness internal randomness;

    function setUp() public virtual {
        vm.etch(HISTORY, HISTORY_CODE);
        randomness = deployRandomness(IRandomness.Source.PrevRandao, address(0), STALE);
    }

    function header(uint256 number, uint256 timestamp, bytes32 parentHash, bytes32 prevRandao) internal pure returns (bytes memory) {
        RLP.Encoder memory e = RLP.encoder();
        e.push(parentHash).push(keccak256("ommers")).push(COINBASE).push(keccak256("state"));
        e.push(keccak256("transactions")).push(keccak256("receipts")).push(new bytes(256)).push(uint256(0));
        e.push(number).push(uint256(30_000_000)).push(uint256(21_000)).push(timestamp);
        e.push(bytes("extra")).push(prevRandao).push(new bytes(8)).push(uint256(7));
        e.push(keccak256("withdrawals")).push(uint256(0)).push(uint256(0)).push(bytes32(0)).push(keccak256("requests"));
        return RLP.encode(e);
    }

    /// Two blocks in a row; the child's hash is put into the history.
    function pair(uint256 number, uint256 parentTime, uint256 childTime, bytes32 prevRandao)
        internal
        returns (bytes memory child, bytes memory parent)
    {
        parent = header(number - 1, parentTime, keccak256("grandparent"), "other");
        child = header(number, childTime, keccak256(parent), prevRandao);
        record(number, keccak256(child));
    }

    function record(uint256 number, bytes32 hash) internal virtual {
        uint256 now_ = block.number;
        vm.roll(number + 1); // the system stores a block's hash at the start of the next block
        vm.prank(0xffffFFFfFFffffffffffffffFfFFFfffFFFfFFfE);
        (bool done,) = HISTORY.call(abi.encode(hash));
        assertTrue(done);
        vm.roll(now_);
    }
}

contract RandomnessTest is HeaderFixture {
    function setUp() public override {
        super.setUp();
        vm.roll(100);
        vm.warp(10_000);
    }

    function testFuzz_theValueIsThePrevRandaoOfTheFirstBlockAtOrAfterTheTime(
        uint64 time,
        uint64 before,
        uint64 after_,
        uint256 number,
        bytes32 entropy
    ) public {
        time = uint64(bound(time, 1, block.timestamp));
        before = uint64(bound(before, 0, time - 1));
        after_ = uint64(bound(after_, time, type(uint64).max));
        number = bound(number, 1, block.number - 1);
        vm.assume(entropy != 0);
        (bytes memory child, bytes memory parent) = pair(number, before, after_, entropy);
        assertFalse(randomness.isFixed(time));
        vm.expectEmit(address(randomness));
        emit IRandomness.RandomnessFixed(time, time, number, entropy);
        assertEq(randomness.fix(time, child, parent, ""), entropy);
        assertEq(randomness.valueOf(time), entropy);
        assertTrue(randomness.isFixed(time));
    }

    function test_withATrustedOperatorTheFeeRecipientCountsToo() public {
        Randomness trusted = deployRandomness(IRandomness.Source.TrustedOperator, address(0), STALE);
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        bytes32 expected = keccak256(abi.encodePacked(bytes32("entropy"), COINBASE));
        assertEq(trusted.fix(5_000, child, parent, ""), expected);
        assertEq(uint8(trusted.source()), uint8(IRandomness.Source.TrustedOperator));
    }

    function test_aTimeThatHasNotComeIsRefused() public {
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.TimeNotReached.selector, 10_001, 10_000));
        randomness.fix(10_001, child, parent, "");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.TimeNotReached.selector, 5_001, 5_000));
        randomness.fix(5_001, child, parent, "");
    }

    function test_aBlockThatIsNotTheFirstIsRefused() public {
        (bytes memory child, bytes memory parent) = pair(50, 5_000, 5_012, "entropy");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.NotFirstBlock.selector, 5_000, 5_000, 5_012));
        randomness.fix(5_000, child, parent, "");
    }

    function test_aParentOfAnotherBlockIsRefused() public {
        (bytes memory child, bytes memory parent) = pair(50, 5_000, 5_012, "entropy");
        bytes memory forged = header(49, 4_000, keccak256("grandparent"), "other");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.ParentMismatch.selector, keccak256(forged), keccak256(parent)));
        randomness.fix(5_000, child, forged, "");
    }

    function testFuzz_aForgedHeaderIsRefused(bytes32 entropy) public {
        vm.assume(entropy != "entropy");
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        bytes memory forged = header(50, 5_000, keccak256(parent), entropy);
        vm.expectRevert(abi.encodeWithSelector(IRandomness.HeaderNotInHistory.selector, 50, keccak256(forged), keccak256(child)));
        randomness.fix(5_000, forged, parent, "");
        forged = header(100, 5_000, keccak256(parent), entropy); // the current block has no hash yet
        vm.expectRevert(abi.encodeWithSelector(IRandomness.HeaderNotInHistory.selector, 100, keccak256(forged), 0));
        randomness.fix(5_000, forged, parent, "");
    }

    function testFuzz_junkInsteadOfAHeaderIsRefused(bytes calldata junk) public {
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        try randomness.fix(5_000, junk, parent, "") {
            fail();
        } catch {}
        try randomness.fix(5_000, child, junk, "") {
            fail();
        } catch {}
        if (junk.length > 0) {
            try randomness.fix(5_000, child, parent, junk) {
                fail();
            } catch {}
        }
        assertFalse(randomness.isFixed(5_000));
    }

    function test_withoutAHeaderItSaysThatNobodyHasFixedIt() public {
        vm.expectRevert(abi.encodeWithSelector(IRandomness.RandomnessNotFixed.selector, 5_000));
        randomness.fix(5_000, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.RandomnessNotFixed.selector, 5_000));
        randomness.valueOf(5_000);
    }

    function test_aValueIsStoredOnceAndNoLaterProofChangesIt() public {
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        randomness.fix(5_000, child, parent, "");
        (bytes memory other, bytes memory otherParent) = pair(60, 4_999, 5_000, "other entropy");
        assertEq(randomness.fix(5_000, other, otherParent, ""), "entropy");
        assertEq(randomness.fix(5_000, "", "", ""), "entropy");
        assertEq(randomness.valueOf(5_000), "entropy");
    }

    function test_twoTimesWithTheSameFirstBlockHaveTheSameValue() public {
        (bytes memory child, bytes memory parent) = pair(50, 4_000, 5_000, "entropy");
        assertEq(randomness.fix(4_001, child, parent, ""), randomness.fix(5_000, child, parent, ""));
    }

    function test_aChainWithoutEntropyIsRefused() public {
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, 0);
        vm.expectRevert(abi.encodeWithSelector(Randomness.NoEntropy.selector, 50));
        randomness.fix(5_000, child, parent, "");
    }

    function test_nothingIsStaleOnAYoungChainExceptTheTimeOfItsFirstBlock() public {
        assertEq(randomness.oldestBlock(), 0);
        bytes memory genesis = header(0, 1_000, 0, "genesis");
        vm.roll(1);
        record(0, keccak256(genesis));
        vm.roll(100);
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.NotStale.selector, 5_000, 1_000));
        randomness.fix(5_000, child, parent, genesis);
    }

    function test_constructorArgumentsAreChecked() public {
        vm.expectRevert(abi.encodeWithSelector(Randomness.BadStaleAfter.selector, 0));
        deployRandomness(IRandomness.Source.PrevRandao, address(0), 0);
        vm.expectRevert(abi.encodeWithSelector(Randomness.BadBeacon.selector, IRandomness.Source.PrevRandao, address(1)));
        deployRandomness(IRandomness.Source.PrevRandao, address(1), STALE);
        vm.expectRevert(abi.encodeWithSelector(Randomness.BadBeacon.selector, IRandomness.Source.Beacon, address(0)));
        deployRandomness(IRandomness.Source.Beacon, address(0), STALE);
        assertEq(randomness.staleAfterSeconds(), STALE);
        assertEq(address(randomness.beacon()), address(0));
    }

    function testGas_fix() public {
        (bytes memory child, bytes memory parent) = pair(50, 4_999, 5_000, "entropy");
        randomness.fix(5_000, child, parent, "");
        vm.snapshotGasLastCall("Randomness", "fix");
        randomness.fix(5_000, "", "", "");
        vm.snapshotGasLastCall("Randomness", "fix what is fixed");
    }
}

/// The block of the time has left the history: what counts is time + k * staleAfter.
contract StaleRandomnessTest is HeaderFixture {
    uint64 private constant TIME = 5_000;
    uint256 private oldestNumber;

    function setUp() public override {
        super.setUp();
        vm.roll(20_000);
        vm.warp(200_000);
        oldestNumber = randomness.oldestBlock();
    }

    function _oldest(uint256 timestamp) private returns (bytes memory oldest) {
        oldest = header(oldestNumber, timestamp, keccak256("parent"), "oldest");
        record(oldestNumber, keccak256(oldest));
    }

    function testFuzz_theOldestBlockIsReadableAndMovesInSteps(uint256 number) public {
        number = bound(number, 8_192, type(uint64).max);
        vm.roll(number);
        uint256 oldest = randomness.oldestBlock();
        assertEq(oldest % 64, 0);
        assertGe(oldest, number - 8_191);
        assertLt(oldest, number - 8_191 + 64);
    }

    function testFuzz_kIsTheSmallestThatIsNotStale(uint64 oldestTime, bytes32 entropy) public {
        oldestTime = uint64(bound(oldestTime, TIME, 190_000));
        vm.assume(entropy != 0);
        uint64 k = (oldestTime - TIME) / STALE + 1;
        uint64 effective = TIME + k * STALE;
        bytes memory oldest = _oldest(oldestTime);
        (bytes memory child, bytes memory parent) = pair(15_000, effective - 1, effective + 5, entropy);
        vm.expectEmit(address(randomness));
        emit IRandomness.RandomnessFixed(TIME, effective, 15_000, entropy);
        assertEq(randomness.fix(TIME, child, parent, oldest), entropy);
        assertEq(randomness.valueOf(TIME), entropy);
    }

    function test_firstAndSecondReplacement() public {
        bytes memory oldest = _oldest(TIME); // exactly at the time: gone
        (bytes memory first, bytes memory firstParent) = pair(15_000, TIME + STALE - 1, TIME + STALE, "k is 1");
        assertEq(randomness.fix(TIME, first, firstParent, oldest), "k is 1");
        oldest = _oldest(TIME + 1 + STALE); // for the next time: k = 1 is gone too
        (bytes memory second, bytes memory secondParent) = pair(15_001, TIME + 2 * STALE, TIME + 1 + 2 * STALE, "k is 2");
        assertEq(randomness.fix(TIME + 1, second, secondParent, oldest), "k is 2");
    }

    function test_nobodyChoosesALaterTime() public {
        bytes memory oldest = _oldest(TIME + 10);
        (bytes memory child, bytes memory parent) = pair(15_000, TIME + 2 * STALE - 1, TIME + 2 * STALE, "k is 2");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.NotFirstBlock.selector, TIME + STALE, TIME + 2 * STALE - 1, TIME + 2 * STALE));
        randomness.fix(TIME, child, parent, oldest);
    }

    function testFuzz_aTimeInTheHistoryIsNotStale(uint64 oldestTime) public {
        oldestTime = uint64(bound(oldestTime, 0, TIME - 1));
        bytes memory oldest = _oldest(oldestTime);
        (bytes memory child, bytes memory parent) = pair(15_000, TIME + STALE - 1, TIME + STALE, "later");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.NotStale.selector, TIME, oldestTime));
        randomness.fix(TIME, child, parent, oldest);
    }

    function testFuzz_onlyTheOldestBlockShowsThatATimeIsStale(uint256 number) public {
        number = bound(number, 20_000 - 8_191, 19_999);
        vm.assume(number != oldestNumber);
        bytes memory other = header(number, TIME + 10, keccak256("parent"), "other");
        record(number, keccak256(other));
        (bytes memory child, bytes memory parent) = pair(15_000, TIME + STALE - 1, TIME + STALE, "later");
        vm.assume(number != 15_000);
        vm.expectRevert(abi.encodeWithSelector(Randomness.NotOldestBlock.selector, number, oldestNumber));
        randomness.fix(TIME, child, parent, other);
    }

    /// The oldest block itself counts as gone, so a time is never both provable and stale.
    function test_theOldestBlockNoLongerProves() public {
        (bytes memory child, bytes memory parent) = pair(oldestNumber, TIME - 1, TIME, "entropy");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.HeaderNotInHistory.selector, oldestNumber, keccak256(child), 0));
        randomness.fix(TIME, child, parent, "");
        (child, parent) = pair(oldestNumber + 1, TIME - 1, TIME, "entropy");
        assertEq(randomness.fix(TIME, child, parent, ""), "entropy");
    }

    function test_aBlockThatLeftTheHistoryIsUnknown() public {
        vm.roll(10_000);
        (bytes memory child, bytes memory parent) = pair(9_000, TIME - 1, TIME, "entropy");
        vm.roll(9_000 + 8_192);
        vm.expectRevert(abi.encodeWithSelector(IRandomness.HeaderNotInHistory.selector, 9_000, keccak256(child), 0));
        randomness.fix(TIME, child, parent, "");
    }

    function test_theReplacementMustHaveComeToo() public {
        bytes memory oldest = _oldest(199_990);
        (bytes memory child, bytes memory parent) = pair(15_000, 199_990, 199_999, "entropy");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.TimeNotReached.selector, 200_000, 199_999));
        randomness.fix(TIME, child, parent, oldest);
    }

    function testGas_fixStale() public {
        bytes memory oldest = _oldest(TIME + 10);
        (bytes memory child, bytes memory parent) = pair(15_000, TIME + STALE - 1, TIME + STALE, "later");
        randomness.fix(TIME, child, parent, oldest);
        vm.snapshotGasLastCall("Randomness", "fix a stale time");
    }
}

/// Where EIP-2935 is absent the opcode with its 256 blocks is used.
contract OpcodeRandomnessTest is HeaderFixture {
    function setUp() public override {
        randomness = deployRandomness(IRandomness.Source.PrevRandao, address(0), STALE);
        vm.etch(HISTORY, "");
        vm.roll(1_000);
        vm.warp(50_000);
    }

    function record(uint256 number, bytes32 hash) internal override {
        vm.setBlockhash(number, hash);
    }

    function testFuzz_aRecentBlockIsProvenByTheOpcode(uint256 number) public {
        number = bound(number, randomness.oldestBlock() + 1, 999);
        (bytes memory child, bytes memory parent) = pair(number, 4_999, 5_000, "entropy");
        assertEq(randomness.fix(5_000, child, parent, ""), "entropy");
    }

    function test_beyondItsBlocksATimeIsStale() public {
        assertEq(randomness.oldestBlock(), 752); // 1000 - 256 = 744, rounded up to a multiple of 16
        (bytes memory child, bytes memory parent) = pair(752, 4_999, 5_000, "entropy");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.HeaderNotInHistory.selector, 752, keccak256(child), 0));
        randomness.fix(5_000, child, parent, "");
        (bytes memory later, bytes memory laterParent) = pair(990, 5_999, 6_000, "later");
        assertEq(randomness.fix(5_000, later, laterParent, child), "later");
    }

    function test_aWrongHashIsRefused() public {
        (bytes memory child, bytes memory parent) = pair(900, 4_999, 5_000, "entropy");
        vm.setBlockhash(900, keccak256("reorganised"));
        vm.expectRevert(abi.encodeWithSelector(IRandomness.HeaderNotInHistory.selector, 900, keccak256(child), keccak256("reorganised")));
        randomness.fix(5_000, child, parent, "");
    }
}

/// A beacon with rounds of thirty seconds.
contract RoundBeacon is IBeacon {
    error RoundUnknown(uint64 roundTime);

    function randomnessAt(uint64 time) external view returns (bytes32 value, uint64 roundTime) {
        roundTime = ((time + 29) / 30) * 30;
        if (roundTime > block.timestamp) revert RoundUnknown(roundTime);
        value = roundTime == 60 ? bytes32(0) : keccak256(abi.encode("round", roundTime));
    }
}

contract BeaconRandomnessTest is HeaderFixture {
    function setUp() public override {
        vm.warp(10_000);
        randomness = deployRandomness(IRandomness.Source.Beacon, address(new RoundBeacon()), STALE);
    }

    function testFuzz_theValueIsTheBeaconsAndHeadersAreNotRead(uint64 time, bytes calldata header) public {
        time = uint64(bound(time, 61, 9_990));
        uint64 round = ((time + 29) / 30) * 30;
        bytes32 expected = keccak256(abi.encode("round", round));
        vm.expectEmit(address(randomness));
        emit IRandomness.RandomnessFixed(time, round, block.number, expected);
        assertEq(randomness.fix(time, header, "", ""), expected);
        assertEq(randomness.valueOf(time), expected);
    }

    function test_whatTheBeaconDoesNotKnowIsNotFixed() public {
        vm.expectRevert(abi.encodeWithSelector(RoundBeacon.RoundUnknown.selector, 10_020));
        randomness.fix(9_999, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(IRandomness.TimeNotReached.selector, 10_001, 10_000));
        randomness.fix(10_001, "", "", "");
        vm.expectRevert(abi.encodeWithSelector(Randomness.NoEntropy.selector, block.number));
        randomness.fix(60, "", "", "");
    }
}
