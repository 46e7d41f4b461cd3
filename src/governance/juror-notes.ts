import { toMillraceError } from '../errors.ts';
import type { LogFields, Logger } from '../log.ts';

/** What a note is about. */
export type NoteAbout = LogFields & { disputeId?: bigint; round?: number };

/** How a juror tells its operator what happens. */
export interface JurorNotes {
  done(event: string, about: NoteAbout): void;
  failed(event: string, error: unknown, about?: NoteAbout): void;
  /** Says it once for each round of a dispute. */
  once(event: string, about: NoteAbout): void;
}

/** Answers of the jury that say that somebody else was first, or that a moment has passed. */
const HARMLESS: ReadonlySet<string> = new Set([
  'wrong-phase',
  'too-early',
  'too-late',
  'already-settled',
  'already-voted',
  'nothing-owed',
  'nothing-to-unlock',
  'still-locked',
  'too-few-jurors',
]);

/** Whether an error only says that somebody else was first, or that a moment has passed. */
export function isHarmless(error: unknown): boolean {
  return HARMLESS.has(toMillraceError(error).code);
}

/** The notes of one operator's juror in a log. */
export function createJurorNotes(log: Logger, operatorId: bigint): JurorNotes {
  const said = new Set<string>();
  return {
    done: (event, about) => log.info(event, about),
    failed(event, error, about = {}) {
      const { code, message } = toMillraceError(error);
      if (!isHarmless(error)) log.warn(event, { operatorId, ...about, code, reason: message.slice(0, 300) });
    },
    once(event, about) {
      const key = `${event} ${about.disputeId} ${about.round}`;
      if (said.has(key)) return;
      said.add(key);
      log.warn(event, { operatorId, ...about });
    },
  };
}
