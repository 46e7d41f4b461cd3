import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { serve } from '@hono/node-server';
import fc from 'fast-check';
import { silentLogger } from '../../log.ts';
import { cidOf, RAW } from '../content/block.ts';
import { encodeCarHeader, encodeSectionPrefix } from '../content/car.ts';
import { type BuiltContent, buildContent } from '../content/content.ts';
import { pieceOf } from '../content/piece.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore, type PieceStore } from '../pieces/piece-store.ts';
import { decodeShards, readCarRange, rebuildShard } from './decode-shards.ts';
import { manifestOf, type PreparedShards, prepareShards } from './prepare-shards.ts';
import type { CodeShape } from './reed-solomon.ts';
import { decodeShardManifest, encodeShardManifest, layoutShards } from './shard-layout.ts';
import { openRemoteShard, openShardCar, type ShardReader } from './shard-reader.ts';
import { type OfferedShard, openShardSet } from './shard-set.ts';

let folder = '';
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-shards-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const fresh = (name: string) => {
  count += 1;
  return join(folder, `${name}-${count}`);
};

/** Bytes that differ everywhere and are the same in every run. */
function pseudoRandom(length: number, seed = 1): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
    return state >>> 16;
  });
}

async function built(length: number, seed = 1): Promise<BuiltContent> {
  const path = fresh('source');
  await writeFile(path, pseudoRandom(length, seed));
  return buildContent({ source: { path }, workFolder: fresh('content'), public: true });
}

async function prepared(length: number, code: CodeShape, seed = 1): Promise<{ content: BuiltContent; shards: PreparedShards }> {
  const content = await built(length, seed);
  return { content, shards: await prepareShards({ content, code, workFolder: fresh('shards') }) };
}

async function offered(shards: PreparedShards, indices: readonly number[]): Promise<OfferedShard[]> {
  return Promise.all(
    indices.map(async (index) => {
      const { cid, carPath } = shards.shards[index] as PreparedShards['shards'][number];
      return { index, cid, reader: await openShardCar(carPath, cid) };
    }),
  );
}

const closeAll = (shards: readonly OfferedShard[]) => Promise.all(shards.map(({ reader }) => reader.close()));

test('any k of the n shards of a content give its CAR back, byte by byte, and its size is found without being told', async () => {
  for (const [length, code] of [
    [1, { k: 10, n: 14 }],
    [3_000_000, { k: 4, n: 6 }],
    [5_300_000, { k: 2, n: 5 }],
    [200_000, { k: 1, n: 3 }],
    [200_000, { k: 3, n: 3 }],
  ] as const) {
    const { content, shards } = await prepared(length, code, length);
    const car = await readFile(content.carPath);
    for (const first of [0, code.n - code.k]) {
      const some = await offered(
        shards,
        Array.from({ length: code.k }, (_, at) => first + at),
      );
      const carPath = fresh('decoded');
      const decoded = await decodeShards({ cid: content.cid, code, shards: some, carPath });
      assert.deepEqual(decoded, { cid: content.cid, carPath, carSize: content.carSize, unusable: [] });
      assert.ok((await readFile(carPath)).equals(car));
      await closeAll(some);
    }
  }
});

test('a CAR of exactly k shards, without padding, is decoded like any other', async () => {
  const block = pseudoRandom(64 * 40 - 59 - 38);
  const cid = cidOf(RAW, block);
  const carPath = fresh('full');
  const car = Buffer.concat([encodeCarHeader(cid), encodeSectionPrefix(cid, block.length), block]);
  assert.equal(car.length, 2560);
  await writeFile(carPath, car);
  const content = { cid: cid.toString(), carPath, carSize: car.length };
  const shards = await prepareShards({ content, code: { k: 4, n: 6 }, workFolder: fresh('shards') });
  assert.equal(shards.shardBytes, 640);
  const some = await offered(shards, [1, 3, 4, 5]);
  const decoded = await decodeShards({ cid: content.cid, code: shards, shards: some, carPath: fresh('decoded') });
  assert.ok((await readFile(decoded.carPath)).equals(car));
  await closeAll(some);
});

test('each shard is a file in a CAR of the stated size, with the piece that its bytes have, and the data shards are the CAR itself', async () => {
  const { content, shards } = await prepared(2_500_000, { k: 2, n: 4 });
  const car = await readFile(content.carPath);
  for (const shard of shards.shards) {
    assert.equal((await stat(shard.carPath)).size, shard.carSize);
    assert.deepEqual(await pieceOf(createReadStream(shard.carPath)), shard.piece);
    assert.equal(shard.piece.rawSize, shards.shardCarSize);
  }
  const readers = await offered(shards, [0, 1]);
  const data = Buffer.concat(await Promise.all(readers.map(({ reader }) => reader.read(0, shards.shardBytes))));
  assert.ok(data.subarray(0, car.length).equals(car));
  assert.ok(data.subarray(car.length).every((byte) => byte === 0));
  await closeAll(readers);
});

test('a shard rebuilt from any k others is the same piece', async () => {
  const { shards } = await prepared(2_500_000, { k: 3, n: 5 });
  for (const index of [0, 2, 3, 4]) {
    const original = shards.shards[index] as PreparedShards['shards'][number];
    const others = await offered(shards, [0, 1, 2, 3, 4].filter((other) => other !== index).slice(-3));
    const carPath = fresh('rebuilt');
    const rebuilt = await rebuildShard({ code: shards, index, cid: original.cid, shards: others, carPath });
    assert.deepEqual(rebuilt, { ...original, carPath });
    assert.ok((await readFile(carPath)).equals(await readFile(original.carPath)));
    await closeAll(others);
  }
});

test('any range of the CAR is read, with data shards and without', async () => {
  const { content, shards } = await prepared(3_400_000, { k: 3, n: 5 });
  const car = await readFile(content.carPath);
  const kinds = await Promise.all(
    [
      [0, 1, 2],
      [0, 3, 4],
      [1, 2, 4],
    ].map((indices) => offered(shards, indices)),
  );
  const sets = await Promise.all(kinds.map((some) => openShardSet({ code: shards, shards: some })));
  const place = fc.nat(content.carSize);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...sets), place, place, async (set, a, b) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b)];
      const chunks: Uint8Array[] = [];
      for await (const chunk of readCarRange(set, from, to)) chunks.push(chunk);
      assert.ok(Buffer.concat(chunks).equals(car.subarray(from, to)));
    }),
    { numRuns: 60, examples: [[sets[1] as (typeof sets)[number], 0, content.carSize]] },
  );
  await Promise.all(kinds.map(closeAll));
});

test('an interrupted preparation goes on with what is whole, and takes nothing that is half done for whole', async () => {
  const content = await built(12_000_000);
  const code = { k: 4, n: 6 };
  const whole = await prepareShards({ content, code, workFolder: fresh('shards') });
  for (const step of ['encode', 'commit'] as const) {
    const workFolder = fresh('shards');
    const stopped = new AbortController();
    const onProgress = (progress: { step: string; doneBytes: number; totalBytes: number }) => {
      if (progress.step === step && progress.doneBytes > progress.totalBytes / 3) stopped.abort();
    };
    await assert.rejects(prepareShards({ content, code, workFolder, signal: stopped.signal, onProgress }), { name: 'AbortError' });
    const steps = new Set<string>();
    const again = await prepareShards({ content, code, workFolder, onProgress: (progress) => void steps.add(progress.step) });
    assert.deepEqual([...steps], step === 'encode' ? ['encode', 'commit'] : ['commit']);
    assert.equal(again.isReused, false);
    assert.deepEqual(
      again.shards.map(({ cid, piece }) => [cid, piece]),
      whole.shards.map(({ cid, piece }) => [cid, piece]),
    );
    assert.equal((await prepareShards({ content, code, workFolder })).isReused, true);
    await truncate(again.shards[2]?.carPath as string, 1000);
    assert.equal((await prepareShards({ content, code, workFolder })).isReused, false);
    assert.equal((await prepareShards({ content, code: { k: 4, n: 7 }, workFolder })).isReused, false);
    assert.deepEqual(
      (await readdir(workFolder)).filter((name) => name.endsWith('.part')),
      [],
    );
  }
});

test('a shard that fails, lies or has another length is left out, and the others are enough', async () => {
  const { content, shards } = await prepared(2_500_000, { k: 2, n: 6 });
  const good = await offered(shards, [1, 4]);
  const bytes = Buffer.from(await (good[0] as OfferedShard).reader.read(0, shards.shardBytes));
  const reader = (read: ShardReader['read'], sizeBytes = shards.shardBytes): ShardReader => ({
    sizeBytes,
    isVerified: false,
    read,
    close: async () => {},
  });
  const cidAt = (index: number) => shards.shards[index]?.cid as string;
  let reads = 0;
  const failing: ShardReader = {
    ...(good[0] as OfferedShard).reader,
    async read(from, to) {
      reads += 1;
      if (reads > 1) throw new TypeError('the line went dead');
      const [shard] = await offered(shards, [5]);
      const part = await (shard as OfferedShard).reader.read(from, to);
      await shard?.reader.close();
      return part;
    },
  };
  const all = [
    { index: 0, cid: cidAt(0), reader: reader(async (from, to) => bytes.subarray(from, to)) },
    { index: 2, cid: cidAt(2), reader: reader(async () => new Uint8Array(3)) },
    { index: 3, cid: cidAt(3), reader: reader(async (from, to) => bytes.subarray(from, to), 128) },
    { index: 5, cid: cidAt(5), reader: failing },
    ...good,
  ];
  const decoded = await decodeShards({ cid: content.cid, code: shards, shards: all, carPath: fresh('decoded') });
  assert.ok((await readFile(decoded.carPath)).equals(await readFile(content.carPath)));
  assert.deepEqual(
    decoded.unusable
      .map(({ index }) => index)
      .filter((index) => index !== 5)
      .sort(),
    [0, 2, 3],
  );
  const carPath = fresh('decoded');
  await assert.rejects(decodeShards({ cid: content.cid, code: shards, shards: all.slice(0, 3).concat(good.slice(0, 1)), carPath }), {
    code: 'too-few-shards',
  });
  await assert.rejects(stat(carPath));
  await closeAll(good);
});

test('shards of two contents, each with its CID, are found out at the end, and nothing is left behind', async () => {
  const one = await prepared(300_000, { k: 2, n: 3 }, 1);
  const other = await prepared(300_000, { k: 2, n: 3 }, 2);
  const mixed = [...(await offered(one.shards, [0])), ...(await offered(other.shards, [2]))];
  const carPath = fresh('decoded');
  await assert.rejects(decodeShards({ cid: one.content.cid, code: one.shards, shards: mixed, carPath }), { code: 'shards-inconsistent' });
  await assert.rejects(rebuildShard({ code: one.shards, index: 1, cid: one.shards.shards[1]?.cid as string, shards: mixed, carPath }), {
    code: 'shards-inconsistent',
  });
  await assert.rejects(stat(carPath));
  await assert.rejects(stat(`${carPath}.part`));
  await closeAll(mixed);
});

test('a damaged CAR of a shard is not opened', async () => {
  const { shards } = await prepared(300_000, { k: 2, n: 3 });
  const { carPath, cid } = shards.shards[0] as PreparedShards['shards'][number];
  await assert.rejects(openShardCar(carPath, shards.shards[1]?.cid as string), { code: 'shard-unreadable' });
  const file = await open(carPath, 'r+');
  await file.write(Buffer.from([1, 2, 3]), 0, 3, 5000);
  await file.close();
  await assert.rejects(openShardCar(carPath, cid), { code: 'bad-block' });
});

test('the manifest has one spelling, says all that is needed, and refuses what contradicts itself', async () => {
  const { shards } = await prepared(300_000, { k: 2, n: 3 });
  const manifest = manifestOf(shards);
  const bytes = encodeShardManifest(manifest);
  assert.deepEqual(decodeShardManifest(bytes), manifest);
  assert.deepEqual(encodeShardManifest(decodeShardManifest(bytes)), bytes);
  const value = JSON.parse(Buffer.from(bytes).toString());
  for (const change of [{ version: 2 }, { k: 4 }, { carSize: 1 }, { shardBytes: 64 }, { shards: [] }, { cid: 'x' }, { n: 33 }]) {
    assert.throws(() => decodeShardManifest(Buffer.from(JSON.stringify({ ...value, ...change }))), { code: 'bad-shard-manifest' });
  }
  assert.throws(() => decodeShardManifest(new Uint8Array(70_000)), { code: 'bad-shard-manifest' });
  assert.throws(() => layoutShards(1000, { k: 20, n: 33 }), { code: 'bad-erasure-code' });
});

test('shards are read from providers over HTTP: one that serves wrong bytes and one that dies on the way are replaced by others', async () => {
  const { content, shards } = await prepared(6_500_000, { k: 3, n: 6 });
  const holders: { server: Server; store: PieceStore; url: string }[] = [];
  for (const shard of shards.shards) holders.push(await holderOf(shard, shard.index === 1));
  try {
    const remote = await Promise.all(
      shards.shards.map(async ({ index, cid }) => {
        const limits = { headersMs: 2000, idleMs: 2000, bytesPerSecondMin: 1, failuresMax: 2 };
        const sources = [{ url: holders[index]?.url as string }];
        return { index, cid, reader: await openRemoteShard({ cid, sources, limits }) };
      }),
    );
    const carPath = fresh('decoded');
    const onProgress = () => {
      holders[0]?.server.close();
      holders[0]?.server.closeAllConnections();
    };
    const decoded = await decodeShards({ cid: content.cid, code: shards, shards: remote, carPath, onProgress });
    assert.ok((await readFile(carPath)).equals(await readFile(content.carPath)));
    assert.deepEqual(decoded.unusable.map(({ index, code }) => [index, code]).sort(), [
      [0, 'content-unavailable'],
      [1, 'content-unavailable'],
    ]);
  } finally {
    for (const { server, store } of holders) {
      server.close();
      await store.close();
    }
  }
});

/** A provider's gateway with one shard; a lying one flips a byte of every leaf. */
async function holderOf(
  shard: PreparedShards['shards'][number],
  isLying: boolean,
): Promise<{ server: Server; store: PieceStore; url: string }> {
  const store = await openPieceStore({ folder: fresh('store'), quotaBytes: 1 << 30, log: silentLogger });
  const receiver = await store.receive({ root: shard.piece.root, rawSize: shard.carSize });
  await receiver.append(createReadStream(shard.carPath), { offset: 0 });
  await receiver.commit();
  const gateway = createTrustlessGateway({ store });
  const server = serve({
    port: 0,
    hostname: '127.0.0.1',
    async fetch(request) {
      const response = await gateway(request);
      const bytes = Buffer.from(await response.arrayBuffer());
      if (isLying && bytes.length > 100_000) bytes[60_000] = (bytes[60_000] as number) ^ 1;
      return new Response(bytes, { status: response.status, headers: response.headers });
    },
  }) as Server;
  await once(server, 'listening');
  return { server, store, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}
