import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { deriveShareKey } from './key-wrap.ts';
import { createHeader, fileKeyFor, newFileKey, openContainer, parseHeader, type SealedHeader, sealedSize } from './seal.ts';

const CHUNK = (1 << 18) - 16;

async function sealAll(plain: Uint8Array, recipients: Uint8Array[] = []) {
  const fileKey = newFileKey();
  const header = await createHeader({ fileKey, recipients });
  const container = openContainer({ header, fileKey, plainBytes: plain.length });
  const parts: Buffer[] = [Buffer.from(header.bytes)];
  for (let i = 0; i < container.chunks; i += 1) parts.push(...container.seal(i, plain.subarray(i * CHUNK, (i + 1) * CHUNK)));
  return { fileKey, header, container, sealed: Buffer.concat(parts) };
}

function openAll(sealed: Uint8Array, fileKey: Uint8Array): Buffer {
  const container = openContainer({ header: parseHeader(sealed), fileKey, sealedBytes: sealed.length });
  return Buffer.concat(
    Array.from({ length: container.chunks }, (_, i) => {
      const { start, end } = container.rangeOf(i);
      return container.open(i, sealed.subarray(start, end));
    }),
  );
}

test('what was sealed opens again, for every size around a chunk', async () => {
  for (const size of [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17]) {
    const plain = randomBytes(size);
    const { fileKey, header, container, sealed } = await sealAll(plain);
    assert.equal(sealed.length, sealedSize(header, size));
    assert.equal(container.sealedBytes, sealed.length);
    assert.deepEqual(openAll(sealed, fileKey), plain);
  }
});

test('a chunk can be opened alone, at random', async () => {
  const plain = randomBytes(5 * CHUNK + 1234);
  const { fileKey, sealed } = await sealAll(plain);
  const container = openContainer({ header: parseHeader(sealed), fileKey, sealedBytes: sealed.length });
  for (const i of [5, 0, 3]) {
    const { start, end } = container.rangeOf(i);
    assert.deepEqual(container.open(i, sealed.subarray(start, end)), plain.subarray(i * CHUNK, (i + 1) * CHUNK));
  }
});

test('a flipped byte anywhere is refused', async () => {
  const { fileKey, sealed } = await sealAll(randomBytes(CHUNK + 100), [(await deriveShareKey(randomBytes(32))).publicKey]);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: sealed.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const flipped = Buffer.from(sealed);
      flipped[at] = (flipped[at] as number) ^ change;
      assert.throws(
        () => openAll(flipped, fileKey),
        (error: { code: string }) => ['container-damaged', 'wrong-file-key', 'container-version-unknown'].includes(error.code),
      );
    }),
    {
      numRuns: 60,
      examples: [
        [0, 1],
        [8, 1],
        [10, 1],
        [11, 1],
        [12, 1],
        [44, 1],
        [76, 1],
        [200, 1],
        [sealed.length - 1, 1],
      ],
    },
  );
});

test('truncated, reordered, duplicated and dropped chunks are refused', async () => {
  const { fileKey, header, sealed } = await sealAll(randomBytes(3 * CHUNK + 50));
  const head = header.bytes.length;
  const chunk = (i: number) => sealed.subarray(head + i * (1 << 18), head + (i + 1) * (1 << 18));
  const start = sealed.subarray(0, head);
  const forged = {
    'cut in a chunk': sealed.subarray(0, -1),
    'cut at a chunk': sealed.subarray(0, head + 3 * (1 << 18)),
    'cut to the header': start,
    reordered: Buffer.concat([start, chunk(1), chunk(0), chunk(2), chunk(3)]),
    duplicated: Buffer.concat([start, chunk(0), chunk(0), chunk(1), chunk(2), chunk(3)]),
    dropped: Buffer.concat([start, chunk(0), chunk(2), chunk(3)]),
    extended: Buffer.concat([sealed, Buffer.alloc(40)]),
  };
  for (const [what, bytes] of Object.entries(forged)) assert.throws(() => openAll(bytes, fileKey), { code: 'container-damaged' }, what);
});

test('a wrong key is refused by its commitment, before any chunk is opened', async () => {
  const { sealed } = await sealAll(randomBytes(100));
  assert.throws(() => openAll(sealed, newFileKey()), { code: 'wrong-file-key', actor: 'caller' });
  assert.throws(() => openAll(sealed, new Uint8Array(31)), { code: 'wrong-file-key' });
});

test('a chunk of another container is refused even under the same file key', async () => {
  const fileKey = newFileKey();
  const containers = await Promise.all(
    [0, 1].map(async () => openContainer({ header: await createHeader({ fileKey, recipients: [] }), fileKey, plainBytes: 10 })),
  );
  const sealed = Buffer.concat(containers[0]?.seal(0, randomBytes(10)) ?? []);
  assert.throws(() => containers[1]?.open(0, sealed), { code: 'container-damaged' });
});

test('each of several recipients finds the file key, nobody else does, and a wrap moved to another header is useless', async () => {
  const keys = await Promise.all([1, 2, 3].map(() => deriveShareKey(randomBytes(32))));
  const { fileKey, sealed } = await sealAll(
    randomBytes(10),
    keys.slice(0, 2).map((key) => key.publicKey),
  );
  const header = parseHeader(sealed);
  assert.deepEqual(Buffer.from((await fileKeyFor(header, keys[0] as never)) as Uint8Array), Buffer.from(fileKey));
  assert.deepEqual(Buffer.from((await fileKeyFor(header, keys[1] as never)) as Uint8Array), Buffer.from(fileKey));
  assert.equal(await fileKeyFor(header, keys[2] as never), undefined);
  const other = (await sealAll(randomBytes(10))).header;
  const moved: SealedHeader = { ...other, wraps: header.wraps };
  assert.equal(await fileKeyFor(moved, keys[0] as never), undefined);
});

test('a header with hostile fields is refused', async () => {
  const { sealed } = await sealAll(randomBytes(10));
  const withByte = (at: number, value: number) => {
    const bytes = Buffer.from(sealed);
    bytes[at] = value;
    return bytes;
  };
  assert.throws(() => parseHeader(withByte(8, 9)), { code: 'container-version-unknown' });
  for (const bytes of [withByte(10, 60), withByte(11, 255), sealed.subarray(0, 40), new Uint8Array(0)]) {
    assert.throws(() => parseHeader(bytes), { code: 'container-damaged' });
  }
  await assert.rejects(createHeader({ fileKey: newFileKey(), recipients: new Array(17).fill(new Uint8Array(32)) }), {
    code: 'too-many-recipients',
  });
});
