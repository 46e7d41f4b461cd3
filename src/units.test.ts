import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAmount, formatDuration, formatSize, parseAmount, parseDuration, parseSize } from './units.ts';

test('sizes are read with binary and decimal units', () => {
  assert.equal(parseSize('64MiB'), 67_108_864n);
  assert.equal(parseSize('1.5 GB'), 1_500_000_000n);
  assert.equal(parseSize('4096'), 4096n);
  assert.throws(() => parseSize('-1'), { code: 'bad-size' });
  assert.throws(() => parseSize('1 parsec'), { code: 'bad-size' });
});

test('sizes and durations print for people', () => {
  assert.equal(formatSize(1536), '1.5 KiB');
  assert.equal(formatSize(268_435_456n), '256 MiB');
  assert.equal(formatDuration(93_784), '1d 2h');
  assert.equal(formatDuration(0), '0s');
  assert.equal(parseDuration('1d'), 86_400);
  assert.throws(() => parseDuration('soon'), { code: 'bad-duration' });
});

test('parse after format is the identity for every amount and number of decimals', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 128n }), fc.integer({ min: 0, max: 18 }), (amount, decimals) => {
      assert.equal(parseAmount(formatAmount(amount, decimals), decimals), amount);
    }),
  );
  assert.throws(() => parseAmount('1.23', 1), { code: 'bad-amount' });
});
