import type { EpochParameters } from '../consensus/epoch-input.ts';
import { badPopulation, type PopulationGroups, populate } from './population-groups.ts';
import { type GroupEarnings, simulateSubnet } from './simulate-subnet.ts';

/** How long a population runs, by which rules, from which seed. */
export interface SimulationRun {
  epochs: number;
  seed: number;
  parameters: Partial<EpochParameters>;
}

/** A population by numbers. Stakes are shares of all stake; what no other group has is the honest validators’. */
export interface PopulationOptions {
  honestValidators: number;
  /** Deviation of honest weights, in parts of each. */
  noise: number;
  honestMiners: number;
  /** Every so many epochs each honest miner's quality is drawn anew; 0: all are alike for ever. */
  churn: number;
  /** Miners of `cheatQuality` (an honest one has 1, or on average a third where qualities are drawn). */
  cheats: number;
  cheatQuality: number;
  copierStake: number;
  copyLag: number;
  cabalStake: number;
  cabalValidators: number;
  /** Miners of the cabal, worth nothing. */
  cabalMiners: number;
  /** Share of the cabal's weight on its own miners. */
  cabalWeight: number;
  /** Stake of validators that never reveal. */
  silentStake: number;
}

/** A small honest subnet, to which options add others. */
export const DEFAULT_POPULATION: PopulationOptions = {
  honestValidators: 8,
  noise: 0.1,
  honestMiners: 20,
  churn: 10,
  cheats: 0,
  cheatQuality: 0.05,
  copierStake: 0,
  copyLag: 1,
  cabalStake: 0,
  cabalValidators: 4,
  cabalMiners: 4,
  cabalWeight: 1,
  silentStake: 0,
};

const EPOCHS_MAX = 10_000;

/** The groups of a population that is given by numbers. @throws bad-population when the stakes exceed the whole */
export function groupsOf(options: PopulationOptions): PopulationGroups {
  const { copierStake, cabalStake, silentStake, noise } = options;
  const honestStake = 1 - copierStake - cabalStake - silentStake;
  if (!(honestStake >= 0)) throw badPopulation([`stakes of ${copierStake} + ${cabalStake} + ${silentStake}, more than 1`]);
  if (options.honestValidators < 1) throw badPopulation(['no honest validator']);
  const isPresent = ({ stake }: { stake: number }) => stake !== 0;
  return {
    validators: [
      { group: 'honest validators', count: options.honestValidators, stake: honestStake, does: 'judge', noise },
      ...[{ group: 'copiers', count: 1, stake: copierStake, does: 'copy', lag: options.copyLag } as const].filter(isPresent),
      ...[
        {
          group: 'cabal',
          count: options.cabalValidators,
          stake: cabalStake,
          does: 'favour',
          whom: 'cabal',
          weight: options.cabalWeight,
          noise,
        } as const,
      ].filter(isPresent),
      ...[{ group: 'silent validators', count: 1, stake: silentStake, does: 'silent' } as const].filter(isPresent),
    ],
    miners: [
      { group: 'honest miners', count: options.honestMiners, quality: 1, churn: options.churn },
      { group: 'cheats', count: options.cheats, quality: options.cheatQuality, churn: 0 },
      { group: 'cabal', count: cabalStake === 0 ? 0 : options.cabalMiners, quality: 0, churn: 0 },
    ],
  };
}

/**
 * Who earns what in a subnet of such a population, by the real function; the first eighth of the epochs is not counted.
 * @throws bad-population when it has more validators or uids than an epoch takes, or too many epochs
 */
export function simulatePopulation(groups: PopulationGroups, { epochs, seed, parameters }: SimulationRun): GroupEarnings[] {
  if (!Number.isSafeInteger(epochs) || epochs < 1 || epochs > EPOCHS_MAX) throw badPopulation([`${epochs} epochs, not 1 to ${EPOCHS_MAX}`]);
  if (!Number.isSafeInteger(seed)) throw badPopulation([`a seed of ${seed}`]);
  return simulateSubnet({ ...populate(groups, seed), epochs, seed, warmUp: Math.floor(epochs / 8), parameters });
}
