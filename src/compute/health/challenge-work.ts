import { createHash } from 'node:crypto';

/**
 * The hour's hardware challenge: C = A · B over the prime field, and passes over memory, both made from the challenge's seed, so none of it can be
 * known before. One commitment covers all rows of C and all chunks of memory; what is opened is drawn by the verifier after it. A row is
 * checked by a random vector x that only the verifier knows (Freivalds 1979): A (B x) = C x holds for a wrong row with probability 1/p.
 */
export interface ChallengeSize {
  /** Rows and columns of the matrices. */
  side: number;
  /** Elements of each of the memory's segments. */
  elements: number;
}

/** The largest prime below 2^21: products fit 42 bits, so 2,048 of them add up exactly in a double. */
export const PRIME = 2_097_143;
/** The memory's part is cut so, whatever the number of cores. */
export const SEGMENTS = 8;
/** Elements of a chunk, which is a leaf of the commitment. */
export const CHUNK_ELEMENTS = 1024;
const PASSES = 8;
/** A pass reads two words and writes one for each element. */
const BYTES_PER_ELEMENT = PASSES * 12;
const SIDE_MIN = 16;
const SUMS_BETWEEN_MODULO = 2048;
const MULTIPLIER = 0x9e3779b1;

/** How much work a device has by what is declared of it, under the rule of the chain. */
export function challengeSize(
  rule: { deadlineMs: number; rateFillBps: number; memoryFillBps: number },
  declared: { rate: number; memoryMbs: number },
): ChallengeSize {
  const share = (bps: number) => (BigInt(rule.deadlineMs) * BigInt(bps)) / 10_000n;
  const products = BigInt(declared.rate) * 1000n * share(rule.rateFillBps);
  let side = BigInt(SIDE_MIN);
  for (let step = 1n << 20n; step > 0n; step >>= 1n) if ((side + step) ** 3n <= products) side += step;
  const bytes = BigInt(declared.memoryMbs) * 1000n * share(rule.memoryFillBps);
  const chunks = bytes / BigInt(BYTES_PER_ELEMENT * SEGMENTS * CHUNK_ELEMENTS);
  return { side: Number(side), elements: Math.max(1, Number(chunks)) * CHUNK_ELEMENTS };
}

/** Leaves of the commitment: the rows of C, then the chunks of all segments. */
export function leafCount({ side, elements }: ChallengeSize): number {
  return side + (SEGMENTS * elements) / CHUNK_ELEMENTS;
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

/** Rows of a matrix of the challenge, from `from` on, into `rows`. */
export function fillRows(
  rows: Float32Array | Float64Array,
  { seed, matrix, side, from }: { seed: Uint8Array; matrix: 'a' | 'b'; side: number; from: number },
): void {
  const key = keyOf(seed, matrix);
  const start = from * side;
  for (let at = 0; at < rows.length; at += 1) {
    const value = mix(key, start + at) >>> 11;
    rows[at] = value >= PRIME ? value - PRIME : value;
  }
}

/** Rows of C: `a` has whole rows of A, `b` is all of B. */
export function multiplyRows(a: Float64Array, b: Float32Array, side: number): Uint32Array {
  const count = a.length / side;
  const product = new Uint32Array(a.length);
  const sums = new Float64Array(side);
  for (let row = 0; row < count; row += 1) {
    sums.fill(0);
    for (let from = 0; from < side; from += SUMS_BETWEEN_MODULO - 4) {
      addProducts(sums, a, b, { side, offset: row * side, from, to: Math.min(side, from + SUMS_BETWEEN_MODULO - 4) });
      for (let column = 0; column < side; column += 1) sums[column] = (sums[column] as number) % PRIME;
    }
    for (let column = 0; column < side; column += 1) product[row * side + column] = sums[column] as number;
  }
  return product;
}

/** Four terms at a time: the sums are loaded and stored once for them. */
function addProducts(
  sums: Float64Array,
  a: Float64Array,
  b: Float32Array,
  { side, offset, from, to }: { side: number; offset: number; from: number; to: number },
): void {
  let term = from;
  for (; term + 3 < to; term += 4) {
    const [at0, at1, at2, at3] = [term * side, (term + 1) * side, (term + 2) * side, (term + 3) * side];
    const a0 = a[offset + term] as number;
    const a1 = a[offset + term + 1] as number;
    const a2 = a[offset + term + 2] as number;
    const a3 = a[offset + term + 3] as number;
    for (let column = 0; column < side; column += 1) {
      const before = sums[column] as number;
      const first = a0 * (b[at0 + column] as number) + a1 * (b[at1 + column] as number);
      sums[column] = before + first + (a2 * (b[at2 + column] as number) + a3 * (b[at3 + column] as number));
    }
  }
  for (; term < to; term += 1) {
    const factor = a[offset + term] as number;
    for (let column = 0; column < side; column += 1) sums[column] = (sums[column] as number) + factor * (b[term * side + column] as number);
  }
}

/** One segment of the memory's part, after all passes. */
export function runSegment(seed: Uint8Array, segment: number, elements: number): Uint32Array {
  const key = keyOf(seed, `memory ${segment}`);
  let from = new Uint32Array(elements);
  for (let at = 0; at < elements; at += 1) from[at] = mix(key, at);
  let to = new Uint32Array(elements);
  for (const stride of stridesOf(key, elements)) {
    for (let at = 0; at < elements; at += 1) {
      const other = at + stride;
      to[at] = Math.imul(from[at] as number, MULTIPLIER) + (from[other < elements ? other : other - elements] as number);
    }
    [from, to] = [to, from];
  }
  return from;
}

/** One element after all passes, from the 2^passes elements that it comes from. */
export function elementAfterPasses(seed: Uint8Array, { segment, elements, at }: { segment: number; elements: number; at: number }): number {
  const key = keyOf(seed, `memory ${segment}`);
  const strides = stridesOf(key, elements);
  const value = (pass: number, index: number): number => {
    if (pass === 0) return mix(key, index);
    const stride = strides[pass - 1] as number;
    return (Math.imul(value(pass - 1, index), MULTIPLIER) + value(pass - 1, (index + stride) % elements)) >>> 0;
  };
  return value(PASSES, at);
}

function stridesOf(key: Uint32Array, elements: number): number[] {
  return Array.from({ length: PASSES }, (_, pass) => 1 + (mix(key, 0x7fff_0000 + pass) % (elements - 1)));
}

/** The hash of a leaf: of a row of C, or of a chunk of memory, as little-endian words. */
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
