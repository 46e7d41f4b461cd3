import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { keccak256, toHex } from 'viem';
import { type ChallengeTask, checkLeaves, drawLeaves, type OpenedLeaf } from './challenge-check.ts';
import { type ChallengeSolution, startChallengeEngine } from './challenge-engine.ts';
import { isChallengeSlot } from './challenge-time.ts';
import { CHUNK_ELEMENTS, challengeSize, hashLeaf, leafCount, proveLeaf, treeOf } from './challenge-work.ts';

const RULE = { deadlineMs: 2000, rateFillBps: 5000, memoryFillBps: 2000 };
const SMALL = { side: 96, elements: 2 * CHUNK_ELEMENTS };
const engine = startChallengeEngine();
after(() => engine.close());

const taskWith = (size = SMALL): ChallengeTask => ({ seed: randomBytes(32), size });
const passes = (task: ChallengeTask, { root, open }: ChallengeSolution) => {
  const wanted = drawLeaves(task);
  return checkLeaves(task, root, wanted, open(wanted));
};

/** Who commits to leaves of its own making, and opens them honestly. */
function commitTo(leaves: readonly Uint32Array[]): ChallengeSolution {
  const levels = treeOf(leaves.map((words, index) => hashLeaf(index, words)));
  const open = (indices: readonly number[]): OpenedLeaf[] =>
    indices.map((index) => ({ index, words: leaves[index] as Uint32Array, proof: proveLeaf(levels, index) }));
  return { root: (levels.at(-1) as Uint8Array[])[0] as Uint8Array, open };
}

const allWords = (task: ChallengeTask, solution: ChallengeSolution) =>
  solution.open(Array.from({ length: leafCount(task.size) }, (_, index) => index)).map(({ words }) => Uint32Array.from(words));

test('a challenge that was done passes, and a flipped word, another seed or a made-up root does not', async () => {
  const task = taskWith();
  const solution = await engine.solve(task);
  assert.ok(passes(task, solution));
  const wanted = drawLeaves(task);
  const opened = solution.open(wanted);
  const flipped = opened.map((leaf, at) =>
    at === 0 ? { ...leaf, words: leaf.words.map((word, place) => (place === 5 ? word ^ 1 : word)) } : leaf,
  );
  assert.equal(checkLeaves(task, solution.root, wanted, flipped), false);
  assert.equal(checkLeaves(task, solution.root, wanted, opened.slice(1)), false);
  assert.equal(checkLeaves({ ...task, seed: randomBytes(32) }, solution.root, wanted, opened), false);
  assert.equal(checkLeaves(task, createHash('sha256').digest(), wanted, opened), false);
});

test('who skips half of the rows, or of the memory, is found out', async () => {
  const task = taskWith();
  const words = allWords(task, await engine.solve(task));
  assert.ok(passes(task, commitTo(words)));
  const rows = commitTo(words.map((leaf, index) => (index < task.size.side && index % 2 === 0 ? new Uint32Array(leaf.length) : leaf)));
  const memory = commitTo(words.map((leaf, index) => (index >= task.size.side && index % 2 === 0 ? new Uint32Array(leaf.length) : leaf)));
  // Twelve rows and four chunks are looked at: half of them slip through once in 4,096 and 16 times.
  const caught = (forged: ChallengeSolution) => Array.from({ length: 20 }, () => passes(task, forged)).filter((passed) => !passed).length;
  assert.ok(caught(rows) >= 19);
  assert.ok(caught(memory) >= 12);
});

test('the work is what was declared: as many products as fit the share of the deadline at the declared rate, and not one row more', () => {
  const declared = fc.record({ rate: fc.integer({ min: 10, max: 100_000 }), memoryMbs: fc.integer({ min: 100, max: 100_000 }) });
  fc.assert(
    fc.property(declared, (given) => {
      const { side, elements } = challengeSize(RULE, given);
      const products = given.rate * 1e6 * 1;
      assert.ok(side ** 3 <= products && (side + 1) ** 3 > products);
      assert.equal(elements % CHUNK_ELEMENTS, 0);
    }),
  );
});

test('ten challenges at one instant cost as much as ten one after another, and the node answers meanwhile', async () => {
  const size = { side: 320, elements: 8 * CHUNK_ELEMENTS };
  const cpuOf = async (count: number) => {
    const before = process.cpuUsage();
    await Promise.all(Array.from({ length: count }, () => engine.solve(taskWith(size))));
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
  assert.ok(ten > 6 * one, `ten cost ${ten} µs, one ${one} µs`);
  assert.ok(ticks > 5, `${ticks} ticks`);
});

test('a machine that stops a challenge stops it at once', async () => {
  const stop = new AbortController();
  const solving = engine.solve(taskWith({ side: 1200, elements: CHUNK_ELEMENTS }), stop.signal);
  stop.abort(new TypeError('enough'));
  await assert.rejects(solving, TypeError);
});

test('every hour has a challenge, in any slot as likely as in any other', () => {
  const slots = 15;
  const counts = new Array<number>(slots).fill(0);
  for (let hour = 0; hour < 3000; hour += 1) {
    const slot = Array.from({ length: slots }, (_, at) => at).find((at) => isChallengeSlot(keccak256(toHex(`${hour}/${at}`)), at, slots));
    assert.ok(slot !== undefined);
    counts[slot] = (counts[slot] as number) + 1;
  }
  // 200 each on average; five standard deviations.
  for (const count of counts) assert.ok(Math.abs(count - 200) < 70, `${counts}`);
});
