import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { anyBook, largeBook, TIMES } from './matcher.cases.ts';
import { type MatcherResult, solveMatching } from './matcher.ts';
import { type Book, type BookBid, checkMatching, isInBatch, misfitOf, packAssignment } from './matching-rules.ts';

function scoreOf(book: Book, result: MatcherResult | undefined): bigint {
  if (result === undefined) return 0n;
  const outcome = checkMatching({ book, matching: result.matching, times: TIMES });
  assert.equal(outcome.score, result.score);
  return outcome.score;
}

/** What somebody without a solver would do: the dearest bid first, each shard at the cheapest ask, until one cannot be added. */
function naiveScore(book: Book): bigint {
  const placed: { bid: BookBid; asks: bigint[] }[] = [];
  let best = 0n;
  const bids = book.bids.filter((bid) => !bid.filled && isInBatch(TIMES, bid)).toSorted((a, b) => (a.maxPrice > b.maxPrice ? -1 : 1));
  const asks = book.asks.filter((ask) => isInBatch(TIMES, ask)).toSorted((a, b) => (a.minPrice < b.minPrice ? -1 : 1));
  for (const bid of bids) {
    const chosen: bigint[] = [];
    for (const ask of asks) {
      if (chosen.length === bid.count || misfitOf(bid, ask) !== undefined) continue;
      if (tryScore(book, [...placed, { bid: { ...bid, count: chosen.length + 1 }, asks: [...chosen, ask.askId] }]) !== undefined)
        chosen.push(ask.askId);
    }
    const score = chosen.length === bid.count ? tryScore(book, [...placed, { bid, asks: chosen }]) : undefined;
    if (score === undefined) continue;
    placed.push({ bid, asks: chosen });
    best = score;
  }
  return best;
}

/** The score of bids with these asks, undefined when the rules forbid them. Bids may be shorter than they are in the book. */
function tryScore(book: Book, placed: { bid: BookBid; asks: bigint[] }[]): bigint | undefined {
  const byId = placed.toSorted((a, b) => (a.bid.bidId < b.bid.bidId ? -1 : 1));
  const asks = [...new Set(byId.flatMap((entry) => entry.asks))].sort((a, b) => (a < b ? -1 : 1));
  const shortened = { asks: book.asks, bids: byId.map(({ bid }) => bid) };
  const assignment = packAssignment(byId.flatMap((entry) => entry.asks.map((askId) => asks.indexOf(askId))));
  try {
    return checkMatching({ book: shortened, matching: { bids: byId.map(({ bid }) => bid.bidId), asks, assignment }, times: TIMES }).score;
  } catch {
    return undefined;
  }
}

/** The greatest score of all matchings that there are. */
function exhaustiveScore(book: Book): bigint {
  const bids = book.bids.filter((bid) => !bid.filled && isInBatch(TIMES, bid));
  const subsets = (count: number, from = 0): bigint[][] =>
    count === 0
      ? [[]]
      : book.asks.slice(from).flatMap((ask, index) => subsets(count - 1, from + index + 1).map((rest) => [ask.askId, ...rest]));
  let best = 0n;
  const visit = (at: number, placed: { bid: BookBid; asks: bigint[] }[]) => {
    const score = placed.length === 0 ? 0n : tryScore(book, placed);
    if (score !== undefined && score > best) best = score;
    const bid = bids[at];
    if (bid === undefined) return;
    visit(at + 1, placed);
    for (const asks of subsets(bid.count)) visit(at + 1, [...placed, { bid, asks }]);
  };
  visit(0, []);
  return best;
}

test('what the matcher finds is feasible by the rules, and never worth less than what a naive matcher finds', () => {
  fc.assert(
    fc.property(anyBook(14, 8), (book) => {
      assert.ok(scoreOf(book, solveMatching({ book, times: TIMES, limits: { steps: 200_000 } })) >= naiveScore(book));
      const heuristic = solveMatching({ book, times: TIMES, limits: { steps: 200_000, exactBids: 0 } });
      assert.ok(scoreOf(book, heuristic) >= naiveScore(book), 'without the exhaustive search');
    }),
    { numRuns: 150 },
  );
});

test('in a small book the matcher finds the greatest score that there is', () => {
  fc.assert(
    fc.property(anyBook(5, 3), (book) => {
      const result = solveMatching({ book, times: TIMES });
      assert.equal(scoreOf(book, result), exhaustiveScore(book));
      assert.ok(result?.isExact ?? true);
    }),
    { numRuns: 60 },
  );
});

test('the price lies between all matched asks and bids', () => {
  fc.assert(
    fc.property(anyBook(14, 8), (book) => {
      const result = solveMatching({ book, times: TIMES, limits: { steps: 100_000 } });
      if (result === undefined) return;
      const { price } = checkMatching({ book, matching: result.matching, times: TIMES });
      for (const askId of result.matching.asks) assert.ok((book.asks.find((ask) => ask.askId === askId)?.minPrice ?? 0n) <= price);
      for (const bidId of result.matching.bids) assert.ok((book.bids.find((bid) => bid.bidId === bidId)?.maxPrice ?? 0n) >= price);
    }),
    { numRuns: 100 },
  );
});

test('the same book gives the same matching, and the order in which it is told does not matter', () => {
  fc.assert(
    fc.property(anyBook(14, 8), (book) => {
      const once = solveMatching({ book, times: TIMES, limits: { steps: 100_000 } });
      const again = solveMatching({
        book: { asks: book.asks.toReversed(), bids: book.bids.toReversed() },
        times: TIMES,
        limits: { steps: 100_000 },
      });
      assert.deepEqual(again, once);
    }),
    { numRuns: 50 },
  );
});

test('a thousand asks and a hundred bids of fourteen shards are matched within the steps of a node', () => {
  const book = largeBook({ asks: 1000, bids: 100, count: 14 });
  const result = solveMatching({ book, times: TIMES, limits: { shardsMax: 2000, steps: 3_000_000 } });
  assert.ok(scoreOf(book, result) > 0n);
  const naive = solveMatching({ book, times: TIMES, limits: { shardsMax: 2000, steps: 20_000 } });
  assert.ok((result?.score ?? 0n) >= (naive?.score ?? 0n));
});
