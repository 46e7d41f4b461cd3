import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { keccak256, toHex } from 'viem';
import { checkLeaves, drawLeaves, type OpenedLeaf, type WantedLeaf } from './challenge-check.ts';
import { type ChallengeProgress, type ChallengeTask, startChallengeEngine } from './challenge-engine.ts';
import { challengesAnHour, isChallengeSlot } from './challenge-time.ts';
import {
  hashLeaf,
  LEAF_WORDS,
  LEAVES,
  makeLeaf,
  makeUnit,
  placeOf,
  planOf,
  proveLeaf,
  shareBps,
  treeOf,
  UNIT_WORK,
  unitAt,
  unitCount,
  unitsAmong,
} from './challenge-work.ts';

const RULE = { deadlineMs: 2000, rateFillBps: 7000, memoryFillBps: 3000, rateWeight: 2, memoryWeight: 1 };
const SMALL = { products: 3, memories: 2 };
const engine = startChallengeEngine();
after(() => engine.close());

const taskWith = (plan = SMALL): ChallengeTask => ({ seed: randomBytes(32), plan });
const rootOf = (levels: Uint8Array[][]) => (levels.at(-1) as Uint8Array[])[0] as Uint8Array;

async function solve(task: ChallengeTask) {
  const run = engine.start(task);
  await run.ended;
  return { run, progress: run.progress() as ChallengeProgress };
}

/** Who commits to words of its own making, and opens them honestly. */
function commitTo(units: readonly (readonly Uint32Array[])[]) {
  const trees = units.map((leaves) => treeOf(leaves.map((words, leaf) => hashLeaf(leaf, words))));
  const levels = treeOf(trees.map(rootOf));
  const open = (wanted: readonly WantedLeaf[]): OpenedLeaf[] =>
    wanted.map(({ place, leaf }) => {
      const tree = trees[place] as Uint8Array[][];
      const words = units[place]?.[leaf] as Uint32Array;
      return { place, leaf, words, proof: proveLeaf(tree, leaf), unitRoot: rootOf(tree), unitProof: proveLeaf(levels, place) };
    });
  return { progress: { done: units.length, root: rootOf(levels) }, open };
}

test('a challenge that was done passes, and a flipped word, another seed, another count or a made-up root does not', async () => {
  const task = taskWith();
  const { run, progress } = await solve(task);
  assert.equal(progress.done, 5);
  const wanted = drawLeaves(task, progress);
  const opened = await run.open(progress.done, wanted);
  assert.ok(checkLeaves(task, progress, wanted, opened));
  const flipped = opened.map((leaf, at) =>
    at === 0 ? { ...leaf, words: leaf.words.map((word, place) => (place === 5 ? word ^ 1 : word)) } : leaf,
  );
  assert.equal(checkLeaves(task, progress, wanted, flipped), false);
  assert.equal(checkLeaves(task, progress, wanted, opened.slice(1)), false);
  assert.equal(checkLeaves({ ...task, seed: randomBytes(32) }, progress, wanted, opened), false);
  assert.equal(checkLeaves(task, { ...progress, done: 4 }, wanted, opened), false);
  assert.equal(checkLeaves(task, { ...progress, root: createHash('sha256').digest() }, wanted, opened), false);
  await assert.rejects(run.open(6, wanted), { code: 'bad-leaf' });
});

test('what was done of a challenge that was stopped passes as so much of it', async () => {
  const task = taskWith({ products: 40, memories: 0 });
  const run = engine.start(task);
  while ((run.progress()?.done ?? 0) < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  run.stop();
  await run.ended;
  const progress = run.progress() as ChallengeProgress;
  assert.ok(progress.done < 40);
  const wanted = drawLeaves(task, progress);
  assert.ok(checkLeaves(task, progress, wanted, await run.open(progress.done, wanted)));
});

test('a leaf that is made again is the one that was committed to', () => {
  const seed = randomBytes(32);
  for (const kind of ['product', 'memory'] as const) {
    const unit = { kind, number: 3 };
    const words = Uint32Array.from(makeUnit(seed, unit));
    assert.equal(words.length, LEAVES[kind] * LEAF_WORDS);
    for (const leaf of [0, 7, LEAVES[kind] - 1]) {
      assert.deepEqual(makeLeaf(seed, unit, leaf), words.subarray(leaf * LEAF_WORDS, (leaf + 1) * LEAF_WORDS));
    }
  }
});

test('who skips half of the products is found out, and who commits to one unit as to many', () => {
  const task = taskWith({ products: 2, memories: 0 });
  const leavesOf = (place: number) =>
    Array.from({ length: LEAVES.product }, (_, leaf) => makeLeaf(task.seed, unitAt(task.plan, place), leaf));
  const right = [leavesOf(0), leavesOf(1)];
  const passes = ({ progress, open }: ReturnType<typeof commitTo>) => {
    const wanted = drawLeaves(task, progress);
    return checkLeaves(task, progress, wanted, open(wanted));
  };
  assert.ok(passes(commitTo(right)));
  const skipped = commitTo([leavesOf(0), right[1]?.map((words) => new Uint32Array(words.length)) as Uint32Array[]]);
  const repeated = commitTo([leavesOf(0), leavesOf(0)]);
  // Twelve leaves are looked at: half of them slip through once in 4,096 times.
  for (const forged of [skipped, repeated]) {
    const caught = Array.from({ length: 10 }, () => passes(forged)).filter((passed) => !passed).length;
    assert.ok(caught >= 9, `${caught} of 10`);
  }
});

const declarations = fc.record({ rate: fc.integer({ min: 1, max: 100_000 }), memoryMbs: fc.integer({ min: 1, max: 100_000 }) });

test('the work is what was declared: so many units as fill their shares of the deadline, one that is begun for one', () => {
  fc.assert(
    fc.property(declarations, (declared) => {
      const plan = planOf(RULE, declared);
      const products = declared.rate * 1e6 * 1.4;
      assert.ok(plan.products * UNIT_WORK.products >= products && (plan.products - 1) * UNIT_WORK.products < products);
      const bytes = declared.memoryMbs * 1e6 * 0.6;
      assert.ok(plan.memories * UNIT_WORK.bytes >= bytes && (plan.memories - 1) * UNIT_WORK.bytes < bytes);
      assert.equal(shareBps(RULE, declared, unitCount(plan)), 10_000);
      assert.equal(shareBps(RULE, declared, 0), 0);
    }),
  );
});

test('both kinds of units take turns: after any number of them both are as far', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 60 }), (products, memories) => {
      const plan = { products, memories };
      const counts = { product: 0, memory: 0 };
      for (let place = 0; place < unitCount(plan); place += 1) {
        const { kind, number } = unitAt(plan, place);
        assert.equal(number, counts[kind]);
        assert.equal(placeOf(plan, { kind, number }), place);
        counts[kind] += 1;
        assert.deepEqual(unitsAmong(plan, place + 1), { products: counts.product, memories: counts.memory });
        assert.ok(Math.abs(counts.memory / (place + 1) - memories / (products + memories)) <= 1 / (place + 1));
      }
      assert.deepEqual(counts, { product: products, memory: memories });
    }),
  );
});

test('ten challenges at one instant cost as much as ten one after another, and the node answers meanwhile', async () => {
  const plan = { products: 6, memories: 1 };
  const cpuOf = async (count: number) => {
    const before = process.cpuUsage();
    await Promise.all(Array.from({ length: count }, () => engine.start(taskWith(plan)).ended));
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  await cpuOf(2); // compiled, threads started
  const one = Math.min(await cpuOf(1), await cpuOf(1), await cpuOf(1));
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, 1);
  const ten = await cpuOf(10);
  clearInterval(timer);
  // Nothing of one's work serves another's: with it shared, ten would cost little more than one.
  assert.ok(ten > 5 * one, `ten cost ${ten} µs, one ${one} µs`);
  assert.ok(ticks > 5, `${ticks} ticks`);
});

test('devices that are one machine come on at the same pace', async () => {
  const runs = [1, 2, 3].map(() => engine.start(taskWith({ products: 30, memories: 0 })));
  await runs[0]?.ended;
  const done = runs.map((run) => run.progress()?.done ?? 0);
  for (const run of runs) run.stop();
  assert.ok(
    done.every((count) => count >= 25),
    `${done}`,
  );
});

test('an hour has as many challenges as fit a hundredth of it, four at most, in any slot as likely as in any other', () => {
  assert.equal(challengesAnHour({ hourSeconds: 3600, deadlineMs: 3000 }), 4);
  assert.equal(challengesAnHour({ hourSeconds: 300, deadlineMs: 2000 }), 1);
  const slots = 15;
  const counts = new Array<number>(slots).fill(0);
  for (let hour = 0; hour < 600; hour += 1) {
    let left = 4;
    for (let slot = 0; slot < slots; slot += 1) {
      if (!isChallengeSlot(keccak256(toHex(`${hour}/${slot}`)), { slots: slots - slot, challenges: left })) continue;
      left -= 1;
      counts[slot] = (counts[slot] as number) + 1;
    }
    assert.equal(left, 0);
  }
  // 160 each on average; five standard deviations.
  for (const count of counts) assert.ok(Math.abs(count - 160) < 55, `${counts}`);
});
