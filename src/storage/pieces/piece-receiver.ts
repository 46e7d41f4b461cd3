import { createReadStream } from 'node:fs';
import { type FileHandle, open, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { MillraceError } from '../../errors.ts';
import { asDiskError, readJsonFile, syncFolder, writeDurably } from '../content/durable-file.ts';
import type { Hex } from '../content/piece.ts';
import type { PieceIngest } from './piece-ingest.ts';
import type { StoredPiece } from './piece-store.ts';

/** A piece that somebody wants to store. With `cid` the payload must be the CAR of that content. */
export interface PieceWanted {
  root: Hex;
  rawSize: number;
  cid?: string;
}

/** Takes the bytes of one piece, in any number of appends. `offset` is the number of durable bytes. */
export interface PieceReceiver {
  readonly root: Hex;
  readonly rawSize: number;
  readonly offset: number;
  readonly isBusy: boolean;
  /**
   * Appends bytes at `offset`, hashing and checking them as they come; gives the new durable offset. When the body breaks
   * off or the signal aborts, what came before is kept and durable. When the bytes are wrong, all is discarded.
   * @throws upload-offset-mismatch, upload-too-big, piece-busy, disk-full, bad-car, bad-block, car-too-many-blocks
   */
  append(body: AsyncIterable<Uint8Array>, options: { offset: number; signal?: AbortSignal }): Promise<number>;
  /**
   * Verifies the whole piece and makes it stored, indexed and retrievable.
   * @throws upload-incomplete, piece-mismatch, bad-car, car-incomplete, disk-full
   */
  commit(): Promise<StoredPiece>;
  /** Closes files; what is durable stays. */
  pause(): Promise<void>;
  /** Forgets what came. */
  discard(): Promise<void>;
}

const SYNC_EVERY_BYTES = 32 << 20;

/** Opens the receiver of a piece, going on where the last durable byte is. */
export async function openPieceReceiver(input: {
  folder: string;
  wanted: PieceWanted;
  newIngest: () => PieceIngest;
  install: (path: string, ingest: PieceIngest) => Promise<StoredPiece>;
  onClosed: () => void;
}): Promise<PieceReceiver> {
  const { folder, wanted } = input;
  const path = join(folder, `${wanted.root}.part`);
  const recordPath = join(folder, `${wanted.root}.json`);
  let offset = await durableOffset(path, recordPath, wanted);
  let ingest: PieceIngest | undefined;
  let isBusy = false;

  const record = () => writeDurably(recordPath, JSON.stringify({ version: 1, ...wanted, offset }));
  const caughtUp = async (): Promise<PieceIngest> => {
    if (ingest !== undefined && ingest.bytes === offset) return ingest;
    ingest?.abandon();
    const fresh = input.newIngest();
    if (offset > 0)
      for await (const chunk of createReadStream(path, { end: offset - 1, highWaterMark: 1 << 20 })) fresh.write(chunk as Buffer);
    ingest = fresh;
    return fresh;
  };
  const close = () => {
    ingest?.abandon();
    ingest = undefined;
  };
  const discard = async () => {
    close();
    offset = 0;
    await rm(path, { force: true });
    await rm(recordPath, { force: true });
    await syncFolder(folder);
    input.onClosed();
  };
  const exclusively = async <T>(work: () => Promise<T>): Promise<T> => {
    if (isBusy) throw busy(wanted.root);
    isBusy = true;
    try {
      return await work();
    } catch (error) {
      if (isWrongContent(error)) await discard();
      throw asDiskError(error, path);
    } finally {
      isBusy = false;
    }
  };

  const append = async (body: AsyncIterable<Uint8Array>, from: number, signal?: AbortSignal): Promise<number> => {
    if (from !== offset) throw offsetMismatch(wanted.root, from, offset);
    const taking = await caughtUp();
    const file = await open(path, offset === 0 ? 'w' : 'r+', 0o600);
    let at = offset;
    const makeDurable = async () => {
      if (at === offset) return;
      await file.datasync();
      offset = at;
      await record();
    };
    try {
      for await (const chunk of cutErrors(body, signal)) {
        if (at + chunk.length > wanted.rawSize) throw tooBig(wanted);
        await writeAll(file, chunk, at);
        taking.write(chunk);
        at += chunk.length;
        if (at - offset >= SYNC_EVERY_BYTES) await makeDurable();
      }
    } finally {
      await makeDurable().finally(() => file.close());
    }
    return offset;
  };

  return {
    root: wanted.root,
    rawSize: wanted.rawSize,
    get offset() {
      return offset;
    },
    get isBusy() {
      return isBusy;
    },
    append: (body, options) => exclusively(() => append(body, options.offset, options.signal)),
    commit: () =>
      exclusively(async () => {
        if (offset !== wanted.rawSize) throw incompleteUpload(wanted, offset);
        const stored = await input.install(path, await caughtUp());
        await rm(recordPath, { force: true });
        close();
        input.onClosed();
        return stored;
      }),
    async pause() {
      close();
      input.onClosed();
    },
    discard,
  };
}

/** The durable offset on disk; bytes beyond it may be torn and are cut off. */
async function durableOffset(path: string, recordPath: string, wanted: PieceWanted): Promise<number> {
  const record = (await readJsonFile(recordPath).catch(() => undefined)) as { rawSize?: number; offset?: number } | undefined;
  const size = await stat(path).then(
    (stats) => stats.size,
    () => 0,
  );
  const isUsable = record?.rawSize === wanted.rawSize && Number.isSafeInteger(record.offset) && (record.offset as number) <= size;
  const offset = isUsable ? (record?.offset as number) : 0;
  if (size > offset) await truncate(path, offset);
  return offset;
}

/** A body whose every failure is an `upload-cut`, ended by the signal too. */
async function* cutErrors(body: AsyncIterable<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of body) {
      signal?.throwIfAborted();
      yield chunk;
    }
  } catch (cause) {
    if (cause instanceof MillraceError) throw cause;
    throw new MillraceError('upload-cut', {
      actor: 'caller',
      message: `The upload broke off: ${(cause as Error).message}`,
      hint: 'What came is kept. Ask for the offset and go on there.',
      cause,
    });
  }
}

async function writeAll(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}

function isWrongContent(error: unknown): boolean {
  const codes = ['bad-car', 'bad-block', 'car-too-many-blocks', 'car-incomplete', 'piece-mismatch'];
  return error instanceof MillraceError && codes.includes(error.code);
}

function offsetMismatch(root: Hex, got: number, expected: number): MillraceError {
  return new MillraceError('upload-offset-mismatch', {
    actor: 'caller',
    message: `Got upload offset ${got} for piece ${root}, expected ${expected}`,
    values: { root, got, expected },
    hint: 'Ask for the offset and go on there.',
  });
}

function tooBig(wanted: PieceWanted): MillraceError {
  return new MillraceError('upload-too-big', {
    actor: 'caller',
    message: `The body goes beyond byte ${wanted.rawSize} of piece ${wanted.root}`,
    values: { root: wanted.root, limit: wanted.rawSize },
    hint: 'Send no more than the agreed size.',
  });
}

function incompleteUpload(wanted: PieceWanted, offset: number): MillraceError {
  return new MillraceError('upload-incomplete', {
    actor: 'caller',
    message: `Piece ${wanted.root} has ${offset} of ${wanted.rawSize} bytes`,
    values: { root: wanted.root, got: offset, expected: wanted.rawSize },
    hint: 'Send the rest first.',
  });
}

function busy(root: Hex): MillraceError {
  return new MillraceError('piece-busy', {
    actor: 'caller',
    message: `Piece ${root} is being received by another request`,
    values: { root },
    hint: 'Try again in a moment.',
  });
}
