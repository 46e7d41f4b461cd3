/** Storing 256 MiB at a provider in a process of its own, from `put` to the first proof, beside a plain HTTP upload of the same bytes. */
import { fork } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { put } from '../src/storage/index.ts';
import { startTestMarket } from '../src/storage/market/market-fixture.ts';
import { killProviders, startProviderProcess } from '../test/journeys/storage-market.ts';

const MIB = 1 << 20;
const SIZE_MIB = 256;
const CLOCK_TICKS = 100; // per second, as Linux reports times in /proc

if (process.argv[2] === 'sink') await receivePlainly(process.argv[3] as string);
else await measureAll();

/** What a plain server does with an upload: writes it to disk and flushes it before it answers. */
async function receivePlainly(path: string): Promise<void> {
  const server = createServer(async (incoming, response) => {
    await pipeline(incoming, createWriteStream(path, { flush: true }));
    response.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.send?.({ port: (server.address() as AddressInfo).port });
}

async function cpuSecondsOf(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') as string[];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
}

async function measure(name: string, serverPid: number | undefined, work: () => Promise<unknown>): Promise<void> {
  const cpu = process.cpuUsage();
  const before = serverPid === undefined ? 0 : await cpuSecondsOf(serverPid);
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const parts = [
    `${(SIZE_MIB / seconds).toFixed(0).padStart(5)} MiB/s`,
    `${(SIZE_MIB / ((user + system) / 1e6)).toFixed(0).padStart(5)} MiB per CPU-second of the client`,
  ];
  if (serverPid !== undefined)
    parts.push(`${(SIZE_MIB / ((await cpuSecondsOf(serverPid)) - before)).toFixed(0).padStart(5)} of the server`);
  process.stdout.write(`${name.padEnd(44)} ${parts.join(', ')}\n`);
}

async function uploadPlainly(path: string, port: number): Promise<void> {
  const upload = request({ port, host: '127.0.0.1', method: 'PUT' });
  const answered = once(upload, 'response');
  await pipeline(createReadStream(path, { highWaterMark: MIB }), upload);
  const [response] = await answered;
  response.resume();
  await once(response, 'end');
}

async function measureAll(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-put-'));
  const sink = fork(import.meta.filename, ['sink', join(folder, 'sink')]);
  const listening = once(sink, 'message');
  const market = await startTestMarket();
  try {
    const path = join(folder, 'source');
    const file = await open(path, 'w');
    for (let i = 0; i < SIZE_MIB; i += 1) await file.write(randomFillSync(new Uint8Array(MIB)));
    await file.close();
    const [{ port }] = (await listening) as [{ port: number }];
    await measure('plain HTTP upload, flushed to disk', sink.pid, () => uploadPlainly(path, port));
    await measure('SHA-256 of the file', undefined, () => pipeline(createReadStream(path, { highWaterMark: MIB }), createHash('sha256')));
    const provider = await startProviderProcess(market, 1);
    const { client, user } = market;
    for (const isPublic of [true, false]) {
      const options = { client, ...user, source: { path }, copies: 1, periods: 20, public: isPublic };
      const name = `put, ${isPublic ? 'public' : 'sealed'}, one copy, until it is active`;
      await measure(name, provider.pid(), () => market.hurry(put(options)));
    }
    process.stdout.write(`client memory: ${Math.round(process.memoryUsage().rss / MIB)} MiB (with the chain's supervisor)\n`);
  } finally {
    sink.kill();
    await killProviders();
    await market.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
