// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IStorageMarket} from "./IStorageMarket.sol";

/// @title DealDesk: deals and extensions that a client and a provider have agreed between themselves and signed.
/// @notice Both sign EIP-712 `IStorageMarket.DealTerms` in the market's domain: the client's account (EOA or ERC-1271) and the operator's
/// node key. Anyone may bring a deal that both have signed; a nonce serves once. The desk holds no money and no power but to open.
interface IDealDesk {
    event NonceCancelled(address indexed signer, uint256 nonce);

    error OfferExpired(uint64 expiry, uint256 timestamp);
    error NonceUsed(address signer, uint256 nonce);
    error BadSignature(address expectedSigner);

    function openDeal(IStorageMarket.DealTerms calldata terms, bytes calldata cid, bytes calldata clientSignature, bytes calldata providerSignature)
        external
        returns (uint64 dealId);
    function cancelNonce(uint256 nonce) external;
    /// @notice EIP-712 `Extension(uint64 dealId,uint32 periods,uint64 endPeriod,uint64 expiry)` by both; endPeriod is the old one, so it is used once.
    function extend(uint64 dealId, uint32 periods, uint64 expiry, bytes calldata clientSignature, bytes calldata providerSignature) external;

    function isNonceUsed(address signer, uint256 nonce) external view returns (bool);
    function dealTermsDigest(IStorageMarket.DealTerms calldata terms) external view returns (bytes32);
}
