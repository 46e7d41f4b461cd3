import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CarBlockIterator } from '@ipld/car';
import { MemoryBlockstore } from 'blockstore-core';
import { exporter, type UnixFSFile } from 'ipfs-unixfs-exporter';
import { importer } from 'ipfs-unixfs-importer';
import type { CID } from 'multiformats/cid';
import { linksOf } from './block.ts';
import { createCarScanner } from './car.ts';
import { type BuiltContent, buildContent } from './content.ts';
import { deriveShareKey } from './key-wrap.ts';
import { decodeManifest, manifestHeadBytes } from './manifest-sealed.ts';
import { pieceOf } from './piece.ts';
import { fileKeyFor, openContainer, parseHeader } from './seal.ts';

let folder = '';
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-content-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const freshFolder = () => {
  count += 1;
  return join(folder, `work-${count}`);
};

async function loadCar(content: BuiltContent) {
  const blocks = new Map<string, Uint8Array>();
  const order: string[] = [];
  const iterator = await CarBlockIterator.fromIterable(createReadStream(content.carPath));
  const root = (await iterator.getRoots())[0];
  for await (const { cid, bytes } of iterator) {
    blocks.set(cid.toString(), bytes);
    order.push(cid.toString());
  }
  const store = {
    async *get(cid: CID) {
      yield blocks.get(cid.toString()) as Uint8Array;
    },
  };
  return { root: root as CID, blocks, order, store };
}

async function exportFile(content: BuiltContent, path = ''): Promise<Buffer> {
  const { store } = await loadCar(content);
  const entry = (await exporter(`${content.cid}${path}`, store as never)) as UnixFSFile;
  const chunks: Uint8Array[] = [];
  for await (const chunk of entry.content()) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks);
}

/** Depth-first order from the root, every occurrence of a block included. */
async function depthFirst(content: BuiltContent): Promise<string[]> {
  const { root, blocks } = await loadCar(content);
  const order: string[] = [];
  const walk = (cid: CID): void => {
    order.push(cid.toString());
    for (const link of linksOf(cid, blocks.get(cid.toString()) as Uint8Array)) walk(link);
  };
  walk(root);
  return order;
}

async function importedRoot(entries: { path: string; content: Uint8Array }[], wrap: boolean): Promise<string> {
  let root = '';
  const options = { profile: 'unixfs-v1-2025', wrapWithDirectory: wrap } as const;
  for await (const { cid } of importer(entries, new MemoryBlockstore(), options)) root = cid.toString();
  return root;
}

async function checkCar(content: BuiltContent): Promise<void> {
  assert.equal((await stat(content.carPath)).size, content.carSize);
  const scanner = createCarScanner(() => {});
  for await (const chunk of createReadStream(content.carPath)) scanner.write(chunk as Buffer);
  assert.equal(scanner.finish().toString(), content.cid);
  assert.deepEqual(await pieceOf(createReadStream(content.carPath)), content.piece);
  assert.deepEqual((await loadCar(content)).order, await depthFirst(content));
}

test('a public file has the root that another UnixFS implementation gives it, in a depth-first CAR', async () => {
  for (const size of [1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000]) {
    const path = join(folder, `file-${size}`);
    const bytes = randomBytes(size);
    await writeFile(path, bytes);
    const content = await buildContent({ source: { path }, workFolder: freshFolder(), public: true });
    assert.equal(content.cid, await importedRoot([{ path: 'f', content: bytes }], false), `size ${size}`);
    await checkCar(content);
    assert.deepEqual(await exportFile(content), bytes);
  }
});

test('a file of more than 1,024 leaves gets a second level of nodes, as other implementations give it', async () => {
  const path = join(folder, 'sparse');
  const size = 1025 * (1 << 20) + 5;
  await writeFile(path, 'start');
  await truncate(path, size);
  const content = await buildContent({ source: { path }, workFolder: freshFolder(), public: true });
  const stream = async function* () {
    for (let done = 0; done < size; done += 1 << 20) {
      const chunk = new Uint8Array(Math.min(1 << 20, size - done));
      if (done === 0) chunk.set(Buffer.from('start'));
      yield chunk;
    }
  };
  let root = '';
  const store = { put: async (cid: CID) => cid };
  for await (const { cid } of importer([{ path: 'f', content: stream() }], store as never, { profile: 'unixfs-v1-2025' }))
    root = cid.toString();
  assert.equal(content.cid, root);
  await rm(content.carPath);
});

test('a public folder has the root that another UnixFS implementation gives it, nested, with empty files and twins', async () => {
  const path = join(folder, 'tree');
  const files: Record<string, Buffer> = {
    'a.txt': Buffer.from('a'),
    'b/c.bin': randomBytes(2_100_000),
    'b/d/empty': Buffer.alloc(0),
    'b/twin': Buffer.from('a'),
    'ä ö/ü.txt': Buffer.from('umlaut'),
    'z.bin': randomBytes(70_000),
  };
  for (const [name, bytes] of Object.entries(files)) {
    await mkdir(join(path, name, '..'), { recursive: true });
    await writeFile(join(path, name), bytes);
  }
  const content = await buildContent({ source: { path }, workFolder: freshFolder(), public: true });
  const sorted = Object.entries(files).map(([name, bytes]) => ({ path: name, content: bytes as Uint8Array }));
  assert.equal(content.cid, await importedRoot(sorted, true));
  await checkCar(content);
  for (const [name, bytes] of Object.entries(files)) assert.deepEqual(await exportFile(content, `/${name}`), bytes);
});

test('a folder of 6,000 files is sharded as other implementations do it', async () => {
  const path = join(folder, 'large');
  await mkdir(path);
  const entries = Array.from({ length: 6000 }, (_, i) => ({
    path: `a file with a rather long name, number ${i}.txt`,
    content: Buffer.from(`${i % 100}`),
  }));
  for (const entry of entries) await writeFile(join(path, entry.path), entry.content);
  const content = await buildContent({ source: { path }, workFolder: freshFolder(), public: true });
  assert.equal(content.cid, await importedRoot(entries, true));
  await checkCar(content);
  assert.equal((await exportFile(content, `/${entries[4321]?.path}`)).toString(), '21');
});

test('sealed content is one UnixFS file that shows neither names nor contents, and opens with a recipient key alone', async () => {
  const path = join(folder, 'secret-folder');
  await mkdir(join(path, 'empty-one'), { recursive: true });
  const [first, second] = [randomBytes(3_000_000), Buffer.from('the plain words')];
  await writeFile(join(path, 'first-name.bin'), first);
  await writeFile(join(path, 'second-name.txt'), second);
  await chmod(join(path, 'second-name.txt'), 0o755);
  const key = await deriveShareKey(randomBytes(32));
  const content = await buildContent({ source: { path }, workFolder: freshFolder(), recipients: [key.publicKey] });
  await checkCar(content);
  const car = await readFile(content.carPath);
  for (const text of ['first-name', 'second-name', 'plain words', 'empty-one']) assert.equal(car.includes(text), false);
  const sealed = await exportFile(content);
  const header = parseHeader(sealed);
  const fileKey = (await fileKeyFor(header, key)) as Uint8Array;
  assert.deepEqual(Buffer.from(fileKey), Buffer.from(content.fileKey as Uint8Array));
  const container = openContainer({ header, fileKey, sealedBytes: sealed.length });
  const plain = Buffer.concat(
    Array.from({ length: container.chunks }, (_, i) =>
      container.open(i, sealed.subarray(container.rangeOf(i).start, container.rangeOf(i).end)),
    ),
  );
  const manifest = decodeManifest(plain.subarray(0, manifestHeadBytes(plain)), plain.length);
  assert.deepEqual(
    manifest.entries.map(({ path, size, mode, isFolder }) => [path, size, mode, isFolder]),
    [
      ['empty-one', 0, 0o755, true],
      ['first-name.bin', 3_000_000, 0o644, false],
      ['second-name.txt', 15, 0o755, false],
    ],
  );
  assert.deepEqual(plain.subarray(manifest.headBytes), Buffer.concat([first, second]));
});

test('building again gives the finished bytes while the source is unchanged, and a new key when it has changed', async () => {
  const path = join(folder, 'again');
  const workFolder = freshFolder();
  await writeFile(path, randomBytes(100_000));
  const first = await buildContent({ source: { path }, workFolder });
  const again = await buildContent({ source: { path }, workFolder });
  assert.deepEqual(
    { ...again, fileKey: Buffer.from(again.fileKey as Uint8Array) },
    { ...first, fileKey: Buffer.from(first.fileKey as Uint8Array), isReused: true },
  );
  assert.equal((await stat(join(workFolder, 'content.json'))).mode & 0o777, 0o600);
  await writeFile(path, randomBytes(100_001));
  const changed = await buildContent({ source: { path }, workFolder });
  assert.equal(changed.isReused, false);
  assert.notDeepEqual(changed.fileKey, first.fileKey);
  const other = await buildContent({ source: { path }, workFolder, recipients: [(await deriveShareKey(randomBytes(32))).publicKey] });
  assert.equal(other.isReused, false, 'other readers need another header');
  const publicOnce = await buildContent({ source: { path }, workFolder: freshFolder(), public: true });
  const publicTwice = await buildContent({ source: { path }, workFolder: freshFolder(), public: true });
  assert.deepEqual({ ...publicTwice, carPath: '' }, { ...publicOnce, carPath: '' });
});

test('an interrupted build leaves no finished content, and the next build succeeds', async () => {
  const path = join(folder, 'interrupted');
  await writeFile(path, randomBytes(4_000_000));
  for (const step of ['import', 'commit']) {
    const workFolder = freshFolder();
    const stop = new AbortController();
    const onProgress = (progress: { step: string }) => {
      if (progress.step === step) stop.abort(new Error('stopped'));
    };
    await assert.rejects(buildContent({ source: { path }, workFolder, onProgress, signal: stop.signal }), /stopped/);
    assert.deepEqual(await readdir(workFolder), ['unfinished.car']);
    await checkCar(await buildContent({ source: { path }, workFolder }));
  }
});

test('standard input is stored like a file, and nothing of it stays in the work folder', async () => {
  const bytes = randomBytes(1_500_000);
  const workFolder = freshFolder();
  const stream = (async function* () {
    for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
  })();
  const content = await buildContent({ source: { stream }, workFolder, public: true });
  assert.equal(content.cid, await importedRoot([{ path: 'f', content: bytes }], false));
  assert.deepEqual((await readdir(workFolder)).sort(), [`${content.cid}.car`, 'content.json'].sort());
});

test('bad sources are typed errors: missing, empty, a link inside a folder, changed while read', async () => {
  const build = (path: string) => buildContent({ source: { path }, workFolder: freshFolder() });
  await assert.rejects(build(join(folder, 'nothing-here')), { code: 'source-missing', actor: 'caller' });
  await writeFile(join(folder, 'empty'), '');
  await assert.rejects(build(join(folder, 'empty')), { code: 'empty-content', actor: 'caller' });
  await mkdir(join(folder, 'empty-folder'));
  await assert.rejects(build(join(folder, 'empty-folder')), { code: 'empty-content' });
  await mkdir(join(folder, 'linked'));
  await writeFile(join(folder, 'linked', 'a'), 'a');
  await symlink('/etc/passwd', join(folder, 'linked', 'b'));
  await assert.rejects(build(join(folder, 'linked')), { code: 'unsupported-entry' });
  const kept = await buildContent({ source: { path: join(folder, 'linked'), skipSpecial: true }, workFolder: freshFolder() });
  assert.equal(kept.entries, 1);
  const path = join(folder, 'shrinking');
  await writeFile(path, randomBytes(6_000_000));
  let isCut = false;
  const onProgress = () => {
    if (!isCut) void truncate(path, 1_200_000);
    isCut = true;
  };
  await assert.rejects(buildContent({ source: { path }, workFolder: freshFolder(), onProgress }), { code: 'source-changed' });
});

test('an unreadable file is a typed error', async () => {
  const [path, workFolder] = [join(folder, 'unreadable'), freshFolder()];
  await writeFile(path, 'x', { mode: 0 });
  await mkdir(workFolder);
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) {
    await chmod(folder, 0o755);
    await chmod(workFolder, 0o777);
    process.seteuid?.(65_534); // root reads everything: look as nobody
  }
  try {
    await assert.rejects(buildContent({ source: { path }, workFolder }), { code: 'source-unreadable', actor: 'caller' });
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});
