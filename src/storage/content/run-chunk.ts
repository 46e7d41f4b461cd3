import type { CID } from 'multiformats/cid';
import { isIdentity } from './block.ts';
import { encodeCarHeader, sectionBytes } from './car.ts';

/** A leaf of a file: its block, its place in the file, and the node that links to it. */
export interface Leaf {
  cid: CID;
  bytes: number;
  start: number;
  parent: LeafParent;
}

/** The node above a leaf: where its bytes start in the file, and how long its own block is. */
export interface LeafParent {
  cid: CID;
  start: number;
  bytes: number;
  depth: number;
}

/** Neighbouring leaves below one node, and the exact length of the CAR that a gateway gives for them. */
export interface RunChunk {
  leaves: Leaf[];
  carBytes: number;
}

/**
 * As many of the first leaves as one CAR of at most `bytesMax` holds, without a gap and below one node, so that its length is known in
 * advance. Always one at least, however long.
 */
export function takeChunk(leaves: Leaf[], bytesMax: number): RunChunk {
  const { parent } = leaves[0] as Leaf;
  const chunk: RunChunk = {
    leaves: [],
    carBytes: encodeCarHeader(parent.cid).length + (isIdentity(parent.cid) ? 0 : sectionBytes(parent.bytes, parent.cid.bytes.length)),
  };
  for (const leaf of leaves) {
    const last = chunk.leaves.at(-1);
    const isNext = last === undefined || (leaf.parent.cid.equals(parent.cid) && leaf.start === last.start + last.bytes);
    const carBytes = chunk.carBytes + sectionBytes(leaf.bytes, leaf.cid.bytes.length);
    if (last !== undefined && (!isNext || carBytes > bytesMax || !isSection(leaf) || !isSection(last))) break;
    chunk.leaves.push(leaf);
    chunk.carBytes = carBytes;
  }
  return chunk;
}

/** An empty leaf belongs to no range of bytes, and one that is its own CID to no CAR. */
function isSection({ cid, bytes }: Leaf): boolean {
  return bytes > 0 && !isIdentity(cid);
}
