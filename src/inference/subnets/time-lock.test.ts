import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { openLocalBeacon, QUICKNET, roundAt, roundTime } from './beacon.ts';
import { openOpinionJournal } from './opinion-journal.ts';
import { beaconPublicKey, isPulse, openSealed, SEAL_BYTES, sealedRound, sealUntil, signRound, unlockKey } from './time-lock.ts';
import { commitmentOf, decodeRow, encodeRow, packOpening, unpackOpening, weighScores } from './weights-row.ts';

const WRAP_KEY = Buffer.alloc(32, 7);
const SECRET = 0x1f2e3d4c5b6a79887766554433221100ffeeddccbbaa99887766554433221n;
const PUBLIC_KEY = beaconPublicKey(SECRET);
const TLOCK_JS =
  'b2fc3b015bbb2338ea6e569c116909d0a5a4e872308129e289176b1dbb6b928b2120f6fc49d0ebb8611759dfcefaaf99123e3929ff792f31f38ce6d05466c716bf3d49b03825fc531efed69f2245c33d39a9514f36ec4864059ec4cfb66b6f672f381c518115823ed3d0b89ef0cf865006b06c264158aac50c1b67fb02a66ba1';

test("drand's quicknet signs as we check: its round 1000", () => {
  // https://api.drand.sh/52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971/public/1000
  const signature = Buffer.from('b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39', 'hex');
  assert.ok(isPulse(QUICKNET.publicKey, 1000n, signature));
  assert.ok(!isPulse(QUICKNET.publicKey, 1001n, signature));
  assert.ok(!isPulse(PUBLIC_KEY, 1000n, signature));
});

test('a key that tlock-js 0.9.0 locked is opened, so the hashes are those of drand', () => {
  // Made with its encryptOnG2RFC9380 for PUBLIC_KEY, round 77 and sixteen bytes 05.
  const locked = Buffer.from(TLOCK_JS, 'hex');
  assert.equal(Buffer.from(unlockKey(locked, signRound(SECRET, 77n))).toString('hex'), '05'.repeat(16));
});

test('what is sealed opens with the pulse of its round and with no other', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 288 }), fc.bigInt({ min: 1n, max: 2n ** 40n }), (payload, round) => {
      const sealed = sealUntil({ publicKey: PUBLIC_KEY, round, payload });
      assert.equal(sealed.length, payload.length + SEAL_BYTES);
      assert.equal(sealedRound(sealed), round);
      assert.deepEqual(Buffer.from(openSealed(sealed, signRound(SECRET, round))), Buffer.from(payload));
      assert.throws(() => openSealed(sealed, signRound(SECRET, round + 1n)), { code: 'broken-seal' });
    }),
    { numRuns: 5 },
  );
});

test('every changed byte and any garbage is a typed error', () => {
  const sealed = sealUntil({ publicKey: PUBLIC_KEY, round: 7n, payload: Buffer.from('weights') });
  const signature = signRound(SECRET, 7n);
  fc.assert(
    fc.property(fc.nat(sealed.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const changed = Uint8Array.from(sealed);
      changed[at] = (changed[at] as number) ^ mask;
      assert.throws(() => openSealed(changed, signature), { code: 'broken-seal' });
    }),
    { numRuns: 12 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.uint8Array({ maxLength: 60 }), (bytes, pulse) => {
      assert.throws(() => openSealed(bytes, pulse), { code: 'broken-seal' });
      assert.ok(!isPulse(PUBLIC_KEY, 1n, pulse));
    }),
    { numRuns: 30 },
  );
  assert.throws(() => sealUntil({ publicKey: new Uint8Array(96), round: 1n, payload: sealed }), { code: 'bad-beacon-key' });
});

test('a round is the first that is due at a time or later', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 33n }),
      fc.integer({ min: 1, max: 3600 }),
      fc.bigInt({ min: 0n, max: 2n ** 34n }),
      (genesis, periodSeconds, time) => {
        const beacon = { genesis, periodSeconds };
        const round = roundAt(beacon, time);
        assert.ok(round >= 1n && roundTime(beacon, round) >= time);
        assert.ok(round === 1n || roundTime(beacon, round - 1n) < time);
      },
    ),
  );
});

test('a local beacon keeps its key and signs no round before its time', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-beacon-'));
  let time = 100n;
  const open = () => openLocalBeacon({ folder, wrapKey: WRAP_KEY, genesis: 100n, periodSeconds: 10, now: async () => time });
  const beacon = open();
  assert.deepEqual(open().declaration, beacon.declaration);
  assert.equal(await beacon.pulse(2n), undefined);
  assert.equal(await beacon.pulse(0n), undefined);
  time = 110n;
  const signature = await beacon.pulse(2n);
  assert.ok(signature !== undefined && isPulse(beacon.declaration.publicKey, 2n, signature));
  assert.equal((await beacon.answer(new Request('http://x/public/3'))).status, 404);
  assert.equal((await beacon.answer(new Request('http://x/public/-1'))).status, 404);
  assert.equal((await beacon.answer(new Request('http://x/public/2', { method: 'POST' }))).status, 404);
  // The key lies there encrypted: the file alone, or another key, opens nothing.
  assert.equal(readFileSync(join(folder, 'beacon.key'), 'utf8').length, 121);
  const options = { folder, wrapKey: Buffer.alloc(32, 8), genesis: 100n, periodSeconds: 10, now: async () => time };
  assert.throws(() => openLocalBeacon(options), { code: 'beacon-key-broken' });
  writeFileSync(join(folder, 'beacon.key'), 'x');
  assert.throws(open, { code: 'beacon-key-broken' });
});

test('scores become a row that the board accepts, and come back', () => {
  const scores = fc.uniqueArray(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.double({ min: 0, max: 1e9, noNaN: true })), {
    selector: ([uid]) => uid,
    maxLength: 100,
  });
  fc.assert(
    fc.property(scores, (list) => {
      const row = weighScores(new Map(list));
      const greatest = Math.max(0, ...list.map(([, score]) => score));
      if (greatest === 0) assert.deepEqual(row, []);
      else assert.deepEqual(decodeRow(Buffer.from(encodeRow(row).slice(2), 'hex')), row);
      for (const [uid, weight] of row) {
        const score = new Map(list).get(uid) as number;
        assert.ok(Math.abs(weight - (score / greatest) * 65_535) <= 0.5);
      }
    }),
  );
  assert.throws(() => weighScores(new Map([[256, 1]])), { code: 'bad-scores' });
  assert.throws(() => weighScores(new Map([[1, Number.NaN]])), { code: 'bad-scores' });
  assert.equal(decodeRow(Buffer.from('0001ffff0001ffff', 'hex')), undefined);
  assert.equal(decodeRow(Buffer.from('0001fffe', 'hex')), undefined);
});

test('salts outlive the process, each with its commitment', () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-opinions-'));
  const place = { chainId: 1, board: `0x${'11'.repeat(20)}` as const, subnetId: 1n, epoch: 3n, uid: 4 };
  const openings = ['22', '33'].map((byte) => ({ salt: `0x${byte.repeat(32)}` as const, row: '0x0000ffff' as const }));
  for (const opening of openings) openOpinionJournal(folder).add(3n, { ...opening, commitment: commitmentOf(place, opening) });
  const journal = openOpinionJournal(folder);
  for (const opening of openings) {
    const found = journal.find(3n, commitmentOf(place, opening));
    assert.deepEqual([found?.salt, found?.row], [opening.salt, opening.row]);
    assert.deepEqual(unpackOpening(packOpening(opening)), opening);
  }
  assert.equal(journal.find(4n, commitmentOf(place, openings[0] as (typeof openings)[0])), undefined);
  journal.forgetBefore(3n);
  assert.deepEqual(journal.epochs(), [3n]);
  journal.forgetBefore(4n);
  assert.deepEqual(journal.epochs(), []);
  writeFileSync(join(folder, '5.json'), '[{"salt":1}]');
  assert.throws(() => journal.find(5n, '0x'), { code: 'opinion-journal-broken' });
});
