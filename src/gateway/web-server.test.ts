import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { silentLogger } from '../log.ts';
import { buildContent } from '../storage/content/content.ts';
import { type ContentSource, createTrustlessGateway, openPieceStore, type PieceStore } from '../storage/index.ts';
import type { LocalServer } from './local-server.ts';
import { startWebServer } from './web-server.ts';

const bytes = randomBytes(20_000_000);
let folder = '';
let store: PieceStore;
let server: LocalServer;
let cid = '';
let sources: ContentSource[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-web-'));
  await writeFile(join(folder, 'file'), bytes);
  store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1 << 30, log: silentLogger });
  const built = await buildContent({ source: { path: join(folder, 'file') }, workFolder: join(folder, 'work'), public: true });
  const receiver = await store.receive({ root: built.piece.root, rawSize: built.carSize });
  await receiver.append(createReadStream(built.carPath), { offset: 0 });
  await receiver.commit();
  cid = built.cid;
  server = await startWebServer({ port: 0, sourcesOf: async () => sources, log: silentLogger });
});
after(async () => {
  await server?.stop(0);
  await store?.close();
  await rm(folder, { recursive: true, force: true });
});

/** A holder; when it lies, it changes one byte of every answer behind `honestBytes`. */
function holder(url: string, honestBytes = Number.POSITIVE_INFINITY): ContentSource {
  const gateway = createTrustlessGateway({ store });
  let served = 0;
  return {
    url,
    fetch: async (target, init) => {
      const answer = Buffer.from(await (await gateway(new Request(target, init))).arrayBuffer());
      served += answer.length;
      if (served > honestBytes) answer[answer.length - 1] = (answer.at(-1) as number) ^ 1;
      return new Response(answer);
    },
  };
}

async function get(host?: string): Promise<{ status: number; body: Buffer; isWhole: boolean }> {
  return new Promise((resolve) => {
    const headers = host === undefined ? {} : { host };
    request({ host: server.host, port: server.port, path: `/ipfs/${cid}`, headers }, (answer) => {
      const parts: Buffer[] = [];
      const done = () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts), isWhole: answer.complete });
      answer
        .on('data', (part) => parts.push(part))
        .on('end', done)
        .on('error', done);
    })
      .on('error', () => resolve({ status: 0, body: Buffer.alloc(0), isWhole: false })) // cut before the first byte
      .end();
  });
}

test('a name that a stranger points here gets nothing', async () => {
  sources = [holder('http://one')];
  assert.equal((await get('rebound.example.org')).status, 403);
});

test('a holder that starts to lie in the middle cuts the answer: what was served before is right, and it is never whole', async () => {
  sources = [holder('http://liar', 9_000_000)];
  const { body, isWhole } = await get();
  assert.equal(isWhole, false);
  assert.ok(body.length < bytes.length);
  assert.deepEqual(body, bytes.subarray(0, body.length));
});

test('beside an honest holder a liar changes nothing', async () => {
  await server.stop(0);
  server = await startWebServer({
    port: 0,
    sourcesOf: async () => [holder('http://liar', 100_000), holder('http://honest')],
    log: silentLogger,
  });
  const { body, isWhole } = await get();
  assert.equal(isWhole, true);
  assert.deepEqual(body, bytes);
});
