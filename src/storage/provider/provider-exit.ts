import { setTimeout as sleep } from 'node:timers/promises';
import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { dealsOfOperator } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { provePiece } from '../pieces/openings.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { ensureSeed } from '../possession/seeds.ts';

/** Freeze, seed and proof of a development network take less. */
const ANSWER_PATIENCE_SECONDS = 60;

/**
 * Leaves all running deals of an operator: each piece is proven a last time from the newest seed, the leaving fee is
 * slashed to the client, the rest of the collateral becomes free. Deals with an open challenge stay until it is answered, and all stay
 * while a proof is outstanding: from the freeze on until the period is proven, and while a missed period is unanswered.
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
  const { activationLeaves } = await readRules(client);
  for (const deal of await dealsOfOperator(client, operatorId)) {
    if (deal.state !== 'active' || deal.challengedAt !== 0n) continue;
    if (!(await untilAnswered(client, operatorId))) {
      log.info('leave-waits-for-proof', { dealId: deal.dealId });
      break;
    }
    const seed = await ensureSeed({ client, sender, time: await client.read('storageMarket', 'recentSeedTime') });
    if (seed === undefined) break;
    const openings = await provePiece({ store, piece: deal, seed, count: activationLeaves });
    await sender.send({ contract: 'storageMarket', functionName: 'leave', args: [deal.dealId, openings] });
    log.info('deal-left', { dealId: deal.dealId });
    left.push(deal.dealId);
  }
  return left;
}

/** False when a proof is still outstanding after a while; the node's prover sends it meanwhile. */
async function untilAnswered(client: ChainClient, operatorId: bigint): Promise<boolean> {
  for (let second = 0; second < ANSWER_PATIENCE_SECONDS; second++) {
    if (!(await isProofOutstanding(client, operatorId))) return true;
    await sleep(1000);
  }
  return false;
}

async function isProofOutstanding(client: ChainClient, operatorId: bigint): Promise<boolean> {
  const [now, standing] = await Promise.all([client.now(), client.read('possession', 'standing', [operatorId])]);
  if (standing.openMiss !== 0n) return true;
  const period = await client.read('possession', 'periodAt', [now]);
  return standing.provenThrough <= period && now >= (await client.read('possession', 'freezeTime', [period]));
}
