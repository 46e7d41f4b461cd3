import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { ImageStore } from './image-store.ts';
import { makeRootArchive } from './root-file-system.cases.ts';
import { SandboxExecutor } from './sandbox-executor.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-image-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Member {
  path: string;
  type?: string;
  target?: string;
  body?: string | Buffer;
  mode?: number;
  size?: number;
}

/** A tar archive as anybody may send it. */
function tar(...members: Member[]): Buffer {
  const blocks = members.flatMap(({ path, type = '0', target = '', body = '', mode = 0o644, size }) => {
    const header = Buffer.alloc(512);
    const content = Buffer.from(body);
    header.write(path, 0, 100);
    header.write(`${mode.toString(8).padStart(7, '0')}\0`, 100);
    header.write(`${(size ?? content.length).toString(8).padStart(11, '0')}\0`, 124);
    header.write('        ', 148);
    header.write(type, 156);
    header.write(target, 157, 100);
    header.write('ustar\x0000', 257);
    header.write(
      `${header
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
    return [header, content, Buffer.alloc((512 - (content.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

let count = 0;
function keep(bytes: Uint8Array): string {
  count += 1;
  const path = join(folder, `archive-${count}`);
  writeFileSync(path, bytes);
  return path;
}

const store = new ImageStore(join(folder, 'images'), { limits: { unpackedBytesMax: 4 << 20, entriesMax: 50 } });
const refuse = async (bytes: Uint8Array, message: RegExp) => {
  await assert.rejects(
    store.import(keep(bytes)),
    (error: Error & { code?: string }) => error.code === 'bad-image' && message.test(error.message),
  );
};

test('an archive is unpacked whole under its digest: links as text, no devices, no special bits, folders for what the sandbox mounts', async () => {
  const bytes = tar(
    { path: './bin/', type: '5', mode: 0o700 },
    { path: './bin/run', body: '#!', mode: 0o4711 },
    { path: 'bin/also', type: '1', target: './bin/run' },
    { path: 'etc/shadow', type: '2', target: '/etc/shadow' },
    { path: 'dev/sda', type: '4' },
    { path: 'dev/x', body: 'x' },
    { path: 'tmp', type: '2', target: '/etc' },
  );
  const digest = await store.import(keep(gzipSync(bytes)));
  assert.equal(await store.import(keep(gzipSync(bytes))), digest);
  const root = (await store.find(digest)) as string;
  assert.equal(lstatSync(join(root, 'bin/run')).mode & 0o7777, 0o755);
  assert.equal(lstatSync(join(root, 'bin/also')).ino, lstatSync(join(root, 'bin/run')).ino);
  assert.equal(readlinkSync(join(root, 'etc/shadow')), '/etc/shadow');
  assert.deepEqual(readdirSync(join(root, 'dev')), []);
  assert.ok(lstatSync(join(root, 'tmp')).isDirectory());
});

test('bombs and traversals are refused and leave nothing', async () => {
  const outside = join(folder, 'outside');
  mkdirSync(outside);
  await refuse(tar({ path: '../outside/x', body: 'x' }), /path "\.\.\/outside/);
  await refuse(tar({ path: 'link', type: '2', target: outside }, { path: 'link/x', body: 'x' }), /goes through "link"/);
  await refuse(tar({ path: 'a', type: '1', target: '../../outside' }), /holds the path/);
  await refuse(tar({ path: 'l', type: '2', target: '/etc/hostname' }, { path: 'h', type: '1', target: 'l' }), /another name/);
  await refuse(gzipSync(tar({ path: 'zeros', body: Buffer.alloc(5 << 20) })), /unpacks to more than/);
  await refuse(tar({ path: 'huge', size: 2 ** 32 }), /unpacks to more than/);
  await refuse(tar(...Array.from({ length: 60 }, (_, index) => ({ path: `f${index}` }))), /more than 50 entries/);
  await refuse(tar({ path: `${'a/'.repeat(49)}x`, body: 'x' }, { path: `${'b/'.repeat(9)}x`, body: 'x' }), /more than 50 entries/);
  await refuse(
    tar({ path: `${'p'.repeat(90)}`, type: 'L', body: `${'a/'.repeat(2100)}x\0` }, { path: 'long', body: 'x' }),
    /more than 4096/,
  );
  await refuse(tar({ path: 'cut', body: 'x'.repeat(2000) }).subarray(0, 1000), /cut off/);
  await refuse(gzipSync(tar({ path: 'a', body: 'x' })).subarray(0, 40), /gzip|cut off/);
  await refuse(Buffer.alloc(600, 1), /octal number is due/);
  await refuse(tar({ path: 'd/x', body: 'x' }, { path: 'd', body: 'x' }), /a folder and something else/);
  assert.deepEqual(readdirSync(outside), []);
  assert.ok(
    readdirSync(join(folder, 'images')).every((name) => /^[0-9a-f]{64}$|^\.temporary$/.test(name)),
    'no half of an image stays',
  );
});

test('whatever the bytes of an archive are, it is an image or refused, and nothing is written outside', async () => {
  const good = tar({ path: 'a/b', body: 'text' }, { path: 'a/c', type: '2', target: 'b' });
  const anyArchive = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 });
  const property = fc.asyncProperty(anyArchive, async (changes) => {
    const bytes = Buffer.from(good);
    for (const [at, value] of changes) bytes[at] = value;
    await store.import(keep(bytes)).catch((error: { code?: string }) => assert.equal(error.code, 'bad-image'));
  });
  await fc.assert(property, { numRuns: 40 });
  assert.equal(existsSync(join(folder, 'a')), false);
});

test('a root file system of an archive runs: read-only, and nothing of this machine beside it', async () => {
  const executor = new SandboxExecutor({ imageFolder: join(folder, 'roots') });
  const image = await executor.importImage(makeRootArchive(folder));
  const said: string[] = [];
  const script = 'ls /; ls /usr/bin; touch /x /etc/x /usr/x; ls /etc; cat /proc/mounts';
  const limits = { memoryBytes: 64 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 20, outputBytes: 20_000 };
  const job = { image, argv: ['/bin/sh', '-c', script], limits, trust: 'foreign' as const };
  const result = await executor.run(job, { onLog: ({ bytes }) => said.push(Buffer.from(bytes).toString()) });
  await executor.close();
  const text = said.join('');
  assert.equal(result.reason, 'completed', text);
  assert.match(text, /perl/);
  assert.doesNotMatch(text, /\bgit\b|millrace-job/);
});
