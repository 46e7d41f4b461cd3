import type { Address, Hex, TypedDataParameter } from 'viem';
import { MillraceError } from '../errors.ts';
import { isSignedBy, type Signer } from './signer.ts';
import { type TypedDataShape, typedDataDigest } from './typed-data.ts';

/** What stands behind a receipt, strongest first. Nothing is called verified that is not. */
export type EvidenceClass = 'proven' | 'replayed' | 'fingerprinted' | 'attested' | 'reputation only';

/** Every class, strongest first. */
export const EVIDENCE_CLASSES: readonly EvidenceClass[] = ['proven', 'replayed', 'fingerprinted', 'attested', 'reputation only'];

/** A value in a receipt's parts: bigints for numbers, 0x-hex for bytes and addresses. */
export type ReceiptValue = bigint | string | boolean;

/** The project's one receipt: who did what to what, with which result, and how strong the evidence is. */
export interface WorkReceipt<
  Subject extends Record<string, ReceiptValue> = Record<string, ReceiptValue>,
  Inputs extends Record<string, ReceiptValue> = Record<string, ReceiptValue>,
  Outputs extends Record<string, ReceiptValue> = Record<string, ReceiptValue>,
> {
  kind: string;
  subject: Subject;
  inputs: Inputs;
  outputs: Outputs;
  evidence: EvidenceClass;
  /** The network's profile: receipts of `dev` are not secure, and say so. */
  profile: string;
}

/** Where receipts are valid: a chain and the contract that may judge them. */
export interface ReceiptDomain {
  chainId: number;
  verifyingContract: Address;
}

/** The parts of one kind of receipt, as EIP-712 fields. */
export interface ReceiptKind {
  kind: string;
  subject: readonly TypedDataParameter[];
  inputs: readonly TypedDataParameter[];
  outputs: readonly TypedDataParameter[];
}

const ENVELOPE: readonly TypedDataParameter[] = [
  { name: 'kind', type: 'string' },
  { name: 'subject', type: 'Subject' },
  { name: 'inputs', type: 'Inputs' },
  { name: 'outputs', type: 'Outputs' },
  { name: 'evidence', type: 'string' },
  { name: 'profile', type: 'string' },
];

/** Signs, checks, writes and reads receipts of one kind in one domain. */
export interface ReceiptCodec<Receipt extends WorkReceipt> {
  /** EIP-712 digest, domain "Millrace Receipt" version "1", primary type `Receipt`. @throws bad-typed-data */
  digest(receipt: Receipt): Hex;
  sign(signer: Signer, receipt: Receipt): Promise<Hex>;
  isSignedBy(address: Address, receipt: Receipt, signature: Hex): boolean;
  /** The JSON form: integers as decimal strings, no spaces. */
  toJson(receipt: Receipt, signature: Hex): string;
  /** Reads a stranger's JSON form; shape only, the signature is not checked. @throws bad-receipt */
  fromJson(text: string): { receipt: Receipt; signature: Hex };
}

const shapes = new Map<string, TypedDataShape>();

/** The codec of one kind of receipt. */
export function createReceiptCodec<Receipt extends WorkReceipt>(domain: ReceiptDomain, kind: ReceiptKind): ReceiptCodec<Receipt> {
  const key = `${domain.chainId}:${domain.verifyingContract.toLowerCase()}:${kind.kind}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Receipt', version: '1', chainId: domain.chainId, verifyingContract: domain.verifyingContract },
      types: { Receipt: ENVELOPE, Subject: kind.subject, Inputs: kind.inputs, Outputs: kind.outputs },
      primaryType: 'Receipt',
    };
    shapes.set(key, shape);
  }
  const known = shape;
  const digest = (receipt: Receipt) => typedDataDigest(known, receipt as unknown as Record<string, unknown>);
  return {
    digest,
    sign: (signer, receipt) => signer.signDigest(digest(receipt)),
    isSignedBy: (address, receipt, signature) => isSignedBy(address, digest(receipt), signature),
    toJson: (receipt, signature) =>
      JSON.stringify({ ...receipt, signature }, (_, value) => (typeof value === 'bigint' ? value.toString() : value)),
    fromJson: (text) => readReceipt<Receipt>(kind, text),
  };
}

function readReceipt<Receipt extends WorkReceipt>(kind: ReceiptKind, text: string): { receipt: Receipt; signature: Hex } {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw badReceipt('text', 'no JSON');
  }
  if (value?.kind !== kind.kind) throw badReceipt('kind', value?.kind);
  if (!EVIDENCE_CLASSES.includes(value.evidence as EvidenceClass)) throw badReceipt('evidence', value.evidence);
  if (typeof value.profile !== 'string' || value.profile.length > 64) throw badReceipt('profile', value.profile);
  const receipt = {
    kind: kind.kind,
    subject: readPart(value.subject, kind.subject, 'subject'),
    inputs: readPart(value.inputs, kind.inputs, 'inputs'),
    outputs: readPart(value.outputs, kind.outputs, 'outputs'),
    evidence: value.evidence,
    profile: value.profile,
  } as unknown as Receipt;
  return { receipt, signature: readField(value.signature, { name: 'signature', type: 'bytes65' }, 'receipt') as Hex };
}

function readPart(value: unknown, fields: readonly TypedDataParameter[], part: string): Record<string, ReceiptValue> {
  if (typeof value !== 'object' || value === null) throw badReceipt(part, value);
  const read: Record<string, ReceiptValue> = {};
  for (const field of fields) read[field.name] = readField((value as Record<string, unknown>)[field.name], field, part);
  return read;
}

function readField(value: unknown, { name, type }: TypedDataParameter, part: string): ReceiptValue {
  const width = type === 'address' ? 20 : Number(/^bytes(\d+)$/.exec(type)?.[1] ?? Number.NaN);
  if (type === 'bool' && typeof value === 'boolean') return value;
  if (typeof value === 'string') {
    if (type === 'string' && value.length <= 256) return value;
    if (type.startsWith('uint') && /^(0|[1-9][0-9]{0,77})$/.test(value)) return BigInt(value);
    if (!Number.isNaN(width) && value.length === 2 + 2 * width && /^0x[0-9a-fA-F]+$/.test(value)) return value;
  }
  throw badReceipt(`${part}.${name}`, value);
}

function badReceipt(field: string, got: unknown): MillraceError {
  const shown = typeof got === 'object' ? typeof got : String(got).slice(0, 80);
  return new MillraceError('bad-receipt', {
    actor: 'peer',
    message: `Got ${shown} as ${field} of a receipt`,
    values: { field, got: shown },
  });
}
