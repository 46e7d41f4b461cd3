import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { ServingAnswer } from '../../inference/index.ts';

/** Answers that were given under an idempotency key: the same request again gets the same answer and is not charged again. */
export interface IdempotentAnswers {
  /**
   * The answer that was given; or undefined when this is the first request, which then must be ended by `keep` or `drop`.
   * @throws idempotency-key-reused, idempotent-request-running
   */
  begin(key: string, requestHash: Hex): ServingAnswer | undefined;
  keep(key: string, answer: ServingAnswer): void;
  drop(key: string): void;
}

interface Kept {
  requestHash: Hex;
  answer: ServingAnswer | undefined;
  sizeBytes: number;
  atMs: number;
}

const KEPT_MS = 600_000;
const BYTES_MAX = 64 << 20;
const KEYS_MAX = 10_000;

/** Answers in memory, for ten minutes and as far as there is room: a restart forgets them. */
export function createIdempotentAnswers(nowMs: () => number = () => performance.now()): IdempotentAnswers {
  const kept = new Map<string, Kept>();
  let bytes = 0;
  const forget = (key: string, entry: Kept) => {
    kept.delete(key);
    bytes -= entry.sizeBytes;
  };
  return {
    begin(key, requestHash) {
      const known = kept.get(key);
      if (known !== undefined && nowMs() - known.atMs > KEPT_MS && known.answer !== undefined) forget(key, known);
      else if (known !== undefined) {
        if (known.requestHash !== requestHash) throw reused(key);
        if (known.answer === undefined) throw running(key);
        return known.answer;
      }
      kept.set(key, { requestHash, answer: undefined, sizeBytes: 0, atMs: nowMs() });
      return undefined;
    },
    keep(key, answer) {
      const entry = kept.get(key);
      const size = typeof answer.body === 'string' || answer.body instanceof Uint8Array ? answer.body.length : BYTES_MAX;
      if (entry === undefined) return;
      if (size > BYTES_MAX / 8) return forget(key, entry);
      entry.answer = answer;
      entry.sizeBytes = size;
      entry.atMs = nowMs();
      bytes += size;
      for (const [old, one] of kept) {
        if (bytes <= BYTES_MAX && kept.size <= KEYS_MAX) break;
        if (one.answer !== undefined) forget(old, one);
      }
    },
    drop(key) {
      const entry = kept.get(key);
      if (entry !== undefined && entry.answer === undefined) forget(key, entry);
    },
  };
}

function reused(key: string): MillraceError {
  return new MillraceError('idempotency-key-reused', {
    actor: 'caller',
    message: 'This idempotency key was used for another request',
    values: { key: key.slice(-64) },
    hint: 'Draw a new key for each request.',
  });
}

function running(key: string): MillraceError {
  return new MillraceError('idempotent-request-running', {
    actor: 'caller',
    message: 'The request of this idempotency key is still being answered',
    values: { key: key.slice(-64) },
    hint: 'Ask again in a moment.',
  });
}
