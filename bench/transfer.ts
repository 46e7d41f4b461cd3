/** Getting 256 MiB over loopback, verified, beside plain HTTP of the same bytes; and the memory of an idle provider. */
import { spawn } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serve } from '@hono/node-server';
import { silentLogger } from '../src/log.ts';
import { type BuiltContent, buildContent, createTrustlessGateway, openPieceStore, retrieve } from '../src/storage/index.ts';

const MIB = 1 << 20;
const SIZE_MIB = 256;
const [role, storeFolder, plainPath] = process.argv.slice(2);

if (role === 'provider') await provide();
else await measureAll();

/** A provider in a process of its own, with a plain file server beside it. */
async function provide(): Promise<void> {
  const store = await openPieceStore({ folder: storeFolder as string, quotaBytes: 1e12, log: silentLogger });
  const plain = createServer((_request, response) => {
    createReadStream(plainPath as string, { highWaterMark: MIB }).pipe(response);
  });
  plain.listen(0, '127.0.0.1');
  await once(plain, 'listening');
  serve({ fetch: createTrustlessGateway({ store }), port: 0, hostname: '127.0.0.1' }, ({ port }) => {
    process.stdout.write(`${JSON.stringify({ port, plainPort: (plain.address() as AddressInfo).port, rss: process.memoryUsage().rss })}\n`);
  });
}

async function measure(name: string, work: () => Promise<unknown>): Promise<void> {
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  await work();
  const { user, system } = process.cpuUsage(cpu);
  const perSecond = SIZE_MIB / ((performance.now() - startedAt) / 1000);
  const perCpu = SIZE_MIB / ((user + system) / 1e6);
  process.stdout.write(
    `${name.padEnd(66)} ${perSecond.toFixed(0).padStart(6)} MiB per second, ${perCpu.toFixed(0).padStart(6)} MiB per CPU-second of the client\n`,
  );
}

async function measureAll(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-transfer-'));
  const children: ReturnType<typeof spawn>[] = [];
  try {
    const path = join(folder, 'source');
    const file = await open(path, 'w');
    for (let i = 0; i < SIZE_MIB; i += 1) await file.write(randomFillSync(new Uint8Array(MIB)));
    await file.close();
    const contents: BuiltContent[] = [];
    for (const isPublic of [true, false]) {
      contents.push(await buildContent({ source: { path }, workFolder: join(folder, `work-${isPublic}`), public: isPublic }));
    }
    const providers = [];
    for (const name of ['a', 'b', 'c']) {
      const store = await openPieceStore({ folder: join(folder, name), quotaBytes: 1e12, log: silentLogger });
      for (const built of contents) {
        const receiver = await store.receive({ root: built.piece.root, rawSize: built.carSize });
        await receiver.append(createReadStream(built.carPath, { highWaterMark: MIB }), { offset: 0 });
        await receiver.commit();
      }
      await store.close();
      const child = spawn(process.execPath, [import.meta.filename, 'provider', join(folder, name), path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      children.push(child);
      const [line] = (await once(child.stdout, 'data')) as [Buffer];
      providers.push(JSON.parse(line.toString()) as { port: number; plainPort: number; rss: number });
    }
    const [first] = providers as [{ port: number; plainPort: number; rss: number }];
    process.stdout.write(`idle provider with two pieces of ${SIZE_MIB} MiB: ${Math.round(first.rss / MIB)} MiB of memory\n`);
    const discard = async (url: string) => {
      for await (const chunk of (await fetch(url)).body as AsyncIterable<Uint8Array>) void chunk;
    };
    await measure('plain HTTP, not verified, discarded', () => discard(`http://127.0.0.1:${first.plainPort}/`));
    await measure('whole CAR from the gateway, not verified, discarded', () =>
      discard(`http://127.0.0.1:${first.port}/ipfs/${contents[0]?.cid}?format=car`),
    );
    for (const holders of [1, 3]) {
      for (const built of contents) {
        const sources = providers.slice(0, holders).map(({ port }) => ({ url: `http://127.0.0.1:${port}` }));
        const output = { path: join(folder, `got-${holders}-${built.isSealed}`) };
        const name = `get, ${built.isSealed ? 'sealed' : 'public'}, verified, to disk, ${holders} holder${holders > 1 ? 's' : ''}`;
        await measure(name, () => retrieve({ cid: built.cid, sources, keys: { fileKey: built.fileKey }, output }));
        if ((await stat(output.path)).size !== SIZE_MIB * MIB) throw new RangeError('got another size');
      }
    }
    process.stdout.write(`client memory: ${Math.round(process.memoryUsage().rss / MIB)} MiB\n`);
  } finally {
    for (const child of children) child.kill();
    await rm(folder, { recursive: true, force: true });
  }
}
