import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** A part of a network that runs now: a process. */
export interface RunningPart {
  pid: number;
  /** Resolves when it is gone, whoever ended it. */
  exited: Promise<unknown>;
  stop(): Promise<void>;
}

/** A part that is kept running. */
export interface KeptPart {
  name: string;
  /** `starting`, `running`, `waiting` (for its next start after a failure) or `stopped`. */
  state(): 'starting' | 'running' | 'waiting' | 'stopped';
  pid(): number | undefined;
  restarts(): number;
  /** Stops it and starts it again at once; waits for its start at most 45 s, after which it is still tried on. @throws part-not-started */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

const BACK_OFF_FIRST_MS = 250;
const BACK_OFF_LAST_MS = 15_000;
/** After running this long a part counts as healthy, and its next failure is followed by a quick restart again. */
const HEALTHY_AFTER_MS = 30_000;
const RESTART_WITHIN_MS = 45_000;

/** A part to keep. */
export interface PartOptions {
  name: string;
  start: () => Promise<RunningPart>;
  log: Logger;
  /** Where the part says what is wrong with it; named when it does not start. */
  logFile?: string;
  clock?: Clock;
  /** How long a restart waits, milliseconds (default 45,000). */
  restartWithinMs?: number;
}

/**
 * Starts a part and keeps it running: whenever it exits it is started again, at first after 250 ms, then twice as long
 * each time up to 15 s. The first start must succeed; its error is the caller's.
 */
export async function keepRunning(options: PartOptions): Promise<KeptPart> {
  const { name, start, log } = options;
  const clock = options.clock ?? systemClock;
  const over = new AbortController();
  let current: RunningPart | undefined;
  let state: ReturnType<KeptPart['state']> = 'starting';
  let restarts = 0;
  let startedAt = clock.nowMs();
  let backOffMs = BACK_OFF_FIRST_MS;
  let asked = false;
  let failure: unknown;

  const launch = async () => {
    state = 'starting';
    const part = await start();
    if (over.signal.aborted) return part.stop();
    current = part;
    failure = undefined;
    startedAt = clock.nowMs();
    state = 'running';
    log.info('part-started', { part: name, pid: part.pid });
  };
  const watch = async () => {
    while (!over.signal.aborted) {
      await current?.exited;
      if (over.signal.aborted) return;
      restarts += 1;
      if (clock.nowMs() - startedAt > HEALTHY_AFTER_MS) backOffMs = BACK_OFF_FIRST_MS;
      if (!asked) {
        log.warn('part-exited', { part: name, pid: current?.pid, restartInMs: backOffMs });
        state = 'waiting';
        await clock.sleep(backOffMs, over.signal).catch(() => {});
        backOffMs = Math.min(BACK_OFF_LAST_MS, backOffMs * 2);
      }
      asked = false;
      current = undefined;
      if (over.signal.aborted) return;
      await launch().catch((error) => {
        failure = error;
        log.error('part-start-failed', { part: name, message: String(error) });
      });
    }
  };
  await launch();
  const watching = watch();
  return {
    name,
    state: () => state,
    pid: () => current?.pid,
    restarts: () => restarts,
    async restart() {
      const before = current;
      asked = true;
      await before?.stop();
      const deadlineMs = clock.nowMs() + (options.restartWithinMs ?? RESTART_WITHIN_MS);
      while (current === before || state !== 'running') {
        if (over.signal.aborted) return;
        if (clock.nowMs() > deadlineMs) throw notStarted(options, failure);
        await clock.sleep(20);
      }
    },
    async stop() {
      over.abort();
      state = 'stopped';
      await current?.stop();
      await watching;
    },
  };
}

function notStarted({ name, logFile, restartWithinMs = RESTART_WITHIN_MS }: PartOptions, cause: unknown): MillraceError {
  return new MillraceError('part-not-started', {
    actor: 'host',
    message: `The part "${name}" did not start within ${restartWithinMs / 1000} s`,
    values: { part: name, logFile, reason: cause === undefined ? undefined : String(cause) },
    hint: `${logFile === undefined ? 'See the log of the supervisor' : `Read ${logFile}`}. It is still tried again.`,
    cause,
  });
}
