import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAmount } from '../units.ts';
import { endpointUrl } from './provision.ts';
import { ASK_DEFAULTS, storagePolicy } from './storage-policy.ts';

const quotaBytes = 1n << 30n;

test('a provider that sets nothing asks the defaults, and each setting changes its own term alone', () => {
  const { ask, ...limits } = storagePolicy({ quotaBytes });
  assert.equal(limits.quotaBytes, quotaBytes);
  assert.equal(ask.pricePerGibPeriod, 10n ** 16n);
  assert.equal(ask.collateralBps, 5000);
  assert.equal(ask.maxSizeBytes, 32n << 30n);
  assert.deepEqual(storagePolicy({ quotaBytes, ask: ASK_DEFAULTS }).ask, ask);
  assert.deepEqual(storagePolicy({ quotaBytes, ask: { askCollateral: '12.5 %' } }).ask, { ...ask, collateralBps: 1250 });
  assert.deepEqual(storagePolicy({ quotaBytes, ask: { askMaxSize: '1MiB' } }).ask, { ...ask, maxSizeBytes: 1n << 20n });
});

test('any price and percentage comes out as it was written', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 10n ** 30n }), fc.integer({ min: 0, max: 100_000 }), (price, bps) => {
      const settings = { askPrice: formatAmount(price, 18), askCollateral: formatAmount(BigInt(bps), 2) };
      const { ask } = storagePolicy({ quotaBytes, ask: settings });
      assert.deepEqual([ask.pricePerGibPeriod, ask.collateralBps], [price, bps]);
    }),
  );
});

test('terms that nobody could keep are refused', () => {
  const refused = [
    { askMinPeriods: '0' },
    { askMinPeriods: '1.5' },
    { askMaxPeriods: '99999999999' },
    { askMinPeriods: '10', askMaxPeriods: '9' },
    { askMinSize: '2GiB', askMaxSize: '1GiB' },
    { askCollateral: '-1' },
    { askCollateral: '1000.01' },
    { askCollateral: '' },
  ];
  for (const ask of refused) assert.throws(() => storagePolicy({ quotaBytes, ask }), { code: 'bad-ask' });
  assert.throws(() => storagePolicy({ quotaBytes, ask: { askPrice: 'cheap' } }), { code: 'bad-amount' });
});

test('an endpoint is https, a host and a port, and nothing else', () => {
  assert.equal(endpointUrl('https://Disk.example.org:9000/'), 'https://disk.example.org:9000');
  assert.equal(endpointUrl('https://[2001:db8::1]:9000'), 'https://[2001:db8::1]:9000');
  const refused = [
    'http://a:1',
    'https://a:1/path',
    'https://a:1?x',
    'https://u:p@a:1',
    'a:1',
    '',
    'https://',
    `https://${'a'.repeat(200)}:1`,
  ];
  for (const text of refused) assert.throws(() => endpointUrl(text), { code: 'bad-endpoint' }, text);
});
