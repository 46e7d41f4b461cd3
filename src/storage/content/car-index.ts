import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { isIdentity, linksOf } from './block.ts';
import { createCarScanner } from './car.ts';

/** Bytes of one row of a block index: SHA-256 digest (32), offset of the block's bytes in the CAR (8), their number (4). */
export const INDEX_ROW_BYTES = 44;
const BLOCKS_MAX = 1 << 20;
const LINKS_MAX = 1 << 21;

/** What is in a CAR: its root, how many blocks, whether they stand in depth-first order, and where each is. */
export interface CarIndex {
  root: CID;
  blocks: number;
  /** The CAR is exactly the depth-first walk from its root, every occurrence of a block included. */
  isDepthFirst: boolean;
  /** Rows sorted by digest. */
  rows: Buffer;
}

/** Verifies and indexes a CAR as it comes. */
export interface CarIndexer {
  /** @throws bad-car, bad-block, car-too-many-blocks */
  write(chunk: Uint8Array): void;
  /** @throws bad-car, car-incomplete */
  finish(): CarIndex;
}

/**
 * Verifies every block of a CAR and finds where each is; at the end every link must lead to a block in the CAR, so that
 * what is indexed can be retrieved. Memory: 44 bytes a block and 32 a link, both limited.
 */
export function createCarIndexer(): CarIndexer {
  const rows = growingRows(INDEX_ROW_BYTES, BLOCKS_MAX);
  const links = growingRows(32, LINKS_MAX);
  let expected: CID[] | undefined; // depth-first walk still to come, last first
  let isDepthFirst = true;

  const scanner = createCarScanner(({ cid, bytes, offset }) => {
    const row = rows.next();
    row.set(cid.multihash.digest);
    row.writeUInt32BE(Math.floor(offset / 2 ** 32), 32);
    row.writeUInt32BE(offset % 2 ** 32, 36);
    row.writeUInt32BE(bytes.length, 40);
    const children = childrenOf(cid, bytes);
    for (const child of children) links.next().set(child.multihash.digest.subarray(0, 32));
    expected ??= [scanner.root as CID];
    if (!isDepthFirst) return;
    isDepthFirst = expected.pop()?.equals(cid) === true;
    for (let i = children.length - 1; i >= 0 && isDepthFirst; i -= 1) expected.push(children[i] as CID);
  });

  return {
    write: (chunk) => scanner.write(chunk),
    finish() {
      const root = scanner.finish();
      const sorted = sortRows(rows.bytes());
      const wanted = links.bytes();
      if (findRow(sorted, root.multihash.digest) < 0) throw incomplete(root.multihash.digest);
      for (let at = 0; at < wanted.length; at += 32) {
        const digest = wanted.subarray(at, at + 32);
        if (findRow(sorted, digest) < 0) throw incomplete(digest);
      }
      return { root, blocks: sorted.length / INDEX_ROW_BYTES, isDepthFirst: isDepthFirst && expected?.length === 0, rows: sorted };
    },
  };
}

/** Index of the row with a digest among sorted rows, or -1. */
export function findRow(rows: Buffer, digest: Uint8Array): number {
  let low = 0;
  let high = rows.length / INDEX_ROW_BYTES - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const order = rows.compare(digest, 0, 32, middle * INDEX_ROW_BYTES, middle * INDEX_ROW_BYTES + 32);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

/** Where a row's block is in the CAR. */
export function readRow(row: Buffer): { digest: Buffer; offset: number; length: number } {
  return { digest: row.subarray(0, 32), offset: row.readUInt32BE(32) * 2 ** 32 + row.readUInt32BE(36), length: row.readUInt32BE(40) };
}

function childrenOf(cid: CID, bytes: Uint8Array): CID[] {
  try {
    return linksOf(cid, bytes).filter((link) => !isIdentity(link));
  } catch (cause) {
    throw new MillraceError('bad-block', {
      actor: 'peer',
      message: `Block ${cid} is no dag-pb node`,
      values: { cid: cid.toString() },
      cause,
    });
  }
}

function growingRows(rowBytes: number, limit: number): { next(): Buffer; bytes(): Buffer } {
  let buffer = Buffer.alloc(rowBytes * 256);
  let count = 0;
  return {
    next() {
      if (count === limit) {
        throw new MillraceError('car-too-many-blocks', {
          actor: 'peer',
          message: `The CAR has more than ${limit} blocks or links`,
          values: { limit },
          hint: 'Store the content in several parts, or with larger blocks.',
        });
      }
      if ((count + 1) * rowBytes > buffer.length) {
        const larger = Buffer.alloc(buffer.length * 2);
        buffer.copy(larger);
        buffer = larger;
      }
      count += 1;
      return buffer.subarray((count - 1) * rowBytes, count * rowBytes);
    },
    bytes: () => buffer.subarray(0, count * rowBytes),
  };
}

function sortRows(rows: Buffer): Buffer {
  const count = rows.length / INDEX_ROW_BYTES;
  const keys = new Float64Array(count);
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) {
    keys[i] = rows.readUIntBE(i * INDEX_ROW_BYTES, 6);
    order[i] = i;
  }
  order.sort((a, b) => (keys[a] as number) - (keys[b] as number) || compareRows(rows, a, b));
  const sorted = Buffer.alloc(rows.length);
  order.forEach((from, to) => {
    rows.copy(sorted, to * INDEX_ROW_BYTES, from * INDEX_ROW_BYTES, (from + 1) * INDEX_ROW_BYTES);
  });
  return sorted;
}

function compareRows(rows: Buffer, a: number, b: number): number {
  return rows.compare(rows, b * INDEX_ROW_BYTES, (b + 1) * INDEX_ROW_BYTES, a * INDEX_ROW_BYTES, (a + 1) * INDEX_ROW_BYTES);
}

function incomplete(digest: Uint8Array): MillraceError {
  const sha256 = Buffer.from(digest).toString('hex');
  return new MillraceError('car-incomplete', {
    actor: 'peer',
    message: `The CAR links to a block that it does not hold, SHA-256 ${sha256}`,
    values: { sha256 },
    hint: 'Send the whole content: every block that the root leads to.',
  });
}
