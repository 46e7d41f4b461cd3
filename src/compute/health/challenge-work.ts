import { createHash } from 'node:crypto';
import type { Declared } from './figures.ts';

/**
 * A hardware challenge: units of work of two kinds, each of one size for all devices of the network and each with a seed of its own. A product is
 * C = A · B over the prime field, a memory unit passes over memory. Whoever a machine makes them for, it makes so many in the time that there
 * is: what it proves for ten devices is what it would prove for one. One commitment covers all units that were done; what is opened of them is
 * drawn by the verifier after it. A row of C is checked by a random vector x that only the verifier knows (Freivalds 1979): A (B x) = C x
 * holds for a wrong row with probability 1/p.
 */
export interface ChallengePlan {
  products: number;
  memories: number;
}

/** A unit of a plan: the how-manieth of its kind it is. */
export interface ChallengeUnit {
  kind: 'product' | 'memory';
  number: number;
}

/** The numbers of `IComputeHealth.Config` that a challenge depends on. */
export interface ChallengeRule {
  deadlineMs: number;
  rateFillBps: number;
  memoryFillBps: number;
  rateWeight: number;
  memoryWeight: number;
}

/** The largest prime below 2^21: products fit 42 bits, so 2,048 of them add up exactly in a double. */
export const PRIME = 2_097_143;
/** Rows and columns of a product's matrices: B is a quarter of a megabyte, which a core's cache holds. */
export const UNIT_SIDE = 256;
/** Elements of a memory unit, four bytes each: with what they are made from more than such a cache holds. */
export const UNIT_ELEMENTS = 1 << 20;
/** Words of a leaf: four rows of a product, or a chunk of memory. */
export const LEAF_WORDS = 1024;
/** Rows of a product in one leaf. */
export const LEAF_ROWS = LEAF_WORDS / UNIT_SIDE;
/** Leaves of a unit of each kind; powers of two. */
export const LEAVES = { product: UNIT_SIDE / LEAF_ROWS, memory: UNIT_ELEMENTS / LEAF_WORDS } as const;
const PASSES = 8;
/** A pass reads two words and writes one for each element. */
const BYTES_PER_ELEMENT = PASSES * 12;
const MULTIPLIER = 0x9e3779b1;
const BPS = 10_000n;

/** Multiply-adds of a product, and bytes that a memory unit moves. */
export const UNIT_WORK = { products: UNIT_SIDE ** 3, bytes: UNIT_ELEMENTS * BYTES_PER_ELEMENT } as const;

/**
 * How many units a device has by what is declared of it, under the rule of the chain; a unit that was begun is one, so nothing is gained by declaring
 * many small devices.
 */
export function planOf(rule: ChallengeRule, declared: Declared): ChallengePlan {
  const units = (perMs: number, fillBps: number, unit: number) => {
    const work = BigInt(perMs) * BigInt(rule.deadlineMs) * BigInt(fillBps);
    const each = BigInt(unit) * BPS;
    return Math.max(1, Number((work + each - 1n) / each));
  };
  return {
    products: units(declared.rate * 1000, rule.rateFillBps, UNIT_WORK.products),
    memories: units(declared.memoryMbs * 1000, rule.memoryFillBps, UNIT_WORK.bytes),
  };
}

/** Units of both kinds. */
export function unitCount({ products, memories }: ChallengePlan): number {
  return products + memories;
}

/** How many of the first units of a plan are of each kind: they take turns by their numbers, so neither kind can be left for later. */
export function unitsAmong(plan: ChallengePlan, first: number): ChallengePlan {
  const memories = Number((BigInt(first) * BigInt(plan.memories)) / BigInt(unitCount(plan)));
  return { products: first - memories, memories };
}

/** The unit at a place of a plan. */
export function unitAt(plan: ChallengePlan, place: number): ChallengeUnit {
  const before = unitsAmong(plan, place);
  return unitsAmong(plan, place + 1).memories > before.memories
    ? { kind: 'memory', number: before.memories }
    : { kind: 'product', number: before.products };
}

/** Where a unit stands in a plan; the reverse of {@link unitAt}. */
export function placeOf(plan: ChallengePlan, { kind, number }: ChallengeUnit): number {
  const key = kind === 'memory' ? 'memories' : 'products';
  let [low, high] = [0, unitCount(plan) - 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (unitsAmong(plan, middle + 1)[key] > number) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The share of what was declared that the first units of its plan prove, of 10,000, rounded down. A unit of a kind is worth the same whatever was
 * declared, or less where the plan was rounded up, so shares add up over devices to no more than the units that were made.
 */
export function shareBps(rule: ChallengeRule, declared: Declared, done: number): number {
  const plan = planOf(rule, declared);
  const { products, memories } = unitsAmong(plan, done);
  const rateWorth = BigInt(declared.rate) * BigInt(rule.rateWeight);
  const memoryWorth = BigInt(declared.memoryMbs) * BigInt(rule.memoryWeight);
  const [ofProducts, ofMemories] = [BigInt(plan.products), BigInt(plan.memories)];
  const whole = (rateWorth + memoryWorth) * ofProducts * ofMemories;
  const proven = rateWorth * BigInt(products) * ofMemories + memoryWorth * BigInt(memories) * ofProducts;
  return whole === 0n ? 0 : Number((proven * BPS) / whole);
}

/** A hash of an index under two words of a key. Not for secrets: nobody may know a shortcut for the product, that is all. */
function mix(key: Uint32Array, index: number): number {
  let hash = Math.imul(index ^ (key[0] as number), 0x85ebca6b);
  hash ^= hash >>> 15;
  hash = Math.imul((hash + (key[1] as number)) | 0, 0xc2b2ae35);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0x27d4eb2f);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function keyOf(seed: Uint8Array, label: string): Uint32Array {
  const hash = createHash('sha256').update(seed).update(label).digest();
  return Uint32Array.of(hash.readUInt32LE(0), hash.readUInt32LE(4));
}

/** Rows of a matrix of a product, from `from` on, into `rows`. */
export function fillRows(
  rows: Float32Array | Float64Array,
  { seed, number, matrix, from }: { seed: Uint8Array; number: number; matrix: 'a' | 'b'; from: number },
): void {
  const key = keyOf(seed, `${matrix} ${number}`);
  const start = from * UNIT_SIDE;
  for (let at = 0; at < rows.length; at += 1) {
    const value = mix(key, start + at) >>> 11;
    rows[at] = value >= PRIME ? value - PRIME : value;
  }
}

/** Rows of C: `a` has whole rows of A, `b` is all of B. */
export function multiplyRows(a: Float64Array, b: Float32Array): Uint32Array {
  const product = new Uint32Array(a.length);
  const sums = new Float64Array(UNIT_SIDE);
  for (let from = 0; from < a.length; from += UNIT_SIDE) {
    sums.fill(0);
    addProducts(sums, a.subarray(from, from + UNIT_SIDE), b);
    for (let column = 0; column < UNIT_SIDE; column += 1) product[from + column] = (sums[column] as number) % PRIME;
  }
  return product;
}

/** Four terms at a time: the sums are loaded and stored once for them. So few terms that their sum is exact without a modulo between. */
function addProducts(sums: Float64Array, a: Float64Array, b: Float32Array): void {
  for (let term = 0; term < UNIT_SIDE; term += 4) {
    const at0 = term * UNIT_SIDE;
    const [at1, at2, at3] = [at0 + UNIT_SIDE, at0 + 2 * UNIT_SIDE, at0 + 3 * UNIT_SIDE];
    const a0 = a[term] as number;
    const a1 = a[term + 1] as number;
    const a2 = a[term + 2] as number;
    const a3 = a[term + 3] as number;
    for (let column = 0; column < UNIT_SIDE; column += 1) {
      const before = sums[column] as number;
      const first = a0 * (b[at0 + column] as number) + a1 * (b[at1 + column] as number);
      sums[column] = before + first + (a2 * (b[at2 + column] as number) + a3 * (b[at3 + column] as number));
    }
  }
}

/** What a thread passes over, from unit to unit: taking memory from the system anew takes a third of a unit's time. */
let memory: [Uint32Array<ArrayBuffer>, Uint32Array<ArrayBuffer>] | undefined;

/** The words of a memory unit, after all passes; they stand until the next unit. */
function passOverMemory(seed: Uint8Array, number: number): Uint32Array {
  const key = keyOf(seed, `memory ${number}`);
  memory ??= [new Uint32Array(UNIT_ELEMENTS), new Uint32Array(UNIT_ELEMENTS)];
  let [from, to] = memory;
  for (let at = 0; at < UNIT_ELEMENTS; at += 1) from[at] = mix(key, at);
  for (const stride of stridesOf(key)) {
    for (let at = 0; at < UNIT_ELEMENTS; at += 1) {
      to[at] = Math.imul(from[at] as number, MULTIPLIER) + (from[(at + stride) & (UNIT_ELEMENTS - 1)] as number);
    }
    [from, to] = [to, from];
  }
  return from;
}

/** Elements of a memory unit after all passes, each from the 2^passes elements that it comes from. */
export function elementsOf(seed: Uint8Array, number: number, places: readonly number[]): Uint32Array {
  const key = keyOf(seed, `memory ${number}`);
  const strides = stridesOf(key);
  const value = (pass: number, place: number): number => {
    if (pass === 0) return mix(key, place);
    const other = (place + (strides[pass - 1] as number)) & (UNIT_ELEMENTS - 1);
    return (Math.imul(value(pass - 1, place), MULTIPLIER) + value(pass - 1, other)) >>> 0;
  };
  return Uint32Array.from(places, (place) => value(PASSES, place));
}

function stridesOf(key: Uint32Array): number[] {
  return Array.from({ length: PASSES }, (_, pass) => 1 + (mix(key, 0x7fff_0000 + pass) % (UNIT_ELEMENTS - 1)));
}

/** All words of a unit: the rows of C, or memory after its passes; they stand until the next unit. */
export function makeUnit(seed: Uint8Array, { kind, number }: ChallengeUnit): Uint32Array {
  return kind === 'memory' ? passOverMemory(seed, number) : multiplyUnit(seed, number, { from: 0, to: UNIT_SIDE });
}

/** The words of one leaf of a unit, made again: opening a few is cheaper than keeping all. */
export function makeLeaf(seed: Uint8Array, { kind, number }: ChallengeUnit, leaf: number): Uint32Array {
  if (kind === 'product') return multiplyUnit(seed, number, { from: leaf * LEAF_ROWS, to: (leaf + 1) * LEAF_ROWS });
  return elementsOf(
    seed,
    number,
    Array.from({ length: LEAF_WORDS }, (_, place) => leaf * LEAF_WORDS + place),
  );
}

function multiplyUnit(seed: Uint8Array, number: number, { from, to }: { from: number; to: number }): Uint32Array {
  const b = new Float32Array(UNIT_SIDE * UNIT_SIDE);
  fillRows(b, { seed, number, matrix: 'b', from: 0 });
  const a = new Float64Array((to - from) * UNIT_SIDE);
  fillRows(a, { seed, number, matrix: 'a', from });
  return multiplyRows(a, b);
}

/** The hashes of all leaves of a unit's words, one after another. */
export function hashLeaves(words: Uint32Array): Uint8Array[] {
  return Array.from({ length: words.length / LEAF_WORDS }, (_, leaf) =>
    hashLeaf(leaf, words.subarray(leaf * LEAF_WORDS, (leaf + 1) * LEAF_WORDS)),
  );
}

/** The hash of a leaf of a unit, as little-endian words. */
export function hashLeaf(index: number, words: Uint32Array): Uint8Array {
  const head = Buffer.alloc(5);
  head.writeUInt32LE(index, 1);
  return createHash('sha256').update(head).update(littleEndian(words)).digest();
}

/** Little-endian bytes of words; the machine's own order on every platform that Node runs on, checked. */
export function littleEndian(words: Uint32Array): Uint8Array {
  const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
  return IS_LITTLE_ENDIAN ? bytes : Buffer.from(bytes).swap32();
}

const IS_LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

/** All levels of the commitment's tree, leaves first; an odd last node goes up as it is. */
export function treeOf(leaves: readonly Uint8Array[]): Uint8Array[][] {
  const levels = [[...leaves]];
  for (let level = levels[0] as Uint8Array[]; level.length > 1; levels.push(level)) {
    const below = level;
    level = Array.from({ length: Math.ceil(below.length / 2) }, (_, index) => {
      const [left, right] = [below[2 * index] as Uint8Array, below[2 * index + 1]];
      return right === undefined ? left : hashNode(left, right);
    });
  }
  return levels;
}

function hashNode(left: Uint8Array, right: Uint8Array): Uint8Array {
  return createHash('sha256').update(Uint8Array.of(1)).update(left).update(right).digest();
}

/** The siblings on the way from a leaf to the root. */
export function proveLeaf(levels: readonly (readonly Uint8Array[])[], index: number): Uint8Array[] {
  const proof: Uint8Array[] = [];
  for (const level of levels.slice(0, -1)) {
    const sibling = level[index ^ 1];
    if (sibling !== undefined) proof.push(sibling);
    index >>= 1;
  }
  return proof;
}

/** Whether a leaf stands at an index under a root over so many leaves. */
export function isLeafOf(
  root: Uint8Array,
  { index, count, leaf, proof }: { index: number; count: number; leaf: Uint8Array; proof: readonly Uint8Array[] },
): boolean {
  let node = leaf;
  let used = 0;
  for (let [at, width] = [index, count]; width > 1; at >>= 1, width = Math.ceil(width / 2)) {
    if ((at ^ 1) >= width) continue;
    const sibling = proof[used];
    if (sibling === undefined) return false;
    used += 1;
    node = at % 2 === 0 ? hashNode(node, sibling) : hashNode(sibling, node);
  }
  return used === proof.length && Buffer.from(node).equals(root);
}
