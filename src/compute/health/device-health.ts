import type { ChainClient } from '../../chain/index.ts';
import { type PeerAddress, peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { decodeFigure, type Reason, type Statement } from './figures.ts';
import type { HealthView, HourFigures, Occupant } from './health-view.ts';
import { HEALTH_PATH } from './partner-calls.ts';

/** One hour of a device, from what is on chain. */
export interface DeviceHour {
  hour: number;
  /** `final`: nobody can change it; `proposed`: its window runs; `reported`: from the reports alone, as anybody would compute it. */
  state: 'final' | 'proposed' | 'reported';
  performance: bigint;
  reason: Reason;
  /** What partners said, in the order of rounds; one that said nothing is left out. */
  statements: (Statement & { operatorId: bigint })[];
  /** Median of the heartbeats answered, of 10,000; of an even number the lower one. */
  upBps: number;
}

/** A device's health as every screen shows it: from the chain's records alone. */
export interface DeviceHealth {
  deviceId: bigint;
  operatorId: bigint;
  deviceClass: string;
  seat: number;
  rate: number;
  memoryMbs: number;
  /** Sits on its seat now. */
  seated: boolean;
  /** Why it earns nothing now, or left; `none` where it earns. */
  reason: Reason;
  /** Of its last hour that is known. */
  performance: bigint;
  /** Stability after its last claimed hour, of 10,000. */
  stabilityBps: number;
  /** Share of the kept final hours since it was seated in which it had performance, of 10,000. */
  recordBps: number;
  /** Mean of the heartbeats answered in those hours, of 10,000. */
  upBps: number;
  /** Active stake of its operator, own and backers'. */
  stake: bigint;
  score: bigint;
  /** 1 is best; devices of one score share a rank. 0: unranked, because it earns nothing. */
  rank: number;
  /** Newest first. */
  hours: DeviceHour[];
}

/** All devices at one moment. */
export interface HealthSnapshot {
  /** The hour that runs, and when it began. */
  hour: number;
  startsAt: bigint;
  hourSeconds: number;
  /** The last hour that is final; 0: none. */
  finalThrough: number;
  devices: DeviceHealth[];
}

const BPS = 10_000n;
/** Stake counts up to so many times the bond of a proposer: beyond that more money lifts no rank. */
const STAKE_BONDS_MAX = 10n;
const HOURS_SHOWN = 24;
const ASK_TIMEOUT_MS = 15_000;
const ANSWER_BYTES_MAX = 64 << 20;

/**
 * What the chain says of all devices' health, ranked. Node, gateway and command line call this one function, and it takes nothing from the machine that
 * it runs on, so two screens never differ at one block.
 * @param hoursShown how many hours of each device
 * @throws chain-unreachable
 */
export async function readDevices(view: HealthView, hoursShown = HOURS_SHOWN): Promise<HealthSnapshot> {
  await view.refresh();
  const hour = view.hourAt(await view.client.now());
  const final = view.finalHours();
  const latest = new Map<bigint, Occupant>();
  for (let seat = 0; seat < view.seatsAt(hour + 1); seat += 1) {
    for (const at of [hour, hour + 1]) {
      const one = view.occupantAt(seat, at);
      if (one !== undefined) latest.set(one.deviceId, one);
    }
  }
  const devices = await Promise.all([...latest.values()].map((device) => describe(view, device, { hour, final, hoursShown })));
  rank(devices);
  devices.sort(
    (one, other) =>
      (one.rank || Number.MAX_SAFE_INTEGER) - (other.rank || Number.MAX_SAFE_INTEGER) || Number(one.deviceId - other.deviceId),
  );
  const finalThrough = final.at(-1)?.hour ?? 0;
  return { hour, startsAt: view.startOf(hour), hourSeconds: view.rule.hourSeconds, finalThrough, devices };
}

/**
 * A device's place among the others: performance by stability by record, each point of which own and backers' stake lifts by up to the same
 * again. Integers only, so every screen ranks alike.
 */
export function scoreOf(of: { performance: bigint; stabilityBps: number; recordBps: number; stake: bigint; bond: bigint }): bigint {
  const most = of.bond * STAKE_BONDS_MAX;
  const stakeBps = most === 0n ? 0n : ((of.stake < most ? of.stake : most) * BPS) / most;
  return (of.performance * BigInt(of.stabilityBps) * BigInt(of.recordBps) * (BPS + stakeBps)) / (BPS * BPS * BPS);
}

async function describe(
  view: HealthView,
  device: Occupant,
  { hour, final, hoursShown }: { hour: number; final: readonly HourFigures[]; hoursShown: number },
): Promise<DeviceHealth> {
  const { client, rule } = view;
  const { deviceId, operatorId, seat, rate, memoryMbs, deviceClass } = device;
  const [stake, stabilityBps] = await Promise.all([readStake(client, operatorId), readStability(client, deviceId)]);
  const hours: DeviceHour[] = [];
  for (let at = hour - 1; at >= Math.max(1, hour - hoursShown); at -= 1) {
    const own = view.occupantAt(seat, at);
    if (own?.deviceId === deviceId) hours.push(await describeHour(view, own, at));
  }
  const served = final.filter((one) => view.occupantAt(seat, one.hour)?.deviceId === deviceId);
  const good = served.filter((one) => decodeFigure(one.figures, seat).performance > 0n).length;
  const recordBps = served.length === 0 ? 0 : Math.floor((10_000 * good) / served.length);
  const known = hours.find(({ state }) => state !== 'reported') ?? hours[0];
  const seated = device.until === undefined || device.until > hour;
  const performance = seated ? (known?.performance ?? 0n) : 0n;
  const measured = hours.filter(({ statements }) => statements.length > 0);
  return {
    deviceId,
    operatorId,
    deviceClass,
    seat,
    rate,
    memoryMbs,
    seated,
    reason: seated ? (known?.reason ?? 'too-few-statements') : (device.reason ?? 'left'),
    performance,
    stabilityBps,
    recordBps,
    upBps: measured.length === 0 ? 0 : Math.floor(measured.reduce((sum, { upBps }) => sum + upBps, 0) / measured.length),
    stake,
    score: scoreOf({ performance, stabilityBps, recordBps, stake, bond: rule.bond }),
    rank: 0,
    hours,
  };
}

async function describeHour(view: HealthView, device: Occupant, hour: number): Promise<DeviceHour> {
  const known = view.figuresOf(hour);
  const seed = await view.seedOf(hour);
  const pairs = seed === undefined ? [] : view.pairsOf(hour, device, seed);
  const statements = pairs.flatMap(({ said, partner }) => (said === undefined ? [] : [{ ...said, operatorId: partner.operatorId }]));
  const ups = statements.map(({ upBps }) => upBps).sort((one, other) => one - other);
  const upBps = ups[(ups.length - 1) >> 1] ?? 0;
  const state = known === undefined ? 'reported' : known.ordinal === undefined ? 'proposed' : 'final';
  const figure =
    known !== undefined
      ? decodeFigure(known.figures, device.seat)
      : seed === undefined
        ? { performance: 0n, reason: 'too-few-statements' as const }
        : view.compute(hour, device.seat, seed);
  return { hour, state, ...figure, statements, upBps };
}

function rank(devices: DeviceHealth[]): void {
  const scores = devices.map(({ score }) => score).sort((one, other) => (one > other ? -1 : 1));
  for (const device of devices) device.rank = device.score === 0n ? 0 : scores.indexOf(device.score) + 1;
}

async function readStake(client: ChainClient, operatorId: bigint): Promise<bigint> {
  const [[own], pool] = await Promise.all([
    client.read('stakeVault', 'ownStake', [operatorId]),
    client.read('stakeVault', 'pool', [operatorId]),
  ]);
  return own + pool.activeAssets;
}

async function readStability(client: ChainClient, deviceId: bigint): Promise<number> {
  const { streak } = await client.read('computeRewards', 'recordOf', [deviceId]);
  return client.read('computeRewards', 'stabilityBps', [BigInt(Math.max(1, streak))]);
}

/** A snapshot as JSON; chain integers as decimal strings. */
export function healthToJson(snapshot: HealthSnapshot): string {
  return JSON.stringify(snapshot, (_, value) => (typeof value === 'bigint' ? value.toString() : value));
}

/**
 * What a node answers of all devices' last hour, word for word.
 * @throws the errors of peerFetch, answer-too-long, partner-refused
 */
export async function readHealthAt(peer: PeerAddress): Promise<{ text: string }> {
  const response = await peerFetch(peer, HEALTH_PATH, { headersTimeoutMs: ASK_TIMEOUT_MS, idleTimeoutMs: ASK_TIMEOUT_MS });
  const text = (await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8');
  if (response.ok) return { text };
  throw new MillraceError('partner-refused', {
    actor: 'peer',
    message: `The node at ${peer.endpoint} refused to show health: ${response.status} ${text.slice(0, 200)}`,
    values: { endpoint: peer.endpoint, status: response.status },
  });
}
