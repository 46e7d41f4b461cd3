import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { LEAF_BYTES } from '../content/block.ts';
import { asDiskError, readJsonFile, syncFolder, writeDurably } from '../content/durable-file.ts';
import { type PieceInfo, pieceOf } from '../content/piece.ts';
import { runInStep } from './in-step.ts';
import { type CodeShape, createReedSolomon } from './reed-solomon.ts';
import { writeShardCar } from './shard-car.ts';
import { layoutShards, type ShardLayout, type ShardManifest } from './shard-layout.ts';

/** One shard as it is stored: a UnixFS file in a CAR, which is a piece like any other. */
export interface PreparedShard {
  index: number;
  cid: string;
  carPath: string;
  carSize: number;
  piece: PieceInfo;
}

/** All shards of a content, complete and durable in the work folder. */
export interface PreparedShards extends ShardLayout {
  /** Root CID of the whole content. */
  cid: string;
  shards: PreparedShard[];
  /** All were there already; nothing was computed. */
  isReused: boolean;
}

/** How far preparing is, in bytes of all shards: first they are computed and written, then their pieces are. */
export interface ShardProgress {
  step: 'encode' | 'commit';
  doneBytes: number;
  totalBytes: number;
}

/** A content's CAR, its code, and where to work. */
export interface ShardInput {
  content: { cid: string; carPath: string; carSize: number };
  code: CodeShape;
  /** Private to this content and code; holds the shards' CARs until the caller deletes it. */
  workFolder: string;
  onProgress?: (progress: ShardProgress) => void;
  signal?: AbortSignal;
}

interface ShardRecord {
  version: 1;
  cid: string;
  carSize: number;
  k: number;
  n: number;
  shards: { cid: string; piece?: PieceInfo }[];
}

/**
 * Cuts a CAR into k data shards and computes n − k parity shards, each a CAR of its own with its piece, in constant memory
 * (about 3 MiB a shard). An interrupted preparation goes on: shards already written are kept, and so are pieces already
 * computed; half-written shards begin anew. The same CAR and code give the same shards everywhere.
 * @throws bad-erasure-code, disk-full
 */
export async function prepareShards(input: ShardInput): Promise<PreparedShards> {
  const { content, code, workFolder } = input;
  const layout = layoutShards(content.carSize, code);
  await mkdir(workFolder, { recursive: true, mode: 0o700 });
  try {
    const kept = await keptRecord(input, layout);
    const record = kept ?? (await encodeShards(input, layout));
    const isReused = record.shards.every(({ piece }) => piece !== undefined);
    if (!isReused) await commitShards(input, layout, record);
    const shards = record.shards.map((shard, index) => ({
      index,
      cid: shard.cid,
      carPath: shardPath(workFolder, index),
      carSize: layout.shardCarSize,
      piece: shard.piece as PieceInfo,
    }));
    return { ...layout, cid: content.cid, shards, isReused };
  } catch (error) {
    throw asDiskError(error, workFolder);
  }
}

/** What names the prepared shards. */
export function manifestOf(prepared: PreparedShards): ShardManifest {
  const { cid, carSize, k, n, shardBytes, shardCarSize } = prepared;
  const shards = prepared.shards.map((shard) => ({ cid: shard.cid, pieceCid: shard.piece.cidV2 }));
  return { cid, carSize, k, n, shardBytes, shardCarSize, shards };
}

/** The work folder's record if all shards of this content are there, written completely. */
async function keptRecord({ content, workFolder }: ShardInput, layout: ShardLayout): Promise<ShardRecord | undefined> {
  const record = (await readJsonFile(recordPath(workFolder)).catch(() => undefined)) as ShardRecord | undefined;
  const isSame =
    record?.version === 1 &&
    record.cid === content.cid &&
    record.carSize === content.carSize &&
    record.k === layout.k &&
    record.n === layout.n &&
    record.shards?.length === layout.n;
  if (!isSame) return undefined;
  for (let index = 0; index < layout.n; index += 1) {
    const stats = await stat(shardPath(workFolder, index)).catch(() => undefined);
    if (stats?.size !== layout.shardCarSize) return undefined;
  }
  return record;
}

async function encodeShards(input: ShardInput, layout: ShardLayout): Promise<ShardRecord> {
  const { content, workFolder, signal, onProgress } = input;
  const { k, n, shardBytes } = layout;
  const source = await open(content.carPath, 'r');
  try {
    const code = createReedSolomon(layout);
    const windows = code.allocate(n, Math.min(LEAF_BYTES, shardBytes));
    const produce = async (from: number, bytes: number): Promise<Uint8Array[]> => {
      signal?.throwIfAborted();
      const parts = windows.map((window) => window.subarray(0, bytes));
      const data = parts.slice(0, k);
      await Promise.all(data.map((part, index) => readPadded(source, part, index * shardBytes + from, content.carSize)));
      code.encode(data, parts.slice(k));
      onProgress?.({ step: 'encode', doneBytes: (from + bytes) * n, totalBytes: shardBytes * n });
      return parts;
    };
    const cids = await runInStep<CID>({
      count: n,
      sizeBytes: shardBytes,
      windowBytes: LEAF_BYTES,
      produce,
      consume: (index, reader) => writeShardCar({ path: `${shardPath(workFolder, index)}.part`, shardBytes, reader }),
    });
    for (let index = 0; index < n; index += 1) {
      const path = shardPath(workFolder, index);
      await rename(`${path}.part`, path);
    }
    await syncFolder(workFolder);
    const { cid, carSize } = content;
    const record: ShardRecord = { version: 1, cid, carSize, k, n, shards: cids.map((shard) => ({ cid: shard.toString() })) };
    await writeDurably(recordPath(workFolder), JSON.stringify(record));
    return record;
  } finally {
    await source.close();
  }
}

async function commitShards({ workFolder, signal, onProgress }: ShardInput, layout: ShardLayout, record: ShardRecord): Promise<void> {
  const totalBytes = layout.shardCarSize * layout.n;
  let doneBytes = 0;
  for (const [index, shard] of record.shards.entries()) {
    if (shard.piece === undefined) {
      shard.piece = await pieceOfFile(shardPath(workFolder, index), (bytes) => {
        signal?.throwIfAborted();
        onProgress?.({ step: 'commit', doneBytes: doneBytes + bytes, totalBytes });
      });
      await writeDurably(recordPath(workFolder), JSON.stringify(record));
    }
    doneBytes += layout.shardCarSize;
  }
}

/** The piece of a CAR on disk. */
export async function pieceOfFile(path: string, onBytes: (done: number) => void): Promise<PieceInfo> {
  const chunks = async function* () {
    let done = 0;
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
      yield chunk as Uint8Array;
      done += (chunk as Uint8Array).length;
      onBytes(done);
    }
  };
  return pieceOf(chunks());
}

/** Fills the target from a position of the file; bytes at and after `size` are zeros. */
async function readPadded(file: FileHandle, target: Uint8Array, position: number, size: number): Promise<void> {
  const there = Math.max(0, Math.min(target.length, size - position));
  for (let done = 0; done < there; ) {
    const { bytesRead } = await file.read(target, done, there - done, position + done);
    if (bytesRead === 0) throw shortCar(position + done, size);
    done += bytesRead;
  }
  target.fill(0, there);
}

function shardPath(workFolder: string, index: number): string {
  return join(workFolder, `shard-${index}.car`);
}

function recordPath(workFolder: string): string {
  return join(workFolder, 'shards.json');
}

function shortCar(got: number, expected: number): MillraceError {
  return new MillraceError('source-changed', {
    actor: 'caller',
    message: `The CAR ends after ${got} bytes, expected ${expected}`,
    values: { got, expected },
    hint: 'Build the content again.',
  });
}
