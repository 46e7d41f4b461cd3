import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { silentLogger } from '../../log.ts';
import { openCallerKeys } from './caller-keys.ts';
import { createIdempotentAnswers } from './idempotency.ts';
import { openReceiptBook } from './receipt-book.ts';
import { createStreamTail } from './stream-tail.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-keys-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let seconds = 1_000_000;
const open = (name: string) => openCallerKeys(join(folder, name), () => seconds);
const model = 'm';

test('a key is on the disk as a hash only, and is what it was after a restart', async () => {
  const keys = open('restart');
  const { key, id } = await keys.create({ name: 'mill', budget: 1000n, models: ['m'] });
  (await keys.hold(id, { amount: 10n, model })).settle(7n);
  await keys.close();
  assert.ok(!readFileSync(join(folder, 'restart'), 'utf8').includes(key.slice(12)));
  const again = open('restart');
  assert.equal(again.authenticate(key).spent, 7n);
  await assert.rejects(again.hold(id, { amount: 1n, model: 'other' }), { code: 'model-not-allowed' });
  assert.throws(() => again.authenticate(`${key}x`), { code: 'key-unknown' });
  await again.revoke(id);
  assert.throws(() => again.authenticate(key), { code: 'key-unknown' });
  await again.close();
});

test('a budget is never exceeded by requests at the same time, and a crash counts nothing as unspent', async () => {
  const keys = open('crash');
  const { key, id } = await keys.create({ name: 'mill', budget: 100n });
  const holds = await Promise.allSettled(Array.from({ length: 20 }, () => keys.hold(id, { amount: 9n, model })));
  const held = holds.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  assert.equal(held.length, 11);
  for (const one of held) one.settle(3n);
  assert.equal(keys.authenticate(key).spent, 33n);
  // What a crash leaves is the file as it is now.
  const crashed = open('crash');
  assert.ok(crashed.authenticate(key).spent >= 33n);
  await crashed.close();
});

test('a budget begins anew with its period, an expired key ends, and a minute has so many requests', async () => {
  const keys = open('period');
  const { key, id } = await keys.create({
    name: 'mill',
    budget: 10n,
    periodSeconds: 3600,
    requestsPerMinute: 2,
    expiresAt: seconds + 10_000,
  });
  (await keys.hold(id, { amount: 10n, model })).settle(10n);
  await assert.rejects(keys.hold(id, { amount: 1n, model }), { code: 'key-budget-spent' });
  await assert.rejects(keys.hold(id, { amount: 0n, model }), { code: 'key-rate-exceeded' });
  seconds += 3700;
  (await keys.hold(id, { amount: 10n, model })).settle(1n);
  assert.equal(keys.authenticate(key).periodStart, 1_003_600);
  seconds += 7000;
  assert.throws(() => keys.authenticate(key), { code: 'key-expired' });
  await keys.close();
});

test('receipts are found in memory and on the disk, whole lines only', async () => {
  const book = await openReceiptBook(join(folder, 'receipts'), silentLogger);
  const idOf = (index: number) => `0x${index.toString(16).padStart(64, '0')}`;
  for (let index = 0; index < 5000; index += 1) book.add({ id: idOf(index), encoded: `e${index}`, charged: '1', uid: 0 });
  await book.flush();
  assert.equal((await book.find(idOf(4999), false)).encoded, 'e4999');
  assert.equal((await book.find(idOf(0), true)).encoded, 'e0', 'no longer in memory');
  await assert.rejects(book.find(idOf(0), false), { code: 'receipt-unknown' });
  await assert.rejects(book.find(idOf(5000), true), { code: 'receipt-unknown' });
  await book.close();
});

test('an idempotency key gives the same answer again, and refuses another request', () => {
  const answers = createIdempotentAnswers();
  const [one, two] = [`0x${'01'.repeat(32)}`, `0x${'02'.repeat(32)}`] as const;
  assert.equal(answers.begin('a', one), undefined);
  assert.throws(() => answers.begin('a', one), { code: 'idempotent-request-running' });
  const answer = { status: 200, headers: {}, body: 'x' };
  answers.keep('a', answer);
  assert.equal(answers.begin('a', one), answer);
  assert.throws(() => answers.begin('a', two), { code: 'idempotency-key-reused' });
  assert.equal(answers.begin('b', one), undefined);
  answers.drop('b');
  assert.equal(answers.begin('b', two), undefined);
});

test('however a stream is cut into pieces, all of it is handed on, and the receipt and the hash are the same', () => {
  const before = 'data: {"a": ": millrace-receipt no"}\n\n: a comment\n\ndata: x\n\n';
  const bytes = Buffer.from(`${before}: millrace-receipt abc-_1\n\ndata: [DONE]\n\n`);
  const hash = `0x${createHash('sha256').update(before).digest('hex')}`;
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: bytes.length }), { maxLength: 20 }), (cuts) => {
      const tail = createStreamTail();
      const places = [0, ...cuts.toSorted((one, other) => one - other), bytes.length];
      const out = places.slice(1).map((to, index) => tail.feed(bytes.subarray(places[index], to)));
      out.push(tail.rest());
      assert.deepEqual(Buffer.concat(out), bytes);
      assert.equal(tail.receipt(), 'abc-_1');
      assert.equal(tail.hash(), hash);
    }),
  );
});
