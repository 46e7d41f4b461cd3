import type { Duplex } from 'node:stream';
import { hashTypedData } from 'viem';
import { MillraceError } from '../errors.ts';
import { readAtMost } from '../read-at-most.ts';

type Hex = `0x${string}`;

/** The network that relays and nodes belong to: its chain and its registry of operators. Signatures are good there only. */
export interface RelayNetwork {
  chainId: number;
  operators: Hex;
}

/** What a relay offers to every node. */
export interface RelayTerms {
  operatorId: bigint;
  /** Price of a GiB carried, both directions together, in base units of the network's token; 0 is free. */
  pricePerGib: bigint;
  /** The relay carries this much before it is acknowledged and paid, and can lose no more. */
  chunkBytes: number;
  /** Greatest number of connections through one tunnel at once. */
  streamsMax: number;
  /** Greatest bandwidth of one tunnel, both directions together. */
  bytesPerSecond: number;
  tunnelsMax: number;
}

/** The terms as a relay announces them, with what is free now, until `expiry` (Unix seconds), signed by its node key. */
export interface RelayAnnouncement extends RelayTerms {
  tunnelsFree: number;
  expiry: number;
  signature: Hex;
}

/** What a node says it owes: bytes carried in a session so far, in both directions, as itself counted them. Cumulative. */
export interface RelayReceipt {
  relayOperatorId: bigint;
  operatorId: bigint;
  session: Hex;
  bytesCarried: bigint;
  amount: bigint;
}

const GIB_SHIFT = 30n;
const WORD = /^0x[0-9a-f]{64}$/;
const SIGNATURE = /^0x[0-9a-f]{130}$/;
const BODY_BYTES_MAX = 16_384;

const ANNOUNCEMENT_FIELDS = [
  { name: 'operatorId', type: 'uint64' },
  { name: 'pricePerGib', type: 'uint256' },
  { name: 'chunkBytes', type: 'uint64' },
  { name: 'streamsMax', type: 'uint64' },
  { name: 'bytesPerSecond', type: 'uint64' },
  { name: 'tunnelsMax', type: 'uint64' },
  { name: 'tunnelsFree', type: 'uint64' },
  { name: 'expiry', type: 'uint64' },
] as const;
const RECEIPT_FIELDS = [
  { name: 'relayOperatorId', type: 'uint64' },
  { name: 'operatorId', type: 'uint64' },
  { name: 'session', type: 'bytes32' },
  { name: 'bytesCarried', type: 'uint256' },
  { name: 'amount', type: 'uint256' },
] as const;

/** What so many bytes cost, in base units; rounded down. */
export function relayAmountDown(bytes: bigint, pricePerGib: bigint): bigint {
  return (bytes * pricePerGib) >> GIB_SHIFT;
}

/** The header `millrace-relay` of a signed request to a relay: network, relay and purpose, so that it is good for these only. */
export function relayHeader(network: RelayNetwork, relayOperatorId: bigint, purpose: 'tunnel' | 'probe'): string {
  return `eip155:${network.chainId}:${network.operators.toLowerCase()};relay=${relayOperatorId};purpose=${purpose}`;
}

/** The EIP-712 digest of an announcement. */
export function announcementDigest(network: RelayNetwork, announcement: Omit<RelayAnnouncement, 'signature'>): Hex {
  const { operatorId, pricePerGib } = announcement;
  const numbers = Object.fromEntries(
    (['chunkBytes', 'streamsMax', 'bytesPerSecond', 'tunnelsMax', 'tunnelsFree', 'expiry'] as const).map((name) => [
      name,
      BigInt(announcement[name]),
    ]),
  ) as Record<'chunkBytes' | 'streamsMax' | 'bytesPerSecond' | 'tunnelsMax' | 'tunnelsFree' | 'expiry', bigint>;
  return hashTypedData({
    domain: domainOf(network),
    types: { RelayAnnouncement: ANNOUNCEMENT_FIELDS },
    primaryType: 'RelayAnnouncement',
    message: { operatorId, pricePerGib, ...numbers },
  });
}

/** The EIP-712 digest of a receipt. */
export function receiptDigest(network: RelayNetwork, receipt: RelayReceipt): Hex {
  return hashTypedData({
    domain: domainOf(network),
    types: { RelayReceipt: RECEIPT_FIELDS },
    primaryType: 'RelayReceipt',
    message: { ...receipt },
  });
}

function domainOf({ chainId, operators }: RelayNetwork) {
  return { name: 'Millrace Relay', version: '1', chainId, verifyingContract: operators } as const;
}

/** A message as JSON: integers above 2^53 as decimal strings. */
export function toRelayJson(message: object): string {
  return JSON.stringify(message, (_key, value) => (typeof value === 'bigint' ? value.toString() : value));
}

/** Reads an announcement that came over the wire. @throws relay-answer-bad */
export function announcementFrom(value: unknown): RelayAnnouncement {
  const read = fieldsOf(value);
  return {
    operatorId: read.bigint('operatorId'),
    pricePerGib: read.bigint('pricePerGib'),
    chunkBytes: read.number('chunkBytes'),
    streamsMax: read.number('streamsMax'),
    bytesPerSecond: read.number('bytesPerSecond'),
    tunnelsMax: read.number('tunnelsMax'),
    tunnelsFree: read.number('tunnelsFree'),
    expiry: read.number('expiry'),
    signature: read.hex('signature', SIGNATURE),
  };
}

/** Reads what a relay grants to a node that may open a tunnel. @throws relay-answer-bad */
export function grantFrom(value: unknown): { ticket: Hex; session: Hex } {
  const read = fieldsOf(value);
  return { ticket: read.hex('ticket', WORD), session: read.hex('session', WORD) };
}

/** What a relay claims: bytes carried in a session so far, what it wants for them in all, and how it is paid. */
export interface RelayClaim {
  bytesCarried: bigint;
  amount: bigint;
  /** Text of the payments' port; absent when nothing is wanted. */
  demand: string | undefined;
}

/** Reads a relay's claim. @throws relay-answer-bad */
export function claimFrom(value: unknown): RelayClaim {
  const read = fieldsOf(value);
  const isPriced = (value as Record<string, unknown>).amount !== undefined;
  return { bytesCarried: read.bigint('bytesCarried'), amount: isPriced ? read.bigint('amount') : 0n, demand: read.text('demand') };
}

/** Reads a node's answer to a claim; what is a payment is the business of the payments' port. @throws relay-answer-bad */
export function acknowledgementFrom(value: unknown): { bytesCarried: bigint; amount: bigint; signature: Hex; payment: string | undefined } {
  const read = fieldsOf(value);
  return {
    bytesCarried: read.bigint('bytesCarried'),
    amount: read.bigint('amount'),
    signature: read.hex('signature', SIGNATURE),
    payment: read.text('payment'),
  };
}

/** The JSON that a stream carries, of bounded size; whoever calls bounds the time. @throws relay-answer-bad, answer-too-long */
export async function readRelayJson(body: Duplex | ReadableStream<Uint8Array> | null): Promise<unknown> {
  const text = (await readAtMost(body, BODY_BYTES_MAX)).toString('utf8');
  try {
    return JSON.parse(text);
  } catch {
    throw bad('body', text.slice(0, 40));
  }
}

function fieldsOf(value: unknown) {
  if (typeof value !== 'object' || value === null) throw bad('body', value);
  const fields = value as Record<string, unknown>;
  return {
    bigint(name: string): bigint {
      const field = fields[name];
      if (typeof field !== 'string' || !/^\d{1,77}$/.test(field)) throw bad(name, field);
      return BigInt(field);
    },
    number(name: string): number {
      const field = fields[name];
      if (typeof field !== 'number' || !Number.isSafeInteger(field) || field < 0) throw bad(name, field);
      return field;
    },
    text(name: string): string | undefined {
      const field = fields[name];
      if (field !== undefined && typeof field !== 'string') throw bad(name, field);
      return field;
    },
    hex(name: string, pattern: RegExp): Hex {
      const field = fields[name];
      if (typeof field !== 'string' || !pattern.test(field)) throw bad(name, field);
      return field as Hex;
    },
  };
}

function bad(field: string, got: unknown): MillraceError {
  return new MillraceError('relay-answer-bad', {
    actor: 'peer',
    message: `Got ${field} "${String(got).slice(0, 40)}" in a message between relay and node`,
    values: { field, got: String(got).slice(0, 40) },
  });
}
