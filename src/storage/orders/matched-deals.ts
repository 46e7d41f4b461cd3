import type { Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { readDeal } from '../market/chain-view.ts';
import type { DealRecord, DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import type { Duty } from '../provider/duty.ts';
import { isFile, NO_SIGNATURE, readFileParties } from './stored-files.ts';

/** What following the order book's deals stands on. */
export interface MatchedDealsOptions {
  client: ChainClient;
  operatorId: bigint;
  records: DealRecords;
  log: Logger;
  /** Whether the piece is here already, so that nothing needs to be sent. */
  holds(pieceRoot: Hex): boolean;
  everyMs?: number;
}

/**
 * The duty to take up the deals that the order book has opened with this provider: nobody proposes them, they are simply
 * there. Each gets a record, and from then on its bytes are received, activated and proven like those of any other deal.
 */
export function matchedDealsDuty(options: MatchedDealsOptions): Duty {
  const { client, operatorId, records, log } = options;
  let readTo: bigint | undefined;
  return {
    name: 'matched-deals',
    everyMs: options.everyMs ?? 1_000,
    async run(signal) {
      const head = await client.public.getBlockNumber({ cacheTime: 0 });
      if (readTo !== undefined && head <= readTo) return;
      const fromBlock = readTo === undefined ? undefined : readTo + 1n;
      const opened = await client.events({ name: 'storageMarket', event: 'DealOpened', args: { operatorId }, fromBlock, toBlock: head });
      for (const { args } of opened) {
        signal.throwIfAborted();
        if (records.byId(args.dealId) !== undefined || !(await isFile(client, args.client))) continue;
        const record = await recordOfDeal(options, { dealId: args.dealId, file: args.client, cid: args.cid });
        if (record === undefined) continue;
        await records.save(record);
        log.info('deal-matched', { dealId: args.dealId, file: args.client, sizeBytes: args.rawSize, isClaim: record.isClaim === true });
      }
      readTo = head;
    },
  };
}

/** The record of an open or running deal of a file, as far as the chain tells; undefined when it is over. */
async function recordOfDeal(
  { client, holds }: MatchedDealsOptions,
  { dealId, file, cid }: { dealId: bigint; file: Hex; cid: Hex },
): Promise<DealRecord | undefined> {
  const deal = await readDeal(client, dealId);
  if (deal.state !== 'open' && deal.state !== 'active' && deal.state !== 'faulty') return undefined;
  const [{ owner, agent }, { activationDeadlineSeconds }, claimant] = await Promise.all([
    readFileParties(client, file),
    readRules(client),
    client.read('orderBook', 'claimOperator', [dealId]),
  ]);
  const isHere = holds(deal.pieceRoot);
  return {
    terms: {
      client: file,
      operatorId: deal.operatorId,
      pieceRoot: deal.pieceRoot,
      pieceHeight: deal.pieceHeight,
      rawSize: deal.rawSize,
      contentHash: deal.contentHash,
      periods: Number(deal.endPeriod - deal.firstPeriod),
      pricePerPeriod: deal.pricePerPeriod,
      collateral: deal.collateral,
      bond: deal.bond,
      // No nonce was signed for it: its number names it.
      clientNonce: dealId,
      providerNonce: 0n,
      expiry: 0n,
    },
    cid,
    clientSignature: NO_SIGNATURE,
    status: deal.state === 'open' ? (isHere ? 'stored' : 'receiving') : 'active',
    dealId,
    activateBy: deal.openedAt + activationDeadlineSeconds,
    uploaders: [owner, agent],
    isClaim: claimant !== 0n,
  };
}
