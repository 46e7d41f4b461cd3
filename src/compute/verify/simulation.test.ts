import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { drawOrder } from './draw-segments.ts';
import { type GroupOutcome, SIMULATION_DEFAULTS, type SimulationOutcome, simulateJobs } from './simulation.ts';
import { measureStakes } from './simulation-stakes.ts';

/** CI looks at about a fifth of the jobs that the goals are stated for; `npm run journeys -- --full` and the command line at all. */
const FULL = process.env.MILLRACE_FULL === '1';
const SEED = 7;

const groupOf = ({ groups }: SimulationOutcome, kind: GroupOutcome['kind']) => groups.find((group) => group.kind === kind) as GroupOutcome;

test('whole forgeries are all slashed, honest work never, and audits cost two in a hundred after probation', () => {
  const outcome = simulateJobs({ ...SIMULATION_DEFAULTS, seed: SEED, honest: FULL ? 18 : 2, jobsEach: FULL ? 50 : 18 });
  const forger = groupOf(outcome, 'forger');
  assert.ok(forger.cheats > 0);
  assert.equal(forger.slashed, forger.cheats);
  assert.equal(outcome.falseSlashes, 0);
  assert.equal(outcome.probationOverhead, 1);
  assert.ok(outcome.overhead <= 0.03, `${outcome.overhead}`);
});

test('who makes a tenth of its segments up is slashed within fifty jobs, 99 times in a hundred', () => {
  const skippers = FULL ? 1_000 : 20;
  const settings = { ...SIMULATION_DEFAULTS, seed: SEED, honest: 0, forgers: 0, skippers, jobsEach: 50, probationJobs: 0 };
  const { providersSlashed } = groupOf(simulateJobs({ ...settings, leavesWhenSlashed: true }), 'skipper');
  assert.ok(providersSlashed >= 0.99 * skippers, `${providersSlashed} of ${skippers}`);
});

test('honest work is not slashed, whatever share of the seats colludes with cheaters', () => {
  for (const colludingShare of [0.1, 0.4]) {
    const settings = { ...SIMULATION_DEFAULTS, seed: SEED, colludingShare, honest: 1, jobsEach: 15, segments: 20 };
    assert.equal(simulateJobs(settings).falseSlashes, 0);
  }
});

test('the stake at which cheating stops paying is about that of the formula, and within its bound where juries hold', () => {
  const rows = measureStakes({ seed: SEED, jobs: FULL ? 400 : 24, segments: FULL ? 100 : 40 });
  for (const { colludingShare, skippedShare, breakEven, formula, bound } of rows) {
    // Where few are found, few jobs say little.
    if (skippedShare < (FULL ? 0.1 : 0.5) || colludingShare > 0.2) continue;
    assert.ok(formula <= bound + 1e-9);
    assert.ok(breakEven < formula * 1.7 && breakEven > formula / 1.7, `${breakEven} measured, ${formula} by formula`);
  }
});

test('a draw gives entries of the population, no two the same', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 256n - 1n }),
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 60 }),
      (seed, population, count) => {
        const drawn = drawOrder(seed, population, count);
        assert.equal(drawn.length, Math.min(population, count));
        assert.equal(new Set(drawn).size, drawn.length);
        assert.ok(drawn.every((entry) => entry >= 0 && entry < population));
      },
    ),
  );
});
