import { hexToString } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { type PeerAddress, peerFetch } from '../../connect/index.ts';
import type { Logger } from '../../log.ts';
import { readAtMost } from '../../read-at-most.ts';
import { type DeviceRank, readRanksOf, weighHealth } from '../health/device-rank.ts';
import type { BusyTime, DeviceView } from '../schedule/device-view.ts';
import { classBytes, type DeviceDocument, hashDocument } from './device-offers.ts';
import { readPeer } from './lease-chain.ts';

/** A device on offer, as the chain has it and its machine describes it. */
export interface DeviceOffer {
  deviceId: bigint;
  operatorId: bigint;
  deviceClass: string;
  /** Seconds of protocol time. */
  from: bigint;
  until: bigint;
  /** Base units an hour; 0: not for this token. */
  prices: Readonly<Record<'stable' | 'native', bigint>>;
  /** Price of an interruptible lease in ten-thousandths of the price; 0: none are offered. */
  interruptibleBps: number;
  /** Stake behind each lease, base units. */
  collateral: bigint;
  /** What the machine says of it, with the hash that is on chain; undefined when it does not answer. */
  document: DeviceDocument | undefined;
  busy: readonly BusyTime[];
  /** Its place by the posted figures of health; undefined for a device without a seat. */
  health: DeviceRank | undefined;
  endpoint: string;
  region: string;
}

const ANSWER_BYTES_MAX = 1 << 20;
const ANSWER_TIMEOUT_MS = 5_000;
/** Slots of one device that are looked at, from the last one back: as far as the contract itself would go. */
const SLOTS_MAX = 32;
const AT_ONCE = 16;

/**
 * All devices that can be had now or later, each with what its machine says of it. A machine that does not answer in five seconds, or whose words
 * are not those of the hash on chain, has no document.
 * @param options.deviceClass of these alone
 * @throws bad-device for a class that cannot be, chain-unreachable
 */
export async function listDeviceOffers(client: ChainClient, options: { deviceClass?: string; log?: Logger } = {}): Promise<DeviceOffer[]> {
  const args = options.deviceClass === undefined ? {} : { deviceClass: classBytes(options.deviceClass) };
  const [events, now, ranks] = await Promise.all([
    client.events({ name: 'computeMarket', event: 'OfferSet', args }),
    client.now(),
    readRanksOf(client),
  ]);
  const numbers = [...new Set(events.map(({ args: { deviceId } }) => deviceId))];
  const documents = new Map<bigint, Promise<DeviceDocument[]>>();
  const found: DeviceOffer[] = [];
  for (let at = 0; at < numbers.length; at += AT_ONCE) {
    const some = numbers.slice(at, at + AT_ONCE).map((deviceId) => describe(client, deviceId, now, documents));
    for (const offer of await Promise.all(some)) if (offer !== undefined) found.push({ ...offer, health: ranks.get(offer.deviceId) });
  }
  return found.filter(({ deviceClass }) => options.deviceClass === undefined || deviceClass === options.deviceClass);
}

async function describe(
  client: ChainClient,
  deviceId: bigint,
  now: bigint,
  documents: Map<bigint, Promise<DeviceDocument[]>>,
): Promise<Omit<DeviceOffer, 'health'> | undefined> {
  const offer = await client.read('computeMarket', 'offerOf', [deviceId]);
  if (offer.until <= now) return undefined;
  const operator = await client.read('operators', 'operator', [offer.operatorId]);
  let known = documents.get(offer.operatorId);
  if (known === undefined) {
    known = readPeer(client, offer.operatorId).then(fetchDocuments, () => []);
    documents.set(offer.operatorId, known);
  }
  const [document, busy] = await Promise.all([
    known.then((list) => list.find((each) => hashDocument(each) === offer.attributes)),
    readBusy(client, deviceId, now),
  ]);
  return {
    deviceId,
    operatorId: offer.operatorId,
    deviceClass: textOf(offer.deviceClass),
    from: offer.from,
    until: offer.until,
    prices: { stable: offer.stablePrice, native: offer.nativePrice },
    interruptibleBps: offer.interruptibleBps,
    collateral: offer.collateral,
    document,
    busy,
    endpoint: operator.endpoint,
    region: textOf(operator.region),
  };
}

/** What a machine says of its devices; nothing when it does not answer, or says nonsense. */
async function fetchDocuments(peer: PeerAddress): Promise<DeviceDocument[]> {
  try {
    const response = await peerFetch(peer, '/v1/compute/leases/devices', { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    const { items } = JSON.parse((await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8')) as { items: unknown };
    return Array.isArray(items) ? items.flatMap((each) => documentOf(each)) : [];
  } catch {
    return [];
  }
}

function documentOf(value: unknown): DeviceDocument[] {
  if (typeof value !== 'object' || value === null) return [];
  const { name, deviceClass, engine, cpus, memoryBytes, diskBytes, processes, image, attributes, notes } = value as DeviceDocument;
  const isSound =
    [name, deviceClass, engine].every((each) => typeof each === 'string') &&
    [cpus, memoryBytes, diskBytes, processes].every((each) => Number.isFinite(each)) &&
    Array.isArray(notes) &&
    notes.every((note) => typeof note === 'string') &&
    typeof attributes === 'object' &&
    attributes !== null &&
    Object.values(attributes).every((each) => typeof each === 'string');
  return isSound ? [{ name, deviceClass, engine, cpus, memoryBytes, diskBytes, processes, image, attributes, notes }] : [];
}

async function readBusy(client: ChainClient, deviceId: bigint, now: bigint): Promise<BusyTime[]> {
  const busy: BusyTime[] = [];
  let slotId = await client.read('computeMarket', 'lastSlotOf', [deviceId]);
  for (let steps = 0; slotId !== 0n && steps < SLOTS_MAX; steps += 1) {
    const slot = await client.read('computeMarket', 'slot', [slotId]);
    if (slot.until <= now && busy.length > 0) break;
    busy.unshift({ slotId, from: Number(slot.from), until: Number(slot.until) });
    slotId = slot.previous;
  }
  return busy;
}

function textOf(bytes: `0x${string}`): string {
  return hexToString(bytes, { size: 32 }).replace(/[^\x20-\x7e]/g, '');
}

/** An offer as the scheduler weighs it, for a firm lease or an interruptible one. A machine that did not describe itself is not chosen. */
export function viewOf(offer: DeviceOffer, terms: { isInterruptible: boolean; noticeSeconds: number }): DeviceView {
  const { document, health, interruptibleBps, prices } = offer;
  const share = BigInt(terms.isInterruptible ? interruptibleBps : 10_000);
  const priceOf = (price: bigint) => (price * share + 9_999n) / 10_000n;
  return {
    deviceId: offer.deviceId,
    operatorId: offer.operatorId,
    deviceClass: offer.deviceClass,
    region: offer.region,
    milliCpus: Math.floor((document?.cpus ?? 0) * 1000),
    memoryBytes: document?.memoryBytes ?? 0,
    diskBytes: document?.diskBytes ?? 0,
    attributes: document?.attributes ?? {},
    prices: { stable: priceOf(prices.stable), native: priceOf(prices.native) },
    from: Number(offer.from),
    until: Number(offer.until),
    busy: offer.busy,
    takes: ['none'],
    ...weighHealth(health),
    ...(document === undefined ? { ineligible: 'its machine does not answer' } : {}),
    recentGrants: offer.busy.length,
    noticeSeconds: terms.isInterruptible ? terms.noticeSeconds : Number.POSITIVE_INFINITY,
  };
}
