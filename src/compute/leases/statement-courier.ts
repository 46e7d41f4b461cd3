import type { Hex } from 'viem';
import { type ChainClient, type Sender, type Signer, unlessOvertaken } from '../../chain/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { endOfInterval, passedIntervals, rangeBits, WORD } from './intervals.ts';
import { type LeaseView, type MarketTimes, meterDigest, readStatement, SIDES, type Side, type Statement } from './lease-chain.ts';
import type { LeaseRecord, SignedStatement } from './lease-record.ts';

/** Brings statements of meters to the chain. */
export interface StatementCourier {
  /** Signs what one's own record says of a word. */
  sign(record: LeaseRecord, side: Side, word: number): Promise<SignedStatement>;
  /**
   * Sends what the chain does not have yet of one side's words, when it is due: a share of the time to speak has passed for its oldest interval, or
   * the lease is over. What the market does not take, since its latest block is older than the interval's end, is sent again until it is too old.
   * @returns transactions sent
   */
  deliver(lease: LeaseView, side: Side, words: Iterable<readonly [number, SignedStatement]>, now: bigint): Promise<number>;
}

/** What the market says of words that came too late, twice, or before its latest block has their intervals behind it. */
const NOT_TAKEN = new Set(['nothing-to-state']);
/** Between two looks at what the chain has of one word. */
const LOOK_PAUSE_MS = 1_000;

/** A courier that sends with the sender's key and signs with the signer's. */
export function createStatementCourier(options: {
  client: ChainClient;
  sender: Pick<Sender, 'send'>;
  signer: Signer;
  times: MarketTimes;
  /** Of the time to speak that may pass; the side that is paid goes first, the other one need only when it did not. */
  dueShare?: number;
  clock?: Clock;
}): StatementCourier {
  const { client, sender, signer, times, dueShare = 1 / 3, clock = systemClock } = options;
  const dueSeconds = BigInt(Math.floor(times.speakSeconds * dueShare));
  /** What the chain was last seen to have, and when it is looked at again. */
  const seen = new Map<string, { spoken: bigint; dueMs: number }>();
  const signed = new Map<string, SignedStatement>();

  const isDue = (lease: LeaseView, word: number, fresh: bigint, now: bigint): boolean => {
    if (fresh === 0n) return false;
    if (now >= lease.until && dueShare <= 1 / 3) return true;
    const oldest = word * WORD + lowestBit(fresh);
    return now - endOfInterval(lease, times.meterSeconds, oldest) >= dueSeconds;
  };
  return {
    async sign({ leaseId, own }, side, word) {
      const statement = own.word(word);
      const key = `${leaseId}-${side}-${word}`;
      const known = signed.get(key);
      if (known?.spoken === statement.spoken) return known;
      const signature = await signer.signDigest(meterDigest(client, { leaseId, side, word, ...statement }));
      signed.set(key, { ...statement, signature });
      return { ...statement, signature };
    },
    async deliver(lease, side, words, now) {
      let sent = 0;
      const sure = passedIntervals(lease, times.meterSeconds, now - BigInt(times.speakSeconds));
      const passed = passedIntervals(lease, times.meterSeconds, now);
      for (const [word, statement] of words) {
        const key = `${lease.leaseId}-${side}-${word}`;
        const speakable = rangeBits(word, sure, passed);
        const fresh = (has: bigint) => statement.spoken & speakable & ~has;
        const known = seen.get(key) ?? { spoken: 0n, dueMs: 0 };
        if (clock.nowMs() < known.dueMs || !isDue(lease, word, fresh(known.spoken), now)) continue;
        const { spoken } = await readStatement(client, lease.leaseId, side, word);
        // Whether it took what is sent now, and how much of it, only the chain can say: it is asked again.
        seen.set(key, { spoken, dueMs: clock.nowMs() + LOOK_PAUSE_MS });
        if (fresh(spoken) === 0n) continue;
        if (await sendStatement({ leaseId: lease.leaseId, side, word }, statement, fresh(spoken))) sent += 1;
      }
      return sent;
    },
  };

  /** @returns whether the market took anything of it */
  async function sendStatement(
    at: { leaseId: bigint; side: Side; word: number },
    signed: Statement & { signature: Hex },
    fresh: bigint,
  ): Promise<boolean> {
    const { leaseId, side, word } = at;
    const args = [leaseId, SIDES[side], word, signed.spoken, signed.up, signed.signature] as const;
    // By what the chain lacks too: of a word of which it took a part the rest is another effect.
    const key = `meter-${leaseId}-${side}-${word}-${signed.spoken.toString(16)}-${fresh.toString(16)}`;
    const receipt = await unlessOvertaken(NOT_TAKEN, () => sender.send({ contract: 'computeMarket', functionName: 'state', args, key }));
    return receipt !== undefined;
  }
}

function lowestBit(bits: bigint): number {
  return bits.toString(2).length - 1 - bits.toString(2).lastIndexOf('1');
}
