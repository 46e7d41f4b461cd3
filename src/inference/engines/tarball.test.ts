import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { packTar, type TarEntry } from './tarball.cases.ts';
import { readTarball } from './tarball.ts';

const file = (path: string, text: string): TarEntry => ({ path, body: Buffer.from(text) });
const refuses = (entries: TarEntry[], reason: RegExp, limits = {}) =>
  assert.throws(
    () => readTarball(gzipSync(packTar(entries)), new Set(['package/a']), limits),
    (error: Error & { code: string }) => {
      assert.equal(error.code, 'bad-tarball');
      assert.match(error.message, reason);
      return true;
    },
  );

describe('an npm tarball', () => {
  it('gives the wanted files and no others', () => {
    const archive = gzipSync(packTar([file('package/a', 'one'), file('package/b', 'two'), file('package/c/d', 'x'.repeat(1_000))]));
    const found = readTarball(archive, new Set(['package/a', 'package/c/d', 'package/missing']));
    assert.deepEqual([...found.keys()], ['package/a', 'package/c/d']);
    assert.equal(Buffer.from(found.get('package/a') as Uint8Array).toString(), 'one');
    assert.equal(found.get('package/c/d')?.length, 1_000);
  });

  it('gives files of any content back as they were packed', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 1_500 }), { maxLength: 6 }), (bodies) => {
        const entries = bodies.map((body, at) => ({ path: `package/${at}`, body: Buffer.from(body) }));
        const found = readTarball(gzipSync(packTar(entries)), new Set(entries.map(({ path }) => path)));
        for (const { path, body } of entries) assert.deepEqual(Buffer.from(found.get(path) as Uint8Array), body);
      }),
    );
  });

  it('is refused whole for a path that leads out of it, also where nobody asked for that path', () => {
    for (const path of ['../a', '/etc/passwd', 'package/../../a', 'package//a', 'a\\b'])
      refuses([file('package/a', 'one'), file(path, 'bad')], /holds the path/);
  });

  it('is refused for links and devices', () => {
    for (const type of ['1', '2', '3', '4', '6']) refuses([{ path: 'package/a', body: Buffer.alloc(0), type }], /link or a device/);
  });

  it('is refused when it unpacks to more than the limit, and the rest is not unpacked', () => {
    refuses([{ path: 'package/a', body: Buffer.alloc(1 << 20) }], /unpacks to more/, { unpackedBytesMax: 1 << 16 });
    refuses(
      Array.from({ length: 20 }, (_, at) => file(`package/${at}`, '')),
      /more than 10 entries/,
      { entriesMax: 10 },
    );
  });

  it('is refused when it is cut off or a byte of a header has changed', () => {
    const tar = packTar([file('package/a', 'x'.repeat(600))]);
    const read = (bytes: Uint8Array) => readTarball(bytes, new Set(['package/a']));
    assert.throws(() => read(gzipSync(tar.subarray(0, 700))), { code: 'bad-tarball' });
    assert.throws(() => read(gzipSync(tar).subarray(0, 40)), { code: 'bad-tarball' });
    assert.throws(() => read(Buffer.from('no archive')), { code: 'bad-tarball' });
    for (const at of [0, 100, 124, 150, 156]) {
      const changed = Buffer.from(tar);
      changed[at] = (changed[at] as number) ^ 0x21;
      assert.throws(() => read(gzipSync(changed)), { code: 'bad-tarball' });
    }
  });
});
