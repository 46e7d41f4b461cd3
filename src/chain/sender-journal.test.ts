import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Hex, keccak256, toHex } from 'viem';
import { type JournalEntry, openSenderJournal } from './sender-journal.ts';

const place = () => join(mkdtempSync(join(tmpdir(), 'millrace-journal-')), 'sender', 'a.ndjson');
const hashOf = (text: string): Hex => keccak256(toHex(text));

/** What a sender may write: each nonce sent (perhaps replaced), then perhaps done or void. */
const histories = fc
  .array(
    fc.record({ versions: fc.integer({ min: 1, max: 3 }), end: fc.constantFrom('done', 'void', 'unused', 'pending'), keyed: fc.boolean() }),
    {
      maxLength: 40,
    },
  )
  .map((steps) =>
    steps.flatMap(({ versions, end, keyed }, nonce): JournalEntry[] => {
      const key = keyed ? `key-${nonce}` : undefined;
      const callHash = hashOf(`call ${nonce}`);
      const sent = Array.from({ length: versions }, (_, index): JournalEntry => {
        const hash = hashOf(`${nonce} ${index}`);
        return { kind: 'sent', nonce, key, callHash, hash, raw: `0x${'ab'.repeat(300)}`, block: nonce };
      });
      if (end === 'done') return [...sent, { kind: 'done', nonce, key, callHash, hash: hashOf(`${nonce} 0`) }];
      return end === 'pending' ? sent : [...sent, { kind: 'void', nonce, used: end === 'void' }];
    }),
  );

test('a journal that is opened again knows what it knew', () => {
  fc.assert(
    fc.property(histories, (entries) => {
      const path = place();
      const journal = openSenderJournal(path);
      for (const entry of entries) journal.append(entry);
      const known = { pending: [...journal.pending], done: [...journal.done], next: journal.nextNonce, raw: [...journal.recentRaw] };
      journal.close();
      const again = openSenderJournal(path);
      assert.deepEqual({ pending: [...again.pending], done: [...again.done], next: again.nextNonce, raw: [...again.recentRaw] }, known);
      again.close();
    }),
    { numRuns: 30 },
  );
});

test('a large journal is compacted and still knows pending transactions, keys and the next nonce', () => {
  const path = place();
  const journal = openSenderJournal(path);
  const raw: Hex = `0x${'ab'.repeat(60_000)}`;
  for (let nonce = 0; nonce < 300; nonce += 1) {
    const entry = { nonce, key: `key-${nonce}`, callHash: hashOf(`call ${nonce}`), hash: hashOf(`${nonce}`) };
    journal.append({ kind: 'sent', ...entry, raw, block: nonce });
    if (nonce < 298) journal.append({ kind: 'done', ...entry });
  }
  journal.close();
  const again = openSenderJournal(path);
  assert.ok(readFileSync(path).length < 8_000_000, `${readFileSync(path).length} bytes`);
  assert.deepEqual([...again.pending.keys()], [298, 299]);
  assert.equal(again.pending.get(299)?.versions[0]?.raw, raw);
  assert.equal(again.done.size, 298);
  assert.equal(again.nextNonce, 300);
  again.append({ kind: 'void', nonce: 299, used: false });
  assert.equal(again.nextNonce, 299);
  again.close();
});

test('a journal that cannot be written says so, as the fault of the host', () => {
  const path = place();
  const journal = openSenderJournal(path);
  journal.append({ kind: 'void', nonce: 0, used: true });
  journal.close();
  assert.throws(() => journal.append({ kind: 'void', nonce: 1, used: true }), { code: 'sender-journal-unwritable', actor: 'host' });
  const again = openSenderJournal(path);
  assert.equal(again.nextNonce, 1);
  again.close();
});
