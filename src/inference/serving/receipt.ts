import type { Address, Hex } from 'viem';
import { createReceiptCodec, type ReceiptCodec, type ReceiptDomain, type ReceiptKind, type WorkReceipt } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';

/** Who answered with what: the miner's key and operator, and the model by name and root. */
export type InferenceSubject = {
  operatorId: bigint;
  miner: Address;
  model: string;
  modelRoot: Hex;
};

/** What was asked. Counts are in the unit that the model is priced in. */
export type InferenceInputs = {
  /** Drawn by the miner; no two requests have the same. */
  receiptId: Hex;
  /** SHA-256 of the request's body as the caller sent it. */
  requestHash: Hex;
  path: string;
  units: bigint;
  /** The most output that was agreed on: a receipt whose outputs say more convicts its signer. */
  outputUnitsMax: bigint;
  /** The channel that paid, and the cumulative voucher that covered it; zero when nothing was paid. */
  channelId: Hex;
  voucher: bigint;
  /** The miner keeps neither request nor answer. */
  zeroRetention: boolean;
  /** The caller lets validators run this request again; else it is checked by probes alone. */
  replayAllowed: boolean;
  /** Zero when no digest of intermediate tensors was asked for. */
  witnessNonce: Hex;
};

/** What was answered. */
export type InferenceOutputs = {
  /** SHA-256 of the answer's body; of a stream: of all of its bytes before the receipt. */
  responseHash: Hex;
  /** SHA-256 of the raw output of the engine, what re-execution must give again. */
  outputDigest: Hex;
  witness: Hex;
  unit: string;
  units: bigint;
  /** Charged, base units of the channel's token. */
  price: bigint;
  /** From the request's acceptance to the first part of the answer, and between parts, microseconds. */
  ttftUs: bigint;
  tpotUs: bigint;
  /** How the answer ended: `complete`, `cut` (the caller went away) or `failed`. */
  end: string;
  /** Unix time, seconds. */
  finishedAt: bigint;
};

/** A receipt for one answer of a model. */
export type InferenceReceipt = WorkReceipt<InferenceSubject, InferenceInputs, InferenceOutputs>;

/** A receipt and the miner's signature. */
export interface SignedReceipt {
  receipt: InferenceReceipt;
  signature: Hex;
}

/** Header of an answer, and field of the last SSE comment, that holds the receipt: base64url of its JSON form. */
export const RECEIPT_HEADER = 'millrace-receipt';
/** 32 zero bytes. */
export const NO_BYTES: Hex = `0x${'00'.repeat(32)}`;

const KIND: ReceiptKind = {
  kind: 'inference',
  subject: [
    { name: 'operatorId', type: 'uint256' },
    { name: 'miner', type: 'address' },
    { name: 'model', type: 'string' },
    { name: 'modelRoot', type: 'bytes32' },
  ],
  inputs: [
    { name: 'receiptId', type: 'bytes32' },
    { name: 'requestHash', type: 'bytes32' },
    { name: 'path', type: 'string' },
    { name: 'units', type: 'uint64' },
    { name: 'outputUnitsMax', type: 'uint64' },
    { name: 'channelId', type: 'bytes32' },
    { name: 'voucher', type: 'uint128' },
    { name: 'zeroRetention', type: 'bool' },
    { name: 'replayAllowed', type: 'bool' },
    { name: 'witnessNonce', type: 'bytes32' },
  ],
  outputs: [
    { name: 'responseHash', type: 'bytes32' },
    { name: 'outputDigest', type: 'bytes32' },
    { name: 'witness', type: 'bytes32' },
    { name: 'unit', type: 'string' },
    { name: 'units', type: 'uint64' },
    { name: 'price', type: 'uint128' },
    { name: 'ttftUs', type: 'uint64' },
    { name: 'tpotUs', type: 'uint64' },
    { name: 'end', type: 'string' },
    { name: 'finishedAt', type: 'uint64' },
  ],
};

const RECEIPT_CHARACTERS_MAX = 4096;

/** The codec of inference receipts of a network. */
export function createInferenceReceipts(domain: ReceiptDomain): ReceiptCodec<InferenceReceipt> {
  return createReceiptCodec<InferenceReceipt>(domain, KIND);
}

/** A receipt as it travels in a header or an SSE comment. */
export function encodeReceipt(codec: ReceiptCodec<InferenceReceipt>, { receipt, signature }: SignedReceipt): string {
  return Buffer.from(codec.toJson(receipt, signature)).toString('base64url');
}

/**
 * Reads and checks a receipt from a header: signed by the miner that it names, no more output than agreed on, and (where given) for this
 * request and this answer.
 * @throws bad-receipt, receipt-mismatch
 */
export function verifyReceipt(
  codec: ReceiptCodec<InferenceReceipt>,
  encoded: string,
  expected: { miner?: Address; modelRoot?: Hex; requestHash?: Hex; responseHash?: Hex } = {},
): SignedReceipt {
  if (encoded.length > RECEIPT_CHARACTERS_MAX) throw mismatch('length', encoded.length, RECEIPT_CHARACTERS_MAX);
  const signed = codec.fromJson(Buffer.from(encoded, 'base64url').toString('utf8'));
  const { subject, inputs, outputs } = signed.receipt;
  if (expected.miner !== undefined && subject.miner.toLowerCase() !== expected.miner.toLowerCase())
    throw mismatch('miner', subject.miner, expected.miner);
  if (expected.modelRoot !== undefined && subject.modelRoot !== expected.modelRoot)
    throw mismatch('modelRoot', subject.modelRoot, expected.modelRoot);
  if (expected.requestHash !== undefined && inputs.requestHash !== expected.requestHash)
    throw mismatch('requestHash', inputs.requestHash, expected.requestHash);
  if (expected.responseHash !== undefined && outputs.responseHash !== expected.responseHash)
    throw mismatch('responseHash', outputs.responseHash, expected.responseHash);
  if (outputs.units > inputs.outputUnitsMax) throw mismatch('outputs.units', outputs.units, inputs.outputUnitsMax);
  if (!codec.isSignedBy(subject.miner, signed.receipt, signed.signature)) throw mismatch('signature', signed.signature, subject.miner);
  return signed;
}

function mismatch(field: string, got: string | number | bigint, expected: string | number | bigint): MillraceError {
  return new MillraceError('receipt-mismatch', {
    actor: 'peer',
    message: `Got ${got} as ${field} of a receipt, expected ${expected}`,
    values: { field, got, expected },
    hint: 'The miner signed something else than what it did; keep the receipt as evidence.',
  });
}
