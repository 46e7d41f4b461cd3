import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { RecodingEngine } from './engine.ts';
import { javascriptEngine } from './javascript-engine.ts';
import { createReedSolomon, type ReedSolomon } from './reed-solomon.ts';

/** Any code, with small ones and those in use often. */
const shapes = fc.oneof(
  fc.constantFrom({ k: 10, n: 14 }, { k: 4, n: 6 }, { k: 20, n: 30 }, { k: 1, n: 1 }, { k: 1, n: 5 }, { k: 7, n: 7 }, { k: 32, n: 32 }),
  fc.integer({ min: 1, max: 32 }).chain((n) => fc.record({ k: fc.integer({ min: 1, max: n }), n: fc.constant(n) })),
);
const wideShapes = fc.integer({ min: 33, max: 255 }).chain((n) => fc.record({ k: fc.integer({ min: 1, max: n }), n: fc.constant(n) }));
/** Lengths about the engine's steps, and any other. */
const lengths = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.constantFrom(16_383, 16_384, 16_385, 16_384 * 2 + 65),
  fc.integer({ min: 0, max: 40_000 }),
);

/** What every engine must do: called by each engine's test. */
export function reedSolomonCases(engine: RecodingEngine): void {
  randomCases(engine);
  knownCases(engine);
  refusalCases(engine);
}

function randomCases(engine: RecodingEngine): void {
  test(`${engine.name}: any k of n shards give back the data, whatever is missing`, () => {
    const property = (kinds: typeof shapes) =>
      fc.property(kinds, lengths, fc.infiniteStream(fc.nat()), fc.nat(), ({ k, n }, length, order, seed) => {
        const code = createReedSolomon({ k, n }, engine);
        const shards = encoded(code, length, seed);
        const chosen = shuffled(n, order).slice(0, k);
        const decoded = code.decode(chosen.map((index) => ({ index, bytes: shards[index] as Uint8Array })));
        assert.deepEqual(decoded, shards.slice(0, k));
      });
    fc.assert(property(shapes), { numRuns: 150 });
    fc.assert(property(wideShapes as typeof shapes), { numRuns: 6 });
  });

  test(`${engine.name}: any one shard, data or parity, is rebuilt from any k others`, () => {
    fc.assert(
      fc.property(shapes, lengths, fc.infiniteStream(fc.nat()), fc.nat(), ({ k, n }, length, order, seed) => {
        fc.pre(k < n);
        const code = createReedSolomon({ k, n }, engine);
        const shards = encoded(code, length, seed);
        const [lost, ...others] = shuffled(n, order) as [number, ...number[]];
        const given = others.slice(0, k).map((index) => ({ index, bytes: shards[index] as Uint8Array }));
        assert.deepEqual(code.rebuild(given, lost), shards[lost]);
      }),
      { numRuns: 100 },
    );
  });

  test(`${engine.name}: parity equals that of the reference engine, byte by byte`, () => {
    fc.assert(
      fc.property(shapes, lengths, fc.nat(), (shape, length, seed) => {
        const reference = encoded(createReedSolomon(shape, javascriptEngine), length, seed);
        const code = createReedSolomon(shape, engine);
        assert.deepEqual(encoded(code, length, seed), reference);
        assert.deepEqual(encoded(code, length, seed, code.allocate(shape.n, length)), reference);
      }),
      { numRuns: 100 },
    );
  });
}

function knownCases(engine: RecodingEngine): void {
  test(`${engine.name}: every one of the 1,001 ways to keep 10 of 14 shards gives the data back`, () => {
    const code = createReedSolomon({ k: 10, n: 14 }, engine);
    const shards = encoded(code, 100, 7);
    let ways = 0;
    for (let kept = 0; kept < 1 << 14; kept += 1) {
      const indices = shards.flatMap((_, index) => ((kept >> index) & 1 ? [index] : []));
      if (indices.length !== 10) continue;
      ways += 1;
      assert.deepEqual(code.decode(indices.map((index) => ({ index, bytes: shards[index] as Uint8Array }))), shards.slice(0, 10));
    }
    assert.equal(ways, 1001);
  });

  test(`${engine.name}: the first parity is the sum of the data, and a code of one data shard is plain copies`, () => {
    const sum = encoded(createReedSolomon({ k: 3, n: 5 }, engine), 70, 1);
    for (let i = 0; i < 70; i += 1) assert.equal(sum[3]?.[i], (sum[0]?.[i] ?? 0) ^ (sum[1]?.[i] ?? 0) ^ (sum[2]?.[i] ?? 0));
    const copies = encoded(createReedSolomon({ k: 1, n: 4 }, engine), 70, 2);
    for (const copy of copies) assert.deepEqual(copy, copies[0]);
  });

  test(`${engine.name}: parts of allocated buffers are written and nothing beside them`, () => {
    const code = createReedSolomon({ k: 3, n: 5 }, engine);
    fc.assert(
      fc.property(fc.nat(400), fc.nat(400), fc.nat(), (skip, length, seed) => {
        const whole = code.allocate(5, 1000);
        for (const shard of whole) shard.fill(0xbb);
        const parts = whole.map((shard) => shard.subarray(skip, skip + length));
        assert.deepEqual(encoded(code, length, seed, parts), encoded(createReedSolomon(code, javascriptEngine), length, seed));
        for (const shard of whole) {
          assert.ok(shard.subarray(0, skip).every((byte) => byte === 0xbb) && shard.subarray(skip + length).every((byte) => byte === 0xbb));
        }
      }),
      { numRuns: 50 },
    );
  });

  test(`${engine.name}: a flipped byte in a shard in use changes what is decoded`, () => {
    const code = createReedSolomon({ k: 4, n: 6 }, engine);
    const shards = encoded(code, 64, 3);
    const given = [1, 2, 3, 5].map((index) => ({ index, bytes: Uint8Array.from(shards[index] as Uint8Array) }));
    (given[3]?.bytes as Uint8Array)[10] = (shards[5]?.[10] ?? 0) ^ 1;
    assert.notDeepEqual(code.decode(given), shards.slice(0, 4));
  });
}

function refusalCases(engine: RecodingEngine): void {
  test(`${engine.name}: wrong codes, numbers, indices and sizes of shards are typed errors`, () => {
    for (const [k, n] of [
      [0, 1],
      [3, 2],
      [1, 256],
      [1.5, 3],
      [Number.NaN, 4],
    ] as const) {
      assert.throws(() => createReedSolomon({ k, n }, engine), { code: 'bad-erasure-code' });
    }
    const code = createReedSolomon({ k: 2, n: 4 }, engine);
    const shard = (index: number, length = 8) => ({ index, bytes: new Uint8Array(length) });
    assert.throws(() => code.decode([shard(0)]), { code: 'too-few-shards' });
    assert.throws(() => code.decode([shard(0), shard(0)]), { code: 'bad-shard-index' });
    assert.throws(() => code.decode([shard(0), shard(4)]), { code: 'bad-shard-index' });
    assert.throws(() => code.decode([shard(0), shard(2, 9)]), { code: 'bad-shard-sizes' });
    assert.throws(() => code.rebuild([shard(0), shard(1)], -1), { code: 'bad-shard-index' });
    assert.throws(() => code.rebuild([shard(0), shard(1)], 1), { code: 'too-few-shards' });
    assert.throws(() => code.encode([new Uint8Array(8)], [new Uint8Array(8), new Uint8Array(8)]), { code: 'bad-shard-sizes' });
    assert.throws(() => code.encode([new Uint8Array(8), new Uint8Array(8)], [new Uint8Array(8), new Uint8Array(7)]), {
      code: 'bad-shard-sizes',
    });
  });
}

function encoded(code: ReedSolomon, length: number, seed: number, into = plainShards(code.n, length)): Uint8Array[] {
  let state = (seed | 0) ^ 0x9e3779b9 || 1;
  for (const shard of into.slice(0, code.k)) {
    for (let i = 0; i < length; i += 1) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      shard[i] = state;
    }
  }
  code.encode(into.slice(0, code.k), into.slice(code.k));
  return into.map((shard) => Uint8Array.from(shard));
}

const plainShards = (count: number, length: number): Uint8Array[] => Array.from({ length: count }, () => new Uint8Array(length).fill(0xaa));

function shuffled(n: number, order: fc.Stream<number>): number[] {
  const indices = Array.from({ length: n }, (_, index) => index);
  const draws = [...order.take(n)];
  for (let i = n - 1; i > 0; i -= 1) {
    const other = (draws[i] as number) % (i + 1);
    [indices[i], indices[other]] = [indices[other] as number, indices[i] as number];
  }
  return indices;
}
