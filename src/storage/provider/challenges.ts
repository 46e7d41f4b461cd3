import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { readDeal } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { isLoss, provePiece } from '../pieces/openings.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { ensureSeed } from '../possession/seeds.ts';
import type { Duty } from './duty.ts';

/** What answering targeted challenges stands on. */
export interface ChallengesOptions {
  client: ChainClient;
  sender: Sender;
  store: PieceStore;
  operatorId: bigint;
  log: Logger;
  onLost(dealIds: bigint[]): void;
  everyMs?: number;
}

/** The duty to answer the challenges that clients make of their own pieces, as soon as the seed of each exists. */
export function challengesDuty(options: ChallengesOptions): Duty {
  const open = new Set<bigint>();
  let readTo: bigint | undefined;
  return {
    name: 'challenges',
    everyMs: options.everyMs ?? 1_000,
    async run() {
      const { client, operatorId } = options;
      const head = await client.public.getBlockNumber({ cacheTime: 0 });
      if (readTo === undefined || head > readTo) {
        const fromBlock = readTo === undefined ? undefined : readTo + 1n;
        const events = await client.events({ name: 'storageMarket', event: 'Challenged', args: { operatorId }, fromBlock, toBlock: head });
        for (const { args } of events) open.add(args.dealId);
        readTo = head;
      }
      for (const dealId of open) if (await answer(options, dealId)) open.delete(dealId);
    },
  };
}

/** Answers one challenge; true when nothing is left to do for it. */
async function answer({ client, sender, store, log, onLost }: ChallengesOptions, dealId: bigint): Promise<boolean> {
  const deal = await readDeal(client, dealId);
  const { challengedAt } = deal;
  if (challengedAt === 0n) return true;
  const { challengeWindowSeconds, activationLeaves } = await readRules(client);
  if ((await client.now()) > challengedAt + challengeWindowSeconds) return true;
  const seed = await ensureSeed({ client, sender, time: challengedAt });
  if (seed === undefined) return false;
  try {
    const openings = await provePiece({ store, piece: deal, seed, count: activationLeaves });
    await sender.send({
      contract: 'storageMarket',
      functionName: 'answer',
      args: [dealId, openings],
      key: `answer:${dealId}:${challengedAt}`,
    });
    log.info('challenge-answered', { dealId });
    return true;
  } catch (error) {
    if (!isLoss(error)) throw error;
    onLost([dealId]);
    return false;
  }
}
