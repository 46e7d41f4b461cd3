import type { AnswerContent } from './answer-content.ts';
import { qualityOf } from './answer-quality.ts';
import { percentile } from './serving-gates.ts';
import { WHOLE } from './text-distance.ts';

/** Fewer honest answers than this calibrate nothing. */
const HONEST_MIN = 8;
/** The 99th percentile of honest distances, so many times, is still honest. */
const MARGIN = 2;
/** Where honest answers never differ: what another processor's rounding may do. */
const DISTANCE_LEAST = 2_000;
/** Between exact engines on two kinds of processor, where nothing was measured. */
export const EXACT_DISTANCE_MAX = 20_000;

/** How far an answer is from what the same model gave here, in millionths of the whole; undefined where that cannot be said. */
export function distanceOf(answer: AnswerContent, own: AnswerContent): number | undefined {
  const likeness = qualityOf(answer, own);
  return likeness === undefined ? undefined : WHOLE - likeness;
}

/**
 * The greatest distance that counts as the same model, from distances between honest answers to the same requests (the same model on other
 * machines): twice their 99th percentile, at least 0.2 %. Undefined when too few were measured, or when honest answers differ so much that the
 * distance says nothing: then nobody is judged by it.
 */
export function calibrateThreshold(honestDistances: readonly number[]): number | undefined {
  if (honestDistances.length < HONEST_MIN) return undefined;
  const threshold = Math.max(DISTANCE_LEAST, MARGIN * (percentile(honestDistances, 990_000) as number));
  return threshold <= WHOLE / 2 ? threshold : undefined;
}
