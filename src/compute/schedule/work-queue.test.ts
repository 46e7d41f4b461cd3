import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { findPlaces, type Load, type WorkNode } from './node-load.ts';
import { type QueueAction, type QueuedWork, type QueueRules, WorkQueue } from './work-queue.ts';

const RULES: QueueRules = { noticeSeconds: 10, refillSeconds: 30, interruptionsMax: 3, patienceSeconds: 900 };
const HOUR = 3600;
const load = (cores: number): Load => ({ milliCpus: cores * 1000, memoryBytes: cores * 100, diskBytes: cores, gpus: 0 });
const work = (id: string, cores: number, count = 1, rest: Partial<QueuedWork> = {}): QueuedWork => ({
  id,
  load: load(cores),
  count,
  wallSeconds: 100,
  isInterruptible: false,
  ...rest,
});

function queueOf(...cores: number[]): WorkQueue {
  const queue = new WorkQueue(RULES);
  for (const [index, each] of cores.entries()) queue.addNode(`n${index}`, load(each));
  return queue;
}

const briefly = (actions: QueueAction[]) => actions.map(({ kind, workId, nodes }) => `${kind} ${workId} ${nodes.join('+')}`);

test('work goes to the fullest node that has room, and a gang starts on all of its nodes or waits', () => {
  const queue = queueOf(4, 2, 2);
  queue.submit(work('small', 1), 0);
  queue.submit(work('pair', 2, 2), 0);
  queue.submit(work('three', 2, 3), 0);
  assert.deepEqual(briefly(queue.plan(0)), ['start small n1', 'start pair n2+n0']);
  assert.deepEqual(briefly(queue.plan(1)), []);
  assert.equal(queue.finish('pair', 1), true);
  assert.deepEqual(briefly(queue.plan(2)), [], 'one core is missing on n1');
  assert.equal(queue.finish('small', 1), true);
  assert.deepEqual(briefly(queue.plan(3)), ['start three n1+n2+n0']);
});

test('small work passes a waiting gang only when it does not delay it', () => {
  const queue = queueOf(1, 1);
  queue.submit(work('first', 1, 1, { wallSeconds: 50 }), 0);
  queue.plan(0);
  queue.submit(work('gang', 1, 2), 0);
  queue.submit(work('long', 1, 1, { wallSeconds: 51 }), 0);
  queue.submit(work('short', 1, 1, { wallSeconds: 49 }), 0);
  assert.deepEqual(briefly(queue.plan(1)), ['start short n1']);
  assert.equal(queue.finish('short', 1), true);
  assert.equal(queue.finish('first', 1), true);
  assert.deepEqual(briefly(queue.plan(50)), ['start gang n0+n1']);
});

test('work that may be interrupted gives way, the youngest first and not more than it takes, and is left alone after the third time', () => {
  const queue = queueOf(2);
  queue.submit(work('old', 1, 1, { isInterruptible: true, wallSeconds: 5000 }), 0);
  queue.submit(work('young', 1, 1, { isInterruptible: true, wallSeconds: 5000 }), 0);
  queue.plan(0);
  for (let round = 0; round < 3; round += 1) {
    const now = 200 * round + 1;
    queue.submit(work(`urgent${round}`, 1), 0);
    assert.deepEqual(briefly(queue.plan(now)), ['interrupt young n0']);
    assert.deepEqual(briefly(queue.plan(now + 1)), [], 'it is interrupted once');
    queue.stopped('young', round + 1);
    assert.deepEqual(briefly(queue.plan(now + 5)), [`start urgent${round} n0`]);
    assert.equal(queue.finish('young', round + 1), false, 'what was stopped has no result');
    assert.equal(queue.finish(`urgent${round}`, 1), true);
    assert.deepEqual(briefly(queue.plan(now + 6)), ['start young n0']);
  }
  assert.equal(queue.finish('old', 1), true);
  queue.submit(work('urgent', 2), 0);
  assert.deepEqual(briefly(queue.plan(700)), []);
});

test('a gang that loses a node gets another one before anything else starts; with none in time it gives the rest back and waits at its old place', () => {
  const queue = queueOf(1, 1, 1);
  queue.submit(work('gang', 1, 2), 0);
  queue.plan(0);
  queue.submit(work('next', 1), 0);
  queue.loseNode('n0', 5);
  assert.deepEqual(briefly(queue.plan(5)), ['refill gang n2']);
  assert.deepEqual(queue.stateOf('gang'), { state: 'running', attempt: 1, nodes: ['n1', 'n2'] });
  queue.loseNode('n1', 6);
  assert.equal(queue.finish('gang', 1), false, 'half a gang has no result');
  assert.deepEqual(briefly(queue.plan(6)), []);
  assert.deepEqual(briefly(queue.plan(36)), ['suspend gang n2']);
  queue.stopped('gang', 1);
  assert.deepEqual(briefly(queue.plan(37)), ['start next n2']);
  queue.addNode('n0', load(1));
  queue.addNode('n1', load(1));
  assert.deepEqual(briefly(queue.plan(38)), ['start gang n0+n1']);
  assert.equal(queue.finish('gang', 2), true);
});

test('the result of a node that was given up is not counted beside the one that took over, nor any result twice', () => {
  const queue = queueOf(1, 1);
  queue.submit(work('job', 1), 0);
  queue.plan(0);
  queue.loseNode('n0', 10);
  assert.equal(queue.finish('job', 1), false);
  assert.deepEqual(briefly(queue.plan(10)), ['start job n1']);
  assert.equal(queue.finish('job', 1), false);
  assert.equal(queue.finish('job', 2), true);
  assert.equal(queue.finish('job', 2), false);
  queue.forget('job');
  assert.throws(() => queue.stateOf('job'), { code: 'bad-queue-call' });
});

test('what cannot be is refused', () => {
  const queue = queueOf(1);
  queue.submit(work('job', 1), 0);
  assert.throws(() => queue.submit(work('job', 1), 0), { code: 'bad-queue-call' });
  assert.throws(() => queue.submit(work('none', 1, 0), 0), { code: 'bad-queue-call' });
  assert.throws(() => queue.addNode('n0', load(1)), { code: 'bad-queue-call' });
  assert.throws(() => queue.forget('job'), { code: 'bad-queue-call' });
});

test('a gang behind a flood of small work starts when what ran before it has ended; by first fit it never starts', () => {
  const queue = queueOf(1, 1, 1);
  const nodes: WorkNode[] = [0, 1, 2].map((index) => ({ id: `n${index}`, capacity: load(1), tasks: new Set() }));
  const gang = { load: load(1), count: 3, wallSeconds: 100, fits: () => true };
  let startedAt: number | undefined;
  let firstFitAt: number | undefined;
  for (let now = 0; now < HOUR; now += 10) {
    for (const entry of ends(queue, now)) queue.finish(entry, 1);
    for (const node of nodes) for (const task of node.tasks) if (task.endsBy <= now) node.tasks.delete(task);
    if (now === 50) queue.submit(work('gang', 1, 3), now);
    if (firstFitAt === undefined && now >= 50 && findPlaces(nodes, { ...gang, now }) !== undefined) firstFitAt = now;
    queue.submit(work(`small-${now + 100}`, 1), now);
    const [place] = findPlaces(nodes, { ...gang, count: 1, now }) ?? [];
    nodes.find(({ id }) => id === place)?.tasks.add({ load: load(1), nodes: new Set(), endsBy: now + 30 });
    for (const { workId, attempt } of queue.plan(now)) if (workId === 'gang' && attempt === 1) startedAt ??= now;
  }
  assert.ok(startedAt !== undefined && startedAt <= 150, `started at ${startedAt}`);
  assert.equal(firstFitAt, undefined);
});

/** Small work whose time is over. */
function ends(queue: WorkQueue, now: number): string[] {
  return Array.from({ length: now / 10 }, (_, index) => `small-${index * 10 + 100}`).filter((id) => {
    const at = Number(id.slice(6));
    return at <= now && queue.stateOf(id).state === 'running';
  });
}

/** One hour of arrivals and dying machines, simulated over the queue itself. */
class Hour {
  readonly queue = new WorkQueue(RULES);
  readonly paid = new Map<string, number>();
  readonly submitted = new Map<string, { work: QueuedWork; at: number; older: number }>();
  readonly startedAt = new Map<string, number>();
  readonly #alive = new Map<string, Load>();
  readonly #held = new Map<string, Map<string, { attempt: number; nodes: Set<string> }>>();
  readonly #events: { at: number; act: () => void }[] = [];
  readonly #random: () => number;
  now = 0;
  deaths = 0;
  restarts = 0;

  constructor(seed: number, options: { nodes: number; arrivals: number; isMortal: boolean }) {
    this.#random = randomOf(seed);
    for (let index = 0; index < options.nodes; index += 1)
      this.#join(`n${index}`, load(3 + Math.floor(this.#random() * 6)), options.isMortal);
    for (let index = 0; index < options.arrivals; index += 1) this.#at(this.#random() * HOUR, () => this.#arrive(`job${index}`));
    for (let now = 0; now < 3 * HOUR; now += 5) this.#at(now, () => undefined);
  }

  /** Until all work is done; whatever is still there after ten hours is lost. */
  run(): void {
    while (this.#events.length > 0 && this.now < 10 * HOUR) {
      const event = this.#events.reduce((first, each) => (each.at < first.at ? each : first));
      this.#events.splice(this.#events.indexOf(event), 1);
      this.now = event.at;
      event.act();
      for (const action of this.queue.plan(this.now)) this.#follow(action);
      this.#check();
      if (this.now > HOUR && this.paid.size === this.submitted.size) return;
    }
  }

  #arrive(id: string): void {
    const cores = 1 + Math.floor(this.#random() * 3);
    const count = this.#random() < 0.3 ? 2 + Math.floor(this.#random() * 3) : 1;
    const wallSeconds = 10 + Math.floor(this.#random() * 140);
    const submitted = work(id, cores, count, { wallSeconds, isInterruptible: this.#random() < 0.5 });
    const older = [...this.submitted.keys()].filter((each) => !this.paid.has(each)).length;
    this.submitted.set(id, { work: submitted, at: this.now, older });
    this.queue.submit(submitted, this.now);
  }

  #join(id: string, capacity: Load, isMortal: boolean): void {
    this.#alive.set(id, capacity);
    this.queue.addNode(id, capacity);
    if (!isMortal) return;
    this.#at(this.now - 500 * Math.log(1 - this.#random()), () => {
      if (this.now > HOUR) return;
      this.deaths += 1;
      this.#alive.delete(id);
      this.queue.loseNode(id, this.now);
      for (const attempts of this.#held.values()) for (const held of attempts.values()) held.nodes.delete(id);
      this.#at(this.now + 20 + this.#random() * 100, () => this.#join(id, capacity, true));
    });
  }

  /** What the nodes do: they run, report late, twice, and also when they were given up meanwhile. */
  #follow({ kind, workId, attempt, nodes }: QueueAction): void {
    const { work: done } = this.submitted.get(workId) as { work: QueuedWork };
    if (kind === 'start') {
      assert.equal(nodes.length, done.count, 'a gang starts whole');
      if (attempt > 1) this.restarts += 1;
      if (!this.startedAt.has(workId)) this.startedAt.set(workId, this.now);
      this.#held.set(workId, new Map([[`${attempt}`, { attempt, nodes: new Set(nodes) }]]));
    }
    if (kind === 'refill') for (const node of nodes) this.#held.get(workId)?.get(`${attempt}`)?.nodes.add(node);
    if (kind === 'start' || kind === 'refill') {
      const endsAt = this.now + done.wallSeconds * (0.3 + 0.7 * this.#random());
      for (const lateBy of [0, this.#random() * 200])
        this.#at(endsAt + lateBy, () => this.#report(workId, attempt, kind === 'start' ? nodes : []));
      return;
    }
    this.#at(this.now + this.#random() * RULES.noticeSeconds, () => {
      this.queue.stopped(workId, attempt);
      if (this.queue.stateOf(workId).state === 'waiting') this.#held.delete(workId);
    });
  }

  #report(workId: string, attempt: number, nodes: readonly string[]): void {
    // A first report of work whose node has died never comes; later ones come from nodes that were only cut off.
    if (nodes.length > 0 && !nodes.every((node) => this.#alive.has(node)) && this.#random() < 0.5) return;
    if (!this.queue.finish(workId, attempt)) return;
    this.#held.delete(workId);
    this.paid.set(workId, (this.paid.get(workId) ?? 0) + 1);
  }

  /** Never oversold, never half-filled. */
  #check(): void {
    const used = new Map<string, Load>();
    for (const [workId, attempts] of this.#held) {
      const { state, nodes } = this.queue.stateOf(workId);
      const { work: held } = this.submitted.get(workId) as { work: QueuedWork };
      if (state === 'running') assert.equal(new Set(nodes).size, held.count, `${workId} runs with all of its members`);
      for (const { nodes: own } of attempts.values()) for (const node of own) used.set(node, sum(used.get(node), held.load));
    }
    for (const [node, taken] of used) {
      const capacity = this.#alive.get(node);
      assert.ok(capacity !== undefined, `${node} is gone but used`);
      for (const kind of Object.keys(taken) as (keyof Load)[]) assert.ok(taken[kind] <= capacity[kind], `${node} is oversold`);
    }
    for (const count of this.paid.values()) assert.equal(count, 1, 'nothing is paid twice');
  }

  #at(at: number, act: () => void): void {
    this.#events.push({ at, act });
  }
}

function sum(one: Load | undefined, other: Load): Load {
  if (one === undefined) return { ...other };
  return {
    milliCpus: one.milliCpus + other.milliCpus,
    memoryBytes: one.memoryBytes + other.memoryBytes,
    diskBytes: one.diskBytes + other.diskBytes,
    gpus: one.gpus + other.gpus,
  };
}

function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const isFull = process.env.MILLRACE_FULL === '1';
const seeds = fc.integer({ min: 1, max: 2 ** 31 });

test('machines die at random for an hour: no gang is half-filled, no node oversold, no job lost, none paid twice', () => {
  let [deaths, restarts] = [0, 0];
  fc.assert(
    fc.property(seeds, (seed) => {
      const hour = new Hour(seed, { nodes: 10, arrivals: isFull ? 400 : 150, isMortal: true });
      hour.run();
      const lost = [...hour.submitted.keys()].filter((id) => !hour.paid.has(id));
      assert.deepEqual(lost, [], 'every job was done and paid');
      deaths += hour.deaths;
      restarts += hour.restarts;
    }),
    { numRuns: isFull ? 300 : 4 },
  );
  assert.ok(deaths > 20 && restarts > 5, `${deaths} deaths, ${restarts} restarts`);
});

test('no work is starved: each starts within the time that the work before it can take', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      const hour = new Hour(seed, { nodes: 8, arrivals: isFull ? 600 : 200, isMortal: false });
      hour.run();
      const longest = 150 + RULES.noticeSeconds;
      const patience = (id: string) => (hour.submitted.get(id)?.work.isInterruptible ? RULES.patienceSeconds : 0);
      for (const [id, { at, older }] of hour.submitted) {
        const waited = (hour.startedAt.get(id) ?? Number.POSITIVE_INFINITY) - at;
        // Each of those before it is at the head once, and once more after every interruption.
        assert.ok(
          waited <= patience(id) + (1 + older * (1 + RULES.interruptionsMax)) * longest,
          `${id} waited ${waited} s behind ${older}`,
        );
      }
    }),
    { numRuns: isFull ? 300 : 4 },
  );
});
