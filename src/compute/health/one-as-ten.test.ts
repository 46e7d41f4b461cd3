/** What one machine proves for ten devices is no more than what it proves for one, in whatever order it works and whenever it is asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planOf, shareBps, UNIT_WORK, unitAt, unitCount, unitsAmong } from './challenge-work.ts';
import { type Declared, figureOf } from './figures.ts';
import { type Observation, statementOf } from './observations.ts';
import { SeedSight } from './seed-sight.ts';

const RULE = {
  deadlineMs: 2000,
  rateFillBps: 7000,
  memoryFillBps: 3000,
  statementsMin: 1,
  rateWeight: 1,
  memoryWeight: 1,
  bandwidthRef: 1000,
  latencyRef: 50_000,
};
const TEN = 10;
const TIME = 1000n;

/** A machine: what a unit of each kind takes it, and how long it pauses before one because its owner uses it. */
interface Machine {
  productMs: number;
  memoryMs: number;
  pausesMs: readonly number[];
}

/** Who asks about a device: when it looked at the chain, before the seed was public or after, and how long an answer takes. */
interface Asker {
  looksMs: readonly number[];
  delayMs: number;
}

/** When each unit of each device was done, milliseconds after the seed was public: one machine, one unit after another, devices in any order. */
function work(devices: readonly Declared[], { productMs, memoryMs, pausesMs }: Machine, order: readonly number[]): number[][] {
  const plans = devices.map((device) => planOf(RULE, device));
  const doneAt: number[][] = devices.map(() => []);
  let nowMs = 0;
  for (let step = 0; nowMs < RULE.deadlineMs; step += 1) {
    const wanting = plans.flatMap((plan, device) => ((doneAt[device]?.length ?? 0) < unitCount(plan) ? [device] : []));
    if (wanting.length === 0) break;
    const device = wanting[(order[step % order.length] ?? 0) % wanting.length] as number;
    const own = doneAt[device] as number[];
    const { kind } = unitAt(plans[device] as ReturnType<typeof planOf>, own.length);
    nowMs += (kind === 'product' ? productMs : memoryMs) + (pausesMs[step % pausesMs.length] ?? 0);
    own.push(nowMs);
  }
  return doneAt;
}

/** Since when an asker counts: the seed is public at 0, and no look finds it before. */
function startOf({ looksMs, delayMs }: Asker): number | undefined {
  const sight = new SeedSight();
  const looks = [...looksMs, RULE.deadlineMs].sort((one, other) => one - other);
  for (const atMs of looks) sight.looked({ sentAtMs: atMs, answeredAtMs: atMs + delayMs, timestamp: atMs >= 0 ? TIME : TIME - 1n });
  return sight.of(TIME)?.fromMs;
}

/** How many units an asker counts. */
function countedBy(asker: Asker, doneAt: readonly number[]): number {
  const startMs = startOf(asker);
  return startMs === undefined ? 0 : doneAt.filter((atMs) => atMs + asker.delayMs <= startMs + RULE.deadlineMs).length;
}

/** The figure of a device by what its askers counted. */
function figureBy(device: Declared, counts: readonly number[]): bigint {
  const pairs = counts.map((done) => {
    const doneBps = shareBps(RULE, device, done);
    const shared = { hour: 1, seat: 0, round: 0, operatorId: '2', deviceId: '1', at: 0 };
    const observations: Observation[] = [
      { ...shared, ping: { answered: true, rttUs: 1000 } },
      { ...shared, transfer: { downKbs: 1000, upKbs: 1000 } },
      { ...shared, challenge: { slot: 0, verdict: doneBps > 0 ? 'passed' : 'missed', doneBps } },
    ];
    return { said: statementOf(observations), back: undefined };
  });
  return figureOf(RULE, device, pairs).performance;
}

const machines: fc.Arbitrary<Machine> = fc.record({
  productMs: fc.integer({ min: 2, max: 200 }),
  memoryMs: fc.integer({ min: 2, max: 200 }),
  pausesMs: fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 400 })), { minLength: 1, maxLength: 20 }),
});
const askers: fc.Arbitrary<Asker> = fc.record({
  looksMs: fc.array(fc.double({ min: -3000, max: 3000, noNaN: true }), { maxLength: 20 }),
  delayMs: fc.double({ min: 0, max: 300, noNaN: true }),
});
const devices = fc.array(fc.record({ rate: fc.integer({ min: 1, max: 5000 }), memoryMbs: fc.integer({ min: 1, max: 5000 }) }), {
  minLength: TEN,
  maxLength: TEN,
});
const orders = fc.array(fc.nat({ max: 1000 }), { minLength: 1, maxLength: 50 });

test('an asker gives nobody more time than the deadline, however late it looks', () => {
  fc.assert(
    fc.property(askers, (asker) => {
      const startMs = startOf(asker);
      assert.ok(startMs === undefined || startMs <= 0, `${startMs}`);
      // Whoever looks at the chain at least so often counts no device short by more.
      const before = asker.looksMs.filter((atMs) => atMs < 0);
      assert.equal(startMs, before.length === 0 ? undefined : Math.max(...before));
    }),
  );
});

test('ten devices on one machine have no more than one device that declares what they have proven', () => {
  fc.assert(
    fc.property(devices, machines, orders, fc.array(askers, { minLength: TEN * 3, maxLength: TEN * 3 }), (ten, machine, order, all) => {
      const doneAt = work(ten, machine, order);
      const counts = ten.map((_, device) =>
        [0, 1, 2].map((partner) => countedBy(all[3 * device + partner] as Asker, doneAt[device] as number[])),
      );
      const sum = ten.reduce((total, device, at) => total + figureBy(device, counts[at] as number[]), 0n);

      // The same units, made for one device: the machine made them all before the deadline, so in time for whoever counts from the seed.
      const made = doneAt.map((times, device) => {
        const inTime = times.filter((atMs) => atMs <= RULE.deadlineMs).length;
        return unitsAmong(planOf(RULE, ten[device] as Declared), Math.min(inTime, Math.max(...(counts[device] as number[]))));
      });
      const products = made.reduce((total, units) => total + units.products, 0);
      const memories = made.reduce((total, units) => total + units.memories, 0);
      assert.ok(products * machine.productMs + memories * machine.memoryMs <= RULE.deadlineMs);
      const one = {
        rate: Math.floor((products * UNIT_WORK.products) / (RULE.deadlineMs * 0.7 * 1000)),
        memoryMbs: Math.floor((memories * UNIT_WORK.bytes) / (RULE.deadlineMs * 0.3 * 1000)),
      };
      const plan = planOf(RULE, one);
      assert.ok(plan.products <= Math.max(1, products) && plan.memories <= Math.max(1, memories));
      const asOne = figureBy(one, [unitCount(plan)]);
      // What is declared is whole numbers: one of each kind may be rounded away.
      assert.ok(sum <= asOne + BigInt(RULE.rateWeight + RULE.memoryWeight), `as ten ${sum}, as one ${asOne}`);
    }),
    { numRuns: 100 },
  );
});

test('a machine whose owner uses it earns less in proportion, and not nothing', () => {
  fc.assert(
    fc.property(machines, fc.integer({ min: 1, max: 15 }), (machine, load) => {
      const able = {
        rate: Math.floor(UNIT_WORK.products / 1000 / machine.productMs),
        memoryMbs: Math.floor(UNIT_WORK.bytes / 1000 / machine.memoryMs),
      };
      const asker = { looksMs: [-50], delayMs: 20 };
      const paceOf = (times: number): Machine => ({
        productMs: machine.productMs * times,
        memoryMs: machine.memoryMs * times,
        pausesMs: [0],
      });
      const earned = (times: number) => figureBy(able, [countedBy(asker, work([able], paceOf(times), [0])[0] as number[])]);
      const { products, memories } = planOf(RULE, able);
      const [idle, loaded] = [Number(earned(1)), Number(earned(load))];
      // To the unit of each kind that was not ready at the deadline, and the one that its plan is rounded up by.
      const rounding = 2 / products + 2 / memories;
      assert.ok(loaded >= idle * (1 / load - rounding), `${loaded} of ${idle} at load ${load}`);
      assert.ok(loaded <= idle);
    }),
  );
});
