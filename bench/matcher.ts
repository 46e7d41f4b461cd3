/** The matcher of the order book: what it makes of books of several sizes, and how long it takes. */
import { largeBook, TIMES } from '../src/storage/orders/matcher.cases.ts';
import { solveMatching } from '../src/storage/orders/matcher.ts';

for (const size of [
  { asks: 20, bids: 8, count: 3 },
  { asks: 100, bids: 20, count: 14 },
  { asks: 1000, bids: 100, count: 14 },
]) {
  for (const steps of [200_000, 2_000_000, 20_000_000]) {
    const book = largeBook(size);
    const startedAt = performance.now();
    const result = solveMatching({ book, times: TIMES, limits: { steps, shardsMax: 2000 } });
    const ms = Math.round(performance.now() - startedAt);
    const label = `${size.asks} asks, ${size.bids} bids of ${size.count}, ${steps} steps`;
    process.stdout.write(
      `${label.padEnd(48)} ${result?.matching.bids.length ?? 0} bids filled, score ${result?.score ?? 0n}${result?.isExact === true ? ' (the greatest)' : ''}, ${ms} ms\n`,
    );
  }
}
