import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { MillraceError } from '../../errors.ts';
import { type CarIndex, createCarIndexer } from '../content/car-index.ts';
import { createPieceHasher } from '../content/commp.ts';
import { syncFolder } from '../content/durable-file.ts';
import { describePiece, type Hex, type PieceInfo } from '../content/piece.ts';
import { completePieceTree } from '../content/piece-tree.ts';

/** Takes a piece's bytes once, in order: CommP, the kept tree nodes, and the verified block index all come from one pass. */
export interface PieceIngest {
  readonly bytes: number;
  /** @throws bad-car, bad-block, car-too-many-blocks, disk-full */
  write(chunk: Uint8Array): void;
  /**
   * Checks root, size and content CID, completes the tree file and makes it and the index file durable.
   * @throws piece-mismatch, bad-car, car-incomplete, disk-full
   */
  finish(expected: { root: Hex; rawSize: number; cid?: string }): Promise<{ piece: PieceInfo; index: CarIndex }>;
  /** Gives up: removes what was written. Harmless after `finish`. */
  abandon(): void;
}

const NODES_BUFFER_BYTES = 64 << 10;

/** Starts taking a piece; the tree's nodes go to `treePath`, the block index to `indexPath`. */
export function createPieceIngest(paths: { treePath: string; indexPath: string; folder: string }): PieceIngest {
  let file: number | undefined = openSync(paths.treePath, 'w', 0o600);
  const nodes = Buffer.alloc(NODES_BUFFER_BYTES);
  let nodeBytes = 0;
  let isFinished = false;
  const flush = () => {
    for (let done = 0; done < nodeBytes; ) done += writeSync(file as number, nodes, done, nodeBytes - done);
    nodeBytes = 0;
  };
  const hasher = createPieceHasher({
    onKeptNodes(kept) {
      if (nodeBytes + kept.length > nodes.length) flush();
      nodes.set(kept, nodeBytes);
      nodeBytes += kept.length;
    },
  });
  const indexer = createCarIndexer();
  const close = () => {
    if (file !== undefined) closeSync(file);
    file = undefined;
  };
  return {
    get bytes() {
      return hasher.rawSize;
    },
    write(chunk) {
      hasher.write(chunk);
      indexer.write(chunk);
    },
    async finish(expected) {
      const hashed = hasher.finish();
      flush();
      close();
      const piece = describePiece(hashed);
      if (piece.root !== expected.root || piece.rawSize !== expected.rawSize) throw mismatch(piece, expected);
      const index = indexer.finish();
      if (expected.cid !== undefined && index.root.toString() !== expected.cid) throw wrongRoot(index.root.toString(), expected.cid);
      const tree = await open(paths.treePath, 'r+');
      try {
        await completePieceTree(tree, hashed);
        await tree.sync();
      } finally {
        await tree.close();
      }
      const indexFile = await open(paths.indexPath, 'w', 0o600);
      try {
        await indexFile.writeFile(index.rows);
        await indexFile.sync();
      } finally {
        await indexFile.close();
      }
      await syncFolder(paths.folder);
      isFinished = true;
      return { piece, index };
    },
    abandon() {
      if (isFinished) return;
      close();
      for (const path of [paths.treePath, paths.indexPath]) rmSync(path, { force: true });
      isFinished = true;
    },
  };
}

function mismatch(got: PieceInfo, expected: { root: Hex; rawSize: number }): MillraceError {
  return new MillraceError('piece-mismatch', {
    actor: 'peer',
    message: `Got piece ${got.root} of ${got.rawSize} bytes, expected ${expected.root} of ${expected.rawSize}`,
    values: { gotRoot: got.root, gotBytes: got.rawSize, root: expected.root, bytes: expected.rawSize },
    hint: 'Send the bytes that the deal names, from the start.',
  });
}

function wrongRoot(got: string, expected: string): MillraceError {
  return new MillraceError('piece-mismatch', {
    actor: 'peer',
    message: `The piece holds content ${got}, expected ${expected}`,
    values: { got, expected },
    hint: 'Send the bytes that the deal names, from the start.',
  });
}
