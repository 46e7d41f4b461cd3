import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Resources } from '../capacity.ts';
import { type MachineWork, workWithTurn } from './machine-turn.ts';

const of = (cpus: number): Resources => ({ cpus, memoryBytes: 0, diskBytes: 0, processes: 0 });
const work = (name: string, cpus: number, wallSeconds: number): MachineWork<string> => ({ work: name, resources: of(cpus), wallSeconds });
/** Four cores, of which two run until the given second. */
const machine = (endsBy: number) => ({ total: of(4), free: of(2), running: [{ resources: of(2), endsBy }] });

test('work starts in its order as far as there is room', () => {
  const waiting = [work('one', 1, 60), work('two', 1, 60), work('three', 1, 60)];
  assert.deepEqual(workWithTurn(waiting, machine(100), 0), ['one', 'two']);
});

test('small work passes large work that has no room yet, but only where it does not delay it', () => {
  const short = work('short', 2, 100);
  const long = work('long', 1, 101);
  assert.deepEqual(workWithTurn([work('large', 4, 60), long, short], machine(100), 0), ['short']);
  // Beside the large one there will be a core: the long one takes it.
  assert.deepEqual(workWithTurn([work('large', 3, 60), long, short], machine(100), 0), ['long']);
});

test('where nobody knows when the first will have room, nothing passes it', () => {
  const rented = { total: of(4), free: of(2), running: [] };
  assert.deepEqual(workWithTurn([work('large', 4, 60), work('small', 1, 1)], rented, 0), []);
  assert.deepEqual(workWithTurn([work('small', 1, 1), work('large', 4, 60)], rented, 0), ['small']);
});

test('whatever arrives, no core is sold twice, and the first in line starts when what ran before it has ended', () => {
  const arrivals = fc.array(fc.record({ cpus: fc.integer({ min: 1, max: 4 }), wall: fc.integer({ min: 1, max: 20 }), at: fc.nat(30) }), {
    minLength: 1,
    maxLength: 25,
  });
  fc.assert(
    fc.property(arrivals, fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })), (list, early) => {
      const waiting: (MachineWork<number> & { at: number })[] = [];
      const running: { resources: Resources; endsBy: number; endsAt: number }[] = [];
      /** By which second the first in line must have started, as it was when it came to be the first. */
      let promise: { work: number; by: number } | undefined;
      for (let now = 0; now < 1_000; now += 1) {
        for (const [index, { cpus, wall, at }] of list.entries())
          if (at === now) waiting.push({ work: index, resources: of(cpus), wallSeconds: wall, at });
        for (const task of running.filter(({ endsAt }) => endsAt <= now)) running.splice(running.indexOf(task), 1);
        const used = running.reduce((sum, { resources }) => sum + resources.cpus, 0);
        for (const index of workWithTurn(waiting, { total: of(4), free: of(4 - used), running }, now)) {
          const at = waiting.findIndex((one) => one.work === index);
          const [started] = waiting.splice(at, 1) as unknown as [MachineWork<number>];
          const lasts = Math.max(1, Math.ceil(started.wallSeconds * (early.next().value as number)));
          running.push({ resources: started.resources, endsBy: now + started.wallSeconds, endsAt: now + lasts });
        }
        assert.ok(running.reduce((sum, { resources }) => sum + resources.cpus, 0) <= 4);
        const [first] = waiting;
        if (first?.work !== promise?.work)
          promise = first && { work: first.work, by: Math.max(now, ...running.map(({ endsBy }) => endsBy)) };
        if (promise !== undefined) assert.ok(now < promise.by, `work ${promise.work} waits at ${now}, promised was ${promise.by}`);
        if (waiting.length === 0 && now > 30) return;
      }
      assert.fail('it never ends');
    }),
  );
});
