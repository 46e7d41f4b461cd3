import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { type DealView, readDeal } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { isLoss, openPieceRange, provePiece } from '../pieces/openings.ts';
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

/** The duty to answer the challenges that clients make of their own pieces, as soon as the seed of each exists, and their demands for bytes, at once. */
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
  try {
    const openings = await openingsFor(deal);
    if (openings === undefined) return false;
    await sender.send({
      contract: 'storageMarket',
      functionName: 'answer',
      args: [dealId, openings],
      key: `answer:${dealId}:${deal.challengeRailId}`,
    });
    log.info('challenge-answered', { dealId });
    return true;
  } catch (error) {
    if (!isLoss(error)) throw error;
    onLost([dealId]);
    return false;
  }

  /** The demanded leaves, or those that the seed draws; undefined while there is no seed. */
  async function openingsFor({ pieceRoot, demanded, demandedFrom }: DealView): Promise<Hex | undefined> {
    if (demanded > 0) return openPieceRange(store, { pieceRoot, first: demandedFrom, count: demanded });
    const seed = await ensureSeed({ client, sender, time: challengedAt });
    return seed === undefined ? undefined : provePiece({ store, piece: deal, seed, count: activationLeaves });
  }
}
