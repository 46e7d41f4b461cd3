import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Hex } from 'viem';
import type { Resources } from '../capacity.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import type { JobRecord } from './job-records.ts';
import { createJobRoom } from './job-room.ts';
import { type DueWork, endsInOrder, hasTimeFor, inOrder, withTurn } from './machine-plan.ts';

const CPUS = 4;
const of = (cpus: number, processes = 1): Resources => ({ cpus, memoryBytes: 0, diskBytes: 0, processes });
const idle = { total: of(CPUS, 8), free: of(CPUS, 8), running: [] };
const work = (cpus: number, wallSeconds: number, dueAt = 1_000): DueWork => ({ resources: of(cpus), wallSeconds, dueAt });

test('work ends when what comes before it has made room; what has no room ever, and what comes behind it, never ends', () => {
  assert.deepEqual(endsInOrder([work(4, 60), work(2, 10), work(2, 20), work(4, 5)], idle, 100), [160, 170, 180, 185]);
  const forks = { resources: of(0.1, 9), wallSeconds: 1, dueAt: 1_000 };
  assert.deepEqual(endsInOrder([work(1, 1), forks, work(1, 1)], idle, 0), [1, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
  const leased = { ...idle, free: of(1, 8) };
  assert.deepEqual(endsInOrder([work(2, 1)], leased, 0), [Number.POSITIVE_INFINITY]);
});

test('work that takes less than it may makes nothing end later', () => {
  const list = fc.array(fc.record({ cpus: fc.integer({ min: 1, max: CPUS }), wall: fc.integer({ min: 1, max: 20 }), saved: fc.nat(19) }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(list, (all) => {
      const planned = endsInOrder(
        all.map(({ cpus, wall }) => work(cpus, wall)),
        idle,
        0,
      );
      const real = endsInOrder(
        all.map(({ cpus, wall, saved }) => work(cpus, Math.max(1, wall - saved))),
        idle,
        0,
      );
      assert.ok(real.every((end, index) => end <= (planned[index] as number)));
    }),
  );
});

test('whatever is ordered, and however long it really takes, what was taken is done before it is due', () => {
  const order = fc.record({
    at: fc.nat(40),
    cpus: fc.integer({ min: 1, max: CPUS }),
    wall: fc.integer({ min: 1, max: 20 }),
    slack: fc.nat(40),
    real: fc.integer({ min: 1, max: 20 }),
  });
  let taken = 0;
  fc.assert(
    fc.property(fc.array(order, { minLength: 1, maxLength: 25 }), (orders) => {
      const waiting: (DueWork & { real: number })[] = [];
      const running: { resources: Resources; endsBy: number; endsAt: number; dueAt: number }[] = [];
      for (let now = 0; now < 41 || waiting.length + running.length > 0; now += 1) {
        for (const one of running.filter(({ endsAt }) => endsAt <= now)) running.splice(running.indexOf(one), 1);
        const machine = () => {
          const used = running.reduce((sum, { resources }) => sum + resources.cpus, 0);
          assert.ok(used <= CPUS);
          return { total: idle.total, free: of(CPUS - used, 8 - running.length), running };
        };
        for (const { cpus, wall, slack, real } of orders.filter(({ at }) => at === now)) {
          const more = { ...work(cpus, wall, now + wall + slack), real: Math.min(real, wall) };
          if (!hasTimeFor(more, { work: waiting, machine: machine(), now })) continue;
          waiting.push(more);
          taken += 1;
        }
        for (const one of withTurn(inOrder(waiting), machine(), now)) {
          waiting.splice(waiting.indexOf(one), 1);
          assert.ok(now + one.real <= one.dueAt, `done at ${now + one.real}, due at ${one.dueAt}`);
          running.push({ resources: one.resources, endsBy: now + one.wallSeconds, endsAt: now + one.real, dueAt: one.dueAt });
        }
        assert.ok(
          waiting.every(({ dueAt }) => dueAt > now),
          'one is late',
        );
      }
    }),
  );
  assert.ok(taken > 0);
});

test('work passes what has no room yet only where nothing that waits is late by it', () => {
  const machine = { total: idle.total, free: of(2, 7), running: [{ resources: of(2), endsBy: 10 }] };
  const [first, second] = [work(3, 5, 16), work(4, 10, 26)];
  // It would run beside the first one, in the way of the second.
  assert.deepEqual(withTurn([first, second, work(1, 100)], machine, 0), []);
  const short = work(1, 15);
  assert.deepEqual(withTurn([first, second, short], machine, 0), [short]);
});

/** A whole-machine job of 15 s, due 25 s after its opening. */
const WHOLE = {
  determinism: 'none',
  limits: { milliCpus: CPUS * 1000, memoryBytes: 0, diskBytes: 0, processes: 1, wallSeconds: 15 },
} as JobSpec;

function roomOf(records: JobRecord[], waiting: DueWork[]) {
  const runs = { machine: () => idle, waiting: () => waiting.map((one) => ({ ...one, record: {} as JobRecord })) };
  return createJobRoom({ records: { all: () => records, spec: () => WHOLE, save() {} }, runs, isReady: () => true, commitSeconds: 5 });
}

test('of six whole-machine jobs that come at once one is opened, and those that cannot be in time are not taken', () => {
  const record = (index: number) =>
    ({ jobId: `0x${index}` as Hex, status: 'agreed', terms: { runSeconds: 25, openUntil: 1_010 } }) as JobRecord;
  const records = Array.from({ length: 6 }, (_, index) => record(index));
  const twin = roomOf(records.slice(0, 1), []);
  assert.deepEqual([...twin.openable(1_000)], ['0x0']);
  twin.require(WHOLE, 35, 1_000);
  assert.throws(() => twin.require(WHOLE, 25, 1_000), { code: 'no-room-in-time', values: { roomAt: 1_010, now: 1_000 } });
  const attacked = roomOf(records, []);
  assert.deepEqual([...attacked.openable(1_000)], ['0x0']);
  assert.deepEqual(
    records.map(({ status }) => status),
    ['agreed', 'failed', 'failed', 'failed', 'failed', 'failed'],
    'there is room again at 1010, when their signatures are over',
  );
  roomOf([], [{ ...work(1, 15), dueAt: 1_020 }]).require(WHOLE, 35, 1_000);
  assert.throws(() => roomOf([], [{ ...work(1, 16), dueAt: 1_020 }]).require(WHOLE, 35, 1_000), { code: 'no-room-in-time' });
});
