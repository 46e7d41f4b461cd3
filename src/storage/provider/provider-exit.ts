import { setTimeout as sleep } from 'node:timers/promises';
import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { type DealView, dealsOfOperator } from '../market/chain-view.ts';
import type { DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import { provePiece } from '../pieces/openings.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import { ensureSeed } from '../possession/seeds.ts';
import { fileOfDeal, type Handover, leaveVerdict, openHandovers } from '../repair/handover.ts';

/** Freeze, seed and proof of a development network take less. */
const ANSWER_PATIENCE_SECONDS = 60;

/** What one call of `leave` did, and what it left to be done. */
export interface LeaveReport {
  /** Deals that were left by this call. */
  dealsLeft: bigint[];
  /** Shards of files that were left, now or before, and are held and served until somebody else has proven them. */
  handovers: Handover[];
  /** Deals of files that are being repaired at the moment: they can be left when their file is whole again. */
  waiting: bigint[];
  /** Deals that cannot be left: a challenge is open, a proof is outstanding, or without this shard its file could not be read. */
  staying: bigint[];
}

/**
 * Leaves the running deals of an operator: each piece is proven a last time from the newest seed, the leaving fee is
 * slashed to the client, the rest of the collateral becomes free. Deals with an open challenge stay until it is answered, and all stay
 * while a proof is outstanding: from the freeze on until the period is proven, and while a missed period is unanswered. A shard of a
 * file is left only while the file is whole, so that its health is one lower at most; its bytes stay until they are handed over. What
 * was done is on chain, so the next call goes on.
 * @throws piece-damaged when a piece cannot be proven; such a deal can only be surrendered
 */
export async function leaveDeals(options: {
  client: ChainClient;
  sender: Sender;
  store: PieceStore;
  records: DealRecords;
  operatorId: bigint;
  log: Logger;
}): Promise<LeaveReport> {
  const { client, operatorId, log } = options;
  const report: LeaveReport = { dealsLeft: [], handovers: [], waiting: [], staying: [] };
  const running = (await dealsOfOperator(client, operatorId)).filter(({ state }) => state === 'active' || state === 'faulty');
  for (const [index, deal] of running.entries()) {
    const { dealId } = deal;
    const file = await fileOfDeal(client, dealId);
    const verdict = deal.state === 'faulty' || deal.challengedAt !== 0n ? 'never' : file === undefined ? 'now' : leaveVerdict(file);
    if (verdict === 'wait') report.waiting.push(dealId);
    else if (verdict === 'never') report.staying.push(dealId);
    else if (await leaveDeal(options, deal)) report.dealsLeft.push(dealId);
    else {
      log.info('leave-waits-for-proof', { dealId });
      report.staying.push(...running.slice(index).map((each) => each.dealId));
      break;
    }
  }
  report.handovers = await openHandovers(options);
  return report;
}

/** False when a proof is outstanding or no seed can be had now. */
async function leaveDeal(options: Parameters<typeof leaveDeals>[0], deal: DealView): Promise<boolean> {
  const { client, sender, store, operatorId, log } = options;
  if (!(await untilAnswered(client, operatorId))) return false;
  const { activationLeaves } = await readRules(client);
  const seed = await ensureSeed({ client, sender, time: await client.read('storageMarket', 'recentSeedTime') });
  if (seed === undefined) return false;
  const openings = await provePiece({ store, piece: deal, seed, count: activationLeaves });
  await sender.send({ contract: 'storageMarket', functionName: 'leave', args: [deal.dealId, openings] });
  log.info('deal-left', { dealId: deal.dealId });
  return true;
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
