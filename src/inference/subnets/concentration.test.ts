import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { concentrationOf, resemblances } from './concentration.ts';

test('the coalition is the smallest that has more than kappa', () => {
  const stakes = new Map([
    [1n, 10n],
    [2n, 40n],
    [3n, 30n],
    [4n, 20n],
  ]);
  assert.deepEqual(concentrationOf(stakes, 0.5).coalition, [2n, 3n]);
  assert.deepEqual(concentrationOf(stakes, 0.39).coalition, [2n]);
  assert.equal(concentrationOf(stakes, 0.5).herfindahl.toFixed(2), '0.30');
  assert.deepEqual(concentrationOf(new Map(), 0.5), { herfindahl: 0, coalition: [], coalitionShare: 0 });
});

test('whatever the stakes, the coalition decides, and without its smallest member it does not', () => {
  const stakes = fc.array(fc.bigInt({ min: 0n, max: 10n ** 24n }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(stakes, fc.double({ min: 0.05, max: 0.95, noNaN: true }), (amounts, kappa) => {
      const all = new Map(amounts.map((amount, at) => [BigInt(at), amount]));
      const total = amounts.reduce((sum, amount) => sum + amount, 0n);
      const { coalition, coalitionShare, herfindahl } = concentrationOf(all, kappa);
      if (total === 0n) return assert.deepEqual(coalition, []);
      assert.ok(coalitionShare > kappa - 1e-6);
      const smallest = Number(((all.get(coalition.at(-1) as bigint) as bigint) * 1_000_000_000n) / total) / 1e9;
      assert.ok(coalitionShare - smallest <= kappa + 1e-6);
      assert.ok(herfindahl <= 1 + 1e-9 && herfindahl >= 1 / amounts.length - 1e-6);
    }),
  );
});

test('equal rows are alike, rows without a common uid are not', () => {
  const rows = new Map([
    [0, [[5, 65_535]] as [number, number][]],
    [1, [[5, 100]] as [number, number][]],
    [2, [[6, 65_535]] as [number, number][]],
    [3, []],
  ]);
  const [first, ...rest] = resemblances(rows);
  assert.deepEqual(first, { uids: [0, 1], likeness: 1 });
  assert.ok(rest.every(({ likeness }) => likeness === 0) && rest.length === 5);
});
