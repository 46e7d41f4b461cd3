import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chooseCode, describeCode } from './choose-code.ts';
import { measureRates, PRIOR_RECORD } from './durability-record.ts';
import { parseDurability, renderDurability, viewDurability } from './durability-text.ts';
import { HOURS_PER_YEAR, type LossModel, lossProbability, meanHoursToLoss, ninesOf } from './loss-probability.ts';
import { simulateLosses } from './simulate-losses.ts';

const NOTHING = { shardHours: 0, losses: 0, repairHoursSum: 0, repairs: 0 };
const models = fc
  .integer({ min: 1, max: 32 })
  .chain((n) => fc.record({ n: fc.constant(n), k: fc.integer({ min: 1, max: n }) }))
  .chain(({ k, n }) =>
    fc.record({
      k: fc.constant(k),
      n: fc.constant(n),
      repairBelow: k === n ? fc.constant(0) : fc.oneof(fc.constant(0), fc.integer({ min: k + 1, max: n })),
      failuresPerHour: fc.double({ min: 1e-7, max: 1e-2, noNaN: true }),
      repairHours: fc.double({ min: 0.01, max: 1000, noNaN: true }),
    }),
  );

function assertNear(got: number, expected: number, relative: number, what = ''): void {
  assert.ok(Math.abs(got - expected) <= relative * Math.abs(expected), `${what}: got ${got}, expected ${expected}`);
}

test('without repair the chain gives the binomial law of shards that outlive the time', () => {
  for (const [k, n] of [
    [10, 14],
    [1, 1],
    [1, 3],
    [20, 30],
    [32, 32],
  ] as const) {
    for (const hours of [1, 1000, 87_600]) {
      const failuresPerHour = 2e-5;
      const dead = -Math.expm1(-failuresPerHour * hours);
      let expected = 0;
      for (let lost = n - k + 1; lost <= n; lost += 1) expected += choose(n, lost) * dead ** lost * (1 - dead) ** (n - lost);
      assertNear(
        lossProbability({ k, n, repairBelow: 0, failuresPerHour, repairHours: 1 }, hours),
        expected,
        1e-6,
        `${k} of ${n}, ${hours} h`,
      );
    }
  }
});

test('two copies with repair follow the textbook formula for a mirror', () => {
  const [loss, repair] = [1e-4, 1 / 24];
  const model = { k: 1, n: 2, repairBelow: 2, failuresPerHour: loss, repairHours: 1 / repair };
  assertNear(meanHoursToLoss(model), (3 * loss + repair) / (2 * loss * loss), 1e-12);
  // Transient solution of the three-state chain by its two eigenvalues.
  const sum = 3 * loss + repair;
  const root = Math.sqrt(sum * sum - 8 * loss * loss);
  const [fast, slow] = [(sum + root) / 2, (4 * loss * loss) / (sum + root)];
  for (const hours of [10, 8760, 876_000]) {
    const expected = (fast * -Math.expm1(-slow * hours) - slow * -Math.expm1(-fast * hours)) / (fast - slow);
    assertNear(lossProbability(model, hours), expected, 1e-6, `${hours} h`);
  }
});

test('with fast repair, the closed mean time gives the probability of a year, down to twenty nines', () => {
  for (const [k, n, repairBelow] of [
    [10, 14, 14],
    [10, 14, 13],
    [4, 6, 6],
    [20, 30, 26],
  ] as const) {
    const model = { k, n, repairBelow, failuresPerHour: 1 / 8760, repairHours: 6 };
    assertNear(
      lossProbability(model, 10 * HOURS_PER_YEAR),
      -Math.expm1((-10 * HOURS_PER_YEAR) / meanHoursToLoss(model)),
      0.02,
      `${k} of ${n}`,
    );
  }
});

test('the probability is between 0 and 1, grows with time and failures, and falls with shards, repair speed and threshold', () => {
  fc.assert(
    fc.property(models, fc.double({ min: 1, max: 100_000, noNaN: true }), (model, hours) => {
      const p = lossProbability(model, hours);
      const atMost = (other: number) => assert.ok(p <= other * (1 + 1e-6) + 1e-300, `${p} is above ${other}`);
      assert.ok(p >= 0 && p <= 1 + 1e-9);
      atMost(lossProbability(model, hours * 2));
      atMost(lossProbability({ ...model, failuresPerHour: model.failuresPerHour * 2 }, hours));
      if (model.repairBelow > 0) {
        atMost(lossProbability({ ...model, repairHours: model.repairHours * 2 }, hours));
        atMost(lossProbability({ ...model, repairBelow: model.repairBelow - 1 > model.k ? model.repairBelow - 1 : 0 }, hours));
      }
      if (model.k < model.n && model.repairBelow < model.n) atMost(lossProbability({ ...model, n: model.n - 1 }, hours));
    }),
    { numRuns: 200 },
  );
});

test('ten simulated years agree with the formula within the interval, for several codes, failure rates, repair speeds and thresholds', () => {
  const cases: LossModel[] = [
    { k: 1, n: 3, repairBelow: 3, failuresPerHour: 1 / 2000, repairHours: 40 },
    { k: 4, n: 6, repairBelow: 6, failuresPerHour: 1 / 8760, repairHours: 100 },
    { k: 4, n: 6, repairBelow: 5, failuresPerHour: 1 / 8760, repairHours: 48 },
    { k: 10, n: 14, repairBelow: 13, failuresPerHour: 1 / 4000, repairHours: 72 },
    { k: 10, n: 14, repairBelow: 14, failuresPerHour: 1 / 2000, repairHours: 72 },
    { k: 20, n: 30, repairBelow: 25, failuresPerHour: 1 / 1500, repairHours: 120 },
    { k: 10, n: 14, repairBelow: 0, failuresPerHour: 1 / 500_000, repairHours: 1 },
  ];
  for (const [index, model] of cases.entries()) {
    const hours = 10 * HOURS_PER_YEAR;
    const { low, high, lost } = simulateLosses({ ...model, hours }, { files: 1500, seed: 1 + index });
    const expected = lossProbability(model, hours);
    assert.ok(lost >= 10, `case ${index}: ${lost} lost files say nothing`);
    assert.ok(expected >= low && expected <= high, `case ${index}: formula ${expected}, simulated ${low} to ${high}`);
  }
});

test('failures that take several shards at once are worse than the formula says, and the simulator shows it', () => {
  const model = { k: 10, n: 14, repairBelow: 13, failuresPerHour: 1 / 20_000, repairHours: 24, hours: 10 * HOURS_PER_YEAR };
  const files = 2000;
  const independent = simulateLosses(model, { files, seed: 5 });
  const operators = simulateLosses({ ...model, shardsPerOperator: 5 }, { files, seed: 5 });
  const regions = simulateLosses({ ...model, regions: 2, regionFailuresPerHour: 1e-6 }, { files, seed: 5 });
  assert.ok(independent.high < operators.low && independent.high < regions.low);
  assert.deepEqual(simulateLosses(model, { files, seed: 5 }), independent);
});

test('rates come from what was seen, and from the stated prior while little was', () => {
  const young = measureRates(NOTHING, 0);
  assert.equal(young.failuresPerHour, 1 / 8760);
  assert.equal(young.repairHours, 24);
  assert.equal(young.measuredShare, 0);
  const old = measureRates({ shardHours: 1e8, losses: 100, repairHoursSum: 500, repairs: 100 }, 2);
  assertNear(old.failuresPerHour, 1e-6, 0.02);
  assertNear(old.repairHours, 2 + 524 / 101, 1e-12);
  assert.ok(old.measuredShare > 0.999);
  assert.deepEqual(PRIOR_RECORD, { shardHours: 8760, losses: 1, repairHoursSum: 24, repairs: 1 });
});

test('a chosen code reaches the wanted nines, and no cheaper one of its k does', () => {
  const wishes = { carSize: 1 << 30, hours: HOURS_PER_YEAR, rates: measureRates(NOTHING, 0), operators: 32 };
  for (const nines of [2, 6, 11]) {
    const choice = chooseCode({ ...wishes, nines });
    assert.ok(choice.nines >= nines);
    assert.equal(choice.lossProbability, lossProbability({ ...wishes.rates, ...choice }, wishes.hours));
    assert.ok(describeCode(wishes, { ...choice, n: choice.n - 1, repairBelow: choice.n - 1 }).nines < nines);
    if (choice.repairBelow > choice.k + 1)
      assert.ok(describeCode(wishes, { ...choice, repairBelow: choice.repairBelow - 1 }).nines < nines);
  }
});

test('a price decides, a budget and too few operators are refused with what there is, a small file is kept in few shards', () => {
  const wishes = { carSize: 1 << 30, hours: HOURS_PER_YEAR, rates: measureRates(NOTHING, 0), operators: 32, nines: 9 };
  const perShard = chooseCode({ ...wishes, quote: ({ n }) => BigInt(n) });
  const perByte = chooseCode({ ...wishes, quote: ({ n, shardCarSize }) => BigInt(n * shardCarSize) });
  assert.ok(perShard.n < perByte.n && perShard.expansion > perByte.expansion);
  assert.equal(perShard.price, BigInt(perShard.n));
  assert.throws(() => chooseCode({ ...wishes, quote: () => 100n, budget: 99n }), { code: 'too-expensive' });
  assert.throws(() => chooseCode({ ...wishes, operators: 2 }), { code: 'durability-unreachable' });
  assert.throws(() => chooseCode({ ...wishes, operators: 0 }), { code: 'durability-unreachable' });
  assert.equal(chooseCode({ ...wishes, carSize: 1000 }).k, 1);
});

test('the ways to write a durability are read, and others refused', () => {
  assert.deepEqual(parseDurability('10+4'), { k: 10, n: 14 });
  assert.deepEqual(parseDurability(' 10 of 14 '), { k: 10, n: 14 });
  assert.deepEqual(parseDurability('11nines'), { nines: 11 });
  assert.deepEqual(parseDurability('4.5 nines'), { nines: 4.5 });
  for (const text of ['', '10', '10-4', '0nines', '21nines', 'nines', '1e3nines', '10+', '+4', '10+4+1']) {
    assert.throws(() => parseDurability(text), { code: 'bad-durability' }, text);
  }
  for (const text of ['0+4', '14of10', '30+4', '999of999']) assert.throws(() => parseDurability(text), { code: 'bad-erasure-code' }, text);
});

test('what a client is shown says what was measured and what is assumed', () => {
  const token = { symbol: 'MILL', decimals: 18 };
  const rates = measureRates({ shardHours: 91_240, losses: 4, repairHoursSum: 30, repairs: 5 }, 0.5);
  const wishes = { carSize: 1 << 30, hours: HOURS_PER_YEAR, rates, operators: 14, quote: () => 12_500_000_000_000_000_000n };
  const view = viewDurability(describeCode(wishes, { k: 10, n: 14, repairBelow: 13 }), rates, wishes.hours);
  const lines = renderDurability(view, token);
  assert.equal(lines.length, 4);
  assert.match(lines[0] as string, /^any 10 of 14 shards give the file back; repaired when fewer than 13 are healthy; 1\.40 bytes/);
  assert.match(lines[1] as string, /^probability of loss in 365d 0h|^probability of loss in 365d: /);
  assert.match(lines[2] as string, /91 % measured: 4 losses in 91240 shard-hours, 5 repairs/);
  assert.match(lines[3] as string, /at most 12\.5 MILL/);
  const assumed = viewDurability(
    describeCode({ ...wishes, rates: measureRates(NOTHING, 0) }, { k: 2, n: 2, repairBelow: 0 }),
    measureRates(NOTHING, 0),
    24,
  );
  assert.match(renderDurability(assumed, token).join('\n'), /never repaired[\s\S]*assumed, nothing was measured yet/);
  assert.equal(ninesOf(1e-11), 11);
  assert.equal(ninesOf(0), 30);
});

test('wrong inputs of the model are typed errors', () => {
  const model = { k: 2, n: 4, repairBelow: 3, failuresPerHour: 1e-4, repairHours: 1 };
  const wrong = { code: 'bad-durability-input' };
  for (const change of [
    { repairBelow: 2 },
    { repairBelow: 5 },
    { failuresPerHour: -1 },
    { failuresPerHour: Number.NaN },
    { repairHours: 0 },
  ]) {
    assert.throws(() => lossProbability({ ...model, ...change }, 1), wrong);
  }
  assert.throws(() => lossProbability(model, -1), wrong);
});

function choose(n: number, k: number): number {
  let result = 1;
  for (let i = 1; i <= k; i += 1) result *= (n - k + i) / i;
  return result;
}
