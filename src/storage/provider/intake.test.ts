import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { DealTerms } from '../market/terms.ts';
import { type DealRefusal, dealRefusal, type ProviderLoad, type ProviderPolicy, roomOf } from './intake.ts';

const policy: ProviderPolicy = {
  quotaBytes: 1_000_000n,
  openDealsMax: 8,
  openDealsPerClientMax: 2,
  askLifetimeSeconds: 3600,
  offerSecondsMin: 30,
  offerSecondsMax: 7200,
  ask: {
    pricePerGibPeriod: 1n << 30n,
    minPricePerPeriod: 10n,
    minSizeBytes: 127n,
    maxSizeBytes: 500_000n,
    minPeriods: 2,
    maxPeriods: 100,
    collateralBps: 10_000,
    minCollateral: 100n,
    bond: 7n,
  },
};
const ask = { operatorId: 1n, ...policy.ask, expiry: 10_000n };
const idle: ProviderLoad = {
  reservedBytes: 0n,
  freeDiskBytes: 1n << 40n,
  openDeals: 0,
  openDealsOfClient: 0,
  availableStake: 1n << 60n,
  closed: false,
};
const terms: DealTerms = {
  client: `0x${'11'.repeat(20)}`,
  operatorId: 1n,
  pieceRoot: `0x${'22'.repeat(32)}`,
  pieceHeight: 9,
  rawSize: 10_000n,
  contentHash: `0x${'33'.repeat(32)}`,
  periods: 10,
  pricePerPeriod: 10_000n,
  collateral: 100_000n,
  bond: 7n,
  clientNonce: 1n,
  providerNonce: 2n,
  expiry: 1600n,
};
const refusal = (changes: { terms?: Partial<DealTerms>; load?: Partial<ProviderLoad>; now?: bigint }): DealRefusal | undefined =>
  dealRefusal({ terms: { ...terms, ...changes.terms }, ask, policy, load: { ...idle, ...changes.load }, now: changes.now ?? 1000n });

test('terms after the ask are taken', () => {
  assert.equal(refusal({}), undefined);
  assert.equal(refusal({ terms: { pricePerPeriod: 20_000n, collateral: 5n } }), undefined);
});

test('each reason to refuse comes with the value and the limit', () => {
  const cases: [Parameters<typeof refusal>[0], DealRefusal][] = [
    [{ load: { closed: true } }, { reason: 'not-accepting', got: 0n, limit: 0n }],
    [{ terms: { pricePerPeriod: 9_999n } }, { reason: 'price-too-low', got: 9_999n, limit: 10_000n }],
    [{ terms: { collateral: 100_001n } }, { reason: 'collateral-too-high', got: 100_001n, limit: 100_000n }],
    [{ terms: { bond: 6n } }, { reason: 'bond-mismatch', got: 6n, limit: 7n }],
    [{ load: { reservedBytes: 990_001n } }, { reason: 'no-room', got: 10_000n, limit: 9_999n }],
    [{ load: { reservedBytes: 2_000_000n } }, { reason: 'no-room', got: 10_000n, limit: 0n }],
    [{ load: { freeDiskBytes: 9_999n } }, { reason: 'disk-full', got: 10_000n, limit: 9_999n }],
    [{ load: { openDeals: 8 } }, { reason: 'queue-full', got: 8n, limit: 8n }],
    [{ load: { openDealsOfClient: 2 } }, { reason: 'client-queue-full', got: 2n, limit: 2n }],
    [{ load: { availableStake: 100_006n } }, { reason: 'stake-too-small', got: 100_007n, limit: 100_006n }],
    [{ terms: { expiry: 1029n } }, { reason: 'offer-too-short', got: 29n, limit: 30n }],
    [{ terms: { expiry: 8201n } }, { reason: 'offer-too-long', got: 7201n, limit: 7200n }],
    [{ terms: { rawSize: 126n } }, { reason: 'piece-too-small', got: 126n, limit: 127n }],
    [{ terms: { rawSize: 500_001n } }, { reason: 'piece-too-big', got: 500_001n, limit: 500_000n }],
    [{ terms: { periods: 101 } }, { reason: 'duration-too-long', got: 101n, limit: 100n }],
    [{ now: 10_000n }, { reason: 'ask-expired', got: 10_000n, limit: 10_000n }],
  ];
  for (const [changes, expected] of cases) assert.deepEqual(refusal(changes), expected);
});

test('whatever is taken fits into what is left, and the room is never negative', () => {
  const amount = fc.bigInt({ min: 0n, max: 2_000_000n });
  fc.assert(
    fc.property(amount, amount, amount, (reservedBytes, freeDiskBytes, rawSize) => {
      const load = { reservedBytes, freeDiskBytes };
      const room = roomOf(policy, { ...idle, ...load });
      assert.ok(room >= 0n && room <= policy.quotaBytes && room <= freeDiskBytes);
      if (refusal({ load, terms: { rawSize, pricePerPeriod: 1n << 40n } }) === undefined) assert.ok(rawSize <= room);
    }),
  );
});
