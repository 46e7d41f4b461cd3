import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { railsBalance, tokenBalance } from '../../token/index.ts';
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

test('a put that is interrupted after its bid was posted goes on with the same bid, and one whose provider is gone says so and is whole enough', async () => {
  const { client } = market;
  const { path } = await randomSource(200_000);
  const stopped = new AbortController();
  const first = putFile({ ...putOptions(path), signal: stopped.signal, onEvent: ({ kind }) => kind === 'posted' && stopped.abort() });
  await assert.rejects(market.hurry(first));
  const before = await client.read('orderBook', 'bidCount');
  let gone: TestNode | undefined;
  const result = await market.hurry(
    putFile({
      ...putOptions(path),
      stallMs: 4_000,
      uploadsMax: 1,
      onEvent(event) {
        if (event.kind !== 'filled') return;
        gone = market.nodes.find(({ operatorId }) => operatorId === event.operatorIds[2]);
        gone?.stop();
      },
    }),
  );
  assert.equal(await client.read('orderBook', 'bidCount'), before);
  assert.equal(result.bidId, before);
  assert.deepEqual(
    result.failed.map(({ operatorId }) => operatorId),
    [gone?.operatorId],
  );
  assert.equal(result.shards.filter(({ isActive }) => isActive).length, 2);
  await gone?.restart();
});

test('a bid below all asks is refused by no batch and gives its money back when it runs out', async () => {
  const { client, user } = market;
  const { path } = await randomSource(50_000);
  const balance = async () =>
    (await tokenBalance(client, { token: 'network', account: user.signer.address })) +
    (await railsBalance(client, { token: 'network', account: user.signer.address }));
  const before = await balance();
  const put = putFile({
    ...putOptions(path),
    wishes: { maxPrice: 1n },
  });
  await assert.rejects(
    Promise.all([
      put,
      market
        .hurry(until('the bid is posted', async () => (await balance()) < before))
        .then(async () => market.warpTo((await client.now()) + 1000n)),
    ]),
    (error: { code?: string }) => error.code === 'bid-not-filled',
  );
  assert.equal(await balance(), before);
});

test('as durable as asked for: the code is chosen, and what cannot be reached is said before anything is paid', async () => {
  const { path } = await randomSource(1_000_000);
  const views: { k: number; n: number; nines: number }[] = [];
  const onEvent = (event: FilePutEvent) => {
    if (event.kind === 'durability') views.push(event.view);
  };
  const result = await market.hurry(putFile({ ...putOptions(path), shape: { nines: 2 }, untilActive: false, onEvent }));
  assert.ok((views[0]?.nines ?? 0) >= 2);
  assert.deepEqual({ needed: result.needed, count: result.count }, { needed: views[0]?.k, count: views[0]?.n });
  const before = await market.client.read('orderBook', 'bidCount');
  await assert.rejects(
    putFile({ ...putOptions(path), shape: { nines: 19 } }),
    (error: { code?: string }) => error.code === 'durability-unreachable',
  );
  assert.equal(await market.client.read('orderBook', 'bidCount'), before);
});
