import { randomInt } from 'node:crypto';
import {
  CHUNK_ELEMENTS,
  type ChallengeSize,
  elementAfterPasses,
  fillRows,
  hashLeaf,
  isLeafOf,
  leafCount,
  PRIME,
} from './challenge-work.ts';

/** A leaf of a commitment that was opened: its words, and the siblings on its way to the root. */
export interface OpenedLeaf {
  index: number;
  words: Uint32Array;
  proof: readonly Uint8Array[];
}

/** A challenge as both sides know it. */
export interface ChallengeTask {
  seed: Uint8Array;
  size: ChallengeSize;
}

const ROWS_OPENED = 12;
const CHUNKS_OPENED = 4;
/** Elements of an opened chunk that are calculated again, each from 256 others. */
const ELEMENTS_CHECKED = 8;
/** Rows of B that are made at a time. */
const BLOCK_ROWS = 64;

/** Which leaves a verifier wants to see, drawn by itself after the commitment. Skipping a tenth of the rows is missed with 0.9^12 = 28 %. */
export function drawLeaves({ size }: ChallengeTask): number[] {
  const chunks = leafCount(size) - size.side;
  const rows = Array.from({ length: ROWS_OPENED }, () => randomInt(size.side));
  return [...new Set([...rows, ...Array.from({ length: CHUNKS_OPENED }, () => size.side + randomInt(chunks))])];
}

/**
 * Whether every wanted leaf was opened and is right. Rows of C are checked with a random vector that nobody else knows: O(side²) instead of the
 * O(side³) of the product; 35 ms for a side of 1,000.
 */
export function checkLeaves(task: ChallengeTask, root: Uint8Array, wanted: readonly number[], opened: readonly OpenedLeaf[]): boolean {
  const { seed, size } = task;
  const count = leafCount(size);
  const byIndex = new Map(opened.map((leaf) => [leaf.index, leaf]));
  const rows: OpenedLeaf[] = [];
  for (const index of wanted) {
    const leaf = byIndex.get(index);
    if (leaf === undefined || leaf.words.length !== (index < size.side ? size.side : CHUNK_ELEMENTS)) return false;
    if (!isLeafOf(root, { index, count, leaf: hashLeaf(index, leaf.words), proof: leaf.proof })) return false;
    if (index < size.side) rows.push(leaf);
    else if (!isChunkRight(task, leaf)) return false;
  }
  return areRowsRight(seed, size.side, rows);
}

function isChunkRight({ seed, size }: ChallengeTask, { index, words }: OpenedLeaf): boolean {
  const first = (index - size.side) * CHUNK_ELEMENTS;
  const segment = Math.floor(first / size.elements);
  for (let check = 0; check < ELEMENTS_CHECKED; check += 1) {
    const place = randomInt(CHUNK_ELEMENTS);
    const at = (first % size.elements) + place;
    if (words[place] !== elementAfterPasses(seed, { segment, elements: size.elements, at })) return false;
  }
  return true;
}

/** A (B x) = C x for the rows of C that were opened. */
function areRowsRight(seed: Uint8Array, side: number, rows: readonly OpenedLeaf[]): boolean {
  const vector = Float64Array.from({ length: side }, () => randomInt(PRIME));
  const image = new Float64Array(side);
  for (let from = 0; from < side; from += BLOCK_ROWS) {
    const block = new Float64Array(Math.min(BLOCK_ROWS, side - from) * side);
    fillRows(block, { seed, matrix: 'b', side, from });
    for (let row = 0; row * side < block.length; row += 1) image[from + row] = dot(block.subarray(row * side, (row + 1) * side), vector);
  }
  return rows.every(({ index, words }) => {
    if (words.some((word) => word >= PRIME)) return false;
    const row = new Float64Array(side);
    fillRows(row, { seed, matrix: 'a', side, from: index });
    return dot(row, image) === dot(words, vector);
  });
}

function dot(left: Float64Array | Uint32Array, right: Float64Array): number {
  let sum = 0;
  for (let at = 0; at < left.length; at += 1) {
    sum += (left[at] as number) * (right[at] as number);
    if ((at & 1023) === 1023) sum %= PRIME;
  }
  return sum % PRIME;
}
