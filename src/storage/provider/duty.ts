import type { Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';

/** Work that is looked at again and again: it does what is due, and nothing when nothing is. */
export interface Duty {
  name: string;
  /** Milliseconds between two looks. */
  everyMs: number;
  /** It waits for something besides the chain, so it is looked at even when there is no new block. */
  isLocal?: boolean;
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
/** So many looks in a row are passed over while the chain has no new block: disks and peers change too. */
const PASSED_OVER_MAX = 4;
const HEAD_AGE_MS = 100;

/** The newest block's hash, at most a tenth of a second old: one question to the chain serves all duties of a process. */
export function watchHead(client: ChainClient): () => Promise<Hex | undefined> {
  let asked: { atMs: number; hash: Promise<Hex | undefined> } | undefined;
  return () => {
    if (asked === undefined || performance.now() - asked.atMs > HEAD_AGE_MS) {
      const block = client.public.getBlock({ blockTag: 'latest' });
      asked = { atMs: performance.now(), hash: block.then(({ hash }) => hash).catch(() => undefined) };
    }
    return asked.hash;
  };
}

/**
 * Runs each duty in a loop of its own, so that a slow one holds up no other. A failure is logged and tried again with
 * growing pauses: a duty never ends by itself. With `head`, looks are passed over while the chain stands still: its time does, too.
 */
export function startDuties(
  duties: readonly Duty[],
  options: { log: Logger; clock?: Clock; head?: () => Promise<Hex | undefined> },
): RunningDuties {
  const { log, clock = systemClock, head } = options;
  const stopping = new AbortController();
  const wakers = new Map<string, () => void>();
  const loop = async (duty: Duty) => {
    let pauseMs = duty.everyMs;
    let [seen, passedOver]: [Hex | undefined, number] = [undefined, 0];
    const isIdle = async () => {
      const now = duty.isLocal === true ? undefined : await head?.();
      const isSame = now !== undefined && now === seen && passedOver < PASSED_OVER_MAX;
      passedOver = isSame ? passedOver + 1 : 0;
      seen = now;
      return isSame;
    };
    while (!stopping.signal.aborted) {
      try {
        if (!(await isIdle())) await duty.run(stopping.signal);
        pauseMs = duty.everyMs;
      } catch (error) {
        seen = undefined;
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
      wakers.set(duty.name, () => {
        seen = undefined;
        pause.abort();
      });
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
