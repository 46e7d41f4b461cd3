import { type Clock, systemClock } from '../../clock.ts';

/**
 * Protocol time between blocks. The law is the latest block's timestamp; a lease ends at a second in which perhaps no block is made, so time runs
 * on with this machine's monotonic clock from the block that was furthest ahead of it. It never goes back, and is late by at most the age that
 * the newest block had when it was first seen.
 */
export class ProtocolClock {
  readonly #clock: Clock;
  #aheadMs: number | undefined;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** Tells it the timestamp of the latest block, seconds. */
  observe(timestamp: bigint): void {
    const aheadMs = Number(timestamp) * 1000 - this.#clock.nowMs();
    if (this.#aheadMs === undefined || aheadMs > this.#aheadMs) this.#aheadMs = aheadMs;
  }

  /** Seconds, rounded down; 0 before any block was seen. */
  now(): bigint {
    return this.#aheadMs === undefined ? 0n : BigInt(Math.floor((this.#clock.nowMs() + this.#aheadMs) / 1000));
  }
}
