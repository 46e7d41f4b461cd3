import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { before, test } from 'node:test';
import fc from 'fast-check';
import { createSigner } from '../../chain/index.ts';
import { type BoxKeyPair, boxKeyOf, open, openBytes, seal, sealBytes } from './sealed-box.ts';

const MIB = 1 << 20;
const context = 'job 0x01 input text';
let key: BoxKeyPair;
before(async () => {
  key = await boxKeyOf(createSigner(randomBytes(32)));
});

async function* cut(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function allOf(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

test('an account has one box key, and another account another', async () => {
  const secret = randomBytes(32);
  const [one, again, other] = [createSigner(secret), createSigner(secret), createSigner(randomBytes(32))];
  assert.deepEqual(await boxKeyOf(one), await boxKeyOf(again));
  assert.notEqual((await boxKeyOf(one)).publicKey, (await boxKeyOf(other)).publicKey);
});

test('whatever is sealed is opened again, in whatever parts it travels', async () => {
  const law = fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), fc.integer({ min: 1, max: 500 }), async (bytes, size) => {
    const sealed = Buffer.concat(await allOf(seal(cut(bytes, size), { recipient: key.publicKey, context })));
    assert.deepEqual(Buffer.concat(await allOf(open(cut(sealed, size), { key, context }))), Buffer.from(bytes));
  });
  await fc.assert(law, { numRuns: 30, verbose: 1 });
});

test('a content of several chunks opens, and one that was cut at a chunk, lengthened, or whose chunks changed places does not', async () => {
  const bytes = randomBytes(2 * MIB + 5);
  const parts = await allOf(seal([bytes], { recipient: key.publicKey, context }));
  const [head, first, second, third] = parts as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  assert.equal(parts.length, 4);
  const opened = async (...taken: Uint8Array[]) => openBytes(Buffer.concat(taken), { key, context });
  assert.deepEqual(Buffer.from(await opened(head, first, second, third)), bytes);
  const attacks = [
    [head, first, second],
    [head, second, first, third],
    [head, first, second, third, third],
    [head, first],
    [head],
    [first],
  ];
  for (const taken of attacks) await assert.rejects(opened(...taken), { code: 'box-damaged' });
});

test('no bit of it can change, it opens to its own key and in its own place only', async () => {
  const sealed = await sealBytes(randomBytes(100), { recipient: key.publicKey, context });
  for (let at = 0; at < sealed.length; at += 7) {
    const changed = Uint8Array.from(sealed);
    changed[at] = (changed[at] as number) ^ 1;
    await assert.rejects(openBytes(changed, { key, context }), { code: 'box-damaged' });
  }
  const other = await boxKeyOf(createSigner(randomBytes(32)));
  await assert.rejects(openBytes(sealed, { key: other, context }), { code: 'box-damaged' });
  await assert.rejects(openBytes(sealed, { key, context: 'job 0x02 input text' }), { code: 'box-damaged' });
});

test('a key of another length is refused', async () => {
  await assert.rejects(sealBytes(randomBytes(1), { recipient: '0x1234', context }), { code: 'bad-box-key' });
});
