import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Hex } from 'viem';
import { type Candidate, CHOICE_LIMITS, chooseSellers } from './choose.ts';
import { CHEAT_REST_MS, openPeerRecords, type PeerOutcome, type PeerRecords } from './peer-records.ts';

const PRICE = 10n ** 15n;
const holderOf = (index: number) => `0x${index.toString(16).padStart(40, '0')}` as Hex;
const limits = { ...CHOICE_LIMITS, pricePerGibMax: 10n * PRICE };

function candidate(index: number, changes: Partial<Candidate> = {}): Candidate {
  return {
    holder: holderOf(index),
    endpoint: `https://10.${index >> 8}.${index & 255}.1:9000`,
    transportKey: `0x${'22'.repeat(32)}`,
    pricePerGib: PRICE,
    chunkBytes: 1n << 20n,
    hasDeal: false,
    reported: { served: 0, failed: 0 },
    ...changes,
  };
}
const outcome = (index: number, changes: Partial<PeerOutcome> = {}): PeerOutcome => ({
  holder: holderOf(index),
  endpoint: 'https://10.0.0.1:9000',
  bytes: 1_000_000,
  milliseconds: 1000,
  paid: 100n,
  lost: 0n,
  failures: 0,
  lied: false,
  ...changes,
});
function withRecords(work: (records: PeerRecords, reopen: () => PeerRecords) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-records-'));
  try {
    const open = () => openPeerRecords(join(folder, 'records.json'), () => 1_000_000);
    work(open(), open);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
const choose = (candidates: Candidate[], records: PeerRecords, nowMs = 1_000_000) =>
  chooseSellers({ candidates, recordOf: records.of, limits, nowMs, random: () => 0.5 });

test('records count whole retrievals, survive, and tell a cheat from a failure', () => {
  withRecords((records, reopen) => {
    records.note([
      outcome(1),
      outcome(2, { bytes: 0, failures: 3 }),
      outcome(3, { lost: 7n, bytes: 0 }),
      outcome(4, { bytes: 0, paid: 0n }),
    ]);
    const again = reopen();
    assert.deepEqual([again.of(holderOf(1))?.served, again.of(holderOf(1))?.failed, again.of(holderOf(1))?.paid], [1, 0, 100n]);
    assert.deepEqual([again.of(holderOf(2))?.failed, again.of(holderOf(2))?.cheated], [1, 0]);
    assert.deepEqual([again.of(holderOf(3))?.cheated, again.of(holderOf(3))?.lost], [1, 7n]);
    assert.equal(again.of(holderOf(4)), undefined, 'it was not asked');
  });
});

test('the cheaper of two equal sellers is first; a worse record outweighs a lower price', () => {
  withRecords((records) => {
    records.note(Array.from({ length: 6 }, () => outcome(1)).concat(Array.from({ length: 6 }, () => outcome(2))));
    const two = [candidate(1, { pricePerGib: 5n * PRICE }), candidate(2, { pricePerGib: 2n * PRICE })];
    assert.equal(choose(two, records).first[0]?.holder, holderOf(2));
    records.note(Array.from({ length: 12 }, () => outcome(2, { bytes: 0, failures: 1 })));
    assert.equal(choose(two, records).first[0]?.holder, holderOf(1));
  });
});

test('whoever cheated once is the last, for a month, whatever it asks', () => {
  withRecords((records) => {
    for (let count = 0; count < 20; count += 1) records.note([outcome(1)]);
    records.note([outcome(1, { lost: 1n })]);
    const all = [candidate(1, { pricePerGib: 0n, hasDeal: true }), ...[2, 3, 4, 5, 6].map((index) => candidate(index, { hasDeal: true }))];
    const { first, reserve } = choose(all, records);
    assert.ok(!first.some(({ holder }) => holder === holderOf(1)));
    assert.equal(reserve.at(-1)?.holder, holderOf(1));
    assert.ok(choose(all, records, 1_000_000 + CHEAT_REST_MS).first.some(({ holder }) => holder === holderOf(1)));
  });
});

test('a hundred sellers that promise all for nothing take one place at once from those who are known, and three in all', () => {
  withRecords((records) => {
    const sybils = Array.from({ length: 100 }, (_, index) =>
      candidate(1000 + index, { pricePerGib: 0n, reported: { served: 1_000_000, failed: 0 } }),
    );
    const honest = [1, 2, 3].map((index) => candidate(index, { hasDeal: true }));
    records.note([outcome(4)]);
    const { first, reserve } = choose([...sybils, ...honest, candidate(4)], records);
    const isSybil = ({ holder }: Candidate) => BigInt(holder) >= 1000n;
    assert.equal(first.filter(isSybil).length, 1);
    assert.equal(first.length, 4);
    assert.equal([...first, ...reserve].filter(isSybil).length, 3);
    assert.deepEqual(
      [...first, ...reserve]
        .filter((each) => !isSybil(each))
        .map(({ holder }) => Number(BigInt(holder)))
        .sort(),
      [1, 2, 3, 4],
    );
  });
});

test('a hundred sellers of one network are one stranger', () => {
  withRecords((records) => {
    const sybils = Array.from({ length: 100 }, (_, index) => candidate(1000 + index, { endpoint: `https://10.9.9.${index + 1}:9000` }));
    const { first, reserve } = choose([...sybils, candidate(1), candidate(2)], records);
    assert.equal([...first, ...reserve].length, 3);
  });
});

test('sellers above the price that the client pays are not asked at all', () => {
  withRecords((records) => {
    const { first, reserve } = choose([candidate(1, { pricePerGib: 11n * PRICE, hasDeal: true }), candidate(2)], records);
    assert.deepEqual(
      [...first, ...reserve].map(({ holder }) => holder),
      [holderOf(2)],
    );
  });
});
