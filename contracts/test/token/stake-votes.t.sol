// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {TokenFixture} from "./fixture.sol";

/// @notice Votes follow active stake.
contract StakeVotesTest is TokenFixture {
    address private owner = makeAddr("owner");
    address private backer = makeAddr("backer");
    uint64 private operatorId;

    function setUp() public override {
        super.setUp();
        operatorId = registerOperator(owner, owner);
    }

    function test_TheClockIsTheTimestamp() public view {
        assertEq(vault.clock(), block.timestamp);
        assertEq(vault.CLOCK_MODE(), "mode=timestamp");
    }

    function testFuzz_TheOwnerVotesWithAllActiveStakeOfTheOperator(uint96 own, uint96 backed, uint96 leaving, uint96 slashed) public {
        own = uint96(bound(own, 1, 1e27));
        backed = uint96(bound(backed, 1, 1e27));
        leaving = uint96(bound(leaving, 1, backed));
        depositStake(operatorId, owner, own);
        assertEq(vault.getVotes(owner), own, "without delegating to oneself first");
        backStake(operatorId, backer, backed);
        assertEq(vault.getVotes(owner), uint256(own) + backed);
        assertEq(vault.getVotes(backer), 0);
        vm.prank(backer);
        vault.requestBackerExit(operatorId, leaving);
        assertEq(vault.getVotes(owner), uint256(own) + backed - leaving, "who leaves does not vote");
        slashed = uint96(bound(slashed, 0, own));
        lockStake(operatorId, slashed);
        slashStake(operatorId, slashed);
        assertEq(vault.getVotes(owner), uint256(own) + backed - leaving - slashed);
        assertEq(vault.activeStake(), vault.getVotes(owner));
    }

    function test_PastVotesStayWhatTheyWere() public {
        depositStake(operatorId, owner, 100);
        uint256 then = block.timestamp;
        vm.warp(then + 10);
        vm.prank(owner);
        vault.requestExit(operatorId, 60);
        vm.warp(then + 20);
        assertEq(vault.getPastVotes(owner, then), 100);
        assertEq(vault.getPastTotalSupply(then), 100);
        assertEq(vault.getPastVotes(owner, then + 10), 40);
        assertEq(vault.getPastTotalSupply(then + 10), 40);
    }

    function test_StakeThatComesAndLeavesInOneBlockLeavesNoVotes() public {
        depositStake(operatorId, owner, 100);
        vm.prank(owner);
        vault.requestExit(operatorId, 100);
        vm.warp(block.timestamp + 1);
        assertEq(vault.getPastVotes(owner, block.timestamp - 1), 0);
    }

    function test_DelegatedVotesFollowTheStakeAndComeBack() public {
        address delegate = makeAddr("delegate");
        assertEq(vault.delegates(owner), owner);
        depositStake(operatorId, owner, 100);
        vm.prank(owner);
        vault.delegate(delegate);
        assertEq(vault.getVotes(delegate), 100);
        backStake(operatorId, backer, 50);
        lockStake(operatorId, 20);
        slashStake(operatorId, 20);
        assertEq(vault.getVotes(delegate), 130);
        assertEq(vault.getVotes(owner), 0);
        vm.prank(owner);
        vault.delegate(address(0));
        assertEq(vault.delegates(owner), owner, "nobody means oneself");
        assertEq(vault.getVotes(owner), 130);
        assertEq(vault.activeStake(), 130);
    }

    function test_VotesGoToANewOwnerAtTheNextTouchOrByAnyonesCall() public {
        address newOwner = makeAddr("newOwner");
        depositStake(operatorId, owner, 100);
        rotateOwner(operatorId, newOwner);
        assertEq(vault.getVotes(owner), 100);
        vault.syncVotes(operatorId);
        assertEq(vault.getVotes(owner), 0);
        assertEq(vault.getVotes(newOwner), 100);
        (address holder, uint256 units) = vault.votesOfOperator(operatorId);
        assertEq(holder, newOwner);
        assertEq(units, 100);
        rotateOwner(operatorId, backer);
        backStake(operatorId, backer, 11);
        assertEq(vault.getVotes(newOwner), 0);
        assertEq(vault.getVotes(backer), 111);
        assertEq(vault.activeStake(), 111);
    }

    function testFuzz_SyncingChangesNothingWhenNothingChanged(uint96 own, uint8 times) public {
        depositStake(operatorId, owner, bound(own, 1, 1e27));
        uint256 votes = vault.getVotes(owner);
        for (uint256 i; i < times % 4; ++i) {
            vault.syncVotes(operatorId);
        }
        assertEq(vault.getVotes(owner), votes);
        assertEq(vault.activeStake(), votes);
    }

    function test_OneOwnerOfTwoOperatorsVotesWithBoth() public {
        uint64 second = registerOperator(owner, owner);
        depositStake(operatorId, owner, 100);
        depositStake(second, owner, 30);
        assertEq(vault.getVotes(owner), 130);
        rotateOwner(second, backer);
        vault.syncVotes(second);
        assertEq(vault.getVotes(owner), 100);
        assertEq(vault.getVotes(backer), 30);
    }

    function test_DelegationBySignatureWorks() public {
        (address signer, uint256 secret) = makeAddrAndKey("signer");
        uint64 theirs = registerOperator(signer, signer);
        depositStake(theirs, signer, 9);
        bytes32 typehash = keccak256("Delegation(address delegatee,uint256 nonce,uint256 expiry)");
        bytes32 terms = keccak256(abi.encode(typehash, owner, 0, block.timestamp));
        (, string memory name, string memory version, uint256 chainId, address verifying,,) = vault.eip712Domain();
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(name)),
                keccak256(bytes(version)),
                chainId,
                verifying
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, keccak256(abi.encodePacked("\x19\x01", domain, terms)));
        vault.delegateBySig(owner, 0, block.timestamp, v, r, s);
        assertEq(vault.getVotes(owner), 9);
    }
}
