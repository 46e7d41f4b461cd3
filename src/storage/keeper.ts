import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type DealView, inBatches, readDeal } from './chain-view.ts';
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
  onAction?: (dealId: bigint, action: KeeperAction) => void;
}

/**
 * The duty to call what anyone may call: expiry, settlement and termination of deals whose time has come. The rewards
 * of the contract go to whoever does it. It reads deals that are not over once per look and new ones as they come.
 */
export function keeperDuty(options: KeeperOptions): Duty {
  const live = new Set<bigint>();
  let known = 0n;
  return {
    name: 'keeper',
    everyMs: options.everyMs ?? 5_000,
    async run(signal) {
      const { client, operatorId } = options;
      const count = await client.read('storageMarket', 'dealCount');
      for (; known < count; known += 1n) live.add(known + 1n);
      const deals = await inBatches([...live], (dealId) => readDeal(client, dealId));
      await finalise(options, deals);
      for (const deal of deals) {
        signal.throwIfAborted();
        const mine = operatorId === undefined || deal.operatorId === operatorId;
        if (!mine || !['open', 'active', 'faulty'].includes(deal.state)) {
          live.delete(deal.dealId);
          continue;
        }
        await keepDeal(options, deal);
      }
    },
  };
}

/** Makes the ended periods of operators final who are silent: nobody else records their misses. */
async function finalise(options: KeeperOptions, deals: readonly DealView[]): Promise<void> {
  const { client, sender } = options;
  const currentPeriod = await client.read('possession', 'periodAt', [await client.now()]);
  const running = deals.filter(({ state }) => state === 'active' || state === 'faulty').map(({ operatorId }) => operatorId);
  for (const operatorId of new Set(running)) {
    if (options.operatorId !== undefined && operatorId !== options.operatorId) continue;
    const standing = await client.read('possession', 'standing', [operatorId]);
    const table = await client.read('possession', 'table', [operatorId]);
    if (standing.syncedTo >= currentPeriod || table.leaves === 0n || !(await client.read('possession', 'stands', [operatorId]))) continue;
    await sender.send({ contract: 'possession', functionName: 'sync', args: [operatorId] });
  }
}

async function keepDeal(options: KeeperOptions, deal: DealView): Promise<void> {
  const { client, sender, log } = options;
  const action = keeperAction(deal, await factsFor(client, deal));
  if (action === undefined) return;
  try {
    await sender.send({ contract: 'storageMarket', functionName: action.call, args: [deal.dealId] });
    log.info('deal-kept', { dealId: deal.dealId, call: action.call, why: action.why });
    options.onAction?.(deal.dealId, action);
  } catch (error) {
    // Several keepers race; whoever is late finds the deal in another state.
    if (!(error instanceof MillraceError) || !['wrong-state', 'nothing-to-terminate'].includes(error.code)) throw error;
  }
}

async function factsFor(client: ChainClient, deal: DealView): Promise<KeeperFacts> {
  const now = await client.now();
  const [config, standing, currentPeriod] = await Promise.all([
    client.read('storageMarket', 'config'),
    client.read('possession', 'standing', [deal.operatorId]),
    client.read('possession', 'periodAt', [now]),
  ]);
  // The contract clips the range to what is final, and to the deal's end by itself when fees are taken.
  const from = deal.feesTo;
  const wanted = deal.state === 'active' && standing.syncedTo > from && deal.endPeriod > from;
  const [, chargedMisses] = wanted ? await client.read('possession', 'misses', [deal.operatorId, from, deal.endPeriod]) : [0n, 0n];
  return {
    now,
    currentPeriod,
    activationDeadline: BigInt(config.activationDeadline),
    challengeWindow: BigInt(config.challengeWindow),
    maxFaultPeriods: BigInt(config.maxFaultPeriods),
    failedAt: standing.failedAt,
    chargedMisses,
  };
}
