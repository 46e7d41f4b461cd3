import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { root } from '../../test/suite.ts';
import type { ImageHold } from './executor.ts';
import { ImageStore } from './image-store.ts';
import { makeRootArchive } from './root-file-system.cases.ts';
import { SandboxExecutor } from './sandbox-executor.ts';
import { TemporaryImages } from './temporary-images.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-temporary-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const BLOCK = 4096;

/** An archive of one file with so many blocks. */
function archiveOf(name: string, blocks: number): string {
  const source = join(folder, `${name}.files`);
  mkdirSync(source);
  writeFileSync(join(source, 'content'), Buffer.alloc(blocks * BLOCK, name));
  const path = join(folder, `${name}.tar`);
  execFileSync('tar', ['-C', source, '-cf', path, 'content']);
  return path;
}

const archives = [1, 2, 3, 4, 5].map((blocks) => ({
  path: archiveOf(`of-${blocks}`, blocks),
  bytes: blocks * BLOCK,
  text: `of-${blocks}`,
}));
const pathOf = (index: number) => archives[index]?.path as string;

let places = 0;
function makePlace(): string {
  places += 1;
  return join(folder, `images-${places}`);
}

const openImages = (path: string) => (existsSync(path) ? readdirSync(path).filter((name) => name !== '.temporary') : []);
const isThere = async (store: ImageStore, { digest }: { digest: string }) => (await store.find(digest)) !== undefined;

test('whatever comes and goes, nothing in use is removed, and what is not in use is within the bound', async () => {
  const BOUND = 7 * BLOCK;
  const kinds = fc.constantFrom('hold', 'hold', 'release', 'use', 'restart', 'import');
  const step = fc.record({ kind: kinds, store: fc.nat(1), image: fc.nat(archives.length - 1), turn: fc.nat(20) });
  const property = fc.asyncProperty(fc.array(fc.array(step, { minLength: 1, maxLength: 3 }), { maxLength: 8 }), async (batches) => {
    const place = makePlace();
    const stores = [0, 1].map(() => new ImageStore(place, { bytesMax: BOUND }));
    let held: { store: ImageStore; digest: string; image: number; release(): Promise<void> }[] = [];
    const kept = new Set<string>();
    const whole = (digest: string, image: number) => {
      const { text, bytes } = archives[image] as (typeof archives)[0];
      const content = readFileSync(join(place, digest.slice(7), 'content'));
      assert.ok(content.equals(Buffer.alloc(bytes, text)), `${text} is whole`);
    };
    const take = async ({ kind, store: number, image, turn }: { kind: string; store: number; image: number; turn: number }) => {
      const store = stores[number] as ImageStore;
      if (kind === 'hold') {
        const hold = await store.hold(pathOf(image));
        whole(hold.digest, image);
        held.push({ ...hold, store, image });
      } else if (kind === 'import') {
        const digest = await store.import(pathOf(image));
        whole(digest, image);
        kept.add(digest);
      } else if (kind === 'release') {
        const [one] = held.splice(turn % Math.max(1, held.length), 1);
        if (one !== undefined) await one.release();
      } else if (kind === 'use') {
        const one = held[turn % Math.max(1, held.length)];
        const use = one === undefined ? undefined : await store.use(one.digest);
        if (one !== undefined && use !== undefined) {
          whole(one.digest, one.image);
          held.push({ ...one, store, release: use.release });
        }
      } else {
        held = held.filter((one) => one.store !== store);
        await store.close();
        stores[number] = new ImageStore(place, { bytesMax: BOUND });
      }
    };
    for (const batch of batches) {
      const [restart, ...others] = [...batch].sort((one, other) => Number(other.kind === 'restart') - Number(one.kind === 'restart'));
      // A process that ends uses nothing any more; what others do meanwhile is done in another.
      if (restart?.kind === 'restart') await take(restart);
      else if (restart !== undefined) others.push(restart);
      await Promise.all(others.filter(({ kind }) => kind !== 'restart').map(take));
      for (const { digest, image } of held) whole(digest, image);
      for (const digest of kept) assert.ok(existsSync(join(place, digest.slice(7))), 'what its owner imported stays');
      const { bytes, images } = await (stores[0] as ImageStore).held();
      const inUse = new Set(held.map(({ digest }) => digest).filter((digest) => !kept.has(digest)));
      assert.ok(bytes <= BOUND || images <= inUse.size, `${bytes} bytes in ${images} images, ${inUse.size} in use`);
    }
    await Promise.all(held.map(({ release }) => release()));
    const left = await (stores[0] as ImageStore).held();
    assert.ok(left.bytes <= BOUND);
    assert.equal(openImages(place).length, left.images + kept.size, 'nothing is on the disk that is not counted');
    rmSync(place, { recursive: true, force: true });
  });
  await fc.assert(property, { numRuns: 12 });
});

test('the image that was used longest ago goes first; what its owner imports, before or later, stays', async () => {
  const store = new ImageStore(makePlace(), { bytesMax: 6 * BLOCK });
  const pass = async (index: number) => {
    const hold = await store.hold(pathOf(index));
    await hold.release();
    await hold.release();
    return hold;
  };
  const [one, two] = [await pass(0), await pass(1)];
  const three = await pass(2);
  assert.deepEqual(await store.held(), { images: 3, bytes: 6 * BLOCK });
  await pass(0);
  const again = await store.hold(pathOf(3));
  assert.deepEqual([await isThere(store, one), await isThere(store, two), await isThere(store, three)], [true, false, false]);
  assert.equal(await store.import(pathOf(3)), again.digest);
  await again.release();
  assert.deepEqual(await store.held(), { images: 1, bytes: BLOCK }, 'an imported one is not counted');
  const five = await pass(4);
  assert.deepEqual([await isThere(store, again), await isThere(store, five), await isThere(store, one)], [true, true, true]);
  const imported = await store.import(pathOf(4));
  await pass(4);
  for (const index of [0, 1, 2]) await pass(index);
  assert.equal(await isThere(store, { digest: imported }), true);
});

test('an image larger than the bound is refused and leaves nothing; where nothing is to be kept it goes with its last use', async () => {
  const place = makePlace();
  const store = new ImageStore(place, { bytesMax: 3 * BLOCK });
  for (const attempt of [() => store.hold(pathOf(3)), () => store.check(pathOf(3))]) {
    await assert.rejects(attempt, { code: 'image-over-bound', actor: 'host', values: { bytes: 4 * BLOCK, bytesMax: 3 * BLOCK } });
  }
  await store.check(pathOf(2));
  assert.deepEqual(openImages(place), []);
  assert.deepEqual(readdirSync(join(place, '.temporary')), ['lock']);
  const none = new ImageStore(place, { bytesMax: 0 });
  const hold = await none.hold(pathOf(4));
  const use = await none.use(hold.digest);
  await hold.release();
  assert.equal(await isThere(none, hold), true, 'something runs in it');
  await use?.release();
  assert.deepEqual(openImages(place), []);
  assert.equal(await none.use(hold.digest), undefined);
});

/** Images that are files, and a count of those that were brought. */
function plainImages(path: string, digest: string) {
  mkdirSync(path, { recursive: true });
  const file = join(path, 'image');
  const place = {
    has: async () => existsSync(file),
    discard: async () => {
      rmSync(file, { force: true });
      return true;
    },
    freeBytes: async () => 2 ** 40,
  };
  const open = () => new TemporaryImages({ folder: join(path, 'list'), place, bytesMax: 100 });
  let brought = 0;
  const sourceOf = (bring: () => Promise<void>) => ({
    digest,
    measure: async () => 10,
    place: async () => {
      brought += 1;
      await bring();
      writeFileSync(file, '');
    },
  });
  return { open, sourceOf, brought: () => brought, file };
}

const DIGEST = `sha256:${'ab'.repeat(32)}`;

test('an image that many want at once is brought once; when that fails, the next one brings it', async () => {
  const { open, sourceOf, brought } = plainImages(makePlace(), DIGEST);
  const begun = Promise.withResolvers<void>();
  const broken = Promise.withResolvers<void>();
  const first = open().hold(
    sourceOf(() => {
      begun.resolve();
      return broken.promise;
    }),
  );
  await begun.promise;
  const [here, elsewhere] = [open(), open()];
  const others = [here, here, elsewhere].map((images) => images.hold(sourceOf(async () => {})));
  broken.reject(new Error('the disk is gone'));
  await assert.rejects(first, /the disk is gone/);
  const holds = await Promise.all(others);
  assert.equal(brought(), 2);
  await Promise.all(holds.map(({ release }) => release()));
  assert.deepEqual(await here.held(), { images: 1, bytes: 10 });
});

test('a process that is killed uses and brings nothing any more: the next one goes on, and only what is in use is more than its bound', async (context) => {
  const place = makePlace();
  const child = spawn(process.execPath, [join(root, 'test/image-child.ts'), place, ...archives.map(({ path }) => path)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  context.after(() => child.kill('SIGKILL'));
  const store = new ImageStore(place, { bytesMax: 0 });
  const { kept, held, stuck } = JSON.parse(await firstLine(child)) as { kept: string; held: string[]; stuck: string };
  await store.sweep();
  assert.deepEqual(await all(store, [kept, ...held]), [true, true, true], 'what another process holds stays');
  assert.equal(openImages(place).length, 4, 'and what it unpacks');
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const again = await store.hold(pathOf(3));
  assert.equal(again.digest, stuck, 'brought by the next one');
  await store.sweep();
  assert.deepEqual(await all(store, [kept, ...held, stuck]), [true, false, false, true]);
  await again.release();
  assert.deepEqual(openImages(place), [kept.slice(7)], 'what its owner imported is left, and no half of an image');
});

const all = (store: ImageStore, digests: readonly string[]) => Promise.all(digests.map((digest) => isThere(store, { digest })));

async function firstLine(child: ChildProcess): Promise<string> {
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  for await (const line of lines) return line;
  return assert.fail('it said nothing');
}

test('a sandbox keeps its image until it ends, whoever releases it', async (context) => {
  const place = makePlace();
  const executor = new SandboxExecutor({ imageFolder: place, imageBytesMax: 0 });
  const report = await executor.inspect();
  if (!report.takesForeign) return context.skip(`no sandbox for strangers here: ${report.missing.map(({ what }) => what).join('; ')}`);
  const inputFolder = join(folder, 'input');
  mkdirSync(inputFolder);
  const hold: ImageHold = await executor.holdImage(makeRootArchive(folder));
  const up = Promise.withResolvers<void>();
  const limits = { memoryBytes: 64 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 300, outputBytes: 1000 };
  const script = 'echo up; until [ -e /input/go ]; do sleep 0.05; done; cat /bin/sh | head -c 4';
  const said: string[] = [];
  const job = { image: hold.digest, argv: ['/bin/sh', '-c', script], inputFolder, limits, trust: 'foreign' as const };
  const onLog = ({ bytes }: { bytes: Uint8Array }) => {
    said.push(Buffer.from(bytes).toString('latin1'));
    up.resolve();
  };
  const running = executor.run(job, { onLog });
  await Promise.race([up.promise, running]);
  await hold.release();
  const other = await executor.holdImage(pathOf(0));
  await other.release();
  assert.deepEqual(openImages(place), [hold.digest.slice(7)]);
  writeFileSync(join(inputFolder, 'go'), '');
  assert.equal((await running).reason, 'completed');
  assert.equal(said.join(''), 'up\n\x7fELF');
  assert.deepEqual(openImages(place), []);
  await assert.rejects(executor.run(job), { code: 'image-unknown' });
  await executor.close();
});
