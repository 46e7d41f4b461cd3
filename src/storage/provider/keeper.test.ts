import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DealView } from '../market/chain-view.ts';
import { type KeeperAction, type KeeperFacts, keeperAction } from './keeper.ts';

const deal: DealView = {
  dealId: 1n,
  state: 'active',
  client: `0x${'11'.repeat(20)}`,
  operatorId: 1n,
  pieceRoot: `0x${'22'.repeat(32)}`,
  pieceHeight: 9,
  leaves: 10n,
  rawSize: 100n,
  contentHash: `0x${'33'.repeat(32)}`,
  openedAt: 1000n,
  firstPeriod: 10n,
  endPeriod: 20n,
  feesTo: 10n,
  faultySince: 0n,
  challengedAt: 0n,
  demandedFrom: 0n,
  demanded: 0,
  challengeRailId: 0n,
  slot: 0,
  pricePerPeriod: 1n,
  collateral: 100n,
  locked: 100n,
  bond: 1n,
  railId: 1n,
};
const facts: KeeperFacts = {
  now: 5000n,
  currentPeriod: 12n,
  activationDeadline: 900n,
  challengeWindow: 120n,
  maxFaultPeriods: 6n,
  failedAt: 0n,
  chargedMisses: 0n,
};

test('what anyone may do for a deal is due exactly when the contract allows it', () => {
  const cases: [string, Partial<DealView>, Partial<KeeperFacts>, KeeperAction['why'] | undefined][] = [
    ['a running deal', {}, {}, undefined],
    ['an open deal at its deadline', { state: 'open' }, { now: 1900n }, undefined],
    ['an open deal after its deadline', { state: 'open' }, { now: 1901n }, 'not-active-in-time'],
    ['the last period', {}, { currentPeriod: 19n }, undefined],
    ['a deal whose time is over', {}, { currentPeriod: 20n }, 'over'],
    ['charged misses', {}, { chargedMisses: 1n }, 'fault-fees'],
    ['a table that failed before the deal began', {}, { failedAt: 10n }, undefined],
    ['a table that failed in the first period', {}, { failedAt: 11n }, 'table-failed'],
    ['a table that failed in the last period', {}, { failedAt: 20n }, 'table-failed'],
    ['a table that failed after the deal ended', {}, { failedAt: 21n, currentPeriod: 22n }, 'over'],
    ['a challenge that can still be answered', { challengedAt: 4880n }, {}, undefined],
    ['a challenge whose time is over', { challengedAt: 4879n }, {}, 'challenge-unanswered'],
    ['collateral that is used up', { locked: 0n }, {}, 'collateral-gone'],
    ['a young fault', { state: 'faulty', faultySince: 7n }, {}, undefined],
    ['an old fault', { state: 'faulty', faultySince: 6n }, {}, 'fault-too-long'],
    ['a fault at the end of the deal', { state: 'faulty', faultySince: 19n }, { currentPeriod: 20n }, 'fault-too-long'],
    ['a dropped deal', { state: 'dropped' }, { currentPeriod: 99n }, undefined],
    ['a terminated deal', { state: 'terminated', locked: 0n }, {}, undefined],
  ];
  for (const [what, dealChanges, factChanges, why] of cases) {
    assert.equal(keeperAction({ ...deal, ...dealChanges }, { ...facts, ...factChanges })?.why, why, what);
  }
});
