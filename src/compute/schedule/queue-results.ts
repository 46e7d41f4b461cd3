import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { QueuedCommand } from './queue-document.ts';

/** How a piece of work ended: `exit` by itself with another code than 0, `time` was over, `refused` it cannot be run, `attempts` it was begun too often. */
export interface WorkResult {
  id: string;
  digest: string;
  isDone: boolean;
  reason?: 'exit' | 'time' | 'refused' | 'attempts';
  /** Of each member; empty where it did not end by itself. */
  exitCodes: number[];
  /** The attempt that counts, from 1. */
  attempt: number;
  machines: string[];
  seconds: number;
  /** More about the reason, for people. */
  detail?: string;
}

/** The results of a queue in a folder: `<id>/stdout`, `<id>/stderr`, `<id>/files`, `<id>/result.json`; of several members, in `<id>/<rank>`. */
export interface QueueResults {
  /** What counts for a piece of work; undefined: it is still to be done. @throws queue-folder-taken */
  find(work: QueuedCommand): WorkResult | undefined;
  /** An empty folder for what a member of an attempt leaves. */
  begin(work: QueuedCommand, attempt: number, rank: number): string;
  /** From now on this counts; on the disk when it returns. */
  keep(work: QueuedCommand, result: WorkResult): void;
  /** An attempt that does not count leaves nothing. */
  drop(work: QueuedCommand, attempt: number): void;
}

const ATTEMPTS = '.attempts';
const RESULT = 'result.json';

/** The results in a folder. What attempts of a process that was killed left there is removed; results stay. */
export function openQueueResults(folder: string): QueueResults {
  rmSync(join(folder, ATTEMPTS), { recursive: true, force: true });
  const attemptFolder = (work: QueuedCommand, attempt: number) => join(folder, ATTEMPTS, `${work.id}-${attempt}`);
  return {
    find(work) {
      const path = join(folder, work.id, RESULT);
      if (!existsSync(path)) return undefined;
      const result = readResult(path);
      if (result?.digest === work.digest) return result;
      throw taken(folder, work.id);
    },
    begin(work, attempt, rank) {
      const place = work.machines === 1 ? attemptFolder(work, attempt) : join(attemptFolder(work, attempt), String(rank));
      rmSync(place, { recursive: true, force: true });
      mkdirSync(place, { recursive: true });
      return place;
    },
    keep(work, result) {
      const place = join(folder, work.id);
      // Without a result: a process was killed between the two.
      rmSync(place, { recursive: true, force: true });
      if (existsSync(attemptFolder(work, result.attempt))) renameSync(attemptFolder(work, result.attempt), place);
      writeFileDurably(join(place, RESULT), `${JSON.stringify(result, null, 2)}\n`, { mode: 0o644 });
    },
    drop: (work, attempt) => rmSync(attemptFolder(work, attempt), { recursive: true, force: true }),
  };
}

function readResult(path: string): WorkResult | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as WorkResult;
  } catch {
    return undefined;
  }
}

function taken(folder: string, id: string): MillraceError {
  return new MillraceError('queue-folder-taken', {
    actor: 'caller',
    message: `${folder} has a result of ${id} that is of other work: another queue's, or its document was changed`,
    values: { folder, id },
    hint: 'Choose another folder with --output, or remove that result for it to be done again.',
  });
}
