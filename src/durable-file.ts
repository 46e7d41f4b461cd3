import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, linkSync, mkdirSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Writes a whole file so that after a crash at any moment the old or the new content is there, never a part: temporary file, fsync,
 * rename, fsync of the folder. With `exclusive` an existing file is left alone and the call throws EEXIST.
 */
export function writeFileDurably(path: string, content: string | Uint8Array, options: { mode?: number; exclusive?: boolean } = {}): void {
  const folder = dirname(path);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const file = openSync(temporary, 'wx', options.mode ?? 0o600);
  try {
    writeAll(file, content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  if (options.exclusive) {
    try {
      linkSync(temporary, path);
    } finally {
      unlinkSync(temporary);
    }
  } else {
    renameSync(temporary, path);
  }
  syncFolder(folder);
}

/** Writes all of a text or of some bytes to an open file, whatever the number of calls the system needs. */
export function writeAll(file: number, content: string | Uint8Array): void {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}

/** Makes the creation or renaming of a folder's entries durable. */
export function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
