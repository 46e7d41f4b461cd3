import type { EpochParameters } from '../consensus/epoch-input.ts';
import type { Opinion, SimulatedMiner } from './population.ts';
import { simulateSubnet } from './simulate-subnet.ts';

const EPOCHS = 80;
const FLIP_EVERY = 10;
const BIG_STAKE = 0.8;
const SMALL_STAKE = 0.1;

/** A setting of the bonds rule, by name. */
export interface BondsSetting {
  name: string;
  parameters: Partial<EpochParameters>;
}

const liquid = (alphaLow: number, alphaHigh: number): Partial<EpochParameters> => ({
  mode: 'yuma3-liquid',
  alphaLow: Math.floor(alphaLow * 65_535),
  alphaHigh: Math.floor(alphaHigh * 65_535),
});

/** The settings that are compared: upstream's old and new defaults, and the candidates for ours (the one named so). */
export const BONDS_SETTINGS: readonly BondsSetting[] = [
  { name: 'Yuma 2, penalty 1', parameters: { mode: 'yuma2', bondsPenalty: 65_535 } },
  { name: 'Yuma 2, penalty 0', parameters: { mode: 'yuma2', bondsPenalty: 0 } },
  { name: 'Yuma 3, speed 0.025, penalty 0', parameters: { mode: 'yuma3', bondsMovingAverage: 975_000 } },
  { name: 'Yuma 3, speed 0.1, penalty 0', parameters: { mode: 'yuma3', bondsMovingAverage: 900_000 } },
  { name: 'liquid 0.1 to 0.3, penalty 0, current', parameters: { ...liquid(0.1, 0.3), consensusMode: 'current' } },
  { name: 'liquid 0.1 to 0.3, penalty 0, previous (default)', parameters: { ...liquid(0.1, 0.3), consensusMode: 'previous' } },
  { name: 'liquid 0.1 to 0.3, penalty 1, current', parameters: { ...liquid(0.1, 0.3), bondsPenalty: 65_535, consensusMode: 'current' } },
  { name: 'liquid 0.05 to 0.2, penalty 0, previous', parameters: { ...liquid(0.05, 0.2), consensusMode: 'previous' } },
  { name: 'liquid 0.2 to 0.5, penalty 0, previous', parameters: { ...liquid(0.2, 0.5), consensusMode: 'previous' } },
  { name: 'liquid 0.7 to 0.9, penalty 0, current', parameters: { ...liquid(0.7, 0.9), consensusMode: 'current' } },
];

/** Dividends per unit of stake, 1 being its share; the copier moves `lag` epochs after the big validator. */
export interface CopyingOutcome {
  eager: number;
  big: number;
  copier: number;
}

/**
 * The best of two miners changes every ten epochs. An eager validator (a tenth of stake) moves at once, the big one (eight tenths) an epoch
 * later, the copier (a tenth) `lag` epochs after that. Lag 0 is what a copier gets where weights can be read before the epoch; with commit
 * and reveal it is 1 at least.
 */
export function simulateCopying(parameters: Partial<EpochParameters>, lag: number): CopyingOutcome {
  const miners: SimulatedMiner[] = [0, 1].map((side) => ({ group: 'miners', quality: (epoch) => (bestSide(epoch) === side ? 1 : 0) }));
  const late =
    (delay: number): Opinion =>
    ({ epoch }) =>
      [0, 1].map((side) => (bestSide(epoch - delay) === side ? 1 : 0));
  const earnings = simulateSubnet({
    validators: [
      { group: 'big', stake: BIG_STAKE, opinion: late(1) },
      { group: 'eager', stake: SMALL_STAKE, opinion: late(0) },
      { group: 'copier', stake: SMALL_STAKE, opinion: late(1 + lag) },
    ],
    miners,
    epochs: EPOCHS,
    parameters: { maxValidators: 3, ...parameters },
    seed: 0,
  });
  const whole = earnings.reduce((total, { validatorShare }) => total + validatorShare, 0);
  const perStake = (group: string) => {
    const one = earnings.find((candidate) => candidate.group === group);
    return one === undefined ? 0 : one.validatorShare / whole / one.stakeShare;
  };
  return { eager: perStake('eager'), big: perStake('big'), copier: perStake('copier') };
}

function bestSide(epoch: number): number {
  return Math.floor(Math.max(0, epoch) / FLIP_EVERY) % 2;
}
