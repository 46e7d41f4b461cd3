import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Hex, keccak256, stringToHex, toHex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import { eventArgs } from '../../token/index.ts';
import type { Resources } from '../capacity.ts';

/** A device that an operator leases out, as its owner describes it. Money is base units; prices are an hour's. */
export interface LeasedDevice {
  /** The owner's name for it; one device for each name, for ever. */
  name: string;
  /** At most 31 bytes, e.g. `cpu-2`. */
  deviceClass: string;
  resources: Resources;
  /** What else renters may want to know; shown with the offer, its hash is on chain. */
  attributes?: Readonly<Record<string, string>>;
  /** Digest of the image that rentals start with; left out: the software of this machine (bubblewrap only). */
  image?: string;
  /** 0: not for the stable token. */
  stablePrice: bigint;
  /** 0: not for the compute network's own token. */
  nativePrice: bigint;
  /** Stake behind each lease. */
  collateral: bigint;
  /** Price of an interruptible lease, in ten-thousandths of the price; 0: none are offered. */
  interruptibleBps: number;
}

/** The document whose hash an offer carries. */
export interface DeviceDocument {
  name: string;
  deviceClass: string;
  engine: string;
  cpus: number;
  memoryBytes: number;
  diskBytes: number;
  processes: number;
  image: string | null;
  attributes: Readonly<Record<string, string>>;
  /** What is not promised, for people. */
  notes: readonly string[];
}

type Offer = Parameters<typeof offersEqual>[0];

interface Kept {
  /** The terms of the first offer: the transaction that made the device is repeated with them until it is done. */
  first: { from: string; until: string };
  deviceId?: string;
}

const DAY = 86_400n;
const AVAILABLE_SECONDS = 30n * DAY;
const NAME = /^[a-z0-9][a-z0-9-]{0,30}$/;

/** The 32 bytes that stand for a class on chain. @throws bad-device */
export function classBytes(deviceClass: string): Hex {
  if (!NAME.test(deviceClass)) throw badDevice(`its class is ${JSON.stringify(deviceClass.slice(0, 40))}`);
  return stringToHex(deviceClass, { size: 32 });
}

/** The hash that an offer carries: keccak256 of the document as JSON with its keys in order. */
export function hashDocument(document: DeviceDocument): Hex {
  const sorted = (value: unknown): unknown =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(
          Object.entries(value)
            .sort(([one], [other]) => (one < other ? -1 : 1))
            .map(([key, each]) => [key, sorted(each)]),
        )
      : value;
  return keccak256(toHex(JSON.stringify(sorted(document))));
}

/** What renters are told of a device. */
export function describeDevice(device: LeasedDevice, engine: string): DeviceDocument {
  const { name, deviceClass, resources, image = null, attributes = {} } = device;
  const { cpus, memoryBytes, diskBytes, processes } = resources;
  const notes = [
    'the owner of this machine can see what runs on it and what it writes',
    'files lie in the sandbox and are lost when it or the machine restarts: copy out what matters',
    'rentals have no network',
  ];
  return { name, deviceClass, engine, cpus, memoryBytes, diskBytes, processes, image, attributes, notes };
}

/**
 * Brings the offers on chain to what the owner wants: makes devices that are not there, renews offers that will end, withdraws all while draining.
 * @returns device numbers by name
 * @throws bad-device, and the sender's errors
 */
export async function keepOffers(options: {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  folder: string;
  devices: readonly LeasedDevice[];
  engine: string;
  isDraining: boolean;
}): Promise<Map<string, bigint>> {
  const { client, sender, operatorId, devices, engine, isDraining } = options;
  const path = join(options.folder, 'devices.json');
  const kept = readKept(path);
  const found = new Map<string, bigint>();
  for (const device of devices) {
    if (!NAME.test(device.name)) throw badDevice(`its name is ${JSON.stringify(device.name.slice(0, 40))}`);
    const now = await client.now();
    let known = kept[device.name];
    if (known === undefined) {
      known = { first: { from: `${now}`, until: `${now + AVAILABLE_SECONDS}` } };
      kept[device.name] = known;
      writeFileDurably(path, JSON.stringify(kept));
    }
    const terms = { from: BigInt(known.first.from), until: BigInt(known.first.until) };
    if (known.deviceId === undefined) {
      const args = [0n, offerOf(device, engine, operatorId, terms)] as const;
      const receipt = await sender.send({ contract: 'computeMarket', functionName: 'setOffer', args, key: `device-${device.name}` });
      known.deviceId = String(eventArgs(receipt, 'computeMarket', 'OfferSet').deviceId);
      writeFileDurably(path, JSON.stringify(kept));
    }
    const deviceId = BigInt(known.deviceId);
    found.set(device.name, deviceId);
    const current = await client.read('computeMarket', 'offerOf', [deviceId]);
    const until = isDraining ? 0n : current.until > now + AVAILABLE_SECONDS / 2n ? current.until : now + AVAILABLE_SECONDS;
    const wanted = offerOf(device, engine, operatorId, { from: current.from, until });
    if (!offersEqual(current, wanted)) await sender.send({ contract: 'computeMarket', functionName: 'setOffer', args: [deviceId, wanted] });
  }
  return found;
}

function offerOf(device: LeasedDevice, engine: string, operatorId: bigint, { from, until }: { from: bigint; until: bigint }): Offer {
  const { interruptibleBps, stablePrice, nativePrice, collateral } = device;
  return {
    operatorId,
    from,
    until,
    interruptibleBps,
    deviceClass: classBytes(device.deviceClass),
    attributes: hashDocument(describeDevice(device, engine)),
    stablePrice,
    nativePrice,
    collateral,
  };
}

function offersEqual(
  one: {
    operatorId: bigint;
    from: bigint;
    until: bigint;
    interruptibleBps: number;
    deviceClass: Hex;
    attributes: Hex;
    stablePrice: bigint;
    nativePrice: bigint;
    collateral: bigint;
  },
  other: typeof one,
): boolean {
  return (Object.keys(one) as (keyof typeof one)[]).every((key) => one[key] === other[key]);
}

function readKept(path: string): Record<string, Kept> {
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Record<string, Kept>) : {};
}

function badDevice(reason: string): MillraceError {
  return new MillraceError('bad-device', {
    actor: 'caller',
    message: `The device cannot be offered: ${reason}, expected small letters, digits and hyphens, at most 31`,
    values: { reason },
    hint: 'Correct the node’s devices.',
  });
}
