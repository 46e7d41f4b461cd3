import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import fc from 'fast-check';
import { createCapacity, measureResources, type Reservation, type Resources } from './capacity.ts';

const GIB = 2 ** 30;
const MACHINE: Resources = { cpus: 2, memoryBytes: 4 * GIB, diskBytes: 100 * GIB, processes: 4096 };
const KINDS = ['cpus', 'memoryBytes', 'diskBytes', 'processes'] as const;

test('what is reserved is gone until it is released, and is released once', () => {
  const capacity = createCapacity(MACHINE);
  const half = { cpus: 1, memoryBytes: 2 * GIB, diskBytes: GIB, processes: 64 };
  const first = capacity.reserve('job 1', half);
  assert.ok(first !== undefined && capacity.reserve('lease 1', half) !== undefined);
  assert.equal(capacity.reserve('job 2', { ...half, cpus: 0.001 }), undefined, 'memory is gone');
  assert.deepEqual(capacity.free(), { cpus: 0, memoryBytes: 0, diskBytes: 98 * GIB, processes: 3968 });
  first.release();
  first.release();
  assert.deepEqual(capacity.free(), { cpus: 1, memoryBytes: 2 * GIB, diskBytes: 99 * GIB, processes: 4032 });
});

test('who waits is called after each release', () => {
  const capacity = createCapacity(MACHINE);
  let calls = 0;
  const end = capacity.onRelease(() => {
    calls += 1;
  });
  capacity.reserve('job 1', MACHINE)?.release();
  end();
  capacity.reserve('job 2', MACHINE)?.release();
  assert.equal(calls, 1);
});

test('ten times a tenth of a processor is one processor', () => {
  const capacity = createCapacity({ ...MACHINE, cpus: 1 });
  const tenth = { cpus: 0.1, memoryBytes: 0, diskBytes: 0, processes: 1 };
  for (let count = 0; count < 10; count += 1) assert.ok(capacity.reserve(`job ${count}`, tenth) !== undefined, `job ${count}`);
  assert.equal(capacity.reserve('one more', tenth), undefined);
});

test('a request that is no amount is refused', () => {
  const capacity = createCapacity(MACHINE);
  for (const wrong of [-1, Number.NaN, 0.5, Number.POSITIVE_INFINITY]) {
    const wanted = { cpus: 1, memoryBytes: wrong, diskBytes: 0, processes: 1 };
    assert.throws(() => capacity.reserve('job', wanted), { code: 'bad-resources' });
    assert.throws(() => capacity.fits(wanted), { code: 'bad-resources' });
  }
  assert.throws(() => createCapacity({ ...MACHINE, cpus: -0.1 }), { code: 'bad-resources' });
});

test('whatever comes and goes, no more is out than there is, and what is free and what is held are the whole', () => {
  const wanted = fc.record({
    cpus: fc.integer({ min: 0, max: 3000 }).map((thousandths) => thousandths / 1000),
    memoryBytes: fc.integer({ min: 0, max: 5 * GIB }),
    diskBytes: fc.integer({ min: 0, max: 110 * GIB }),
    processes: fc.integer({ min: 0, max: 5000 }),
  });
  const step = fc.oneof(
    fc.record({ take: wanted }),
    fc.nat().map((release) => ({ release })),
  );
  const law = fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const capacity = createCapacity(MACHINE);
    const held: Reservation[] = [];
    for (const one of steps) {
      if ('take' in one) {
        const before = capacity.free();
        const got = capacity.reserve('somebody', one.take);
        assert.equal(
          got !== undefined,
          KINDS.every((kind) => one.take[kind] <= before[kind]),
          'refused if and only if it is not there',
        );
        if (got !== undefined) held.push(got);
      } else if (held.length > 0) held.splice(one.release % held.length, 1)[0]?.release();
      for (const kind of KINDS) {
        const out = held.reduce((sum, { resources }) => sum + Math.round(resources[kind] * 1000), 0);
        assert.ok(capacity.free()[kind] >= 0);
        assert.equal(out + Math.round(capacity.free()[kind] * 1000), MACHINE[kind] * 1000);
      }
    }
    assert.deepEqual(new Set(capacity.reservations()), new Set(held));
  });
  fc.assert(law, { verbose: 1 });
});

test('what a machine gives is a share of it where several nodes run on it', async () => {
  const [one, third] = [await measureResources({ folder: tmpdir() }), await measureResources({ folder: tmpdir(), nodesHere: 3 })];
  for (const kind of KINDS)
    assert.ok(one[kind] > 0 && (third[kind] * 3 <= one[kind] * 1.01 || (kind === 'cpus' && third.cpus === 1.5)), kind);
});
