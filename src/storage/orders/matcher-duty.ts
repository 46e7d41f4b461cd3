import { randomInt } from 'node:crypto';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Duty } from '../provider/duty.ts';
import { type BookRules, batchTimes, readBookRules } from './book-rules.ts';
import type { BookView } from './book-view.ts';
import { type MatcherLimits, solveMatching } from './matcher.ts';
import { isInBatch } from './matching-rules.ts';

/** What matching stands on. */
export interface MatcherDutyOptions {
  client: ChainClient;
  sender: Sender;
  view: BookView;
  log: Logger;
  limits?: Partial<MatcherLimits>;
  /** Longest random wait, in parts of a phase, before this node does what any node may do (default 0.4). */
  patience?: number;
  everyMs?: number;
}

/** Contract answers that say that somebody else was sooner or better, or that it is too late. */
const HARMLESS = new Set(['not-better', 'bid-already-filled', 'outside-window', 'not-the-best', 'hash-mismatch', 'not-in-batch']);

/**
 * The duty to match and settle the batches of the order book, which anyone may do: after the close of a batch it waits for
 * a random part of the window, looks whether what it finds is better than the best submission, and submits; when the window
 * is over it settles, bid by bid, what nobody else has settled.
 */
export function matcherDuty(options: MatcherDutyOptions): Duty {
  const { client, sender, view, log } = options;
  const patience = options.patience ?? 0.4;
  const pace = createPace(client);
  /** Batch and phase that were dealt with, and when the turn of this node comes in the present one. */
  let done = '';
  let turn: { phase: string; at: bigint } | undefined;

  const submit = async (rules: BookRules, batch: bigint): Promise<void> => {
    await view.refresh();
    const result = solveMatching({ book: view.book(), times: batchTimes(rules, batch), limits: options.limits });
    if (result === undefined) return;
    const { score } = await client.read('orderBook', 'best', [batch]);
    if (result.score <= score) return;
    await sender.send({ contract: 'orderBook', functionName: 'submit', args: [batch, result.matching] });
    log.info('matching-submitted', { batch, bids: result.matching.bids.length, score: result.score, isExact: result.isExact });
  };

  const settle = async (batch: bigint, signal: AbortSignal): Promise<void> => {
    await view.refresh();
    const best = await view.best(batch);
    if (best === undefined) return;
    const open = new Map(view.bids().map((bid) => [bid.bidId, bid]));
    for (const [index, bidId] of best.matching.bids.entries()) {
      const bid = open.get(bidId);
      if (bid === undefined) continue;
      signal.throwIfAborted();
      try {
        const args = [batch, best.matching, BigInt(index), bid.shards] as const;
        await sender.send({ contract: 'orderBook', functionName: 'settle', args });
        log.info('bid-settled', { batch, bidId });
      } catch (error) {
        if (!isHarmless(error)) throw error;
      }
    }
  };

  return {
    name: 'matcher',
    everyMs: options.everyMs ?? 1_000,
    async run(signal) {
      const rules = await readBookRules(client);
      await view.refresh();
      const { closed, phase, phaseEnds } = await view.clock();
      if (closed < 0n) return;
      const isAwaited = view.bids().length > 0;
      if (isAwaited && pace.isBehind(await client.now(), phaseEnds)) await nudge(options);
      const name = `${phase} ${closed}`;
      if (done === name) return;
      const now = await client.now();
      if (turn?.phase !== name)
        turn = { phase: name, at: now + BigInt(Math.floor(patience * (randomInt(1000) / 1000) * Number(phaseEnds - now))) };
      const times = batchTimes(rules, closed);
      if (!view.bids().some((bid) => isInBatch(times, bid))) return;
      if (now < turn.at && !pace.isBehind(now, turn.at)) return;
      try {
        if (phase === 'matching') await submit(rules, closed);
        else await settle(closed, signal);
        done = name;
      } catch (error) {
        if (!isHarmless(error)) throw error;
        done = phase === 'matching' ? name : done;
      }
    },
  };
}

/** Chain time goes on with blocks only: by the clock of this machine a moment may have come that no block has reached. */
function createPace(client: ChainClient): { isBehind(now: bigint, moment: bigint): boolean } {
  let seen: { time: bigint; atMs: number } | undefined;
  return {
    isBehind(now, moment) {
      if (client.manifest.randomness.source !== 'trusted-operator') return false;
      if (seen?.time !== now) seen = { time: now, atMs: performance.now() };
      return Number(now) + (performance.now() - seen.atMs) / 1000 > Number(moment) + 1;
    },
  };
}

/** The embedded chain mines on demand: an empty transaction brings the next block sooner than its idle block would. */
async function nudge({ client, sender }: MatcherDutyOptions): Promise<void> {
  if (client.manifest.randomness.source === 'trusted-operator') await sender.send({ to: sender.address, value: 0n });
}

function isHarmless(error: unknown): boolean {
  return error instanceof MillraceError && HARMLESS.has(error.code);
}
