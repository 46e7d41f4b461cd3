import { MillraceError } from '../../errors.ts';

/** Cuts texts into the pieces of a vocabulary. */
export interface PieceCutter {
  /** Numbers of the pieces, in order. */
  cut(text: string): number[];
}

const SPACE = '\u2581';
/** The first numbers are marks, not pieces; the very first stands for whatever is in no piece. */
const MARKS = 6;
const UNKNOWN = 0;

/** What one text may be at most; pieces are long enough that 128 of them end well before. */
const SYMBOLS_MAX = 4_096;

/**
 * SentencePiece's unigram segmentation (Kudo 2018): of all ways to cut the text (NFKC, spaces as ▁) the one whose pieces' log-probabilities add
 * up to the most. `vocabulary` is the JSON list of [piece, score] that comes with the Universal Sentence Encoder. Ties and the zero that
 * stands for "not reached" are treated as in tensorflow/tfjs-models, so that the pieces are the same.
 * @throws bad-model
 */
export function createPieceCutter(vocabulary: Uint8Array): PieceCutter {
  const entries = JSON.parse(Buffer.from(vocabulary).toString('utf8')) as [string, number][];
  if (!Array.isArray(entries) || entries.length <= MARKS) {
    throw new MillraceError('bad-model', {
      actor: 'peer',
      message: 'The vocabulary of the sentence encoder is no list of pieces',
      values: { format: 'pieces', reason: 'no list' },
      hint: 'Delete the folder of models in the data folder; they are fetched anew.',
    });
  }
  const pieces = new Map(
    entries.slice(MARKS).map(([piece, score], at) => [piece, { score, number: at + MARKS, length: [...piece].length }]),
  );
  const lengthMax = Math.max(...[...pieces.values()].map(({ length }) => length));
  return {
    cut(text) {
      const normal = text.slice(0, 2 * SYMBOLS_MAX).normalize('NFKC');
      if (normal === '') return [];
      const symbols = [...(SPACE + normal.replaceAll(' ', SPACE))].slice(0, SYMBOLS_MAX);
      const best = new Float64Array(symbols.length + 1);
      const chosen: { number: number; length: number }[] = Array.from({ length: symbols.length + 1 }, () => ({
        number: UNKNOWN,
        length: 1,
      }));
      for (let end = 1; end <= symbols.length; end += 1) {
        for (let start = Math.max(0, end - lengthMax); start < end; start += 1) {
          const known = pieces.get(symbols.slice(start, end).join(''));
          const step =
            known ??
            (end - start === 1 && !hasPieceAt(pieces, symbols, start, lengthMax) ? { score: 0, number: UNKNOWN, length: 1 } : undefined);
          if (step === undefined) continue;
          const score = step.score + (best[start] as number);
          if (best[end] !== 0 && score < (best[end] as number)) continue;
          best[end] = score;
          chosen[end] = step;
        }
      }
      return readBack(chosen);
    },
  };
}

/** A symbol counts as unknown only where no piece begins at all. */
function hasPieceAt(pieces: ReadonlyMap<string, unknown>, symbols: readonly string[], start: number, lengthMax: number): boolean {
  let piece = '';
  for (let at = start; at < Math.min(symbols.length, start + lengthMax); at += 1) {
    piece += symbols[at];
    if (pieces.has(piece)) return true;
  }
  return false;
}

/** From the end to the start; unknown symbols in a row become one. */
function readBack(chosen: readonly { number: number; length: number }[]): number[] {
  const numbers: number[] = [];
  for (let at = chosen.length - 1; at > 0; ) {
    const { number, length } = chosen[at] as { number: number; length: number };
    if (number !== UNKNOWN || numbers.at(-1) !== UNKNOWN) numbers.push(number);
    at -= length;
  }
  return numbers.reverse();
}
