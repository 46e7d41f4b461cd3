import type { EpochParameters } from '../consensus/epoch-input.ts';
import { seededRandom } from '../consensus/seeded-random.ts';
import { favouring, type SimulatedValidator } from './population.ts';
import { simulateSubnet } from './simulate-subnet.ts';

const STAKE_NOISE = 0.3;
const EPOCHS = 8;
const WARM_UP = 3;
/** How much of its weight the cabal puts on its own miners: the worst of these is what the map shows. */
const CABAL_WEIGHTS = [0.5, 0.6, 0.7, 0.8, 0.9, 1];

/** A cabal against honest validators. */
export interface CabalCase {
  /** The cabal's share of stake, of validators and of miners. */
  cabalStake: number;
  /** Share of their weight that honest validators give to honest miners: 1 where the cabal's miners are worth nothing. */
  honestUtility: number;
  /** Deviation of honest and hostile weights from their mean, in parts of it. */
  noise: number;
  validators: number;
  miners: number;
  seed: number;
  parameters?: Partial<EpochParameters>;
}

/** What honest validators and miners together keep of the emission when the cabal does its worst. */
export interface CabalOutcome {
  honestShare: number;
  /** What of the honest share is lost against their share of stake; 0 or less where nothing is. */
  loss: number;
  /** The cabal's best weight on itself. */
  cabalWeight: number;
}

/**
 * Validators and miners are split into honest ones and a cabal by stake, stakes differ by a normal error of 0.3, and weights by `noise`
 * (the scheme of `map_consensus_guarantees` in `opentensor/subtensor`, tests/consensus.rs); eight epochs, of which five count.
 */
export function simulateCabal(one: CabalCase): CabalOutcome {
  const outcomes = CABAL_WEIGHTS.map((cabalWeight) => ({ cabalWeight, honestShare: honestShareOf(one, cabalWeight) }));
  const worst = outcomes.reduce((least, outcome) => (outcome.honestShare < least.honestShare ? outcome : least));
  return { ...worst, loss: 1 - worst.honestShare / (1 - one.cabalStake) };
}

function honestShareOf(one: CabalCase, cabalWeight: number): number {
  const random = seededRandom(one.seed);
  const hostileMiners = between(Math.round(one.miners * one.cabalStake), one.miners);
  const isHostile = (miner: number) => miner < hostileMiners;
  const sides = [
    { group: 'cabal', stake: one.cabalStake, count: between(Math.round(one.validators * one.cabalStake), one.validators) },
    { group: 'honest', stake: 1 - one.cabalStake, count: 0 },
  ];
  (sides[1] as { count: number }).count = one.validators - (sides[0] as { count: number }).count;
  const validators = sides.flatMap(({ group, stake, count }): SimulatedValidator[] => {
    const parts = Array.from({ length: count }, () => Math.max(0.01, 1 + STAKE_NOISE * random.normal()));
    const whole = parts.reduce((total, part) => total + part, 0);
    const opinion =
      group === 'cabal'
        ? favouring(cabalWeight, isHostile, one.noise)
        : favouring(one.honestUtility, (miner) => !isHostile(miner), one.noise);
    return parts.map((part) => ({ group, stake: (stake * part) / whole, opinion }));
  });
  const earnings = simulateSubnet({
    validators,
    miners: Array.from({ length: one.miners }, (_, miner) => ({ group: isHostile(miner) ? 'cabal' : 'honest', quality: () => 1 })),
    epochs: EPOCHS,
    warmUp: WARM_UP,
    parameters: { bondRowCap: 0, ...one.parameters },
    seed: one.seed + 1,
  });
  return earnings.find(({ group }) => group === 'honest')?.share ?? 0;
}

function between(count: number, whole: number): number {
  return Math.max(1, Math.min(whole - 1, count));
}
