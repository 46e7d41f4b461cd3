import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, before, test } from 'node:test';
import { serve } from '@hono/node-server';
import { silentLogger } from '../../log.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore, type PieceStore } from '../pieces/piece-store.ts';
import type { ContentSource, FetchLimits } from './block-fetcher.ts';
import { type BuiltContent, buildContent } from './content.ts';
import { deriveShareKey, type ShareKeyPair } from './key-wrap.ts';
import { retrieve } from './retrieve.ts';

const QUICK: FetchLimits = { headersMs: 400, idleMs: 400, bytesPerSecondMin: 1, failuresMax: 3 };
const large = randomBytes(30_000_000);
let folder = '';
let count = 0;
let key: ShareKeyPair;
const open: { server: Server; store: PieceStore }[] = [];
const contents: Record<'publicFile' | 'sealedFile' | 'publicFolder' | 'sealedFolder', BuiltContent> = {} as never;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-retrieve-'));
  key = await deriveShareKey(randomBytes(32));
  await writeFile(join(folder, 'large'), large);
  await mkdir(join(folder, 'tree', 'sub', 'deeper'), { recursive: true });
  await mkdir(join(folder, 'tree', 'empty folder'), { recursive: true });
  for (let i = 0; i < 60; i += 1) await writeFile(join(folder, 'tree', 'sub', `file ${i}`), `content of ${i}`);
  await writeFile(join(folder, 'tree', 'sub', 'deeper', 'big'), large.subarray(0, 5_000_000));
  await writeFile(join(folder, 'tree', 'empty'), '');
  await writeFile(join(folder, 'tree', 'run.sh'), '#!/bin/sh\n');
  await chmod(join(folder, 'tree', 'run.sh'), 0o755);
  const recipients = [key.publicKey];
  const build = (name: string, isPublic: boolean) =>
    buildContent({ source: { path: join(folder, name) }, workFolder: fresh(), public: isPublic, recipients });
  contents.publicFile = await build('large', true);
  contents.sealedFile = await build('large', false);
  contents.publicFolder = await build('tree', true);
  contents.sealedFolder = await build('tree', false);
});
after(async () => {
  for (const { server, store } of open) {
    server.close();
    await store.close();
  }
  await rm(folder, { recursive: true, force: true });
});

function fresh(): string {
  count += 1;
  return join(folder, `fresh-${count}`);
}

async function receive(store: PieceStore, built: BuiltContent): Promise<void> {
  const receiver = await store.receive({ root: built.piece.root, rawSize: built.carSize });
  await receiver.append(createReadStream(built.carPath), { offset: 0 });
  await receiver.commit();
}

type Handler = (request: Request) => Promise<Response>;

async function holder(change: (gateway: Handler) => Handler = (gateway) => gateway): Promise<ContentSource> {
  const store = await openPieceStore({ folder: fresh(), quotaBytes: 1 << 30, log: silentLogger });
  for (const built of Object.values(contents)) {
    await receive(store, built);
  }
  return listen(change(createTrustlessGateway({ store })), store);
}

async function listen(handler: Handler, store: PieceStore): Promise<ContentSource> {
  const server = serve({ fetch: handler, port: 0, hostname: '127.0.0.1' }) as Server;
  await once(server, 'listening');
  open.push({ server, store });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** Flips a byte in every body that is served. */
const lying =
  (gateway: Handler): Handler =>
  async (request) => {
    const response = await gateway(request);
    const bytes = Buffer.from(await response.arrayBuffer());
    if (response.status === 200) bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
    return new Response(bytes, { status: response.status, headers: { 'content-type': response.headers.get('content-type') as string } });
  };
const silent = (): Handler => () => new Promise(() => {});
/** Sends the beginning of each body, then nothing. */
const stalling =
  (gateway: Handler): Handler =>
  async (request) => {
    const bytes = new Uint8Array(await (await gateway(request)).arrayBuffer());
    return new Response(new ReadableStream({ start: (controller) => controller.enqueue(bytes.subarray(0, bytes.length >> 1)) }));
  };
const failing = (): Handler => async () => new Response('broken', { status: 500 });
const empty = (): Handler => async () => new Response('', { status: 404 });

async function sameTree(path: string): Promise<void> {
  const listing = async (at: string) => (await readdir(at, { recursive: true })).sort();
  assert.deepEqual(await listing(path), await listing(join(folder, 'tree')));
  for (const name of await listing(path)) {
    const stats = await stat(join(path, name));
    if (stats.isFile()) assert.deepEqual(await readFile(join(path, name)), await readFile(join(folder, 'tree', name)), name);
  }
}

test('files and folders, public and sealed, come back byte by byte from three holders at once', async () => {
  const sources = [await holder(), await holder(), await holder()];
  for (const [name, built] of Object.entries(contents)) {
    const path = fresh();
    const got = await retrieve({ cid: built.cid, sources, keys: { shareKeys: [key] }, output: { path } });
    assert.equal(got.wasSealed, name.startsWith('sealed'));
    if (name.endsWith('Folder')) await sameTree(path);
    else assert.deepEqual(await readFile(path), large);
    if (name.endsWith('File'))
      assert.ok(
        got.sources.every((source) => source.bytes > 1_000_000),
        'all holders have served',
      );
    assert.deepEqual(
      (await readdir(join(path, '..'))).filter((each) => each.includes('.part')),
      [],
    );
  }
  const mode = (await stat(join(folder, `fresh-${count}`, 'run.sh'))).mode & 0o777;
  assert.equal(mode, 0o755, 'sealed folders keep permissions');
});

test('one file of a folder is got alone, without the rest being fetched', async () => {
  const sources = [await holder()];
  for (const built of [contents.publicFolder, contents.sealedFolder]) {
    const path = fresh();
    const got = await retrieve({ cid: built.cid, path: 'sub/file 17', sources, keys: { fileKey: built.fileKey }, output: { path } });
    assert.equal(await readFile(path, 'utf8'), 'content of 17');
    assert.ok((got.sources[0]?.bytes ?? 0) < 4_000_000, `${got.sources[0]?.bytes} bytes were fetched for 13`);
    const sub = fresh();
    await retrieve({ cid: built.cid, path: 'sub/deeper', sources, keys: { fileKey: built.fileKey }, output: { path: sub } });
    assert.deepEqual(await readFile(join(sub, 'big')), large.subarray(0, 5_000_000));
    await assert.rejects(
      retrieve({ cid: built.cid, path: 'sub/none', sources, keys: { fileKey: built.fileKey }, output: { path: fresh() } }),
      {
        code: 'not-found',
      },
    );
  }
});

test('a holder that lies is found out and not asked again, the others deliver', async () => {
  const [honest, liar] = [await holder(), await holder(lying)];
  const path = fresh();
  const got = await retrieve({
    cid: contents.sealedFile.cid,
    sources: [liar, honest],
    keys: { shareKeys: [key] },
    output: { path },
    limits: QUICK,
  });
  assert.deepEqual(await readFile(path), large);
  assert.deepEqual(
    got.sources.map(({ lied }) => lied),
    [true, false],
  );
});

test('holders that are silent, stall, fail or have nothing are replaced by one that delivers', async () => {
  const sources = [await holder(silent), await holder(stalling), await holder(failing), await holder(empty), await holder()];
  const path = fresh();
  const got = await retrieve({
    cid: contents.publicFile.cid,
    sources: [...sources, { url: 'http://127.0.0.1:1' }],
    output: { path },
    limits: QUICK,
  });
  assert.deepEqual(await readFile(path), large);
  assert.ok(got.sources.filter(({ bytes, failures }) => bytes > 20_000_000 && failures === 0).length === 1);
});

test('when nobody can deliver, the error names each holder and why', async () => {
  const sources = [await holder(lying), await holder(failing), await holder(empty)];
  const path = fresh();
  await assert.rejects(
    retrieve({ cid: contents.publicFile.cid, sources, output: { path }, limits: QUICK }),
    (error: { code: string; actor: string; values: { holders: string[] } }) => {
      assert.deepEqual([error.code, error.actor], ['content-unavailable', 'peer']);
      assert.match(error.values.holders.join('\n'), /wrong bytes[\s\S]*500[\s\S]*does not have/);
      return true;
    },
  );
  await assert.rejects(stat(path), { code: 'ENOENT' });
  await assert.rejects(retrieve({ cid: contents.publicFile.cid, sources: [], output: { path } }), { code: 'content-unavailable' });
});

test('a holder killed while it serves is replaced, and the file comes back identical', async () => {
  const storeFolder = fresh();
  const store = await openPieceStore({ folder: storeFolder, quotaBytes: 1 << 30, log: silentLogger });
  await receive(store, contents.publicFile);
  await store.close();
  const here = new URL('.', import.meta.url).pathname;
  const script = join(folder, 'provider.ts');
  await writeFile(
    script,
    `import { serve } from '${import.meta.resolve('@hono/node-server')}';
import { createTrustlessGateway } from '${here}../pieces/gateway.ts';
import { openPieceStore } from '${here}../pieces/piece-store.ts';
import { silentLogger } from '${here}../../log.ts';
const store = await openPieceStore({ folder: ${JSON.stringify(storeFolder)}, quotaBytes: 1e9, log: silentLogger });
serve({ fetch: createTrustlessGateway({ store }), port: 0, hostname: '127.0.0.1' }, ({ port }) => console.log(port));
`,
  );
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = (await once(child.stdout, 'data')) as [Buffer];
  const sources = [{ url: `http://127.0.0.1:${port.toString().trim()}` }, await holder()];
  const path = fresh();
  const onProgress = () => void child.kill('SIGKILL');
  const got = await retrieve({ cid: contents.publicFile.cid, sources, output: { path }, onProgress, limits: QUICK });
  assert.deepEqual(await readFile(path), large);
  assert.ok((got.sources[0]?.bytes ?? 0) > 0);
});

test('an interrupted retrieval goes on where it was, sealed or not, file or folder', async () => {
  const sources = [await holder()];
  for (const [name, built] of Object.entries(contents)) {
    const path = fresh();
    const stop = new AbortController();
    const onProgress = ({ doneBytes }: { doneBytes: number }) => {
      if (doneBytes > (name.endsWith('File') ? 12_000_000 : 2_000_000)) stop.abort(new Error('interrupted'));
    };
    const keys = { shareKeys: [key] };
    await assert.rejects(retrieve({ cid: built.cid, sources, keys, output: { path }, onProgress, signal: stop.signal }), /interrupted/);
    await assert.rejects(stat(path), { code: 'ENOENT' }, 'nothing half-done is at the final place');
    const got = await retrieve({ cid: built.cid, sources, keys, output: { path } });
    if (name.endsWith('File')) {
      assert.ok(got.resumedBytes >= 12_000_000 && (got.sources[0]?.bytes ?? 0) < 22_000_000, `${got.resumedBytes} resumed`);
      assert.deepEqual(await readFile(path), large);
    } else await sameTree(path);
  }
});

test('standard output takes a file but not a folder', async () => {
  const sources = [await holder()];
  const stream = new PassThrough();
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => void chunks.push(chunk));
  await retrieve({ cid: contents.sealedFile.cid, sources, keys: { shareKeys: [key] }, output: { stream } });
  assert.deepEqual(Buffer.concat(chunks), large);
  for (const built of [contents.publicFolder, contents.sealedFolder]) {
    await assert.rejects(retrieve({ cid: built.cid, sources, keys: { shareKeys: [key] }, output: { stream } }), {
      code: 'output-is-folder',
      actor: 'caller',
    });
  }
});

test('without a key nothing is opened, a wrong key is refused, and the sealed bytes can still be had', async () => {
  const sources = [await holder()];
  const { cid } = contents.sealedFile;
  const other = await deriveShareKey(randomBytes(32));
  await assert.rejects(retrieve({ cid, sources, output: { path: fresh() } }), { code: 'no-key', actor: 'caller' });
  await assert.rejects(retrieve({ cid, sources, keys: { shareKeys: [other] }, output: { path: fresh() } }), { code: 'no-key' });
  await assert.rejects(retrieve({ cid, sources, keys: { fileKey: randomBytes(32) }, output: { path: fresh() } }), {
    code: 'wrong-file-key',
  });
  const path = fresh();
  const got = await retrieve({ cid, sources, output: { path }, raw: true });
  assert.ok(got.bytes > large.length);
});

test('existing files are not replaced, and a wrong CID is a typed error', async () => {
  const sources = [await holder()];
  const path = fresh();
  await writeFile(path, 'precious');
  await assert.rejects(retrieve({ cid: contents.publicFile.cid, sources, output: { path } }), { code: 'output-exists', actor: 'caller' });
  assert.equal(await readFile(path, 'utf8'), 'precious');
  await retrieve({ cid: contents.publicFile.cid, sources, output: { path, overwrite: true } });
  assert.deepEqual(await readFile(path), large);
  await assert.rejects(retrieve({ cid: contents.publicFile.cid, sources, output: { path: join(path, 'below-a-file') } }), {
    code: 'output-unwritable',
    actor: 'host',
  });
  await assert.rejects(retrieve({ cid: 'not-a-cid', sources, output: { path: fresh() } }), { code: 'bad-cid', actor: 'caller' });
  await assert.rejects(retrieve({ cid: contents.publicFolder.cid, path: '../up', sources, output: { path: fresh() } }), {
    code: 'bad-path',
  });
});
