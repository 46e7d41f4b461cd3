/** What a gateway has seen of one miner. */
export interface MinerHealth {
  /** Requests that it is working on for this gateway. */
  readonly inFlight: number;
  /** Whether there is a place for one more, where it has `limit` of them. */
  hasPlace(limit: number): boolean;
  /** Takes a place; who comes first has the first that is left. Rejects with the signal's reason. */
  enter(limit: number, signal: AbortSignal): Promise<void>;
  /** Leaves a place to the next. */
  leave(): void;
  /** To the first part of an answer, moving average; undefined before the first answer. */
  readonly ttftMs: number | undefined;
  /** Between units of output, moving average. */
  readonly tpotMs: number | undefined;
  /** Whether it may be asked now: not cooling down, or due for one trial. */
  isOpen(nowMs: number): boolean;
  /** It lied, and not long ago: no caller's wish makes it asked. */
  isBarred(nowMs: number): boolean;
  /** A trial is under way: nobody else is sent until it is over. */
  begin(nowMs: number): void;
  succeeded(times: { ttftMs: number; tpotMs: number | undefined }): void;
  /** It failed at what is its own fault: it is left alone for a while, longer each time in a row. */
  failed(nowMs: number, retryAfterMs?: number): void;
  /** It lied: it is left alone for long. */
  lied(nowMs: number): void;
  readonly failures: number;
}

const WEIGHT = 0.2;
const COOL_MS = 1_000;
const COOL_MS_MAX = 60_000;
const LIE_MS = 3_600_000;

/** Health of a miner that nothing is known of. */
export function createMinerHealth(): MinerHealth {
  let ttftMs: number | undefined;
  let tpotMs: number | undefined;
  let failures = 0;
  let closedUntilMs = 0;
  let barredUntilMs = 0;
  let isTrying = false;
  let inFlight = 0;
  const waiting = new Set<() => void>();
  const moving = (known: number | undefined, seen: number) => (known === undefined ? seen : known + WEIGHT * (seen - known));
  return {
    get inFlight() {
      return inFlight;
    },
    hasPlace: (limit) => inFlight + waiting.size < limit,
    enter(limit, signal) {
      if (inFlight < limit && waiting.size === 0) {
        inFlight += 1;
        return Promise.resolve();
      }
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const onAbort = () => {
          waiting.delete(take);
          reject(signal.reason);
        };
        const take = () => {
          waiting.delete(take);
          signal.removeEventListener('abort', onAbort);
          resolve();
        };
        signal.addEventListener('abort', onAbort, { once: true });
        waiting.add(take);
      });
    },
    leave() {
      const [next] = waiting;
      // The place goes over to who waits.
      if (next === undefined) inFlight -= 1;
      else next();
    },
    get ttftMs() {
      return ttftMs;
    },
    get tpotMs() {
      return tpotMs;
    },
    get failures() {
      return failures;
    },
    isOpen: (nowMs) => failures === 0 || (nowMs >= closedUntilMs && !isTrying),
    isBarred: (nowMs) => nowMs < barredUntilMs,
    begin() {
      if (failures > 0) isTrying = true;
    },
    succeeded(times) {
      failures = 0;
      isTrying = false;
      ttftMs = moving(ttftMs, times.ttftMs);
      if (times.tpotMs !== undefined) tpotMs = moving(tpotMs, times.tpotMs);
    },
    failed(nowMs, retryAfterMs = 0) {
      failures += 1;
      isTrying = false;
      closedUntilMs = nowMs + Math.max(retryAfterMs, Math.min(COOL_MS * 2 ** (failures - 1), COOL_MS_MAX));
    },
    lied(nowMs) {
      failures += 1;
      isTrying = false;
      closedUntilMs = nowMs + LIE_MS;
      barredUntilMs = closedUntilMs;
    },
  };
}
