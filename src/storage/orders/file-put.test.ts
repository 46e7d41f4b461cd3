import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startTestMarket, TEST_POLICY, type TestMarket, TOKEN, until } from '../market/market-fixture.ts';
import { type FilePutEvent, putFile } from './file-put.ts';
import { checkMatching } from './matching-rules.ts';
import { filesOfClient } from './stored-files.ts';

const POLICY = {
  ...TEST_POLICY,
  orders: { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 },
};

let market: TestMarket;

before(async () => {
  market = await startTestMarket();
  for (let index = 0; index < 4; index += 1) await market.startNode({ policy: POLICY });
});
after(() => market.stop());

async function randomSource(sizeBytes: number) {
  const bytes = randomBytes(sizeBytes);
  const path = join(market.folder, `${randomBytes(6).toString('hex')}.bin`);
  await writeFile(path, bytes);
  return { bytes, path };
}

function putOptions(path: string) {
  const { signer, sender, folder } = market.user;
  return { client: market.client, signer, sender, folder, source: { path }, shape: { needed: 2, count: 3 }, periods: 20, public: true };
}

test('a file goes through the order book to providers that differ, and is proven', async () => {
  const { client } = market;
  await until('all asks are posted', async () => (await client.read('orderBook', 'askCount')) >= 4n);
  const { path } = await randomSource(300_000);
  const events: FilePutEvent[] = [];
  const result = await market.hurry(putFile({ ...putOptions(path), onEvent: (event) => events.push(event) }));
  assert.equal(result.failed.length, 0);
  assert.ok(result.shards.every(({ isActive }) => isActive));
  assert.equal(new Set(result.shards.map(({ operatorId }) => operatorId)).size, 3);
  const [file] = await filesOfClient(client, market.user.signer.address);
  assert.equal(file?.proven, 3);
  assert.equal(file?.healthy, 3);
  assert.ok(events.some(({ kind }) => kind === 'filled'));
  assert.ok(checkMatching !== undefined);
});
