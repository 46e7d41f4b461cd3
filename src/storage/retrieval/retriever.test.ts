import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { parseCid } from '../content/block.ts';
import { retrieve } from '../content/retrieve.ts';
import { startTestMarket, type TestMarket, type TestNode, TOKEN } from '../market/market-fixture.ts';
import { findCandidates } from './holdings.ts';
import { createPaidFetch, EXPECTED_BYTES } from './paid-fetch.ts';
import { fundedKey, startBuyer, type TestBuyer } from './paid-fixture.ts';
import { CHUNK_BYTES } from './paywall.ts';
import { openPeerRecords } from './peer-records.ts';
import { type Retriever, type RetrieverPolicy, startRetriever } from './retriever.ts';

const POLICY: RetrieverPolicy = {
  pricePerGib: TOKEN / 7n,
  chunkBytes: CHUNK_BYTES,
  cacheBytes: 64 << 20,
  claimIntervalSeconds: 300,
  originPricePerGibMax: TOKEN,
  originBudget: TOKEN,
  announceSeconds: 1800,
};
let market: TestMarket;
let buyer: TestBuyer;
let provider: TestNode;
let content: { cid: string; bytes: Buffer };
const stops: (() => Promise<void>)[] = [];

interface Running {
  retriever: Retriever;
  server: PeerServer;
  holder: `0x${string}`;
}

/** A retriever whose key is registered nowhere. */
async function start(folder: string, key: Awaited<ReturnType<typeof fundedKey>>, port = 0): Promise<Running> {
  let retriever: Retriever | undefined;
  const identity = await openTransportIdentity(folder);
  const server = await startPeerServer({
    port,
    identity,
    fetch: (request) => retriever?.fetch(request) ?? new Response(null, { status: 503 }),
  });
  retriever = await startRetriever({
    folder,
    client: market.client,
    ...key,
    transportKey: identity.transportKey,
    endpoint: async () => `https://127.0.0.1:${server.port}`,
    policy: POLICY,
    log: market.log,
  });
  return { retriever, server, holder: key.signer.address };
}

before(async () => {
  market = await startTestMarket();
  provider = await market.startNode();
  const put = await market.putRandom({ sizeBytes: 3_500_000 });
  content = { cid: put.cid, bytes: put.bytes };
  buyer = await startBuyer(market, { depositRequests: 1000n, depositMax: TOKEN });
});
after(async () => {
  await buyer.stop();
  for (const stop of stops.reverse()) await stop();
  await market.stop();
});

test('a retriever fetches what it lacks from the provider, sells it, and sells from its cache when the provider is gone', async () => {
  const folder = join(market.folder, 'retriever');
  const key = await fundedKey(market);
  let running = await start(folder, key);
  const router = { endpoint: `https://127.0.0.1:${running.server.port}`, transportKey: (await openTransportIdentity(folder)).transportKey };
  const records = openPeerRecords(join(market.folder, 'records.json'));
  const first = await readThrough(running, records);
  assert.deepEqual(first.bytes, content.bytes);
  assert.ok(first.paid > 0n);
  const { cachedBytes, earned, misses } = await running.retriever.status();
  assert.ok(cachedBytes >= content.bytes.length && misses > 0);
  assert.equal(earned, first.paid);

  // Its announcement is found through the routing API, for the root and for a block below it.
  const { candidates } = await findCandidates(market.client, parseCid(content.cid), { routers: [router] });
  assert.deepEqual(candidates.map(({ hasDeal }) => hasDeal).sort(), [false, true]);

  // After a restart the cache is there, and the provider is not needed.
  await stopRunning(running);
  running = await start(folder, key, running.server.port);
  stops.push(() => stopRunning(running));
  await provider.stop();
  const again = await readThrough(running, records);
  assert.deepEqual(again.bytes, content.bytes);
  assert.equal((await running.retriever.status()).spentOnOrigins, 0n);
  assert.equal(records.of(running.holder)?.served, 2);
});

async function stopRunning({ retriever, server }: Running): Promise<void> {
  await server.stop(100);
  await retriever.stop();
}

async function readThrough(running: Running, records: ReturnType<typeof openPeerRecords>): Promise<{ bytes: Buffer; paid: bigint }> {
  const url = `http://127.0.0.1:${running.server.port}`;
  const paid = createPaidFetch({
    payer: buyer.payer,
    fetch: (address, init) => fetch(address, init),
    terms: { holder: running.holder, pricePerGib: POLICY.pricePerGib, chunkBytes: BigInt(POLICY.chunkBytes), budget: { left: TOKEN } },
  });
  const path = join(market.folder, randomBytes(6).toString('hex'));
  const source = { url, fetch: paid.fetch, chunked: { expectedBytesHeader: EXPECTED_BYTES, bytesMax: POLICY.chunkBytes } };
  const { sources } = await retrieve({ cid: content.cid, sources: [source], output: { path } });
  const [{ bytes, failures, lied } = { bytes: 0, failures: 0, lied: false }] = sources;
  records.note([{ holder: running.holder, endpoint: url, bytes, failures, lied, milliseconds: 1, ...paid.record() }]);
  return { bytes: await readFile(path), paid: paid.record().paid };
}
