import { once } from 'node:events';
import { constants } from 'node:fs';
import { access, chmod, type FileHandle, lstat, mkdir, open, rename, rm, truncate } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { MillraceError } from '../../errors.ts';
import { asDiskError, readJsonFile, syncFolder, writeDurably } from './durable-file.ts';

/** A file or folder to be written, in order. */
export interface OutputEntry {
  path: string;
  isFolder: boolean;
  mode?: number;
}

/** Where writing goes on: entries before `entry` are complete, of `entry` the first `offset` bytes are. */
export interface OutputPosition {
  entry: number;
  offset: number;
}

/** Takes the bytes of entries in order; nothing is at its final place before all are there. */
export interface Output {
  /** What an earlier, interrupted retrieval of the same content has left. */
  readonly position: OutputPosition;
  write(entry: number, bytes: Uint8Array): Promise<void>;
  finish(): Promise<void>;
  /** Keeps what came, for going on later. */
  pause(): Promise<void>;
}

const SYNC_EVERY_BYTES = 64 << 20;

/**
 * Writes to `<path>.part` and renames at the end. `identity` says what is written: what an interrupted run left behind is
 * only used for the same. Entries' paths must have been checked. Existing files are never replaced without `overwrite`.
 * @throws output-exists, output-unwritable, disk-full
 */
export async function openFileOutput(input: {
  path: string;
  kind: 'file' | 'folder';
  entries: OutputEntry[];
  identity: string;
  overwrite?: boolean;
}): Promise<Output> {
  const { kind, entries, identity } = input;
  const target = resolve(input.path);
  await prepareOutput(target, { kind, overwrite: input.overwrite });
  const part = `${target}.part`;
  const recordPath = `${target}.part.json`;
  const position = await leftPosition(part, recordPath, identity, kind === 'file' ? [] : entries);
  try {
    if (position.entry === 0 && position.offset === 0) await rm(part, { recursive: true, force: true });
    if (kind === 'folder') await mkdir(part, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw asOutputError(error, target);
  }
  let current: { entry: number; file: FileHandle; offset: number } | undefined;
  let unsynced = 0;
  const pathOf = (entry: number) => (kind === 'file' ? part : join(part, (entries[entry] as OutputEntry).path));

  const record = async (entry: number, offset: number) => {
    unsynced = 0;
    await writeDurably(recordPath, JSON.stringify({ identity, entry, offset }));
  };
  const closeCurrent = async () => {
    if (current === undefined) return;
    const { file, entry, offset } = current;
    current = undefined;
    await file.sync();
    await file.close();
    if (unsynced >= SYNC_EVERY_BYTES) await record(entry, offset);
  };
  const enter = async (entry: number): Promise<void> => {
    await closeCurrent();
    const { isFolder } = entries[entry] as OutputEntry;
    const path = pathOf(entry);
    if (isFolder) return void (await mkdir(path, { recursive: true }));
    if (kind === 'folder') await mkdir(dirname(path), { recursive: true });
    const isContinued = entry === position.entry && position.offset > 0;
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW | (isContinued ? 0 : constants.O_TRUNC);
    const offset = isContinued ? position.offset : 0;
    if (isContinued) await truncate(path, offset);
    current = { entry, file: await open(path, flags, 0o600), offset };
  };
  let entered = position.entry - 1;
  const enterUpTo = async (entry: number) => {
    for (; entered < entry; entered += 1) await enter(entered + 1);
  };

  return {
    position,
    async write(entry, bytes) {
      try {
        await enterUpTo(entry);
        if (current === undefined || bytes.length === 0) return;
        await writeAll(current.file, bytes, current.offset);
        current.offset += bytes.length;
        unsynced += bytes.length;
        if (unsynced < SYNC_EVERY_BYTES) return;
        await current.file.datasync();
        await record(current.entry, current.offset);
      } catch (error) {
        throw asOutputError(error, target);
      }
    },
    async finish() {
      try {
        await enterUpTo(entries.length - 1);
        await closeCurrent();
        for (let entry = entries.length - 1; entry >= 0; entry -= 1) {
          const { mode, isFolder } = entries[entry] as OutputEntry;
          await chmod(pathOf(entry), mode ?? (isFolder ? 0o755 : 0o644));
        }
        if (kind === 'folder') await chmod(part, 0o755);
        await rename(part, target);
        await rm(recordPath, { force: true });
        await syncFolder(dirname(target));
      } catch (error) {
        throw asOutputError(error, target);
      }
    },
    async pause() {
      if (current === undefined) return;
      const { file, entry, offset } = current;
      current = undefined;
      await file.sync().finally(() => file.close());
      await record(entry, offset);
    },
  };
}

/** Writes one file to a stream, such as standard output, no faster than it takes the bytes. */
export function openStreamOutput(stream: Writable): Output {
  let failure: unknown;
  stream.once('error', (error) => {
    failure = error;
  });
  return {
    position: { entry: 0, offset: 0 },
    async write(_entry, bytes) {
      if (failure !== undefined) throw failure;
      if (!stream.write(bytes)) await Promise.race([once(stream, 'drain'), once(stream, 'close')]);
    },
    finish: async () => {},
    pause: async () => {},
  };
}

/**
 * Makes sure, before any work, that a file or folder can be written to `path`: the folders above it are made, and nothing is there that may not be
 * replaced.
 * @throws output-exists, output-unwritable, disk-full
 */
export async function prepareOutput(path: string, { kind, overwrite }: { kind: 'file' | 'folder'; overwrite?: boolean }): Promise<void> {
  const target = resolve(path);
  await refuseExisting(target, kind, overwrite === true);
  try {
    await mkdir(dirname(target), { recursive: true });
    const isThere = await lstat(target).catch(() => undefined);
    await access(isThere === undefined ? dirname(target) : target, constants.W_OK);
  } catch (error) {
    throw asOutputError(error, target);
  }
}

async function refuseExisting(target: string, kind: 'file' | 'folder', overwrite: boolean): Promise<void> {
  const stats = await lstat(target).catch(() => undefined);
  if (stats === undefined || (overwrite && kind === 'file' && !stats.isDirectory())) return;
  throw new MillraceError('output-exists', {
    actor: 'caller',
    message: `${target} exists already`,
    values: { path: target },
    hint: 'Choose another name with -o, or remove it first.',
  });
}

/** A failure of the file system as a typed error: a full disk, or a place where this user cannot write. */
export function asOutputError(error: unknown, target: string): unknown {
  const known = asDiskError(error, target);
  if (known instanceof MillraceError || (error as NodeJS.ErrnoException).syscall === undefined) return known;
  return new MillraceError('output-unwritable', {
    actor: 'host',
    message: `Cannot write ${target}: ${(error as Error).message}`,
    values: { path: target },
    hint: 'Choose another place with -o, one that exists or can be made and that you may write to.',
    cause: error,
  });
}

async function leftPosition(part: string, recordPath: string, identity: string, entries: OutputEntry[]): Promise<OutputPosition> {
  const record = (await readJsonFile(recordPath).catch(() => undefined)) as (OutputPosition & { identity?: string }) | undefined;
  const stats = await lstat(part).catch(() => undefined);
  const isUsable = record?.identity === identity && Number.isSafeInteger(record.entry) && Number.isSafeInteger(record.offset);
  if (!isUsable || stats === undefined || stats.isSymbolicLink()) return { entry: 0, offset: 0 };
  const { entry, offset } = record as OutputPosition;
  const file = await lstat(join(part, entries[entry]?.path ?? '')).catch(() => undefined);
  return file?.isFile() === true && file.size >= offset ? { entry, offset } : { entry: 0, offset: 0 };
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
