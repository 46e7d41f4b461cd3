import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { readDeal } from '../storage/market/chain-view.ts';
import { startTestMarket, type TestMarket } from '../storage/market/market-fixture.ts';
import type { PutResult } from '../storage/market/put.ts';
import { warpBy } from './warp.ts';

let market: TestMarket;
before(async () => {
  market = await startTestMarket({ verbose: process.env.MILLRACE_TEST_LOG === '1' });
});
after(() => market?.stop());

const dealOf = ({ deals }: PutResult): bigint => deals[0]?.dealId as bigint;

test('a provider that loses two pieces after the freeze misses that period alone while time is moved, and keeps its other deals', async (t) => {
  const { client, chain } = market;
  const node = await market.startNode({ pollMs: 400, duties: ['activation', 'prover', 'health', 'housekeeping', 'keeper'] });
  t.after(() => node.stop());
  const [kept, small] = (await market.putMany(2)).map(dealOf) as [bigint, bigint];
  // So many leaves that the draws of the next proof cannot pass them by.
  const lost = [small, dealOf(await market.putRandom({ sizeBytes: 2_000_000 }))];
  const period = await market.nextPeriod(1);
  await market.warpTo((await client.read('possession', 'freezeTime', [period])) + 1n);
  for (const dealId of lost) await node.provider.store.delete((await readDeal(client, dealId)).pieceRoot);
  const jump = (seconds: bigint) => chain.warp(Number(seconds));
  const { period: periodSeconds } = await client.read('possession', 'config');
  const { misses } = await warpBy(client, BigInt(periodSeconds) * 4n, { jump, signal: new AbortController().signal });
  assert.equal(misses, 1);
  const missed = await client.events({ name: 'possession', event: 'Missed', args: { operatorId: node.operatorId } });
  assert.deepEqual(
    missed.map(({ args }) => args.period),
    [period],
  );
  for (const dealId of lost) assert.equal((await readDeal(client, dealId)).state, 'terminated');
  assert.equal((await readDeal(client, kept)).state, 'active');
});
