import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Hex } from 'viem';
import { type Offer, type Rejection, rankOffers, type Selection, takeCopies } from './select.ts';

const owner = (number: number): Hex => `0x${number.toString(16).padStart(40, '0')}`;
const offerOf = (number: number, changes: Partial<Offer> = {}, price = 1000n): Offer => ({
  operatorId: BigInt(number),
  owner: owner(number),
  endpoint: `https://127.0.0.1:${9000 + number}`,
  region: '',
  availableStake: 1n << 60n,
  freeBytes: 1n << 40n,
  acceptsDeals: true,
  missesInRow: 0,
  ...changes,
  ask: {
    operatorId: BigInt(number),
    pricePerGibPeriod: price << 20n,
    minPricePerPeriod: 1n,
    minSizeBytes: 1n,
    maxSizeBytes: 1n << 35n,
    minPeriods: 1,
    maxPeriods: 1000,
    collateralBps: 10_000,
    minCollateral: 0n,
    bond: 5n,
    expiry: 1000n,
    ...changes.ask,
  },
});
const selection: Selection = {
  sizeBytes: 1n << 20n,
  periods: 10,
  now: 500n,
  excluded: new Set(),
  owners: new Set(),
  regions: new Set(),
  seed: 'a',
};

test('the cheapest offer that fits comes first', () => {
  const { candidates } = rankOffers([offerOf(1, {}, 30n), offerOf(2, {}, 10n), offerOf(3, {}, 20n)], selection);
  assert.deepEqual(
    candidates.map(({ offer }) => offer.operatorId),
    [2n, 3n, 1n],
  );
});

test('an offer that does not fit is rejected with its reason', () => {
  const cases: [Partial<Offer>, Partial<Selection>, Rejection][] = [
    [{}, { excluded: new Set([1n]) }, 'excluded'],
    [{}, { owners: new Set([owner(1)]) }, 'same-owner'],
    [{ acceptsDeals: false }, {}, 'not-accepting'],
    [{ freeBytes: (1n << 20n) - 1n }, {}, 'no-room'],
    [{ availableStake: 1n }, {}, 'stake-too-small'],
    [{ missesInRow: 1 }, {}, 'missing-proofs'],
    [{}, { maxPricePerGibPeriod: 1n }, 'price-too-high'],
    [{}, { now: 1000n }, 'ask-expired'],
    [{}, { periods: 1001 }, 'duration-too-long'],
    [{}, { sizeBytes: 1n << 36n }, 'piece-too-big'],
  ];
  for (const [offer, changes, reason] of cases) {
    assert.deepEqual(rankOffers([offerOf(1, offer)], { ...selection, ...changes }), {
      candidates: [],
      rejected: [{ operatorId: 1n, reason }],
    });
  }
});

test('copies go to different owners, and to other regions before cheaper ones of the same region', () => {
  const offers = [
    offerOf(1, { region: 'eu' }, 1n),
    offerOf(2, { region: 'eu' }, 2n),
    offerOf(3, { region: 'us' }, 9n),
    offerOf(4, { region: 'eu', owner: owner(1) }, 1n),
  ];
  const { candidates } = takeCopies(offers, selection, 4);
  const taken = candidates.map(({ offer }) => offer);
  assert.deepEqual(new Set(taken.map((offer) => offer.owner)).size, 3);
  assert.equal(taken.length, 3);
  assert.equal(taken[1]?.region, 'us');
});

test('the ranking is a pure function: same offers in any order and same seed give the same order', () => {
  const offers = Array.from({ length: 12 }, (_, index) => offerOf(index + 1, {}, BigInt(index % 3)));
  fc.assert(
    fc.property(fc.shuffledSubarray(offers, { minLength: 12 }), fc.string(), (shuffled, seed) => {
      const order = (list: Offer[]) => rankOffers(list, { ...selection, seed }).candidates.map(({ offer }) => offer.operatorId);
      assert.deepEqual(order(shuffled), order(offers));
    }),
  );
});

test('no excluded operator is ever taken, whatever the offers', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 20 })), fc.integer({ min: 1, max: 20 }), (excluded, copies) => {
      const offers = Array.from({ length: 20 }, (_, index) => offerOf(index + 1));
      const banned = new Set(excluded.map(BigInt));
      const { candidates } = takeCopies(offers, { ...selection, excluded: banned }, copies);
      assert.ok(candidates.every(({ offer }) => !banned.has(offer.operatorId)));
      assert.equal(candidates.length, Math.min(copies, 20 - excluded.length));
    }),
  );
});
