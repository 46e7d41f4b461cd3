import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseCid } from './block.ts';
import { dealsOfClient, holdersOf, readDeal, storageDomainOf } from './chain-view.ts';
import { listDeals } from './deals.ts';
import { startTestMarket, TEST_POLICY, type TestMarket } from './market-fixture.ts';
import { type PutEvent, put } from './put.ts';
import { dealTermsDigest } from './terms.ts';

let market: TestMarket;
before(async () => {
  market = await startTestMarket({ verbose: process.env.VERBOSE === '1' });
  for (let index = 0; index < 3; index += 1) await market.startNode();
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
  assert.equal(
    dealTermsDigest(storageDomainOf(market.client), terms),
    await market.client.read('storageMarket', 'dealTermsDigest', [terms]),
  );
});

test('a file is stored at two providers, proven every period, paid for exactly, and served', async () => {
  const { client, user, folder } = market;
  const path = join(folder, 'file.bin');
  const bytes = randomBytes(3_000_001);
  await writeFile(path, bytes);
  const events: PutEvent[] = [];
  const result = await put({
    client,
    signer: user.signer,
    sender: user.sender,
    folder: user.folder,
    source: { path },
    copies: 2,
    periods: 5,
    public: true,
    onEvent: (event) => events.push(event),
  });
  assert.equal(result.deals.length, 2);
  assert.notEqual(result.deals[0]?.operatorId, result.deals[1]?.operatorId);
  assert.ok(result.deals.every(({ isActive }) => isActive));
  const steps = events.flatMap((event) => (event.kind === 'copy' && event.copy === 0 ? [event.step] : []));
  assert.deepEqual([...new Set(steps)], ['signed', 'opened', 'uploading', 'stored', 'checked', 'acknowledged', 'active']);
  const holders = await holdersOf(client, parseCid(result.cid).bytes);
  assert.deepEqual(new Set(holders.map(({ operator }) => operator.operatorId)), new Set(result.deals.map(({ operatorId }) => operatorId)));

  const [deal] = await dealsOfClient(client, user.signer.address);
  assert.equal(deal?.state, 'active');
  const { seedTime } = { seedTime: (period: bigint) => client.read('possession', 'seedTime', [period]) };
  const first = deal?.firstPeriod as bigint;
  for (let period = first; period < first + 5n; period += 1n) {
    await market.warpTo((await seedTime(period)) + 1n);
    for (const { operatorId } of result.deals) await provenThrough(operatorId, period);
  }
  await market.nextPeriod(1);
  for (const { dealId } of result.deals) await stateOf(dealId, 'dropped');
  for (const account of await listDeals(client, user.signer.address)) {
    assert.equal(account.paid, account.pricePerPeriod * 5n);
    assert.equal(account.escrow, 0n);
    assert.equal(account.refunded, account.bond);
    assert.equal(account.locked, 0n);
  }
});

async function provenThrough(operatorId: bigint, period: bigint): Promise<void> {
  await until(
    `operator ${operatorId} has proven ${period}`,
    async () => (await market.client.read('possession', 'standing', [operatorId])).provenThrough > period,
  );
}

async function stateOf(dealId: bigint, state: string): Promise<void> {
  await until(`deal ${dealId} is ${state}`, async () => (await readDeal(market.client, dealId)).state === state);
}

async function until(what: string, isDone: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await isDone())) {
    if (performance.now() > deadline) assert.fail(`Waited for a minute: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
