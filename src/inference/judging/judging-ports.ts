import type { Address } from 'viem';
import type { PlannedProbe } from './probe-plan.ts';
import type { AnsweredRequest } from './replay.ts';

/** A miner as a validator sees it. */
export interface JudgedMiner {
  uid: number;
  operatorId: bigint;
  /** The operator's key: it signs receipts, and is paid. */
  nodeKey: Address;
  registeredAt: number;
  /** What it shares with other uids of the same owner (see `groupByOwner`). */
  marks: readonly string[];
  /** Paths of the API that its models are asked at; empty while its offer is not known. */
  paths: readonly string[];
  /** The model that is asked for at a path. */
  models?: Readonly<Record<string, string>>;
  /** Fees burnt so far on what its key was paid, base units of the network's token. */
  burnt: bigint;
  /** Its offer names its own key as the one to be paid: what others are paid earns it nothing. */
  hasOwnPurse: boolean;
  /** In how many subnets its operator holds a uid, this one included: what was burnt for it counts in each for one part of so many. */
  subnets: number;
}

/** A subnet at this moment. Times are protocol time, seconds. */
export interface SubnetMoment {
  now: bigint;
  epoch: bigint;
  startsAt: bigint;
  endsAt: bigint;
  /** Every uid that serves; validators without an endpoint and the sink are not among them. */
  miners: readonly JudgedMiner[];
  /** The uid whose operator's beneficiary is nobody, if the subnet has one. */
  sink: number | undefined;
  /** What the miners' part of this epoch's emission is worth, base units of the network's token. */
  emissionValue: bigint;
  /** The share of a burnt fee that storage's rewards give back to whoever was paid, basis points: it does not come back here a second time. */
  returnedBps: bigint;
}

/** How a probe went. */
export interface ProbeOutcome {
  outcome: 'ok' | 'failed' | 'excused';
  /** Why it did not go well. */
  code?: string;
  ttftMs?: number;
  tpotUs?: number;
  answered?: AnsweredRequest;
}

/** A user's paid request, shown by the gateway that carried it. Its answer's type is guessed: a stranger's word for it is not taken. */
export interface ShownRequest extends Omit<AnsweredRequest, 'answerType'> {
  uid: number;
  /** Whose channel paid for it. */
  payer: Address;
}

/** All that a validator reaches in the world: the chain, gateways, its hand on the weights board. */
export interface JudgingPorts {
  look(): Promise<SubnetMoment>;
  /** Sends a probe through an ordinary account, to that miner alone. Never throws. */
  ask(probe: PlannedProbe, miner: JudgedMiner, signal: AbortSignal): Promise<ProbeOutcome>;
  /** Requests of users that gateways showed since the last call, and how many paid requests there were in all. */
  takeShown(): Promise<{ requests: readonly ShownRequest[]; paid: number }>;
  /** Commits to weights for the present epoch. */
  commit(weights: ReadonlyMap<number, number>): Promise<void>;
  /** Opens commits, closes and settles what is due and nobody has done. Safe to repeat. */
  tend(): Promise<void>;
}
