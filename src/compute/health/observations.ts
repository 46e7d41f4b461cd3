import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { syncFolder, writeAll } from '../../durable-file.ts';
import type { Statement, Verdict } from './figures.ts';
import { receiptTag } from './receipt.ts';
import type { SeatStatements } from './report-data.ts';

/** One thing that this node measured of a partner in an hour, with what both sides signed where the partner answered. */
export interface Observation {
  hour: number;
  /** The own seat from which it was measured. */
  seat: number;
  round: number;
  operatorId: string;
  deviceId: string;
  /** Protocol time, seconds. */
  at: number;
  signatures?: readonly [request: string, answer: string];
  /** A heartbeat: the time until its answer, or that there was none; and how far the partner's clock is from this machine's, give or take half of that. */
  ping?: { answered: boolean; rttUs?: number; skewMs?: number };
  /** A transfer: kilobytes a second to this node and from it; 0 when it failed. */
  transfer?: { downKbs: number; upKbs: number };
  /** How a challenge of the hour ended: the share of its work that was done in time, of 10,000. */
  challenge?: { slot: number; verdict: Exclude<Verdict, 'none' | 'unreachable'>; doneBps: number; receipt?: Hex };
}

const HOURS_KEPT = 48;
const NAME = /^hour-(\d+)\.ndjson$/;
const U32 = 0xffff_ffff;

/** What this node measured, hour by hour. What was added is on disk before `add` returns. */
export class Observations {
  readonly #folder: string;
  readonly #hours = new Map<number, Observation[]>();
  #open: { hour: number; file: number } | undefined;

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(folder)) {
      const hour = Number(NAME.exec(name)?.[1] ?? Number.NaN);
      if (Number.isSafeInteger(hour)) this.#hours.set(hour, readLines(join(folder, name)));
    }
  }

  add(observation: Observation): void {
    const { hour } = observation;
    writeAll(this.#fileOf(hour), `${JSON.stringify(observation)}\n`);
    fsyncSync(this.#fileOf(hour));
    this.of(hour).push(observation);
  }

  of(hour: number): Observation[] {
    let kept = this.#hours.get(hour);
    if (kept === undefined) {
      kept = [];
      this.#hours.set(hour, kept);
    }
    return kept;
  }

  /** What is to be reported of an hour, for each own seat; seats without any measurement are left out. */
  statements(hour: number, rounds: number): SeatStatements[] {
    const bySeat = Map.groupBy(this.of(hour), ({ seat }) => seat);
    return [...bySeat].map(([seat, observations]) => ({
      seat,
      statements: Array.from({ length: rounds }, (_, round) => statementOf(observations.filter((one) => one.round === round))),
    }));
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.file);
    this.#open = undefined;
  }

  #fileOf(hour: number): number {
    if (this.#open?.hour === hour) return this.#open.file;
    this.close();
    const path = join(this.#folder, `hour-${hour}.ndjson`);
    const isNew = !existsSync(path);
    this.#open = { hour, file: openSync(path, 'a', 0o600) };
    if (isNew) {
      syncFolder(this.#folder);
      this.#forget(hour - HOURS_KEPT);
    }
    return this.#open.file;
  }

  #forget(before: number): void {
    for (const name of readdirSync(this.#folder)) {
      const hour = Number(NAME.exec(name)?.[1] ?? Number.NaN);
      if (!(hour < before)) continue;
      rmSync(join(this.#folder, name), { force: true });
      this.#hours.delete(hour);
    }
  }
}

/** A last line that a crash cut off is passed over: it was never acknowledged. */
function readLines(path: string): Observation[] {
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.slice(0, -1).flatMap((line) => {
    try {
      return [JSON.parse(line) as Observation];
    } catch {
      return [];
    }
  });
}

/**
 * What the measurements of one partner say; undefined where nothing was measured. The middle latency, of an even number the higher one; the mean of the
 * challenges that were judged, one with a wrong answer makes the hour wrong.
 */
export function statementOf(observations: readonly Observation[]): Statement | undefined {
  const pings = observations.flatMap(({ ping }) => ping ?? []);
  if (pings.length === 0) return undefined;
  const rtts = pings.flatMap(({ rttUs }) => rttUs ?? []).sort((left, right) => left - right);
  if (rtts.length === 0) return { verdict: 'unreachable', upBps: 0, latencyUs: 0, bandwidthKbs: 0, receiptTag: 0, doneBps: 0 };
  const challenges = observations.flatMap(({ challenge }) => challenge ?? []);
  const transfer = observations.findLast((one) => one.transfer !== undefined)?.transfer;
  // Who slept through all challenges, or came to no transfer, has nothing to say of them, nor of the device.
  if (challenges.length === 0 || transfer === undefined) return undefined;
  const doneBps = Math.floor(challenges.reduce((sum, challenge) => sum + challenge.doneBps, 0) / challenges.length);
  const receipt = challenges.find((challenge) => challenge.receipt !== undefined)?.receipt;
  return {
    verdict: challenges.some(({ verdict }) => verdict === 'wrong') ? 'wrong' : doneBps > 0 ? 'passed' : 'missed',
    upBps: Math.floor((doneBps * rtts.length) / pings.length),
    latencyUs: Math.min(U32, rtts[rtts.length >> 1] as number),
    bandwidthKbs: Math.min(U32, transfer.downKbs, transfer.upKbs),
    receiptTag: receipt === undefined ? 0 : receiptTag(receipt),
    doneBps,
  };
}
