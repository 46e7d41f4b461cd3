/**
 * Numbers that `opentensor/subtensor` asserts in `pallets/subtensor/src/tests/epoch.rs`, read at commit 03f9277 (test named in each title).
 * Its blocks stand as seconds. Its epoch shares out 1,000,000,000 without an owner's cut; the total here leaves just that after the cut.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { epoch } from './epoch.ts';
import { plainEpoch } from './epoch-cases.ts';
import type { EpochInput, EpochParameters, EpochResult, SparseRow } from './epoch-input.ts';

const TOTAL_AFTER_CUT = 1_000_000_000n;
const TOTAL = 1_219_505_387n;
const YUMA_2: Partial<EpochParameters> = {
  mode: 'yuma2',
  bondsPenalty: 65_535,
  bondsMovingAverage: 900_000,
  activityCutoff: 5000,
  bondRowCap: 0,
};

/** A subnet that keeps bonds, permits and consensus from epoch to epoch, as the chain does. */
function subnet(stakes: readonly bigint[], parameters: Partial<EpochParameters>) {
  let input = plainEpoch({ stakes, permits: stakes.map(() => true), registeredAt: stakes.map(() => 0), parameters, totalEmission: TOTAL });
  return {
    run(change: Partial<EpochInput>): EpochResult {
      const result = epoch({ ...input, ...change });
      input = { ...input, ...change, bonds: result.bonds, permits: result.permits, previousConsensus: result.consensus };
      return result;
    },
  };
}

const bondOf = (result: EpochResult, validator: number, miner: number) => result.bonds[validator]?.find(([uid]) => uid === miner)?.[1] ?? 0;

/** Upstream rounds each share to 2^-32 before it multiplies; that is less than one unit of a thousand million. */
function assertEmission(result: EpochResult, expected: readonly number[]) {
  const earned = result.minerEmission.map((amount, uid) => Number(amount + (result.validatorEmission[uid] as bigint)));
  expected.forEach((amount, uid) => {
    assert.ok(Math.abs((earned[uid] as number) - amount) <= 1, `uid ${uid}: got ${earned[uid]}, upstream ${amount}`);
  });
}

test('the total of these tests leaves upstream’s emission after the owner’s cut', () => {
  assert.equal(TOTAL - (TOTAL * 11_796n) / 65_535n, TOTAL_AFTER_CUT);
});

test('ten uids that weigh only themselves get nothing by consensus and their share by stake (test_10_graph)', () => {
  const result = epoch(
    plainEpoch({
      stakes: Array(10).fill(1n),
      weights: Array.from({ length: 10 }, (_, uid) => [[uid, 65_535]]),
      totalEmission: TOTAL,
      parameters: YUMA_2,
    }),
  );
  assert.deepEqual([result.rank, result.consensus, result.incentive, result.dividends], Array(4).fill(Array(10).fill(0)));
  assertEmission(result, Array(10).fill(99_999_999));
});

test('64 equal validators and 448 equal miners share evenly after three epochs (test_512_graph)', () => {
  const validators = 64;
  const row = Array.from({ length: 448 }, (_, miner) => [validators + miner, 127] as const);
  const stakes = Array.from({ length: 512 }, (_, uid) => (uid < validators ? 328_125_000_000_000n : 0n));
  const network = subnet(stakes, YUMA_2);
  const weights = stakes.map((stake) => (stake > 0n ? row : []));
  network.run({ weights });
  network.run({ weights });
  const result = network.run({ weights });
  for (let uid = 0; uid < 512; uid++) {
    const isMiner = uid >= validators;
    const got = [result.rank, result.consensus, result.incentive, result.dividends].map((values) => values[uid]);
    assert.deepEqual(got, isMiner ? [146, 146, 146, 0] : [0, 0, 0, 1023]);
  }
  assert.deepEqual([bondOf(result, 0, 0), bondOf(result, 0, validators)], [0, 65_535]);
  assertEmission(result, [...Array(64).fill(7_812_500), ...Array(448).fill(1_116_071)]);
});

test('bonds of Yuma 2 over eight epochs in which validators leave consensus one by one (test_bonds)', () => {
  const row: SparseRow = [
    [4, 16_383],
    [5, 32_767],
    [6, 49_149],
    [7, 65_535],
  ];
  const weights: SparseRow[] = [row, row, row, row, [], [], [], []];
  const network = subnet([1n, 2n, 3n, 4n, 0n, 0n, 0n, 0n], YUMA_2);
  const at = (now: number) => ({ now, lastEpochAt: now - 1, lastUpdate: Array(8).fill(now), weights: [...weights] });
  const run = (now: number, miner: number, bonds: number[], emission: number[]) => {
    const result = network.run(at(now));
    assert.deepEqual(
      [0, 1, 2, 3].map((validator) => bondOf(result, validator, miner)),
      bonds,
      `bonds at ${now}`,
    );
    assertEmission(result, emission);
  };
  run(
    1,
    4,
    [16_383, 32_767, 49_151, 65_535],
    [49_999_998, 99_999_999, 150_000_000, 200_000_001, 49_998_779, 100_000_610, 149_996_337, 200_004_272],
  );
  weights[0] = [[0, 65_535]];
  run(
    2,
    4,
    [14_582, 32_767, 49_151, 65_535],
    [44_998_351, 101_110_561, 151_667_215, 202_223_870, 49_998_779, 100_000_610, 149_996_337, 200_004_272],
  );
  weights[1] = [[1, 65_535]];
  run(
    3,
    4,
    [12_603, 28_321, 49_151, 65_535],
    [40_496_805, 90_999_783, 157_929_636, 210_573_773, 49_998_779, 100_000_610, 149_996_337, 200_004_272],
  );
  weights[2] = [[2, 65_535]];
  run(4, 7, [12_602, 28_320, 49_150, 65_535], [99_999_999, 199_999_999, 299_999_999, 399_999_999, 0, 0, 0, 0]);
  weights[2] = [[7, 65_535]];
  run(5, 7, [10_951, 24_609, 49_150, 65_535], [36_443_733, 81_898_628, 163_565_493, 218_092_144, 0, 0, 0, 500_000_000]);
  run(6, 7, [9559, 21_482, 49_150, 65_535], [32_799_427, 73_706_612, 168_638_129, 224_855_830, 0, 0, 0, 500_000_000]);
  run(7, 7, [8376, 18_824, 49_150, 65_535], [29_518_068, 66_336_137, 173_203_134, 230_942_659, 0, 0, 0, 500_000_000]);
  const last = network.run(at(8));
  assertEmission(last, [26_565_175, 59_701_871, 177_311_856, 236_421_095, 0, 0, 0, 500_000_000]);
});

test('stake whose weights are older than the cut-off neither votes nor earns new bonds (test_active_stake)', () => {
  const row: SparseRow = [
    [2, 32_767],
    [3, 32_767],
  ];
  const weights = [row, row, [], []];
  const network = subnet([1n, 1n, 1n, 1n], { ...YUMA_2, bondsPenalty: 0 });
  const first = network.run({ now: 1, lastEpochAt: 0, lastUpdate: [1, 1, 0, 0], weights });
  assert.deepEqual(first.dividends.slice(0, 2), [32_767, 32_767]);
  assertEmission(first, Array(4).fill(250_000_000));
  const second = network.run({ now: 5002, lastEpochAt: 5001, lastUpdate: [5002, 1, 0, 0] });
  assert.deepEqual(second.active, [true, false, false, false]);
  assert.deepEqual(second.dividends, [36_044, 29_490, 0, 0]);
  assert.deepEqual([bondOf(second, 0, 2), bondOf(second, 1, 3)], [65_535, 53_619]);
  assertEmission(second, [274_999_999, 224_999_999, 250_000_000, 250_000_000]);
  const third = network.run({ now: 5003, lastEpochAt: 5002, lastUpdate: [5002, 5002, 0, 0] });
  assert.deepEqual(third.dividends, [35_716, 29_818, 0, 0]);
  assert.deepEqual([bondOf(third, 0, 2), bondOf(third, 1, 3)], [65_535, 54_712]);
  assertEmission(third, [272_501_132, 227_498_866, 250_000_000, 250_000_000]);
});

test('weights that are older than a newcomer do not count for it (test_outdated_weights)', () => {
  const row: SparseRow = [
    [2, 65_535],
    [3, 32_768],
  ];
  const weights: SparseRow[] = [row, row, [[2, 65_535]], [[3, 65_535]]];
  const network = subnet([1n, 1n, 1n, 1n], YUMA_2);
  const first = network.run({ now: 1, lastEpochAt: 1, lastUpdate: [1, 1, 1, 1], weights });
  assertEmission(first, [250_000_000, 250_000_000, 333_331_637, 166_668_361]);
  const result = network.run({
    now: 2,
    lastEpochAt: 2,
    stakes: [1n, 1n, 1n, 0n],
    lastUpdate: [2, 1, 1, 1],
    registeredAt: [0, 0, 0, 1],
    permits: [true, true, true, false],
  });
  assert.deepEqual(
    [result.incentive, result.dividends],
    [
      [0, 0, 65_535, 0],
      [32_767, 32_767, 0, 0],
    ],
  );
  assertEmission(result, [250_000_000, 250_000_000, 500_000_000, 0]);
  assert.deepEqual([bondOf(result, 0, 2), bondOf(result, 0, 3)], [65_535, 65_535]);
});

/** Upstream's scenarios of Yuma 3: big validator A (0.8), small B and C (0.1 each), miners 3 and 4; speeds 0.1 to 0.3, consensus of now. */
const FIRST = [65_535, 0] as const;
const SECOND = [0, 65_535] as const;
const YUMA_3: Partial<EpochParameters> = {
  mode: 'yuma3-liquid',
  consensusMode: 'current',
  bondsMovingAverage: 975_000,
  maxValidators: 3,
  bondRowCap: 0,
};
interface Scenario {
  title: string;
  stakes: readonly bigint[];
  parameters: Partial<EpochParameters>;
  /** Weights of A, B and C on the miners; the last ones stay. */
  moves: readonly (readonly (readonly number[])[])[];
  /** Bonds of A, B and C to the miners, after each epoch. */
  bonds: readonly (readonly (readonly number[])[])[];
  dividends: readonly (readonly number[])[];
}

const SCENARIOS: readonly Scenario[] = [
  {
    title: 'the big validator moves first (test_yuma_3_kappa_moves_first)',
    stakes: [8n, 1n, 1n, 0n, 0n],
    parameters: YUMA_3,
    moves: [
      [FIRST, FIRST, FIRST],
      [SECOND, FIRST, FIRST],
      [SECOND, SECOND, FIRST],
      [SECOND, SECOND, SECOND],
    ],
    bonds: [
      [
        [0.1013, 0],
        [0.1013, 0],
        [0.1013, 0],
      ],
      [
        [0.0908, 0.1013],
        [0.3697, 0],
        [0.3697, 0],
      ],
      [
        [0.0815, 0.1924],
        [0.317, 0.1013],
        [0.558, 0],
      ],
      [
        [0.0731, 0.2742],
        [0.2765, 0.1924],
        [0.4306, 0.1013],
      ],
      [
        [0.0656, 0.3478],
        [0.2435, 0.2742],
        [0.3589, 0.1924],
      ],
      [
        [0.0588, 0.4139],
        [0.2157, 0.3478],
        [0.3089, 0.2742],
      ],
    ],
    dividends: [
      [0.8, 0.1, 0.1],
      [1, 0, 0],
      [0.9382, 0.0618, 0],
      [0.8819, 0.0773, 0.0407],
      [0.8564, 0.0844, 0.0592],
      [0.8418, 0.0884, 0.0697],
    ],
  },
  {
    title: 'the big validator moves last (test_yuma_3_kappa_moves_last)',
    stakes: [8n, 1n, 1n, 0n, 0n],
    parameters: YUMA_3,
    moves: [
      [FIRST, FIRST, FIRST],
      [FIRST, SECOND, FIRST],
      [FIRST, SECOND, SECOND],
      [SECOND, SECOND, SECOND],
    ],
    bonds: [
      [
        [0.1013, 0],
        [0.1013, 0],
        [0.1013, 0],
      ],
      [
        [0.1924, 0],
        [0.0908, 0.2987],
        [0.1924, 0],
      ],
      [
        [0.2742, 0],
        [0.0815, 0.5081],
        [0.1715, 0.2987],
      ],
      [
        [0.2416, 0.1013],
        [0.0731, 0.558],
        [0.1531, 0.3697],
      ],
      [
        [0.2141, 0.1924],
        [0.0656, 0.6028],
        [0.1369, 0.4336],
      ],
      [
        [0.1903, 0.2742],
        [0.0588, 0.643],
        [0.1225, 0.491],
      ],
    ],
    dividends: [
      [0.8, 0.1, 0.1],
      [0.8446, 0.0498, 0.1056],
      [0.8966, 0.0333, 0.0701],
      [0.4663, 0.321, 0.2127],
      [0.5976, 0.234, 0.1683],
      [0.6592, 0.1932, 0.1475],
    ],
  },
  {
    title: 'one validator errs for one epoch (test_yuma_3_one_epoch_switch)',
    stakes: [33n, 33n, 34n, 0n, 0n],
    parameters: YUMA_3,
    moves: [
      [FIRST, FIRST, FIRST],
      [FIRST, FIRST, FIRST],
      [FIRST, FIRST, SECOND],
      [FIRST, FIRST, FIRST],
    ],
    bonds: [
      [
        [0.1013, 0],
        [0.1013, 0],
        [0.1013, 0],
      ],
      [
        [0.1924, 0],
        [0.1924, 0],
        [0.1924, 0],
      ],
      [
        [0.2742, 0],
        [0.2742, 0],
        [0.1715, 0.2987],
      ],
      [
        [0.3478, 0],
        [0.3478, 0],
        [0.2554, 0.2618],
      ],
      [
        [0.4139, 0],
        [0.4139, 0],
        [0.3309, 0.2312],
      ],
      [
        [0.4733, 0],
        [0.4733, 0],
        [0.3987, 0.2051],
      ],
    ],
    dividends: [
      [0.33, 0.33, 0.34],
      [0.33, 0.33, 0.34],
      [0.3782, 0.3782, 0.2436],
      [0.3628, 0.3628, 0.2745],
      [0.3541, 0.3541, 0.2917],
      [0.3487, 0.3487, 0.3026],
    ],
  },
  {
    title: 'the same at one speed (test_yuma_3_liquid_alpha_disabled)',
    stakes: [33n, 33n, 34n, 0n, 0n],
    parameters: { ...YUMA_3, mode: 'yuma3' },
    moves: [
      [FIRST, FIRST, FIRST],
      [FIRST, FIRST, FIRST],
      [FIRST, FIRST, SECOND],
      [FIRST, FIRST, FIRST],
    ],
    bonds: [
      [
        [0.025, 0],
        [0.025, 0],
        [0.025, 0],
      ],
      [
        [0.0494, 0],
        [0.0494, 0],
        [0.0494, 0],
      ],
      [
        [0.0731, 0],
        [0.0731, 0],
        [0.0481, 0.025],
      ],
      [
        [0.0963, 0],
        [0.0963, 0],
        [0.0719, 0.0244],
      ],
      [
        [0.1189, 0],
        [0.1189, 0],
        [0.0951, 0.0238],
      ],
      [
        [0.1409, 0],
        [0.1409, 0],
        [0.1178, 0.0232],
      ],
    ],
    dividends: [
      [0.33, 0.33, 0.34],
      [0.33, 0.33, 0.34],
      [0.3734, 0.3734, 0.2532],
      [0.3611, 0.3611, 0.2779],
      [0.3541, 0.3541, 0.2919],
      [0.3495, 0.3495, 0.3009],
    ],
  },
];

for (const { title, stakes, parameters, moves, bonds, dividends } of SCENARIOS) {
  test(`Yuma 3: ${title}, within upstream’s 0.001`, () => {
    const network = subnet(stakes, parameters);
    bonds.forEach((expected, index) => {
      const now = index + 2;
      const move = moves[Math.min(index, moves.length - 1)] as readonly (readonly number[])[];
      const weights = [...move.map((row) => row.map((value, place) => [3 + place, value] as const)), [], []];
      const result = network.run({ now, lastEpochAt: now - 1, lastUpdate: Array(5).fill(now), weights });
      for (const [validator, row] of expected.entries()) {
        for (const [place, bond] of row.entries()) {
          assert.ok(Math.abs(bondOf(result, validator, 3 + place) / 65_535 - bond) <= 0.001, `bond ${validator} ${place} at ${index}`);
        }
      }
      dividends[index]?.forEach((dividend, uid) => {
        assert.ok(Math.abs((result.dividends[uid] as number) / 65_535 - dividend) <= 0.001, `dividend ${uid} at ${index}`);
      });
    });
  });
}
