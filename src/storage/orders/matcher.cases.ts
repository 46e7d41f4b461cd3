import fc from 'fast-check';
import { type Hex, toHex } from 'viem';
import type { BatchTimes, Book, BookAsk, BookBid } from './matching-rules.ts';

/** A batch that closes at 1,000 and is over at 1,100. */
export const TIMES: BatchTimes = { close: 1000n, batchSeconds: 100n };

/** An address, a network or a region out of few, so that some are the same. */
export const addressOf = (index: number): Hex => toHex(index + 1, { size: 20 });
const wordOf = (index: number): Hex => toHex(index, { size: 32 });
const amount = (max: number) => fc.integer({ min: 0, max }).map(BigInt);

/** Asks of which many are of one party, network or region; some not in the batch. */
export const anyAsks = (maxLength: number): fc.Arbitrary<BookAsk[]> =>
  fc
    .array(
      fc.record({
        operator: fc.integer({ min: 1, max: 25 }),
        owner: fc.integer({ min: 0, max: 25 }),
        beneficiary: fc.integer({ min: 0, max: 25 }),
        postedAt: fc.constantFrom(0n, 0n, 0n, 0n, 0n, 999n, 1000n),
        validUntil: fc.constantFrom(5000n, 5000n, 5000n, 5000n, 1100n, 1099n),
        minPrice: amount(12),
        collateralPerGiB: fc.constantFrom(5n, 5n, 5n, 2n),
        freeBytes: amount(40),
        minBytes: fc.constantFrom(0n, 0n, 0n, 4n),
        maxBytes: fc.constantFrom(10n, 10n, 10n, 4n),
        minPeriods: fc.constantFrom(1, 1, 1, 4),
        maxPeriods: fc.constantFrom(9, 9, 9, 4),
        freeDeals: fc.integer({ min: 0, max: 4 }),
        network: fc.integer({ min: 0, max: 12 }),
        region: fc.integer({ min: 0, max: 4 }),
      }),
      { maxLength },
    )
    .map((entries) =>
      entries.map(({ operator, owner, beneficiary, network, region, ...rest }, index) => ({
        ...rest,
        askId: BigInt(index * 2 + 1),
        operatorId: BigInt(operator),
        owner: addressOf(owner),
        beneficiary: addressOf(beneficiary),
        networkPrefix: wordOf(network),
        region: wordOf(region),
      })),
    );

/** Bids of one to three shards, some with demands on diversity. */
export const anyBids = (maxLength: number): fc.Arbitrary<BookBid[]> =>
  fc
    .array(
      fc.record({
        filled: fc.constantFrom(false, false, false, false, false, false, true),
        postedAt: fc.constantFrom(0n, 0n, 0n, 0n, 0n, 0n, 1000n),
        validUntil: fc.constantFrom(5000n, 5000n, 5000n, 5000n, 5000n, 1099n),
        count: fc.integer({ min: 1, max: 3 }),
        shardSize: fc.integer({ min: 1, max: 10 }).map(BigInt),
        periods: fc.integer({ min: 1, max: 9 }),
        maxPrice: fc.integer({ min: 3, max: 14 }).map(BigInt),
        collateralPerGiB: amount(4),
        distinctNetworks: fc.constantFrom(false, false, true),
        regionMax: fc.constantFrom(0, 0, 1, 2),
        excluded: fc.array(fc.integer({ min: 1, max: 25 }).map(BigInt), { maxLength: 2 }),
      }),
      { maxLength },
    )
    .map((entries) => entries.map((entry, index) => ({ ...entry, bidId: BigInt(index * 3 + 1) })));

/** A book of any asks and bids. */
export const anyBook = (asks: number, bids: number): fc.Arbitrary<Book> => fc.record({ asks: anyAsks(asks), bids: anyBids(bids) });

/** A large book of a market that works: prices spread around 1,000, a few hundred operators, bids of `count` shards. */
export function largeBook(options: { asks: number; bids: number; count: number }): Book {
  let state = 12345;
  const draw = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const word = (below: number) => wordOf(1 + draw(below));
  const asks = Array.from({ length: options.asks }, (_, index) => ({
    askId: BigInt(index + 1),
    operatorId: BigInt(1 + index),
    owner: addressOf(1000 + draw(options.asks)),
    beneficiary: addressOf(5000 + draw(options.asks)),
    postedAt: 0n,
    validUntil: 5000n,
    minPrice: BigInt(700 + draw(600)),
    collateralPerGiB: 100n,
    freeBytes: BigInt(1 + draw(4)) << 30n,
    minBytes: 1n,
    maxBytes: 1n << 32n,
    minPeriods: 1,
    maxPeriods: 1000,
    freeDeals: 1 + draw(20),
    networkPrefix: word(options.asks / 2),
    region: word(20),
  }));
  const bids = Array.from({ length: options.bids }, (_, index) => ({
    bidId: BigInt(index + 1),
    filled: false,
    postedAt: 0n,
    validUntil: 5000n,
    count: options.count,
    shardSize: BigInt(1 + draw(1000)) << 20n,
    periods: 10 + draw(200),
    maxPrice: BigInt(800 + draw(600)),
    collateralPerGiB: 50n,
    distinctNetworks: draw(2) === 0,
    regionMax: draw(3) * 2,
    excluded: [],
  }));
  return { asks, bids };
}
