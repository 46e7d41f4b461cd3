import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { isIdentity, LEAF_BYTES, linksOf, parseCid } from '../content/block.ts';
import { CAR_HEADER_BYTES, createCarScanner } from '../content/car.ts';
import { asDiskError, syncFolder } from '../content/durable-file.ts';
import type { PieceInfo } from '../content/piece.ts';
import { type PreparedShard, pieceOfFile } from './prepare-shards.ts';
import type { CodeShape } from './reed-solomon.ts';
import { writeShardCar } from './shard-car.ts';
import { inOrder, type OfferedShard, openShardSet, type ShardSet, type UnusableShard } from './shard-set.ts';

const READ_AHEAD_WINDOWS = 8;

/** A content whose CAR was put together again. */
export interface DecodedCar {
  cid: string;
  carPath: string;
  carSize: number;
  /** Offered shards that could not be used, and why. */
  unusable: readonly UnusableShard[];
}

/** Shards of a content and what the content must be. */
export interface DecodeInput {
  /** Root CID of the whole content. */
  cid: string;
  code: CodeShape;
  shards: readonly OfferedShard[];
  /** Where the CAR goes; it is there only when it is complete and verified. */
  carPath: string;
  onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void;
  signal?: AbortSignal;
}

/**
 * Puts a content's CAR together from any k of its shards, in constant memory. Every shard is verified before it is used;
 * afterwards every block of the CAR is, from the root on, and its end is found: nothing but the CIDs need be known.
 * @throws bad-erasure-code, too-few-shards, shards-inconsistent, disk-full
 */
export async function decodeShards(input: DecodeInput): Promise<DecodedCar> {
  const { carPath, signal, onProgress } = input;
  const unfinished = `${carPath}.part`;
  await mkdir(dirname(carPath), { recursive: true });
  try {
    const set = await openShardSet(input);
    const { k, shardBytes } = set;
    const file = await open(unfinished, 'w+', 0o600);
    try {
      const data = Array.from({ length: k }, (_, index) => index);
      const readAt = (from: number) => set.read(data, from, Math.min(shardBytes, from + LEAF_BYTES));
      let ahead = readAt(0);
      for (let from = 0; from < shardBytes; from += LEAF_BYTES) {
        const parts = await ahead;
        if (from + LEAF_BYTES < shardBytes) ahead = readAt(from + LEAF_BYTES);
        ahead.catch(() => {});
        await Promise.all(parts.map((part, index) => writeFully(file, part, index * shardBytes + from)));
        onProgress?.({ doneBytes: Math.min(shardBytes, from + LEAF_BYTES) * k, totalBytes: shardBytes * k });
      }
      const carSize = await findCarEnd(file, k * shardBytes);
      await file.truncate(carSize);
      await verifyCar(unfinished, input.cid, signal);
      await file.sync();
      await rename(unfinished, carPath);
      await syncFolder(dirname(carPath));
      return { cid: input.cid, carPath, carSize, unusable: set.unusable };
    } finally {
      await file.close();
    }
  } catch (error) {
    await rm(unfinished, { force: true });
    throw asDiskError(error, carPath);
  }
}

/**
 * Bytes [from, to) of a content's CAR, in order: read from the data shards that hold them, computed only where one is missing.
 * A few MiB ahead are under way. The CAR's end is not known here: zeros follow it.
 * @throws too-few-shards
 */
export async function* readCarRange(set: ShardSet, from: number, to: number): AsyncGenerator<Uint8Array> {
  const end = Math.min(to, set.k * set.shardBytes);
  const ahead: Promise<Uint8Array[]>[] = [];
  for (let next = from; next < end || ahead.length > 0; ) {
    while (next < end && ahead.length < READ_AHEAD_WINDOWS) {
      const index = Math.floor(next / set.shardBytes);
      const start = next - index * set.shardBytes;
      // Windows end at leaves' borders, so that no leaf is fetched twice.
      const stop = Math.min(set.shardBytes, (Math.floor(start / LEAF_BYTES) + 1) * LEAF_BYTES, end - index * set.shardBytes);
      const reading = set.read([index], start, stop);
      reading.catch(() => {});
      ahead.push(reading);
      next += stop - start;
    }
    yield* await (ahead.shift() as Promise<Uint8Array[]>);
  }
}

/**
 * Computes one shard from any k others and makes it a piece again, for a repairer. A shard whose CID is not the one that the
 * file's owner stated cannot be made by anybody: check this before a repair is claimed.
 * @throws bad-erasure-code, too-few-shards, shards-inconsistent, disk-full
 */
export async function rebuildShard(input: {
  code: CodeShape;
  index: number;
  /** The CID that the shard must have. */
  cid: string;
  shards: readonly OfferedShard[];
  /** Where the shard's CAR goes; it is there only when it is complete and verified. */
  carPath: string;
  onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void;
  signal?: AbortSignal;
}): Promise<PreparedShard> {
  const { code, index, carPath, signal, onProgress } = input;
  const unfinished = `${carPath}.part`;
  await mkdir(dirname(carPath), { recursive: true });
  try {
    const set = await openShardSet({ code, shards: input.shards.filter((shard) => shard.index !== index), signal });
    const { shardBytes } = set;
    const read = async (from: number, to: number) => (await set.read([index], from, to))[0] as Uint8Array;
    const reader = inOrder(shardBytes, read, signal, (doneBytes) => onProgress?.({ doneBytes, totalBytes: shardBytes }));
    const cid = await writeShardCar({ path: unfinished, shardBytes, reader });
    if (cid.toString() !== input.cid) throw inconsistent(`shard ${index} is ${cid}`, input.cid);
    let carSize = 0;
    const piece: PieceInfo = await pieceOfFile(unfinished, (done) => {
      carSize = done;
    });
    await rename(unfinished, carPath);
    await syncFolder(dirname(carPath));
    return { index, cid: input.cid, carPath, carSize, piece };
  } catch (error) {
    await rm(unfinished, { force: true });
    throw asDiskError(error, carPath);
  }
}

/** Where a CARv1 that zeros follow ends: no section of a CAR has length zero. */
async function findCarEnd(file: FileHandle, limit: number): Promise<number> {
  const prefix = new Uint8Array(8);
  for (let at = 0; at < limit; ) {
    const { bytesRead } = await file.read(prefix, 0, prefix.length, at);
    let length = 0;
    let used = 0;
    for (; used < bytesRead; used += 1) {
      const byte = prefix[used] as number;
      length += (byte & 0x7f) * 2 ** (7 * used);
      if (byte < 0x80) break;
    }
    if (length === 0 && at >= CAR_HEADER_BYTES) return at;
    at += used + 1 + length;
    if (at > limit || used === bytesRead) throw inconsistent(`a CAR that goes on to byte ${at}`, `one that ends by byte ${limit}`);
  }
  return limit;
}

/** Every block has its hash, and the CAR is exactly the depth-first walk from the root, as contents are built: nothing is missing. */
async function verifyCar(path: string, cid: string, signal: AbortSignal | undefined): Promise<void> {
  const expected: CID[] = [parseCid(cid)];
  const scanner = createCarScanner((block) => {
    const next = expected.pop();
    if (next?.equals(block.cid) !== true) throw inconsistent(`block ${block.cid}`, String(next ?? 'the end of the CAR'));
    const children = linksOf(block.cid, block.bytes).filter((link) => !isIdentity(link));
    for (const child of children.reverse()) expected.push(child);
  });
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
      signal?.throwIfAborted();
      scanner.write(chunk as Uint8Array);
    }
    scanner.finish();
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof MillraceError && error.code === 'shards-inconsistent') throw error;
    throw inconsistent(error instanceof Error ? error.message : String(error), `the CAR of ${cid}`, error);
  }
  if (expected.length > 0) throw inconsistent('a CAR that ends', `block ${expected.pop()}`);
}

async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

function inconsistent(got: string, expected: string, cause?: unknown): MillraceError {
  return new MillraceError('shards-inconsistent', {
    actor: 'caller',
    message: `Every shard has its CID, but together they do not give what their owner stated: got ${got}, expected ${expected}`,
    values: { got, expected },
    hint: 'Whoever stored this file made it so; no other holder can have it better.',
    cause,
  });
}
