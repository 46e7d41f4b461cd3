/** A look at the chain, on this machine's monotonic clock, and the time of the block that was the latest. */
interface Look {
  sentAtMs: number;
  answeredAtMs: number;
  timestamp: bigint;
}

/** Between what times a block became public, as far as one node can tell. */
export interface Sight {
  fromMs: number;
  untilMs: number;
}

const LOOKS_KEPT = 32;

/**
 * Since when a challenge's seed may have been known, by what this node saw: its block was not there yet when it last asked and got an older one. That
 * is a bound from before, however late or seldom a node looks, so who counts a deadline from here never gives anybody more time than that.
 */
export class SeedSight {
  readonly #looks: Look[] = [];

  /** The chain was looked at. */
  looked(look: Look): void {
    this.#looks.push(look);
    if (this.#looks.length > LOOKS_KEPT) this.#looks.shift();
  }

  /** When the first block at or after a protocol time became public; undefined where this node did not look before and after. */
  of(time: bigint): Sight | undefined {
    const before = this.#looks.filter(({ timestamp }) => timestamp < time).map(({ sentAtMs }) => sentAtMs);
    const after = this.#looks.filter(({ timestamp }) => timestamp >= time).map(({ answeredAtMs }) => answeredAtMs);
    return before.length === 0 || after.length === 0 ? undefined : { fromMs: Math.max(...before), untilMs: Math.min(...after) };
  }
}
