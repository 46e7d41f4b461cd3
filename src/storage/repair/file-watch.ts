import type { Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { inBatches } from '../market/chain-view.ts';
import { readRules } from '../market/market-rules.ts';
import { fileOfBid, type StoredFile } from '../orders/stored-files.ts';
import { periodAt } from '../possession/periods.ts';

/** Files of the order book that run, as the chain says now. */
export interface FileWatch {
  /** All files that are filled and whose end has not come. */
  running(): Promise<StoredFile[]>;
}

/**
 * Follows which files were filled, by the book's events alone; files that are over are forgotten. `wanted` bounds the look to
 * some of them, by their accounts, so that a node need not read the whole network.
 */
export function openFileWatch(client: ChainClient, wanted: (file: Hex) => boolean | Promise<boolean> = () => true): FileWatch {
  const bids = new Map<bigint, Hex>();
  let readTo: bigint | undefined;
  return {
    async running() {
      const head = await client.public.getBlockNumber({ cacheTime: 0 });
      if (readTo === undefined || head > readTo) {
        const fromBlock = readTo === undefined ? undefined : readTo + 1n;
        const filled = await client.events({ name: 'orderBook', event: 'BidFilled', fromBlock, toBlock: head });
        for (const { args } of filled) bids.set(args.bidId, args.file);
        readTo = head;
      }
      const { clock } = await readRules(client);
      const period = periodAt(clock, await client.now());
      const seen = await inBatches([...bids], async ([bidId, file]) => ((await wanted(file)) ? fileOfBid(client, bidId) : undefined));
      const files = seen.filter((file) => file !== undefined);
      for (const { bidId, endPeriod } of files) if (endPeriod <= period) bids.delete(bidId);
      return files.filter(({ endPeriod }) => endPeriod > period);
    },
  };
}
