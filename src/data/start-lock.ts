import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { identifyProcess, isAlive, type ProcessIdentity } from './postmaster.ts';

/** How long a second starter waits for the first: an initdb on a slow disk and a crash recovery fit in. */
const PATIENCE_MS = 180_000;

/**
 * Runs `work` while no other process starts or stops the server of this folder. The lock is a file that names its
 * holder by pid and start time, so that a killed holder blocks nobody.
 * @throws database-start-locked
 */
export async function withStartLock<T>(folder: string, clock: Clock, work: () => Promise<T>): Promise<T> {
  const path = join(folder, 'start.lock');
  const self = identifyProcess(process.pid) ?? { pid: process.pid, startedAt: '' };
  const deadlineMs = clock.nowMs() + PATIENCE_MS;
  while (!takeLock(path, self)) {
    const holder = readHolder(path);
    if (holder !== undefined && !isAlive(holder)) removeStale(path, holder);
    else if (clock.nowMs() > deadlineMs) throw locked(folder, holder);
    else await clock.sleep(50);
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}

/** A hard link appears whole or not at all, so no reader sees a lock without its holder. */
function takeLock(path: string, self: ProcessIdentity): boolean {
  const draft = `${path}.${self.pid}.${Math.random().toString(36).slice(2)}`;
  writeFileSync(draft, JSON.stringify(self), { mode: 0o644 });
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

function readHolder(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity;
  } catch {
    return undefined; // released meanwhile
  }
}

/** Only one of several waiters wins the rename; a fresh lock taken in between is put back. */
function removeStale(path: string, stale: ProcessIdentity): void {
  const grave = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, grave);
    const moved = readHolder(grave);
    if (moved !== undefined && (moved.pid !== stale.pid || moved.startedAt !== stale.startedAt)) linkSync(grave, path);
  } catch (error) {
    if (!['ENOENT', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  } finally {
    rmSync(grave, { force: true });
  }
}

function locked(folder: string, holder: ProcessIdentity | undefined): MillraceError {
  return new MillraceError('database-start-locked', {
    actor: 'host',
    message: `Process ${holder?.pid ?? 'unknown'} has been starting the database in ${folder} for ${PATIENCE_MS / 1000} s`,
    values: { folder, pid: holder?.pid },
    hint: 'Look at postgres.log in that folder; stop the other process, then try again.',
  });
}
