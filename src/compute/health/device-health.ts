import { type PeerAddress, peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { type DeviceRank, readRanks, seatedDevices } from './device-rank.ts';
import { decodeFigure, type Reason, type Statement } from './figures.ts';
import type { HealthView, Occupant } from './health-view.ts';
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

/** A device's health as every screen shows it: from the chain's records alone. Its place comes from hours that are posted, whatever hours are shown. */
export interface DeviceHealth extends DeviceRank {
  deviceClass: string;
  seat: number;
  rate: number;
  memoryMbs: number;
  /** Sits on its seat now. */
  seated: boolean;
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
  const ranks = await readRanks(view);
  const devices = await Promise.all(
    [...seatedDevices(view, hour).values()].map((device) =>
      describe(view, device, { hour, hoursShown, rank: ranks.get(device.deviceId) as DeviceRank }),
    ),
  );
  const place = ({ rank }: DeviceHealth) => rank || Number.MAX_SAFE_INTEGER;
  devices.sort((one, other) => place(one) - place(other) || Number(one.deviceId - other.deviceId));
  const finalThrough = view.finalHours().at(-1)?.hour ?? 0;
  return { hour, startsAt: view.startOf(hour), hourSeconds: view.rule.hourSeconds, finalThrough, devices };
}

async function describe(
  view: HealthView,
  device: Occupant,
  { hour, hoursShown, rank }: { hour: number; hoursShown: number; rank: DeviceRank },
): Promise<DeviceHealth> {
  const { deviceId, seat, rate, memoryMbs, deviceClass } = device;
  const hours: DeviceHour[] = [];
  for (let at = hour - 1; at >= Math.max(1, hour - hoursShown); at -= 1) {
    const own = view.seatOfDevice(deviceId, at);
    if (own !== undefined) hours.push(await describeHour(view, own, at));
  }
  const seated = device.until === undefined || device.until > hour;
  const reason = seated ? rank.reason : (device.reason ?? 'left');
  return { ...rank, deviceClass, seat, rate, memoryMbs, seated, reason, hours };
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
