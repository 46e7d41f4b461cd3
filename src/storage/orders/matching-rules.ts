import { bytesToHex, type Hex, hexToBytes } from 'viem';
import { type ErrorValue, MillraceError } from '../../errors.ts';

/** An ask as the order book has it, with the parties behind its operator. Prices and collateral per GiB. */
export interface BookAsk {
  askId: bigint;
  operatorId: bigint;
  owner: Hex;
  beneficiary: Hex;
  postedAt: bigint;
  /** Chain time from which no batch can use it. */
  validUntil: bigint;
  minPrice: bigint;
  collateralPerGiB: bigint;
  freeBytes: bigint;
  minBytes: bigint;
  maxBytes: bigint;
  minPeriods: number;
  maxPeriods: number;
  freeDeals: number;
  networkPrefix: Hex;
  region: Hex;
}

/** A bid as the order book has it. */
export interface BookBid {
  bidId: bigint;
  filled: boolean;
  postedAt: bigint;
  validUntil: bigint;
  count: number;
  shardSize: bigint;
  periods: number;
  maxPrice: bigint;
  collateralPerGiB: bigint;
  distinctNetworks: boolean;
  regionMax: number;
  excluded: readonly bigint[];
}

/** Which asks fill which bids, as `IOrderBook.Matching`: two bytes for each shard, the index of its ask. */
export interface Matching {
  bids: readonly bigint[];
  asks: readonly bigint[];
  assignment: Hex;
}

/** What a feasible matching is worth: its score, the one price of all its deals, and the bytes of all shards. */
export interface MatchingOutcome {
  score: bigint;
  price: bigint;
  sizeBytes: bigint;
}

/** The close of a batch and its length, chain seconds: they decide which orders it has. */
export interface BatchTimes {
  close: bigint;
  batchSeconds: bigint;
}

/** Orders by number. */
export interface Book {
  asks: readonly BookAsk[];
  bids: readonly BookBid[];
}

const ZERO_WORD: Hex = `0x${'0'.repeat(64)}`;

/** Whether a batch has an order: posted before its close, and valid until the end of its settlement. */
export function isInBatch({ close, batchSeconds }: BatchTimes, order: { postedAt: bigint; validUntil: bigint }): boolean {
  return order.postedAt < close && order.validUntil >= close + batchSeconds;
}

/** Packs the index of an ask for each shard. */
export function packAssignment(indices: readonly number[]): Hex {
  const bytes = new Uint8Array(2 * indices.length);
  indices.forEach((index, shard) => {
    bytes[2 * shard] = index >> 8;
    bytes[2 * shard + 1] = index & 255;
  });
  return bytesToHex(bytes);
}

/** The index of an ask for each shard. */
export function unpackAssignment(assignment: Hex): number[] {
  const bytes = hexToBytes(assignment);
  return Array.from({ length: bytes.length >> 1 }, (_, shard) => ((bytes[2 * shard] as number) << 8) | (bytes[2 * shard + 1] as number));
}

/**
 * Judges a matching as the contract does (`MatchingRules`), in the same order and with the same error codes.
 * @throws nothing-matched, unknown-ask, unknown-bid, not-ascending, not-in-batch, bid-already-filled, assignment-length,
 *   unknown-index, does-not-fit, operator-excluded, not-diverse, ask-unused, price-crossed
 */
export function checkMatching(options: { book: Book; matching: Matching; times: BatchTimes }): MatchingOutcome {
  const { book, matching, times } = options;
  if (matching.bids.length === 0) throw broken('nothing-matched', 'The matching names no bid', {});
  const asks = matching.asks.map((askId, index) => {
    const ask = book.asks.find((each) => each.askId === askId);
    if (ask === undefined) throw broken('unknown-ask', `There is no ask ${askId}`, { askId });
    requireInBatch(times, matching.asks, index, ask);
    return { ...ask };
  });
  const bids = matching.bids.map((bidId, index) => {
    const bid = book.bids.find((each) => each.bidId === bidId);
    if (bid === undefined) throw broken('unknown-bid', `There is no bid ${bidId}`, { bidId });
    requireInBatch(times, matching.bids, index, bid);
    if (bid.filled) throw broken('bid-already-filled', `Bid ${bidId} is filled already`, { bidId });
    return bid;
  });
  return evaluate(matching, asks, bids);
}

function evaluate(matching: Matching, asks: BookAsk[], bids: BookBid[]): MatchingOutcome {
  const expected = bids.reduce((sum, { count }) => sum + 2 * count, 0);
  const got = (matching.assignment.length - 2) / 2;
  if (got !== expected) throw broken('assignment-length', `Got an assignment of ${got} bytes, expected ${expected}`, { got, expected });
  const indices = unpackAssignment(matching.assignment);
  const used = new Set<number>();
  let at = 0;
  let score = 0n;
  let sizeBytes = 0n;
  let lowestBid = (1n << 128n) - 1n;
  for (const bid of bids) {
    const placed = indices.slice(at, at + bid.count);
    at += bid.count;
    placed.forEach((index, shard) => {
      const ask = asks[index];
      if (ask === undefined) throw broken('unknown-index', `Got ask ${index} of ${asks.length}`, { index, count: asks.length });
      used.add(index);
      const misfit = misfitOf(bid, ask);
      if (misfit === 'excluded')
        throw broken('operator-excluded', `Bid ${bid.bidId} excludes operator ${ask.operatorId}`, { bidId: bid.bidId });
      if (misfit !== undefined) throw broken('does-not-fit', `Ask ${ask.askId} does not fit bid ${bid.bidId}: ${misfit}`, { what: misfit });
      ask.freeBytes -= bid.shardSize;
      ask.freeDeals -= 1;
      const shared = sharedWith(
        bid,
        ask,
        placed.slice(0, shard).map((other) => asks[other] as BookAsk),
      );
      if (shared !== undefined) throw broken('not-diverse', `Two shards of bid ${bid.bidId} have one ${shared}`, { what: shared });
      score += bid.shardSize * BigInt(bid.periods) * (bid.maxPrice - ask.minPrice + 1n);
    });
    sizeBytes += bid.shardSize * BigInt(bid.count);
    if (bid.maxPrice < lowestBid) lowestBid = bid.maxPrice;
  }
  const unused = asks.find((_, index) => !used.has(index));
  if (unused !== undefined) throw broken('ask-unused', `Ask ${unused.askId} fills no bid`, { askId: unused.askId });
  let highestAsk = 0n;
  for (const { minPrice } of asks) if (minPrice > highestAsk) highestAsk = minPrice;
  if (highestAsk > lowestBid) throw broken('price-crossed', `Ask ${highestAsk} is above bid ${lowestBid}`, { highestAsk, lowestBid });
  return { score, price: (highestAsk + lowestBid) / 2n, sizeBytes };
}

/** Why one shard of a bid cannot fall to an ask as it stands, or undefined when it can. */
export function misfitOf(bid: BookBid, ask: BookAsk): string | undefined {
  if (bid.maxPrice < ask.minPrice) return 'price';
  if (bid.collateralPerGiB > ask.collateralPerGiB) return 'collateral';
  if (bid.shardSize < ask.minBytes || bid.shardSize > ask.maxBytes) return 'size';
  if (bid.periods < ask.minPeriods || bid.periods > ask.maxPeriods) return 'periods';
  if (bid.shardSize > ask.freeBytes) return 'capacity';
  if (ask.freeDeals === 0) return 'deals';
  if (bid.distinctNetworks && ask.networkPrefix === ZERO_WORD) return 'network';
  if (bid.excluded.includes(ask.operatorId)) return 'excluded';
  return undefined;
}

/** What an ask has in common with asks that other shards of the bid fall to already, where the bid does not bear it. */
function sharedWith(bid: BookBid, ask: BookAsk, others: readonly BookAsk[]): string | undefined {
  let inRegion = 1;
  for (const other of others) {
    if (ask.operatorId === other.operatorId) return 'operator';
    if (areRelated(ask, other)) return 'owner';
    if (bid.distinctNetworks && ask.networkPrefix === other.networkPrefix) return 'network';
    if (ask.region === other.region) inRegion += 1;
    if (bid.regionMax !== 0 && inRegion > bid.regionMax) return 'region';
  }
  return undefined;
}

function areRelated(one: BookAsk, other: BookAsk): boolean {
  return (
    one.owner === other.owner || one.beneficiary === other.beneficiary || one.owner === other.beneficiary || one.beneficiary === other.owner
  );
}

function requireInBatch(times: BatchTimes, ids: readonly bigint[], index: number, order: { postedAt: bigint; validUntil: bigint }): void {
  const [id, previous] = [ids[index] as bigint, ids[index - 1]];
  if (previous !== undefined && id <= previous) throw broken('not-ascending', `Order ${id} comes after ${previous}`, { id, previous });
  if (!isInBatch(times, order)) throw broken('not-in-batch', `The batch does not have order ${id}`, { id });
}

function broken(code: string, message: string, values: Record<string, ErrorValue>): MillraceError {
  return new MillraceError(code, { actor: 'caller', message, values });
}
