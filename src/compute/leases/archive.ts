import { createReadStream, createWriteStream } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { MillraceError } from '../../errors.ts';
import { readTarEntries } from '../../host/index.ts';

/** What was copied. */
export interface CopyCount {
  files: number;
  sizeBytes: number;
}

/** Bounds of a copy. */
export interface CopyLimits {
  bytesMax: number;
  filesMax: number;
}

/** Ten gibibytes and a hundred thousand files. */
export const COPY_LIMITS: CopyLimits = { bytesMax: 10 * 2 ** 30, filesMax: 100_000 };

const BLOCK = 512;
const PATH_BYTES_MAX = 1024;
const DEPTH_MAX = 64;

/**
 * A file or folder of this machine as a tar archive (POSIX ustar with pax paths), whose one top entry is called `name`. Plain files and folders only: a
 * link, device, socket or pipe is refused, not followed.
 * @throws bad-copy
 */
export async function* packArchive(path: string, name: string, count: CopyCount, limits = COPY_LIMITS): AsyncGenerator<Uint8Array> {
  yield* packEntry(path, name, 1, count, limits);
  yield new Uint8Array(2 * BLOCK);
}

async function* packEntry(path: string, name: string, depth: number, count: CopyCount, limits: CopyLimits): AsyncGenerator<Uint8Array> {
  const stats = await lstat(path);
  if (depth > DEPTH_MAX || Buffer.byteLength(name) > PATH_BYTES_MAX) throw badCopy(`${path} lies too deep, or its path is too long`);
  if (stats.isDirectory()) {
    yield* headers(`${name}/`, { mode: 0o755, sizeBytes: 0, type: '5' });
    for (const child of (await readdir(path)).sort()) yield* packEntry(join(path, child), `${name}/${child}`, depth + 1, count, limits);
    return;
  }
  if (!stats.isFile()) throw badCopy(`${path} is a link, a device, a socket or a pipe`);
  count.files += 1;
  count.sizeBytes += stats.size;
  checkCount(count, limits);
  yield* headers(name, { mode: stats.mode & 0o777, sizeBytes: stats.size, type: '0' });
  let left = stats.size;
  for await (const piece of createReadStream(path, { end: Math.max(0, stats.size - 1) })) {
    if (stats.size === 0) break;
    left -= (piece as Buffer).length;
    yield piece as Buffer;
  }
  if (left > 0) throw badCopy(`${path} became shorter while it was read`);
  if (stats.size % BLOCK !== 0) yield new Uint8Array(BLOCK - (stats.size % BLOCK));
}

function* headers(path: string, entry: { mode: number; sizeBytes: number; type: string }): Generator<Uint8Array> {
  const isLong = Buffer.byteLength(path) > 100 || entry.sizeBytes >= 8 ** 11;
  if (isLong) {
    const body = Buffer.from(paxLine('path', path) + paxLine('size', String(entry.sizeBytes)));
    yield header('pax', { mode: 0o644, sizeBytes: body.length, type: 'x' });
    yield body;
    yield new Uint8Array((BLOCK - (body.length % BLOCK)) % BLOCK);
  }
  yield header(isLong ? 'long' : path, isLong && entry.sizeBytes >= 8 ** 11 ? { ...entry, sizeBytes: 0 } : entry);
}

/** `length key=value` and a line's end, where the length counts itself. */
function paxLine(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + 1;
  while (String(length).length + rest !== length) length = String(length).length + rest;
  return `${length} ${key}=${value}\n`;
}

function header(path: string, { mode, sizeBytes, type }: { mode: number; sizeBytes: number; type: string }): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0');
  block.write(path, 0, 100);
  block.write(`${octal(mode, 7)}\0${octal(0, 7)}\0${octal(0, 7)}\0${octal(sizeBytes, 11)}\0${octal(0, 11)}\0`, 100);
  block.write('        ', 148);
  block.write(type, 156);
  block.write('ustar\x0000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)}\0 `, 148);
  return block;
}

/**
 * Takes a tar archive that a stranger's machine sends, and writes it to `target`: the archive's one top entry is called so from now on. Nothing is
 * written outside of it: absolute paths, steps upwards, links, devices and second entries of one name are refused, and what was written before that
 * is removed again. An existing file is not overwritten.
 * @throws bad-copy, copy-exists
 */
export async function unpackArchive(source: AsyncIterable<Uint8Array>, target: string, limits = COPY_LIMITS): Promise<CopyCount> {
  await mkdir(dirname(target), { recursive: true });
  if ((await lstat(target).catch(() => undefined)) !== undefined) throw exists(target);
  // On the same disk as the target, so that what fits the one fits the other.
  const staging = await mkdtemp(join(dirname(target), '.millrace-cp-'));
  const count: CopyCount = { files: 0, sizeBytes: 0 };
  let top: string | undefined;
  let entries = 0;
  try {
    const archive = join(staging, 'archive');
    await pipeline(
      Readable.from(bounded(source, limits.bytesMax + BLOCK * 4 * limits.filesMax)),
      createWriteStream(archive, { flags: 'wx' }),
    );
    for await (const entry of readTarEntries(archive)) {
      const parts = partsOf(entry.path);
      top ??= parts[0];
      if (parts[0] !== top) throw badCopy('it has more than one top entry');
      const place = join(target, ...parts.slice(1));
      entries += 1;
      if (entries > 2 * limits.filesMax) throw badCopy(`there are more than ${2 * limits.filesMax} files and folders`);
      if (entry.type === 'folder') {
        await mkdir(place, { recursive: true });
        continue;
      }
      if (entry.type !== 'file') throw badCopy(`${shown(entry.path)} is a link, a device, a socket or a pipe`);
      count.files += 1;
      count.sizeBytes += entry.sizeBytes;
      checkCount(count, limits);
      await mkdir(dirname(place), { recursive: true });
      await pipeline(Readable.from(entry.content()), createWriteStream(place, { flags: 'wx', mode: entry.mode & 0o777 }));
    }
    if (count.files === 0 && (await lstat(target).catch(() => undefined)) === undefined) throw badCopy('nothing came');
    return count;
  } catch (error) {
    await rm(target, { recursive: true, force: true });
    if (error instanceof MillraceError && error.code === 'bad-image') throw badCopy(error.message, error);
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw badCopy('one name comes twice', error);
    throw error;
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

async function* bounded(source: AsyncIterable<Uint8Array>, bytesMax: number): AsyncGenerator<Uint8Array> {
  let sizeBytes = 0;
  for await (const piece of source) {
    sizeBytes += piece.length;
    if (sizeBytes > bytesMax) throw badCopy(`it has more than ${bytesMax} bytes`);
    yield piece;
  }
}

function partsOf(path: string): string[] {
  const parts = path.replace(/^\.\//, '').replace(/\/+$/, '').split('/');
  const isPlain = parts.every((part) => part !== '' && part !== '.' && part !== '..' && !/[\p{Cc}\\]/u.test(part));
  if (!isPlain || parts.length > DEPTH_MAX || Buffer.byteLength(path) > PATH_BYTES_MAX) throw badCopy(`it names the path ${shown(path)}`);
  return parts;
}

function checkCount({ files, sizeBytes }: CopyCount, { bytesMax, filesMax }: CopyLimits): void {
  if (files > filesMax) throw badCopy(`there are more than ${filesMax} files`);
  if (sizeBytes > bytesMax) throw badCopy(`the files have more than ${bytesMax} bytes`);
}

const shown = (path: string) => JSON.stringify(path.slice(0, 120));

function badCopy(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-copy', {
    actor: 'caller',
    message: `The copy was given up: ${reason}`,
    values: { reason },
    hint: 'Only plain files and folders are copied; nothing of it was kept.',
    cause,
  });
}

function exists(target: string): MillraceError {
  return new MillraceError('copy-exists', {
    actor: 'caller',
    message: `${target} exists already`,
    values: { target },
    hint: 'Choose another name, or remove it first.',
  });
}
