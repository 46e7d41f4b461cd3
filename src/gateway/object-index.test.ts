import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { MillraceError } from '../errors.ts';
import { type IndexChange, openObjectIndex, parseExportedIndex, type StoredObject } from './object-index.ts';
import { nextBundle, PACKING_RULES } from './object-publisher.ts';
import { openRecordJournal } from './record-journal.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-index-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;
const fresh = () => join(folder, `index-${count++}`);

function object(dataId: string): StoredObject {
  return { dataId, sizeBytes: 1, etag: dataId, modifiedAtMs: 1, contentType: 'a/b', others: {} };
}

const BUCKET: IndexChange = { op: 'bucket', bucket: { name: 'one', isPublic: false, createdAtMs: 1 } };

test('a journal cut at any byte gives all that was acknowledged before, and goes on', async () => {
  const path = fresh();
  const journal = openRecordJournal(path, () => {});
  const ends: number[] = [];
  for (let i = 0; i < 12; i += 1) {
    await journal.append({ i, text: 'ü'.repeat(i) });
    ends.push(readFileSync(path).length);
  }
  await journal.close();
  const whole = readFileSync(path);
  for (let cut = 0; cut <= whole.length; cut += 1) {
    writeFileSync(path, whole);
    truncateSync(path, cut);
    const seen: unknown[] = [];
    const opened = openRecordJournal(path, (record) => seen.push(record));
    assert.equal(seen.length, ends.filter((end) => end <= cut).length);
    await opened.append('more');
    await opened.close();
    const again: unknown[] = [];
    await openRecordJournal(path, (record) => again.push(record)).close();
    assert.deepEqual(again, [...seen, 'more']);
  }
});

test('a byte that the disk changed before the end is an error, not a silent loss', async () => {
  const path = fresh();
  const journal = openRecordJournal(path, () => {});
  for (let i = 0; i < 5; i += 1) await journal.append({ i });
  await journal.close();
  const bytes = readFileSync(path);
  bytes[12] = (bytes[12] as number) ^ 1;
  writeFileSync(path, bytes);
  assert.throws(
    () => openRecordJournal(path, () => {}),
    (error) => error instanceof MillraceError && error.code === 'journal-damaged',
  );
});

test('whatever was put, copied and deleted, a reopened index has the same objects in order and knows which data are used', async () => {
  const key = fc.constantFrom('a', 'a/b', 'a/c', 'b', 'é', '\uffff', '\u{1f600}', 'a/b/c');
  const step = fc.record({ key, data: fc.option(fc.constantFrom('d1', 'd2', 'd3')) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const path = fresh();
      const index = openObjectIndex(path);
      await index.change([BUCKET]);
      const model = new Map<string, string>();
      for (const { key, data } of steps) {
        if (data === null) model.delete(key);
        else model.set(key, data);
        const change: IndexChange =
          data === null ? { op: 'object-gone', bucket: 'one', key } : { op: 'object', bucket: 'one', key, object: object(data) };
        await index.change([change]);
      }
      const expected = [...model.keys()].sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
      await index.close();
      const reopened = openObjectIndex(path);
      for (const each of [index, reopened]) {
        assert.deepEqual([...each.keysFrom('one', '')], expected);
        for (const data of ['d1', 'd2', 'd3']) assert.equal(each.isUsed(data), [...model.values()].includes(data));
      }
      await reopened.close();
    }),
    { numRuns: 40 },
  );
});

test('an exported index holds what is on the network, and what is not is counted', async () => {
  const index = openObjectIndex(fresh());
  const put = (key: string, dataId: string): IndexChange => ({ op: 'object', bucket: 'one', key, object: object(dataId) });
  await index.change([BUCKET, put('stored', 'd1'), put('staged', 'd2')]);
  await index.change([
    { op: 'bundle', bundle: { bundleId: 'b', isPublic: false, names: { d1: 'd1.txt' }, state: 'stored', cid: 'bafy', dealIds: ['1'] } },
  ]);
  const { text, objects, left } = index.exportText();
  assert.deepEqual({ objects, left }, { objects: 1, left: 1 });
  const restored = openObjectIndex(fresh());
  await restored.change(parseExportedIndex(text));
  assert.deepEqual([...restored.keysFrom('one', '')], ['stored']);
  assert.equal(restored.bundleOf('d1')?.cid, 'bafy');
  assert.throws(() => parseExportedIndex(text.replace('stored', 'stolen')), MillraceError);
  await Promise.all([index.close(), restored.close()]);
});

test('small objects are packed together, large ones alone, public ones never with sealed ones', () => {
  const waiting = (count: number, sizeBytes: number, isPublic = false, sinceMs = 0) =>
    Array.from({ length: count }, (_, i) => ({ dataId: `${isPublic}${sizeBytes}-${i}`, key: 'x.TXT', sizeBytes, isPublic, sinceMs }));
  const next = (list: ReturnType<typeof waiting>, nowMs: number) =>
    nextBundle(list, { rules: PACKING_RULES, nowMs, isUrgent: () => false, isUsed: () => true });
  assert.equal(next(waiting(10, 100), 1000), undefined, 'more may come');
  assert.equal(Object.keys(next(waiting(10, 100), 5000)?.names ?? {}).length, 10);
  assert.equal(Object.keys(next(waiting(1500, 100), 0)?.names ?? {}).length, 1000);
  assert.equal(Object.keys(next(waiting(3, 200 << 20), 0)?.names ?? {}).length, 1);
  const mixed = next([...waiting(3, 5), ...waiting(3, 6, true)], 5000);
  assert.equal(mixed?.isPublic, false);
  assert.equal(Object.keys(mixed?.names ?? {}).length, 3);
  assert.match(Object.values(mixed?.names ?? {})[0] ?? '', /\.txt$/);
});
