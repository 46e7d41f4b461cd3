import type { Duplex } from 'node:stream';

/** Counts the bytes of a tunnel and holds them back: beyond what is unacknowledged, and beyond a bandwidth. */
export interface RelayGate {
  /** Counts so many bytes as carried if they may pass now. */
  admit(bytes: number): boolean;
  /** Counts them as soon as they may pass; false when the gate closed before. In the order of asking. */
  wait(bytes: number): Promise<boolean>;
  /** Lets another chunk pass beyond this cumulative number of bytes. */
  acknowledge(bytesCarried: bigint): void;
  carried(): bigint;
  unacknowledged(): number;
  /** Whether something waits for an acknowledgement. */
  isHeld(): boolean;
  close(): void;
}

/** The bucket holds this part of a second's bandwidth. */
const BURST_SECONDS = 0.25;

/**
 * A gate that lets `chunkBytes` pass unacknowledged, never a byte more, and `bytesPerSecond` on average (a token bucket that may run
 * into debt by one read). `onCarried` is told after every admission.
 */
export function createRelayGate(options: { chunkBytes: number; bytesPerSecond: number; onCarried?: () => void }): RelayGate {
  const { chunkBytes, bytesPerSecond } = options;
  const waiting: { bytes: number; resolve: (passed: boolean) => void }[] = [];
  const burst = bytesPerSecond * BURST_SECONDS;
  let tokens = burst;
  let filledAt = performance.now();
  let carried = 0;
  let acknowledged = 0;
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  const mayPass = (bytes: number) => {
    const now = performance.now();
    tokens = Math.min(burst, tokens + ((now - filledAt) * bytesPerSecond) / 1000);
    filledAt = now;
    if (carried + bytes > acknowledged + chunkBytes) return false;
    if (tokens > 0) return true;
    timer ??= setTimeout(wake, Math.max(1, (-tokens * 1000) / bytesPerSecond + 1));
    return false;
  };
  const count = (bytes: number) => {
    carried += bytes;
    tokens -= bytes;
    options.onCarried?.();
  };
  const wake = () => {
    timer = undefined;
    for (let first = waiting[0]; first !== undefined && mayPass(first.bytes); first = waiting[0]) {
      waiting.shift();
      count(first.bytes);
      first.resolve(true);
    }
  };
  return {
    admit(bytes) {
      if (isClosed || waiting.length > 0 || !mayPass(bytes)) return false;
      count(bytes);
      return true;
    },
    wait(bytes) {
      if (isClosed) return Promise.resolve(false);
      return new Promise((resolve) => {
        waiting.push({ bytes, resolve });
        wake();
      });
    },
    acknowledge(bytesCarried) {
      acknowledged = Math.max(acknowledged, Math.min(carried, Number(bytesCarried)));
      wake();
    },
    carried: () => BigInt(carried),
    unacknowledged: () => carried - acknowledged,
    isHeld: () => waiting.length > 0 && carried + (waiting[0]?.bytes ?? 0) > acknowledged + chunkBytes,
    close() {
      isClosed = true;
      clearTimeout(timer);
      for (const { resolve } of waiting.splice(0)) resolve(false);
    },
  };
}

/**
 * Carries bytes one way through a gate, with the back-pressure of the slower side; an end is passed on, a break breaks both. At most one
 * read is held in memory. Gives the number of bytes that went this way so far.
 */
export function carryBytes(from: Duplex, to: Duplex, gate: RelayGate): () => number {
  let bytes = 0;
  const write = (chunk: Uint8Array) => {
    if (to.destroyed || to.writableEnded) return;
    bytes += chunk.length;
    if (to.write(chunk)) return;
    from.pause();
    to.once('drain', () => from.resume());
  };
  from.on('data', (chunk: Uint8Array) => {
    if (gate.admit(chunk.length)) return write(chunk);
    from.pause();
    void gate.wait(chunk.length).then((passed) => {
      if (!passed) return void from.destroy();
      from.resume();
      write(chunk);
    });
  });
  from.on('end', () => void to.end());
  from.on('error', () => to.destroy());
  from.on('close', () => {
    if (!from.readableEnded) to.destroy();
  });
  return () => bytes;
}
