import type { RelayPeer } from './tunnel.ts';

/** What a node remembers of a relay; times are Unix milliseconds. */
export interface RelayRecord {
  faults: number;
  faultAt: number;
  reason: string;
  /** Not used again before. */
  avoidUntil: number;
  /** Time of a probe through it, smoothed; undefined before the first. */
  latencyMs: number | undefined;
}

/** A relay of which nothing is known. */
export const NEW_RELAY: RelayRecord = { faults: 0, faultAt: 0, reason: '', avoidUntil: 0, latencyMs: undefined };

const AVOID_FIRST_MS = 5000;
const AVOID_LAST_MS = 3_600_000;
/** For what cannot happen by accident. */
const AVOID_DISHONEST_MS = 30 * 86_400_000;
const DISHONEST: ReadonlySet<string> = new Set(['peer-key-mismatch', 'relay-overcharges']);
const FAULT_HALF_LIFE_MS = 86_400_000;
const LATENCY_WEIGHT = 0.3;
const LATENCY_UNKNOWN_MS = 100;
/** Another relay must be this much faster before a node moves: every move is a transaction. */
const MUCH_FASTER = 3;
const FASTER_BY_MS = 100;

/**
 * The record after a fault: avoided for 5 s, twice as long after each further fault up to an hour, give or take a quarter so that the nodes
 * of a relay that died do not all come back at once. Another's key or a lie about bytes is no accident: avoided for 30 days.
 * @param random a number in [0, 1)
 */
export function afterFault(record: RelayRecord, fault: { reason: string; now: number; random: number }): RelayRecord {
  const faults = faultsNow(record, fault.now) + 1;
  const restMs = DISHONEST.has(fault.reason)
    ? AVOID_DISHONEST_MS
    : Math.min(AVOID_LAST_MS, AVOID_FIRST_MS * 2 ** Math.min(20, faults - 1)) * (0.75 + fault.random / 2);
  return { ...record, faults, faultAt: fault.now, reason: fault.reason, avoidUntil: fault.now + Math.round(restMs) };
}

/** The record after a probe that came back. */
export function afterProbe(record: RelayRecord, latencyMs: number): RelayRecord {
  const before = record.latencyMs ?? latencyMs;
  return { ...record, latencyMs: before + LATENCY_WEIGHT * (latencyMs - before) };
}

/**
 * The relays that a node may use now, best first: in the order of price, then of latency times one plus the faults, of which half is
 * forgiven each day. A relay that is full, too dear or avoided is left out.
 */
export function rankRelays(
  relays: readonly RelayPeer[],
  known: { records: ReadonlyMap<bigint, RelayRecord>; now: number; pricePerGibMax: bigint },
): RelayPeer[] {
  const cost = ({ operatorId }: RelayPeer) => {
    const record = known.records.get(operatorId) ?? NEW_RELAY;
    return (record.latencyMs ?? LATENCY_UNKNOWN_MS) * (1 + faultsNow(record, known.now));
  };
  return relays
    .filter(
      ({ operatorId, announcement }) =>
        announcement.tunnelsFree > 0 &&
        announcement.pricePerGib <= known.pricePerGibMax &&
        (known.records.get(operatorId) ?? NEW_RELAY).avoidUntil <= known.now,
    )
    .sort((left, right) => {
      const price = left.announcement.pricePerGib - right.announcement.pricePerGib;
      return price !== 0n ? (price < 0n ? -1 : 1) : cost(left) - cost(right);
    });
}

/** Which of a node's tunnels its endpoint should name: the present one as long as it lives and no other is much faster. */
export function choosePublished<Known extends { endpoint: string; latencyMs: number | undefined }>(
  tunnels: readonly Known[],
  published: string,
): Known | undefined {
  const present = tunnels.find(({ endpoint }) => endpoint === published);
  const byLatency = [...tunnels].sort((left, right) => (left.latencyMs ?? Number.MAX_VALUE) - (right.latencyMs ?? Number.MAX_VALUE));
  const best = byLatency[0];
  if (present?.latencyMs === undefined || best?.latencyMs === undefined) return present ?? best;
  return best.latencyMs * MUCH_FASTER + FASTER_BY_MS < present.latencyMs ? best : present;
}

function faultsNow({ faults, faultAt }: RelayRecord, now: number): number {
  return faults * 0.5 ** (Math.max(0, now - faultAt) / FAULT_HALF_LIFE_MS);
}
