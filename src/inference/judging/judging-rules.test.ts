import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { findCopies, meansSomething } from './copied-answers.ts';
import { calibrateThreshold } from './fingerprint.ts';
import { groupByOwner, shareWithinGroups } from './identities.ts';
import { emptyRecord, type MinerRecord, scoreMiner } from './miner-score.ts';
import { DEFAULT_SERVING_LIMITS, judgeServing, percentile, type ServingSample } from './serving-gates.ts';
import { inflationOf } from './token-recount.ts';
import { DEFAULT_JUDGING_RULES } from './validator.ts';
import { smoothScores } from './weights.ts';

const limits = { ...DEFAULT_SERVING_LIMITS, successMin: 990_000, ttftMsMax: 500, samplesMin: 10 };
const samples = (ok: number, failed: number, ttftMs = 100): ServingSample[] => [
  ...Array.from({ length: ok }, () => ({ outcome: 'ok' as const, ttftMs })),
  ...Array.from({ length: failed }, () => ({ outcome: 'failed' as const })),
];

test('availability and latency are judged exactly, from a least number of samples on; what is unproven never punishes', () => {
  assert.equal(judgeServing(samples(99, 1), limits).verdict, 'passed');
  assert.equal(judgeServing(samples(98, 2), limits).success, 'failed');
  assert.equal(judgeServing(samples(0, 9), limits).verdict, 'unproven');
  assert.equal(judgeServing(samples(0, 10), limits).verdict, 'failed');
  assert.equal(judgeServing([...samples(20, 0), ...samples(1, 0, 900)], limits).ttft, 'failed');
  assert.equal(judgeServing([...samples(100, 0), ...samples(1, 0, 900)], limits).ttft, 'passed');
  const excused = Array.from({ length: 50 }, () => ({ outcome: 'excused' as const }));
  assert.equal(judgeServing([...samples(10, 0), ...excused], limits).verdict, 'passed');
  assert.equal(judgeServing(excused, limits).verdict, 'unproven');
});

test('a percentile is one of the values, rises with the share and does not know the order', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1000), { minLength: 1 }), fc.nat(1_000_000), fc.nat(1_000_000), (values, one, other) => {
      const [low, high] = [Math.min(one, other), Math.max(one, other)];
      assert.ok(values.includes(percentile(values, low) as number));
      assert.ok((percentile(values, low) as number) <= (percentile(values, high) as number));
      assert.equal(percentile([...values].reverse(), high), percentile(values, high));
      assert.equal(percentile(values, 1_000_000), Math.max(...values));
    }),
    { numRuns: 60 },
  );
});

test('more uids of one owner earn no more together than the best of them alone', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ owner: fc.nat(5), machine: fc.nat(5), score: fc.bigInt({ min: 0n, max: 10n ** 18n }) }), { maxLength: 20 }),
      (list) => {
        const seats = list.map(({ owner, machine }, uid) => ({ uid, marks: [`owner ${owner}`, `machine ${machine}`] }));
        const groups = groupByOwner(seats);
        assert.deepEqual(
          groups.flat().sort((a, b) => a - b),
          seats.map(({ uid }) => uid),
        );
        const scores = new Map(list.map(({ score }, uid) => [uid, score]));
        const shared = shareWithinGroups(scores, groups);
        for (const uids of groups) {
          const sum = uids.reduce((total, uid) => total + (shared.get(uid) as bigint), 0n);
          assert.ok(uids.every((uid) => uids.some((other) => (scores.get(other) as bigint) >= sum) || (scores.get(uid) as bigint) >= sum));
        }
        for (const one of seats) {
          for (const other of seats) {
            const isOne = one.marks.some((mark) => other.marks.includes(mark));
            if (isOne) assert.ok(groups.some((uids) => uids.includes(one.uid) && uids.includes(other.uid)));
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('smoothing moves scores towards what is, forgets who is gone, and shows no patience with who was caught', () => {
  const before = new Map([
    [1, 1000n],
    [2, 1000n],
    [3, 1000n],
  ]);
  const now = new Map([
    [1, 0n],
    [2, 0n],
    [4, 1000n],
  ]);
  const smoothed = smoothScores(before, now, { speed: 300_000, reset: new Set([2]) });
  assert.deepEqual(
    [...smoothed],
    [
      [1, 700n],
      [2, 0n],
      [4, 300n],
    ],
  );
});

test('who passes questions on gives the same long answers and is the slower one; short answers and few of them say nothing', () => {
  const text = 'x'.repeat(80);
  const answers = Array.from({ length: 12 }, (_, index) => [
    { question: `q${index}`, uid: 1, digest: `${text}${index}`, length: 80, ttftMs: 100 + (index % 3) * 40 },
    { question: `q${index}`, uid: 2, digest: `${text}${index}`, length: 80, ttftMs: 190 + (index % 3) * 40 },
    { question: `q${index}`, uid: 3, digest: `own ${index}`, length: 80, ttftMs: 90 },
    { question: `q${index}`, uid: 4, digest: 'yes', length: 3, ttftMs: 90 },
  ]).flat();
  assert.deepEqual(findCopies(answers), [{ uids: [1, 2], same: 12, copiers: [2] }]);
  assert.deepEqual(findCopies(answers.slice(0, 12)), []);
  const even = answers.map((answer, index) => ({ ...answer, ttftMs: index }));
  assert.deepEqual(
    findCopies(even.map((answer, index) => ({ ...answer, ttftMs: index % 8 < 4 ? answer.uid : -answer.uid })))[0]?.copiers,
    [],
  );
  assert.equal(meansSomething({ determinism: 'exact' }, { temperature: 1 }), false);
  assert.equal(meansSomething({ determinism: 'none' }, { temperature: 0 }), false);
  assert.equal(meansSomething({ determinism: 'none' }, {}), true);
});

test('a fingerprint is calibrated from honest answers; where these differ too much nobody is judged by it', () => {
  assert.equal(calibrateThreshold([1, 2, 3]), undefined);
  assert.equal(calibrateThreshold(Array.from({ length: 20 }, () => 0)), 2_000);
  assert.equal(calibrateThreshold(Array.from({ length: 20 }, () => 30_000)), 60_000);
  assert.equal(calibrateThreshold(Array.from({ length: 20 }, () => 300_000)), undefined);
});

test('counts of tokens are held against the tokenizer, and without it against what is possible', () => {
  const byBytes = (text: string) => Buffer.byteLength(text);
  assert.equal(inflationOf({ claimed: 100, text: 'a'.repeat(100), count: byBytes }), 0);
  assert.equal(inflationOf({ claimed: 106, text: 'a'.repeat(100), count: byBytes }), 0);
  assert.equal(inflationOf({ claimed: 130, text: 'a'.repeat(100), count: byBytes }), 24);
  assert.equal(inflationOf({ claimed: 60, text: 'a'.repeat(100), count: (text) => text.length / 4 }), 31);
  assert.equal(inflationOf({ claimed: 60, text: 'a'.repeat(100), count: undefined }), 0);
});

test('users’ requests that are run again can lower a score and never lift it; enough refuted ones convict', () => {
  const outcome = fc.constantFrom('confirmed', 'refuted', 'unproven');
  const reason = fc.constantFrom('same-output', 'unlike-bits', 'other-output');
  const verdicts = fc.array(fc.record({ outcome, reason }), { maxLength: 30 }) as fc.Arbitrary<MinerRecord['verdicts']>;
  const score = (own: MinerRecord['verdicts'], users: MinerRecord['verdicts'], qualities: number[] = []) =>
    scoreMiner(
      { ...emptyRecord(), qualities, verdicts: [...own, ...users.map((one) => ({ ...one, isUsers: true }))] },
      DEFAULT_JUDGING_RULES,
    );
  fc.assert(
    fc.property(verdicts, verdicts, fc.array(fc.nat(1_000_000), { maxLength: 8 }), (own, users, qualities) => {
      const alone = score(own, [], qualities);
      assert.ok(score(own, users, qualities).quality <= alone.quality);
      const good = users.map((one) => ({ ...one, outcome: 'confirmed' as const }));
      assert.equal(score(own, good, qualities).quality, alone.quality);
      assert.equal(score(own, good, qualities).isCaught, alone.isCaught);
    }),
    { numRuns: 200 },
  );
  const refuted = Array.from({ length: 2 }, () => ({ outcome: 'refuted' as const, reason: 'other-output' }));
  assert.deepEqual([score([], refuted).isCaught, score([], refuted).quality], [true, 0]);
});
