import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { listSnapshots, readSnapshot, removeUnfinishedSnapshots, type SnapshotFile, writeSnapshot } from './snapshot.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'millrace-snapshot-'));
const metaAt = (height: number) => ({ chainId: 5, height, hash: `0x${'ab'.repeat(32)}` as const, warpOffsetSeconds: 9 });

test('the last two snapshots are kept, and the log is needed above the older one', () => {
  const where = folder();
  assert.equal(writeSnapshot(where, metaAt(10), '0x0a'), 0);
  assert.equal(writeSnapshot(where, metaAt(200), '0x14'), 10);
  assert.equal(writeSnapshot(where, metaAt(30_000), '0x1e'), 200);
  assert.deepEqual(
    listSnapshots(where).map(({ height }) => height),
    [30_000, 200],
  );
  const { meta, state } = readSnapshot(listSnapshots(where)[0] as SnapshotFile);
  assert.equal(state, '0x1e');
  assert.deepEqual([meta.height, meta.warpOffsetSeconds, meta.chainId], [30_000, 9, 5]);
});

test('a snapshot with any byte of its state flipped, cut off or exchanged for another height is refused', () => {
  const where = folder();
  writeSnapshot(where, metaAt(10), `0x${'5a'.repeat(300)}`);
  const [file] = listSnapshots(where) as [SnapshotFile];
  const whole = readFileSync(file.path);
  const stateStart = whole.indexOf(10) + 1;
  const refused = (bytes: Buffer) => {
    writeFileSync(file.path, bytes);
    assert.throws(() => readSnapshot(file), { code: 'snapshot-corrupt' });
  };
  fc.assert(
    fc.property(fc.integer({ min: stateStart, max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = Buffer.from(whole);
      damaged[at] = (damaged[at] as number) ^ change;
      refused(damaged);
      refused(whole.subarray(0, at));
    }),
    { numRuns: 30 },
  );
  refused(Buffer.alloc(0));
  writeFileSync(file.path, whole);
  assert.throws(() => readSnapshot({ ...file, height: 11 }), { code: 'snapshot-corrupt' });
});

test('what an interrupted write left is removed and never read', () => {
  const where = folder();
  writeFileSync(join(where, 'snapshot-000000000009.bin.tmp'), 'half');
  assert.deepEqual(listSnapshots(where), []);
  removeUnfinishedSnapshots(where);
  assert.deepEqual(readdirSync(where), []);
});

test('a snapshot that cannot be written is a typed error and leaves nothing', () => {
  const where = folder();
  mkdirSync(join(where, 'snapshot-000000000009.bin'));
  assert.throws(() => writeSnapshot(where, metaAt(9), '0x00'), { code: 'snapshot-failed' });
  assert.deepEqual(readdirSync(where), ['snapshot-000000000009.bin']);
});
