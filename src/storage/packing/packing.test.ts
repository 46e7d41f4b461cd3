import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { serve } from '@hono/node-server';
import { CarBlockIterator } from '@ipld/car';
import type { Clock } from '../../clock.ts';
import { silentLogger } from '../../log.ts';
import { createCarIndexer } from '../content/car-index.ts';
import { buildContent } from '../content/content.ts';
import { deriveShareKey } from '../content/key-wrap.ts';
import { pieceOf } from '../content/piece.ts';
import { retrieve } from '../content/retrieve.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore } from '../pieces/piece-store.ts';
import { type Pack, packObjects, unpackObject } from './pack.ts';
import { openPacker } from './packer.ts';

let folder = '';
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-packing-'));
});
after(() => rm(folder, { recursive: true, force: true }));

function manualClock(): Clock & { advance(ms: number): void } {
  let nowMs = 0;
  return {
    nowMs: () => nowMs,
    sleep: async () => {},
    advance(ms) {
      nowMs += ms;
    },
  };
}

const fresh = () => {
  count += 1;
  return join(folder, `fresh-${count}`);
};

async function fileOf(bytes: Uint8Array): Promise<{ path: string }> {
  const path = fresh();
  await writeFile(path, bytes);
  return { path };
}

const build = async (bytes: Uint8Array) => buildContent({ source: await fileOf(bytes), workFolder: fresh(), public: true });

async function range(pack: Pack, cid: string): Promise<Uint8Array> {
  const { offset, length } = pack.objects.find((object) => object.cid === cid) as Pack['objects'][number];
  return (await readFile(pack.carPath)).subarray(offset, offset + length);
}

test('a pack is one valid depth-first CAR whose piece is known, and each object is its own CAR at its range', async () => {
  const contents = await Promise.all([1, 100, 5000, 1 << 20, 2_500_000].map((size) => build(randomBytes(size))));
  const tree = fresh();
  await mkdir(tree);
  await writeFile(join(tree, 'a'), 'one');
  await writeFile(join(tree, 'b'), 'two');
  contents.push(await buildContent({ source: { path: tree }, workFolder: fresh(), public: true }));
  const pack = await packObjects({ objects: contents, folder: fresh() });
  const indexer = createCarIndexer();
  for await (const chunk of createReadStream(pack.carPath)) indexer.write(chunk as Buffer);
  const index = indexer.finish();
  assert.equal(index.root.toString(), pack.cid);
  assert.equal(index.isDepthFirst, true);
  assert.equal((await stat(pack.carPath)).size, pack.carSize);
  assert.deepEqual(await pieceOf(createReadStream(pack.carPath)), pack.piece);
  assert.deepEqual(
    pack.objects.map(({ cid }) => cid),
    contents.map(({ cid }) => cid).sort(),
  );
  for (const { cid, carPath } of contents) {
    assert.ok(Buffer.from(unpackObject(cid, await range(pack, cid))).equals(await readFile(carPath)));
  }
  const roots = await (await CarBlockIterator.fromIterable(createReadStream(pack.carPath))).getRoots();
  assert.deepEqual(roots.map(String), [pack.cid]);
  assert.deepEqual(await readdir(join(pack.carPath, '..')), [`${pack.cid}.car`]);
});

test('the same objects give the same pack in whatever order, and a twin is packed once', async () => {
  const contents = await Promise.all(['x', 'y', 'z'].map((text) => build(Buffer.from(text))));
  const one = await packObjects({ objects: contents, folder: fresh() });
  const other = await packObjects({ objects: [...contents].reverse().concat(contents), folder: fresh() });
  assert.deepEqual({ ...other, carPath: '' }, { ...one, carPath: '' });
});

test('a range that is damaged, cut or of another object is refused', async () => {
  const contents = await Promise.all(['first', 'second'].map((text) => build(Buffer.from(text))));
  const pack = await packObjects({ objects: contents, folder: fresh() });
  const [one, other] = contents.map(({ cid }) => cid) as [string, string];
  const bytes = Buffer.from(await range(pack, one));
  assert.throws(() => unpackObject(other, bytes), { code: 'bad-car' });
  assert.throws(() => unpackObject(one, bytes.subarray(0, -1)), { code: 'bad-car' });
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
  assert.throws(() => unpackObject(one, bytes), { code: 'bad-block' });
  await assert.rejects(packObjects({ objects: [], folder: fresh() }), { code: 'pack-too-large' });
});

test('a holder of a pack serves every object by its own CID, public and sealed, over HTTP', async () => {
  const packer = await openPacker({ folder: fresh(), clock: manualClock() });
  const key = await deriveShareKey(randomBytes(32));
  const texts = Array.from({ length: 60 }, (_, index) => `object ${index}`);
  const added: { cid: string; isPublic: boolean; text: string }[] = [];
  for (const [index, text] of texts.entries()) {
    const isPublic = index % 2 === 0;
    const { cid } = await packer.add({ source: await fileOf(Buffer.from(text)), public: isPublic, recipients: [key.publicKey] });
    added.push({ cid, isPublic, text });
  }
  const pack = (await packer.pack({ now: true })) as Pack;
  assert.equal(pack.objects.length, 60);
  const store = await openPieceStore({ folder: fresh(), quotaBytes: 1 << 30, log: silentLogger });
  const receiver = await store.receive({ root: pack.piece.root, rawSize: pack.carSize });
  await receiver.append(createReadStream(pack.carPath), { offset: 0 });
  await receiver.commit();
  const server = serve({ fetch: createTrustlessGateway({ store }), port: 0, hostname: '127.0.0.1' }) as Server;
  await once(server, 'listening');
  try {
    const sources = [{ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }];
    for (const { cid, isPublic, text } of added) {
      const path = fresh();
      const got = await retrieve({ cid, sources, keys: { shareKeys: [key] }, output: { path } });
      assert.equal(got.wasSealed, !isPublic);
      assert.equal(await readFile(path, 'utf8'), text);
    }
  } finally {
    server.close();
    await store.close();
  }
});

test('a pack is made when enough bytes or objects wait or the oldest has waited long enough, and not before', async () => {
  const clock = manualClock();
  const packer = await openPacker({ folder: fresh(), clock, rules: { bytes: 10_000, objects: 3, afterMs: 1000 } });
  const add = async (size: number) => packer.add({ source: await fileOf(randomBytes(size)), public: true });
  assert.equal(await packer.pack({ now: true }), undefined);
  await add(100);
  await add(100);
  assert.equal(await packer.pack(), undefined);
  await add(100);
  await add(100);
  assert.equal((await packer.pack())?.objects.length, 3);
  assert.equal(await packer.pack(), undefined);
  clock.advance(1000);
  assert.equal((await packer.pack())?.objects.length, 1);
  await add(6000);
  await add(6000);
  assert.equal((await packer.pack())?.objects.length, 1);
  await assert.rejects(add(20_000), { code: 'object-too-large' });
});

test('what was acknowledged survives a crash at every moment, and is found at one place', async () => {
  const source = fresh();
  const packer = await openPacker({ folder: source, clock: manualClock() });
  const cids: string[] = [];
  for (let i = 0; i < 5; i += 1) cids.push((await packer.add({ source: await fileOf(randomBytes(500)), public: true })).cid);
  const waiting = await snapshot(source);
  const pack = (await packer.pack({ now: true })) as Pack;
  const packed = await snapshot(source);
  await packer.markStored(pack.cid);
  const stored = await snapshot(source);

  const states = new Map<string, Map<string, Buffer>>([
    ['waiting', waiting],
    ['packed', packed],
    ['stored', stored],
    // Between the steps: a half-written CAR; a CAR without a record; a record while the objects are still there; a record that says stored beside the CAR.
    ['waiting ', new Map([...waiting, ['packs/unfinished.car', Buffer.from('half')]])],
    ['waiting  ', new Map([...waiting, [`packs/${pack.cid}.car`, packed.get(`packs/${pack.cid}.car`) as Buffer]])],
    ['packed ', new Map([...waiting, ...packed])],
    ['stored ', new Map([...packed, ...stored])],
  ]);
  for (const [state, files] of states) {
    const again = await openPacker({ folder: await restore(files), clock: manualClock() });
    for (const cid of cids) assert.equal(again.find(cid)?.state, state.trim(), `"${state}"`);
    const unstored = again.unstored();
    assert.equal(unstored.length, state.trim() === 'packed' ? 1 : 0);
    const repacked = await again.pack({ now: true });
    assert.equal(repacked?.cid, state.trim() === 'waiting' ? pack.cid : undefined);
    if (state.trim() === 'packed')
      assert.deepEqual(await sha256(unstored[0]?.carPath as string), await sha256Of(packed.get(`packs/${pack.cid}.car`)));
    await assert.rejects(again.markStored('bafy'), { code: 'not-found' });
  }
});

async function snapshot(root: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const name of await readdir(root, { recursive: true })) {
    const path = join(root, name);
    if ((await stat(path)).isFile()) files.set(name, await readFile(path));
  }
  return files;
}

async function restore(files: Map<string, Buffer>): Promise<string> {
  const root = fresh();
  for (const [name, bytes] of files) {
    await mkdir(join(root, name, '..'), { recursive: true });
    await writeFile(join(root, name), bytes);
  }
  return root;
}

const sha256 = async (path: string) => sha256Of(await readFile(path));
const sha256Of = async (bytes: Uint8Array | undefined) =>
  createHash('sha256')
    .update(bytes ?? '')
    .digest('hex');
