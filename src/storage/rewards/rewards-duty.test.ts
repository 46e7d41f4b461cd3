import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RewardFacts, rewardAction } from './rewards-duty.ts';

const CALM: RewardFacts = { currentPeriod: 100n, rolledTo: 99n, lastChange: 500n, feesPerPeriod: 10n, free: 80n, due: 1n };

test('a provider whose rewards are covered sends nothing', () => {
  assert.equal(rewardAction(CALM), undefined);
  assert.equal(rewardAction({ ...CALM, free: 0n, feesPerPeriod: 0n }), undefined);
});

test('it mints when its next proofs would not be covered and something is due', () => {
  assert.equal(rewardAction({ ...CALM, free: 79n }), 'mint');
  assert.equal(rewardAction({ ...CALM, free: 79n, due: 0n }), undefined);
});

test('it is brought forward when a proof could not do it any more, and only then', () => {
  assert.equal(rewardAction({ ...CALM, rolledTo: 67n }), undefined);
  assert.equal(rewardAction({ ...CALM, rolledTo: 66n }), 'catch-up');
  assert.equal(rewardAction({ ...CALM, rolledTo: 10n, lastChange: 10n }), undefined, 'nothing changes any more');
});
