import type { SparseRow } from '../consensus/epoch-input.ts';
import { WHOLE } from './text-distance.ts';

/** Entries of a row (contract `WeightsBoard`). */
export const ROW_ENTRIES_MAX = 64;
const U16 = 65_535n;
const UID_MAX = 255;

/**
 * Scores as a row of weights: the greatest becomes 65,535, the others are rounded down in proportion, the 64 largest are kept (of equal ones
 * the lower uid), uids ascend, and what comes to 0 is left out. Empty where nobody has a score: then nothing is committed.
 */
export function weightsOf(scores: ReadonlyMap<number, bigint>): SparseRow {
  const entries = [...scores].filter(([uid, score]) => score > 0n && Number.isInteger(uid) && uid >= 0 && uid <= UID_MAX);
  entries.sort(([one, a], [other, b]) => (a === b ? one - other : a > b ? -1 : 1));
  const greatest = entries[0]?.[1] ?? 0n;
  return entries
    .slice(0, ROW_ENTRIES_MAX)
    .map(([uid, score]) => [uid, Number((score * U16) / greatest)] as const)
    .filter(([, weight]) => weight > 0)
    .sort(([one], [other]) => one - other);
}

/** A row as the board takes it: `uid:u16 weight:u16`, big-endian. */
export function encodeWeights(row: SparseRow): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * row.length));
  row.forEach(([uid, weight], index) => {
    view.setUint16(4 * index, uid);
    view.setUint16(4 * index + 2, weight);
  });
  return new Uint8Array(view.buffer);
}

/**
 * Moves scores towards what this epoch says, by a share in millionths. Who is `reset` (caught cheating) starts at what this epoch says, and who is
 * gone is forgotten. The sum of what somebody gets over time is never more than the sum of what the epochs said: it only comes later.
 */
export function smoothScores(
  before: ReadonlyMap<number, bigint>,
  now: ReadonlyMap<number, bigint>,
  options: { speed: number; reset: ReadonlySet<number> },
): Map<number, bigint> {
  const speed = BigInt(Math.max(1, Math.min(WHOLE, options.speed)));
  const whole = BigInt(WHOLE);
  const smoothed = new Map<number, bigint>();
  for (const [uid, fresh] of now) {
    const old = options.reset.has(uid) ? 0n : (before.get(uid) ?? 0n);
    smoothed.set(uid, options.reset.has(uid) ? fresh : (old * (whole - speed) + fresh * speed) / whole);
  }
  return smoothed;
}
