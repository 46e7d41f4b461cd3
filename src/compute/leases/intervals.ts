import type { LeaseView, Statement } from './lease-chain.ts';

/** Intervals of one word of the market's records. */
export const WORD = 256;
/** Intervals of one stretch of the probers' records. */
export const STRETCH = 128;

type Time = Pick<LeaseView, 'from' | 'until'>;

/** Intervals of a lease in all; the last may be shorter than the others. */
export function intervalCount({ from, until }: Time, meterSeconds: number): number {
  return Math.ceil(Number(until - from) / meterSeconds);
}

/** The interval in which a second lies, from 0; undefined before the lease and after it. */
export function intervalAt({ from, until }: Time, meterSeconds: number, time: bigint): number | undefined {
  return time < from || time >= until ? undefined : Math.floor(Number(time - from) / meterSeconds);
}

/** Intervals that are over at a time: whole ones, and at the lease's end also the last. `IntervalBits.passed`. */
export function passedIntervals(lease: Time, meterSeconds: number, time: bigint): number {
  if (time <= lease.from) return 0;
  return time >= lease.until ? intervalCount(lease, meterSeconds) : Math.floor(Number(time - lease.from) / meterSeconds);
}

/** When an interval is over, seconds. */
export function endOfInterval({ from, until }: Time, meterSeconds: number, interval: number): bigint {
  const end = from + BigInt((interval + 1) * meterSeconds);
  return end < until ? end : until;
}

/** The bits of one word, or stretch, whose intervals lie in [first, last). */
export function rangeBits(part: number, first: number, last: number, size = WORD): bigint {
  const below = (interval: number) => (1n << BigInt(Math.min(size, Math.max(0, interval - part * size)))) - 1n;
  return below(last) & ~below(first);
}

/**
 * What somebody found of a lease's intervals. What was found once stays: an interval is noted when it is over, and never again, as the market
 * takes a side's first word.
 */
export class IntervalRecord {
  readonly #words = new Map<number, Statement>();

  /** The record that `toJSON` gave. */
  static fromJSON(words: Record<string, { spoken: string; up: string }>): IntervalRecord {
    const record = new IntervalRecord();
    for (const [word, { spoken, up }] of Object.entries(words)) {
      record.#words.set(Number(word), { spoken: BigInt(spoken), up: BigInt(up) });
    }
    return record;
  }

  toJSON(): Record<string, { spoken: string; up: string }> {
    const hex = (bits: bigint) => `0x${bits.toString(16)}`;
    return Object.fromEntries([...this.#words].map(([word, { spoken, up }]) => [word, { spoken: hex(spoken), up: hex(up) }]));
  }

  /** Notes an interval, unless it is noted. */
  note(interval: number, isUp: boolean): void {
    const word = Math.floor(interval / WORD);
    const bit = 1n << BigInt(interval % WORD);
    const { spoken, up } = this.word(word);
    if ((spoken & bit) === 0n) this.#words.set(word, { spoken: spoken | bit, up: isUp ? up | bit : up });
  }

  has(interval: number): boolean {
    return ((this.word(Math.floor(interval / WORD)).spoken >> BigInt(interval % WORD)) & 1n) === 1n;
  }

  word(word: number): Statement {
    return this.#words.get(word) ?? { spoken: 0n, up: 0n };
  }

  /** The words of which something is noted. */
  words(): number[] {
    return [...this.#words.keys()].sort((one, other) => one - other);
  }

  /** Intervals noted in all, and noted up. */
  counts(): { spoken: number; up: number } {
    let [spoken, up] = [0, 0];
    for (const statement of this.#words.values()) {
      spoken += countBits(statement.spoken);
      up += countBits(statement.up);
    }
    return { spoken, up };
  }
}

function countBits(bits: bigint): number {
  return bits.toString(2).replaceAll('0', '').length;
}

/** Half of a word: what it says of one stretch. */
export function stretchOf({ spoken, up }: Statement, stretch: number): Statement {
  const shift = BigInt((stretch % 2) * STRETCH);
  const half = (bits: bigint) => (bits >> shift) & ((1n << BigInt(STRETCH)) - 1n);
  return { spoken: half(spoken), up: half(up) };
}
