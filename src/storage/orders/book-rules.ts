import type { Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import type { BatchTimes } from './matching-rules.ts';
import type { OrderFees } from './orders.ts';

/** What never changes of an order book: its clock, its fees and its bonds. Seconds, base units, ten-thousandths. */
export interface BookRules extends OrderFees {
  genesis: bigint;
  batchSeconds: bigint;
  matchSeconds: bigint;
  bountySeconds: bigint;
  claimBond: bigint;
}

/** Where the clock of the batches stands. */
export interface BatchClock {
  /** Collects orders now. */
  open: bigint;
  /** Was closed last: it is matched, then settled. */
  closed: bigint;
  phase: 'matching' | 'settling';
  /** When the phase of the closed batch ends, chain seconds. */
  phaseEnds: bigint;
  /** When the open batch closes. */
  closesAt: bigint;
}

const known = new WeakMap<ChainClient, Promise<BookRules>>();

/** The rules of a network's order book, read once per connection. */
export function readBookRules(client: ChainClient): Promise<BookRules> {
  let rules = known.get(client);
  if (rules === undefined) {
    rules = load(client);
    known.set(client, rules);
    rules.catch(() => known.delete(client));
  }
  return rules;
}

async function load(client: ChainClient): Promise<BookRules> {
  const config = await client.read('orderBook', 'config');
  const { genesis, feeBps, dealBond, claimBond, matcherTip } = config;
  return {
    genesis,
    batchSeconds: BigInt(config.batchSeconds),
    matchSeconds: BigInt(config.matchSeconds),
    bountySeconds: BigInt(config.bountySeconds),
    feeBps,
    dealBond,
    claimBond,
    matcherTip,
  };
}

/** The clock of the batches at chain time `now`. */
export function batchClock(rules: BookRules, now: bigint): BatchClock {
  const open = (now - rules.genesis) / rules.batchSeconds;
  const start = batchStart(rules, open);
  const matchedAt = start + rules.matchSeconds;
  const closesAt = start + rules.batchSeconds;
  const phase = now < matchedAt ? 'matching' : 'settling';
  return { open, closed: open - 1n, phase, phaseEnds: phase === 'matching' ? matchedAt : closesAt, closesAt };
}

/** When a batch begins to collect orders. */
export function batchStart(rules: BookRules, batch: bigint): bigint {
  return rules.genesis + batch * rules.batchSeconds;
}

/** What decides which orders a batch has. */
export function batchTimes(rules: BookRules, batch: bigint): BatchTimes {
  return { close: batchStart(rules, batch + 1n), batchSeconds: rules.batchSeconds };
}

/** The address that means nobody. */
export const NOBODY: Hex = '0x0000000000000000000000000000000000000000';
