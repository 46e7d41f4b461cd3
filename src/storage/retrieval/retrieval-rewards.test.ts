import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openTransportIdentity, startPeerServer } from '../../connect/index.ts';
import { retrieve } from '../content/retrieve.ts';
import { startTestMarket, type TestMarket, TOKEN, until } from '../market/market-fixture.ts';
import { rewardsOf } from '../rewards/rewards.ts';
import { createPaidFetch, EXPECTED_BYTES } from './paid-fetch.ts';
import { fundedKey, startBuyer } from './paid-fixture.ts';
import { CHUNK_BYTES } from './paywall.ts';
import { type Retriever, type RetrieverPolicy, startRetriever } from './retriever.ts';

const POLICY: RetrieverPolicy = {
  pricePerGib: 1_000n * TOKEN,
  chunkBytes: CHUNK_BYTES,
  cacheBytes: 64 << 20,
  claimIntervalSeconds: 300,
  originPricePerGibMax: TOKEN,
  originBudget: TOKEN,
  announceSeconds: 1800,
};
let market: TestMarket;
before(async () => {
  market = await startTestMarket();
});
after(() => market.stop());

/** A retriever that has sold the content `cid` once, and what the buyer has promised it. */
async function sellOnce(cid: string, key: Awaited<ReturnType<typeof fundedKey>>): Promise<{ paid: bigint; stop(): Promise<void> }> {
  let retriever: Retriever | undefined;
  const folder = join(market.folder, 'retriever');
  const identity = await openTransportIdentity(folder);
  const fetchOf = (request: Request) => retriever?.fetch(request) ?? new Response(null, { status: 503 });
  const server = await startPeerServer({ port: 0, identity, fetch: fetchOf });
  const { client, log } = market;
  const endpoint = async () => `https://127.0.0.1:${server.port}`;
  retriever = await startRetriever({ folder, client, ...key, transportKey: identity.transportKey, endpoint, policy: POLICY, log });
  const buyer = await startBuyer(market, { depositRequests: 1000n, depositMax: 100n * TOKEN });
  const terms = { holder: key.signer.address, pricePerGib: POLICY.pricePerGib, chunkBytes: BigInt(POLICY.chunkBytes) };
  const paidFetch = createPaidFetch({ payer: buyer.payer, fetch: globalThis.fetch, terms: { ...terms, budget: { left: 100n * TOKEN } } });
  const source = {
    url: `http://127.0.0.1:${server.port}`,
    fetch: paidFetch.fetch,
    chunked: { expectedBytesHeader: EXPECTED_BYTES, bytesMax: POLICY.chunkBytes },
  };
  await retrieve({ cid, sources: [source], output: { path: join(market.folder, 'got') } });
  await buyer.stop();
  return {
    paid: paidFetch.record().paid,
    async stop() {
      await server.stop(100);
      await retriever.stop();
      key.sender.close();
    },
  };
}

test('what a retriever’s claims burn is rewarded by itself, once', async () => {
  const { client } = market;
  await market.startNode();
  const { cid } = await market.putRandom({ sizeBytes: 300_000 });
  const key = await fundedKey(market);
  const holder = key.signer.address;
  const { paid, stop } = await sellOnce(cid, key);
  const events = () => client.events({ name: 'rewards', event: 'RetrievalRewarded', args: { account: holder } });
  try {
    assert.ok(paid > 0n);
    assert.deepEqual(await events(), [], 'nothing before it is claimed');
    await market.warpTo((await client.now()) + BigInt(POLICY.claimIntervalSeconds) + 1n);
    await until('the retriever is rewarded', async () => (await events()).length > 0);
    const [{ args } = { args: { fees: 0n, reward: 0n } }] = await events();
    assert.equal(args.fees, await client.read('channels', 'feesBurntOf', [holder]));
    assert.ok(args.reward > 0n);
    assert.equal((await rewardsOf(client, holder)).earned, args.reward);
    await market.warpTo((await client.now()) + BigInt(POLICY.claimIntervalSeconds) + 1n);
    assert.equal((await events()).length, 1);
  } finally {
    await stop();
  }
});
