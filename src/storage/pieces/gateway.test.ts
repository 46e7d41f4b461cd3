import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CarReader } from '@ipld/car';
import { exporter, type UnixFSFile } from 'ipfs-unixfs-exporter';
import type { CID } from 'multiformats/cid';
import { silentLogger } from '../../log.ts';
import { type BuiltContent, buildContent } from '../content/content.ts';
import { pieceOf } from '../content/piece.ts';
import { createTrustlessGateway } from './gateway.ts';
import { openPieceStore, type PieceStore } from './piece-store.ts';

const CAR = 'application/vnd.ipld.car';
const large = randomBytes(3_500_000);
let folder = '';
let store: PieceStore;
let gateway: (request: Request) => Promise<Response>;
let tree: BuiltContent;
let file: BuiltContent;
let sharded: BuiltContent;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-gateway-'));
  store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1 << 30, log: silentLogger });
  gateway = createTrustlessGateway({ store });
  await mkdir(join(folder, 'tree', 'deep', 'er'), { recursive: true });
  await writeFile(join(folder, 'tree', 'deep', 'er', 'large.bin'), large);
  await writeFile(join(folder, 'tree', 'deep', 'twin-1'), 'twin');
  await writeFile(join(folder, 'tree', 'deep', 'twin-2'), 'twin');
  await writeFile(join(folder, 'tree', 'ü & ?.txt'), 'special');
  await writeFile(join(folder, 'file'), large);
  await mkdir(join(folder, 'sharded'));
  for (let i = 0; i < 3000; i += 1) await writeFile(join(folder, 'sharded', `${'long name '.repeat(6)}${i}`), `content ${i}`);
  tree = await put('tree');
  file = await put('file');
  sharded = await put('sharded');
});
after(async () => {
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

async function put(name: string): Promise<BuiltContent> {
  const built = await buildContent({ source: { path: join(folder, name) }, workFolder: join(folder, `work-${name}`), public: true });
  const receiver = await store.receive({ root: built.piece.root, rawSize: built.carSize, cid: built.cid });
  await receiver.append(createReadStream(built.carPath), { offset: 0 });
  await receiver.commit();
  return built;
}

const get = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
  gateway(new Request(`http://provider${path}`, { method, headers }));

async function carOf(response: Response) {
  assert.equal(response.status, 200);
  const reader = await CarReader.fromBytes(new Uint8Array(await response.arrayBuffer()));
  const cids: string[] = [];
  for await (const cid of reader.cids()) cids.push(cid.toString());
  return { reader, cids, root: String((await reader.getRoots())[0]) };
}

async function exportFrom(reader: CarReader, path: string, range?: { offset: number; length: number }): Promise<Buffer> {
  const blocks = {
    async *get(cid: CID) {
      const block = await reader.get(cid as never);
      if (block === undefined) throw new RangeError(`no block ${cid}`);
      yield block.bytes;
    },
  };
  const entry = (await exporter(path, blocks as never)) as UnixFSFile;
  const chunks: Uint8Array[] = [];
  for await (const chunk of entry.content(range)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('the whole content comes as the very CAR that was stored', async () => {
  const response = await get(`/ipfs/${tree.cid}?format=car`);
  assert.equal(response.headers.get('content-type'), `${CAR}; version=1; order=dfs; dups=y`);
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(response.headers.get('cache-control'), 'public, max-age=29030400, immutable');
  assert.equal(response.headers.get('content-disposition'), `attachment; filename="${tree.cid}.car"`);
  assert.equal(response.headers.get('content-length'), String(tree.carSize));
  assert.deepEqual(Buffer.from(await response.arrayBuffer()), await readFile(tree.carPath));
});

test('a block comes raw, whole or in ranges, with an immutable ETag', async () => {
  const whole = await get(`/ipfs/${file.cid}`, { accept: 'application/vnd.ipld.raw' });
  assert.equal(whole.headers.get('content-type'), 'application/vnd.ipld.raw');
  const bytes = Buffer.from(await whole.arrayBuffer());
  assert.equal(whole.headers.get('etag'), `"${file.cid}.raw"`);
  for (const [range, start, end] of [
    ['bytes=0-9', 0, 10],
    ['bytes=100-', 100, bytes.length],
    ['bytes=-7', bytes.length - 7, bytes.length],
  ] as const) {
    const part = await get(`/ipfs/${file.cid}?format=raw`, { range });
    assert.equal(part.status, 206);
    assert.equal(part.headers.get('content-range'), `bytes ${start}-${end - 1}/${bytes.length}`);
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), bytes.subarray(start, end));
  }
  assert.equal((await get(`/ipfs/${file.cid}?format=raw`, { range: 'bytes=99999999-' })).status, 416);
  assert.equal((await get(`/ipfs/${file.cid}?format=raw`, { 'if-none-match': `"x", W/"${file.cid}.raw"` })).status, 304);
});

test('HEAD gives the headers of GET and no body', async () => {
  for (const path of [
    `/ipfs/${file.cid}?format=raw`,
    `/ipfs/${tree.cid}?format=car`,
    `/ipfs/${tree.cid}/deep?format=car&dag-scope=entity`,
    `/piece/${tree.piece.cidV2}`,
  ]) {
    const [head, whole] = [await get(path, {}, 'HEAD'), await get(path)];
    assert.equal(head.status, 200);
    assert.deepEqual([...head.headers], [...whole.headers]);
    assert.equal((await head.arrayBuffer()).byteLength, 0);
    await whole.body?.cancel();
  }
});

test('a path leads to its file, and the CAR holds the blocks that prove the way', async () => {
  const { reader, cids, root } = await carOf(
    await get(`/ipfs/${tree.cid}/deep/er/large.bin`, { accept: `${CAR};version=1;order=dfs;dups=n` }),
  );
  assert.equal(root, tree.cid);
  assert.equal(cids[0], tree.cid);
  assert.deepEqual(await exportFrom(reader, `${tree.cid}/deep/er/large.bin`), large);
  const special = await get(`/ipfs/${tree.cid}/${encodeURIComponent('ü & ?.txt')}?format=raw`);
  assert.equal(await special.text(), 'special');
  const name = `${'long name '.repeat(6)}2718`;
  const inShards = await carOf(await get(`/ipfs/${sharded.cid}/${encodeURIComponent(name)}?format=car`));
  assert.equal((await exportFrom(inShards.reader, `${sharded.cid}/${name}`)).toString(), 'content 2718');
  assert.ok(inShards.cids.length <= 5, 'only the shards on the way');
});

test('dag-scope block, entity and all give as much as they say', async () => {
  const count = async (query: string, cid = tree.cid) => (await carOf(await get(`/ipfs/${cid}?format=car&${query}`))).cids.length;
  assert.equal(await count('dag-scope=block'), 1);
  assert.equal(await count('dag-scope=entity'), 1);
  assert.equal(await count('dag-scope=all'), 11);
  assert.equal(await count('dag-scope=all&car-dups=n'), 10);
  assert.equal(await count('dag-scope=entity', file.cid), 5);
  const shards = await count('dag-scope=entity', sharded.cid);
  assert.ok(shards > 100 && shards < 400, `${shards} shards without the files`);
});

test('entity-bytes gives just the blocks that hold the range', async () => {
  for (const [asked, offset, length, blocks] of [
    ['0:0', 0, 1, 2],
    ['1048576:1048580', 1_048_576, 5, 2],
    ['1048570:2097155', 1_048_570, 1_048_586, 4],
    ['3000000:*', 3_000_000, 500_000, 3],
    ['-10:*', 3_499_990, 10, 2],
    ['-20:-11', 3_499_980, 10, 2],
  ] as const) {
    const { reader, cids } = await carOf(await get(`/ipfs/${file.cid}?format=car&dag-scope=entity&entity-bytes=${asked}`));
    assert.equal(cids.length, blocks, asked);
    assert.deepEqual(await exportFrom(reader, file.cid, { offset, length }), large.subarray(offset, offset + length), asked);
  }
  assert.equal((await carOf(await get(`/ipfs/${file.cid}?format=car&entity-bytes=9999999:*`))).cids.length, 1);
});

test('a piece is served by its Filecoin CIDs, whole and in ranges', async () => {
  const car = await readFile(file.carPath);
  for (const cid of [file.piece.cidV1, file.piece.cidV2]) {
    assert.deepEqual(Buffer.from(await (await get(`/piece/${cid}`)).arrayBuffer()), car);
    const part = await get(`/piece/${cid}`, { range: 'bytes=1000-1999' });
    assert.equal(part.status, 206);
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), car.subarray(1000, 2000));
  }
  assert.equal((await get(`/piece/${(await pieceOf([randomBytes(500)])).cidV2}`)).status, 404);
});

test('an identity CID is answered from the CID itself', async () => {
  assert.equal(await (await get('/ipfs/bafkqabtimvwgy3yk?format=raw')).text(), 'hello\n');
  assert.equal((await get('/ipfs/bafkqaaa?format=raw', {}, 'HEAD')).status, 200);
});

test('what cannot be answered is problem+json with the right status, and nothing outside the store is ever reached', async () => {
  const absent = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
  const cases: [number, string, Record<string, string>?, string?][] = [
    [404, `/ipfs/${absent}?format=raw`],
    [404, `/ipfs/${absent}?format=car`],
    [404, `/ipfs/${tree.cid}/nothing?format=car`],
    [404, `/ipfs/${file.cid}/below-a-file?format=car`],
    [404, '/'],
    [404, '/etc/passwd'],
    [404, '/ipfs/../../../../etc/passwd?format=raw'],
    [400, '/ipfs/..%2f..%2fetc%2fpasswd?format=raw'],
    [400, `/ipfs/${tree.cid}/deep%2fer?format=raw`],
    [400, `/ipfs/${tree.cid}//deep?format=raw`],
    [400, `/ipfs/${tree.cid}/%ff%fe?format=raw`],
    [400, `/ipfs/${tree.cid}/${'x/'.repeat(100)}?format=raw`],
    [400, `/ipfs/${tree.cid}/${'x'.repeat(5000)}?format=raw`],
    [400, '/ipfs/nonsense?format=raw'],
    [400, '/piece/nonsense'],
    [400, `/ipfs/${tree.cid}`],
    [400, `/ipfs/${tree.cid}`, { accept: '*/*' }],
    [406, `/ipfs/${tree.cid}`, { accept: 'text/html' }],
    [406, `/ipfs/${tree.cid}?format=tar`],
    [406, `/ipfs/${tree.cid}?format=car&car-version=2`],
    [400, `/ipfs/${tree.cid}?format=car&dag-scope=everything`],
    [400, `/ipfs/${tree.cid}?format=car&entity-bytes=5:3`],
    [400, `/ipfs/${tree.cid}?format=car&entity-bytes=one:two`],
    [405, `/ipfs/${tree.cid}?format=car`, {}, 'POST'],
  ];
  for (const [status, path, headers, method] of cases) {
    const response = await get(path, headers, method);
    assert.equal(response.status, status, path);
    assert.equal(response.headers.get('content-type'), 'application/problem+json');
    const problem = (await response.json()) as { code: string; status: number };
    assert.equal(problem.status, status);
    assert.match(problem.code, /^[a-z-]+$/);
  }
});

test('a receiver that goes away stops the reading, and a slow one does not make the node gather bytes', async () => {
  let given = 0;
  let isClosed = false;
  const slow = createTrustlessGateway({
    store: {
      block: (cid) => store.block(cid),
      piece: (root) => store.piece(root),
      pieceOfContent: (cid) => store.pieceOfContent(cid),
      async *readPayload() {
        try {
          for (;;) {
            given += 1;
            yield new Uint8Array(65_536);
          }
        } finally {
          isClosed = true;
        }
      },
    },
  });
  const response = await slow(new Request(`http://provider/ipfs/${file.cid}?format=car`));
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(given <= 3, `${given} chunks read ahead`);
  await reader.cancel();
  assert.equal(isClosed, true);
});
