import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { keccak256, stringToBytes, toHex } from 'viem';
import { drawLeaves, drawPieceLeaves, turnsOf } from './draws.ts';
import { freezeTime, periodAt, periodStart, seedTime } from './periods.ts';
import { PieceTable, type TableLeaf } from './table.ts';

const counts = { byBytes: 10, byWeight: 10, rotationMin: 1, rotationPeriods: 8 };

function leaf(dealId: bigint, leaves: bigint, weight: bigint): TableLeaf {
  return { pieceRoot: keccak256(toHex(dealId)), pieceHeight: 32, leaves, weight, dealId };
}

test('every slot has its turn exactly once in rotationPeriods, also while the table grows', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.bigInt({ min: 0n, max: 2n ** 40n }),
      fc.array(fc.nat(60), { minLength: 40 }),
      (rotationPeriods, start, growth) => {
        let slots = 1;
        const first = slots;
        const drawn = new Map<number, number>();
        for (let offset = 0; offset < rotationPeriods; offset += 1) {
          for (const slot of turnsOf({ slots, period: start + BigInt(offset), rotationPeriods, rotationMin: 0 })) {
            drawn.set(slot, (drawn.get(slot) ?? 0) + 1);
          }
          slots += growth[offset % growth.length] as number;
        }
        for (let slot = 0; slot < first; slot += 1) assert.equal(drawn.get(slot), 1);
        for (const times of drawn.values()) assert.equal(times, 1);
      },
    ),
  );
});

test('turns are topped up to rotationMin with slots of the table', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.nat(1000),
      fc.integer({ min: 1, max: 20 }),
      fc.nat(9),
      (slots, period, rotationPeriods, rotationMin) => {
        const turns = turnsOf({ slots, period: BigInt(period), rotationPeriods, rotationMin });
        assert.ok(turns.length >= rotationMin);
        assert.ok(turns.every((slot) => slot < slots));
      },
    ),
  );
  assert.deepEqual(turnsOf({ slots: 0, period: 3n, rotationPeriods: 4, rotationMin: 2 }), []);
});

test('a period with an open miss draws twice as many leaves of each kind', () => {
  const table = new PieceTable();
  for (let slot = 0; slot < 20; slot += 1) table.insert(slot, leaf(BigInt(slot + 1), 100n, 1n));
  const draw = (times: 1 | 2) => drawLeaves({ table, counts, seed: keccak256('0x01'), operatorId: 7n, period: 3n, times });
  assert.equal(draw(1).length, 10 + 10 + 3);
  assert.equal(draw(2).length, 2 * draw(1).length);
  assert.deepEqual(
    draw(1)
      .slice(20)
      .map((each) => each.slot),
    [3, 11, 19],
  );
});

test('other seeds, operators and periods draw other leaves', () => {
  const table = new PieceTable();
  table.insert(0, leaf(1n, 2n ** 32n, 1n));
  const draw = (seed: string, operatorId: bigint, period: bigint) =>
    drawLeaves({ table, counts, seed: keccak256(stringToBytes(seed)), operatorId, period, times: 1 }).map((each) => each.leafIndex);
  const all = [draw('a', 1n, 1n), draw('b', 1n, 1n), draw('a', 2n, 1n), draw('a', 1n, 2n)];
  assert.equal(new Set(all.flat().map(String)).size, all.flat().length);
});

test('draws by bytes follow size and draws by weight follow collateral, whatever the filler', () => {
  const table = new PieceTable();
  table.insert(0, leaf(1n, 1n << 20n, 1000n));
  for (let slot = 1; slot <= 100; slot += 1) table.insert(slot, leaf(BigInt(slot + 1), 1n << 20n, 10n));
  let byBytes = 0;
  let byWeight = 0;
  const rounds = 400;
  for (let round = 0; round < rounds; round += 1) {
    const draws = drawLeaves({ table, counts, seed: keccak256(toHex(round)), operatorId: 1n, period: BigInt(round), times: 1 });
    byBytes += draws.slice(0, 10).filter((each) => each.slot === 0).length;
    byWeight += draws.slice(10, 20).filter((each) => each.slot === 0).length;
  }
  // Expected 4,000 / 101 = 40 (deviation 6) and 4,000 / 2 = 2,000 (deviation 32); the seeds are fixed.
  assert.ok(byBytes > 10 && byBytes < 70, `by bytes ${byBytes}`);
  assert.ok(byWeight > 1850 && byWeight < 2150, `by weight ${byWeight}`);
});

test('the leaves drawn of one piece are within its payload', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 1n, max: 2n ** 32n }),
      fc.integer({ min: 1, max: 20 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      (leaves, count, dealId) => {
        const drawn = drawPieceLeaves({ seed: keccak256('0x02'), dealId, leaves, count });
        assert.equal(drawn.length, count);
        assert.ok(drawn.every((index) => index >= 0n && index < leaves));
      },
    ),
  );
});

test('freeze, seed and deadline follow one another inside each period', () => {
  const clock = { genesis: 1_000n, period: 300, window: 150, freeze: 10 };
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 40n }), (period) => {
      assert.equal(periodAt(clock, periodStart(clock, period)), period);
      assert.equal(periodAt(clock, periodStart(clock, period + 1n) - 1n), period);
      assert.equal(seedTime(clock, period), periodStart(clock, period) + 150n);
      assert.equal(freezeTime(clock, period), periodStart(clock, period) + 140n);
    }),
  );
});
