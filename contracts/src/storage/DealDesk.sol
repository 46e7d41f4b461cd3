// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IDealDesk} from "./IDealDesk.sol";
import {IStorageMarket} from "./IStorageMarket.sol";

/// @title DealDesk: see IDealDesk for the rules.
contract DealDesk is IDealDesk {
    using BitMaps for BitMaps.BitMap;

    bytes32 private constant DEAL_TYPEHASH = keccak256(
        "DealTerms(address client,uint64 operatorId,bytes32 pieceRoot,uint8 pieceHeight,uint64 rawSize,bytes32 contentHash,uint32 periods,uint128 pricePerPeriod,uint128 collateral,uint128 bond,uint256 clientNonce,uint256 providerNonce,uint64 expiry)"
    );
    bytes32 private constant EXTENSION_TYPEHASH = keccak256("Extension(uint64 dealId,uint32 periods,uint64 endPeriod,uint64 expiry)");

    IStorageMarket public immutable market;
    IOperators public immutable operators;

    mapping(address signer => BitMaps.BitMap) private _nonces;

    constructor(IStorageMarket market_, IOperators operators_) {
        market = market_;
        operators = operators_;
    }

    /// @inheritdoc IDealDesk
    function openDeal(
        IStorageMarket.DealTerms calldata terms,
        bytes calldata cid,
        bytes calldata clientSignature,
        bytes calldata providerSignature
    ) external returns (uint64 dealId) {
        _requireValid(terms.expiry);
        address nodeKey = operators.nodeKeyOf(terms.operatorId);
        bytes32 digest = dealTermsDigest(terms);
        _checkSignature(terms.client, digest, clientSignature);
        _checkSignature(nodeKey, digest, providerSignature);
        _useNonce(terms.client, terms.clientNonce);
        _useNonce(nodeKey, terms.providerNonce);
        return market.open(terms, cid, false);
    }

    /// @inheritdoc IDealDesk
    function cancelNonce(uint256 nonce) external {
        _nonces[msg.sender].set(nonce);
        emit NonceCancelled(msg.sender, nonce);
    }

    /// @inheritdoc IDealDesk
    function extend(uint64 dealId, uint32 periods, uint64 expiry, bytes calldata clientSignature, bytes calldata providerSignature) external {
        _requireValid(expiry);
        IStorageMarket.Deal memory d = market.deal(dealId);
        bytes32 digest = _digest(keccak256(abi.encode(EXTENSION_TYPEHASH, dealId, periods, d.endPeriod, expiry)));
        _checkSignature(d.client, digest, clientSignature);
        _checkSignature(operators.nodeKeyOf(d.operatorId), digest, providerSignature);
        market.extend(dealId, periods);
    }

    /// @inheritdoc IDealDesk
    function isNonceUsed(address signer, uint256 nonce) external view returns (bool) {
        return _nonces[signer].get(nonce);
    }

    /// @inheritdoc IDealDesk
    function dealTermsDigest(IStorageMarket.DealTerms calldata terms) public view returns (bytes32) {
        return _digest(keccak256(abi.encode(DEAL_TYPEHASH, terms)));
    }

    function _digest(bytes32 structHash) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(market.domainSeparator(), structHash);
    }

    function _requireValid(uint64 expiry) private view {
        if (block.timestamp > expiry) revert OfferExpired(expiry, block.timestamp);
    }

    function _checkSignature(address signer, bytes32 digest, bytes calldata signature) private view {
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, digest, signature)) revert BadSignature(signer);
    }

    function _useNonce(address signer, uint256 nonce) private {
        if (_nonces[signer].get(nonce)) revert NonceUsed(signer, nonce);
        _nonces[signer].set(nonce);
    }
}
