/**
 * One row of weights or bonds: `[uid, value]` with strictly ascending uids and values of 0 to 65,535. What is not named is 0.
 * On chain the same row is `uid:u16 value:u16` big-endian.
 */
export type SparseRow = readonly (readonly [uid: number, value: number])[];

/** Which consensus judges whether a validator found a miner early (liquid alpha): the last epoch's, this one's, or `previous` only when the bonds penalty is whole. */
export type ConsensusMode = 'previous' | 'current' | 'auto';

/** Which bonds rule an epoch uses: bonds relative to stake, bonds of pairs, or bonds of pairs with a speed for each pair. */
export type YumaMode = 'yuma2' | 'yuma3' | 'yuma3-liquid';

/** The hyper-parameters of one epoch. Fractions are u16 of 65,535 unless another unit is said; bounds in decision 0019. */
export interface EpochParameters {
  mode: YumaMode;
  /** Share of active stake that must support a weight, 1 to 65,534; 32,767 is a half. */
  kappa: number;
  /** How far weights above consensus are clipped before they make bonds; 0: not at all, 65,535: wholly. */
  bondsPenalty: number;
  /** Share of the old bond that stays in each epoch, in millionths, 0 to 1,000,000; not used where liquid alpha is. */
  bondsMovingAverage: number;
  /** Slowest speed of a bond (liquid alpha), at most `alphaHigh`. */
  alphaLow: number;
  /** Fastest speed of a bond (liquid alpha). */
  alphaHigh: number;
  /** Slope of the sigmoid between the two speeds, in hundredths, 0 to 2,000. */
  alphaSteepness: number;
  consensusMode: ConsensusMode;
  /** Stake below this counts as none, but the owner's always counts. */
  stakeThreshold: bigint;
  /** Counted stakes above this percentile (nearest rank) count as that one, 1 to 99; 0: off. */
  stakeCapPercentile: number;
  /** How many uids may hold a permit, the owner included, 1 to 64. */
  maxValidators: number;
  /** A uid is active while its last update is at most this many seconds old. */
  activityCutoff: number;
  /** Greatest number of bonds kept of a row, the largest, ties to the lower uid; 0: all are kept. */
  bondRowCap: number;
}

/**
 * Everything that one epoch of a subnet depends on. Arrays have one entry per uid (at most 512 uids); times are seconds below 2^40.
 * Weight and bond rows of uids without a permit are ignored.
 */
export interface EpochInput {
  /** Time of this epoch. */
  now: number;
  /** Time of the epoch before; bonds to uids that registered at that time or later are forgotten. 0 at the first epoch. */
  lastEpochAt: number;
  /** The owner's uid, or null when the owner has none. */
  ownerUid: number | null;
  /** Stake behind each uid, own and backers', in base units below 2^128. */
  stakes: readonly bigint[];
  /** When each uid's weights were last set (committed, or set openly). */
  lastUpdate: readonly number[];
  /** When each uid was registered. */
  registeredAt: readonly number[];
  /** Time of the earliest commit of each uid that is not yet revealed nor expired; 0: none. Weights are judged as if no younger than it. */
  committedAt: readonly number[];
  /** Uids whose commit for this epoch was never revealed: their stake is not active in it. */
  unrevealed: readonly boolean[];
  /** Permits as the epoch before left them. */
  permits: readonly boolean[];
  weights: readonly SparseRow[];
  bonds: readonly SparseRow[];
  /** Consensus of the epoch before, u16 of one. */
  previousConsensus: readonly number[];
  /** What is to be shared out, in base units below 2^128: new emission and the dust that was carried. */
  totalEmission: bigint;
  parameters: EpochParameters;
}

/** What an epoch decides. Arrays have one entry per uid; shares are u16 of one, rounded down. */
export interface EpochResult {
  /** Whose last update is young enough. */
  active: boolean[];
  /** Permits for the next epoch. */
  permits: boolean[];
  /** Share of all counted stake. */
  stakeWeight: number[];
  consensus: number[];
  /** How much of each validator's row consensus let stand. */
  validatorTrust: number[];
  /** Stake-weighted sum of clipped weights. */
  rank: number[];
  incentive: number[];
  dividends: number[];
  /** Bonds to be kept; empty for uids without a new permit. */
  bonds: SparseRow[];
  /** Base units that each uid earned as a miner. */
  minerEmission: bigint[];
  /** Base units that each uid earned as a validator. */
  validatorEmission: bigint[];
  /** Base units for the subnet's owner. */
  ownerEmission: bigint;
  /** What no share could take; it is added to the next epoch's `totalEmission`. */
  dust: bigint;
}
