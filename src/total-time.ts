import { MillraceError } from './errors.ts';

/** The longest time-out that there is. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/**
 * Waits for somebody else's work so long in all and no longer, whatever comes meanwhile: time-outs between two bytes never end for who sends one
 * byte after another.
 * @param totalMs milliseconds; above 24 days they are 24 days
 * @param work is given a signal that ends it then, or with the caller's
 * @throws peer-too-slow, the reason of the caller's signal, and what the work throws
 */
export async function withinTotal<Result>(
  totalMs: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  signal?.throwIfAborted();
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(tooSlow(totalMs)), Math.min(Math.max(1, totalMs), TIMEOUT_MS_MAX));
  const ending = signal === undefined ? patience.signal : AbortSignal.any([signal, patience.signal]);
  const ended = new Promise<never>((_, reject) => ending.addEventListener('abort', () => reject(ending.reason), { once: true }));
  try {
    return await Promise.race([work(ending), ended]);
  } catch (error) {
    throw ending.aborted ? ending.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

function tooSlow(totalMs: number): MillraceError {
  return new MillraceError('peer-too-slow', {
    actor: 'peer',
    message: `The answer was not there after ${Math.ceil(totalMs / 1000)} s`,
    values: { totalMs },
    hint: 'Ask somebody else, or again later.',
  });
}
