import type { DeviceView } from './device-view.ts';

/** Shares of the score, in thousandths of it; together 1000. */
export const WEIGHTS = { price: 400, rank: 250, uptime: 200, locality: 100, fairness: 50 } as const;
/** Each part of a score goes from 0 to this, so a score goes from 0 to 1,000,000. */
export const PART_MAX = 1000;

/** The parts of a score, each from 0 to 1000. */
export interface ScoreParts {
  /** m / (m + price), m being the median of the class in this token: half of it at the median, whatever the renter could pay. */
  price: number;
  rank: number;
  uptime: number;
  /** Share of the input's bytes that the operator stores. */
  locality: number;
  /** 1 / (1 + recent reservations a device), so that the best do not get everything. */
  fairness: number;
}

/** A device and its place in the order of one class and token. */
export interface Ranked {
  device: DeviceView;
  /** The score without locality, the only part that depends on the work. */
  standing: number;
  parts: ScoreParts;
}

/** Devices in the order of their standing, by class and token, made once for many choices. */
export interface DeviceIndex {
  size: number;
  classes: ReadonlyMap<string, Readonly<Record<'stable' | 'native', readonly Ranked[]>>>;
  byOperator: ReadonlyMap<bigint, readonly DeviceView[]>;
  /** What a device scores for a token without locality. */
  rankOf(device: DeviceView, token: 'stable' | 'native'): Ranked;
}

/** The sum of the parts by their weights, a whole number from 0 to 1,000,000. */
export function scoreOf(parts: ScoreParts): number {
  return (Object.keys(WEIGHTS) as (keyof ScoreParts)[]).reduce((sum, part) => sum + WEIGHTS[part] * parts[part], 0);
}

/** Puts devices in order. Costs a sort of all of them; a choice afterwards looks at few. */
export function createDeviceIndex(devices: readonly DeviceView[]): DeviceIndex {
  const byClass = groupBy(devices, (device) => device.deviceClass);
  const medians = new Map(
    [...byClass].map(([name, members]) => [name, { stable: medianPrice(members, 'stable'), native: medianPrice(members, 'native') }]),
  );
  const rankOf = (device: DeviceView, token: 'stable' | 'native'): Ranked => {
    const parts = standingParts(device, token, medians.get(device.deviceClass)?.[token] ?? 0n);
    return { device, parts, standing: scoreOf(parts) };
  };
  const order = (members: readonly DeviceView[], token: 'stable' | 'native') =>
    members
      .filter((device) => device.prices[token] > 0n)
      .map((device) => rankOf(device, token))
      .sort(bestFirst);
  const classes = new Map(
    [...byClass].map(([name, members]) => [name, { stable: order(members, 'stable'), native: order(members, 'native') }]),
  );
  return { size: devices.length, classes, byOperator: groupBy(devices, (device) => device.operatorId), rankOf };
}

/** The higher score first; of two equal ones the lower number, so that everybody who looks finds the same order. */
export function bestFirst(one: Ranked, other: Ranked): number {
  return other.standing - one.standing || (one.device.deviceId < other.device.deviceId ? -1 : 1);
}

function standingParts(device: DeviceView, token: 'stable' | 'native', median: bigint): ScoreParts {
  const price = device.prices[token];
  const whole = BigInt(PART_MAX);
  return {
    price: price === 0n || median === 0n ? 0 : Number((whole * median) / (median + price)),
    rank: part(device.rank),
    uptime: part(device.uptime),
    locality: 0,
    fairness: Math.floor(PART_MAX / (1 + Math.max(0, device.recentGrants))),
  };
}

function part(value: number): number {
  return Math.min(PART_MAX, Math.max(0, Math.floor(value)));
}

function medianPrice(devices: readonly DeviceView[], token: 'stable' | 'native'): bigint {
  const prices = devices.map((device) => device.prices[token]).filter((price) => price > 0n);
  prices.sort((one, other) => (one < other ? -1 : one > other ? 1 : 0));
  return prices[Math.floor(prices.length / 2)] ?? 0n;
}

function groupBy<Key>(devices: readonly DeviceView[], keyOf: (device: DeviceView) => Key): Map<Key, DeviceView[]> {
  const groups = new Map<Key, DeviceView[]>();
  for (const device of devices) {
    const group = groups.get(keyOf(device));
    if (group === undefined) groups.set(keyOf(device), [device]);
    else group.push(device);
  }
  return groups;
}
