import type { Address, Hex } from 'viem';
import { type ChainClient, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';

/** A lease as the market has it now. Times are seconds of protocol time. */
export interface LeaseView {
  leaseId: bigint;
  renter: Address;
  /** Signs meters for the renter. */
  agent: Address;
  deviceId: bigint;
  operatorId: bigint;
  from: bigint;
  /** Where it ends as things stand. */
  until: bigint;
  interruptible: boolean;
  closed: boolean;
  /** Reserved time that the supplier takes away against its word, seconds. */
  takenSeconds: number;
  /** Stake locked behind it, base units. */
  collateral: bigint;
  token: Address;
  railId: bigint;
}

/** The market's times, seconds; the same for all leases. */
export interface MarketTimes {
  /** Length of an interval of a meter. */
  meterSeconds: number;
  /** How long after its end an interval may be spoken of. */
  speakSeconds: number;
  /** Between a supplier's word that it ends a lease and the end. */
  noticeSeconds: number;
}

/** What the market asks of a reservation's time, seconds. */
export interface LeaseBounds {
  /** Least time between a reservation and the lease's beginning: its supplier has seen it by then. */
  leadSeconds: number;
  /** Shortest lease. */
  leaseSecondsMin: number;
}

/** Who speaks of a lease's intervals, as the contract numbers them. */
export const SIDES = { node: 0, renter: 1, probers: 2 } as const;

/** A name of a side. */
export type Side = keyof typeof SIDES;

/** Intervals of one word of 256: of which a side speaks, which it found up; bit i is the i-th of the word. */
export interface Statement {
  spoken: bigint;
  up: bigint;
}

const OVERLAP_BLOCKS = 12n;

/** A lease. @throws unknown-lease, chain-unreachable */
export async function readLease(client: ChainClient, leaseId: bigint): Promise<LeaseView> {
  return { leaseId, ...(await client.read('computeMarket', 'lease', [leaseId])) };
}

/** The market's times. @throws chain-unreachable */
export async function readMarketTimes(client: ChainClient): Promise<MarketTimes> {
  const [meterSeconds, speakSeconds, noticeSeconds] = await Promise.all([
    client.read('computeMarket', 'meterSeconds'),
    client.read('computeMarket', 'speakSeconds'),
    client.read('computeMarket', 'noticeSeconds'),
  ]);
  return { meterSeconds, speakSeconds, noticeSeconds };
}

/** What the market asks of a reservation's time. @throws chain-unreachable */
export async function readLeaseBounds(client: ChainClient): Promise<LeaseBounds> {
  const [leadSeconds, leaseSecondsMin] = await Promise.all([
    client.read('computeMarket', 'leadSeconds'),
    client.read('computeMarket', 'leaseSecondsMin'),
  ]);
  return { leadSeconds, leaseSecondsMin };
}

/** What a side has said on chain of one word of a lease. @throws chain-unreachable */
export function readStatement(client: ChainClient, leaseId: bigint, side: Side, word: number): Promise<Statement> {
  return client.read('computeMarket', 'statementOf', [leaseId, SIDES[side], word]);
}

/** Numbers of all leases that a renter opened, or an operator's devices have, in the order of opening. @throws chain-unreachable */
export async function listLeases(
  client: ChainClient,
  of: { renter: Address } | { operatorId: bigint },
  fromBlock?: bigint,
): Promise<bigint[]> {
  const events = await client.events({ name: 'computeMarket', event: 'LeaseOpened', args: { ...of }, fromBlock });
  return events.map(({ args }) => args.leaseId);
}

/** From which block events are read again when those up to `seen` were read: some of the last may have been reorganised. */
export function blockToReadFrom(seen: bigint | undefined): bigint | undefined {
  if (seen === undefined) return undefined;
  return seen > OVERLAP_BLOCKS ? seen - OVERLAP_BLOCKS : 0n;
}

/** Where an operator's node answers, and with which TLS key. @throws unknown-operator, chain-unreachable */
export async function readPeer(client: ChainClient, operatorId: bigint): Promise<{ endpoint: string; transportKey: Hex }> {
  const { endpoint, transportKey } = await client.read('operators', 'operator', [operatorId]);
  return { endpoint, transportKey };
}

const shapes = new WeakMap<ChainClient, { meter: TypedDataShape; finding: TypedDataShape }>();

function shapesOf(client: ChainClient): { meter: TypedDataShape; finding: TypedDataShape } {
  const known = shapes.get(client);
  if (known !== undefined) return known;
  const domain = (name: string, contract: 'computeMarket' | 'leaseProbers') => ({
    name,
    version: '1',
    chainId: client.chainId,
    verifyingContract: client.address(contract),
  });
  const fields = (...given: string[]) =>
    given.map((field) => ({ type: field.split(' ')[0] as string, name: field.split(' ')[1] as string }));
  const made = {
    meter: {
      domain: domain('Millrace Compute Market', 'computeMarket'),
      types: { MeterStatement: fields('uint64 leaseId', 'uint8 side', 'uint32 word', 'uint256 spoken', 'uint256 up') },
      primaryType: 'MeterStatement',
    },
    finding: {
      domain: domain('Millrace Lease Probers', 'leaseProbers'),
      types: { Finding: fields('uint64 leaseId', 'uint32 stretch', 'uint128 spoken', 'uint128 up') },
      primaryType: 'Finding',
    },
  };
  shapes.set(client, made);
  return made;
}

/** What a side signs about one word of a lease (`IComputeMarket.meterDigest`). */
export function meterDigest(client: ChainClient, given: { leaseId: bigint; side: Side; word: number } & Statement): Hex {
  return typedDataDigest(shapesOf(client).meter, { ...given, side: SIDES[given.side] });
}

/** What a prober signs about one stretch of a lease (`ILeaseProbers.findingDigest`). */
export function findingDigest(client: ChainClient, given: { leaseId: bigint; stretch: number } & Statement): Hex {
  return typedDataDigest(shapesOf(client).finding, { ...given });
}
