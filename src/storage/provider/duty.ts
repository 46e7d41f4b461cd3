import { type Clock, systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';

/** Work that is looked at again and again: it does what is due, and nothing when nothing is. */
export interface Duty {
  name: string;
  /** Milliseconds between two looks. */
  everyMs: number;
  run(signal: AbortSignal): Promise<void>;
}

/** Duties that are running. */
export interface RunningDuties {
  /** Looks at a duty now instead of after its pause. */
  nudge(name: string): void;
  /** Ends the pauses and waits for what is under way. */
  stop(): Promise<void>;
}

const BACKOFF_MS_MAX = 15_000;

/**
 * Runs each duty in a loop of its own, so that a slow one holds up no other. A failure is logged and tried again with
 * growing pauses: a duty never ends by itself.
 */
export function startDuties(duties: readonly Duty[], options: { log: Logger; clock?: Clock }): RunningDuties {
  const { log, clock = systemClock } = options;
  const stopping = new AbortController();
  const wakers = new Map<string, () => void>();
  const loop = async (duty: Duty) => {
    let pauseMs = duty.everyMs;
    while (!stopping.signal.aborted) {
      try {
        await duty.run(stopping.signal);
        pauseMs = duty.everyMs;
      } catch (error) {
        if (stopping.signal.aborted) return;
        const { code, message } = toMillraceError(error);
        log.warn('duty-failed', {
          duty: duty.name,
          code,
          reason: message,
          stack: code === 'unexpected' ? (error as Error).stack : undefined,
        });
        pauseMs = Math.min(BACKOFF_MS_MAX, pauseMs * 2);
      }
      const pause = new AbortController();
      wakers.set(duty.name, () => pause.abort());
      await clock.sleep(pauseMs, AbortSignal.any([stopping.signal, pause.signal])).catch(() => {});
    }
  };
  const loops = duties.map(loop);
  return {
    nudge: (name) => wakers.get(name)?.(),
    async stop() {
      stopping.abort();
      await Promise.all(loops);
    },
  };
}
