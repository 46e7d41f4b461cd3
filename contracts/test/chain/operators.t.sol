// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IOperators} from "../../src/chain/IOperators.sol";
import {Operators} from "../../src/chain/Operators.sol";
import {ChainFixture} from "./fixture.sol";

contract OperatorsTest is ChainFixture {
    address private owner = makeAddr("owner");
    uint64 private id;
    address private nodeKey;
    uint256 private nodeSecret;

    function setUp() public override {
        super.setUp();
        fillRegistry();
        (id, nodeKey, nodeSecret) = registerOperator(owner, "first node");
    }

    function testFuzz_registeringRecordsEverything(
        address caller,
        uint256 secret,
        address beneficiary,
        bytes32 transportKey,
        string calldata endpoint,
        bytes32 region
    ) public {
        secret = bound(secret, 1, type(uint128).max);
        vm.assume(beneficiary != address(0) && caller != address(0) && bytes(endpoint).length <= 200 && vm.addr(secret) != nodeKey);
        bytes memory signature = consent(caller, vm.addr(secret), secret);
        vm.prank(caller);
        vm.expectEmit(address(operators));
        emit IOperators.OperatorRegistered(2, caller, vm.addr(secret), beneficiary);
        vm.expectEmit(address(operators));
        emit IOperators.EndpointChanged(2, transportKey, endpoint, region);
        uint64 second = operators.register(vm.addr(secret), beneficiary, transportKey, endpoint, region, signature);
        assertEq(second, 2);
        assertEq(operators.operatorCount(), 2);
        IOperators.Operator memory got = operators.operator(second);
        assertEq(abi.encode(got), abi.encode(IOperators.Operator(caller, vm.addr(secret), beneficiary, transportKey, endpoint, region)));
        assertEq(operators.operatorOfNodeKey(vm.addr(secret)), second);
        assertEq(operators.ownerOf(second), caller);
        assertEq(operators.nodeKeyOf(second), vm.addr(secret));
        assertEq(operators.beneficiaryOf(second), beneficiary);
        assertEq(abi.encode(operators.keysOf(second)), abi.encode([caller, vm.addr(secret), beneficiary]));
    }

    function testFuzz_aKeyIsNotTakenWithoutItsConsent(address thief, uint256 secret, bytes calldata signature) public {
        secret = bound(secret, 1, type(uint128).max);
        address victim = vm.addr(secret);
        bytes memory forOther = consent(owner, victim, secret);
        vm.assume(thief != owner);
        vm.startPrank(thief);
        vm.expectRevert(abi.encodeWithSelector(IOperators.BadNodeKeySignature.selector, victim));
        operators.register(victim, thief, 0, "", 0, forOther);
        vm.expectRevert(abi.encodeWithSelector(IOperators.BadNodeKeySignature.selector, victim));
        operators.register(victim, thief, 0, "", 0, signature);
        vm.stopPrank();
    }

    function test_aNodeKeyServesOneOperatorOnly() public {
        address other = makeAddr("other");
        bytes memory signature = consent(other, nodeKey, nodeSecret);
        vm.prank(other);
        vm.expectRevert(abi.encodeWithSelector(IOperators.KeyInUse.selector, nodeKey, id));
        operators.register(nodeKey, other, 0, "", 0, signature);
    }

    function test_zeroAddressesAreRefused() public {
        vm.startPrank(owner);
        vm.expectRevert(IOperators.ZeroAddress.selector);
        operators.register(address(0), owner, 0, "", 0, "");
        vm.expectRevert(IOperators.ZeroAddress.selector);
        operators.register(nodeKey, address(0), 0, "", 0, "");
        vm.expectRevert(IOperators.ZeroAddress.selector);
        operators.requestRotation(id, IOperators.Role.Owner, address(0));
        vm.stopPrank();
    }

    function testFuzz_ownerAndNodeKeySetTheEndpointAndNobodyElse(
        address stranger,
        bytes32 transportKey,
        string calldata endpoint,
        bytes32 region
    ) public {
        vm.assume(stranger != owner && stranger != nodeKey);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IOperators.NotOwnerOrNodeKey.selector, id, stranger));
        operators.setEndpoint(id, transportKey, endpoint, region);
        vm.prank(uint256(region) % 2 == 0 ? owner : nodeKey);
        if (bytes(endpoint).length > 200) {
            vm.expectRevert(abi.encodeWithSelector(IOperators.EndpointTooLong.selector, bytes(endpoint).length, 200));
            operators.setEndpoint(id, transportKey, endpoint, region);
        } else {
            operators.setEndpoint(id, transportKey, endpoint, region);
            assertEq(operators.operator(id).endpoint, endpoint);
            assertEq(operators.operator(id).transportKey, transportKey);
            assertEq(operators.operator(id).region, region);
        }
    }

    function testFuzz_anEndpointLongerThanTheLimitIsRefused(uint256 length) public {
        length = bound(length, 201, 2_000);
        vm.prank(owner);
        vm.expectRevert(abi.encodeWithSelector(IOperators.EndpointTooLong.selector, length, 200));
        operators.setEndpoint(id, 0, string(new bytes(length)), 0);
    }

    function testFuzz_theOwnerReplacesTheHotKeyAtOnce(uint256 secret) public {
        secret = bound(secret, 1, type(uint128).max);
        address newKey = vm.addr(secret);
        bytes memory signature = consent(owner, newKey, secret);
        vm.prank(nodeKey); // the hot key itself may not
        vm.expectRevert(abi.encodeWithSelector(IOperators.NotOwner.selector, id, nodeKey, owner));
        operators.setNodeKey(id, newKey, signature);
        vm.startPrank(owner);
        vm.expectRevert(abi.encodeWithSelector(IOperators.BadNodeKeySignature.selector, newKey));
        operators.setNodeKey(id, newKey, "");
        vm.expectEmit(address(operators));
        emit IOperators.NodeKeyChanged(id, nodeKey, newKey);
        operators.setNodeKey(id, newKey, signature);
        vm.stopPrank();
        assertEq(operators.operatorOfNodeKey(newKey), id);
        assertEq(operators.operatorOfNodeKey(nodeKey), newKey == nodeKey ? id : 0);
        assertEq(operators.nodeKeyOf(id), newKey);
    }

    /// "A stolen hot key cannot move stake or earnings": nor anything else but the endpoint.
    function testFuzz_aStolenHotKeyCannotTouchKeys(address thief, bool beneficiary) public {
        IOperators.Role role = beneficiary ? IOperators.Role.Beneficiary : IOperators.Role.Owner;
        bytes memory refused = abi.encodeWithSelector(IOperators.NotOwner.selector, id, nodeKey, owner);
        vm.startPrank(nodeKey);
        vm.expectRevert(refused);
        operators.requestRotation(id, role, thief);
        vm.expectRevert(refused);
        operators.cancelRotation(id, role);
        vm.expectRevert(abi.encodeWithSelector(IOperators.NoRotationPending.selector, id, role));
        operators.finishRotation(id, role);
        vm.stopPrank();
    }

    function testFuzz_aNewBeneficiaryTakesEffectAfterTheDelay(address newKey, address anyone, uint256 wait) public {
        vm.assume(newKey != address(0));
        wait = bound(wait, 0, 10 days);
        uint64 from = uint64(block.timestamp) + 3 days;
        vm.prank(owner);
        vm.expectEmit(address(operators));
        emit IOperators.RotationRequested(id, IOperators.Role.Beneficiary, newKey, from);
        operators.requestRotation(id, IOperators.Role.Beneficiary, newKey);
        (address pending, uint64 effectiveFrom) = operators.rotationOf(id, IOperators.Role.Beneficiary);
        assertEq(pending, newKey);
        assertEq(effectiveFrom, from);
        skip(wait);
        vm.prank(anyone);
        if (wait < 3 days) {
            vm.expectRevert(abi.encodeWithSelector(IOperators.RotationTooEarly.selector, from, block.timestamp));
            operators.finishRotation(id, IOperators.Role.Beneficiary);
            assertEq(operators.beneficiaryOf(id), owner);
        } else {
            vm.expectEmit(address(operators));
            emit IOperators.RotationFinished(id, IOperators.Role.Beneficiary, owner, newKey);
            operators.finishRotation(id, IOperators.Role.Beneficiary);
            assertEq(operators.beneficiaryOf(id), newKey);
            vm.expectRevert(abi.encodeWithSelector(IOperators.NoRotationPending.selector, id, IOperators.Role.Beneficiary));
            operators.finishRotation(id, IOperators.Role.Beneficiary);
        }
    }

    function testFuzz_onlyTheNewOwnerItselfFinishesItsRotation(address newOwner, address stranger) public {
        vm.assume(newOwner != address(0) && newOwner != stranger);
        vm.startPrank(owner);
        operators.requestRotation(id, IOperators.Role.Owner, newOwner);
        operators.requestRotation(id, IOperators.Role.Beneficiary, stranger == address(0) ? owner : stranger);
        vm.stopPrank();
        skip(3 days);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IOperators.NotOwner.selector, id, stranger, newOwner));
        operators.finishRotation(id, IOperators.Role.Owner);
        vm.prank(newOwner);
        vm.expectEmit(address(operators));
        emit IOperators.RotationCancelled(id, IOperators.Role.Beneficiary);
        operators.finishRotation(id, IOperators.Role.Owner);
        assertEq(operators.ownerOf(id), newOwner);
        (, uint64 effectiveFrom) = operators.rotationOf(id, IOperators.Role.Beneficiary);
        assertEq(effectiveFrom, 0); // the old owner's pending change of beneficiary is gone
    }

    function testFuzz_theOwnerCancelsAThiefsRotation(address thief, bool beneficiary) public {
        vm.assume(thief != address(0));
        IOperators.Role role = beneficiary ? IOperators.Role.Beneficiary : IOperators.Role.Owner;
        vm.startPrank(owner);
        vm.expectRevert(abi.encodeWithSelector(IOperators.NoRotationPending.selector, id, role));
        operators.cancelRotation(id, role);
        operators.requestRotation(id, role, thief);
        vm.expectEmit(address(operators));
        emit IOperators.RotationCancelled(id, role);
        operators.cancelRotation(id, role);
        vm.stopPrank();
        skip(30 days);
        vm.prank(thief);
        vm.expectRevert(abi.encodeWithSelector(IOperators.NoRotationPending.selector, id, role));
        operators.finishRotation(id, role);
    }

    function test_aSecondRequestStartsTheDelayAnew() public {
        vm.startPrank(owner);
        operators.requestRotation(id, IOperators.Role.Owner, address(1));
        skip(2 days);
        operators.requestRotation(id, IOperators.Role.Owner, address(2));
        vm.stopPrank();
        skip(2 days);
        vm.prank(address(2));
        vm.expectRevert(abi.encodeWithSelector(IOperators.RotationTooEarly.selector, block.timestamp + 1 days, block.timestamp));
        operators.finishRotation(id, IOperators.Role.Owner);
    }

    function test_aShorterDelayDoesNotHastenAPendingRotation() public {
        vm.prank(owner);
        operators.requestRotation(id, IOperators.Role.Beneficiary, address(1));
        skip(1 days);
        parameters.set(ROTATION, 1 days);
        assertEq(operators.rotationDelaySeconds(), 1 days);
        vm.expectRevert(abi.encodeWithSelector(IOperators.RotationTooEarly.selector, block.timestamp + 2 days, block.timestamp));
        operators.finishRotation(id, IOperators.Role.Beneficiary);
    }

    function testFuzz_anUnknownOperatorReverts(uint64 unknown) public {
        vm.assume(unknown != id);
        bytes memory expected = abi.encodeWithSelector(IOperators.UnknownOperator.selector, unknown);
        vm.expectRevert(expected);
        operators.operator(unknown);
        vm.expectRevert(expected);
        operators.ownerOf(unknown);
        vm.expectRevert(expected);
        operators.nodeKeyOf(unknown);
        vm.expectRevert(expected);
        operators.beneficiaryOf(unknown);
        vm.expectRevert(expected);
        operators.keysOf(unknown);
        vm.expectRevert(expected);
        operators.setEndpoint(unknown, 0, "", 0);
        vm.expectRevert(expected);
        operators.setNodeKey(unknown, nodeKey, "");
        vm.expectRevert(expected);
        operators.requestRotation(unknown, IOperators.Role.Owner, owner);
        vm.expectRevert(expected);
        operators.cancelRotation(unknown, IOperators.Role.Owner);
        vm.expectRevert(expected);
        operators.finishRotation(unknown, IOperators.Role.Owner);
    }

    function testGas_register() public {
        (address key, uint256 secret) = makeAddrAndKey("gas");
        bytes memory signature = consent(owner, key, secret);
        vm.prank(owner);
        operators.register(key, owner, "transport", "https://node.example:9000", "eu", signature);
        vm.snapshotGasLastCall("Operators", "register");
    }
}

/// Anyone registers, rotates and replaces keys, in any order, over a small set of keys.
contract OperatorsHandler is ChainFixture {
    constructor(Operators operators_) {
        operators = operators_;
    }

    function setUp() public override {}

    function register(uint256 owner, uint256 key) external {
        (address account, address nodeKey, uint256 secret) = _pick(owner, key);
        if (operators.operatorOfNodeKey(nodeKey) != 0) return;
        bytes memory signature = consent(account, nodeKey, secret);
        vm.prank(account);
        operators.register(nodeKey, account, 0, "", 0, signature);
    }

    function setNodeKey(uint64 id, uint256 key) external {
        if (!_exists(id = _operator(id))) return;
        address owner = operators.ownerOf(id);
        (, address nodeKey, uint256 secret) = _pick(0, key);
        uint64 holder = operators.operatorOfNodeKey(nodeKey);
        if (holder != 0 && holder != id) return;
        bytes memory signature = consent(owner, nodeKey, secret);
        vm.prank(owner);
        operators.setNodeKey(id, nodeKey, signature);
    }

    function rotate(uint64 id, uint256 newOwner, uint256 wait) external {
        if (!_exists(id = _operator(id))) return;
        (address account,,) = _pick(newOwner, 0);
        vm.prank(operators.ownerOf(id));
        operators.requestRotation(id, IOperators.Role.Owner, account);
        skip(bound(wait, 3 days, 9 days));
        vm.prank(account);
        operators.finishRotation(id, IOperators.Role.Owner);
    }

    function _operator(uint64 id) private view returns (uint64) {
        return uint64(bound(id, 1, operators.operatorCount() + 1));
    }

    function _exists(uint64 id) private view returns (bool) {
        return id <= operators.operatorCount();
    }

    function _pick(uint256 owner, uint256 key) private pure returns (address account, address nodeKey, uint256 secret) {
        secret = bound(key, 1, 12);
        return (address(uint160(bound(owner, 0x1001, 0x1005))), vm.addr(secret), secret);
    }
}

contract OperatorsInvariantTest is ChainFixture {
    OperatorsHandler private handler;

    function setUp() public override {
        super.setUp();
        handler = OperatorsHandler(vm.deployCode("operators.t.sol:OperatorsHandler", abi.encode(operators)));
        targetContract(address(handler));
        bytes4[] memory calls = new bytes4[](3);
        (calls[0], calls[1], calls[2]) = (handler.register.selector, handler.setNodeKey.selector, handler.rotate.selector);
        targetSelector(FuzzSelector(address(handler), calls));
    }

    /// A hot key works for one operator, and every operator has one.
    function invariant_nodeKeysAndOperatorsPointAtEachOther() public view {
        uint64 held;
        for (uint256 secret = 1; secret <= 12; ++secret) {
            uint64 id = operators.operatorOfNodeKey(vm.addr(secret));
            if (id == 0) continue;
            held += 1;
            assertEq(operators.nodeKeyOf(id), vm.addr(secret));
        }
        assertEq(held, operators.operatorCount());
    }
}
