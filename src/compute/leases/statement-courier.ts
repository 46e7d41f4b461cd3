import type { Hex } from 'viem';
import { type ChainClient, type Sender, type Signer, unlessOvertaken } from '../../chain/index.ts';
import { endOfInterval, passedIntervals, WORD } from './intervals.ts';
import { type LeaseView, type MarketTimes, meterDigest, readStatement, SIDES, type Side, type Statement } from './lease-chain.ts';
import type { LeaseRecord, SignedStatement } from './lease-record.ts';

/** Brings statements of meters to the chain. */
export interface StatementCourier {
  /** Signs what one's own record says of a word. */
  sign(record: LeaseRecord, side: Side, word: number): Promise<SignedStatement>;
  /**
   * Sends what the chain does not have yet of one side's words, when it is due: a share of the time to speak has passed for its oldest interval, or
   * the lease is over.
   * @returns transactions sent
   */
  deliver(lease: LeaseView, side: Side, words: Iterable<readonly [number, SignedStatement]>, now: bigint): Promise<number>;
}

/** What the market says of words that came too late or twice: no harm. */
const OVERTAKEN = new Set(['nothing-to-state']);

/** A courier that sends with the sender's key and signs with the signer's. */
export function createStatementCourier(options: {
  client: ChainClient;
  sender: Pick<Sender, 'send'>;
  signer: Signer;
  times: MarketTimes;
  /** Of the time to speak that may pass; the side that is paid goes first, the other one need only when it did not. */
  dueShare?: number;
}): StatementCourier {
  const { client, sender, signer, times, dueShare = 1 / 3 } = options;
  const dueSeconds = BigInt(Math.floor(times.speakSeconds * dueShare));
  /** What the chain is known to have, so that it is not asked at each look. */
  const delivered = new Map<string, bigint>();
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
      for (const [word, statement] of words) {
        const key = `${lease.leaseId}-${side}-${word}`;
        const tooOld = (1n << BigInt(Math.min(WORD, Math.max(0, sure - word * WORD)))) - 1n;
        const fresh = (has: bigint) => statement.spoken & ~has & ~tooOld;
        if (!isDue(lease, word, fresh(delivered.get(key) ?? 0n), now)) continue;
        const onChain = await readStatement(client, lease.leaseId, side, word);
        delivered.set(key, onChain.spoken);
        if (fresh(onChain.spoken) === 0n) continue;
        await sendStatement({ leaseId: lease.leaseId, side, word }, statement);
        delivered.set(key, onChain.spoken | statement.spoken);
        sent += 1;
      }
      return sent;
    },
  };

  async function sendStatement(at: { leaseId: bigint; side: Side; word: number }, signed: Statement & { signature: Hex }): Promise<void> {
    const { leaseId, side, word } = at;
    const args = [leaseId, SIDES[side], word, signed.spoken, signed.up, signed.signature] as const;
    const key = `meter-${leaseId}-${side}-${word}-${signed.spoken.toString(16)}`;
    await unlessOvertaken(OVERTAKEN, () => sender.send({ contract: 'computeMarket', functionName: 'state', args, key }));
  }
}

function lowestBit(bits: bigint): number {
  return bits.toString(2).length - 1 - bits.toString(2).lastIndexOf('1');
}
