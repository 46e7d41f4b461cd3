import type { LossModel } from './loss-probability.ts';

/** What is simulated: the model of the formula, and what the formula leaves out. */
export interface SimulatedWorld extends LossModel {
  hours: number;
  /** Repair takes exactly `repairHours` instead of an exponential time, and goes on once begun, as a claimed one does. */
  isRepairFixed?: boolean;
  /** Shards that one failure takes at once at the start, as when one operator pretends to be several; repaired shards go to others. */
  shardsPerOperator?: number;
  /** Regions that the shards are spread over evenly; repaired shards go to any of them. */
  regions?: number;
  /** How often a region loses all its shards at once. */
  regionFailuresPerHour?: number;
}

/** What became of many files. */
export interface SimulatedLosses {
  files: number;
  lost: number;
  repairs: number;
  /** Share of lost files, and the interval that holds the true probability with 99.9 % (Wilson score). */
  probability: number;
  low: number;
  high: number;
}

/** Files simulated one by one from a seed: the same seed gives the same history. Event by event, so years without events cost nothing. */
export function simulateLosses(world: SimulatedWorld, options: { files: number; seed: number }): SimulatedLosses {
  const random = randomFrom(options.seed);
  let lost = 0;
  let repairs = 0;
  for (let file = 0; file < options.files; file += 1) {
    const end = simulateFile(world, random);
    repairs += end.repairs;
    if (end.isLost) lost += 1;
  }
  return { files: options.files, lost, repairs, ...wilson(lost, options.files) };
}

/** Shards of one simulated file, by index: `repairedAt` is NaN while healthy, infinite while nobody repairs. */
interface Shards {
  operator: Int32Array;
  region: Int32Array;
  repairedAt: Float64Array;
}

function simulateFile(world: SimulatedWorld, random: () => number): { isLost: boolean; repairs: number } {
  const { k, n, repairBelow, failuresPerHour, repairHours, hours } = world;
  const { shardsPerOperator = 1, regions = 1, regionFailuresPerHour = 0, isRepairFixed = false } = world;
  const shards: Shards = {
    operator: Int32Array.from({ length: n }, (_, index) => Math.floor(index / shardsPerOperator)),
    region: Int32Array.from({ length: n }, (_, index) => index % regions),
    repairedAt: new Float64Array(n).fill(Number.NaN),
  };
  const { operator, region, repairedAt } = shards;
  let operators = n;
  let healthy = n;
  let repairs = 0;
  let now = 0;
  for (;;) {
    const holders = shardsPerOperator === 1 ? healthy : countHolders(shards);
    const rate = holders * failuresPerHour + regions * regionFailuresPerHour;
    const failureAt = now - Math.log(1 - random()) / rate;
    const next = healthy < n ? firstRepair(repairedAt) : -1;
    const repairAt = next < 0 ? Number.POSITIVE_INFINITY : (repairedAt[next] as number);
    now = Math.min(failureAt, repairAt);
    if (!(now < hours)) return { isLost: false, repairs };
    if (repairAt <= failureAt) {
      repairedAt[next] = Number.NaN;
      operator[next] = operators;
      region[next] = regions === 1 ? 0 : Math.floor(random() * regions);
      operators += 1;
      healthy += 1;
      repairs += 1;
    } else if (regionFailuresPerHour > 0 && random() * rate >= holders * failuresPerHour) {
      healthy -= loseAll(repairedAt, region, Math.floor(random() * regions));
    } else healthy -= loseAll(repairedAt, operator, holderAt(shards, Math.floor(random() * holders), shardsPerOperator === 1));
    if (healthy < k) return { isLost: true, repairs };
    for (let index = 0; index < n; index += 1) {
      const at = repairedAt[index] as number;
      if (Number.isNaN(at)) continue;
      if (healthy >= repairBelow) {
        if (!isRepairFixed) repairedAt[index] = Number.POSITIVE_INFINITY;
      } else if (at === Number.POSITIVE_INFINITY) {
        repairedAt[index] = now + (isRepairFixed ? repairHours : -Math.log(1 - random()) * repairHours);
      }
    }
  }
}

/** Index of the shard whose repair is done first, or -1. */
function firstRepair(repairedAt: Float64Array): number {
  let first = -1;
  let at = Number.POSITIVE_INFINITY;
  for (let index = 0; index < repairedAt.length; index += 1) {
    if ((repairedAt[index] as number) < at) {
      at = repairedAt[index] as number;
      first = index;
    }
  }
  return first;
}

/** Operators with at least one healthy shard. */
function countHolders({ operator, repairedAt }: Shards): number {
  return new Set(operator.filter((_, index) => Number.isNaN(repairedAt[index]))).size;
}

/** The operator that comes `turn`-th among those with a healthy shard. */
function holderAt({ operator, repairedAt }: Shards, turn: number, areAlone: boolean): number {
  let left = turn;
  for (let index = 0; index < operator.length; index += 1) {
    if (!Number.isNaN(repairedAt[index])) continue;
    const isFirst = areAlone || !operator.subarray(0, index).some((other, at) => other === operator[index] && Number.isNaN(repairedAt[at]));
    if (isFirst && left === 0) return operator[index] as number;
    if (isFirst) left -= 1;
  }
  return -1;
}

/** Loses all healthy shards whose place is the one that fails; gives how many. */
function loseAll(repairedAt: Float64Array, places: Int32Array, failing: number): number {
  let lost = 0;
  for (let index = 0; index < places.length; index += 1) {
    if (places[index] !== failing || !Number.isNaN(repairedAt[index])) continue;
    repairedAt[index] = Number.POSITIVE_INFINITY;
    lost += 1;
  }
  return lost;
}

/** The 99.9 % interval of a share by Wilson's score (1927). */
function wilson(hits: number, total: number): { probability: number; low: number; high: number } {
  const z = 3.2905;
  const share = hits / total;
  const middle = share + (z * z) / (2 * total);
  const spread = z * Math.sqrt((share * (1 - share)) / total + (z * z) / (4 * total * total));
  const scale = 1 + (z * z) / total;
  return { probability: share, low: hits === 0 ? 0 : (middle - spread) / scale, high: hits === total ? 1 : (middle + spread) / scale };
}

/** Uniform numbers in [0, 1) with 32 random bits: Chris Doty-Humphrey's small fast counter generator, sfc32. */
function randomFrom(seed: number): () => number {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88 | 0, 1];
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i += 1) next();
  return next;
}
