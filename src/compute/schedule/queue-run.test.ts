import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { campaignSeed } from '../../../test/campaign.ts';
import { MillraceError } from '../../errors.ts';
import type { Load } from './node-load.ts';
import { parseQueue, type QueuedCommand } from './queue-document.ts';
import { openQueueResults, type WorkResult } from './queue-results.ts';
import { type QueueMachine, type QueueMember, QueueRun } from './queue-run.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-queue-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const load = (cores: number): Load => ({ milliCpus: cores * 1000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, gpus: 0 });

/** A machine that can die with all that runs on it, and come back; a member that was lost ends all the same, later, when nobody asks any more. */
class MortalMachine implements QueueMachine {
  readonly id: string;
  readonly capacity: Load;
  isAlive = true;
  /** Members that began, ever, and the most at one time. */
  begun: string[] = [];
  busiest = 0;
  #running = new Set<(error: Error) => void>();
  readonly #run: (member: QueueMember) => Promise<number>;

  constructor(id: string, cores: number, run: (member: QueueMember) => Promise<number>) {
    [this.id, this.capacity, this.#run] = [id, load(cores), run];
  }

  isUp = async () => this.isAlive;

  async run(member: QueueMember, signal: AbortSignal): Promise<number> {
    if (!this.isAlive) throw new MillraceError('peer-unreachable', { actor: 'peer', message: 'dead' });
    this.begun.push(member.work.id);
    const died = Promise.withResolvers<never>();
    died.promise.catch(() => {});
    this.#running.add(died.reject);
    this.busiest = Math.max(this.busiest, this.#running.size);
    const stop = () => died.reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    try {
      return await Promise.race([this.#run(member), died.promise]);
    } finally {
      this.#running.delete(died.reject);
    }
  }

  /** As a sandbox that ends with all that is in it, and is made anew at once. */
  end(): void {
    for (const reject of this.#running) reject(ended());
  }

  die(): void {
    this.isAlive = false;
    for (const reject of this.#running) reject(new MillraceError('rental-cut-off', { actor: 'peer', message: 'died' }));
  }
}

const ended = () => new MillraceError('sandbox-ended', { actor: 'peer', message: 'its sandbox ended' });
const documentOf = (...work: string[]) => parseQueue(`queue: 1\nwork:\n${work.map((each) => `  - ${each}\n`).join('')}`);

function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test('machines die at random and come back: each piece of work has one result, of an attempt that ran to its end', async (context) => {
  const seed = campaignSeed();
  context.diagnostic(`seed ${seed}`);
  const random = randomOf(seed);
  const ends = new Map<string, number>();
  const machines = Array.from(
    { length: 4 },
    (_, index) =>
      new MortalMachine(`m${index}`, 2, async ({ work, attempt, folder: place }) => {
        await sleep(5 + random() * 20);
        writeFileSync(join(place, 'stdout'), `${work.id} ${attempt}`);
        ends.set(work.id, (ends.get(work.id) ?? 0) + 1);
        return 0;
      }),
  );
  const { work } = documentOf(
    '{name: small, command: [true], repeat: 30}',
    '{name: gang, command: [true], machines: 2, cpus: 2, repeat: 4}',
    '{name: idle, command: [true], interruptible: true, repeat: 8}',
  );
  const place = join(folder, 'random');
  const kept: WorkResult[] = [];
  const results = openQueueResults(place);
  const keep = results.keep.bind(results);
  results.keep = (one, result) => {
    kept.push(result);
    keep(one, result);
  };
  let deaths = 0;
  const killing = setInterval(() => {
    const machine = machines[Math.floor(random() * machines.length)] as MortalMachine;
    if (!machine.isAlive) machine.isAlive = true;
    else if (machines.filter(({ isAlive }) => isAlive).length > 2) {
      machine.die();
      deaths += 1;
    }
  }, 15);
  try {
    const all = await new QueueRun({ work, results, machines: async () => machines, lookMs: 3 }).run(AbortSignal.timeout(120_000));
    assert.equal(all.length, 42);
    assert.ok(all.every(({ isDone }) => isDone));
  } finally {
    clearInterval(killing);
  }
  assert.deepEqual(kept.map(({ id }) => id).sort(), work.map(({ id }) => id).sort(), 'every one once');
  for (const { id, attempt, machines: ran } of kept) {
    assert.equal(new Set(ran).size, id.startsWith('gang') ? 2 : 1);
    const text = readFileSync(join(place, id, id.startsWith('gang') ? '1/stdout' : 'stdout'), 'utf8');
    assert.equal(text, `${id} ${attempt}`, 'what lies there is of the attempt that counts');
  }
  assert.ok(
    machines.every(({ busiest }) => busiest <= 2),
    'no machine had more than it has room for',
  );
  assert.deepEqual(
    existsSync(join(place, '.attempts')) ? readdirSync(join(place, '.attempts')) : [],
    [],
    'attempts that do not count leave nothing',
  );
  context.diagnostic(`${deaths} deaths, ${machines.reduce((sum, { begun }) => sum + begun.length, 0)} members begun`);
});

test('a queue that breaks off goes on with what has no result, and what is done is not done again', async () => {
  const { work } = documentOf('{name: step, command: [true], repeat: 6}');
  const place = join(folder, 'resumed');
  const begun: string[] = [];
  let isHeld = true;
  const machine = new MortalMachine('m', 1, async ({ work: { id } }) => {
    begun.push(id);
    while (isHeld && id === 'step-4') await sleep(2);
    return 0;
  });
  const broken = new AbortController();
  const options = { work, machines: async () => [machine], lookMs: 3 };
  const first = new QueueRun({ ...options, results: openQueueResults(place) });
  const running = first.run(broken.signal);
  while (first.counts().done < 3) await sleep(2);
  broken.abort(new MillraceError('interrupted', { actor: 'caller', message: 'Ctrl-C' }));
  await assert.rejects(running, { code: 'interrupted' });
  isHeld = false;
  const second = new QueueRun({ ...options, results: openQueueResults(place) });
  assert.deepEqual(second.counts(), { done: 3, failed: 0, running: 0, waiting: 3 });
  await second.run(AbortSignal.timeout(60_000));
  assert.deepEqual(begun, ['step-1', 'step-2', 'step-3', 'step-4', 'step-4', 'step-5', 'step-6']);
  const changed = documentOf('{name: step, command: [false], repeat: 6}').work;
  assert.throws(() => new QueueRun({ ...options, work: changed, results: openQueueResults(place) }), { code: 'queue-folder-taken' });
});

test('work that fails, takes too long, is refused, or breaks every machine has failed with its reason, and the rest goes on', async () => {
  const { work } = documentOf(
    '{name: bad, command: [false]}',
    '{name: long, command: [sleep], time: 1s}',
    '{name: odd, command: [odd]}',
    '{name: killer, command: [kill]}',
    '{name: good, command: [true]}',
  );
  const machine: MortalMachine = new MortalMachine('m', 8, async ({ work: { id } }) => {
    if (id === 'bad') return 3;
    if (id === 'long') return await sleep(60_000, 0, { ref: false });
    if (id === 'odd') throw new MillraceError('work-refused', { actor: 'caller', message: 'a zero byte' });
    if (id === 'killer') {
      machine.end();
      throw ended();
    }
    return 0;
  });
  const run = new QueueRun({ work, results: openQueueResults(join(folder, 'failing')), machines: async () => [machine], lookMs: 2 });
  const all = await run.run(AbortSignal.timeout(120_000));
  assert.deepEqual(
    all.map(({ id, isDone, reason, exitCodes }) => [id, isDone, reason, exitCodes]),
    [
      ['bad', false, 'exit', [3]],
      ['long', false, 'time', []],
      ['odd', false, 'refused', []],
      ['killer', false, 'attempts', []],
      ['good', true, undefined, [0]],
    ],
  );
  assert.deepEqual(run.counts(), { done: 1, failed: 4, running: 0, waiting: 0 });
});

test('work that no machine could hold does not wait for ever', async () => {
  const { work } = documentOf('{name: huge, command: [true], cpus: 64}');
  const machine = new MortalMachine('m', 1, async () => 0);
  const options = { work, machines: async () => [machine], results: openQueueResults(join(folder, 'huge')), lookMs: 3 };
  await assert.rejects(new QueueRun({ ...options, patienceMs: 50 }).run(AbortSignal.timeout(60_000)), {
    code: 'queue-stuck',
    actor: 'caller',
  });
});

test('a queue’s document is refused with the place of its fault', () => {
  const refusal = (text: string) => {
    try {
      parseQueue(text);
    } catch (error) {
      const { code, values } = error as MillraceError;
      return `${code} ${values.line}:${values.column} ${values.field}: ${values.reason}`;
    }
    return assert.fail('it was taken');
  };
  const with_ = (line: string) => refusal(`queue: 1\nwork:\n  - ${line}\n`);
  assert.match(with_('{name: a}'), /^bad-spec 3:5 work\[0\]: command is missing/);
  assert.match(with_('{name: ../a, command: [x]}'), /^bad-spec 3:6 work\[0\]\.name: got "\.\.\/a"/);
  assert.match(with_('{name: a, command: [x], cpu: 1}'), /^bad-spec 3:\d+ work\[0\]\.cpu: there is no such field/);
  assert.match(
    refusal('queue: 1\nwork:\n  - {name: a-1, command: [x]}\n  - {name: a, command: [x], repeat: 2}\n'),
    /^bad-spec 4:5 work\[1\]: two pieces of work are called a-1/,
  );
  assert.match(refusal('queue: 1\nwork: []'), /it has no work/);
  const [one, two] = documentOf('{name: a, command: [x], repeat: 2}').work as [QueuedCommand, QueuedCommand];
  assert.deepEqual([one.id, one.env.QUEUE_INDEX, two.id], ['a-1', '1', 'a-2']);
  assert.notEqual(one.digest, two.digest);
});
