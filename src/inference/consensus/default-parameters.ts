import type { EpochParameters } from './epoch-input.ts';

/**
 * What a new subnet starts with: Yuma 3 with liquid alpha between 0.1 and 0.3, judged by the last epoch's consensus, without bonds
 * penalty. Of the settings that were simulated it pays early finders and makes copiers of revealed weights lose (docs/inference-attacks.md).
 */
export const DEFAULT_EPOCH_PARAMETERS: EpochParameters = {
  mode: 'yuma3-liquid',
  kappa: 32_767,
  bondsPenalty: 0,
  bondsMovingAverage: 900_000,
  alphaLow: 6553,
  alphaHigh: 19_660,
  alphaSteepness: 1000,
  consensusMode: 'previous',
  stakeThreshold: 0n,
  stakeCapPercentile: 0,
  maxValidators: 64,
  activityCutoff: 60_000,
  bondRowCap: 64,
};
