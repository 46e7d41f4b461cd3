import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MillraceError } from '../../errors.ts';
import { SandboxExecutor } from '../../host/index.ts';
import { makeRootArchive } from '../../host/root-file-system.cases.ts';
import { silentLogger } from '../../log.ts';
import type { FetchContent } from '../part.ts';
import { TEST_DEVICE, until } from './lease-fixture.ts';
import { openRental } from './rental.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-rental-'));
const imageFolder = join(folder, 'images');
const executor = new SandboxExecutor({ imageFolder, imageBytesMax: 0 });
const fetchContent: FetchContent = async () => {
  throw new MillraceError('content-unavailable', { actor: 'peer', message: 'no content in this test' });
};
after(async () => {
  await executor.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a renter that kills its own sandbox finds another, its command started again, and probes answered', async (context) => {
  const report = await executor.inspect();
  if (!report.takesForeign) return context.skip(`no sandbox for strangers here: ${report.missing.map(({ what }) => what).join('; ')}`);
  const main = { argv: ['/bin/sh', '-c', 'echo begun; sleep 63'] };
  const place = join(folder, 'one');
  const rental = openRental({ executor, resources: TEST_DEVICE.resources, folder: place, main, fetchContent, log: silentLogger });
  const printed = async () => {
    let text = '';
    for await (const bytes of rental.output.read({ follow: false, signal: new AbortController().signal }))
      text += Buffer.from(bytes).toString();
    return text;
  };
  try {
    assert.equal(await rental.probe(), true);
    await until('its command has begun', async () => (await printed()).startsWith('begun\n'));
    const run = await rental.run({ argv: ['/bin/sh', '-c', 'kill -9 -1'] });
    for (const stream of [run.stdout, run.stderr]) stream.resume();
    assert.equal(await run.ended, undefined);
    assert.equal(await rental.probe(), true);
    await until('its command has begun again', async () => (await printed()).split('begun\n').length === 3);
    assert.equal(rental.status().restarts, 1);
    // A stopped agent answers nothing: its sandbox is made anew too.
    const stopping = await rental.run({ argv: ['/bin/sh', '-c', 'kill -STOP 2'] });
    for (const stream of [stopping.stdout, stopping.stderr]) stream.resume();
    await until('the agent is stopped and replaced', async () => (await rental.probe()) && rental.status().restarts === 2);
  } finally {
    await rental.close();
  }
  assert.equal(existsSync(place), false);
});

test('what a command printed is kept for the last mebibyte, and followed as it comes', async () => {
  const { OutputLog } = await import('./output-log.ts');
  const log = new OutputLog();
  log.write(Buffer.alloc(1 << 20, 'a'));
  log.write(Buffer.from('end'));
  const stop = new AbortController();
  let text = '';
  const following = (async () => {
    for await (const bytes of log.read({ follow: true, signal: stop.signal })) text += Buffer.from(bytes).toString();
  })();
  await until('what is kept is read', () => text.endsWith('end'));
  assert.equal(text.length, 1 << 20);
  log.write(Buffer.from(' and more'));
  await until('what comes is read', () => text.endsWith(' and more'));
  stop.abort();
  await following;
});

test('a rental goes over into the renter’s image when that is there, is up all the while, and leaves one in which nothing starts', async (context) => {
  const report = await executor.inspect();
  if (!report.takesForeign) return context.skip(`no sandbox for strangers here: ${report.missing.map(({ what }) => what).join('; ')}`);
  const good = makeRootArchive(folder);
  const empty = join(folder, 'empty.tar');
  mkdirSync(join(folder, 'nothing'));
  execFileSync('tar', ['-C', join(folder, 'nothing'), '-cf', empty, '.']);
  const held = Promise.withResolvers<void>();
  const archives: Record<string, string> = { bgood: good, bempty: empty };
  const bring: FetchContent = async (cid, path) => {
    const archive = archives[cid];
    if (archive === undefined) throw new MillraceError('bad-cid', { actor: 'caller', message: 'no such content' });
    await held.promise;
    copyFileSync(archive, path);
    return 0;
  };
  const resources = { ...TEST_DEVICE.resources, memoryBytes: 128 << 20 };
  const rental = openRental({
    executor,
    resources,
    folder: join(folder, 'two'),
    main: undefined,
    fetchContent: bring,
    log: silentLogger,
  });
  const hasPerlAlone = async () => {
    const run = await rental.run({ argv: ['/bin/sh', '-c', 'test -e /usr/bin/perl && ! test -e /usr/bin/env'] });
    for (const stream of [run.stdout, run.stderr]) stream.resume();
    run.stdin.end();
    return (await run.ended) === 0;
  };
  try {
    await rental.setMain({ argv: ['/bin/sh', '-c', 'echo in the image'], image: 'bgood' });
    assert.equal(await rental.probe(), true, 'it is up while the image is fetched');
    assert.deepEqual(rental.status().image, { source: 'bgood', state: 'fetching' });
    assert.equal(await hasPerlAlone(), false);
    held.resolve();
    await until('its command runs in the image', async () => {
      let text = '';
      for await (const bytes of rental.output.read({ follow: false, signal: new AbortController().signal }))
        text += Buffer.from(bytes).toString();
      return text.includes('in the image');
    });
    assert.equal(await hasPerlAlone(), true);
    assert.deepEqual([rental.status().restarts, rental.status().image?.state], [0, 'ready']);
    await rental.setMain({ argv: ['/bin/true'], image: 'bempty' });
    await until('the empty image is left', async () => rental.status().image?.state === 'refused');
    await until('it is up in what the device has', () => rental.probe());
    assert.equal(await hasPerlAlone(), false);
    await rental.setMain({ argv: ['/bin/true'], image: 'bnone' });
    await until('what is not there is refused', () => rental.status().image?.fault === 'bad-cid');
    assert.equal(await rental.probe(), true);
    await rental.setMain({ argv: ['/bin/true'], image: 'bfourth' });
    await until('another one is not there either', () => rental.status().image?.fault === 'bad-cid');
    await rental.setMain({ argv: ['/bin/true'], image: 'bfifth' });
    assert.deepEqual(rental.status().image, { source: 'bfifth', state: 'refused', fault: 'images-too-many' });
    await rental.setMain({ argv: ['/bin/true'], image: 'bgood' });
    await until('one that it had is taken again', () => rental.status().image?.state === 'ready');
  } finally {
    await rental.close();
  }
  assert.deepEqual(imagesLeft(), [], 'its images go with it');
});

const imagesLeft = () => (existsSync(imageFolder) ? readdirSync(imageFolder).filter((name) => name !== '.temporary') : []);

test('a renter that brings one image after another leaves none on the machine, and takes none from whoever needs the same', async (context) => {
  const report = await executor.inspect();
  if (!report.takesForeign) return context.skip(`no sandbox for strangers here: ${report.missing.map(({ what }) => what).join('; ')}`);
  // Four images of their own digests, each with a shell.
  const plain = makeRootArchive(folder);
  const archives: string[] = [];
  for (let index = 0; index < 4; index += 1) {
    const archive = join(folder, `own-${index}.tar`);
    copyFileSync(plain, archive);
    writeFileSync(join(folder, `mark-${index}`), `${index}`);
    execFileSync('tar', ['-C', folder, '-rf', archive, `mark-${index}`]);
    archives.push(archive);
  }
  const fetch: FetchContent = async (cid, path) => {
    copyFileSync(archives[Number(cid)] as string, path);
    return 0;
  };
  const resources = { ...TEST_DEVICE.resources, memoryBytes: 128 << 20 };
  const open = (name: string) =>
    openRental({ executor, resources, folder: join(folder, name), main: undefined, fetchContent: fetch, log: silentLogger });
  const [greedy, other] = [open('greedy'), open('other')];
  const bring = async (rental: ReturnType<typeof open>, index: number) => {
    await rental.setMain({ argv: ['/bin/true'], image: String(index) });
    await until(`image ${index} is there`, () => rental.status().image?.state === 'ready' && rental.probe());
  };
  try {
    // The owner, or a job, has the first one; the second rental has the second.
    const kept = await executor.importImage(archives[0] as string);
    await bring(other, 1);
    for (let index = 0; index < 4; index += 1) {
      await bring(greedy, index);
      const found = imagesLeft();
      assert.ok(found.length <= 4, `${found.length} images: the owner's, the other's, its own and the one before`);
    }
    await greedy.close();
    const left = imagesLeft();
    assert.equal(left.length, 2);
    assert.ok(left.includes(kept.replace('sha256:', '')));
    assert.equal(await other.probe(), true);
  } finally {
    await Promise.all([greedy.close(), other.close()]);
  }
  assert.equal(imagesLeft().length, 1, "the owner's stays");
});
