import type { EpochInput } from './epoch-input.ts';
import { normalise, ONE } from './fixed-point.ts';

/** Who is active, who may validate, and whose stake counts how much (Q32 shares). */
export interface StakeShares {
  active: boolean[];
  newPermits: boolean[];
  /** Uids whose weights count in this epoch, ascending. */
  validators: number[];
  /** Share of all counted stake, per uid. */
  stake: Float64Array;
  /** Share of the stake that is active in this epoch, per uid. */
  activeStake: Float64Array;
}

/** Steps 1 to 4 of decision 0019. */
export function shareStake(input: EpochInput): StakeShares {
  const { ownerUid, parameters, permits, unrevealed } = input;
  const counted = input.stakes.map((stake, uid) => (stake < parameters.stakeThreshold && uid !== ownerUid ? 0n : stake));
  const active = input.lastUpdate.map((time) => time + parameters.activityCutoff >= input.now);
  const stake = sharesOf(capStakes(counted, parameters.stakeCapPercentile));
  const inForce = permits.map((permit, uid) => permit || uid === ownerUid);
  return {
    active,
    newPermits: grantPermits(counted, ownerUid, parameters.maxValidators),
    validators: inForce.flatMap((permit, uid) => (permit ? [uid] : [])),
    stake,
    activeStake: normalise(stake.map((share, uid) => (inForce[uid] && active[uid] && !unrevealed[uid] ? share : 0))),
  };
}

function sharesOf(amounts: readonly bigint[]): Float64Array {
  const sum = amounts.reduce((total, amount) => total + amount, 0n);
  return Float64Array.from(amounts, (amount) => (sum === 0n ? 0 : Number((amount * BigInt(ONE)) / sum)));
}

/** The owner first, then the larger stake, then the lower uid. */
function grantPermits(counted: readonly bigint[], ownerUid: number | null, count: number): boolean[] {
  const shares = sharesOf(counted);
  const isOwner = (uid: number) => (uid === ownerUid ? 1 : 0);
  const order = [...counted.keys()]
    .filter((uid) => shares[uid] !== 0)
    .sort((a, b) => isOwner(b) - isOwner(a) || compareDown(counted[a] as bigint, counted[b] as bigint) || a - b);
  const holders = new Set(order.slice(0, count));
  return counted.map((_stake, uid) => holders.has(uid));
}

/** Nearest rank: of m stakes the one at place ⌈p·m / 100⌉ from below bounds all others. */
function capStakes(counted: readonly bigint[], percentile: number): readonly bigint[] {
  const ascending = counted.filter((stake) => stake > 0n).sort((a, b) => -compareDown(a, b));
  if (percentile === 0 || ascending.length === 0) return counted;
  const cap = ascending[Math.ceil((percentile * ascending.length) / 100) - 1] as bigint;
  return counted.map((stake) => (compareDown(stake, cap) < 0 ? cap : stake));
}

function compareDown(a: bigint, b: bigint): number {
  return a === b ? 0 : a > b ? -1 : 1;
}
