import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EMISSION_TOTAL, emittedBy, LAST_HOUR } from './emission-schedule.ts';

/** `{ hours, sums }`, which the contract's own test reads too (contracts/test/compute/emission.t.sol). */
const VECTORS = join(import.meta.dirname, '../../contracts/test/compute/emission-vectors.json');

/** The exact sums, one hour after the other, in 600 binary digits: off by less than 10^-140 base units after 20 years. */
function* exactSums(): Generator<bigint> {
  const [digits, one, kept] = [600n, 1n << 600n, 10n ** 19n - 138_869_523_959_793n];
  for (let left = one; ; left = (left * kept) / 10n ** 19n) {
    yield (40_000_000n * 10n ** 18n * 10n ** 19n * (one - left)) / ((8_760n * 138_869_523_959_793n) << digits);
  }
}

test('every hour of twenty years brings less than the one before, the sum is the exact one rounded down, and it never passes 300 million', () => {
  const exact = exactSums();
  let before = -1n;
  let last = EMISSION_TOTAL;
  for (let hours = 0; hours < LAST_HOUR; hours += 1) {
    const sum = emittedBy(hours);
    assert.equal(sum, exact.next().value, `after ${hours} hours`);
    assert.ok(sum > before && sum < EMISSION_TOTAL, `after ${hours} hours`);
    if (hours > 0) {
      assert.ok(sum - before < last, `hour ${hours}`);
      last = sum - before;
    }
    before = sum;
  }
  assert.ok((exact.next().value as bigint) > EMISSION_TOTAL, 'the last hour is the one in which the cap cuts');
  for (const hours of [LAST_HOUR, LAST_HOUR + 1, 10 * LAST_HOUR]) assert.equal(emittedBy(hours), EMISSION_TOTAL);
});

test('the published rows of the schedule are met', () => {
  const hundredths = (hour: number): bigint => (emittedBy(hour) - emittedBy(hour - 1) + 5n * 10n ** 15n) / 10n ** 16n;
  assert.deepEqual([1, 2, 3].map(hundredths), [456_621n, 456_615n, 456_608n]);
  assert.equal(emittedBy(8_760) / 10n ** 16n, 3_766_298_066n); // the first year
});

test('the sums are those that the contract is tested with', () => {
  const { hours, sums } = JSON.parse(readFileSync(VECTORS, 'utf8')) as { hours: number[]; sums: string[] };
  assert.ok(hours.length > 200);
  assert.deepEqual(
    hours.map((hour) => String(emittedBy(hour))),
    sums,
  );
});
