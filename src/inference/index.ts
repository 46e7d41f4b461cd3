/** The inference network: subnets, consensus, engines, serving and judging. */

export { DEFAULT_EPOCH_PARAMETERS } from './consensus/default-parameters.ts';
export { epoch } from './consensus/epoch.ts';
export type {
  ConsensusMode,
  EpochInput,
  EpochParameters,
  EpochResult,
  SparseRow,
  YumaMode,
} from './consensus/epoch-input.ts';
