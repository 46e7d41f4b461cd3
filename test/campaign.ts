import { randomInt } from 'node:crypto';
import { test } from 'node:test';

/**
 * How often a long campaign (kills, honest periods, random epochs) repeats: the full number with
 * `npm run journeys -- --full`, else a tenth of it, at least one.
 */
export function rounds(full: number): number {
  return process.env.MILLRACE_FULL === '1' ? full : Math.max(1, Math.ceil(full / 10));
}

/** A story that is told at full length only (`npm run journeys -- --full`); else it is no test at all, so that nothing counts as skipped. */
export const campaign: typeof test = process.env.MILLRACE_FULL === '1' ? test : (((): void => {}) as unknown as typeof test);

/** The seed of this run's random campaigns: `MILLRACE_SEED`, else a new one that the runner prints. */
export function campaignSeed(): number {
  process.env.MILLRACE_SEED ??= String(randomInt(2 ** 31));
  return Number(process.env.MILLRACE_SEED);
}

/** Prints the seed and how to run with it again. */
export function announceSeed(): void {
  process.stdout.write(`random seed ${campaignSeed()} (again with MILLRACE_SEED=${campaignSeed()})\n`);
}
