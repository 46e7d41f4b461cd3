import { DEFAULT_EPOCH_PARAMETERS } from '../consensus/default-parameters.ts';
import { epoch } from '../consensus/epoch.ts';
import type { EpochInput, EpochParameters, EpochResult, SparseRow } from '../consensus/epoch-input.ts';
import { type SeededRandom, seededRandom } from '../consensus/seeded-random.ts';
import type { SimulatedMiner, SimulatedValidator, View } from './population.ts';

const TEMPO_S = 1000;
const EMISSION = 10n ** 24n;
const STAKE_UNIT = 10n ** 18n;
const STAKE_PARTS = 1_000_000;

/** A miner that takes over the uid of another after the weights of an epoch were made. */
export interface Takeover {
  epoch: number;
  miner: number;
  by: SimulatedMiner;
}

/** Who takes part in a simulated subnet, by which rules, for how long. */
export interface SubnetPlan {
  validators: readonly SimulatedValidator[];
  miners: readonly SimulatedMiner[];
  epochs: number;
  /** Epochs at the start that are run but not counted. */
  warmUp?: number;
  parameters?: Partial<EpochParameters>;
  takeovers?: readonly Takeover[];
  /** False leaves out the masks of newcomers and of unrevealed commits, to show what they are for. */
  masks?: boolean;
  seed: number;
}

/** What a group earned in all counted epochs. Shares are of what miners and validators got together. */
export interface GroupEarnings {
  group: string;
  validators: number;
  miners: number;
  stakeShare: number;
  minerShare: number;
  validatorShare: number;
  share: number;
}

/**
 * Runs a population through the real `epoch`, bonds, permits and consensus carried from each to the next, and adds up what every group
 * earned. The same plan and seed give the same numbers.
 */
export function simulateSubnet(plan: SubnetPlan): GroupEarnings[] {
  const random = seededRandom(plan.seed);
  const miners = [...plan.miners];
  const joined = new Map<number, number>();
  const history: (readonly number[])[] = [];
  const earned = new Map<string, { miner: bigint; validator: bigint }>();
  let last: EpochResult | undefined;
  for (let index = 0; index < plan.epochs; index++) {
    const opinions = formOpinions(plan, { index, miners, history, random });
    for (const takeover of plan.takeovers ?? []) {
      if (takeover.epoch !== index) continue;
      miners[takeover.miner] = takeover.by;
      joined.set(takeover.miner, index);
    }
    last = epoch(inputOf(plan, { index, opinions, joined, last }));
    history.push(last.consensus.slice(plan.validators.length));
    if (index >= (plan.warmUp ?? 0)) addEarnings(earned, last, [...plan.validators, ...miners]);
  }
  return summarise(plan, miners, earned);
}

/** Rows of weights, one per validator; undefined where nothing is revealed. */
function formOpinions(
  plan: SubnetPlan,
  now: { index: number; miners: readonly SimulatedMiner[]; history: readonly (readonly number[])[]; random: SeededRandom },
): (readonly number[] | undefined)[] {
  const quality = now.miners.map((miner) => miner.quality(now.index));
  const nothing = quality.map(() => 0);
  const view: View = {
    epoch: now.index,
    quality,
    submitted: nothing,
    consensusBefore: (epochs) => now.history[now.index - epochs] ?? nothing,
    random: now.random,
  };
  const opinions = plan.validators.map((validator) => (validator.copies ? undefined : validator.opinion(view)));
  const submitted = [...nothing];
  opinions.forEach((opinion, place) => {
    const sum = opinion?.reduce((total, weight) => total + weight, 0) ?? 0;
    opinion?.forEach((weight, miner) => {
      if (sum > 0) submitted[miner] = (submitted[miner] as number) + (weight / sum) * (plan.validators[place] as SimulatedValidator).stake;
    });
  });
  return plan.validators.map((validator, place) => (validator.copies ? validator.opinion({ ...view, submitted }) : opinions[place]));
}

function inputOf(
  plan: SubnetPlan,
  now: {
    index: number;
    opinions: readonly (readonly number[] | undefined)[];
    joined: ReadonlyMap<number, number>;
    last: EpochResult | undefined;
  },
): EpochInput {
  const validators = plan.validators.length;
  const uids = [...plan.validators, ...plan.miners].map((_, uid) => uid);
  const startedAt = now.index * TEMPO_S;
  const hasMasks = plan.masks ?? true;
  const stake = plan.validators.reduce((total, validator) => total + validator.stake, 0);
  return {
    now: startedAt + TEMPO_S,
    lastEpochAt: startedAt,
    ownerUid: null,
    stakes: uids.map((uid) => BigInt(Math.round(((plan.validators[uid]?.stake ?? 0) / stake) * STAKE_PARTS)) * STAKE_UNIT),
    lastUpdate: uids.map(() => startedAt + TEMPO_S / 2),
    registeredAt: uids.map((uid) => {
      const joinedIn = now.joined.get(uid - validators);
      return joinedIn === undefined || !hasMasks ? 0 : joinedIn * TEMPO_S + 700;
    }),
    committedAt: uids.map(() => 0),
    unrevealed: uids.map((uid) => hasMasks && uid < validators && now.opinions[uid] === undefined),
    permits: now.last?.permits ?? uids.map((uid) => uid < validators),
    weights: uids.map((uid) => rowOf(now.opinions[uid], validators)),
    bonds: now.last?.bonds ?? uids.map(() => []),
    previousConsensus: now.last?.consensus ?? uids.map(() => 0),
    totalEmission: EMISSION,
    parameters: { ...DEFAULT_EPOCH_PARAMETERS, ...plan.parameters },
  };
}

/** Weights as a client submits them: the greatest becomes 65,535, and no more than 64 entries, the largest. */
function rowOf(opinion: readonly number[] | undefined, validators: number): SparseRow {
  const greatest = Math.max(0, ...(opinion ?? []));
  const row: [number, number][] = [];
  opinion?.forEach((weight, miner) => {
    const value = greatest === 0 ? 0 : Math.round((weight / greatest) * 65_535);
    if (value > 0) row.push([validators + miner, value]);
  });
  return row;
}

function addEarnings(
  earned: Map<string, { miner: bigint; validator: bigint }>,
  result: EpochResult,
  uids: readonly { group: string }[],
): void {
  uids.forEach(({ group }, uid) => {
    const before = earned.get(group) ?? { miner: 0n, validator: 0n };
    earned.set(group, {
      miner: before.miner + (result.minerEmission[uid] as bigint),
      validator: before.validator + (result.validatorEmission[uid] as bigint),
    });
  });
}

function summarise(
  plan: SubnetPlan,
  miners: readonly SimulatedMiner[],
  earned: ReadonlyMap<string, { miner: bigint; validator: bigint }>,
): GroupEarnings[] {
  const all = [...earned.values()].reduce((total, { miner, validator }) => total + miner + validator, 0n) || 1n;
  const shareOf = (amount: bigint) => Number((amount * 1_000_000_000n) / all) / 1e9;
  const stake = plan.validators.reduce((total, validator) => total + validator.stake, 0);
  return [...earned].map(([group, { miner, validator }]) => {
    const own = plan.validators.filter((one) => one.group === group);
    return {
      group,
      validators: own.length,
      miners: miners.filter((one) => one.group === group).length,
      stakeShare: own.reduce((total, one) => total + one.stake, 0) / stake,
      minerShare: shareOf(miner),
      validatorShare: shareOf(validator),
      share: shareOf(miner + validator),
    };
  });
}
