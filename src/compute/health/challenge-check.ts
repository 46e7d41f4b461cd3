import { randomInt } from 'node:crypto';
import type { ChallengeProgress, ChallengeTask } from './challenge-engine.ts';
import {
  elementsOf,
  fillRows,
  hashLeaf,
  isLeafOf,
  LEAF_ROWS,
  LEAF_WORDS,
  LEAVES,
  PRIME,
  placeOf,
  UNIT_SIDE,
  unitAt,
  unitsAmong,
} from './challenge-work.ts';

/** A leaf of a unit, by the unit's place in its plan. */
export interface WantedLeaf {
  place: number;
  leaf: number;
}

/** A leaf that was opened: its words, the siblings on its way to the unit's root, and those on the unit's way to the commitment. */
export interface OpenedLeaf extends WantedLeaf {
  words: Uint32Array;
  proof: readonly Uint8Array[];
  unitRoot: Uint8Array;
  unitProof: readonly Uint8Array[];
}

const PRODUCTS_OPENED = 12;
const MEMORIES_OPENED = 4;
/** Elements of an opened chunk that are calculated again, each from 256 others. */
const ELEMENTS_CHECKED = 8;

/**
 * Which leaves a verifier wants to see of the units that were committed to, drawn by itself after the commitment. Skipping a tenth of the products is
 * missed with 0.9^12 = 28 %.
 */
export function drawLeaves({ plan }: ChallengeTask, { done }: ChallengeProgress): WantedLeaf[] {
  const made = unitsAmong(plan, done);
  const draw = (kind: 'product' | 'memory', units: number, count: number) =>
    Array.from({ length: units === 0 ? 0 : count }, () => {
      return { place: placeOf(plan, { kind, number: randomInt(units) }), leaf: randomInt(LEAVES[kind]) };
    });
  const drawn = [...draw('product', made.products, PRODUCTS_OPENED), ...draw('memory', made.memories, MEMORIES_OPENED)];
  return [...new Map(drawn.map((one) => [`${one.place}/${one.leaf}`, one])).values()];
}

/**
 * Whether every wanted leaf was opened and is right. Rows of C are checked with a random vector that nobody else knows: O(side²) instead of the
 * O(side³) of the product; a millisecond a leaf.
 */
export function checkLeaves(
  task: ChallengeTask,
  { done, root }: ChallengeProgress,
  wanted: readonly WantedLeaf[],
  opened: readonly OpenedLeaf[],
): boolean {
  return wanted.every(({ place, leaf }) => {
    const found = opened.find((one) => one.place === place && one.leaf === leaf);
    if (found === undefined || found.words.length !== LEAF_WORDS) return false;
    const { kind, number } = unitAt(task.plan, place);
    const { words, proof, unitRoot, unitProof } = found;
    if (!isLeafOf(unitRoot, { index: leaf, count: LEAVES[kind], leaf: hashLeaf(leaf, words), proof })) return false;
    if (!isLeafOf(root, { index: place, count: done, leaf: unitRoot, proof: unitProof })) return false;
    return kind === 'memory' ? isChunkRight(task.seed, number, found) : areRowsRight(task.seed, number, found);
  });
}

function isChunkRight(seed: Uint8Array, number: number, { leaf, words }: OpenedLeaf): boolean {
  const places = Array.from({ length: ELEMENTS_CHECKED }, () => randomInt(LEAF_WORDS));
  const expected = elementsOf(
    seed,
    number,
    places.map((place) => leaf * LEAF_WORDS + place),
  );
  return places.every((place, index) => words[place] === expected[index]);
}

/** A (B x) = C x for the rows of C that were opened. */
function areRowsRight(seed: Uint8Array, number: number, { leaf, words }: OpenedLeaf): boolean {
  if (words.some((word) => word >= PRIME)) return false;
  const b = new Float64Array(UNIT_SIDE * UNIT_SIDE);
  fillRows(b, { seed, number, matrix: 'b', from: 0 });
  const vector = Float64Array.from({ length: UNIT_SIDE }, () => randomInt(PRIME));
  const image = Float64Array.from({ length: UNIT_SIDE }, (_, row) => dot(rowOf(b, row), vector));
  const a = new Float64Array(LEAF_WORDS);
  fillRows(a, { seed, number, matrix: 'a', from: leaf * LEAF_ROWS });
  return Array.from({ length: LEAF_ROWS }, (_, row) => row).every((row) => dot(rowOf(a, row), image) === dot(rowOf(words, row), vector));
}

function rowOf<Words extends Float64Array | Uint32Array>(words: Words, row: number): Words {
  return words.subarray(row * UNIT_SIDE, (row + 1) * UNIT_SIDE) as Words;
}

/** So few terms that their sum is exact without a modulo between. */
function dot(left: Float64Array | Uint32Array, right: Float64Array): number {
  let sum = 0;
  for (let at = 0; at < left.length; at += 1) sum += (left[at] as number) * (right[at] as number);
  return sum % PRIME;
}
