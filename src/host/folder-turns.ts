import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';

const LOOK_MS = 5;
const PATIENCE_MS = 5 * 60_000;
const BUSY = 5;
const PRIMARY_CODE = 0xff;

/**
 * Turns at a folder that several processes of this machine change, for work of a moment. The lock is the operating system's, on the file `lock` in the
 * folder (through SQLite, as `lockFolder` has it), so that the turn of a process that is killed ends with it.
 */
export class FolderTurns {
  readonly #folder: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Does a piece of work while nobody else does any. @throws folder-turn-missing when others leave none for five minutes, and what the work throws */
  take<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(() => this.#take(work));
    this.#last = result.catch(() => undefined);
    return result;
  }

  async #take<Result>(work: () => Promise<Result>): Promise<Result> {
    mkdirSync(this.#folder, { recursive: true });
    const database = new DatabaseSync(join(this.#folder, 'lock'), { timeout: 0 });
    try {
      const untilMs = systemClock.nowMs() + PATIENCE_MS;
      while (!isTaken(database)) {
        if (systemClock.nowMs() > untilMs) throw turnMissing(this.#folder);
        await systemClock.sleep(LOOK_MS);
      }
      return await work();
    } finally {
      database.close();
    }
  }
}

function isTaken(database: DatabaseSync): boolean {
  try {
    database.exec('BEGIN IMMEDIATE');
    return true;
  } catch (error) {
    if (((error as { errcode?: number }).errcode ?? 0) % (PRIMARY_CODE + 1) === BUSY) return false;
    throw error;
  }
}

function turnMissing(folder: string): MillraceError {
  return new MillraceError('folder-turn-missing', {
    actor: 'host',
    message: `Other processes let nobody else change ${folder} for ${PATIENCE_MS / 1000} s`,
    values: { folder },
    hint: 'See which process of Millrace hangs, and stop it.',
  });
}
