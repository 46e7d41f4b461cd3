import { bondSpeed } from './bond-speed.ts';
import type { EpochInput, SparseRow } from './epoch-input.ts';
import { div, fromU16, mul, mulUp, normalise, ONE, sumOf, toU16 } from './fixed-point.ts';
import type { Opinions } from './opinions.ts';
import type { StakeShares } from './stake-shares.ts';

/** Dividends per uid (Q32) and the rows of bonds that are kept, per uid. */
export interface Bonds {
  dividends: Float64Array;
  rows: SparseRow[];
}

/** Bonds after the epoch, in Q32, and their dividends before they are normalised, per validator's place. */
interface Growth {
  bonds: Float64Array;
  earned: Float64Array;
}

/** Steps 8 and 9 of decision 0019. */
export function growBonds(input: EpochInput, shares: StakeShares, opinions: Opinions): Bonds {
  const { validators } = shares;
  const n = input.stakes.length;
  const { bonds, earned } = input.parameters.mode === 'yuma2' ? growRelative(input, shares, opinions) : growPairs(input, shares, opinions);
  const dividends = new Float64Array(n);
  normalise(earned).forEach((share, place) => {
    dividends[validators[place] as number] = share;
  });
  const rows: SparseRow[] = Array.from({ length: n }, () => []);
  validators.forEach((validator, place) => {
    if (shares.newPermits[validator]) rows[validator] = storedRow(bonds.subarray(place * n, (place + 1) * n), input.parameters.bondRowCap);
  });
  return { dividends, rows };
}

/** Yuma 3: each pair's bond follows its weight at one speed, or at a speed of its own; stake counts in the dividends only. */
function growPairs(input: EpochInput, { validators, activeStake }: StakeShares, opinions: Opinions): Growth {
  const n = input.stakes.length;
  const weights = weightsForBonds(input, opinions);
  const bonds = loadBonds(input, validators).map(fromU16);
  const benchmark = input.parameters.mode === 'yuma3-liquid' ? benchmarkOf(input, opinions.consensus) : undefined;
  const speedOf = benchmark === undefined ? undefined : bondSpeed(input.parameters);
  const constant = constantSpeed(input);
  for (let at = 0; at < bonds.length; at++) {
    const weight = weights[at] as number;
    const bond = bonds[at] as number;
    if (weight === 0 && bond === 0) continue;
    const bought = Math.max(weight - (benchmark?.[at % n] ?? 0), 0);
    const speed = speedOf === undefined ? constant : speedOf(weight >= bond ? bought : bond - weight);
    bonds[at] = mul(speed, weight) + mul(ONE - speed, bond);
  }
  const totals = rowTotals(shareColumns(bonds, n), opinions.incentive);
  return { bonds, earned: totals.map((total, place) => mul(activeStake[validators[place] as number] as number, total)) };
}

/** Yuma 2: bonds are shares of a column and follow weight times stake; the largest of a column is kept as 65,535. */
function growRelative(input: EpochInput, { validators, activeStake }: StakeShares, opinions: Opinions): Growth {
  const n = input.stakes.length;
  const bonds = shareColumns(loadBonds(input, validators), n);
  const backed = weightsForBonds(input, opinions).map((weight, at) =>
    mul(weight, activeStake[validators[Math.floor(at / n)] as number] as number),
  );
  const bought = shareColumns(backed, n);
  const speed = constantSpeed(input);
  const grown = shareColumns(
    bonds.map((bond, at) => mul(speed, bought[at] as number) + mul(ONE - speed, bond)),
    n,
  );
  const greatest = new Float64Array(n);
  for (let at = 0; at < grown.length; at++) greatest[at % n] = Math.max(greatest[at % n] as number, grown[at] as number);
  return { bonds: grown.map((bond, at) => div(bond, greatest[at % n] as number)), earned: rowTotals(grown, opinions.incentive) };
}

/** Stored u16 bonds as a matrix, without those to miners that registered since the last epoch. */
function loadBonds({ bonds, registeredAt, lastEpochAt, stakes }: EpochInput, validators: readonly number[]): Float64Array {
  const matrix = new Float64Array(validators.length * stakes.length);
  validators.forEach((validator, place) => {
    for (const [uid, bond] of bonds[validator] ?? []) {
      if ((registeredAt[uid] as number) < lastEpochAt) matrix[place * stakes.length + uid] = bond;
    }
  });
  return matrix;
}

function weightsForBonds({ parameters }: EpochInput, { weights, clipped }: Opinions): Float64Array {
  const penalty = fromU16(parameters.bondsPenalty);
  if (penalty === 0) return weights;
  return weights.map((weight, at) => weight - mulUp(penalty, weight - (clipped[at] as number)));
}

/** What a weight must exceed to be early, per uid; undefined if it is 0 everywhere, as in the first epoch. */
function benchmarkOf(input: EpochInput, consensus: Float64Array): Float64Array | undefined {
  const { consensusMode, bondsPenalty } = input.parameters;
  const usesPrevious = consensusMode === 'previous' || (consensusMode === 'auto' && bondsPenalty === 65_535);
  const benchmark = usesPrevious
    ? Float64Array.from(input.previousConsensus, (value, uid) =>
        (input.registeredAt[uid] as number) < input.lastEpochAt ? fromU16(value) : 0,
      )
    : consensus;
  return sumOf(benchmark) === 0 ? undefined : benchmark;
}

function constantSpeed({ parameters }: EpochInput): number {
  return ONE - Math.floor((parameters.bondsMovingAverage * ONE) / 1_000_000);
}

/** Each value's share of its column. */
function shareColumns(matrix: Float64Array, n: number): Float64Array {
  const sums = new Float64Array(n);
  for (let at = 0; at < matrix.length; at++) sums[at % n] = (sums[at % n] as number) + (matrix[at] as number);
  return matrix.map((value, at) => (value === 0 ? 0 : div(value, sums[at % n] as number)));
}

function rowTotals(matrix: Float64Array, incentive: Float64Array): Float64Array {
  const n = incentive.length;
  const totals = new Float64Array(n === 0 ? 0 : matrix.length / n);
  for (let at = 0; at < matrix.length; at++) {
    const place = Math.floor(at / n);
    if (matrix[at] !== 0) totals[place] = (totals[place] as number) + mul(matrix[at] as number, incentive[at % n] as number);
  }
  return totals;
}

/** The row as it is stored: u16, without zeros, and of more than `cap` the largest, ties to the lower uid. */
function storedRow(bonds: Float64Array, cap: number): SparseRow {
  const row: [number, number][] = [];
  bonds.forEach((bond, uid) => {
    const value = toU16(bond);
    if (value > 0) row.push([uid, value]);
  });
  if (cap === 0 || row.length <= cap) return row;
  const kept = row.sort(([uidA, a], [uidB, b]) => b - a || uidA - uidB).slice(0, cap);
  return kept.sort(([a], [b]) => a - b);
}
