/**
 * Reading through a paid retriever beside the same bytes unpaid, on a real chain: MiB per CPU-second (buyer and seller together), time
 * to first byte, and 50 clients at once.
 */
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { openTransportIdentity, startPeerServer } from '../src/connect/index.ts';
import { countExternalMemory } from '../src/memory.ts';
import { LEAF_BYTES } from '../src/storage/content/block.ts';
import { type ContentSource, createTrustlessGateway, retrieve } from '../src/storage/index.ts';
import { startTestMarket, TOKEN } from '../src/storage/market/market-fixture.ts';
import { priceOfBytes } from '../src/storage/retrieval/announcement.ts';
import { buildRandom, paidSource, startBuyer, startSeller, TEST_PRICE } from '../src/storage/retrieval/paid-fixture.ts';
import { CHUNK_BYTES } from '../src/storage/retrieval/paywall.ts';

// As every process of Millrace does (src/memory.ts).
countExternalMemory();
const MIB = 1 << 20;
const SIZE_MIB = Number(process.env.SIZE_MIB ?? 64);
/** Many short rounds, in turn: what else the machine does falls upon all of them. */
const ROUNDS = 15;
const CLIENTS = 50;
const CLIENT_MIB = 4;

const market = await startTestMarket();
const { content } = await buildRandom(market.folder, SIZE_MIB * MIB);
const small = await buildRandom(market.folder, CLIENT_MIB * MIB);
const seller = await startSeller(market, [content, small.content]);
// The server that every node has, without the paywall.
const plain = await startPeerServer({
  port: 0,
  identity: await openTransportIdentity(join(market.folder, 'plain')),
  fetch: createTrustlessGateway({ store: seller.store }),
});
const free = `http://127.0.0.1:${plain.port}`;
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
  const ways: Record<string, ContentSource> = {
    'paid, a voucher for a CAR of up to 8 MiB': paid.source,
    'unpaid, the same requests': { url: free, chunked: paid.source.chunked },
    'unpaid, CARs of 8 MiB': { url: free },
    'paid, a voucher for each leaf': paidSource(buyer, seller, { chunkBytesMax: LEAF_BYTES }).source,
  };
  const results = new Map<string, number[]>();
  // The first round opens the channel and warms the compiler.
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const [name, source] of Object.entries(ways)) {
      const perCpu = await measure(name, SIZE_MIB, () => get(content.cid, source));
      if (round > 0) results.set(name, [...(results.get(name) ?? []), perCpu]);
    }
  }
  const [own = [], ...others] = results.values();
  const names = Object.keys(ways);
  process.stdout.write(`${names[0]}: ${median([...own]).toFixed(0)} MiB per CPU-second (median of ${ROUNDS})\n`);
  for (const [index, other] of others.entries()) {
    const ratios = other.map((value, round) => (own[round] as number) / value);
    process.stdout.write(
      `  beside ${names[index + 1]}, ${median([...other]).toFixed(0)}: ${(median([...own]) / median([...other])).toFixed(2)} of medians, ${median(ratios).toFixed(2)} median of rounds\n`,
    );
  }

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
  await plain.stop(100);
  await buyer.stop();
  await seller.stop();
  await market.stop();
}
process.exit(0);
