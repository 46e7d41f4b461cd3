import { readFileSync } from 'node:fs';
import { MillraceError } from '../../errors.ts';
import type { AskedAnswer } from './copied-answers.ts';
import type { MinerRecord } from './miner-score.ts';
import type { PlannedProbe } from './probe-plan.ts';

/** What a validator of one subnet must not forget when it is killed. */
export interface JudgingState {
  epoch: bigint;
  /** The epoch's hidden probes, in the order of their times. */
  plan: PlannedProbe[];
  /** Probes that were sent, or are past. */
  done: Set<string>;
  /** The last epoch that weights were committed for. */
  committedEpoch: bigint;
  /** By uid, since the last commit. */
  records: Map<number, MinerRecord>;
  answers: AskedAnswer[];
  /** By operator and its key: burnt fees that have earned already, or were burnt before this validator looked. */
  counted: Map<string, bigint>;
  /** By uid and its holder: smoothed shares of the emission. */
  smoothed: Map<string, bigint>;
  shown: ShownCounts;
}

/** Users' requests that gateways told of since this validator began: how many were paid, how many shown, and how those ended that were run again. */
export interface ShownCounts {
  paid: number;
  replayable: number;
  confirmed: number;
  refuted: number;
  unproven: number;
}

const VERSION = 1;

/** Nothing known. */
export function freshState(): JudgingState {
  return {
    epoch: -1n,
    plan: [],
    done: new Set(),
    committedEpoch: -1n,
    records: new Map(),
    answers: [],
    counted: new Map(),
    smoothed: new Map(),
    shown: { paid: 0, replayable: 0, confirmed: 0, refuted: 0, unproven: 0 },
  };
}

/** Reads the state; fresh where there is none. @throws judging-state-broken */
export function readState(path: string): JudgingState {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return freshState();
  }
  try {
    const { version, state } = JSON.parse(text, revive) as { version: number; state: JudgingState };
    if (version === VERSION) return { ...state, shown: { ...freshState().shown, ...state.shown } };
  } catch {
    // Written whole or not at all: something else wrote it.
  }
  throw new MillraceError('judging-state-broken', {
    actor: 'host',
    message: `${path} is not a validator's state of version ${VERSION}`,
    values: { path, expected: VERSION },
    hint: 'Move it away: the validator then starts anew, with nothing known of anybody.',
  });
}

/** The state as the text of its file. */
export function stateText(state: JudgingState): string {
  return JSON.stringify({ version: VERSION, state }, replace);
}

function replace(this: unknown, _: string, value: unknown): unknown {
  if (typeof value === 'bigint') return { $bigint: value.toString() };
  if (value instanceof Map) return { $map: [...value] };
  if (value instanceof Set) return { $set: [...value] };
  if (isBufferJson(value)) return { $bytes: Buffer.from(value.data).toString('base64') };
  return value;
}

function revive(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const tagged = value as { $bigint?: string; $map?: [unknown, unknown][]; $set?: unknown[]; $bytes?: string };
  if (tagged.$bigint !== undefined) return BigInt(tagged.$bigint);
  if (tagged.$map !== undefined) return new Map(tagged.$map);
  if (tagged.$set !== undefined) return new Set(tagged.$set);
  if (tagged.$bytes !== undefined) return Buffer.from(tagged.$bytes, 'base64');
  return value;
}

function isBufferJson(value: unknown): value is { type: 'Buffer'; data: number[] } {
  return (
    typeof value === 'object' &&
    value !== null &&
    (value as { type?: unknown }).type === 'Buffer' &&
    Array.isArray((value as { data?: unknown }).data)
  );
}
