import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BlockRecord, openWal } from './wal.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'millrace-wal-'));
const hashOf = (height: number): `0x${string}` => `0x${String(height).padStart(64, '0')}`;

function block(height: number, transactions: BlockRecord['transactions'] = ['0x1234']): BlockRecord {
  return { height, timestamp: 1_000 + height, coinbase: `0x${'ab'.repeat(20)}`, warpOffsetSeconds: -5, transactions };
}

/** A log of `count` mined blocks, and its only segment. */
async function logOf(count: number): Promise<{ path: string; where: string; ends: number[] }> {
  const where = folder();
  const wal = openWal(where);
  const ends: number[] = [];
  for (let height = 1; height <= count; height += 1) {
    await wal.appendBlock(block(height));
    wal.appendHash(height, hashOf(height));
    ends.push(wal.sizeBytes());
  }
  wal.close();
  return { path: join(where, 'wal-000000000001.log'), where, ends };
}

test('what was appended is there after opening again, with its hashes', async () => {
  const { where } = await logOf(3);
  const wal = openWal(where);
  assert.deepEqual(
    wal.recovered,
    [1, 2, 3].map((height) => ({ ...block(height), hash: hashOf(height) })),
  );
  await wal.appendBlock(block(4, []));
  wal.close();
  assert.equal(openWal(where).recovered[3]?.hash, undefined);
});

test('cut off at any byte, the log holds exactly the whole blocks before it, and can be written on', async () => {
  const { path, where, ends } = await logOf(3);
  const whole = readFileSync(path);
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length), async (cut) => {
      writeFileSync(path, whole.subarray(0, cut));
      const wal = openWal(where);
      const count = wal.recovered.length;
      assert.ok(count >= ends.filter((end) => end <= cut).length && count <= ends.filter((end) => end <= cut).length + 1);
      await wal.appendBlock(block(count + 1));
      wal.close();
      const again = openWal(where);
      again.close();
      assert.equal(again.recovered.length, count + 1);
    }),
  );
});

test('a flipped bit before a block that was mined is told, never cut off', async () => {
  const { path, where } = await logOf(4);
  const whole = readFileSync(path);
  const lastBlockEnd = whole.lastIndexOf('MRW1');
  fc.assert(
    fc.property(fc.nat(lastBlockEnd - 1), fc.integer({ min: 0, max: 7 }), (at, bit) => {
      const damaged = Buffer.from(whole);
      damaged[at] = (damaged[at] as number) ^ (1 << bit);
      writeFileSync(path, damaged);
      assert.throws(() => openWal(where), { code: 'wal-corrupt' });
    }),
  );
});

test('segments are read in order, and those below a snapshot are deleted', async () => {
  const where = folder();
  const wal = openWal(where);
  for (let height = 1; height <= 9; height += 1) {
    if (height % 3 === 1) wal.rotate(height);
    await wal.appendBlock(block(height));
  }
  wal.deleteThrough(5);
  assert.deepEqual(readdirSync(where).sort(), ['wal-000000000004.log', 'wal-000000000007.log']);
  wal.close();
  const again = openWal(where);
  assert.deepEqual(
    again.recovered.map(({ height }) => height),
    [4, 5, 6, 7, 8, 9],
  );
  again.close();
});

test('a segment that is cut off although a later one follows is told', async () => {
  const where = folder();
  const wal = openWal(where);
  await wal.appendBlock(block(1));
  wal.rotate(2);
  await wal.appendBlock(block(2));
  wal.close();
  const path = join(where, 'wal-000000000001.log');
  writeFileSync(path, readFileSync(path).subarray(0, 30));
  assert.throws(() => openWal(where), { code: 'wal-corrupt' });
  writeFileSync(path, '');
  const missing = openWal(where);
  assert.deepEqual(
    missing.recovered.map(({ height }) => height),
    [2],
  );
  missing.close();
});
