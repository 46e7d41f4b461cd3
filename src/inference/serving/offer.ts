import type { Address, Hex } from 'viem';
import {
  EVIDENCE_CLASSES,
  type EvidenceClass,
  isSignedBy,
  type ReceiptDomain,
  type Signer,
  type TypedDataShape,
  typedDataDigest,
} from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { TASK_TYPES, type TaskType } from '../engines/engine.ts';
import type { ModelPrice } from './price.ts';

/** One model of an offer. */
export interface OfferedModel extends ModelPrice {
  id: string;
  root: Hex;
  task: TaskType;
  /** Input and output together; 0 where the model has no such limit. */
  contextTokens: bigint;
  /** The most output of one request. */
  outputUnitsMax: bigint;
  /** Requests that are worked on at once. */
  concurrency: bigint;
  evidence: EvidenceClass;
  /** `int4`, `int8`, `fp16`, `fp32` …, or `unknown`. */
  quantization: string;
  /** Parameters of a request that it honours besides the plain ones: `tools`, `response_format`, `logprobs`, `seed` … */
  parameters: string;
}

/** What a miner says of itself: whom to pay, what it serves and at which price. A binding quote until it expires. */
export interface Offer {
  operatorId: bigint;
  /** The key that signs this and every receipt. */
  miner: Address;
  /** Who is paid, in which token; zero addresses where nothing costs anything. */
  receiver: Address;
  token: Address;
  /** It can serve without keeping anything. */
  zeroRetention: boolean;
  issuedAt: bigint;
  expiry: bigint;
  models: OfferedModel[];
}

/** An offer with its miner's signature. */
export interface SignedOffer {
  offer: Offer;
  signature: Hex;
}

/** What every offer keeps. */
export const OFFER_LIMITS = { models: 64, textCharacters: 128, lifetimeSeconds: 86_400n, skewSeconds: 300n } as const;

const MODEL_FIELDS = [
  { name: 'id', type: 'string' },
  { name: 'root', type: 'bytes32' },
  { name: 'task', type: 'string' },
  { name: 'unit', type: 'string' },
  { name: 'inputPerMillion', type: 'uint128' },
  { name: 'outputPerMillion', type: 'uint128' },
  { name: 'perRequest', type: 'uint128' },
  { name: 'contextTokens', type: 'uint64' },
  { name: 'outputUnitsMax', type: 'uint64' },
  { name: 'concurrency', type: 'uint64' },
  { name: 'evidence', type: 'string' },
  { name: 'quantization', type: 'string' },
  { name: 'parameters', type: 'string' },
] as const;
const OFFER_FIELDS = [
  { name: 'operatorId', type: 'uint256' },
  { name: 'miner', type: 'address' },
  { name: 'receiver', type: 'address' },
  { name: 'token', type: 'address' },
  { name: 'zeroRetention', type: 'bool' },
  { name: 'issuedAt', type: 'uint64' },
  { name: 'expiry', type: 'uint64' },
] as const;
const UNITS: readonly string[] = ['tokens', 'characters', 'images', 'milliseconds'];
const shapes = new Map<string, TypedDataShape>();

function offerDigest(domain: ReceiptDomain, offer: Offer): Hex {
  const key = `${domain.chainId}:${domain.verifyingContract.toLowerCase()}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Inference', version: '1', chainId: domain.chainId, verifyingContract: domain.verifyingContract },
      types: { Offer: [...OFFER_FIELDS, { name: 'models', type: 'Model[]' }], Model: MODEL_FIELDS },
      primaryType: 'Offer',
    };
    shapes.set(key, shape);
  }
  return typedDataDigest(shape, offer as unknown as Record<string, unknown>);
}

/** Signs an offer with the miner's key. */
export async function signOffer(domain: ReceiptDomain, signer: Signer, said: Omit<Offer, 'miner'>): Promise<SignedOffer> {
  const offer = { ...said, miner: signer.address };
  return { offer, signature: await signer.signDigest(offerDigest(domain, offer)) };
}

/** The JSON form: integers as decimal strings. */
export function offerToJson({ offer, signature }: SignedOffer): string {
  return JSON.stringify({ ...offer, signature }, (_, value) => (typeof value === 'bigint' ? value.toString() : value));
}

/** Reads a stranger's offer: shape, limits, times and signature are checked. @throws bad-offer */
export function readOffer(domain: ReceiptDomain, text: string, now: bigint): SignedOffer {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw badOffer('text', 'no JSON');
  }
  if (!Array.isArray(value?.models) || value.models.length > OFFER_LIMITS.models) throw badOffer('models', 'no list, or a long one');
  const models = value.models.map((model) => readModel(model));
  const offer = { ...readFields(value, OFFER_FIELDS), models } as unknown as Offer;
  const signature = readField(value.signature, { name: 'signature', type: 'bytes65' }) as Hex;
  if (offer.expiry <= now) throw badOffer('expiry', offer.expiry);
  if (offer.issuedAt > now + OFFER_LIMITS.skewSeconds) throw badOffer('issuedAt', offer.issuedAt);
  if (offer.expiry > offer.issuedAt + OFFER_LIMITS.lifetimeSeconds) throw badOffer('expiry', offer.expiry);
  if (!isSignedBy(offer.miner, offerDigest(domain, offer), signature)) throw badOffer('signature', signature);
  return { offer, signature };
}

function readModel(value: unknown): OfferedModel {
  if (typeof value !== 'object' || value === null) throw badOffer('models', value);
  const model = readFields(value as Record<string, unknown>, MODEL_FIELDS) as unknown as OfferedModel;
  if (!TASK_TYPES.includes(model.task)) throw badOffer('task', model.task);
  if (!UNITS.includes(model.unit)) throw badOffer('unit', model.unit);
  if (!EVIDENCE_CLASSES.includes(model.evidence)) throw badOffer('evidence', model.evidence);
  if (model.concurrency === 0n) throw badOffer('concurrency', model.concurrency);
  return model;
}

type Field = { name: string; type: string };

function readFields(value: Record<string, unknown>, fields: readonly Field[]): Record<string, unknown> {
  const read: Record<string, unknown> = {};
  for (const field of fields) read[field.name] = readField(value[field.name], field);
  return read;
}

function readField(value: unknown, { name, type }: Field): string | bigint | boolean {
  if (type === 'bool' && typeof value === 'boolean') return value;
  if (typeof value === 'string') {
    if (type === 'string' && value.length <= OFFER_LIMITS.textCharacters) return value;
    if (type.startsWith('uint') && /^(0|[1-9][0-9]{0,38})$/.test(value)) return BigInt(value);
    const width = type === 'address' ? 20 : Number(/^bytes(\d+)$/.exec(type)?.[1] ?? Number.NaN);
    if (!Number.isNaN(width) && value.length === 2 + 2 * width && /^0x[0-9a-fA-F]+$/.test(value)) return value;
  }
  throw badOffer(name, value);
}

function badOffer(field: string, got: unknown): MillraceError {
  const shown = typeof got === 'object' ? typeof got : String(got).slice(0, 80);
  return new MillraceError('bad-offer', {
    actor: 'peer',
    message: `Got ${shown} as ${field} of a miner's offer`,
    values: { field, got: shown },
  });
}
