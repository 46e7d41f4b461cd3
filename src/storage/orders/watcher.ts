import { randomInt } from 'node:crypto';
import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { storageDomainOf } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { acknowledgeDeal, fetchDealProgress } from '../market/provider-api.ts';
import { activationDigest, cidFromHex } from '../market/terms.ts';
import { periodAt } from '../possession/periods.ts';
import type { Duty } from '../provider/duty.ts';
import { requireReadable } from './checker.ts';
import { callFile, fileOfBid, type ShardView, type StoredFile } from './stored-files.ts';

/** What watching over files stands on: the key is their owner's, or that of the agent that their bids name. */
export interface WatcherOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  log: Logger;
  everyMs?: number;
}

/** A file's next challenge: in which period, and not before when. */
interface Plan {
  period: bigint;
  /** Chain time; undefined: none in this period. */
  at: bigint | undefined;
}

/**
 * The duty to look after files whose owner or agent this key is: it acknowledges shards that can be read back, and spends
 * the challenge budget evenly over the rest of the file's life, on shards and at moments that nobody can foresee.
 */
export function watcherDuty(options: WatcherOptions): Duty {
  const { client, signer } = options;
  const files = new Set<bigint>();
  const plans = new Map<bigint, Plan>();
  let readTo: bigint | undefined;
  return {
    name: 'watcher',
    everyMs: options.everyMs ?? 5_000,
    async run(signal) {
      const head = await client.public.getBlockNumber({ cacheTime: 0 });
      if (readTo === undefined || head > readTo) {
        const fromBlock = readTo === undefined ? undefined : readTo + 1n;
        for (const { args } of await client.events({ name: 'orderBook', event: 'BidPosted', fromBlock, toBlock: head })) {
          if (isMine(signer.address, args.bid)) files.add(args.bidId);
        }
        readTo = head;
      }
      const now = await client.now();
      const { clock } = await readRules(client);
      const period = periodAt(clock, now);
      for (const bidId of files) {
        signal.throwIfAborted();
        const file = await fileOfBid(client, bidId);
        const isOver = file === undefined || (file.filled ? period >= file.endPeriod : now >= file.validUntil);
        if (isOver || !isMine(signer.address, file)) {
          files.delete(bidId);
          continue;
        }
        if (!file.filled) continue;
        await acknowledgeStored(options, file);
        await challengeByPlan(options, file, { now, period, plans, periodEnds: clock.genesis + (period + 1n) * BigInt(clock.period) });
      }
    },
  };
}

function isMine(key: Hex, { client, agent }: { client: Hex; agent: Hex }): boolean {
  return [client, agent].some((account) => account.toLowerCase() === key.toLowerCase());
}

/** Says of every shard that its provider has stored, and that can be read back, that it is so. */
async function acknowledgeStored({ client, signer, log }: WatcherOptions, file: StoredFile): Promise<void> {
  for (const { deal, operator, cid, index } of file.shards) {
    if (deal?.state !== 'open' || operator === undefined) continue;
    const { dealId } = deal;
    try {
      if ((await fetchDealProgress(operator, dealId)).status !== 'stored') continue;
      await requireReadable(operator, cidFromHex(cid), dealId);
      await acknowledgeDeal(operator, dealId, await signer.signDigest(activationDigest(storageDomainOf(client), dealId)));
      log.info('shard-acknowledged', { bidId: file.bidId, shard: index, dealId });
    } catch (error) {
      if (!(error instanceof MillraceError) || error.actor === 'bug') throw error;
      log.info('shard-not-acknowledged', { bidId: file.bidId, shard: index, dealId, code: error.code });
    }
  }
}

/** How many challenges a budget pays for, and in what part of the remaining periods one falls due. */
export function challengeOdds(options: { budget: bigint; bond: bigint; periodsLeft: bigint }): { affordable: bigint; oneIn: number } {
  const { budget, bond, periodsLeft } = options;
  const affordable = bond === 0n ? 0n : budget / bond;
  if (affordable === 0n) return { affordable, oneIn: Number.POSITIVE_INFINITY };
  return { affordable, oneIn: Math.max(1, Number(periodsLeft) / Number(affordable)) };
}

async function challengeByPlan(
  { client, sender, log }: WatcherOptions,
  file: StoredFile,
  at: { now: bigint; period: bigint; periodEnds: bigint; plans: Map<bigint, Plan> },
): Promise<void> {
  const known = at.plans.get(file.bidId);
  const plan = known?.period === at.period ? known : { period: at.period, at: await momentOf(client, file, at) };
  at.plans.set(file.bidId, plan);
  if (plan.at === undefined || at.now < plan.at) return;
  plan.at = undefined;
  const shards = file.shards.filter(isChallengeable);
  if (shards.length === 0) return;
  const shard = shards[randomInt(shards.length)] as ShardView;
  await callFile(sender, { file: file.file, functionName: 'challenge', args: [shard.index] });
  log.info('shard-challenged', { bidId: file.bidId, shard: shard.index, dealId: shard.dealId, operatorId: shard.operatorId });
}

/** A random moment of the rest of this period, or none, so that the budget lasts to the end of the file on average. */
async function momentOf(
  client: ChainClient,
  file: StoredFile,
  { now, period, periodEnds }: { now: bigint; period: bigint; periodEnds: bigint },
): Promise<bigint | undefined> {
  const { challengeBond } = await readRules(client);
  const { affordable, oneIn } = challengeOdds({ budget: file.challengeBudget, bond: challengeBond, periodsLeft: file.endPeriod - period });
  if (affordable === 0n || randomInt(1_000_000) / 1_000_000 >= 1 / oneIn) return undefined;
  return now + BigInt(randomInt(Math.max(1, Number(periodEnds - now))));
}

function isChallengeable({ state, deal }: ShardView): boolean {
  return state === 'live' && deal?.state === 'active' && deal.challengedAt === 0n;
}
