import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type RankInput, rankDevices, weighHealth } from './device-rank.ts';
import type { Figure, Reason } from './figures.ts';

const BOND = 10n ** 18n;
const RULE = { baseBps: 2000, streakHours: 12, bond: BOND };
const earns = (performance: bigint): Figure => ({ performance, reason: 'none' });
const lost = (reason: Reason): Figure => ({ performance: 0n, reason });
const times = (count: number, figure: Figure | undefined) => Array.from({ length: count }, () => figure);
const device = (deviceId: bigint, figures: RankInput['figures'], stake = BOND): RankInput => ({
  deviceId,
  operatorId: deviceId,
  deviceClass: 'cpu-1',
  stake,
  figures,
});
const rankOf = (input: RankInput) => rankDevices([input], RULE)[0] as ReturnType<typeof rankDevices>[number];

test('an hour whose challenge was missed costs one of 25 in the record and nothing of uptime or of the middle performance', () => {
  const rank = rankOf(device(1n, [...times(12, earns(900n)), lost('challenge-missed'), ...times(12, earns(900n))]));
  assert.deepEqual([rank.performance, rank.recordBps, rank.uptimeBps, rank.reason], [900n, 9600, 10_000, 'none']);
  assert.equal(rank.stabilityBps, 2000 + Math.floor((8000 * 11) / 12), 'twelve hours in a row since');
});

test('an hour in which nobody could say anything counts for nothing but the row of hours, as rewards have it', () => {
  const rank = rankOf(device(1n, [...times(3, earns(900n)), lost('too-few-statements'), earns(900n)]));
  assert.deepEqual([rank.hoursPosted, rank.recordBps, rank.uptimeBps, rank.stabilityBps], [4, 10_000, 10_000, 2000]);
});

test('what was never measured is unranked and weighs nothing, whatever stake is behind it', () => {
  const [known, unknown] = rankDevices([device(1n, [earns(1n)]), device(2n, [undefined], 100n * BOND)], RULE);
  assert.deepEqual([known?.rank, known?.weight, unknown?.rank, unknown?.weight], [1, 500, 0, 0]);
  assert.deepEqual(
    [weighHealth(unknown), weighHealth(undefined)],
    [
      { rank: 0, uptime: 0 },
      { rank: 0, uptime: 0 },
    ],
  );
});

test('a wrong answer to the last challenge keeps work away, a missed one does not', () => {
  const good = times(5, earns(900n));
  assert.match(weighHealth(rankOf(device(1n, [...good, lost('challenge-wrong')]))).ineligible ?? '', /answered wrongly/);
  assert.equal(weighHealth(rankOf(device(1n, [...good, lost('challenge-missed')]))).ineligible, undefined);
  assert.equal(weighHealth(rankOf(device(1n, [...good, lost('challenge-wrong'), earns(900n)]))).ineligible, undefined);
});

const anyFigure = fc.option(
  fc.oneof(
    fc.bigInt(1n, 2n ** 48n - 1n).map(earns),
    fc.constantFrom<Reason>('unreachable', 'challenge-missed', 'challenge-wrong', 'too-few-statements').map(lost),
  ),
  { nil: undefined },
);
const anyDevices = fc
  .record({ hours: fc.integer({ min: 0, max: 25 }), count: fc.integer({ min: 1, max: 12 }) })
  .chain(({ hours, count }) =>
    fc.array(
      fc.record({
        figures: fc.array(anyFigure, { minLength: hours, maxLength: hours }),
        stake: fc.bigInt(0n, 30n * BOND),
        deviceClass: fc.constantFrom('cpu-1', 'cpu-2'),
      }),
      { minLength: count, maxLength: count },
    ),
  )
  .map((all) => all.map((one, index) => ({ ...one, deviceId: BigInt(index + 1), operatorId: BigInt(index + 1) })));

test('the order in which devices are read changes no rank; a better score never ranks or weighs less; more stake or a better hour never lowers a score', () => {
  fc.assert(
    fc.property(anyDevices, fc.bigInt(1n, 5n * BOND), fc.nat(), (devices, more, at) => {
      const ranks = rankDevices(devices, RULE);
      const mirrored = new Map(rankDevices([...devices].reverse(), RULE).map((rank) => [rank.deviceId, rank]));
      for (const rank of ranks) assert.deepEqual(mirrored.get(rank.deviceId), rank);
      for (const [index, one] of ranks.entries()) {
        assert.ok(one.weight >= 0 && one.weight <= 1000 && Number.isInteger(one.weight));
        assert.equal(one.rank === 0, one.score === 0n);
        for (const [place, other] of ranks.entries()) {
          if (one.score <= other.score || other.rank === 0) continue;
          assert.ok(one.rank < other.rank);
          if (devices[index]?.deviceClass === devices[place]?.deviceClass) assert.ok(one.weight >= other.weight);
        }
      }
      const first = devices[0] as RankInput;
      assert.ok(rankOf({ ...first, stake: first.stake + more }).score >= rankOf(first).score);
      const better = first.figures.map((figure, hour) =>
        hour === at % Math.max(1, first.figures.length) ? earns(2n ** 48n - 1n) : figure,
      );
      assert.ok(rankOf({ ...first, figures: better }).score >= rankOf(first).score);
    }),
  );
});
