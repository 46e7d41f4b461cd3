import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { CarReader, CarWriter } from '@ipld/car';
import fc from 'fast-check';
import type { CID } from 'multiformats/cid';
import { BLOCK_BYTES_MAX, cidOf, RAW } from './block.ts';
import { createCarScanner, encodeCarHeader, encodeSectionPrefix, sectionBytes } from './car.ts';

function ownCar(blocks: Uint8Array[]): Buffer {
  const cids = blocks.map((block) => cidOf(RAW, block));
  const sections = blocks.flatMap((block, index) => [encodeSectionPrefix(cids[index] as CID, block.length), block]);
  return Buffer.concat([encodeCarHeader(cids[0] as CID), ...sections]);
}

function scan(car: Uint8Array, step: number) {
  const found: { cid: string; offset: number; bytes: Buffer }[] = [];
  const scanner = createCarScanner(({ cid, offset, bytes }) => found.push({ cid: cid.toString(), offset, bytes: Buffer.from(bytes) }));
  for (let at = 0; at < car.length; at += step) scanner.write(car.subarray(at, at + step));
  return { root: scanner.finish(), found };
}

test('the CAR that we write is the CAR that @ipld/car writes, and its reader takes it', async () => {
  const blocks = [0, 1, 90, 91, 92, 127, 16_300, 16_348, 70_000, 1 << 20].map((size) => randomBytes(size));
  const car = ownCar(blocks);
  const cids = blocks.map((block) => cidOf(RAW, block));
  const { writer, out } = CarWriter.create(cids.slice(0, 1));
  const chunks: Uint8Array[] = [];
  const collecting = (async () => {
    for await (const chunk of out) chunks.push(chunk);
  })();
  for (const [index, block] of blocks.entries()) await writer.put({ cid: cids[index] as CID, bytes: block });
  await writer.close();
  await collecting;
  assert.deepEqual(car, Buffer.concat(chunks));
  const reader = await CarReader.fromBytes(car);
  assert.equal((await reader.getRoots())[0]?.toString(), cids[0]?.toString());
});

test('scanning finds every block at its offset however the bytes are cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 400 }), { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 700 }),
      (blocks, step) => {
        const car = ownCar(blocks);
        const { root, found } = scan(car, step);
        assert.equal(root.toString(), cidOf(RAW, blocks[0] as Uint8Array).toString());
        assert.equal(found.length, blocks.length);
        for (const [index, { offset, bytes }] of found.entries()) {
          assert.deepEqual(bytes, Buffer.from(blocks[index] as Uint8Array));
          assert.deepEqual(car.subarray(offset, offset + bytes.length), bytes);
        }
      },
    ),
  );
  const large = [randomBytes(1 << 20), randomBytes(BLOCK_BYTES_MAX), randomBytes(5)];
  for (const step of [1000, 65_536, 1 << 20, 8 << 20]) assert.equal(scan(ownCar(large), step).found.length, 3);
});

test('a flipped byte, a cut, a wrong header or a block above the limit is refused with a typed error', () => {
  const car = ownCar([randomBytes(1000), randomBytes(2000)]);
  for (const at of [0, 3, 59, 70, 500, 1200, car.length - 1]) {
    const flipped = Buffer.from(car);
    flipped[at] = (flipped[at] as number) ^ 0x41;
    assert.throws(
      () => scan(flipped, 512),
      (error: { code: string }) => ['bad-car', 'bad-block'].includes(error.code),
    );
  }
  assert.throws(() => scan(car.subarray(0, -1), 512), { code: 'bad-car' });
  assert.throws(() => scan(new Uint8Array(0), 512), { code: 'bad-car' });
  assert.throws(() => scan(randomBytes(5000), 512), { code: 'bad-car' });
  const cid = cidOf(RAW, new Uint8Array());
  const tooLarge = Buffer.concat([encodeCarHeader(cid), encodeSectionPrefix(cid, BLOCK_BYTES_MAX + 1), new Uint8Array(10)]);
  assert.throws(
    () => scan(tooLarge, 64),
    (error: { code: string }) => ['bad-car', 'bad-block'].includes(error.code),
  );
  const endless = Buffer.concat([encodeCarHeader(cid), Buffer.alloc(64, 0xff)]);
  assert.throws(() => scan(endless, 64), { code: 'bad-car' });
});

test('hostile bytes never throw anything but a typed error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, withHeader) => {
      const input = withHeader ? Buffer.concat([encodeCarHeader(cidOf(RAW, new Uint8Array())), bytes]) : bytes;
      try {
        scan(input, 37);
      } catch (error) {
        assert.match((error as { code: string }).code, /^bad-(car|block)$/);
      }
    }),
    { numRuns: 2000 },
  );
});

test('the size of a section is known before its block', () => {
  for (const size of [0, 91, 92, 16_347, 16_348, 2_097_115, 2_097_116]) {
    assert.equal(sectionBytes(size), encodeSectionPrefix(cidOf(RAW, new Uint8Array()), size).length + size);
  }
});
