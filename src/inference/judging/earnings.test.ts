import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeRow, encodeRow, weighScores } from '../subnets/weights-row.ts';
import { type Earner, earnedDown, placeRest, SHARE_WHOLE, shareEmissionDown } from './earnings.ts';
import { WHOLE } from './text-distance.ts';
import { weightsDown } from './weights.ts';

const FEE_BPS = 200n;
const BPS = 10_000n;
const amount = fc.bigInt({ min: 0n, max: 10n ** 22n });
const terms = fc.record({ returnedBps: fc.bigInt({ min: 0n, max: 9_000n }), subnets: fc.integer({ min: 1, max: 8 }) });
const others = fc.array(fc.record({ paid: amount, quality: fc.integer({ min: 0, max: WHOLE }) }), { minLength: 1, maxLength: 20 });

/** What uid 0 gets of the emission, in the payers' token, less what was burnt on its own payments. */
function gainOf(own: bigint, rest: readonly { paid: bigint; quality: number }[], emissionValue: bigint, sink: boolean): bigint {
  const miners = [{ paid: own, quality: WHOLE }, ...rest];
  const earners = miners.map(({ paid, quality }, uid): Earner => {
    const burnt = (paid * FEE_BPS) / BPS;
    return { uid, quality, earned: earnedDown({ receipted: paid, burnt, counted: 0n }, { feeBps: FEE_BPS }).earned };
  });
  const shares = shareEmissionDown(earners, emissionValue);
  const total = [...shares.shares.values()].reduce((sum, share) => sum + share, shares.rest);
  assert.equal(total, SHARE_WHOLE);
  assert.ok(shares.rest >= 0n);
  const row = weighScores(
    weightsDown(placeRest(shares, sink ? { sink: 200 } : { idlers: new Map(earners.map(({ uid, quality }) => [uid, quality])) })),
  );
  const sum = row.reduce((whole, [, weight]) => whole + BigInt(weight), 0n);
  const mine = BigInt(row.find(([uid]) => uid === 0)?.[1] ?? 0);
  return (sum === 0n ? 0n : (emissionValue * mine) / sum) - (own * FEE_BPS) / BPS;
}

test('a miner that pays itself ends below one that is honest and idle, whatever the others do', () => {
  fc.assert(
    fc.property(others, fc.bigInt({ min: 10n ** 15n, max: 10n ** 22n }), amount, (rest, emissionValue, own) => {
      for (const sink of [true, false]) {
        const idle = gainOf(0n, rest, emissionValue, sink);
        // Weights are u16: each of up to 64 entries is rounded by less than one part in 65,535 of the greatest.
        const rounding = (emissionValue * 22n) / 65_535n;
        const burnt = (own * FEE_BPS) / BPS;
        assert.ok(gainOf(own, rest, emissionValue, sink) <= idle - burnt / 10n + rounding);
      }
    }),
    { numRuns: 200 },
  );
});

test('with a sink, who has no paid request earns nothing, and all who pay themselves lose a tenth of the fee at least', () => {
  for (const own of [10n ** 18n, 10n ** 20n, 10n ** 21n]) {
    assert.equal(gainOf(0n, [{ paid: 0n, quality: WHOLE }], 10n ** 21n, true), 0n);
    const loss = gainOf(own, [{ paid: 10n ** 19n, quality: WHOLE }], 10n ** 21n, true);
    assert.ok(loss < 0n, String(loss));
  }
});

test('earnings are counted once, never above what receipts and chain both show, and never below zero', () => {
  fc.assert(
    fc.property(fc.array(fc.record({ receipted: amount, burnt: amount }), { maxLength: 10 }), terms, (steps, { returnedBps, subnets }) => {
      const told = { feeBps: FEE_BPS, returnedBps, subnets };
      let known = { receipted: 0n, burnt: 0n, counted: 0n };
      let sum = 0n;
      for (const step of steps) {
        known = { ...known, receipted: known.receipted + step.receipted, burnt: known.burnt + step.burnt };
        const { earned, counted } = earnedDown(known, told);
        assert.ok(earned >= 0n);
        sum += earned;
        known = { ...known, counted };
        assert.equal(earnedDown(known, told).earned, 0n);
      }
      assert.ok(sum * 10n * BPS <= known.receipted * FEE_BPS * 9n);
      // In as many subnets as it is in, and with what storage's rewards give for the same fees: never more than nine tenths of what was burnt.
      const returned = (known.burnt * returnedBps) / BPS;
      assert.ok((sum * BigInt(subnets) + returned) * 10n <= known.burnt * 9n);
    }),
    { numRuns: 100 },
  );
});

test('weights keep the proportion of the scores, rounded down, and the board takes them as they are', () => {
  const lists = fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.bigInt({ min: -5n, max: 10n ** 20n })), { maxLength: 120 });
  fc.assert(
    fc.property(lists, (list) => {
      const scores = new Map(list);
      const weights = weightsDown(scores);
      const row = weighScores(weights);
      let greatest = 0n;
      for (const score of scores.values()) if (score > greatest) greatest = score;
      assert.equal(row.length, Math.min(64, weights.size));
      for (const [uid, weight] of row) assert.equal(BigInt(weight), ((scores.get(uid) as bigint) * 65_535n) / greatest);
      if (greatest > 0n) assert.deepEqual(decodeRow(Buffer.from(encodeRow(row).slice(2), 'hex')), row);
      else assert.equal(weights.size, 0);
    }),
    { numRuns: 100 },
  );
});
