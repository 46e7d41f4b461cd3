import { toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** A look that is repeated until it is stopped. */
export interface Tending {
  /** Lets the next look begin at once. */
  nudge(): void;
  /** Begins no other look. @returns when the last one has ended */
  stop(): Promise<void>;
}

/** How often, and what is said of a look that failed. */
export interface TendingOptions {
  pollMs: number;
  log: Logger;
  /** The event that is logged. */
  failed: string;
}

/** Looks again and again, with a pause after each; one that fails is logged, and the next one tries again. */
export function startTending(look: () => Promise<unknown>, { pollMs, log, failed }: TendingOptions): Tending {
  let [isOver, wake] = [false, () => {}];
  const pause = () =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, pollMs);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (isOver) wake();
    });
  const loop = async () => {
    while (!isOver) {
      await look().catch((error) => {
        const { code, message } = toMillraceError(error);
        if (!isOver) log.warn(failed, { code, reason: message.slice(0, 300) });
      });
      await pause();
    }
  };
  const looping = loop();
  return {
    nudge: () => wake(),
    async stop() {
      isOver = true;
      wake();
      await looping;
    },
  };
}
