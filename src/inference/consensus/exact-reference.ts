/**
 * A third reckoning of an epoch, for tests: the rule of decision 0019 in exact fractions of any size, written from the formulas and
 * without a line of the integer code. It rounds nowhere; only the sigmoid, which no fraction is, is taken to 2^-60.
 */
import type { EpochInput } from './epoch-input.ts';

/** A fraction; the denominator is positive. */
export interface Fraction {
  readonly top: bigint;
  readonly bottom: bigint;
}

const ZERO: Fraction = { top: 0n, bottom: 1n };
const UNIT: Fraction = { top: 1n, bottom: 1n };

function fraction(top: bigint, bottom: bigint): Fraction {
  let a = top < 0n ? -top : top;
  let b = bottom;
  while (b > 0n) [a, b] = [b, a % b];
  return a === 0n ? ZERO : { top: top / a, bottom: bottom / a };
}
const of = (value: number | bigint, bottom: number | bigint = 1) => fraction(BigInt(value), BigInt(bottom));
const add = (a: Fraction, b: Fraction) => fraction(a.top * b.bottom + b.top * a.bottom, a.bottom * b.bottom);
const minus = (a: Fraction, b: Fraction) => add(a, { top: -b.top, bottom: b.bottom });
const times = (a: Fraction, b: Fraction) => fraction(a.top * b.top, a.bottom * b.bottom);
const over = (a: Fraction, b: Fraction) => (b.top === 0n ? ZERO : fraction(a.top * b.bottom, a.bottom * b.top));
const compare = (a: Fraction, b: Fraction) => Number(a.top * b.bottom > b.top * a.bottom) - Number(a.top * b.bottom < b.top * a.bottom);
const least = (a: Fraction, b: Fraction) => (compare(a, b) < 0 ? a : b);
const total = (values: readonly Fraction[]) => values.reduce(add, ZERO);
const shares = (values: readonly Fraction[]) => {
  const sum = total(values);
  return values.map((value) => over(value, sum));
};
const columns = (matrix: readonly Fraction[][]) => {
  const sums = (matrix[0] ?? []).map((_, uid) => total(matrix.map((row) => row[uid] as Fraction)));
  return matrix.map((row) => row.map((value, uid) => over(value, sums[uid] as Fraction)));
};

/** The nearest double. */
export function toNumber({ top, bottom }: Fraction): number {
  return Number((top << 80n) / bottom) / 2 ** 80;
}

/** What an epoch comes to without rounding, and how far rounding may lead from it. */
export interface ExactEpoch {
  consensus: Fraction[];
  incentive: Fraction[];
  dividends: Fraction[];
  /** Bonds of each uid, before the cap; of Yuma 2 in parts of the column's greatest. */
  bonds: Fraction[][];
  /** Bound for every incentive; infinite where nothing is ranked. */
  incentiveBound: number;
  /** Bound for every dividend; infinite where nothing is earned. */
  dividendBound: number;
  /** Bound for bonds to each uid. */
  bondBounds: number[];
  /** The least distance of a sum of stake from the median's threshold. */
  margin: number;
  /** How far rounding may move such a sum: within it the median may be another weight. */
  stakeBound: number;
}

/** The epoch of an input in exact fractions. */
export function exactEpoch(input: EpochInput): ExactEpoch {
  const { parameters } = input;
  const uids = [...input.stakes.keys()];
  const { active, inForce, activePart } = activeShares(input);
  const weights = uids.map((uid) => (inForce[uid] ? keptWeights(input, uid) : uids.map(() => ZERO)));
  const threshold = minus(total(active), of(parameters.kappa, 65_535));
  const medians = uids.map((uid) =>
    median(
      weights.map((row) => row[uid] as Fraction),
      active,
      threshold,
    ),
  );
  const consensus = medians.map(({ value }) => value);
  const clipped = weights.map((row) => row.map((weight, uid) => least(weight, consensus[uid] as Fraction)));
  const rank = uids.map((uid) =>
    total(uids.map((validator) => times(active[validator] as Fraction, clipped[validator]?.[uid] as Fraction))),
  );
  const incentive = shares(rank);
  const penalty = of(parameters.bondsPenalty, 65_535);
  const bought = weights.map((row, validator) =>
    row.map((weight, uid) => minus(weight, times(penalty, minus(weight, clipped[validator]?.[uid] as Fraction)))),
  );
  // Active stake is normalised from shares of 32 bits, of which few are left where little of all stake is active.
  const ulps = (uids.length + 4) * 2 ** -31 * (1 + 1 / activePart);
  const { bonds, earned, loss } =
    parameters.mode === 'yuma2'
      ? relativeBonds(input, { bought, active, inForce, ulps })
      : pairBonds(input, { bought, active, inForce, consensus, ulps });
  const paid = earned.map((row) => total(row.map((share, uid) => times(share, incentive[uid] as Fraction))));
  const backed = parameters.mode === 'yuma2' ? paid : paid.map((value, uid) => times(value, active[uid] as Fraction));
  const rankSum = toNumber(total(rank));
  const incentiveBound = rankSum === 0 ? Number.POSITIVE_INFINITY : (4 * uids.length * ulps) / rankSum;
  const backedSum = toNumber(total(backed));
  const lost = uids.reduce((sum, uid) => sum + (loss[uid] as number) * (toNumber(incentive[uid] as Fraction) + incentiveBound), 0);
  return {
    consensus,
    incentive,
    dividends: shares(backed),
    bonds,
    incentiveBound,
    dividendBound:
      backedSum === 0 ? Number.POSITIVE_INFINITY : (2 * uids.length * (lost + uids.length * (incentiveBound + ulps))) / backedSum,
    bondBounds:
      parameters.mode === 'yuma2' ? loss.map((bound) => bound * 4 * uids.length) : uids.map(() => 16 * ulps + speedBound(parameters)),
    stakeBound: uids.length * ulps,
    margin: Math.min(1, ...medians.map(({ margin }) => margin)),
  };
}

function activeShares(input: EpochInput): { active: Fraction[]; inForce: boolean[]; activePart: number } {
  const { parameters, ownerUid } = input;
  const counted = input.stakes.map((stake, uid) => (uid === ownerUid || stake >= parameters.stakeThreshold ? stake : 0n));
  const ascending = counted.filter((stake) => stake > 0n).sort((a, b) => (a < b ? -1 : 1));
  const place = Math.ceil((parameters.stakeCapPercentile * ascending.length) / 100);
  const cap = parameters.stakeCapPercentile === 0 ? undefined : ascending[place - 1];
  const inForce = input.permits.map((permit, uid) => permit || uid === ownerUid);
  const capped = counted.map((stake) => of(cap !== undefined && stake > cap ? cap : stake));
  const votes = capped.map((stake, uid) => {
    const isActive = (input.lastUpdate[uid] as number) + parameters.activityCutoff >= input.now && !input.unrevealed[uid];
    return isActive && inForce[uid] ? stake : ZERO;
  });
  return { active: shares(votes), inForce, activePart: total(votes).top === 0n ? 1 : toNumber(over(total(votes), total(capped))) };
}

function keptWeights(input: EpochInput, validator: number): Fraction[] {
  const times = [input.lastUpdate[validator] as number, input.committedAt[validator] || Number.POSITIVE_INFINITY];
  const given = new Map(input.weights[validator]);
  return shares(
    input.stakes.map((_, uid) => {
      const isOld = Math.min(...times) <= (input.registeredAt[uid] as number);
      return isOld || (uid === validator && uid !== input.ownerUid) ? ZERO : of(given.get(uid) ?? 0);
    }),
  );
}

function median(column: readonly Fraction[], stake: readonly Fraction[], threshold: Fraction): { value: Fraction; margin: number } {
  if (total(stake).top === 0n) return { value: ZERO, margin: 1 };
  const candidates = column.filter((_, uid) => (stake[uid] as Fraction).top > 0n).sort(compare);
  const below = (limit: Fraction) => total(stake.filter((_, uid) => compare(column[uid] as Fraction, limit) <= 0));
  const distances = candidates.map((limit) => Math.abs(toNumber(minus(below(limit), threshold))));
  const value = candidates.find((limit) => compare(below(limit), threshold) > 0) ?? ZERO;
  return { value, margin: Math.min(...distances) };
}

interface BondInput {
  bought: Fraction[][];
  active: Fraction[];
  inForce: boolean[];
  /** Error of a share of active stake. */
  ulps: number;
}

function storedBonds(input: EpochInput, inForce: readonly boolean[]): Fraction[][] {
  return input.bonds.map((row, validator) => {
    const given = new Map(row);
    return input.stakes.map((_, uid) =>
      inForce[validator] && (input.registeredAt[uid] as number) < input.lastEpochAt ? of(given.get(uid) ?? 0, 65_535) : ZERO,
    );
  });
}

function relativeBonds(input: EpochInput, { bought, active, inForce, ulps }: BondInput) {
  const old = columns(storedBonds(input, inForce));
  const stakedRows = bought.map((row, validator) => row.map((weight) => times(weight, active[validator] as Fraction)));
  const fresh = columns(stakedRows);
  const speed = minus(UNIT, of(input.parameters.bondsMovingAverage, 1_000_000));
  const mixed = old.map((row, validator) =>
    row.map((bond, uid) => add(times(speed, fresh[validator]?.[uid] as Fraction), times(minus(UNIT, speed), bond))),
  );
  const grown = columns(mixed);
  const greatest = input.stakes.map((_, uid) =>
    grown.reduce((top, row) => (compare(row[uid] as Fraction, top) > 0 ? (row[uid] as Fraction) : top), ZERO),
  );
  const loss = input.stakes.map((_, uid) => {
    const backing = total(stakedRows.map((row) => row[uid] as Fraction));
    const mass = toNumber(total(mixed.map((row) => row[uid] as Fraction)));
    return mass === 0 ? 0 : (4 * ulps * (1 + (backing.top === 0n ? 0 : 1 / toNumber(backing)))) / mass;
  });
  return { bonds: grown.map((row) => row.map((bond, uid) => over(bond, greatest[uid] as Fraction))), earned: grown, loss };
}

function pairBonds(input: EpochInput, { bought, inForce, consensus }: BondInput & { consensus: Fraction[] }) {
  const { parameters } = input;
  const old = storedBonds(input, inForce);
  const usesPrevious =
    parameters.consensusMode === 'previous' || (parameters.consensusMode === 'auto' && parameters.bondsPenalty === 65_535);
  const benchmark = usesPrevious
    ? input.previousConsensus.map((value, uid) => ((input.registeredAt[uid] as number) < input.lastEpochAt ? of(value, 65_535) : ZERO))
    : consensus;
  const isLiquid = parameters.mode === 'yuma3-liquid' && benchmark.some(({ top }) => top > 0n);
  const grown = old.map((row, validator) =>
    row.map((bond, uid) => {
      const weight = bought[validator]?.[uid] as Fraction;
      if (weight.top === 0n && bond.top === 0n) return ZERO;
      const early = minus(weight, benchmark[uid] as Fraction);
      const difference = compare(weight, bond) >= 0 ? (early.top > 0n ? early : ZERO) : minus(bond, weight);
      const speed = isLiquid ? exactSpeed(input, difference) : minus(UNIT, of(parameters.bondsMovingAverage, 1_000_000));
      return add(times(speed, weight), times(minus(UNIT, speed), bond));
    }),
  );
  const error = (input.stakes.length + 4) * 2 ** -31 + (isLiquid ? speedBound(parameters) : 0);
  const loss = input.stakes.map((_, uid) => {
    const mass = toNumber(total(grown.map((row) => row[uid] as Fraction)));
    return mass === 0 ? 0 : (2 * error * input.stakes.length) / mass;
  });
  return { bonds: grown, earned: columns(grown), loss };
}

/** The bound that decision 0019 states for the table of the sigmoid, in parts of its range. */
function speedBound({ alphaSteepness, alphaLow, alphaHigh }: EpochInput['parameters']): number {
  return ((alphaSteepness / 100) ** 2 / 1_360_000 + 2 ** -30) * ((alphaHigh - alphaLow) / 65_535) + 2 ** -31;
}

function exactSpeed({ parameters }: EpochInput, difference: Fraction): Fraction {
  const low = of(parameters.alphaLow, 65_535);
  const range = minus(of(parameters.alphaHigh, 65_535), low);
  return add(low, times(range, exactSigmoid(parameters.alphaSteepness, difference)));
}

/** 1 / (1 + e^(−k(d − 1/2))) to 2^-60, by the exponential's series of an argument halved eight times. */
export function exactSigmoid(steepness: number, difference: Fraction): Fraction {
  const scale = 1n << 200n;
  const exponent = times(of(steepness, 100), minus(of(1, 2), difference));
  const small = (exponent.top * scale) / (exponent.bottom * 256n);
  let sum = scale;
  for (let term = 40n; term > 0n; term--) sum = scale + (small * sum) / (scale * term);
  for (let doubling = 0; doubling < 8; doubling++) sum = (sum * sum) / scale;
  // Shortened, so that the fractions that are made of it stay small.
  return of((scale << 64n) / (scale + sum), 1n << 64n);
}
