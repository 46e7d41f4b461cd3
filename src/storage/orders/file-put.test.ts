import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { retrieve } from '../content/retrieve.ts';
import { startTestMarket, TEST_POLICY, type TestMarket, type TestNode, TOKEN, until } from '../market/market-fixture.ts';
import { fetchFile } from './file-get.ts';
import { type FilePutEvent, putFile } from './file-put.ts';
import { filesOfClient } from './stored-files.ts';

const POLICY = {
  ...TEST_POLICY,
  orders: { collateralPerGiB: 1000n * TOKEN, dealsMax: 8, roomBps: 5000, stakeBps: 5000, lifetimeSeconds: 86_400 },
};

let market: TestMarket & { nodes: TestNode[] };

before(async () => {
  const nodes: TestNode[] = [];
  market = Object.assign(await startTestMarket(), { nodes });
  for (let index = 0; index < 4; index += 1) nodes.push(await market.startNode({ policy: POLICY }));
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
  const { path, bytes } = await randomSource(300_000);
  const events: FilePutEvent[] = [];
  const result = await market.hurry(putFile({ ...putOptions(path), onEvent: (event) => events.push(event) }));
  assert.equal(result.failed.length, 0);
  assert.ok(result.shards.every(({ isActive }) => isActive));
  assert.equal(new Set(result.shards.map(({ operatorId }) => operatorId)).size, 3);
  const [file] = await filesOfClient(client, market.user.signer.address);
  assert.equal(file?.proven, 3);
  assert.equal(file?.healthy, 3);
  assert.ok(events.some(({ kind }) => kind === 'filled'));
  assert.equal(bytes.length, result.sizeBytes);
});

test('a file comes back by its CID alone, also when a provider of its data is gone', async () => {
  const { client, folder } = market;
  const { path, bytes } = await randomSource(700_000);
  const { cid, shards } = await market.hurry(putFile({ ...putOptions(path) }));
  const read = async (name: string) => {
    const fetched = await fetchFile({ client, cid, carPath: join(folder, `${name}.car`) });
    assert.ok(fetched !== undefined);
    const output = join(folder, name);
    await retrieve({ cid, sources: fetched.sources, output: { path: output } });
    await fetched.close();
    return readFile(output);
  };
  assert.deepEqual(await read('whole'), bytes);
  const holder = market.nodes.find(({ operatorId }) => operatorId === shards[0]?.operatorId);
  await holder?.stop();
  assert.deepEqual(await read('from-parity'), bytes);
  await holder?.restart();
});
