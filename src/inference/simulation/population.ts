import type { SeededRandom } from '../consensus/seeded-random.ts';

/** What a validator knows when it forms an opinion. */
export interface View {
  epoch: number;
  /** True quality of each miner now, 0 or more; only their ratios matter. */
  quality: readonly number[];
  /** Consensus of an earlier epoch as everybody could read it, per miner; zeros before the first. */
  consensusBefore(epochs: number): readonly number[];
  /** What those who do not copy submit in this epoch, averaged by stake: seen before the epoch only without commit and reveal. */
  submitted: readonly number[];
  random: SeededRandom;
}

/** Weights of one validator, one per miner, in any unit; undefined if its commit is never revealed, or reveals to garbage. */
export type Opinion = (view: View) => readonly number[] | undefined;

/** A validator of a simulated subnet. */
export interface SimulatedValidator {
  /** Whose earnings are added up together. */
  group: string;
  /** In any unit; only ratios matter. */
  stake: number;
  opinion: Opinion;
  /** True for those who wait for what others submit. */
  copies?: boolean;
}

/** A miner of a simulated subnet. */
export interface SimulatedMiner {
  group: string;
  /** Quality by epoch. */
  quality: (epoch: number) => number;
}

/** Judges miners by their true quality, each weight off by a normal error of `noise` times itself. */
export function honest(noise: number): Opinion {
  return ({ quality, random }) => quality.map((value) => noisy(value, noise, random));
}

/** Gives what consensus was `lag` epochs ago; with lag 0, what the others submit now. */
export function copier(lag: number): Opinion {
  return ({ submitted, consensusBefore }) => (lag === 0 ? submitted : consensusBefore(lag));
}

/** Puts the share `onOwn` of its weight on the miners of its group, whatever they are worth, and the rest on the others. */
export function favouring(onOwn: number, isOwn: (miner: number) => boolean, noise = 0): Opinion {
  return ({ quality, random }) => {
    const own = quality.map((_, miner) => (isOwn(miner) ? noisy(1, noise, random) : 0));
    const others = quality.map((value, miner) => (isOwn(miner) ? 0 : noisy(value, noise, random)));
    return mix(own, others, onOwn);
  };
}

/** Never reveals, or reveals what no row of weights is. */
export const silent: Opinion = () => undefined;

/** The first list in the share `part` of the whole, the second in the rest. */
export function mix(first: readonly number[], second: readonly number[], part: number): number[] {
  const scale = (values: readonly number[], share: number) => {
    const sum = values.reduce((total, value) => total + value, 0);
    return values.map((value) => (sum === 0 ? 0 : (value / sum) * share));
  };
  const rest = scale(second, 1 - part);
  return scale(first, part).map((value, index) => value + (rest[index] as number));
}

function noisy(value: number, noise: number, random: SeededRandom): number {
  return Math.max(0, value * (1 + noise * random.normal()));
}
