import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { MillraceError } from './errors.ts';

/** A folder that this process holds alone. */
export interface FolderLock {
  release(): void;
}

/** A database that nothing refers to is collected and closed, and its lock with it. */
const held = new Set<DatabaseSync>();

/**
 * Holds `folder` for this process. The lock is an operating-system lock on the file `lock` in it (taken through SQLite,
 * since Node has no `fcntl`), so the system itself gives it back when the holder ends, also by `kill -9`; a file that
 * lies there does not mean anything. Not for folders on network file systems without locks.
 * @throws folder-busy while another process holds it, with that process's id
 */
export function lockFolder(folder: string): FolderLock {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(join(folder, 'lock'), { timeout: 0 });
  const notePath = join(folder, 'lock.pid');
  try {
    database.exec('BEGIN IMMEDIATE');
  } catch (cause) {
    database.close();
    const holderPid = readHolder(notePath);
    throw new MillraceError('folder-busy', {
      actor: 'caller',
      message: `${folder} is in use by process ${holderPid ?? 'unknown'}`,
      values: { folder, holderPid },
      hint: 'Stop it first ("millrace down"), or choose another folder with --data.',
      cause,
    });
  }
  // For the error message only: it is the lock that counts.
  writeFileSync(notePath, String(process.pid), { mode: 0o600 });
  held.add(database);
  return {
    release() {
      held.delete(database);
      database.close();
    },
  };
}

function readHolder(notePath: string): number | undefined {
  try {
    return Number(readFileSync(notePath, 'utf8'));
  } catch {
    return undefined;
  }
}
