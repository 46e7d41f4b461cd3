import { type Address, hexToBytes, hexToString, trim } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Beacon } from './beacon.ts';
import { fromChainRules, type SubnetRules } from './subnet-rules.ts';

/** A subnet and the times of its present epoch. */
export interface Subnet {
  subnetId: bigint;
  /** The task that its models do. */
  kind: string;
  owner: Address;
  genesis: bigint;
  tempoSeconds: number;
  uidCount: number;
  isDissolved: boolean;
  epoch: bigint;
  epochEndsAt: bigint;
  rules: SubnetRules;
  beacon: Beacon;
  /** What the next uid costs now, base units of the network's token, burnt. */
  registrationPrice: bigint;
  /** Its part of the emission, in millionths. */
  emissionShareMillionths: number;
}

/** One uid as it is now. */
export interface Uid {
  uid: number;
  operatorId: bigint;
  registeredAt: number;
  /** Active stake of its operator, own and backers', as of the last second; base units. */
  stake: bigint;
  hasPermit: boolean;
  barredUntilEpoch: bigint;
  /** Of the last recorded epoch, u16 of one. */
  incentive: number;
  dividends: number;
}

/** What an epoch's close fixed. */
export interface ClosedMetagraph {
  permits: boolean[];
  holders: { operatorId: bigint; registeredAt: number; stake: bigint }[];
}

const RECORD_BYTES = 26;
const PERMIT_BYTES = 32;
const AT_ONCE = 16;

/** A subnet now. @throws unknown-subnet, chain-unreachable */
export async function readSubnet(client: ChainClient, subnetId: bigint): Promise<Subnet> {
  const now = await client.now();
  const [subnet, epoch, registrationPrice, beacon, share, total] = await Promise.all([
    client.read('subnets', 'subnet', [subnetId]),
    client.read('subnets', 'epochAt', [subnetId, now]),
    client.read('subnets', 'registrationPrice', [subnetId]),
    client.read('weightsBoard', 'beaconOf', [subnetId]),
    client.read('subnetEmission', 'shareOf', [subnetId]),
    client.read('subnetEmission', 'totalShares'),
  ]);
  const [rules, epochEndsAt] = await Promise.all([
    client.read('subnets', 'hyperparametersAt', [subnetId, epoch]),
    client.read('subnets', 'epochStart', [subnetId, epoch + 1n]),
  ]);
  return {
    subnetId,
    kind: hexToString(trim(subnet.kind, { dir: 'right' })),
    owner: subnet.owner,
    genesis: BigInt(subnet.genesis),
    tempoSeconds: subnet.tempoSeconds,
    uidCount: subnet.uidCount,
    isDissolved: subnet.dissolved,
    epoch,
    epochEndsAt,
    rules: fromChainRules(rules),
    beacon: { ...beacon, publicKey: hexToBytes(beacon.publicKey) },
    registrationPrice,
    emissionShareMillionths: total === 0n ? 0 : Number((share * 1_000_000n) / total),
  };
}

/** All subnets that are not dissolved. */
export async function listSubnets(client: ChainClient): Promise<Subnet[]> {
  const count = await client.read('subnets', 'subnetCount');
  const all = await inGroups(Number(count), (at) => readSubnet(client, BigInt(at + 1)));
  return all.filter(({ isDissolved }) => !isDissolved);
}

/** Every uid of a subnet as it is now. @throws unknown-subnet, chain-unreachable */
export async function readUids(client: ChainClient, subnetId: bigint): Promise<Uid[]> {
  const now = await client.now();
  const [{ uidCount }, epoch] = await Promise.all([
    client.read('subnets', 'subnet', [subnetId]),
    client.read('subnets', 'epochAt', [subnetId, now]),
  ]);
  const permits = await client.read('subnets', 'permitsAt', [subnetId, epoch]);
  return inGroups(uidCount, async (uid) => {
    const [holder, rank, barredUntilEpoch] = await Promise.all([
      client.read('subnets', 'holderAt', [subnetId, uid, now]),
      client.read('subnets', 'rankOf', [subnetId, uid]),
      client.read('subnets', 'barredUntil', [subnetId, uid]),
    ]);
    const { operatorId, registeredAt } = holder;
    const stake = await client.read('stakeVault', 'stakeAt', [operatorId, now - 1n]);
    const hasPermit = ((permits >> BigInt(uid)) & 1n) === 1n;
    return { uid, operatorId, registeredAt, stake, hasPermit, barredUntilEpoch, incentive: rank[0], dividends: rank[1] };
  });
}

/** The metagraph of an epoch that is over, the same before and after it was closed. @throws epoch-not-over, unknown-subnet */
export async function readMetagraph(client: ChainClient, options: { subnetId: bigint; epoch: bigint }): Promise<ClosedMetagraph> {
  return decodeMetagraph(hexToBytes(await client.read('subnets', 'metagraph', [options.subnetId, options.epoch])));
}

/** Reads the bytes that `Subnets.closeEpoch` logs. @throws bad-metagraph */
export function decodeMetagraph(bytes: Uint8Array): ClosedMetagraph {
  const count = (bytes.length - PERMIT_BYTES) / RECORD_BYTES;
  if (!Number.isInteger(count) || count < 0 || count > 256) {
    throw new MillraceError('bad-metagraph', {
      actor: 'chain',
      message: `Got a metagraph of ${bytes.length} bytes, expected ${PERMIT_BYTES} and up to 256 times ${RECORD_BYTES}`,
      values: { bytes: bytes.length },
    });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const uids = Array.from({ length: count }, (_, uid) => PERMIT_BYTES + uid * RECORD_BYTES);
  return {
    permits: uids.map((_, uid) => ((bytes[PERMIT_BYTES - 1 - (uid >> 3)] as number) >> (uid & 7)) % 2 === 1),
    holders: uids.map((at) => ({
      operatorId: view.getBigUint64(at),
      registeredAt: view.getUint16(at + 8) * 2 ** 32 + view.getUint32(at + 10),
      stake: (BigInt(view.getUint32(at + 14)) << 64n) | view.getBigUint64(at + 18),
    })),
  };
}

async function inGroups<T>(count: number, read: (at: number) => Promise<T>): Promise<T[]> {
  const found: T[] = [];
  while (found.length < count) {
    const size = Math.min(AT_ONCE, count - found.length);
    found.push(...(await Promise.all(Array.from({ length: size }, (_, i) => read(found.length + i)))));
  }
  return found;
}
