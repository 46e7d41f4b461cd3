import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { MillraceError } from '../../errors.ts';

/**
 * Replaces a small file as a whole: after it returns the new content survives a power cut, and a crash at any moment
 * leaves the old or the new content, never a mixture. Writers of one path must take turns.
 * @throws disk-full
 */
export async function writeDurably(path: string, content: string): Promise<void> {
  const folder = dirname(path);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    await syncFolder(folder);
  } catch (error) {
    throw asDiskError(error, path);
  }
}

/** Makes renames and deletions inside a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * The JSON value in a file, or undefined when there is no such file.
 * @throws file-damaged
 */
export async function readJsonFile(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new MillraceError('file-damaged', {
      actor: 'host',
      message: `Cannot read ${path}: ${(error as Error).message}`,
      values: { path },
      hint: 'Restore the file from a backup, or delete it if the chain knows all that it says.',
      cause: error,
    });
  }
}

/** An error of the file system as a typed one: a full disk is told apart, because the operator can mend it. */
export function asDiskError(error: unknown, path: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new MillraceError('disk-full', {
    actor: 'host',
    message: `No space is left to write ${path}`,
    values: { path },
    hint: 'Free some space, or lower the quota of the provider.',
    cause: error,
  });
}
