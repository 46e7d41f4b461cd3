import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { compareAge, isCheckpointName, listCheckpoints, pruneCheckpoints, readCheckpoint, takeCheckpoint } from './checkpoints.ts';

const folders: string[] = [];
const newFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-checkpoints-'));
  folders.push(folder);
  return folder;
};
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

async function* bytesOf(...pieces: string[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) yield Buffer.from(piece);
}

test('the number at the end of a name tells the age, and names that no program would mean are passed over', async () => {
  const folder = newFolder();
  for (const name of ['step-9.pt', 'step-10.pt', 'notes', '.step-11.pt', 'step-12.pt.tmp', 'step-13.part'])
    writeFileSync(join(folder, name), name);
  symlinkSync('/etc/passwd', join(folder, 'step-99.pt'));
  assert.deepEqual(await listCheckpoints(folder), ['step-9.pt', 'step-10.pt']);
  for (const name of ['../1', '1/2', '', '.1', 'x'.repeat(300), 'a\n1', 'none']) assert.ok(!isCheckpointName(name), name);
});

test('age is a total order', () => {
  const name = fc.stringMatching(/^[a-z0-9._-]{0,12}\d{1,8}[a-z.]{0,4}$/);
  fc.assert(
    fc.property(name, name, name, (one, two, three) => {
      assert.equal(Math.sign(compareAge(one, two)), -Math.sign(compareAge(two, one)));
      if (compareAge(one, two) <= 0 && compareAge(two, three) <= 0) assert.ok(compareAge(one, three) <= 0);
    }),
  );
});

test('a checkpoint goes from one machine to another whole, under its content’s address', async () => {
  const [from, to] = [newFolder(), newFolder()];
  writeFileSync(join(from, 'step-1'), 'weights');
  const checkpoint = await readCheckpoint(from, 'step-1');
  assert.deepEqual([checkpoint?.name, checkpoint?.sizeBytes], ['step-1', 7]);
  assert.ok(checkpoint !== undefined);
  await takeCheckpoint(to, checkpoint, bytesOf('wei', 'ghts'));
  assert.equal(readFileSync(join(to, 'step-1'), 'utf8'), 'weights');
  assert.deepEqual(await readCheckpoint(to, 'step-1'), checkpoint);
  writeFileSync(join(from, 'empty-2'), '');
  assert.equal((await readCheckpoint(from, 'empty-2'))?.sizeBytes, 0);
});

test('other bytes, fewer or more than promised leave nothing behind', async () => {
  const [from, to] = [newFolder(), newFolder()];
  writeFileSync(join(from, 'step-1'), 'weights');
  const checkpoint = await readCheckpoint(from, 'step-1');
  assert.ok(checkpoint !== undefined);
  for (const pieces of [['weighty'], ['wei'], ['weights', '!']]) {
    await assert.rejects(takeCheckpoint(to, checkpoint, bytesOf(...pieces)), { code: 'checkpoint-broken' });
  }
  assert.deepEqual(readdirSync(to), []);
});

test('a link is not read as a checkpoint, and only the newest two stay', async () => {
  const folder = newFolder();
  symlinkSync('/etc/passwd', join(folder, 'step-5'));
  assert.equal(await readCheckpoint(folder, 'step-5'), undefined);
  assert.equal(await readCheckpoint(folder, 'step-6'), undefined);
  for (const step of [1, 2, 3, 4]) writeFileSync(join(folder, `step-${step}`), String(step));
  await pruneCheckpoints(folder);
  assert.deepEqual(await listCheckpoints(folder), ['step-3', 'step-4']);
});
