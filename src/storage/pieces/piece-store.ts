import { createReadStream, type Dirent } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { isBlockOf, isIdentity } from '../content/block.ts';
import { INDEX_ROW_BYTES, readRow } from '../content/car-index.ts';
import { readJsonFile, syncFolder, writeDurably } from '../content/durable-file.ts';
import type { Hex, PieceInfo } from '../content/piece.ts';
import { type LeafOpening, openPieceTree, type PieceTree, pieceTreeBytes } from '../content/piece-tree.ts';
import { createPieceIngest } from './piece-ingest.ts';
import { openPieceReceiver, type PieceReceiver, type PieceWanted } from './piece-receiver.ts';

/** A piece that is stored, verified, indexed and retrievable. */
export interface StoredPiece extends PieceInfo {
  /** The content's root CID. */
  cid: string;
  blocks: number;
  /** The payload is the depth-first walk of the content, so that a whole CAR can be served from the file as it is. */
  isDepthFirst: boolean;
  /** Wall-clock milliseconds; for people, no rule depends on it. */
  storedAtMs: number;
}

/** A provider's disk: pieces, their tree nodes and their block indexes, each in its own file; no database. */
export interface PieceStore {
  /**
   * Takes the bytes of a piece, resumable; the same receiver goes on after a restart. A piece that is already stored gives
   * a receiver whose offset is its size.
   * @throws no-room, disk-full, piece-busy
   */
  receive(wanted: PieceWanted): Promise<PieceReceiver>;
  piece(root: Hex): StoredPiece | undefined;
  /** The stored piece whose content has this root CID. */
  pieceOfContent(cid: CID): StoredPiece | undefined;
  list(): StoredPiece[];
  /** Forgets a piece. Reads that have begun go on. */
  delete(root: Hex): Promise<void>;
  /** Removes unfinished pieces that nobody touched for so long; gives how many. */
  collectGarbage(options: { unfinishedOlderThanMs: number }): Promise<number>;
  /** Bytes: the quota, what is stored, what is promised to unfinished pieces, and what the disk still has. */
  usage(): Promise<{ quotaBytes: number; storedBytes: number; reservedBytes: number; freeDiskBytes: number }>;
  /**
   * A leaf of the piece's tree and its path, from 32 KiB of payload.
   * @throws piece-unknown, piece-damaged, bad-leaf-index
   */
  openLeaf(root: Hex, leafIndex: number): Promise<LeafOpening>;
  /**
   * The bytes of a block, checked against its CID; undefined when no piece has it.
   * @throws piece-damaged
   */
  block(cid: CID): Promise<Uint8Array | undefined>;
  hasBlock(cid: CID): Promise<boolean>;
  /**
   * The payload (the CAR) from `start` to `end` exclusive.
   * @throws piece-unknown
   */
  readPayload(root: Hex, range?: { start: number; end: number }): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** Where the store is and how much it may take. */
export interface PieceStoreOptions {
  folder: string;
  quotaBytes: number;
  log: Logger;
}

/** A stored piece with the first four bytes of each of its blocks' digests, sorted: 4 bytes of memory per block. */
interface Held {
  piece: StoredPiece;
  prefixes: Uint32Array;
}

const TREES_OPEN_MAX = 64;
const LOCATED_MAX = 512;

/**
 * Opens a provider's piece store. Whatever was acknowledged before a crash is there; leftovers of unfinished commits are
 * completed by receiving again or removed.
 * @throws disk-full, file-damaged
 */
export async function openPieceStore(options: PieceStoreOptions): Promise<PieceStore> {
  const { folder, quotaBytes, log } = options;
  const pieces = join(folder, 'pieces');
  const incoming = join(folder, 'incoming');
  for (const each of [pieces, incoming]) await mkdir(each, { recursive: true, mode: 0o700 });
  const held = await loadPieces(pieces, log);
  const receivers = new Map<Hex, PieceReceiver>();
  const openings = new Map<Hex, Promise<PieceReceiver>>();
  const rootsOfContent = new Map([...held.values()].map(({ piece }) => [piece.cid, piece.root]));
  const trees = new Map<Hex, Promise<PieceTree>>();
  const pathOf = (root: Hex, kind: 'car' | 'tree' | 'index' | 'json') => join(pieces, `${root}.${kind}`);

  const storedBytes = () => [...held.values()].reduce((sum, { piece }) => sum + diskBytes(piece), 0);
  const reservedBytes = () => [...receivers.values()].reduce((sum, receiver) => sum + receiver.rawSize, 0);

  const checkRoom = async (rawSize: number): Promise<void> => {
    const taken = storedBytes() + reservedBytes();
    const { bavail, bsize } = await statfs(folder);
    const unwritten = [...receivers.values()].reduce((sum, receiver) => sum + receiver.rawSize - receiver.offset, 0);
    if (taken + rawSize > quotaBytes) throw noRoom(rawSize, Math.max(0, quotaBytes - taken));
    if (unwritten + rawSize * 1.01 > bavail * bsize) throw noRoom(rawSize, Math.max(0, bavail * bsize - unwritten));
  };

  /** Makes an ingested payload file a stored piece. The rename of the payload is the commit point. */
  const install = async (path: string, ingest: ReturnType<typeof createPieceIngest>, wanted: PieceWanted): Promise<StoredPiece> => {
    const { piece, index } = await ingest.finish(wanted);
    const stored: StoredPiece = {
      ...piece,
      cid: index.root.toString(),
      blocks: index.blocks,
      isDepthFirst: index.isDepthFirst,
      storedAtMs: Date.now(),
    };
    await writeDurably(pathOf(stored.root, 'json'), `${JSON.stringify(stored)}\n`);
    await rename(path, pathOf(stored.root, 'car'));
    await syncFolder(pieces);
    rootsOfContent.set(stored.cid, stored.root);
    held.set(stored.root, { piece: stored, prefixes: prefixesOf(index.rows) });
    log.info('piece-stored', { root: stored.root, cid: stored.cid, rawSize: stored.rawSize, blocks: stored.blocks });
    return stored;
  };
  const newIngest = (root: Hex) => createPieceIngest({ treePath: pathOf(root, 'tree'), indexPath: pathOf(root, 'index'), folder: pieces });

  /** Where blocks were found a moment ago: an answer asks for each twice, whether it is here and then for its bytes. */
  const located = new Map<string, { root: Hex; offset: number; length: number }>();
  const locate = async (cid: CID): Promise<{ root: Hex; offset: number; length: number } | undefined> => {
    const digest = Buffer.from(cid.multihash.digest);
    if (digest.length !== 32) return undefined;
    const key = digest.toString('latin1');
    const known = located.get(key);
    if (known !== undefined && held.has(known.root)) return known;
    for (const { piece, prefixes } of held.values()) {
      const at = await findInIndex(pathOf(piece.root, 'index'), prefixes, digest);
      if (at === undefined) continue;
      const place = { root: piece.root, ...at };
      if (located.size >= LOCATED_MAX) located.delete(located.keys().next().value as string);
      located.set(key, place);
      return place;
    }
    return undefined;
  };

  const treeOf = (root: Hex): Promise<PieceTree> => {
    const known = trees.get(root);
    if (known !== undefined) return known;
    const piece = held.get(root)?.piece;
    if (piece === undefined) throw unknownPiece(root);
    if (trees.size >= TREES_OPEN_MAX) closeTree([...trees.keys()][0] as Hex);
    const tree = openPieceTree({ payloadPath: pathOf(root, 'car'), treePath: pathOf(root, 'tree'), shape: piece });
    trees.set(root, tree);
    tree.catch(() => trees.delete(root));
    return tree;
  };
  const closeTree = (root: Hex): void => {
    const tree = trees.get(root);
    trees.delete(root);
    tree?.then((opened) => opened.close()).catch(() => {});
  };

  const openReceiver = async (wanted: PieceWanted): Promise<PieceReceiver> => {
    const receiver = await openPieceReceiver({
      folder: incoming,
      wanted,
      newIngest: () => newIngest(wanted.root),
      install: (path, ingest) => install(path, ingest, wanted),
      onClosed: () => receivers.delete(wanted.root),
    });
    receivers.set(wanted.root, receiver);
    return receiver;
  };
  for (const name of await readdir(incoming)) {
    if (!name.endsWith('.json')) continue;
    const wanted = (await readJsonFile(join(incoming, name)).catch(() => undefined)) as PieceWanted | undefined;
    if (wanted !== undefined && !held.has(wanted.root)) await openReceiver({ root: wanted.root, rawSize: wanted.rawSize, cid: wanted.cid });
  }

  return {
    async receive(wanted) {
      const known = receivers.get(wanted.root);
      if (known?.rawSize === wanted.rawSize) return known;
      if (known !== undefined) throw pieceSizeDiffers(wanted, known.rawSize);
      const stored = held.get(wanted.root)?.piece;
      if (stored !== undefined && stored.rawSize !== wanted.rawSize) throw pieceSizeDiffers(wanted, stored.rawSize);
      if (stored !== undefined) return finishedReceiver(stored);
      const opening = openings.get(wanted.root) ?? checkRoom(wanted.rawSize).then(() => openReceiver(wanted));
      openings.set(wanted.root, opening);
      return opening.finally(() => openings.delete(wanted.root));
    },
    piece: (root) => held.get(root)?.piece,
    pieceOfContent(cid) {
      const root = rootsOfContent.get(cid.toString());
      return root === undefined ? undefined : held.get(root)?.piece;
    },
    list: () => [...held.values()].map(({ piece }) => piece),
    async delete(root) {
      held.delete(root);
      closeTree(root);
      for (const kind of ['car', 'json', 'index', 'tree'] as const) await rm(pathOf(root, kind), { force: true });
      await syncFolder(pieces);
      log.info('piece-deleted', { root });
    },
    async collectGarbage({ unfinishedOlderThanMs }) {
      const oldest = Date.now() - unfinishedOlderThanMs;
      let removed = 0;
      const names = await readdir(incoming);
      for (const root of new Set(names.map((name) => name.split('.')[0] as Hex))) {
        const own = names.filter((name) => name.startsWith(`${root}.`)).map((name) => join(incoming, name));
        const touchedMs = await Promise.all(
          own.map((path) =>
            stat(path).then(
              (stats) => stats.mtimeMs,
              () => 0,
            ),
          ),
        );
        const receiver = receivers.get(root);
        if (receiver?.isBusy === true || Math.max(...touchedMs) > oldest) continue;
        await receiver?.discard();
        for (const path of own) await rm(path, { force: true });
        removed += 1;
      }
      if (removed > 0) log.info('garbage-collected', { pieces: removed });
      return removed;
    },
    async usage() {
      const { bavail, bsize } = await statfs(folder);
      return { quotaBytes, storedBytes: storedBytes(), reservedBytes: reservedBytes(), freeDiskBytes: bavail * bsize };
    },
    openLeaf: async (root, leafIndex) => (await treeOf(root)).openLeaf(leafIndex),
    async block(cid) {
      if (isIdentity(cid)) return cid.multihash.digest;
      const place = await locate(cid);
      if (place === undefined) return undefined;
      const bytes = await readPart(pathOf(place.root, 'car'), place.offset, place.length).catch((cause) => {
        throw damagedPiece(place.root, cause);
      });
      if (!isBlockOf(cid, bytes)) throw damagedPiece(place.root);
      return bytes;
    },
    hasBlock: async (cid) => isIdentity(cid) || (await locate(cid)) !== undefined,
    readPayload(root, range) {
      const piece = held.get(root)?.piece;
      if (piece === undefined) throw unknownPiece(root);
      const { start, end } = range ?? { start: 0, end: piece.rawSize };
      return createReadStream(pathOf(root, 'car'), { start, end: end - 1, highWaterMark: 256 << 10 });
    },
    async close() {
      for (const root of [...trees.keys()]) closeTree(root);
      await Promise.all([...receivers.values()].map((receiver) => receiver.pause()));
    },
  };
}

/** Loads the records of all complete pieces and removes what an interrupted commit or delete left behind. */
async function loadPieces(folder: string, log: Logger): Promise<Map<Hex, Held>> {
  const held = new Map<Hex, Held>();
  const names = new Set((await readdir(folder, { withFileTypes: true })).map((entry: Dirent) => entry.name));
  const roots = new Set([...names].map((name) => name.split('.')[0] as Hex));
  for (const root of roots) {
    if (['car', 'tree', 'index', 'json'].every((kind) => names.has(`${root}.${kind}`))) {
      const piece = (await readJsonFile(join(folder, `${root}.json`))) as StoredPiece;
      held.set(root, { piece, prefixes: prefixesOf(await readFile(join(folder, `${root}.index`))) });
    } else {
      log.warn('leftover-removed', { root });
      for (const name of names) if (name.startsWith(`${root}.`)) await rm(join(folder, name), { force: true });
    }
  }
  return held;
}

function prefixesOf(rows: Buffer): Uint32Array {
  const prefixes = new Uint32Array(rows.length / INDEX_ROW_BYTES);
  for (let i = 0; i < prefixes.length; i += 1) prefixes[i] = rows.readUInt32BE(i * INDEX_ROW_BYTES);
  return prefixes;
}

async function findInIndex(path: string, prefixes: Uint32Array, digest: Buffer): Promise<{ offset: number; length: number } | undefined> {
  const prefix = digest.readUInt32BE(0);
  let low = 0;
  for (let high = prefixes.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((prefixes[middle] as number) < prefix) low = middle + 1;
    else high = middle;
  }
  for (; prefixes[low] === prefix; low += 1) {
    const row = readRow(await readPart(path, low * INDEX_ROW_BYTES, INDEX_ROW_BYTES));
    if (row.digest.equals(digest)) return { offset: row.offset, length: row.length };
  }
  return undefined;
}

async function readPart(path: string, offset: number, length: number): Promise<Buffer> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await file.read(bytes, 0, length, offset);
    if (bytesRead < length) throw new RangeError(`Got ${bytesRead} bytes at ${offset}, expected ${length}`);
    return bytes;
  } finally {
    await file?.close();
  }
}

function diskBytes(piece: StoredPiece): number {
  return piece.rawSize + pieceTreeBytes(piece) + piece.blocks * INDEX_ROW_BYTES;
}

/** A receiver of a piece that is there already. */
function finishedReceiver(piece: StoredPiece): PieceReceiver {
  return {
    root: piece.root,
    rawSize: piece.rawSize,
    offset: piece.rawSize,
    isBusy: false,
    append: async () => piece.rawSize,
    commit: async () => piece,
    pause: async () => {},
    discard: async () => {},
  };
}

function pieceSizeDiffers(wanted: PieceWanted, known: number): MillraceError {
  return new MillraceError('piece-mismatch', {
    actor: 'peer',
    message: `Piece ${wanted.root} has ${known} bytes, got ${wanted.rawSize}`,
    values: { root: wanted.root, got: wanted.rawSize, expected: known },
  });
}

function unknownPiece(root: Hex): MillraceError {
  return new MillraceError('piece-unknown', { actor: 'caller', message: `Piece ${root} is not stored here`, values: { root } });
}

function damagedPiece(root: Hex, cause?: unknown): MillraceError {
  return new MillraceError('piece-damaged', {
    actor: 'host',
    message: `The stored piece ${root} is damaged or gone`,
    values: { root },
    hint: 'Declare the fault, restore the file and recover, or surrender the deal.',
    cause,
  });
}

function noRoom(wanted: number, free: number): MillraceError {
  return new MillraceError('no-room', {
    actor: 'host',
    message: `A piece of ${wanted} bytes does not fit, ${free} bytes are free`,
    values: { wanted, free },
    hint: 'Choose another provider; the operator can raise the quota or free some disk.',
  });
}
