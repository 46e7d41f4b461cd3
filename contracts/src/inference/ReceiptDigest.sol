// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IReceiptCourt} from "./IReceiptCourt.sol";

/// @title ReceiptDigest: EIP-712 struct hash of an inference receipt; the twin of src/inference/serving/receipt.ts.
library ReceiptDigest {
    bytes private constant SUBJECT = "Subject(uint256 operatorId,address miner,string model,bytes32 modelRoot)";
    bytes private constant INPUTS =
        "Inputs(bytes32 receiptId,bytes32 requestHash,string path,uint64 units,uint64 outputUnitsMax,bytes32 channelId,uint128 voucher,bool zeroRetention,bool replayAllowed,bytes32 witnessNonce)";
    bytes private constant OUTPUTS =
        "Outputs(bytes32 responseHash,bytes32 outputDigest,bytes32 witness,string unit,uint64 units,uint128 price,uint64 ttftUs,uint64 tpotUs,string end,uint64 finishedAt)";
    bytes32 private constant RECEIPT_TYPEHASH = keccak256(
        abi.encodePacked(
            "Receipt(string kind,Subject subject,Inputs inputs,Outputs outputs,string evidence,string profile)", INPUTS, OUTPUTS, SUBJECT
        )
    );
    bytes32 private constant SUBJECT_TYPEHASH = keccak256(SUBJECT);
    bytes32 private constant INPUTS_TYPEHASH = keccak256(INPUTS);
    bytes32 private constant OUTPUTS_TYPEHASH = keccak256(OUTPUTS);
    bytes32 private constant KIND_HASH = keccak256("inference");

    function structHash(IReceiptCourt.Receipt calldata r) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                RECEIPT_TYPEHASH,
                KIND_HASH,
                _subjectHash(r.subject),
                _inputsHash(r.inputs),
                _outputsHash(r.outputs),
                keccak256(bytes(r.evidence)),
                keccak256(bytes(r.profile))
            )
        );
    }

    /// @notice What a receipt says of its request, in one hash: two receipts with one id and two such hashes contradict one another. Times
    /// and how the answer ended are left out: an honest miner may word them twice.
    function claimHash(IReceiptCourt.Receipt calldata r) internal pure returns (bytes32) {
        bytes32 asked = keccak256(
            abi.encode(
                r.subject.modelRoot, r.inputs.requestHash, r.inputs.units, r.inputs.outputUnitsMax, r.inputs.channelId, r.inputs.voucher
            )
        );
        return keccak256(
            abi.encode(
                asked, r.outputs.responseHash, r.outputs.outputDigest, keccak256(bytes(r.outputs.unit)), r.outputs.units, r.outputs.price
            )
        );
    }

    function _subjectHash(IReceiptCourt.Subject calldata s) private pure returns (bytes32) {
        return keccak256(abi.encode(SUBJECT_TYPEHASH, s.operatorId, s.miner, keccak256(bytes(s.model)), s.modelRoot));
    }

    function _inputsHash(IReceiptCourt.Inputs calldata i) private pure returns (bytes32) {
        bytes memory head = abi.encode(INPUTS_TYPEHASH, i.receiptId, i.requestHash, keccak256(bytes(i.path)), i.units, i.outputUnitsMax);
        return keccak256(bytes.concat(head, abi.encode(i.channelId, i.voucher, i.zeroRetention, i.replayAllowed, i.witnessNonce)));
    }

    function _outputsHash(IReceiptCourt.Outputs calldata o) private pure returns (bytes32) {
        bytes memory head =
            abi.encode(OUTPUTS_TYPEHASH, o.responseHash, o.outputDigest, o.witness, keccak256(bytes(o.unit)), o.units, o.price);
        return keccak256(bytes.concat(head, abi.encode(o.ttftUs, o.tpotUs, keccak256(bytes(o.end)), o.finishedAt)));
    }
}
