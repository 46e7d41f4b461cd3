import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Candidate, chooseMiners } from './choose-miners.ts';
import { createMinerHealth } from './miner-health.ts';
import { ANY_MINER, type ProviderPolicy, readProviderPolicy } from './provider-policy.ts';

const model = {
  id: 'm',
  root: `0x${'11'.repeat(32)}` as const,
  task: 'chat' as const,
  unit: 'tokens' as const,
  inputPerMillion: 100n,
  outputPerMillion: 100n,
  perRequest: 0n,
  contextTokens: 0n,
  outputUnitsMax: 64n,
  concurrency: 4n,
  evidence: 'reputation only' as const,
  quantization: 'int8',
  parameters: 'tools,seed',
};
const candidate = (index: number, more: Partial<Candidate> = {}): Candidate => ({
  names: [`operator-${index}`, String(index), `uid-${index}`],
  key: `miner ${index}`,
  rank: 0.5,
  model,
  zeroRetention: true,
  price: 1000n,
  ttftMs: 100,
  tpotMs: 10,
  inFlight: 0,
  isOpen: true,
  hasRoom: true,
  ...more,
});
const choose = (candidates: Candidate[], policy: Partial<ProviderPolicy> = {}, affinity = 1, parameters: string[] = []) =>
  chooseMiners(candidates, { policy: { ...ANY_MINER, ...policy }, affinity, parameters, outputUnits: 10 }).map(({ names }) =>
    Number(names[1]),
  );
const shareOfFirst = (candidates: Candidate[], index: number) => {
  const firsts = Array.from({ length: 2000 }, (_, affinity) => choose([...candidates], {}, Math.imul(affinity, 0x9e3779b1))[0]);
  return firsts.filter((first) => first === index).length / firsts.length;
};

test('prefixes are spread over miners by weight: twice the rank gets twice the prefixes, twice the price a quarter', () => {
  const even = shareOfFirst([candidate(1), candidate(2)], 1);
  assert.ok(Math.abs(even - 0.5) < 0.05, String(even));
  const ranked = shareOfFirst([candidate(1, { rank: 1 }), candidate(2, { rank: 0.5 })], 1);
  assert.ok(Math.abs(ranked - 2 / 3) < 0.05, String(ranked));
  const dear = shareOfFirst([candidate(1, { price: 2000n }), candidate(2)], 1);
  assert.ok(Math.abs(dear - 0.2) < 0.05, String(dear));
});

test('a miner that answers at once gains no more by it than one that is twice as fast as the others', () => {
  const others = [candidate(2), candidate(3), candidate(4)];
  const atOnce = shareOfFirst([candidate(1, { ttftMs: 1, tpotMs: 0 }), ...others], 1);
  assert.ok(Math.abs(atOnce - 2 / 5) < 0.05, String(atOnce));
  const unranked = shareOfFirst([candidate(1, { rank: 0, ttftMs: 1, tpotMs: 0 }), ...others], 1);
  assert.ok(unranked < 0.1, String(unranked));
});

test('a prefix keeps its miner when others come and go', () => {
  const miners = Array.from({ length: 8 }, (_, index) => candidate(index));
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.integer({ min: 0, max: 7 }), (affinity, gone) => {
      const [first] = choose([...miners], {}, affinity);
      if (first === gone) return;
      assert.equal(
        choose(
          miners.filter((_, index) => index !== gone),
          {},
          affinity,
        )[0],
        first,
      );
    }),
  );
});

test('the fields of the provider object do what they say', () => {
  const miners = [
    candidate(1, { price: 3000n, ttftMs: 10, tpotMs: 30 }),
    candidate(2, {
      price: 2000n,
      ttftMs: 30,
      tpotMs: 10,
      zeroRetention: false,
      model: { ...model, quantization: 'fp16', outputPerMillion: 200n },
    }),
    candidate(3, { price: 1000n, ttftMs: 20, tpotMs: 20, model: { ...model, parameters: '' } }),
  ];
  const by = (wanted: object, parameters: string[] = []) => choose([...miners], readProviderPolicy(wanted), 1, parameters);
  assert.deepEqual(by({ sort: 'price' }), [3, 2, 1]);
  assert.deepEqual(by({ sort: 'latency' }), [1, 3, 2]);
  assert.deepEqual(by({ sort: 'throughput' }), [2, 3, 1]);
  assert.deepEqual(by({ order: ['operator-2', 'uid-1'] }), [2, 1, 3]);
  assert.deepEqual(by({ order: ['Operator-2'], allow_fallbacks: false }), [2]);
  assert.deepEqual(by({ only: ['1', '3'], sort: 'price' }), [3, 1]);
  assert.deepEqual(by({ ignore: ['3'], sort: 'price' }), [2, 1]);
  assert.deepEqual(by({ zdr: true, sort: 'price' }), [3, 1]);
  assert.deepEqual(by({ data_collection: 'deny', sort: 'price' }), [3, 1]);
  assert.deepEqual(by({ quantizations: ['fp16'] }), [2]);
  assert.deepEqual(by({ max_price: { completion: '150' }, sort: 'price' }), [3, 1]);
  assert.deepEqual(by({ require_parameters: true, sort: 'price' }, ['tools']), [2, 1]);
  assert.deepEqual(by({ preferred_min_throughput: 60, sort: 'price' }), [2, 3, 1]);
  assert.equal(by({ allow_fallbacks: false }).length, 1);
  for (const wrong of [
    { order: 'x' },
    { sort: 'beauty' },
    { max_price: { prompt: -1 } },
    { zdr: 'yes' },
    { data_collection: 'maybe' },
    [],
  ]) {
    assert.throws(() => readProviderPolicy(wrong), { code: 'bad-request' });
  }
});

test('busy miners come after free ones, the least loaded first, then those that cannot be paid now, and those that cool down last', () => {
  const miners = [
    candidate(1, { isOpen: false, price: 1n }),
    candidate(2, { hasRoom: false, price: 1n }),
    candidate(3, { inFlight: 9, price: 1n }),
    candidate(4, { inFlight: 7, price: 1n }),
    candidate(5),
  ];
  for (let affinity = 0; affinity < 50; affinity += 1) assert.deepEqual(choose([...miners], {}, affinity), [5, 4, 3, 2, 1]);
});

test('a miner that fails is left alone longer each time, tried once, and forgiven when it succeeds', () => {
  const health = createMinerHealth();
  health.failed(0);
  assert.equal(health.isOpen(999), false);
  assert.equal(health.isOpen(1000), true);
  health.begin(1000);
  assert.equal(health.isOpen(1001), false, 'one trial at a time');
  health.failed(1000);
  assert.equal(health.isOpen(2999), false);
  assert.equal(health.isOpen(3000), true);
  health.failed(3000, 30_000);
  assert.equal(health.isOpen(32_000), false);
  health.succeeded({ ttftMs: 100, tpotMs: 10 });
  assert.equal(health.isOpen(3001), true);
  health.succeeded({ ttftMs: 200, tpotMs: undefined });
  assert.equal(health.ttftMs, 120);
  assert.equal(health.tpotMs, 10);
  health.lied(0);
  assert.equal(health.isOpen(3_599_999), false);
});

test('a miner gets no more requests at once than it has places; who waits gets the next one in order, or goes away', async () => {
  const health = createMinerHealth();
  const never = new AbortController().signal;
  await health.enter(2, never);
  assert.equal(health.hasPlace(2), true);
  await health.enter(2, never);
  assert.deepEqual([health.hasPlace(2), health.inFlight], [false, 2]);
  const order: number[] = [];
  const gone = new AbortController();
  const left = health.enter(2, gone.signal);
  const waiting = [1, 2].map(async (index) => {
    await health.enter(2, never);
    order.push(index);
  });
  gone.abort(new RangeError('gone'));
  await assert.rejects(left, /gone/);
  health.leave();
  health.leave();
  await Promise.all(waiting);
  assert.deepEqual([order, health.inFlight], [[1, 2], 2]);
  health.leave();
  health.leave();
  assert.deepEqual([health.inFlight, health.hasPlace(1)], [0, true]);
});
