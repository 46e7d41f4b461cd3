import { concat, type Hex, keccak256, toHex } from 'viem';
import { FIGURE_BYTES } from './figures.ts';

const CHUNK_BYTES = 64 * FIGURE_BYTES;
const ZERO = `0x${'00'.repeat(32)}` as const;

/** Where a figure stands in its hour (`IComputeHealth.Opening`). */
export interface Opening {
  chunk: Hex;
  proof: readonly Hex[];
}

/** The root of an hour's figures (`FigureTree.build`). */
export function figureRoot(figures: Uint8Array): Hex {
  return levelsOf(figures).at(-1)?.[0] as Hex;
}

/** What shows a seat's figure under that root (`FigureTree.open`). */
export function openFigure(figures: Uint8Array, seat: number): Opening {
  let index = Math.floor((seat * FIGURE_BYTES) / CHUNK_BYTES);
  const chunk = toHex(figures.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES));
  const proof: Hex[] = [];
  for (const level of levelsOf(figures).slice(0, -1)) {
    proof.push(level[index ^ 1] as Hex);
    index >>= 1;
  }
  return { chunk, proof };
}

/** From the chunks' level, padded to a power of two, to the root. */
function levelsOf(figures: Uint8Array): Hex[][] {
  const chunks = Math.ceil(figures.length / CHUNK_BYTES);
  let width = 1;
  while (width < chunks) width *= 2;
  let level = Array.from({ length: width }, (_, index) =>
    index < chunks ? keccak256(concat(['0x00', toHex(figures.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES))])) : ZERO,
  );
  const levels = [level];
  while (level.length > 1) {
    const below = level;
    level = Array.from({ length: below.length / 2 }, (_, index) =>
      keccak256(concat(['0x01', below[2 * index] as Hex, below[2 * index + 1] as Hex])),
    );
    levels.push(level);
  }
  return levels;
}
