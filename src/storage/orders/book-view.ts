import type { Hex } from 'viem';
import type { ChainClient, ChainEvent } from '../../chain/index.ts';
import { inBatches } from '../market/chain-view.ts';
import { type BatchClock, batchClock, readBookRules } from './book-rules.ts';
import type { Book, BookAsk, BookBid, Matching } from './matching-rules.ts';
import type { ShardPiece } from './orders.ts';

/** A bid that waits, with what settling it needs. */
export interface OpenBid extends BookBid {
  client: Hex;
  file: Hex;
  contentHash: Hex;
  needed: number;
  shards: readonly ShardPiece[];
}

/** One point of the public series of prices. */
export interface ClearedBatch {
  batch: bigint;
  price: bigint;
  sizeBytes: bigint;
  score: bigint;
  submitter: Hex;
  bids: readonly bigint[];
  blockNumber: bigint;
}

/** The order book as the chain has it, kept up with. */
export interface BookView {
  /** Catches up with the chain. */
  refresh(): Promise<void>;
  clock(): Promise<BatchClock>;
  asks(): BookAsk[];
  bids(): OpenBid[];
  book(): Book;
  /** The matching of a batch that the contract keeps, undefined when nobody has submitted one. */
  best(batch: bigint): Promise<{ submitter: Hex; score: bigint; matching: Matching } | undefined>;
}

/**
 * Opens a view of the order book: reads all orders once, afterwards only what has changed. Orders that no batch can use any
 * more are forgotten.
 */
export function openBookView(client: ChainClient): BookView {
  const asks = new Map<bigint, BookAsk>();
  const bids = new Map<bigint, OpenBid>();
  let readTo: bigint | undefined;

  const refreshAsks = async (askIds: readonly bigint[]) => {
    const parties = new Map<bigint, Promise<{ owner: Hex; beneficiary: Hex }>>();
    const partyOf = (operatorId: bigint) => {
      const party = parties.get(operatorId) ?? readParty(client, operatorId);
      parties.set(operatorId, party);
      return party;
    };
    await inBatches(askIds, async (askId) => {
      const ask = await client.read('orderBook', 'ask', [askId]);
      asks.set(askId, { ...ask, askId, ...(await partyOf(ask.operatorId)) });
    });
  };
  const refreshBids = (bidIds: readonly bigint[]) =>
    inBatches(bidIds, async (bidId) => {
      const known = bids.get(bidId);
      if (known === undefined) return;
      const { filled, postedAt, validUntil } = await client.read('orderBook', 'bid', [bidId]);
      bids.set(bidId, { ...known, filled, postedAt, validUntil });
    });

  return {
    async refresh() {
      const head = await client.public.getBlockNumber({ cacheTime: 0 });
      const now = await client.now();
      if (readTo !== undefined && head <= readTo) return;
      const range = { fromBlock: readTo === undefined ? undefined : readTo + 1n, toBlock: head };
      const [posted, cancelled, released, wanted, withdrawn, filled] = await Promise.all([
        client.events({ name: 'orderBook', event: 'AskPosted', ...range }),
        client.events({ name: 'orderBook', event: 'AskCancelled', ...range }),
        client.events({ name: 'orderBook', event: 'AskReleased', ...range }),
        client.events({ name: 'orderBook', event: 'BidPosted', ...range }),
        client.events({ name: 'orderBook', event: 'BidCancelled', ...range }),
        client.events({ name: 'orderBook', event: 'BidFilled', ...range }),
      ]);
      for (const event of wanted) bids.set(event.args.bidId, openBidOf(event));
      const fresh = posted.filter(({ args }) => args.ask.expiry > now).map(({ args }) => args.askId);
      const stale = [...cancelled, ...released].map(({ args }) => args.askId).filter((askId) => asks.has(askId));
      // A filled bid has taken from asks: which ones is not said by its event, so all are looked at again.
      await refreshAsks([...new Set([...fresh, ...stale, ...(filled.length > 0 ? asks.keys() : [])])]);
      await refreshBids([...new Set([...wanted, ...withdrawn, ...filled].map(({ args }) => args.bidId))]);
      for (const [askId, ask] of asks) if (ask.validUntil <= now || ask.freeDeals === 0 || ask.freeBytes === 0n) asks.delete(askId);
      for (const [bidId, bid] of bids) if (bid.filled || bid.validUntil <= now) bids.delete(bidId);
      readTo = head;
    },
    clock: async () => batchClock(await readBookRules(client), await client.now()),
    asks: () => [...asks.values()],
    bids: () => [...bids.values()],
    book: () => ({ asks: [...asks.values()], bids: [...bids.values()] }),
    async best(batch) {
      const { submitter, score, matchingHash } = await client.read('orderBook', 'best', [batch]);
      if (score === 0n || BigInt(matchingHash) === 0n) return undefined;
      const events = await client.events({ name: 'orderBook', event: 'MatchingSubmitted', args: { batch } });
      // Each submission that was kept beat the one before it: the last is the best.
      const last = events.at(-1);
      return last === undefined ? undefined : { submitter, score, matching: last.args.matching };
    },
  };
}

/** The public series of prices: one point for each batch that cleared, oldest first. */
export async function readPrices(client: ChainClient, fromBlock?: bigint): Promise<ClearedBatch[]> {
  const events = await client.events({ name: 'orderBook', event: 'BatchCleared', fromBlock });
  return events.map(({ args, blockNumber }) => ({ ...args, blockNumber }));
}

async function readParty(client: ChainClient, operatorId: bigint): Promise<{ owner: Hex; beneficiary: Hex }> {
  const { owner, beneficiary } = await client.read('operators', 'operator', [operatorId]);
  return { owner, beneficiary };
}

function openBidOf({ args }: ChainEvent<'orderBook', 'BidPosted'>): OpenBid {
  const { bid, bidId, file, shards, excluded, contentHash } = args;
  // When it was posted and until when it is valid follow by a read of its state.
  return { ...bid, bidId, file, contentHash, shards, excluded, filled: false, postedAt: 0n, validUntil: bid.expiry };
}
