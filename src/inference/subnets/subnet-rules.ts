import { DEFAULT_EPOCH_PARAMETERS } from '../consensus/default-parameters.ts';
import type { ConsensusMode, EpochParameters, YumaMode } from '../consensus/epoch-input.ts';

/** A subnet's rules: those of an epoch, and those of the contracts. A row holds for one epoch, so nobody is active for longer. */
export interface SubnetRules extends Omit<EpochParameters, 'activityCutoff'> {
  /** Epochs from a commit's epoch to the one in which it is opened, 1 to 4. */
  revealDelayEpochs: number;
  /** For how many epochs a new uid is not pruned while others can be; more than the delay and two. */
  immunityEpochs: number;
  /** Settled by a bonded proposer, not directly. */
  optimistic: boolean;
}

/** The rules that a new subnet starts with. */
export const DEFAULT_SUBNET_RULES: SubnetRules = {
  ...withoutCutoff(DEFAULT_EPOCH_PARAMETERS),
  revealDelayEpochs: 1,
  immunityEpochs: 5,
  optimistic: false,
};

const MODES: readonly YumaMode[] = ['yuma2', 'yuma3', 'yuma3-liquid'];
const CONSENSUS_MODES: readonly ConsensusMode[] = ['previous', 'current', 'auto'];

/** Rules as `Subnets` takes them. */
export function toChainRules(rules: SubnetRules): ChainRules {
  const { mode, consensusMode, ...numbers } = rules;
  return { ...numbers, mode: MODES.indexOf(mode), consensusMode: CONSENSUS_MODES.indexOf(consensusMode) };
}

/** Rules as `Subnets` gives them. */
export function fromChainRules(rules: ChainRules): SubnetRules {
  const { mode, consensusMode, ...numbers } = rules;
  return { ...numbers, mode: MODES[mode] as YumaMode, consensusMode: CONSENSUS_MODES[consensusMode] as ConsensusMode };
}

/** What `epoch` takes of a subnet's rules. */
export function epochParameters(rules: SubnetRules, tempoSeconds: number): EpochParameters {
  const { revealDelayEpochs: _delay, immunityEpochs: _immunity, optimistic: _optimistic, ...parameters } = rules;
  return { ...parameters, activityCutoff: tempoSeconds };
}

/** `ISubnets.Hyperparameters` as viem has them. */
export interface ChainRules extends Omit<SubnetRules, 'mode' | 'consensusMode'> {
  mode: number;
  consensusMode: number;
}

function withoutCutoff({ activityCutoff: _cutoff, ...rest }: EpochParameters): Omit<EpochParameters, 'activityCutoff'> {
  return rest;
}
