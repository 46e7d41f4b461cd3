import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, type FileHandle, lstat, open, readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { MillraceError } from '../../errors.ts';

/** A file, or an empty folder, of what is to be stored. `path` is relative, with `/`; of a single file it is the name. */
export interface SourceEntry {
  path: string;
  file: string;
  size: number;
  /** Permission bits. */
  mode: number;
  isFolder: boolean;
}

/** All that is to be stored, sorted by path. `fingerprint` changes when a path, size, mode or modification time does. */
export interface SourceTree {
  kind: 'file' | 'folder';
  name: string;
  entries: SourceEntry[];
  totalBytes: number;
  fingerprint: string;
}

/** Fills whole buffers from a source that must not end before. */
export interface ByteReader {
  /** @throws source-changed, source-unreadable */
  fill(target: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

const ENTRIES_MAX = 1_000_000;

/**
 * Lists what is at a path: a file (a symbolic link to one is followed), or a folder with everything below it. Inside a
 * folder symbolic links and special files are refused, because they cannot be given back safely, unless `skipSpecial`.
 * @throws source-missing, source-unreadable, empty-content, unsupported-entry, too-many-entries
 */
export async function scanSource(path: string, options: { skipSpecial?: boolean } = {}): Promise<SourceTree> {
  const root = resolve(path);
  const entries: SourceEntry[] = [];
  const times: string[] = [];
  const visit = async (file: string, relative: string): Promise<void> => {
    const stats = await lstat(file);
    const mode = stats.mode & 0o777;
    if (stats.isDirectory()) {
      const names = await readdir(file);
      if (names.length === 0 && relative !== '') add({ path: relative, file, size: 0, mode, isFolder: true }, stats.mtimeMs);
      for (const name of names) await visit(join(file, name), relative === '' ? name : `${relative}/${name}`);
    } else if (stats.isFile() && !relative.includes('\\/')) {
      await access(file, constants.R_OK);
      add({ path: relative, file, size: stats.size, mode, isFolder: false }, stats.mtimeMs);
    } else if (options.skipSpecial !== true) throw unsupportedEntry(file);
  };
  const add = (entry: SourceEntry, mtimeMs: number): void => {
    if (entries.length >= ENTRIES_MAX) throw tooManyEntries(root);
    entries.push(entry);
    times.push(`${entry.path}\0${entry.size}\0${entry.mode}\0${mtimeMs}`);
  };
  let kind: SourceTree['kind'];
  try {
    const stats = await stat(root);
    kind = stats.isDirectory() ? 'folder' : 'file';
    if (kind === 'folder') await visit(root, '');
    else if (stats.isFile()) {
      await access(root, constants.R_OK);
      add({ path: basename(root), file: root, size: stats.size, mode: stats.mode & 0o777, isFolder: false }, stats.mtimeMs);
    } else throw unsupportedEntry(root);
  } catch (error) {
    throw sourceError(error, root);
  }
  entries.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
  const totalBytes = entries.reduce((sum, entry) => sum + entry.size, 0);
  if (totalBytes === 0) throw emptyContent(root);
  const fingerprint = createHash('sha256').update(kind).update(basename(root)).update(times.sort().join('\n')).digest('hex');
  return { kind, name: basename(root), entries, totalBytes, fingerprint };
}

/** Reads an entry from its start. The size must still be the one that was scanned. */
export async function openEntry(entry: SourceEntry): Promise<ByteReader> {
  let handle: FileHandle;
  try {
    handle = await open(entry.file, 'r');
  } catch (error) {
    throw sourceError(error, entry.file);
  }
  let position = 0;
  return {
    async fill(target) {
      let done = 0;
      while (done < target.length) {
        const { bytesRead } = await handle.read(target, done, target.length - done, position).catch((error) => {
          throw sourceError(error, entry.file);
        });
        if (bytesRead === 0) throw sourceChanged(entry, position);
        done += bytesRead;
        position += bytesRead;
      }
      if (position === entry.size && (await handle.stat()).size !== entry.size) throw sourceChanged(entry, (await handle.stat()).size);
    },
    close: () => handle.close(),
  };
}

/** The bytes of all files of a tree one after the other, as one reader, with `prefix` before them. */
export function openConcatenation(prefix: Uint8Array, tree: SourceTree): ByteReader {
  let next = 0;
  let left = prefix.length;
  let current: ByteReader | undefined;
  const files = tree.entries.filter((entry) => entry.size > 0);
  return {
    async fill(target) {
      let done = 0;
      while (done < target.length) {
        if (left === 0) {
          await current?.close();
          const entry = files[next];
          if (entry === undefined)
            throw new MillraceError('source-changed', { actor: 'bug', message: 'Read beyond the end of the source' });
          next += 1;
          current = await openEntry(entry);
          left = entry.size;
        }
        const bytes = Math.min(left, target.length - done);
        if (current === undefined) target.set(prefix.subarray(prefix.length - left, prefix.length - left + bytes), done);
        else await current.fill(target.subarray(done, done + bytes));
        done += bytes;
        left -= bytes;
      }
    },
    async close() {
      await current?.close();
    },
  };
}

/** The error for a source without a single byte. */
export function emptyContent(path: string): MillraceError {
  return new MillraceError('empty-content', {
    actor: 'caller',
    message: `${path} holds no bytes, there is nothing to store`,
    values: { path },
    hint: 'A deal needs at least one byte of content.',
  });
}

function sourceChanged(entry: SourceEntry, got: number): MillraceError {
  return new MillraceError('source-changed', {
    actor: 'caller',
    message: `${entry.file} changed while it was read: got ${got} bytes, expected ${entry.size}`,
    values: { path: entry.file, got, expected: entry.size },
    hint: 'Run the command again when nothing writes to it.',
  });
}

function unsupportedEntry(path: string): MillraceError {
  return new MillraceError('unsupported-entry', {
    actor: 'caller',
    message: `${path} is neither a plain file nor a folder`,
    values: { path },
    hint: 'Replace symbolic links and special files by plain files, or move them out of the folder.',
  });
}

function tooManyEntries(path: string): MillraceError {
  return new MillraceError('too-many-entries', {
    actor: 'caller',
    message: `${path} holds more than ${ENTRIES_MAX} files`,
    values: { path, limit: ENTRIES_MAX },
    hint: 'Store parts of it, or an archive.',
  });
}

function sourceError(error: unknown, path: string): unknown {
  if (error instanceof MillraceError) return error;
  const { code, path: at } = error as NodeJS.ErrnoException;
  const where = at ?? path;
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new MillraceError('source-missing', { actor: 'caller', message: `There is no ${where}`, values: { path: where }, cause: error });
  }
  return new MillraceError('source-unreadable', {
    actor: 'caller',
    message: `Cannot read ${where}: ${(error as Error).message}`,
    values: { path: where, reason: code },
    hint: 'Check the permissions.',
    cause: error,
  });
}
