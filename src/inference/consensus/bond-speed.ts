import type { EpochParameters } from './epoch-input.ts';
import { fromU16, mul, ONE } from './fixed-point.ts';

const Q64 = 1n << 64n;
const STEPS = 128;
const HALF = 64;
const STEP_WIDTH = ONE / STEPS;
const TERMS = 12;

/**
 * How fast a bond follows its weight, as a function of how far ahead of consensus it is bought or how far it is sold (0 to ONE): a sigmoid
 * from `alphaLow` to `alphaHigh`. It is taken from a table of 129 points, straight between them; within k² / 1,360,000 + 2^-30 of the true
 * sigmoid of slope k = steepness / 100, in parts of high − low (decision 0019).
 */
export function bondSpeed(parameters: EpochParameters): (difference: number) => number {
  const low = fromU16(parameters.alphaLow);
  const range = fromU16(parameters.alphaHigh) - low;
  const table = sigmoidTable(parameters.alphaSteepness).map((share) => low + mul(share, range));
  return (difference) => {
    const step = Math.floor(difference / STEP_WIDTH);
    const from = table[step] as number;
    // The part of a step, of 2^25, stands as Q32 when it is taken 128 times.
    return from + mul((difference - step * STEP_WIDTH) * STEPS, (table[step + 1] ?? from) - from);
  };
}

/** 1 / (1 + e^(−k(i/128 − 1/2))) for i of 0 to 128, in Q32; the upper half mirrors the lower. */
function sigmoidTable(steepness: number): Float64Array {
  const table = new Float64Array(STEPS + 1);
  const factor = expOfStep(steepness);
  let power = Q64;
  for (let step = 0; step <= HALF; step++) {
    const lower = Number((power * BigInt(ONE)) / (Q64 + power));
    table[HALF - step] = lower;
    table[HALF + step] = ONE - lower;
    power = (power * factor) / Q64;
  }
  return table;
}

/** e^(−steepness / 12,800) in Q64 by twelve terms of its series. */
function expOfStep(steepness: number): bigint {
  const exponent = (BigInt(steepness) * Q64) / 12_800n;
  let sum = Q64;
  for (let term = BigInt(TERMS); term > 0n; term--) sum = Q64 - (exponent * sum) / (term * Q64);
  return sum;
}
