import type { SamplingParameters } from '../engines/engine.ts';
import { unsupported } from './chat-text.ts';
import { seededRandom } from './seeded-random.ts';

/** How tokens are drawn, with every choice made. */
export interface Sampling {
  outputTokensMax: number;
  temperature: number;
  topP: number;
  topK: number;
  seed: number;
  stop: readonly string[];
  logprobs: number | undefined;
}

/** A drawn token with the natural logarithm of its probability before temperature, and so many alternatives. */
export interface DrawnToken {
  id: number;
  logprob: number;
  top: { id: number; logprob: number }[];
}

/** The longest answer, in tokens. */
export const OUTPUT_TOKENS_MAX = 2048;

const OUTPUT_TOKENS_DEFAULT = 256;
const TEMPERATURE_DEFAULT = 0.8;
const STOPS_MAX = 16;
const STOP_LENGTH_MAX = 256;

/**
 * What a request asks for, checked. Left out: 256 tokens, temperature 0.8, everything of the distribution, seed 0. So the same request gets
 * the same answer, and whoever wants another gives another seed.
 * @throws unsupported-parameter for what this model cannot honour, and for values out of bounds
 */
export function readSampling(asked: SamplingParameters): Sampling {
  if ((asked.responseFormat?.type ?? 'text') !== 'text') throw unsupported('responseFormat', 'it cannot be held to JSON');
  for (const name of ['frequencyPenalty', 'presencePenalty'] as const) {
    if ((asked[name] ?? 0) !== 0) throw unsupported(name, 'its tokens are single bytes, whose repetition means nothing');
  }
  const bounded = (name: keyof SamplingParameters, value: number, least: number, most: number): number => {
    if (value >= least && value <= most) return value;
    throw unsupported(name, `got ${value}, expected ${least} to ${most}`, { got: value, least, most });
  };
  const whole = (name: keyof SamplingParameters, value: number, least: number, most: number): number => {
    if (!Number.isInteger(value)) throw unsupported(name, `got ${value}, expected an integer`);
    return bounded(name, value, least, most);
  };
  const stop = asked.stop ?? [];
  if (stop.length > STOPS_MAX || stop.some((each) => each === '' || each.length > STOP_LENGTH_MAX)) {
    throw unsupported('stop', `expected at most ${STOPS_MAX} texts of 1 to ${STOP_LENGTH_MAX} characters`);
  }
  return {
    outputTokensMax: whole('outputTokensMax', asked.outputTokensMax ?? OUTPUT_TOKENS_DEFAULT, 1, OUTPUT_TOKENS_MAX),
    temperature: bounded('temperature', asked.temperature ?? TEMPERATURE_DEFAULT, 0, 2),
    topP: bounded('topP', asked.topP ?? 1, 0, 1),
    topK: whole('topK', asked.topK ?? 256, 1, Number.MAX_SAFE_INTEGER),
    seed: whole('seed', asked.seed ?? 0, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    stop,
    logprobs: asked.logprobs === undefined ? undefined : whole('logprobs', asked.logprobs, 0, 20),
  };
}

/** A drawer of tokens: one random number of the seed for each. Ties go to the lower id, so that a result never depends on sorting. */
export function createDrawer(sampling: Sampling): (logits: Float32Array) => DrawnToken {
  const random = seededRandom(Number(BigInt.asIntN(32, BigInt(sampling.seed) ^ (BigInt(sampling.seed) >> 32n))));
  return (logits) => {
    const logs = logProbabilities(logits);
    const order = Array.from(logs.keys()).sort((one, other) => (logs[other] as number) - (logs[one] as number) || one - other);
    const point = random();
    const id = sampling.temperature === 0 ? (order[0] as number) : drawFrom(order, logs, point, sampling);
    const top = order.slice(0, sampling.logprobs ?? 0).map((each) => ({ id: each, logprob: logs[each] as number }));
    return { id, logprob: logs[id] as number, top };
  };
}

/** log softmax, in 64-bit floats. */
export function logProbabilities(logits: Float32Array): Float64Array {
  const highest = logits.reduce((most, each) => Math.max(most, each), Number.NEGATIVE_INFINITY);
  let total = 0;
  for (const each of logits) total += Math.exp(each - highest);
  const floor = highest + Math.log(total);
  return Float64Array.from(logits, (each) => each - floor);
}

/** The first of the ordered tokens at which the running sum of tempered shares passes the point, among top k, then top p. */
function drawFrom(order: readonly number[], logs: Float64Array, point: number, { temperature, topP, topK }: Sampling): number {
  const best = logs[order[0] as number] as number;
  const shares = order.slice(0, topK).map((id) => Math.exp(((logs[id] as number) - best) / temperature));
  const whole = shares.reduce((sum, share) => sum + share, 0);
  let kept = 0;
  let count = 0;
  while (count < shares.length && (count === 0 || kept < topP * whole)) {
    kept += shares[count] as number;
    count += 1;
  }
  let sum = 0;
  for (let at = 0; at < count; at += 1) {
    sum += shares[at] as number;
    if (sum > point * kept) return order[at] as number;
  }
  return order[count - 1] as number;
}
