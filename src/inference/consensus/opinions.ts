import type { EpochInput } from './epoch-input.ts';
import { div, fromU16, mul, normalise, sumOf } from './fixed-point.ts';
import type { StakeShares } from './stake-shares.ts';

/** What the validators' weights come to, in Q32. Matrices are row-major: validator (its place among the validators) times uid. */
export interface Opinions {
  /** Each row normalised after the masks. */
  weights: Float64Array;
  /** Weights cut to consensus. */
  clipped: Float64Array;
  consensus: Float64Array;
  /** Per validator (its place). */
  trust: Float64Array;
  rank: Float64Array;
  incentive: Float64Array;
}

/** Steps 5 to 7 of decision 0019. */
export function weighOpinions(input: EpochInput, { validators, activeStake }: StakeShares): Opinions {
  const n = input.stakes.length;
  const weights = maskWeights(input, validators);
  const stake = Float64Array.from(validators, (uid) => activeStake[uid] as number);
  const consensus = new Float64Array(n);
  const minority = sumOf(stake) - fromU16(input.parameters.kappa);
  if (minority > 0) for (let uid = 0; uid < n; uid++) consensus[uid] = medianOf(weights, { uid, n, stake, minority });
  const clipped = new Float64Array(weights.length);
  const trust = new Float64Array(validators.length);
  const rank = new Float64Array(n);
  for (let place = 0; place < validators.length; place++) {
    const share = stake[place] as number;
    for (let uid = 0; uid < n; uid++) {
      const value = Math.min(weights[place * n + uid] as number, consensus[uid] as number);
      if (value === 0) continue;
      clipped[place * n + uid] = value;
      trust[place] = (trust[place] as number) + value;
      rank[uid] = (rank[uid] as number) + mul(share, value);
    }
  }
  return { weights, clipped, consensus, trust, rank, incentive: normalise(rank) };
}

/** Weights on oneself and weights older than the miner are dropped, the rest of each row is normalised. */
function maskWeights(input: EpochInput, validators: readonly number[]): Float64Array {
  const n = input.stakes.length;
  const weights = new Float64Array(validators.length * n);
  validators.forEach((validator, place) => {
    const committedAt = input.committedAt[validator] as number;
    const lastUpdate = input.lastUpdate[validator] as number;
    const judgedAt = committedAt === 0 ? lastUpdate : Math.min(lastUpdate, committedAt);
    const kept = (input.weights[validator] ?? []).filter(
      ([uid]) => (uid !== validator || uid === input.ownerUid) && judgedAt > (input.registeredAt[uid] as number),
    );
    const sum = kept.reduce((total, [, weight]) => total + weight, 0);
    for (const [uid, weight] of kept) weights[place * n + uid] = div(weight, sum);
  });
  return weights;
}

/** The least weight v of a column such that the stake behind weights of at most v exceeds `minority`. */
function medianOf(
  weights: Float64Array,
  { uid, n, stake, minority }: { uid: number; n: number; stake: Float64Array; minority: number },
): number {
  const places: number[] = [];
  let below = 0;
  for (let place = 0; place < stake.length; place++) {
    if (stake[place] === 0) continue;
    if (weights[place * n + uid] === 0) below += stake[place] as number;
    else places.push(place);
  }
  if (below > minority) return 0;
  const weightOf = (place: number) => weights[place * n + uid] as number;
  places.sort((a, b) => weightOf(a) - weightOf(b));
  const median = places.find((place) => {
    below += stake[place] as number;
    return below > minority;
  });
  return median === undefined ? 0 : weightOf(median);
}
