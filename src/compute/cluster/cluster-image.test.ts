import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MillraceError } from '../../errors.ts';
import { SandboxExecutor } from '../../host/index.ts';
import type { FetchContent } from '../part.ts';
import { provideImage } from './cluster-image.ts';

const CID = `b${'a'.repeat(58)}`;
const folder = mkdtempSync(join(tmpdir(), 'millrace-cluster-image-'));
const executor = new SandboxExecutor({ imageFolder: join(folder, 'unpacked') });
after(async () => {
  await executor.close();
  rmSync(folder, { recursive: true, force: true });
});

function archive(): string {
  const root = join(folder, 'root');
  mkdirSync(root, { recursive: true });
  writeFileSync(join(root, 'program'), '#!/bin/sh\n');
  execFileSync('tar', ['-C', root, '-cf', join(folder, 'image.tar'), 'program']);
  return join(folder, 'image.tar');
}

test('an image is fetched by its CID once, kept as its digest, and had by either name from then on', async () => {
  const path = archive();
  const images = join(folder, 'images');
  let fetched = 0;
  const fetchContent: FetchContent = async (cid, target) => {
    assert.equal(cid, CID);
    fetched += 1;
    copyFileSync(path, target);
    return 0;
  };
  const sources = { folder: images, executor, fetchContent };
  const digest = await provideImage(CID, sources);
  assert.match(digest, /^sha256:[0-9a-f]{64}$/);
  assert.ok(existsSync(join(images, `${digest.slice(7)}.tar`)));
  assert.equal(await provideImage(CID, sources), digest);
  assert.equal(await provideImage(digest, sources), digest);
  assert.equal(fetched, 1);
});

test('an image that is not to be had is refused by its name, and nothing of it stays', async () => {
  const images = join(folder, 'none');
  const fetchContent: FetchContent = async (_, target) => {
    writeFileSync(target, 'half');
    throw new MillraceError('content-unavailable', { actor: 'peer', message: 'nobody has it' });
  };
  const sources = { folder: images, executor, fetchContent };
  await assert.rejects(
    provideImage(CID, sources),
    (error: MillraceError) => error.code === 'image-unknown' && /nobody has it/.test(error.message),
  );
  assert.deepEqual(readdirSync(images), []);
  await assert.rejects(provideImage(`sha256:${'0'.repeat(64)}`, sources), { code: 'image-unknown', actor: 'caller' });
});
