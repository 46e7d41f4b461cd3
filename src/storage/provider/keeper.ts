import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type DealView, inBatches, readDeal } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { periodAt } from '../possession/periods.ts';
import type { Duty } from './duty.ts';

/** What decides a deal's next step besides the deal itself. Periods are numbers, times are chain seconds. */
export interface KeeperFacts {
  now: bigint;
  currentPeriod: bigint;
  activationDeadline: bigint;
  challengeWindow: bigint;
  maxFaultPeriods: bigint;
  /** Of the operator's table: period + 1 in which it failed last, 0: never. */
  failedAt: bigint;
  /** Charged misses of the operator since the deal's fees were taken last. */
  chargedMisses: bigint;
}

/** A step that anyone may take for a deal, and why. */
export type KeeperAction =
  | { call: 'expire'; why: 'not-active-in-time' }
  | { call: 'settle'; why: 'over' | 'fault-fees' }
  | { call: 'terminate'; why: 'table-failed' | 'challenge-unanswered' | 'collateral-gone' | 'fault-too-long' };

/** What is due for a deal by the rules of `StorageMarket`, or undefined. Pure. */
export function keeperAction(deal: DealView, facts: KeeperFacts): KeeperAction | undefined {
  const { now, currentPeriod, failedAt } = facts;
  if (deal.state === 'open') {
    return now > deal.openedAt + facts.activationDeadline ? { call: 'expire', why: 'not-active-in-time' } : undefined;
  }
  if (deal.state !== 'active' && deal.state !== 'faulty') return undefined;
  if (failedAt > deal.firstPeriod && failedAt <= deal.endPeriod) return { call: 'terminate', why: 'table-failed' };
  if (deal.challengedAt !== 0n && now > deal.challengedAt + facts.challengeWindow)
    return { call: 'terminate', why: 'challenge-unanswered' };
  if (deal.locked === 0n) return { call: 'terminate', why: 'collateral-gone' };
  const faultOver = currentPeriod >= deal.endPeriod || currentPeriod >= deal.faultySince + facts.maxFaultPeriods;
  if (deal.state === 'faulty' && faultOver) return { call: 'terminate', why: 'fault-too-long' };
  if (currentPeriod >= deal.endPeriod) return { call: 'settle', why: 'over' };
  if (facts.chargedMisses > 0n) return { call: 'settle', why: 'fault-fees' };
  return undefined;
}

/** Which deals a keeper looks after: those of one operator, or all of them. */
export interface KeeperOptions {
  client: ChainClient;
  sender: Sender;
  log: Logger;
  operatorId?: bigint;
  everyMs?: number;
}

/** What of an operator's standing decides. */
interface Standing {
  syncedTo: bigint;
  failedAt: bigint;
  restartedAt: bigint;
  graceUsedAt: bigint;
}

/**
 * The duty to call what anyone may call: expiry, settlement and termination of deals whose time has come. The rewards
 * of the contract go to whoever does it. It looks once in each period, since all that can become due does so with one.
 */
export function keeperDuty(options: KeeperOptions): Duty {
  const live = new Set<bigint>();
  let known = 0n;
  let lastPeriod = -1n;
  return {
    name: 'keeper',
    everyMs: options.everyMs ?? 5_000,
    async run(signal) {
      const { client, operatorId } = options;
      const { clock } = await readRules(client);
      const now = await client.now();
      const currentPeriod = periodAt(clock, now);
      if (currentPeriod === lastPeriod) return;
      const count = await client.read('storageMarket', 'dealCount');
      for (; known < count; known += 1n) live.add(known + 1n);
      const deals = await inBatches([...live], (dealId) => readDeal(client, dealId));
      const kept = deals.filter((deal) => (operatorId === undefined || deal.operatorId === operatorId) && isRunning(deal));
      for (const { dealId } of deals) if (!kept.some((deal) => deal.dealId === dealId)) live.delete(dealId);
      await keepDeals(options, kept, signal);
      lastPeriod = currentPeriod;
    },
  };
}

const isRunning = ({ state }: DealView): boolean => ['open', 'active', 'faulty'].includes(state);

/** Does for some deals, whoever's they are, what anyone may do and what is due now. Deals that are over are left alone. */
export async function keepDeals(
  options: Pick<KeeperOptions, 'client' | 'sender' | 'log'>,
  deals: readonly DealView[],
  signal?: AbortSignal,
): Promise<void> {
  const { client } = options;
  const now = await client.now();
  const currentPeriod = periodAt((await readRules(client)).clock, now);
  const standings = new Map<bigint, Standing>();
  for (const deal of deals.filter(isRunning)) {
    signal?.throwIfAborted();
    const standing = standings.get(deal.operatorId) ?? (await finalise(options, deal.operatorId, currentPeriod));
    standings.set(deal.operatorId, standing);
    await keepDeal(options, deal, { now, currentPeriod, standing });
  }
}

/** Makes the ended periods of an operator final when it is silent: nobody else records its misses. Gives its standing. */
async function finalise(
  { client, sender }: Pick<KeeperOptions, 'client' | 'sender'>,
  operatorId: bigint,
  currentPeriod: bigint,
): Promise<Standing> {
  const standing = await client.read('possession', 'standing', [operatorId]);
  if (standing.syncedTo >= currentPeriod || standing.restartedAt < standing.failedAt) return standing;
  const { leaves } = await client.read('possession', 'table', [operatorId]);
  if (leaves === 0n) return standing;
  await sender.send({ contract: 'possession', functionName: 'sync', args: [operatorId] });
  return client.read('possession', 'standing', [operatorId]);
}

async function keepDeal(
  options: Pick<KeeperOptions, 'client' | 'sender' | 'log'>,
  deal: DealView,
  at: { now: bigint; currentPeriod: bigint; standing: Standing },
): Promise<void> {
  const { client, sender, log } = options;
  const rules = await readRules(client);
  const action = keeperAction(deal, {
    now: at.now,
    currentPeriod: at.currentPeriod,
    activationDeadline: rules.activationDeadlineSeconds,
    challengeWindow: rules.challengeWindowSeconds,
    maxFaultPeriods: rules.maxFaultPeriods,
    failedAt: at.standing.failedAt,
    chargedMisses: await chargedMisses(client, deal, at.standing),
  });
  if (action === undefined) return;
  try {
    await sender.send({ contract: 'storageMarket', functionName: action.call, args: [deal.dealId] });
    log.info('deal-kept', { dealId: deal.dealId, call: action.call, why: action.why });
  } catch (error) {
    // Several keepers race; whoever is late finds the deal in another state.
    if (!(error instanceof MillraceError) || !['wrong-state', 'nothing-to-terminate'].includes(error.code)) throw error;
  }
}

/** Charged misses since the deal's fees were taken last. An operator whose grace is unused never missed a period. */
async function chargedMisses(client: ChainClient, deal: DealView, standing: Standing): Promise<bigint> {
  if (deal.state !== 'active' || standing.graceUsedAt === 0n || standing.syncedTo <= deal.feesTo || deal.endPeriod <= deal.feesTo)
    return 0n;
  const [, charged] = await client.read('possession', 'misses', [deal.operatorId, deal.feesTo, deal.endPeriod]);
  return charged;
}
