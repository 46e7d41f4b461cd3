import { WHOLE } from './text-distance.ts';

const U16 = 65_535n;
const UID_MAX = 255;

/**
 * Scores in parts of 65,535 of the greatest, rounded down, so that a share too small for a part is none at all and nobody gains by rounding;
 * the board's rows take them as they are (`weighScores`). Empty where nobody has a score: then nothing is committed.
 */
export function weightsDown(scores: ReadonlyMap<number, bigint>): Map<number, number> {
  const entries = [...scores].filter(([uid, score]) => score > 0n && Number.isInteger(uid) && uid >= 0 && uid <= UID_MAX);
  let greatest = 0n;
  for (const [, score] of entries) if (score > greatest) greatest = score;
  const weights = entries.map(([uid, score]) => [uid, Number((score * U16) / greatest)] as const);
  return new Map(weights.filter(([, weight]) => weight > 0).sort(([one], [other]) => one - other));
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
    const old = before.get(uid) ?? 0n;
    smoothed.set(uid, options.reset.has(uid) ? fresh : (old * (whole - speed) + fresh * speed) / whole);
  }
  return smoothed;
}
