import { MillraceError } from '../../errors.ts';
import type { EpochParameters } from '../consensus/epoch-input.ts';
import { seededRandom } from '../consensus/seeded-random.ts';
import { copier, favouring, honest, type SimulatedMiner, type SimulatedValidator, silent } from './population.ts';
import { type GroupEarnings, simulateSubnet } from './simulate-subnet.ts';

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
  epochs: number;
  seed: number;
  parameters: Partial<EpochParameters>;
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
  epochs: 80,
  seed: 1,
  parameters: {},
};

const UIDS_MAX = 512;
const EPOCHS_MAX = 10_000;

/**
 * Who earns what in a subnet of such a population, by the real function.
 * @throws bad-population when stakes exceed the whole, or counts what an epoch takes
 */
export function simulatePopulation(options: PopulationOptions): GroupEarnings[] {
  const honestStake = checkedHonestStake(options);
  const honestMiners = options.honestMiners;
  const cabalFrom = honestMiners + options.cheats;
  const validators: SimulatedValidator[] = repeat(options.honestValidators, honestStake, {
    group: 'honest validators',
    opinion: honest(options.noise),
  });
  if (options.copierStake > 0) {
    validators.push({ group: 'copiers', stake: options.copierStake, opinion: copier(options.copyLag), copies: options.copyLag === 0 });
  }
  if (options.cabalStake > 0) {
    const opinion = favouring(options.cabalWeight, (miner) => miner >= cabalFrom, options.noise);
    validators.push(...repeat(options.cabalValidators, options.cabalStake, { group: 'cabal', opinion }));
  }
  if (options.silentStake > 0) validators.push({ group: 'silent validators', stake: options.silentStake, opinion: silent });
  const miners: SimulatedMiner[] = [
    ...Array.from({ length: honestMiners }, (_, miner) => ({ group: 'honest miners', quality: qualityOf(miner, options) })),
    ...Array.from({ length: options.cheats }, () => ({ group: 'cheats', quality: () => options.cheatQuality })),
    ...Array.from({ length: options.cabalStake > 0 ? options.cabalMiners : 0 }, () => ({ group: 'cabal', quality: () => 0 })),
  ];
  const { epochs, seed } = options;
  return simulateSubnet({ validators, miners, epochs, seed, warmUp: Math.floor(epochs / 8), parameters: options.parameters });
}

/** Squares of even draws: few good miners, many middling ones. */
function qualityOf(miner: number, { churn, seed }: PopulationOptions): (epoch: number) => number {
  if (churn === 0) return () => 1;
  return (epoch) => seededRandom(seed * 7919 + miner * 1000 + Math.floor((epoch + (miner % churn)) / churn)).fraction() ** 2;
}

function repeat(count: number, stake: number, validator: Omit<SimulatedValidator, 'stake'>): SimulatedValidator[] {
  return Array.from({ length: count }, () => ({ ...validator, stake: stake / count }));
}

function checkedHonestStake(options: PopulationOptions): number {
  const { copierStake, cabalStake, silentStake, honestValidators, honestMiners, cheats, cabalMiners, cabalValidators, epochs } = options;
  const shares = [copierStake, cabalStake, silentStake, options.cabalWeight];
  const counts = [
    honestValidators,
    honestMiners,
    cheats,
    cabalMiners,
    cabalValidators,
    epochs,
    options.churn,
    options.copyLag,
    options.seed,
  ];
  const honestStake = 1 - copierStake - cabalStake - silentStake;
  const faults = [
    shares.some((share) => !(share >= 0 && share <= 1)) && 'a share outside of 0 to 1',
    counts.some((count) => !Number.isSafeInteger(count) || count < 0) && 'a count that is no whole number',
    honestStake < 0 && `stakes of ${copierStake} + ${cabalStake} + ${silentStake}, more than 1`,
    !(options.noise >= 0 && options.cheatQuality >= 0) && 'a noise or quality below 0',
    honestValidators < 1 && 'no honest validator',
    honestValidators + cabalValidators + 2 > 64 && 'more than 64 validators',
    honestValidators + cabalValidators + 2 + honestMiners + cheats + cabalMiners > UIDS_MAX && `more than ${UIDS_MAX} uids`,
    (epochs < 1 || epochs > EPOCHS_MAX) && `${epochs} epochs, not 1 to ${EPOCHS_MAX}`,
  ].filter((fault) => fault !== false);
  if (faults.length === 0) return honestStake;
  throw new MillraceError('bad-population', {
    actor: 'caller',
    message: `This population cannot be simulated: got ${faults.join('; ')}`,
    values: { faults },
    hint: 'Run `millrace simulate subnet --help` for the options and examples.',
  });
}
