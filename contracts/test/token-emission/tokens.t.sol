// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Test} from "forge-std/Test.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {AuthorizedERC20} from "../../src/token/AuthorizedERC20.sol";
import {DevStable} from "../../src/token/DevStable.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {deployDevStable, deployNetworkToken} from "../deploy/token.sol";

/// A contract wallet whose signatures are its owner's.
contract ContractWallet is IERC1271 {
    address private immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 hash, bytes memory signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(hash, signature);
        return signer == owner ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

contract DevStableTest is Test {
    bytes32 private constant PERMIT = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    bytes32 private constant TRANSFER =
        keccak256("TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)");
    bytes32 private constant RECEIVE =
        keccak256("ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)");
    bytes32 private constant CANCEL = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
    uint256 private constant BEFORE = 2_000_000_000;
    uint256 private constant FUNDS = 1_000_000e6;

    DevStable private token;
    address private payer;
    uint256 private secret;
    address private payee = address(0xBEEF);

    function setUp() public {
        vm.warp(1_700_000_000);
        token = deployDevStable();
        (payer, secret) = makeAddrAndKey("payer");
        token.mint(payer, FUNDS);
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash));
    }

    function _sign(uint256 key, bytes32 structHash) private view returns (uint8 v, bytes32 r, bytes32 s) {
        return vm.sign(key, _digest(structHash));
    }

    function _signature(uint256 key, bytes32 structHash) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = _sign(key, structHash);
        return abi.encodePacked(r, s, v);
    }

    function _authorization(bytes32 kind, address from, address to, uint256 value, bytes32 nonce) private pure returns (bytes32) {
        return keccak256(abi.encode(kind, from, to, value, uint256(0), BEFORE, nonce));
    }

    function test_itsNameSaysThatItIsForDevelopment() public view {
        assertEq(token.name(), "Millrace Worthless Dev Dollar");
        assertEq(token.symbol(), "devUSD");
        assertEq(token.decimals(), 6);
    }

    function testFuzz_anyoneMintsUpToTheLimitOfACall(address caller, address to, uint256 amount) public {
        vm.assume(to != address(0) && to != payer);
        vm.prank(caller);
        if (amount > token.MINT_MAX()) {
            vm.expectRevert(abi.encodeWithSelector(DevStable.MintTooLarge.selector, amount, token.MINT_MAX()));
            token.mint(to, amount);
        } else {
            token.mint(to, amount);
            assertEq(token.balanceOf(to), amount);
        }
    }

    function testFuzz_transfersMoveExactlyTheAmountOrNothing(uint256 amount) public {
        vm.prank(payer);
        if (amount > FUNDS) {
            vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, payer, FUNDS, amount));
            token.transfer(payee, amount);
        } else {
            token.transfer(payee, amount);
            assertEq(token.balanceOf(payee), amount);
            assertEq(token.balanceOf(payer), FUNDS - amount);
        }
    }

    function testFuzz_anAllowanceIsSpentOnceOnly(uint256 allowed, uint256 amount) public {
        allowed = bound(allowed, 0, FUNDS);
        vm.prank(payer);
        token.approve(payee, allowed);
        vm.startPrank(payee);
        if (amount > allowed) {
            vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, payee, allowed, amount));
            token.transferFrom(payer, payee, amount);
        } else {
            token.transferFrom(payer, payee, amount / 2);
            token.burnFrom(payer, amount - amount / 2);
            assertEq(token.allowance(payer, payee), allowed - amount);
            assertEq(token.totalSupply(), FUNDS - (amount - amount / 2));
        }
        vm.stopPrank();
    }

    function testFuzz_burningTakesFromTheSupply(uint256 amount) public {
        amount = bound(amount, 0, FUNDS);
        vm.prank(payer);
        token.burn(amount);
        assertEq(token.totalSupply(), FUNDS - amount);
    }

    function testFuzz_aPermitWorksOnceUntilItsDeadline(uint256 value, uint256 deadline) public {
        deadline = bound(deadline, 0, BEFORE);
        (uint8 v, bytes32 r, bytes32 s) = _sign(secret, keccak256(abi.encode(PERMIT, payer, payee, value, 0, deadline)));
        if (deadline < block.timestamp) {
            vm.expectRevert(abi.encodeWithSelector(ERC20Permit.ERC2612ExpiredSignature.selector, deadline));
            token.permit(payer, payee, value, deadline, v, r, s);
        } else {
            token.permit(payer, payee, value, deadline, v, r, s);
            assertEq(token.allowance(payer, payee), value);
            vm.expectPartialRevert(ERC20Permit.ERC2612InvalidSigner.selector);
            token.permit(payer, payee, value, deadline, v, r, s);
        }
    }

    function testFuzz_anAuthorizedTransferHappensOnce(uint256 value, bytes32 nonce, bool asBytes) public {
        value = bound(value, 0, FUNDS);
        bytes32 structHash = _authorization(TRANSFER, payer, payee, value, nonce);
        _transferBy(structHash, value, nonce, asBytes);
        assertEq(token.balanceOf(payee), value);
        assertTrue(token.authorizationState(payer, nonce));
        bytes memory signature = _signature(secret, structHash);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, nonce));
        token.transferWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
    }

    function _transferBy(bytes32 structHash, uint256 value, bytes32 nonce, bool asBytes) private {
        if (asBytes) {
            token.transferWithAuthorization(payer, payee, value, 0, BEFORE, nonce, _signature(secret, structHash));
        } else {
            (uint8 v, bytes32 r, bytes32 s) = _sign(secret, structHash);
            token.transferWithAuthorization(payer, payee, value, 0, BEFORE, nonce, v, r, s);
        }
    }

    function testFuzz_onlyThePayeeSendsAReceiveAuthorization(uint256 value, bytes32 nonce, address caller) public {
        vm.assume(caller != payee);
        value = bound(value, 0, FUNDS);
        bytes32 structHash = _authorization(RECEIVE, payer, payee, value, nonce);
        bytes memory signature = _signature(secret, structHash);
        (uint8 v, bytes32 r, bytes32 s) = _sign(secret, structHash);
        vm.startPrank(caller);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, payee));
        token.receiveWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, payee));
        token.receiveWithAuthorization(payer, payee, value, 0, BEFORE, nonce, v, r, s);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector); // nor does it pass as a transfer
        token.transferWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
        vm.stopPrank();
        vm.prank(payee);
        token.receiveWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
        assertEq(token.balanceOf(payee), value);
    }

    function testFuzz_aForeignSignatureMovesNothing(uint256 key, uint256 value, bytes32 nonce) public {
        key = bound(key, 1, type(uint128).max);
        vm.assume(key != secret);
        value = bound(value, 0, FUNDS);
        bytes memory signature = _signature(key, _authorization(TRANSFER, payer, payee, value, nonce));
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.transferWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
        signature = _signature(key, _authorization(RECEIVE, payer, payee, value, nonce));
        vm.prank(payee);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.receiveWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
        signature = _signature(key, keccak256(abi.encode(CANCEL, payer, nonce)));
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.cancelAuthorization(payer, nonce, signature);
    }

    function testFuzz_aCancelledAuthorizationIsWorthNothing(uint256 value, bytes32 nonce, bool asBytes) public {
        value = bound(value, 0, FUNDS);
        bytes32 structHash = keccak256(abi.encode(CANCEL, payer, nonce));
        (uint8 v, bytes32 r, bytes32 s) = _sign(secret, structHash);
        if (asBytes) token.cancelAuthorization(payer, nonce, _signature(secret, structHash));
        else token.cancelAuthorization(payer, nonce, v, r, s);
        bytes memory signature = _signature(secret, _authorization(TRANSFER, payer, payee, value, nonce));
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, nonce));
        token.transferWithAuthorization(payer, payee, value, 0, BEFORE, nonce, signature);
    }

    function testFuzz_anAuthorizationCountsOnlyBetweenItsTimes(uint256 validAfter, uint256 validBefore) public {
        validAfter = bound(validAfter, 0, type(uint48).max >> 1);
        validBefore = bound(validBefore, 0, type(uint48).max >> 1);
        bytes memory signature = _signature(secret, keccak256(abi.encode(TRANSFER, payer, payee, 1, validAfter, validBefore, bytes32(0))));
        bool valid = block.timestamp > validAfter && block.timestamp < validBefore;
        if (!valid) vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, validAfter, validBefore));
        token.transferWithAuthorization(payer, payee, 1, validAfter, validBefore, 0, signature);
    }

    function test_aContractWalletPaysByItsOwnersSignature() public {
        ContractWallet wallet = new ContractWallet(payer);
        token.mint(address(wallet), 100);
        bytes memory signature = _signature(secret, _authorization(TRANSFER, address(wallet), payee, 60, "a"));
        token.transferWithAuthorization(address(wallet), payee, 60, 0, BEFORE, "a", signature);
        assertEq(token.balanceOf(payee), 60);
        signature = _signature(uint256(1), _authorization(TRANSFER, address(wallet), payee, 40, "b"));
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.transferWithAuthorization(address(wallet), payee, 40, 0, BEFORE, "b", signature);
    }

    function test_aSignatureForAnotherChainIsWorthNothing() public {
        bytes memory signature = _signature(secret, _authorization(TRANSFER, payer, payee, 5, "a"));
        vm.chainId(block.chainid + 1);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.transferWithAuthorization(payer, payee, 5, 0, BEFORE, "a", signature);
    }

    function testGas_payments() public {
        token.mint(payee, 1);
        bytes memory signature = _signature(secret, _authorization(TRANSFER, payer, payee, 5, "a"));
        token.transferWithAuthorization(payer, payee, 5, 0, BEFORE, "a", signature);
        vm.snapshotGasLastCall("AuthorizedERC20", "transferWithAuthorization to a holder");
        vm.prank(payer);
        token.transfer(payee, 5);
        vm.snapshotGasLastCall("AuthorizedERC20", "transfer to a holder");
    }
}

contract NetworkTokenTest is Test {
    uint256 private constant CAP = 1000e18;
    NetworkToken private token;

    function setUp() public {
        NetworkToken.Allocation[] memory genesis = new NetworkToken.Allocation[](1);
        genesis[0] = NetworkToken.Allocation(address(this), 400e18);
        token = deployNetworkToken("Millrace", "MILL", CAP, genesis);
    }

    function testFuzz_onlyTheCreatorMints(address caller, address to, uint256 amount) public {
        vm.assume(caller != address(this));
        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(NetworkToken.NotMinter.selector, caller, address(this)));
        token.mint(to, amount);
    }

    function testFuzz_mintingEndsAtTheCapWhateverIsBurnt(uint256 first, uint256 burnt, uint256 second) public {
        first = bound(first, 0, 600e18);
        token.mint(address(this), first);
        burnt = bound(burnt, 0, 400e18 + first);
        token.burn(burnt);
        uint256 left = 600e18 - first;
        if (second > left) {
            uint256 wanted = second > type(uint256).max - 400e18 - first ? type(uint256).max : 400e18 + first + second;
            vm.expectRevert(abi.encodeWithSelector(NetworkToken.CapExceeded.selector, wanted, CAP));
            token.mint(address(1), second);
        } else {
            token.mint(address(1), second);
            assertEq(token.totalSupply(), 400e18 + first + second - burnt);
        }
        assertLe(token.mintedTotal(), CAP);
    }

    function testFuzz_aGenesisOverTheCapIsRefused(uint256 amount) public {
        amount = bound(amount, CAP + 1, type(uint256).max);
        NetworkToken.Allocation[] memory genesis = new NetworkToken.Allocation[](1);
        genesis[0] = NetworkToken.Allocation(address(this), amount);
        vm.expectRevert(abi.encodeWithSelector(NetworkToken.CapExceeded.selector, amount, CAP));
        deployNetworkToken("Millrace", "MILL", CAP, genesis);
    }

    function test_itIsAnAuthorizedERC20WithItsOwnDomain() public view {
        (, string memory name, string memory version,, address verifier,,) = AuthorizedERC20(token).eip712Domain();
        assertEq(name, "Millrace");
        assertEq(version, "1");
        assertEq(verifier, address(token));
        assertEq(token.decimals(), 18);
        assertEq(token.nonces(address(this)), 0);
    }
}
