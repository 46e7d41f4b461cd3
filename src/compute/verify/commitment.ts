import { keccak_256 } from '@noble/hashes/sha3.js';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';

/** What a provider says of one state: the hash of the chain up to it, and of the state itself (SHA-256). */
export interface SegmentLeaf {
  /** Number of the state: 0 is a function of the specification, i + 1 is what segment i makes of state i. */
  index: number;
  chainHash: Hex;
  stateHash: Hex;
}

/** What binds a provider to all its states: the Merkle root goes on chain, the rest stays with the provider. */
export interface Commitment {
  root: Hex;
  /** One for each state, T + 1 of them. */
  leaves: SegmentLeaf[];
  /** The nodes of the tree, lowest level first; the last level is the root. */
  levels: Uint8Array[][];
}

/** A leaf with the nodes beside its way to the root, lowest first. */
export interface LeafProof extends SegmentLeaf {
  proof: Hex[];
}

/** Segments that a job may have at most; the draws and rounds of the contract count on it. */
export const SEGMENTS_MAX = 1 << 20;
const WORD_BYTES = 32;
const ZERO_WORD = new Uint8Array(WORD_BYTES);
const LEAF_TAG = 0;
const NODE_TAG = 1;

/**
 * Commits to the states of a run (decision 0029): chain hashes, leaves padded with zero words to a power of two, nodes.
 * @param stateHashes SHA-256 of state 0 up to state T.
 * @throws bad-segments when there are fewer than two states, or too many
 */
export function commitStates(specHash: Hex, stateHashes: readonly Hex[]): Commitment {
  if (stateHashes.length < 2 || stateHashes.length > SEGMENTS_MAX + 1) {
    throw badSegments(`${stateHashes.length} states; a job of T segments has T + 1, and T is 1 to ${SEGMENTS_MAX}`);
  }
  const leaves: SegmentLeaf[] = [];
  for (const [index, stateHash] of stateHashes.entries()) {
    leaves.push({ index, stateHash, chainHash: chainHashOf({ specHash, index, previous: leaves.at(-1)?.chainHash, stateHash }) });
  }
  const words = leaves.map(leafWord);
  while ((words.length & (words.length - 1)) !== 0) words.push(ZERO_WORD);
  const levels = [words];
  for (let level = words; level.length > 1; ) {
    level = Array.from({ length: level.length / 2 }, (_, at) => node(level[2 * at] as Uint8Array, level[2 * at + 1] as Uint8Array));
    levels.push(level);
  }
  return { root: hexOf(levels.at(-1)?.[0] as Uint8Array), leaves, levels };
}

/**
 * The hash of the chain up to a state: `keccak256(specHash ‖ uint64 index ‖ previous ‖ stateHash)`, without `previous` at state 0. It binds
 * order, code and inputs: no state can be moved to another place or job.
 */
export function chainHashOf(parts: { specHash: Hex; index: number; previous: Hex | undefined; stateHash: Hex }): Hex {
  const { specHash, index, previous, stateHash } = parts;
  const words = [specHash, ...(index === 0 ? [] : [previous as Hex])].map(bytesOf);
  return hexOf(keccak_256(join(words[0] as Uint8Array, uint64(index), ...words.slice(1), bytesOf(stateHash))));
}

/**
 * A leaf with its proof.
 * @throws bad-segments when there is no such state
 */
export function proveLeaf(commitment: Commitment, index: number): LeafProof {
  const leaf = commitment.leaves[index];
  if (leaf === undefined) throw badSegments(`state ${index} of ${commitment.leaves.length}`);
  const proof = commitment.levels.slice(0, -1).map((level, height) => hexOf(level[(index >> height) ^ 1] as Uint8Array));
  return { ...leaf, proof };
}

/** Whether a leaf is under a root of a job of so many segments. The sides are the bits of its index, so there is one leaf for each index. */
export function isLeafOf(root: Hex, segments: number, leaf: LeafProof): boolean {
  if (!Number.isSafeInteger(leaf.index) || leaf.index < 0 || leaf.index > segments) return false;
  if (leaf.proof.length !== treeHeight(segments)) return false;
  let word = leafWord(leaf);
  for (const [height, side] of leaf.proof.entries()) {
    const other = bytesOf(side);
    if (other.length !== WORD_BYTES) return false;
    word = ((leaf.index >> height) & 1) === 0 ? node(word, other) : node(other, word);
  }
  return hexOf(word) === root.toLowerCase();
}

/** Levels between leaves and root of a job of so many segments. */
export function treeHeight(segments: number): number {
  return Math.ceil(Math.log2(segments + 1));
}

/** A statement on segments that makes no sense; whoever made it has to correct it. */
export function badSegments(reason: string): MillraceError {
  return new MillraceError('bad-segments', {
    actor: 'caller',
    message: `The segments of a job are not as they must be: ${reason}`,
    values: { reason },
    hint: 'Compare the number of segments with the terms of the job.',
  });
}

function leafWord({ index, chainHash, stateHash }: SegmentLeaf): Uint8Array {
  return keccak_256(join(Uint8Array.of(LEAF_TAG), uint64(index), bytesOf(chainHash), bytesOf(stateHash)));
}

function node(left: Uint8Array, right: Uint8Array): Uint8Array {
  return keccak_256(join(Uint8Array.of(NODE_TAG), left, right));
}

function uint64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

function join(...parts: Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

/** Much faster than any conversion in JavaScript; commitments are made of thousands. */
function hexOf(bytes: Uint8Array): Hex {
  return `0x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
}

function bytesOf(hex: Hex): Uint8Array {
  return Buffer.from(hex.slice(2), 'hex');
}
