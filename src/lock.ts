import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { MillraceError } from './errors.ts';

/** A folder that this process holds alone. */
export interface FolderLock {
  release(): void;
}

/**
 * Holds `folder` for this process. The lock is an operating-system lock on the file `lock` in it (taken through SQLite,
 * since Node has no `fcntl`), so the system itself gives it back when the holder ends, also by `kill -9`; a file that
 * lies there does not mean anything. Not for folders on network file systems without locks.
 * @throws folder-busy while another process holds it, with that process's id
 */
export function lockFolder(folder: string): FolderLock {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, 'lock');
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    database.exec('PRAGMA journal_mode = DELETE');
    // The holder's note is committed before the lock is taken for good, so that others can read who holds it.
    database.exec('CREATE TABLE IF NOT EXISTS holder (pid INTEGER NOT NULL)');
    database.exec('BEGIN IMMEDIATE');
    database.exec('DELETE FROM holder');
    database.prepare('INSERT INTO holder (pid) VALUES (?)').run(process.pid);
    database.exec('COMMIT');
    database.exec('BEGIN IMMEDIATE');
  } catch (cause) {
    const holderPid = readHolder(database);
    database.close();
    throw new MillraceError('folder-busy', {
      actor: 'caller',
      message: `${folder} is in use by process ${holderPid ?? 'unknown'}`,
      values: { folder, holderPid },
      hint: 'Stop it first ("millrace down"), or choose another folder with --data.',
      cause,
    });
  }
  return { release: () => database.close() };
}

function readHolder(database: DatabaseSync): number | undefined {
  try {
    return database.prepare('SELECT pid FROM holder').get()?.pid as number | undefined;
  } catch {
    return undefined;
  }
}
