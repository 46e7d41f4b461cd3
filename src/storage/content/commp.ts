import { hashInto } from '@chainsafe/hashtree';
import { FR32_PADDED_BYTES, FR32_RAW_BYTES, fr32Pad } from './fr32.ts';

/** Height of the lowest nodes that a prover keeps: one node per 32 KiB of padded data. */
export const KEPT_HEIGHT = 10;
/** Payload bytes below one kept node: 256 fr32 groups. */
export const KEPT_RAW_BYTES = ((32 << KEPT_HEIGHT) / FR32_PADDED_BYTES) * FR32_RAW_BYTES;

const BLOCK_HEIGHT = 13;
const BLOCK_PADDED = 32 << BLOCK_HEIGHT;
const BLOCK_RAW = (BLOCK_PADDED / FR32_PADDED_BYTES) * FR32_RAW_BYTES;
const MAX_HEIGHT = 58;

/** The commitment of a piece: root node, height of its tree (2^height leaves of 32 bytes) and payload bytes. */
export interface PieceRoot {
  root: Uint8Array;
  height: number;
  rawSize: number;
}

/** Takes payload bytes in pieces of any size and gives the CommP root at the end, in constant memory. */
export interface PieceHasher {
  readonly rawSize: number;
  write(bytes: Uint8Array): void;
  /** Root, height and size. The hasher cannot be written to afterwards. */
  finish(): PieceRoot;
}

/** Clears the two top bits of each 32-byte node in the first `bytes` bytes: sha2-256-trunc254. */
export function truncateNodes(nodes: Uint8Array, bytes: number): void {
  for (let i = 31; i < bytes; i += 32) nodes[i] = (nodes[i] as number) & 0x3f;
}

/** The parent of two nodes: SHA-256 with the two top bits of the last byte cleared. */
export function hashNodes(left: Uint8Array, right: Uint8Array): Uint8Array {
  const pair = new Uint8Array(64);
  pair.set(left, 0);
  pair.set(right, 32);
  const parent = new Uint8Array(32);
  hashInto(pair, parent);
  truncateNodes(parent, 32);
  return parent;
}

const zeroNodes: Uint8Array[] = [new Uint8Array(32)];

/** The root of a subtree of the given height that holds only zeros. */
export function zeroNode(height: number): Uint8Array {
  while (zeroNodes.length <= height) {
    const below = zeroNodes[zeroNodes.length - 1] as Uint8Array;
    zeroNodes.push(hashNodes(below, below));
  }
  return zeroNodes[height] as Uint8Array;
}

/** Leaves of 32 bytes that `rawSize` payload bytes touch: ceil(bits / 254). Only these are ever challenged. */
export function payloadLeaves(rawSize: number): number {
  return Number((BigInt(rawSize) * 8n + 253n) / 254n);
}

/** Height of the smallest tree that holds `rawSize` payload bytes; at least 2 (128 padded bytes), as Filecoin pads. */
export function pieceHeight(rawSize: number): number {
  const groups = Math.max(1, Math.ceil(rawSize / FR32_RAW_BYTES));
  let height = 2;
  while (2 ** (height - 2) < groups) height += 1;
  return height;
}

/** Nodes of a height that payload touches; everything right of them is a zero subtree. */
export function nodesAtHeight(rawSize: number, height: number): number {
  return Math.max(1, Math.ceil((Math.ceil(rawSize / FR32_RAW_BYTES) * 4) / 2 ** height));
}

/**
 * CommP of bytes as they come: fr32 padding and the binary SHA-256-trunc254 tree, level by level in blocks of 256 KiB.
 * `onKeptNodes` receives the nodes of height 10 in order (a view that is only valid during the call).
 * Rule: Filecoin piece commitment, FRC-0069.
 */
export function createPieceHasher(options: { onKeptNodes?: (nodes: Uint8Array) => void } = {}): PieceHasher {
  const levels = [Buffer.alloc(BLOCK_PADDED), Buffer.alloc(BLOCK_PADDED >> 1), Buffer.alloc(BLOCK_PADDED >> 2)];
  const pending = Buffer.alloc(BLOCK_RAW);
  const subtrees: (Uint8Array | undefined)[] = []; // binary counter: [i] is a full subtree of 2^i blocks
  let pendingBytes = 0;
  let rawSize = 0;

  const reduce = (groups: number, height: number): Uint8Array => {
    let nodes = groups * 4;
    let [from, to, spare] = levels as [Buffer, Buffer, Buffer];
    for (let level = 0; level < height; level += 1) {
      if (nodes % 2 === 1) {
        from.set(zeroNode(level), nodes * 32);
        nodes += 1;
      }
      hashInto(from.subarray(0, nodes * 32), to.subarray(0, nodes * 16));
      nodes /= 2;
      truncateNodes(to, nodes * 32);
      if (level + 1 === KEPT_HEIGHT) options.onKeptNodes?.(to.subarray(0, nodes * 32));
      [from, to, spare] = level === 0 ? [to, spare, from] : [to, from, spare];
    }
    return Uint8Array.from(from.subarray(0, 32));
  };

  const addBlock = (source: Uint8Array, offset: number): void => {
    fr32Pad(source, offset, BLOCK_RAW / FR32_RAW_BYTES, levels[0] as Buffer);
    let node = reduce(BLOCK_RAW / FR32_RAW_BYTES, BLOCK_HEIGHT);
    let level = 0;
    for (; subtrees[level] !== undefined; level += 1) {
      node = hashNodes(subtrees[level] as Uint8Array, node);
      subtrees[level] = undefined;
    }
    subtrees[level] = node;
  };

  return {
    get rawSize() {
      return rawSize;
    },
    write(bytes) {
      rawSize += bytes.length;
      let offset = 0;
      if (pendingBytes > 0) {
        offset = Math.min(BLOCK_RAW - pendingBytes, bytes.length);
        pending.set(bytes.subarray(0, offset), pendingBytes);
        pendingBytes += offset;
        if (pendingBytes < BLOCK_RAW) return;
        addBlock(pending, 0);
        pendingBytes = 0;
      }
      for (; bytes.length - offset >= BLOCK_RAW; offset += BLOCK_RAW) addBlock(bytes, offset);
      pending.set(bytes.subarray(offset), 0);
      pendingBytes = bytes.length - offset;
    },
    finish() {
      const height = pieceHeight(rawSize);
      let node: Uint8Array | undefined;
      if (pendingBytes > 0 || rawSize === 0) {
        const groups = Math.max(1, Math.ceil(pendingBytes / FR32_RAW_BYTES));
        pending.fill(0, pendingBytes, groups * FR32_RAW_BYTES);
        fr32Pad(pending, 0, groups, levels[0] as Buffer);
        node = reduce(groups, Math.min(height, BLOCK_HEIGHT));
      }
      for (let level = 0; BLOCK_HEIGHT + level < height; level += 1) {
        const left = subtrees[level];
        if (left !== undefined) node = hashNodes(left, node ?? zeroNode(BLOCK_HEIGHT + level));
        else if (node !== undefined) node = hashNodes(node, zeroNode(BLOCK_HEIGHT + level));
      }
      return { root: node ?? (subtrees[height - BLOCK_HEIGHT] as Uint8Array), height, rawSize };
    },
  };
}

/** The greatest piece height that this code accepts from others. */
export const PIECE_HEIGHT_MAX = MAX_HEIGHT;
