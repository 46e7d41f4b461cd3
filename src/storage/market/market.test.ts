import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseCid } from '../content/block.ts';
import { dealsOfClient, holdersOf, readDeal, storageDomainOf } from './chain-view.ts';
import { challengeDeal, endDeal, extendDeal, listDeals, showDeal } from './deals.ts';
import { startTestMarket, type TestMarket, type TestNode, TOKEN, until } from './market-fixture.ts';
import { type PutEvent, type PutResult, put } from './put.ts';
import { listPuts } from './put-journal.ts';
import { dealTermsDigest } from './terms.ts';

let market: TestMarket;
const nodes: TestNode[] = [];
before(async () => {
  market = await startTestMarket({ verbose: process.env.MILLRACE_TEST_LOG === '1' });
  for (let index = 0; index < 3; index += 1) nodes.push(await market.startNode());
});
after(() => market?.stop());

test('the digest of deal terms is the one of the contract', async () => {
  const terms = {
    client: market.user.signer.address,
    operatorId: 1n,
    pieceRoot: `0x${'12'.repeat(32)}` as const,
    pieceHeight: 9,
    rawSize: 12_345n,
    contentHash: `0x${'34'.repeat(32)}` as const,
    periods: 7,
    pricePerPeriod: 8n,
    collateral: 9n,
    bond: 10n,
    clientNonce: 11n,
    providerNonce: 12n,
    expiry: 13n,
  };
  assert.equal(dealTermsDigest(storageDomainOf(market.client), terms), await market.client.read('dealDesk', 'dealTermsDigest', [terms]));
});

test('a file is stored at two providers, proven every period, paid for exactly, and its bytes are freed at the end', async () => {
  const { client, user } = market;
  const events: PutEvent[] = [];
  const result = await market.putRandom({ sizeBytes: 3_000_001, copies: 2, periods: 4, onEvent: (event) => events.push(event) });
  assert.equal(result.deals.length, 2);
  assert.notEqual(result.deals[0]?.operatorId, result.deals[1]?.operatorId);
  assert.ok(result.deals.every(({ isActive }) => isActive));
  const steps = events.flatMap((event) => (event.kind === 'copy' && event.copy === 0 ? [event.step] : []));
  assert.deepEqual([...new Set(steps)], ['signed', 'opened', 'uploading', 'stored', 'checked', 'acknowledged', 'active']);
  const operatorIds = result.deals.map(({ operatorId }) => operatorId);
  const holders = await holdersOf(client, parseCid(result.cid).bytes);
  assert.deepEqual(new Set(holders.map(({ operator }) => operator.operatorId)), new Set(operatorIds));

  const { firstPeriod } = await readDeal(client, result.deals[0]?.dealId as bigint);
  const { endPeriod } = await readDeal(client, result.deals[1]?.dealId as bigint);
  for (let period = firstPeriod; period < endPeriod; period += 1n) await market.provePeriod(period, operatorIds);
  await market.nextPeriod(1);
  for (const { dealId } of result.deals) await market.untilState(dealId, 'dropped');
  for (const account of await listDeals(client, user.signer.address)) {
    assert.equal(account.paid, account.pricePerPeriod * 4n);
    assert.equal(account.refunded, account.bond);
    assert.equal(account.escrow, 0n);
    assert.equal(account.locked, 0n);
  }
  for (const node of nodes) await until('the bytes are freed', async () => (await node.provider.status()).pieces === 0);
});

test('a put that is interrupted at any step goes on there when it is run again, and makes no deal twice', async () => {
  const { client, user, folder } = market;
  for (const step of ['signed', 'opened', 'uploading', 'stored', 'checked', 'acknowledged'] as const) {
    const path = join(folder, `interrupted-${step}.bin`);
    await writeFile(path, Buffer.alloc(700_000, step));
    const options = { client, signer: user.signer, sender: user.sender, folder: user.folder, source: { path }, copies: 2, periods: 20 };
    const interrupt = new AbortController();
    let isFirst = true;
    const stopAt = (event: PutEvent) => {
      const reached = event.kind === 'copy' && event.step === step && (step !== 'uploading' || (event.offset ?? 0n) > 0n);
      if (reached && isFirst) interrupt.abort(new DOMException('interrupted', 'AbortError'));
      if (reached) isFirst = false;
    };
    const before = (await dealsOfClient(client, user.signer.address)).length;
    await assert.rejects(market.hurry(put({ ...options, chunkBytes: 200_000, onEvent: stopAt, signal: interrupt.signal })), {
      name: 'AbortError',
    });
    assert.equal((await listPuts(user.folder)).length, 1);
    const events: PutEvent[] = [];
    const result = await market.hurry(put({ ...options, onEvent: (event) => events.push(event) }));
    assert.equal(result.deals.length, 2, step);
    assert.deepEqual(result.failed, []);
    assert.equal((await dealsOfClient(client, user.signer.address)).length, before + 2, step);
    assert.equal((await listPuts(user.folder)).length, 0);
  }
});

test('a deal is extended at its price and ended early with the fee of the profile', async () => {
  const { client, user } = market;
  const { dealId } = (await market.putRandom({ periods: 10 })).deals[0] as PutResult['deals'][0];
  const before = await readDeal(client, dealId);
  const extended = await extendDeal({ client, signer: user.signer, sender: user.sender, dealId, periods: 5 });
  assert.equal(extended.endPeriod, before.endPeriod + 5n);
  await market.provePeriod(before.firstPeriod, [before.operatorId]);
  await endDeal({ client, sender: user.sender, dealId });
  await market.nextPeriod(1);
  await market.untilState(dealId, 'dropped');
  const account = await showDeal(client, dealId);
  const remaining = extended.endPeriod - account.endPeriod;
  assert.equal(account.endPeriod, before.firstPeriod + 1n);
  assert.equal(remaining, 14n);
  const fee = (account.pricePerPeriod * remaining * 1000n) / 10_000n;
  assert.equal(account.paid, account.pricePerPeriod + fee);
  assert.equal(account.refunded + account.paid, account.pricePerPeriod * 15n + account.bond);
});

test('a targeted challenge is answered by an honest provider, who earns the bond', async () => {
  const { client, user } = market;
  const { dealId, operatorId } = (await market.putRandom()).deals[0] as PutResult['deals'][0];
  const { owner } = await client.read('operators', 'operator', [operatorId]);
  const earned = () => client.read('rails', 'balanceOf', [client.address('networkToken'), owner]);
  const before = await earned();
  const { seedTime, bond } = await challengeDeal({ client, sender: user.sender, dealId });
  assert.equal(bond, TOKEN / 1000n);
  await market.warpTo(seedTime + 1n);
  await until('the challenge is answered', async () => (await readDeal(client, dealId)).challengedAt === 0n);
  assert.equal((await earned()) - before, bond);
});
