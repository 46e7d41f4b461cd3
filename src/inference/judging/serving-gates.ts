import { WHOLE } from './text-distance.ts';

/** One request of a validator to a miner, and how it went. Times in whole milliseconds. */
export interface ServingSample {
  /** `ok`, or it failed by the miner's fault; `excused`: nobody can say (the gateway was down, the caller went away). */
  outcome: 'ok' | 'failed' | 'excused';
  ttftMs?: number;
  /** Between units of output, whole microseconds; absent for whole answers. */
  tpotUs?: number;
}

/** What a miner must keep to earn. Shares in millionths. */
export interface ServingLimits {
  /** Requests that must have gone well. */
  successMin: number;
  /** 99th percentiles. */
  ttftMsMax: number;
  tpotUsMax: number;
  /** Below so many samples a gate says nothing. */
  samplesMin: number;
}

/** What a gate says; `unproven` never punishes. */
export type GateVerdict = 'passed' | 'failed' | 'unproven';

/** The gates of a miner's service. */
export interface ServingVerdict {
  success: GateVerdict;
  ttft: GateVerdict;
  tpot: GateVerdict;
  /** Failed where any gate is. */
  verdict: GateVerdict;
}

/** The limits where a subnet says nothing else. */
export const DEFAULT_SERVING_LIMITS: ServingLimits = { successMin: 800_000, ttftMsMax: 30_000, tpotUsMax: 2_000_000, samplesMin: 5 };

/**
 * Judges availability and latency, in integers: `success` is passed when ok · 10^6 ≥ successMin · counted. A percentile of n samples is the one
 * at place ⌈99 n / 100⌉ of the ascending order (nearest rank), so that no interpolation rounds.
 */
export function judgeServing(samples: readonly ServingSample[], limits: ServingLimits): ServingVerdict {
  const counted = samples.filter(({ outcome }) => outcome !== 'excused');
  const fine = counted.filter(({ outcome }) => outcome === 'ok');
  const success = gate(counted.length, limits, () => fine.length * WHOLE >= limits.successMin * counted.length);
  const ttft = percentileGate(
    fine.map(({ ttftMs }) => ttftMs),
    limits.ttftMsMax,
    limits,
  );
  const tpot = percentileGate(
    fine.map(({ tpotUs }) => tpotUs),
    limits.tpotUsMax,
    limits,
  );
  const all = [success, ttft, tpot];
  const verdict = all.includes('failed') ? 'failed' : all.includes('passed') ? 'passed' : 'unproven';
  return { success, ttft, tpot, verdict };
}

/** The value at place ⌈share · n / 10^6⌉ of the ascending order, counted from 1. Of nothing: undefined. */
export function percentile(values: readonly number[], share: number): number | undefined {
  const place = Math.max(1, Math.ceil((values.length * share) / WHOLE));
  return [...values].sort((one, other) => one - other)[place - 1];
}

function percentileGate(values: readonly (number | undefined)[], max: number, limits: ServingLimits): GateVerdict {
  const known = values.filter((value) => value !== undefined);
  return gate(known.length, limits, () => (percentile(known, 990_000) as number) <= max);
}

function gate(count: number, { samplesMin }: ServingLimits, isKept: () => boolean): GateVerdict {
  if (count < Math.max(1, samplesMin)) return 'unproven';
  return isKept() ? 'passed' : 'failed';
}
