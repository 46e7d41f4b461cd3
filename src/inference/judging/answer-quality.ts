import type { AnswerContent } from './answer-content.ts';
import { boxLikeness } from './box-match.ts';
import { textLikeness, WHOLE, wordLikeness } from './text-distance.ts';

/** Vectors whose cosine is so small or less have nothing in common that a model put there. */
const COSINE_FLOOR = 0.5;

/**
 * How good an answer is, measured by the truth, in millionths: labels and boxes (F1 at half overlap), characters of read text, words of
 * heard speech, direction of vectors, the right command, the right moments. Undefined where the two say nothing about one another: speech
 * that nobody has listened to, pictures that nobody has seen. Total: an answer of another kind or shape is worth 0.
 */
export function qualityOf(answer: AnswerContent, truth: AnswerContent): number | undefined {
  switch (answer.task) {
    case 'chat':
      return truth.task === 'chat' ? textLikeness(answer.text, truth.text) : 0;
    case 'ocr':
      return truth.task === 'ocr' ? textLikeness(answer.text, truth.text) : 0;
    case 'transcription':
      return truth.task === 'transcription' ? wordLikeness(answer.text, truth.text) : 0;
    case 'embedding':
      return truth.task === 'embedding' ? vectorLikeness(answer.vectors, truth.vectors) : 0;
    case 'detection':
      return truth.task === 'detection' ? boxLikeness(answer.objects, truth.objects) : 0;
    case 'image-generation':
      return truth.task === 'image-generation' && truth.sizes.length === answer.sizes.length ? undefined : 0;
    case 'speech':
      return truth.task === 'speech' ? speechLikeness(answer, truth) : 0;
    case 'activity':
      return truth.task === 'activity' ? spanLikeness(answer.segments, truth.segments) : 0;
    case 'command':
      return truth.task === 'command' && answer.command === truth.command ? WHOLE : 0;
    case 'moderation':
      return truth.task === 'moderation' ? agreement(answer.flagged, truth.flagged) : 0;
  }
}

/**
 * How much worse a text is than what the reference writes, by the reference's own likelihood of both (nats per token): whole where it is as
 * likely, 0 where it is as unlikely as chance (`chanceNats`, the logarithm of the number of tokens). In millionths.
 */
export function likelihoodQuality(nats: number, referenceNats: number, chanceNats: number): number {
  if (!(Number.isFinite(nats) && chanceNats > referenceNats)) return 0;
  const share = (chanceNats - nats) / (chanceNats - referenceNats);
  return Math.round(Math.max(0, Math.min(1, share)) * WHOLE);
}

function vectorLikeness(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  if (got.length !== wanted.length || wanted.length === 0) return 0;
  const sum = wanted.reduce((total, vector, index) => total + cosineShare(got[index] as ArrayLike<number>, vector), 0);
  return Math.floor(sum / wanted.length);
}

function cosineShare(one: ArrayLike<number>, other: ArrayLike<number>): number {
  if (one.length !== other.length) return 0;
  let [dot, oneSquare, otherSquare] = [0, 0, 0];
  for (let index = 0; index < one.length; index += 1) {
    const [a, b] = [one[index] as number, other[index] as number];
    dot += a * b;
    oneSquare += a * a;
    otherSquare += b * b;
  }
  const cosine = oneSquare > 0 && otherSquare > 0 ? dot / Math.sqrt(oneSquare * otherSquare) : 0;
  return Math.round((Math.max(0, Math.min(1, cosine) - COSINE_FLOOR) / (1 - COSINE_FLOOR)) * WHOLE) || 0;
}

function speechLikeness(answer: { audio: Uint8Array; heard?: string }, truth: { audio: Uint8Array; heard?: string }): number | undefined {
  if (answer.heard !== undefined && truth.heard !== undefined) return wordLikeness(answer.heard, truth.heard);
  if (truth.audio.length === 0) return undefined;
  return Buffer.from(answer.audio).equals(truth.audio) ? WHOLE : undefined;
}

type Spans = readonly { startMs: number; endMs: number }[];

/** Time that both call speech over time that one does. */
function spanLikeness(one: Spans, other: Spans): number {
  const edges = [...one, ...other].flatMap(({ startMs, endMs }) => [startMs, endMs]).sort((a, b) => a - b);
  const covers = (spans: Spans, at: number) => spans.some(({ startMs, endMs }) => startMs <= at && at < endMs);
  let [both, either] = [0, 0];
  for (let index = 1; index < edges.length; index += 1) {
    const [from, to] = [edges[index - 1] as number, edges[index] as number];
    const count = Number(covers(one, from)) + Number(covers(other, from));
    if (count > 0) either += to - from;
    if (count === 2) both += to - from;
  }
  return either === 0 ? WHOLE : Math.floor((both / either) * WHOLE);
}

function agreement(got: readonly boolean[], wanted: readonly boolean[]): number {
  if (got.length !== wanted.length || wanted.length === 0) return 0;
  return Math.floor((wanted.filter((value, index) => value === got[index]).length * WHOLE) / wanted.length);
}
