import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startTestMarket, TEST_POLICY, type TestMarket, TOKEN, until } from '../market/market-fixture.ts';
import { actOnFile, type FileAction } from './file-money.ts';
import { putFile } from './file-put.ts';
import { fileOfBid, type StoredFile } from './stored-files.ts';

const POLICY = {
  ...TEST_POLICY,
  orders: { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 },
};

let market: TestMarket;
let bidId: bigint;

before(async () => {
  market = await startTestMarket();
  for (let index = 0; index < 2; index += 1) await market.startNode({ policy: POLICY });
  const { client, user, folder } = market;
  await until('all asks are posted', async () => (await client.read('orderBook', 'askCount')) >= 2n);
  const path = join(folder, 'source.bin');
  await writeFile(path, randomBytes(100_000));
  const options = { client, ...user, source: { path }, shape: { needed: 1, count: 2 }, periods: 20, public: true };
  ({ bidId } = await market.hurry(putFile(options)));
});
after(() => market.stop());

const view = async () => (await fileOfBid(market.client, bidId)) as StoredFile;
const act = async (action: FileAction) => actOnFile({ client: market.client, sender: market.user.sender, file: await view(), action });
const purse = () => market.client.read('networkToken', 'balanceOf', [market.user.signer.address]);

test('the owner takes out what is free to the last unit, and nothing that is reserved', async () => {
  const { free } = await view();
  assert.ok(free > 0n, 'the price that cleared is below the greatest');
  const before = await purse();
  await assert.rejects(act({ do: 'withdraw', amount: free + 1n }), { code: 'reserved' });
  await act({ do: 'withdraw', amount: 'all' });
  assert.equal((await purse()) - before, free);
  assert.equal((await view()).free, 0n);
  await assert.rejects(act({ do: 'withdraw', amount: 'all' }), { code: 'nothing-free' });
});

test('the owner adds to reserve and challenge budget, challenges a shard and gives one up', async () => {
  const { reserve, challengeBudget } = await view();
  await act({ do: 'reserve', amount: 5n * TOKEN });
  await act({ do: 'challenges', amount: TOKEN });
  const now = await view();
  assert.equal(now.reserve, reserve + 5n * TOKEN);
  assert.equal(now.challengeBudget, challengeBudget + TOKEN);
  await market.nextPeriod(1);
  await act({ do: 'challenge', shard: 0 });
  await market.hurry(until('the challenge is answered', async () => (await view()).shards[0]?.deal?.challengedAt === 0n));
  assert.ok((await view()).challengeBudget < now.challengeBudget);
  await act({ do: 'end', shard: 1 });
  assert.equal((await view()).shards[1]?.state, 'ended');
  await assert.rejects(act({ do: 'cancel' }), { code: 'bid-already-filled' });
});

test('nobody but the owner does anything with a file', async () => {
  const stranger = { client: market.client, sender: market.faucet, file: await view() };
  for (const action of [{ do: 'withdraw', amount: 'all' }, { do: 'end', shard: 0 }, { do: 'cancel' }] as FileAction[]) {
    await assert.rejects(actOnFile({ ...stranger, action }), { code: 'not-file-owner' });
  }
});
