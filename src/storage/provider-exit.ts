import type { ChainClient, Sender } from '../chain/index.ts';
import type { Logger } from '../log.ts';
import { dealsOfOperator } from './chain-view.ts';
import { provePiece } from './openings.ts';
import type { PieceStore } from './piece-store.ts';
import { ensureSeed } from './seeds.ts';

/**
 * Leaves all running deals of an operator: each piece is proven a last time from the newest seed, the leaving fee is
 * slashed to the client, the rest of the collateral becomes free. Deals with an open challenge stay until it is answered.
 * @throws piece-damaged when a piece cannot be proven; such a deal can only be surrendered
 */
export async function leaveDeals(options: {
  client: ChainClient;
  sender: Sender;
  store: PieceStore;
  operatorId: bigint;
  log: Logger;
}): Promise<bigint[]> {
  const { client, sender, store, operatorId, log } = options;
  const left: bigint[] = [];
  const { activationLeaves } = await client.read('storageMarket', 'config');
  for (const deal of await dealsOfOperator(client, operatorId)) {
    if (deal.state !== 'active' || deal.challengedAt !== 0n) continue;
    const seed = await ensureSeed({ client, sender, time: await client.read('storageMarket', 'recentSeedTime') });
    if (seed === undefined) break;
    const openings = await provePiece({ store, piece: deal, seed, count: activationLeaves });
    await sender.send({ contract: 'storageMarket', functionName: 'leave', args: [deal.dealId, openings] });
    log.info('deal-left', { dealId: deal.dealId });
    left.push(deal.dealId);
  }
  return left;
}
