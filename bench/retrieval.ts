/**
 * Reading through a paid retriever beside the same bytes unpaid, on a real chain: MiB per CPU-second (buyer and seller together), time
 * to first byte, and 50 clients at once.
 */
import { once } from 'node:events';
import { Writable } from 'node:stream';
import { serve } from '@hono/node-server';
import { countExternalMemory } from '../src/memory.ts';
import { type ContentSource, createTrustlessGateway, retrieve } from '../src/storage/index.ts';
import { startTestMarket, TOKEN } from '../src/storage/market/market-fixture.ts';
import { priceOfBytes } from '../src/storage/retrieval/announcement.ts';
import { buildRandom, paidSource, startBuyer, startSeller, TEST_PRICE } from '../src/storage/retrieval/paid-fixture.ts';
import { CHUNK_BYTES } from '../src/storage/retrieval/paywall.ts';

// As every process of Millrace does (src/memory.ts).
countExternalMemory();
const MIB = 1 << 20;
const SIZE_MIB = Number(process.env.SIZE_MIB ?? 128);
const ROUNDS = 7;
const CLIENTS = 50;
const CLIENT_MIB = 4;

const market = await startTestMarket();
const { content } = await buildRandom(market.folder, SIZE_MIB * MIB);
const small = await buildRandom(market.folder, CLIENT_MIB * MIB);
const seller = await startSeller(market, [content, small.content]);
const plain = serve({ fetch: createTrustlessGateway({ store: seller.store }), port: 0, hostname: '127.0.0.1' });
if (!plain.listening) await once(plain, 'listening');
const address = plain.address() as { port: number };
const free = `http://127.0.0.1:${address.port}`;
const buyer = await startBuyer(market, { depositRequests: 10_000n });

const discard = () => new Writable({ write: (_chunk, _encoding, done) => done() });
const get = (cid: string, source: ContentSource) => retrieve({ cid, sources: [source], output: { stream: discard() } });

/** MiB per second and per CPU-second of this process: both sides. */
async function measure(name: string, mib: number, work: () => Promise<unknown>): Promise<number> {
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  await work();
  const { user, system } = process.cpuUsage(cpu);
  const perCpu = mib / ((user + system) / 1e6);
  const perSecond = mib / ((performance.now() - startedAt) / 1000);
  process.stdout.write(
    `${name.padEnd(58)} ${perSecond.toFixed(0).padStart(5)} MiB/s ${perCpu.toFixed(0).padStart(5)} MiB per CPU-second of both sides\n`,
  );
  return perCpu;
}
const median = (values: number[]) => values.sort((left, right) => left - right)[values.length >> 1] as number;

try {
  const paid = paidSource(buyer, seller);
  const blockwise: ContentSource = { url: free, chunked: { expectedBytesHeader: 'x-expected' } };
  await get(small.content.cid, paid.source); // opens the channel
  await get(small.content.cid, blockwise);
  const results: Record<'paid' | 'blockwise' | 'runs', number[]> = { paid: [], blockwise: [], runs: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    results.blockwise.push(await measure('unpaid, block by block', SIZE_MIB, () => get(content.cid, blockwise)));
    results.paid.push(await measure('paid, a voucher for each block of 1 MiB', SIZE_MIB, () => get(content.cid, paid.source)));
    results.runs.push(await measure('unpaid, CARs of 8 MiB', SIZE_MIB, () => get(content.cid, { url: free })));
  }
  const [own, same, runs] = [median(results.paid), median(results.blockwise), median(results.runs)];
  process.stdout.write(
    `paid beside unpaid: ${(own / same).toFixed(2)} of the same requests, ${(own / runs).toFixed(2)} of CARs (medians of ${ROUNDS})\n`,
  );

  const times: { paid: number[]; free: number[] } = { paid: [], free: [] };
  for (let round = 0; round < 30; round += 1) {
    for (const [name, url, send] of [
      ['free', free, (at: string) => fetch(at)],
      ['paid', seller.url, (at: string) => buyer.payer.fetch(at, { amountMax: priceOfBytes(TEST_PRICE, BigInt(CHUNK_BYTES)) })],
    ] as const) {
      const startedAt = performance.now();
      const answer = await send(`${url}/ipfs/${small.content.cid}?format=raw`);
      const reader = answer.body?.getReader();
      await reader?.read();
      times[name].push(performance.now() - startedAt);
      await reader?.cancel();
    }
  }
  process.stdout.write(
    `time to first byte (402, voucher, answer): paid ${median(times.paid).toFixed(1)} ms, unpaid ${median(times.free).toFixed(1)} ms (medians of 30)\n`,
  );

  const clients: Awaited<ReturnType<typeof startBuyer>>[] = [];
  for (let index = 0; index < CLIENTS; index += 1) clients.push(await startBuyer(market, { depositRequests: 100n }));
  for (const client of clients) await client.payer.fetch(`${seller.url}/ipfs/${small.content.cid}?format=raw`, { amountMax: TOKEN });
  const latencies: number[] = [];
  await measure(`${CLIENTS} paying clients at once, ${CLIENT_MIB} MiB each`, CLIENTS * CLIENT_MIB, () =>
    Promise.all(
      clients.map(async (client) => {
        const startedAt = performance.now();
        await get(small.content.cid, paidSource(client, seller).source);
        latencies.push(performance.now() - startedAt);
      }),
    ),
  );
  process.stdout.write(
    `each took ${median(latencies).toFixed(0)} ms (median), ${Math.max(...latencies).toFixed(0)} ms (longest); ${seller.paywall.counts().paidRequests} payments, ${seller.paywall.counts().refusedPayments} corrected or refused\n`,
  );
  for (const client of clients) await client.stop();
} finally {
  plain.close();
  await buyer.stop();
  await seller.stop();
  await market.stop();
}
process.exit(0);
