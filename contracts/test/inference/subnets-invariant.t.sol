// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {ISubnets} from "../../src/inference/ISubnets.sol";
import {SubnetEmission} from "../../src/inference/SubnetEmission.sol";
import {Subnets} from "../../src/inference/Subnets.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {SubnetsFixture} from "./subnets-fixture.sol";

/// @notice Subnets come and go, operators register and are pruned, epochs are closed, recorded and collected, in any order and at any time.
contract SubnetsHandler is Test {
    Subnets private immutable subnets;
    SubnetEmission private immutable emission;
    NetworkToken private immutable token;
    address private immutable minter;
    address private immutable epochs;
    ISubnets.Hyperparameters private rules;
    uint64[] public operatorIds;
    address private immutable owner;
    uint256 public assigned;
    uint256 public collected;
    uint256 public burnt;
    uint256 public lockedEver;
    uint256 public returned;
    uint256 public changes; // of shares: each may cost each subnet one base unit

    constructor(
        Subnets subnets_,
        SubnetEmission emission_,
        NetworkToken token_,
        address epochs_,
        uint64[] memory ids,
        ISubnets.Hyperparameters memory rules_
    ) {
        (subnets, emission, token, epochs, minter) = (subnets_, emission_, token_, epochs_, msg.sender);
        (operatorIds, rules) = (ids, rules_);
        owner = subnets_.operators().ownerOf(ids[0]);
    }

    function fund(uint256 amount) private {
        vm.prank(minter);
        token.mint(owner, amount);
        vm.prank(owner);
        token.approve(address(subnets), amount);
    }

    function create(uint32 tempo) external {
        if (subnets.liveSubnets() >= 4) return;
        uint256 lock = subnets.lockCost();
        if (lock > 1e24) return;
        fund(lock);
        vm.prank(owner);
        subnets.create("any", uint32(bound(tempo, 60, 1 days)), rules, lock);
        lockedEver += lock;
    }

    function dissolve(uint256 seed) external {
        uint64 id = pick(seed);
        if (id == 0 || subnets.subnet(id).dissolved) return;
        vm.prank(subnets.ownerOf(id));
        subnets.dissolve(id);
        ++changes;
    }

    function returnLock(uint256 seed) external {
        uint64 id = pick(seed);
        if (id == 0) return;
        try subnets.returnLock(id) returns (uint256 amount) {
            returned += amount;
        } catch {}
    }

    function register(uint256 seed) external {
        uint64 id = pick(seed);
        if (id == 0 || subnets.subnet(id).dissolved) return;
        uint256 price = subnets.registrationPrice(id);
        fund(price);
        vm.prank(owner);
        try subnets.register(id, operatorIds[(seed >> 8) % operatorIds.length], price) {
            burnt += price;
            ++changes;
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), ISubnets.AlreadyRegistered.selector);
        }
    }

    function burnFor(uint256 seed, uint96 amount) external {
        uint64 id = pick(seed);
        if (id == 0 || subnets.subnet(id).dissolved) return;
        amount = uint96(bound(amount, 1, 1e22));
        fund(amount);
        vm.prank(owner);
        subnets.burnFor(id, amount);
        burnt += amount;
        ++changes;
    }

    function close(uint256 seed) external {
        uint64 id = pick(seed);
        if (id == 0) return;
        uint64 epoch = subnets.nextToClose(id);
        if (subnets.epochStart(id, epoch + 1) > block.timestamp) return;
        (, uint256 amount) = subnets.closeEpoch(id, epoch);
        assigned += amount;
        ++changes;
        if (seed >> 20 & 1 == 0) return;
        vm.startPrank(epochs);
        subnets.record(id, epoch, uint32(seed), new bytes(4 * (seed >> 30 & 7)));
        collected += emission.collect(id, epoch);
        vm.stopPrank();
    }

    function wait(uint32 time) external {
        vm.warp(block.timestamp + bound(time, 1, 20 days));
    }

    function pick(uint256 seed) private view returns (uint64) {
        uint64 count = subnets.subnetCount();
        return count == 0 ? 0 : uint64(1 + seed % count);
    }
}

contract SubnetsInvariantTest is SubnetsFixture {
    SubnetsHandler private handler;

    function setUp() public override {
        super.setUp();
        uint64[] memory ids = new uint64[](12);
        for (uint256 i; i < ids.length; ++i) {
            ids[i] = registerOperator(makeAddr("owner"), makeAddr("owner"));
        }
        handler = new SubnetsHandler(subnets, emission, token, epochs, ids, rules());
        vm.prank(address(this));
        targetContract(address(handler));
    }

    /// The contract holds the locks that were not returned, and no burnt token.
    function invariant_locksAreThere() public view {
        uint256 locks;
        for (uint64 id = 1; id <= subnets.subnetCount(); ++id) {
            locks += subnets.subnet(id).lock;
        }
        assertEq(locks, LOCK_MIN + handler.lockedEver() - handler.returned());
        assertEq(token.balanceOf(address(subnets)), locks);
        assertEq(token.totalSupply() + handler.burnt(), token.mintedTotal());
    }

    /// What is due, waiting and minted is what was issued, but for a unit for each change of shares and subnet; never more.
    function invariant_emissionIsConserved() public view {
        uint256 waiting;
        for (uint64 id = 1; id <= subnets.subnetCount(); ++id) {
            waiting += emission.unassignedOf(id);
        }
        uint256 given = handler.assigned() + waiting;
        assertLe(given, emission.issued());
        assertLe(emission.issued() - given, (handler.changes() + 1) * subnets.subnetCount());
        assertEq(inferenceToken.mintedTotal(), handler.collected());
        assertLe(emission.issued(), emission.issuedBy(0, (block.timestamp - emission.startTime()) / 12));
    }

    /// No uid has two holders, no operator two uids, and nobody holds a permit who holds no uid.
    function invariant_placesAreConsistent() public view {
        for (uint64 id = 1; id <= subnets.subnetCount(); ++id) {
            uint256 count = subnets.subnet(id).uidCount;
            assertLe(count, 8);
            uint256 permits = subnets.permitsAt(id, type(uint64).max);
            assertEq(permits >> count, 0);
            for (uint16 uid; uid < count; ++uid) {
                uint64 operatorId = subnets.holderAt(id, uid, block.timestamp).operatorId;
                assertEq(subnets.uidOf(id, operatorId), uid);
            }
        }
    }
}
