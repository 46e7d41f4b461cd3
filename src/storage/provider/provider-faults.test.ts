import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { readDeal } from '../market/chain-view.ts';
import { challengeDeal, showDeal } from '../market/deals.ts';
import { demandBytes } from '../market/demand.ts';
import { startTestMarket, type TestMarket, type TestNode, until } from '../market/market-fixture.ts';
import type { PutResult } from '../market/put.ts';

let market: TestMarket;
before(async () => {
  market = await startTestMarket({ verbose: process.env.MILLRACE_TEST_LOG === '1' });
});
after(() => market?.stop());

type Stored = PutResult['deals'][0];
const storedAt = (result: PutResult, node: TestNode): Stored =>
  result.deals.find(({ operatorId }) => operatorId === node.operatorId) as Stored;

/**
 * What a slash pays a client by the rules: the unproven time and the replacement, at most half of the slash, and together with the
 * reward of who has reported it at most what the client has paid.
 */
async function compensationOf(dealId: bigint, slashed: bigint, options: { reported: boolean }): Promise<bigint> {
  const { replacementPeriods, reporterRewardBps, reporterRewardMax } = await market.client.read('storageMarket', 'config');
  const account = await showDeal(market.client, dealId);
  const { period } = await market.client.read('possession', 'config');
  const agreed = (await market.client.events({ name: 'storageMarket', event: 'DealActivated', args: { dealId } }))[0]?.args;
  const periods = (agreed?.endPeriod as bigint) - (agreed?.firstPeriod as bigint);
  const unproven = periods - account.provenSeconds / BigInt(period);
  const wanted = (unproven + BigInt(replacementPeriods)) * account.pricePerPeriod;
  const reward = options.reported ? least((least(slashed, account.paid) * BigInt(reporterRewardBps)) / 10_000n, reporterRewardMax) : 0n;
  return least(wanted, account.paid - reward, slashed / 2n);
}

const least = (...amounts: bigint[]): bigint => amounts.sort((one, other) => (one < other ? -1 : 1))[0] as bigint;

test('a provider that is stopped in the middle of a period proves it after its restart, once', async (t) => {
  const node = await market.startNode();
  t.after(() => node.stop());
  const { deals } = await market.putRandom();
  const { dealId, operatorId } = deals[0] as Stored;
  const { firstPeriod } = await readDeal(market.client, dealId);
  await market.provePeriod(firstPeriod, [operatorId]);
  await node.stop();
  await market.warpTo((await market.client.read('possession', 'seedTime', [firstPeriod + 1n])) + 5n);
  await node.restart();
  await market.provePeriod(firstPeriod + 1n, [operatorId]);
  const proofs = await market.client.events({ name: 'possession', event: 'Proven', args: { operatorId } });
  assert.deepEqual(
    proofs.map(({ args }) => args.period).filter((period) => period >= firstPeriod),
    [firstPeriod, firstPeriod + 1n],
  );
  assert.deepEqual(await market.client.events({ name: 'possession', event: 'Missed', args: { operatorId } }), []);
});

test('a provider that misses a period through an outage recovers with the missed leaves, and pays nothing the first time', async (t) => {
  const node = await market.startNode();
  t.after(() => node.stop());
  const { deals } = await market.putRandom();
  const { dealId, operatorId } = deals[0] as Stored;
  const { firstPeriod, locked } = await readDeal(market.client, dealId);
  await market.provePeriod(firstPeriod, [operatorId]);
  await node.stop();
  await market.nextPeriod(1);
  await market.nextPeriod(1);
  await node.restart();
  await market.provePeriod(firstPeriod + 2n, [operatorId]);
  const proofs = await market.client.events({ name: 'possession', event: 'Proven', args: { operatorId } });
  assert.deepEqual(
    proofs.filter(({ args }) => args.period >= firstPeriod).map(({ args }) => [args.period, args.openings, args.recovery]),
    [
      [firstPeriod, 9, false],
      [firstPeriod + 2n, 27, true],
    ],
  );
  const after = await readDeal(market.client, dealId);
  assert.equal(after.locked, locked);
});

test('a lost piece is declared before the freeze, the others are proven, and when its bytes are back it is recovered', async (t) => {
  const { client } = market;
  const node = await market.startNode();
  t.after(() => node.stop());
  const stored = await market.putRandom();
  const lost = stored.deals[0] as Stored;
  const kept = (await market.putRandom()).deals[0] as Stored;
  const { pieceRoot, rawSize } = await readDeal(client, lost.dealId);
  const copy = await buffer(node.provider.store.readPayload(pieceRoot));
  await node.provider.store.delete(pieceRoot);
  const period = await market.nextPeriod(1);
  await market.untilState(lost.dealId, 'faulty');
  await market.provePeriod(period, [node.operatorId]);
  assert.equal((await readDeal(client, kept.dealId)).state, 'active');
  assert.deepEqual(await client.events({ name: 'possession', event: 'Missed', args: { operatorId: node.operatorId } }), []);
  const receiver = await node.provider.store.receive({ root: pieceRoot, rawSize: Number(rawSize) });
  await receiver.append(Readable.from([copy]), { offset: 0 });
  await receiver.commit();
  await market.nextPeriod(1);
  await market.untilState(lost.dealId, 'active');
  const { period: periodSeconds } = await client.read('possession', 'config');
  const { declaredFaultFeeBps } = await client.read('storageMarket', 'config');
  const deal = await showDeal(client, lost.dealId);
  const [recovered] = await client.events({ name: 'storageMarket', event: 'FaultRecovered', args: { dealId: lost.dealId } });
  const faultyPeriods = (recovered?.args.period as bigint) - period;
  assert.equal(deal.locked, deal.collateral - (deal.collateral * BigInt(declaredFaultFeeBps) * faultyPeriods) / 10_000n);
  assert.equal(deal.provenSeconds % BigInt(periodSeconds), 0n);
  const next = await market.nextPeriod(1);
  await market.provePeriod(next, [node.operatorId]);
  assert.equal((await readDeal(client, lost.dealId)).state, 'active');
});

test('a piece that is deleted after the freeze costs its deal: slashed in full, the client compensated to the wei, the rest recovers', async (t) => {
  const { client, user } = market;
  const node = await market.startNode();
  t.after(() => node.stop());
  const lost = (await market.putRandom({ sizeBytes: 400_000 })).deals[0] as Stored;
  const kept = (await market.putRandom({ sizeBytes: 100_000 })).deals[0] as Stored;
  const { pieceRoot, firstPeriod } = await readDeal(client, kept.dealId);
  await market.provePeriod(firstPeriod, [node.operatorId]);
  const period = await market.nextPeriod(1);
  await market.warpTo((await client.read('possession', 'freezeTime', [period])) + 1n);
  const lostRoot = (await readDeal(client, lost.dealId)).pieceRoot;
  assert.notEqual(lostRoot, pieceRoot);
  await node.provider.store.delete(lostRoot);
  await market.warpTo((await client.read('possession', 'seedTime', [period])) + 1n);
  await until('the node knows of the loss', async () => (await node.provider.status()).lostDeals.includes(lost.dealId));
  await market.nextPeriod(1);
  await market.untilState(lost.dealId, 'faulty');
  const before = await client.read('stakeVault', 'claimableOf', [user.signer.address]);
  await market.provePeriod(period + 1n, [node.operatorId]);
  await market.untilState(lost.dealId, 'terminated');
  const [ended] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId: lost.dealId } });
  const expected = await compensationOf(lost.dealId, ended?.args.slashed as bigint, { reported: false });
  assert.equal(ended?.args.cause, 0);
  assert.ok(expected > 0n);
  assert.equal(ended?.args.compensation, expected);
  assert.equal((await client.read('stakeVault', 'claimableOf', [user.signer.address])) - before, expected);
  assert.equal((await readDeal(client, kept.dealId)).state, 'active');
});

test('a targeted challenge of a piece that is gone ends in its termination by anyone', async (t) => {
  const { client, user } = market;
  const node = await market.startNode({ duties: ['activation', 'prover', 'challenges', 'housekeeping'] });
  t.after(() => node.stop());
  const { dealId } = (await market.putRandom()).deals[0] as Stored;
  const { pieceRoot, collateral } = await readDeal(client, dealId);
  await node.provider.store.delete(pieceRoot);
  const { deadline } = await challengeDeal({ client, sender: user.sender, dealId });
  await market.warpTo(deadline + 1n);
  await user.sender.send({ contract: 'storageMarket', functionName: 'terminate', args: [dealId] });
  const [ended] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId } });
  assert.equal(ended?.args.cause, 2);
  assert.equal(ended?.args.slashed, collateral);
  assert.equal(ended?.args.compensation, await compensationOf(dealId, collateral, { reported: true }));
});

test('demanded bytes are published on chain by a provider that answers no request, and it earns the bond of each leaf', async (t) => {
  const { client, user } = market;
  let isDeaf = false;
  const node = await market.startNode({ intercept: () => (isDeaf ? new Response(null, { status: 503 }) : undefined) });
  t.after(() => node.stop());
  const { deals } = await market.putRandom({ sizeBytes: 40_000 });
  const { dealId, operatorId } = deals[0] as Stored;
  isDeaf = true;
  const { beneficiary } = await client.read('operators', 'operator', [operatorId]);
  const token = client.address('networkToken');
  const before = await client.read('rails', 'balanceOf', [token, beneficiary]);
  const { challengeBond } = await client.read('storageMarket', 'config');
  const { pieceRoot, rawSize } = await readDeal(client, dealId);
  const payload = await buffer(node.provider.store.readPayload(pieceRoot));
  // more than one demand can bring, and an end that fills no group of leaves
  const [from, to] = [200, 9_000];
  const leaves = BigInt((Math.ceil(to / 127) - Math.floor(from / 127)) * 4);
  assert.deepEqual(Buffer.from(await demandBytes({ client, sender: user.sender, dealId, from, to })), payload.subarray(from, to));
  assert.equal((await client.read('rails', 'balanceOf', [token, beneficiary])) - before, challengeBond * leaves);
  const end = Number(rawSize);
  assert.deepEqual(
    Buffer.from(await demandBytes({ client, sender: user.sender, dealId, from: end - 5, to: end })),
    payload.subarray(end - 5),
  );
  await assert.rejects(demandBytes({ client, sender: user.sender, dealId, from: 5, to: end + 1 }), { code: 'bad-range' });
});

test('a provider that publishes nothing is slashed, and the client compensated', async (t) => {
  const { client, user } = market;
  const node = await market.startNode({ duties: ['activation', 'prover'] });
  t.after(() => node.stop());
  const { deals } = await market.putRandom();
  const { dealId, operatorId } = deals[0] as Stored;
  const { firstPeriod } = await readDeal(client, dealId);
  await market.provePeriod(firstPeriod, [operatorId]);
  const demand = market.hurry(demandBytes({ client, sender: user.sender, dealId, from: 0, to: 100 }));
  await assert.rejects(demand, { code: 'demand-unanswered' });
  const [ended] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId } });
  assert.equal(ended?.args.compensation, await compensationOf(dealId, ended?.args.slashed as bigint, { reported: true }));
});

test('a provider that stalls is replaced, and never taken again for the same piece', async (t) => {
  const stall = (request: Request) => (request.method === 'PATCH' ? new Promise<Response>(() => {}) : undefined);
  const bad = await market.startNode({ intercept: stall });
  t.after(() => bad.stop());
  const first = await market.putRandom({ copies: 1, stallMs: 1500, sizeBytes: 50_000 }).catch((error: Error) => error);
  assert.equal((first as { code?: string }).code, 'no-provider');
  const good = await market.startNode();
  t.after(() => good.stop());
  const result = await market.putRandom({ copies: 1, stallMs: 1500 });
  assert.equal(storedAt(result, good)?.isActive, true);
  assert.ok(result.failed.every(({ operatorId }) => operatorId === bad.operatorId));
  assert.ok(result.failed.length <= 1);
});

test('a provider that gives back wrong bytes is replaced before anything is acknowledged', async (t) => {
  const forge = (request: Request) => (new URL(request.url).pathname.startsWith('/ipfs/') ? new Response(Buffer.alloc(1000)) : undefined);
  const bad = await market.startNode({ intercept: forge });
  t.after(() => bad.stop());
  const good = await market.startNode();
  t.after(() => good.stop());
  const result = await market.putRandom({ copies: 1 });
  assert.equal(result.deals[0]?.operatorId, good.operatorId);
  for (const { operatorId, code } of result.failed)
    assert.deepEqual({ operatorId, code }, { operatorId: bad.operatorId, code: 'not-retrievable' });
});
