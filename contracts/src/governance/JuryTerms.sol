// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IJury} from "./IJury.sol";

/// @title JuryTerms: the terms of a dispute or an appeal, packed bytes (see IJury), written and read.
library JuryTerms {
    uint256 internal constant PARTIES_MAX = 8;
    uint256 internal constant ACCOUNTS_MAX = 16;
    uint256 private constant HEAD_BYTES = 21;

    function encode(address refundTo, uint64[] memory parties, address[] memory accounts) internal pure returns (bytes memory terms) {
        terms = abi.encodePacked(refundTo, uint8(parties.length));
        for (uint256 i; i < parties.length; ++i) {
            terms = bytes.concat(terms, bytes8(parties[i]));
        }
        for (uint256 i; i < accounts.length; ++i) {
            terms = bytes.concat(terms, bytes20(accounts[i]));
        }
    }

    function decode(bytes calldata terms) internal pure returns (address refundTo, uint64[] memory parties, address[] memory accounts) {
        if (terms.length == 0) return (refundTo, parties, accounts);
        if (terms.length < HEAD_BYTES) revert IJury.BadTerms(terms.length, HEAD_BYTES);
        refundTo = address(bytes20(terms[:20]));
        uint256 count = uint8(terms[20]);
        if (count > PARTIES_MAX) revert IJury.TooManyExcluded(count, PARTIES_MAX);
        uint256 at = HEAD_BYTES + 8 * count;
        if (terms.length < at || (terms.length - at) % 20 != 0) revert IJury.BadTerms(terms.length, at);
        parties = new uint64[](count);
        for (uint256 i; i < count; ++i) {
            parties[i] = uint64(bytes8(terms[HEAD_BYTES + 8 * i:]));
        }
        count = (terms.length - at) / 20;
        if (count > ACCOUNTS_MAX) revert IJury.TooManyExcluded(count, ACCOUNTS_MAX);
        accounts = new address[](count);
        for (uint256 i; i < count; ++i) {
            accounts[i] = address(bytes20(terms[at + 20 * i:]));
        }
    }

    function decodeRefund(bytes calldata terms) internal pure returns (address) {
        if (terms.length == 0) return address(0);
        if (terms.length != 20) revert IJury.BadTerms(terms.length, 20);
        return address(bytes20(terms));
    }
}
