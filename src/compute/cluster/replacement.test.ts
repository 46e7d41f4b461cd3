import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { MemberList } from './member-list.ts';
import { type ClusterView, decide, type MemberView, QUICK_PATIENCE, rankTakeover } from './replacement.ts';

const cluster = `0x${'ab'.repeat(32)}` as const;

function listOf(count: number, version = 1): MemberList {
  const members = Array.from({ length: count }, (_, index) => ({
    cluster,
    leaseId: String(index + 1),
    seat: index + 1,
    publicKey: '',
    endpoint: '',
    signature: '0x' as const,
    ranks: [index],
  }));
  return { cluster, version, members };
}

const healthy = (seat: number): MemberView => ({
  seat,
  silentMs: 300,
  unheardMs: 400,
  version: 1,
  processes: [{ rank: seat - 1, state: 'running' }],
  isLeaving: false,
});

function viewOf(members: MemberView[], parts: Partial<ClusterView> = {}): ClusterView {
  return { list: listOf(members.length), members, failedMs: undefined, restartsLeft: 3, turn: 0, ...parts };
}

const decideNow = (view: ClusterView) => decide(view, QUICK_PATIENCE);

test('a machine that neither the coordinator nor a peer hears is replaced; one that only the coordinator does not reach is not, for a while', () => {
  const silent = { ...healthy(2), silentMs: 3_000, unheardMs: 3_000 };
  assert.deepEqual(decideNow(viewOf([healthy(1), silent, healthy(3)])), { kind: 'replace', seats: [2] });
  assert.deepEqual(decideNow(viewOf([healthy(1), { ...silent, unheardMs: 200 }, healthy(3)])), { kind: 'wait' });
  assert.deepEqual(decideNow(viewOf([healthy(1), { ...silent, unheardMs: 200, silentMs: 21_000 }, healthy(3)])), {
    kind: 'replace',
    seats: [2],
  });
  assert.deepEqual(decideNow(viewOf([healthy(1), { ...healthy(2), isLeaving: true }])), { kind: 'replace', seats: [2] });
});

test('a coordinator that hears nobody doubts its own network', () => {
  const members = [1, 2, 3].map((seat) => ({ ...healthy(seat), silentMs: 60_000, unheardMs: undefined }));
  assert.deepEqual(decideNow(viewOf(members)), { kind: 'wait' });
});

test('a cluster of one machine is replaced when it is silent', () => {
  assert.deepEqual(decideNow(viewOf([{ ...healthy(1), silentMs: 3_000, unheardMs: undefined }])), { kind: 'replace', seats: [1] });
});

test('a stand-in leaves the first coordinator the time to act', () => {
  const members = [healthy(1), { ...healthy(2), silentMs: 3_000, unheardMs: 3_000 }];
  assert.equal(decideNow(viewOf(members, { turn: 1 })).kind, 'wait');
  const longer = [healthy(1), { ...healthy(2), silentMs: 8_000, unheardMs: 8_000 }];
  assert.equal(decideNow(viewOf(longer, { turn: 1 })).kind, 'replace');
});

test('a machine that runs an older list is given the present one', () => {
  assert.deepEqual(decideNow(viewOf([healthy(1), healthy(2)], { list: listOf(2, 2) })), { kind: 'push', seats: [1, 2] });
});

test('a process that fails is looked at once no machine can be the cause: first a new start, then the end, with its reason', () => {
  const failed: MemberView = {
    ...healthy(2),
    processes: [{ rank: 1, state: 'ended', reason: 'failed', exitCode: 1, detail: 'no memory' }],
  };
  const members = [healthy(1), failed];
  assert.equal(decideNow(viewOf(members, { failedMs: 1_000 })).kind, 'wait');
  assert.equal(decideNow(viewOf(members, { failedMs: 6_000 })).kind, 'restart');
  assert.deepEqual(decideNow(viewOf(members, { failedMs: 6_000, restartsLeft: 0 })), {
    kind: 'fail',
    reason: 'rank 1 ended: failed (no memory)',
  });
});

test('all processes done: finished; one of an older version done: not', () => {
  const done = (seat: number): MemberView => ({ ...healthy(seat), processes: [{ rank: seat - 1, state: 'ended', reason: 'completed' }] });
  assert.equal(decideNow(viewOf([done(1), done(2)])).kind, 'finish');
  assert.equal(decideNow(viewOf([done(1), healthy(2)])).kind, 'wait');
  assert.equal(decideNow(viewOf([done(1), { ...done(2), version: 0 }])).kind, 'push');
});

test('whatever is seen, no machine that was heard lately is replaced, and a finished or failed cluster has reported processes', () => {
  const anyView = fc.array(
    fc.record({
      silentMs: fc.integer({ min: 0, max: 30_000 }),
      unheardMs: fc.option(fc.integer({ min: 0, max: 30_000 }), { nil: undefined }),
      version: fc.integer({ min: 0, max: 1 }),
      state: fc.constantFrom<'idle' | 'running' | 'ended'>('idle', 'running', 'ended'),
      reason: fc.constantFrom<'completed' | 'failed' | 'memory-exceeded'>('completed', 'failed', 'memory-exceeded'),
    }),
    { minLength: 1, maxLength: 6 },
  );
  const turns = fc.integer({ min: 0, max: 2 });
  fc.assert(
    fc.property(anyView, fc.option(fc.nat(20_000), { nil: undefined }), fc.nat(2), turns, (seen, failedMs, restartsLeft, turn) => {
      const members: MemberView[] = seen.map(({ silentMs, unheardMs, version, state, reason }, index) => ({
        seat: index + 1,
        silentMs,
        unheardMs,
        version,
        processes: [{ rank: index, state, ...(state === 'ended' ? { reason } : {}) }],
        isLeaving: false,
      }));
      const decision = decideNow(viewOf(members, { failedMs, restartsLeft, turn }));
      if (decision.kind === 'replace') {
        const replaced = members.filter(({ seat }) => decision.seats.includes(seat));
        for (const { silentMs, unheardMs } of replaced) {
          assert.ok(silentMs >= QUICK_PATIENCE.lostMs);
          assert.ok((unheardMs ?? Number.POSITIVE_INFINITY) >= QUICK_PATIENCE.lostMs || silentMs >= QUICK_PATIENCE.unreachableMs);
        }
        if (members.length > 1) assert.ok(replaced.length < members.length, 'not all at once');
      }
      if (decision.kind === 'finish') assert.ok(members.every(({ processes }) => processes[0]?.reason === 'completed'));
      if (decision.kind === 'fail') assert.ok(restartsLeft === 0 && members.some(({ processes }) => processes[0]?.state === 'ended'));
    }),
  );
});

test('a machine that is lost leaves its ranks; those that stay keep theirs', () => {
  const { keep, freed } = rankTakeover(listOf(4), [2, 3]);
  assert.deepEqual(
    keep.map(({ seat, ranks }) => [seat, ranks]),
    [
      [1, [0]],
      [4, [3]],
    ],
  );
  assert.deepEqual(freed, [[1], [2]]);
});
