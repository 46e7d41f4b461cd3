import type { DetectionResult, EmbeddingResult, EngineResult } from './engine.ts';

/**
 * How two answers to one request agree: to the bit, closely enough that another kind of processor explains the difference, or not. Text
 * and decisions must be the same; only numbers may be close.
 */
export type Agreement = 'exact' | 'close' | 'apart';

const SCORE_DIFFERENCE_MAX = 0.002;
const PIXELS_PART_MAX = 0.005;
const COSINE_MIN = 0.99999;
const MILLISECONDS_MAX = 64;

/** Compares two answers to the same request of the same model (same root). */
export function agreement(one: EngineResult, other: EngineResult): Agreement {
  if (one.outputDigest === other.outputDigest && one.task === other.task) return 'exact';
  return isClose(one, other) ? 'close' : 'apart';
}

function isClose(one: EngineResult, other: EngineResult): boolean {
  switch (one.task) {
    case 'embedding':
      return other.task === 'embedding' && areVectorsClose(one, other);
    case 'detection':
      return other.task === 'detection' && areObjectsClose(one, other);
    case 'ocr':
      return other.task === 'ocr' && one.text === other.text;
    case 'command':
      return (
        other.task === 'command' &&
        one.command === other.command &&
        isNear(one.scores[0]?.score, other.scores[0]?.score, SCORE_DIFFERENCE_MAX)
      );
    case 'activity': {
      if (other.task !== 'activity' || one.segments.length !== other.segments.length) return false;
      const edges = (result: typeof one) => result.segments.flatMap(({ startMs, endMs }) => [startMs, endMs]);
      const [mine, theirs] = [edges(one), edges(other)];
      return mine.every((edge, at) => isNear(edge, theirs[at], MILLISECONDS_MAX));
    }
    default:
      // WebAssembly and text have no rounding to blame.
      return false;
  }
}

function areVectorsClose(one: EmbeddingResult, other: EmbeddingResult): boolean {
  if (one.vectors.length !== other.vectors.length) return false;
  return one.vectors.every((vector, at) => {
    const against = other.vectors[at] as Float32Array;
    const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
    return vector.length === against.length && dot(vector, against) >= COSINE_MIN * Math.sqrt(dot(vector, vector) * dot(against, against));
  });
}

function areObjectsClose(one: DetectionResult, other: DetectionResult): boolean {
  if (one.objects.length !== other.objects.length || one.width !== other.width || one.height !== other.height) return false;
  return one.objects.every(({ label, score, box }, at) => {
    const against = other.objects[at];
    if (against === undefined || against.label !== label || !isNear(score, against.score, SCORE_DIFFERENCE_MAX)) return false;
    const isNearAcross =
      isNear(box.x, against.box.x, PIXELS_PART_MAX * one.width) && isNear(box.width, against.box.width, PIXELS_PART_MAX * one.width);
    return (
      isNearAcross &&
      isNear(box.y, against.box.y, PIXELS_PART_MAX * one.height) &&
      isNear(box.height, against.box.height, PIXELS_PART_MAX * one.height)
    );
  });
}

function isNear(one: number | undefined, other: number | undefined, differenceMax: number): boolean {
  return one !== undefined && other !== undefined && Math.abs(one - other) <= differenceMax;
}
