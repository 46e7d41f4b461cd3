import type { PlannedProbe } from './probe-plan.ts';
import type { AnsweredRequest } from './replay.ts';

/** A miner as a validator sees it. */
export interface JudgedMiner {
  uid: number;
  operatorId: bigint;
  registeredAt: number;
  /** What it shares with other uids of the same owner (see `groupByOwner`). */
  marks: readonly string[];
  /** Paths of the API that its models are asked at; empty while its offer is not known. */
  paths: readonly string[];
  /** The model that is asked for at a path. */
  models?: Readonly<Record<string, string>>;
  /** Fees burnt so far on what it was paid, base units of the network's token. */
  burnt: bigint;
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

/** A user's paid request, shown by the gateway that carried it. */
export interface ShownRequest extends AnsweredRequest {
  uid: number;
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
