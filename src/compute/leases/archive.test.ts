import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { packArchive, unpackArchive } from './archive.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-archive-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const pack = (path: string, name: string) => packArchive(path, name, { files: 0, sizeBytes: 0 });

async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** What the system's own tar makes of these paths. */
async function* systemTar(...options: string[]) {
  yield execFileSync('tar', ['-C', folder, '-cf', '-', ...options], { stdio: ['ignore', 'pipe', 'ignore'] });
}

const long = 'x'.repeat(90);
mkdirSync(join(folder, 'tree', long, long), { recursive: true });
writeFileSync(join(folder, 'tree', 'empty'), '');
writeFileSync(join(folder, 'tree', 'block'), Buffer.alloc(512, 7));
writeFileSync(join(folder, 'tree', long, long, 'deep ü'), 'deep', { mode: 0o755 });

test('a tree comes back as it was, under another name, and the system’s tar reads and writes the same', async () => {
  const archive = await bytesOf(pack(join(folder, 'tree'), 'tree'));
  mkdirSync(join(folder, 'system'));
  execFileSync('tar', ['-C', join(folder, 'system'), '-xf', '-'], { input: archive });
  await unpackArchive(systemTar('tree'), join(folder, 'own'));
  await unpackArchive(pack(join(folder, 'tree'), 'tree'), join(folder, 'both'));
  for (const copy of [join(folder, 'system', 'tree'), join(folder, 'own'), join(folder, 'both')]) {
    assert.equal(readFileSync(join(copy, long, long, 'deep ü'), 'utf8'), 'deep');
    assert.equal(statSync(join(copy, long, long, 'deep ü')).mode & 0o100, 0o100);
    assert.deepEqual(readFileSync(join(copy, 'block')), Buffer.alloc(512, 7));
    assert.equal(statSync(join(copy, 'empty')).size, 0);
  }
});

test('a single file is copied to the very name', async () => {
  const count = await unpackArchive(pack(join(folder, 'tree', 'block'), 'block'), join(folder, 'one', 'file'));
  assert.deepEqual(count, { files: 1, sizeBytes: 512 });
  assert.equal(statSync(join(folder, 'one', 'file')).size, 512);
  await assert.rejects(unpackArchive(pack(join(folder, 'tree', 'block'), 'block'), join(folder, 'one', 'file')), { code: 'copy-exists' });
});

test('what would leave its folder is refused, and nothing of it stays', async () => {
  symlinkSync('/etc/passwd', join(folder, 'tree', 'link'));
  writeFileSync(join(folder, 'evil'), 'x');
  const sources = {
    link: () => systemTar('tree'),
    upward: () => systemTar('--transform=s,^evil,tree/../../evil,', 'evil'),
    absolute: () => systemTar('-P', '--transform=s,^evil,/tmp/evil,', 'evil'),
    twice: () => systemTar('evil', 'evil'),
    up: () => systemTar('--transform=s,^evil,..,', 'evil'),
    others: () => systemTar('evil', 'tree/block'),
    cut: async function* () {
      yield (await bytesOf(systemTar('evil'))).subarray(0, 512);
    },
    garbage: async function* () {
      yield Buffer.alloc(2048, 1);
    },
    nothing: async function* () {
      yield Buffer.alloc(1024);
    },
  };
  for (const [name, source] of Object.entries(sources)) {
    await assert.rejects(unpackArchive(source(), join(folder, 'out', name)), { code: 'bad-copy' }, name);
    assert.equal(existsSync(join(folder, 'out', name)), false, name);
  }
  assert.deepEqual(readdirSync(join(folder, 'out')), []);
  await assert.rejects(bytesOf(pack(join(folder, 'tree'), 'tree')), { code: 'bad-copy' });
});

test('a copy is bounded in bytes and files', async () => {
  const limits = { bytesMax: 100, filesMax: 1 };
  await assert.rejects(unpackArchive(systemTar('tree/block'), join(folder, 'big'), limits), { code: 'bad-copy' });
  await assert.rejects(unpackArchive(systemTar('evil', 'tree/empty'), join(folder, 'many'), limits), { code: 'bad-copy' });
  for (const name of ['one', 'two', 'three']) mkdirSync(join(folder, 'folders', name), { recursive: true });
  await assert.rejects(unpackArchive(systemTar('folders'), join(folder, 'empty'), limits), { code: 'bad-copy' });
});
