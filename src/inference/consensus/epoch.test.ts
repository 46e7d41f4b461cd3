import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import fc from 'fast-check';
import { MillraceError } from '../../errors.ts';
import { epoch } from './epoch.ts';
import { EPOCH_SHAPES, maximalEpoch, plainEpoch, randomEpoch } from './epoch-cases.ts';
import type { EpochInput, EpochResult, SparseRow } from './epoch-input.ts';
import { seededRandom } from './seeded-random.ts';

/** Of the results of the seeds 0 to 1999 and of the largest epoch, as JSON. */
const DIGEST = 'e719a1e66ff78fdc11ee21dc03f8d0466cd938cecf29b5789acb398905c74a02';
const asText = (_key: string, value: unknown) => (typeof value === 'bigint' ? value.toString() : value);
const RUNS = process.env.MILLRACE_FULL === '1' ? 10_000 : 1000;
const seeds = fc.integer({ min: 0, max: 2 ** 31 });
const check = (property: (seed: number) => void, numRuns = RUNS) => fc.assert(fc.property(seeds, property), { numRuns });

const earned = (result: EpochResult) => result.minerEmission.map((amount, uid) => amount + (result.validatorEmission[uid] as bigint));
const sum = (amounts: readonly bigint[]) => amounts.reduce((total, amount) => total + amount, 0n);

test('what is paid, the owner’s part and the dust are the emission exactly, and dust is below one unit per uid', () => {
  check((seed) => {
    const input = randomEpoch(seed);
    const result = epoch(input);
    assert.ok([...result.minerEmission, ...result.validatorEmission].every((amount) => amount >= 0n));
    assert.equal(result.ownerEmission, (input.totalEmission * 11_796n) / 65_535n);
    assert.equal(sum(earned(result)) + result.ownerEmission + result.dust, input.totalEmission);
    const hasStake = input.stakes.some((stake, uid) => stake > 0n && (stake >= input.parameters.stakeThreshold || uid === input.ownerUid));
    if (hasStake) assert.ok(result.dust < BigInt(Math.max(1, input.stakes.length)), `dust ${result.dust}`);
    else assert.equal(result.dust, input.totalEmission - result.ownerEmission);
  });
});

test('every shape of random epoch comes up, and the same seed gives the same epoch', () => {
  assert.equal(new Set(EPOCH_SHAPES).size, EPOCH_SHAPES.length);
  for (let seed = 0; seed < 3 * EPOCH_SHAPES.length; seed++) {
    assert.deepEqual(randomEpoch(seed), randomEpoch(seed));
    epoch(randomEpoch(seed));
  }
  assert.equal(randomEpoch(2).stakes.length, 0);
  epoch(maximalEpoch(1));
});

test('a permutation of uids permutes the results', () => {
  check((seed) => {
    const input = withoutTies(randomEpoch(seed));
    const order = permutation(input.stakes.length, seed);
    const result = epoch(input);
    const permuted = epoch(permute(input, order));
    const back = order.map((uid) => uid);
    const { bonds, ownerEmission, dust, ...vectors } = result;
    const { bonds: permutedBonds, ownerEmission: permutedOwner, dust: permutedDust, ...permutedVectors } = permuted;
    for (const [name, values] of Object.entries(vectors)) {
      const moved = permutedVectors[name as keyof typeof vectors];
      assert.deepEqual(
        back.map((place) => moved[place]),
        values,
        name,
      );
    }
    assert.deepEqual(
      back.map((place) => permutedBonds[place]),
      bonds.map((row) => permuteRow(row, order)),
    );
    assert.deepEqual([permutedOwner, permutedDust], [ownerEmission, dust]);
  });
});

test('scaling all stakes and the threshold changes nothing', () => {
  check((seed) => {
    const input = { ...randomEpoch(seed) };
    const factor = BigInt(seededRandom(seed).integer(2, 1_000_000));
    if (input.stakes.some((stake) => stake * factor >= 2n ** 128n) || input.parameters.stakeThreshold * factor >= 2n ** 128n) return;
    const stakes = input.stakes.map((stake) => stake * factor);
    const parameters = { ...input.parameters, stakeThreshold: input.parameters.stakeThreshold * factor };
    assert.deepEqual(epoch({ ...input, stakes, parameters }), epoch(input));
  });
});

test('a minority below kappa lifts nobody’s consensus, whatever it submits', () => {
  check((seed) => {
    const random = seededRandom(seed);
    const uids = random.integer(6, 20);
    const kappa = random.pick([32_767, random.integer(20_000, 60_000)]);
    const attackers = random.integer(1, 3);
    const rowOf = (from: number) =>
      Array.from({ length: uids - 4 }, (_, place) => [4 + place, place < from ? 0 : random.integer(0, 65_535)] as const);
    const attackerStake = (1_000_000n * BigInt(kappa - 40)) / 65_535n;
    const stakes = Array.from({ length: uids }, (_, uid) =>
      uid < attackers ? attackerStake / BigInt(attackers) : uid < 4 ? (1_000_000n - attackerStake) / BigInt(4 - attackers) : 0n,
    );
    const honest = Array.from({ length: 4 }, () => rowOf(2));
    const withAttack = (row: (uid: number) => SparseRow) =>
      epoch(
        plainEpoch({ stakes, weights: stakes.map((_, uid) => (uid < attackers ? row(uid) : (honest[uid] ?? []))), parameters: { kappa } }),
      );
    const attacked = withAttack(() => rowOf(0));
    // With every attacker's row at the whole on one miner, no consensus exceeds what the honest give at most.
    const greatest = Array.from({ length: uids }, (_, uid) => {
      const rows = honest.slice(attackers).map((row) => [row, row.reduce((total, [, weight]) => total + weight, 0)] as const);
      return Math.max(...rows.map(([row, total]) => (total === 0 ? 0 : (row.find(([miner]) => miner === uid)?.[1] ?? 0) / total)));
    });
    for (const [uid, value] of attacked.consensus.entries()) assert.ok(value / 65_535 <= (greatest[uid] as number) + 1e-9, `uid ${uid}`);
    assert.deepEqual(
      [attacked.consensus[4], attacked.consensus[5], attacked.incentive[4]],
      [0, 0, 0],
      'miners that only the attackers weigh',
    );
  });
});

test('a missing weight is a weight of 0: the bond decays and is not lost at once', () => {
  for (const mode of ['yuma3', 'yuma3-liquid'] as const) {
    const parameters = { mode };
    const base = {
      stakes: [1n, 1n, 0n, 0n],
      bonds: [
        [
          [2, 40_000],
          [3, 20_000],
        ],
        [[2, 40_000]],
        [],
        [],
      ] as SparseRow[],
      previousConsensus: [0, 0, 60_000, 0],
      parameters,
    };
    const silent = epoch(plainEpoch({ ...base, weights: [[[3, 5]], [[2, 1]], [], []] }));
    const explicit = epoch(
      plainEpoch({
        ...base,
        weights: [
          [
            [2, 0],
            [3, 5],
          ],
          [
            [2, 1],
            [3, 0],
          ],
          [],
          [],
        ],
      }),
    );
    assert.deepEqual(silent, explicit);
    const bond = silent.bonds[0]?.find(([uid]) => uid === 2)?.[1] ?? 0;
    assert.ok(bond > 20_000 && bond < 40_000, `${mode}: ${bond}`);
  }
});

test('of a row of bonds the largest are kept, of equal ones those of the lower uid', () => {
  const bonds: SparseRow[] = [
    [
      [1, 100],
      [2, 300],
      [3, 300],
      [4, 300],
      [5, 50],
    ],
    [],
    [],
    [],
    [],
    [],
  ];
  const run = (bondRowCap: number) =>
    epoch(plainEpoch({ stakes: [1n, 0n, 0n, 0n, 0n, 0n], bonds, parameters: { mode: 'yuma3', bondsMovingAverage: 1_000_000, bondRowCap } }))
      .bonds[0];
  assert.deepEqual(
    run(0)?.map(([uid]) => uid),
    [1, 2, 3, 4, 5],
  );
  assert.deepEqual(
    run(4)?.map(([uid]) => uid),
    [1, 2, 3, 4],
  );
  assert.deepEqual(
    run(2)?.map(([uid]) => uid),
    [2, 3],
  );
});

test('permits go to the owner, then to the larger stake, then to the lower uid, and never to uids without stake', () => {
  const run = (stakes: bigint[], maxValidators: number, ownerUid: number | null = null) =>
    epoch(plainEpoch({ stakes, ownerUid, parameters: { maxValidators, stakeThreshold: 3n } })).permits.flatMap((permit, uid) =>
      permit ? [uid] : [],
    );
  assert.deepEqual(run([5n, 9n, 5n, 2n, 9n], 3), [0, 1, 4]);
  assert.deepEqual(run([5n, 9n, 5n, 2n, 9n], 2, 3), [1, 3]);
  assert.deepEqual(run([5n, 9n, 0n, 2n, 9n], 5, 2), [0, 1, 4]);
});

test('the percentile cap bounds what one validator counts, and permits do not depend on it', () => {
  const stakes = [...Array(9).fill(10n), 910n];
  const run = (stakeCapPercentile: number) => epoch(plainEpoch({ stakes, parameters: { stakeCapPercentile } }));
  assert.equal(run(0).stakeWeight[9], Math.floor(0.91 * 65_535));
  assert.equal(run(90).stakeWeight[9], 6553);
  assert.equal(run(91).stakeWeight[9], Math.floor(0.91 * 65_535));
  assert.deepEqual(run(90).permits, run(0).permits);
});

test('a commit that was never revealed costs the epoch’s dividends, and its stake does not pull consensus down', () => {
  const row: SparseRow = [[3, 1]];
  const input = plainEpoch({ stakes: [45n, 40n, 15n, 0n], weights: [row, [], row, []] });
  assert.deepEqual(epoch(input).incentive, [0, 0, 0, 65_535]);
  assert.deepEqual(epoch({ ...input, stakes: [35n, 60n, 5n, 0n] }).incentive, [0, 0, 0, 0]);
  const result = epoch({ ...input, stakes: [35n, 60n, 5n, 0n], unrevealed: [false, true, false, false] });
  assert.deepEqual([result.incentive[3], result.dividends[1], result.validatorEmission[1]], [65_535, 0, 0n]);
  assert.ok((result.dividends[0] as number) > 50_000);
});

test('weights set or committed before a miner came do not count for it, nor do bonds of its uid’s last holder', () => {
  const base = plainEpoch({
    stakes: [1n, 0n, 0n],
    weights: [
      [
        [1, 1],
        [2, 1],
      ],
      [],
      [],
    ],
    bonds: [
      [
        [1, 30_000],
        [2, 30_000],
      ],
      [],
      [],
    ],
  });
  const run = (change: Partial<EpochInput>) => epoch({ ...base, registeredAt: [1, 940, 1], ...change });
  assert.deepEqual(run({ lastUpdate: [950, 0, 0] }).incentive, [0, 32_767, 32_767]);
  assert.deepEqual(run({ lastUpdate: [940, 0, 0] }).incentive, [0, 0, 65_535]);
  assert.deepEqual(run({ lastUpdate: [950, 0, 0], committedAt: [939, 0, 0] }).incentive, [0, 0, 65_535]);
  assert.deepEqual(
    run({ lastUpdate: [940, 0, 0] }).bonds[0]?.map(([uid]) => uid),
    [2],
  );
});

test('exactly kappa of active stake is enough for consensus, one part in 2^32 less is not', () => {
  const kappa = 40_000;
  const supporters = BigInt(Math.floor((kappa * 2 ** 32) / 65_535));
  const run = (stake: bigint) =>
    epoch(plainEpoch({ stakes: [stake, 2n ** 32n - stake, 0n, 0n], weights: [[[2, 1]], [[3, 1]], [], []], parameters: { kappa } }))
      .consensus[2];
  assert.deepEqual([run(supporters), run(supporters - 1n)], [65_535, 0]);
});

test('a bond to a miner that registered at the very time of the last epoch is forgotten, a second earlier it is not', () => {
  for (const mode of ['yuma2', 'yuma3', 'yuma3-liquid'] as const) {
    const kept = (registeredAt: number) =>
      epoch(plainEpoch({ stakes: [1n, 0n], bonds: [[[1, 65_535]], []], registeredAt: [1, registeredAt], parameters: { mode } })).bonds[0]
        ?.length;
    assert.deepEqual([kept(899), kept(900)], [1, 0], mode);
  }
});

test('the last consensus of a uid is not held against a miner that took it since', () => {
  const run = (registeredAt: number) =>
    epoch(
      plainEpoch({
        stakes: [1n, 0n, 0n],
        weights: [
          [
            [1, 3],
            [2, 1],
          ],
          [],
          [],
        ],
        previousConsensus: [0, 60_000, 20],
        registeredAt: [1, registeredAt, 1],
      }),
    ).bonds[0]?.[0]?.[1] ?? 0;
  assert.ok(run(900) > run(899), `${run(900)} and ${run(899)}`);
});

test('weights are active to the last second of the cut-off', () => {
  const run = (now: number) => epoch(plainEpoch({ stakes: [1n], now, lastUpdate: [950], parameters: { activityCutoff: 100 } })).active[0];
  assert.deepEqual([run(1050), run(1051)], [true, false]);
});

test('where there are incentives but no dividends the validators’ half goes by active stake', () => {
  const result = epoch(
    plainEpoch({
      stakes: [1n, 3n, 4n, 0n],
      lastUpdate: [950, 950, 1, 950],
      weights: [[[3, 1]], [[3, 1]], [[3, 1]], []],
      totalEmission: 65_535n * 8n,
      parameters: { mode: 'yuma3', bondsMovingAverage: 1_000_000, activityCutoff: 500 },
    }),
  );
  const half = BigInt(((65_535 - 11_796) * 8) / 2);
  assert.deepEqual(result.validatorEmission, [half / 4n, (half / 4n) * 3n, 0n, 0n]);
  assert.equal(result.minerEmission[3], half);
});

test('two thousand random epochs give these bits for ever: another digest is another consensus, and every stored epoch could be disputed', () => {
  const digest = createHash('sha256');
  for (let seed = 0; seed < 2000; seed++) digest.update(JSON.stringify(epoch(randomEpoch(seed)), asText));
  digest.update(JSON.stringify(epoch(maximalEpoch(1)), asText));
  assert.equal(digest.digest('hex'), DIGEST);
});

test('an input beyond the sizes for which the arithmetic is exact is refused with the value and the bound', () => {
  const input = plainEpoch({ stakes: [1n, 1n] });
  const refused: readonly Partial<EpochInput>[] = [
    { stakes: [1n] },
    { stakes: [-1n, 1n] },
    { stakes: [2n ** 128n, 1n] },
    { totalEmission: 2n ** 128n },
    { now: 2 ** 40 },
    { ownerUid: 2 },
    { weights: [[[2, 1]], []] },
    {
      weights: [
        [
          [1, 1],
          [0, 1],
        ],
        [],
      ],
    },
    { bonds: [[[1, 65_536]], []] },
    { previousConsensus: [0.5, 0] },
    { parameters: { ...input.parameters, kappa: 0 } },
    { parameters: { ...input.parameters, alphaSteepness: 2001 } },
    { parameters: { ...input.parameters, alphaLow: 30_000 } },
    { parameters: { ...input.parameters, maxValidators: 65 } },
  ];
  for (const change of refused) {
    assert.throws(
      () => epoch({ ...input, ...change }),
      (error) => error instanceof MillraceError && error.code === 'bad-epoch-input' && error.actor === 'caller',
    );
  }
});

/** Stakes all different, and no cap on bonds: where nothing is tied, order does not matter. */
function withoutTies(input: EpochInput): EpochInput {
  const stakes = input.stakes.map((stake, uid) => (stake === 0n ? 0n : (stake >> 8n) + BigInt(uid + 1)));
  return { ...input, stakes, parameters: { ...input.parameters, bondRowCap: 0 } };
}

/** The place that each uid moves to. */
function permutation(length: number, seed: number): number[] {
  const random = seededRandom(seed + 1);
  const places = Array.from({ length }, (_, uid) => uid);
  for (let uid = length - 1; uid > 0; uid--) {
    const other = random.integer(0, uid);
    [places[uid], places[other]] = [places[other] as number, places[uid] as number];
  }
  return places;
}

function permuteRow(row: SparseRow, order: readonly number[]): SparseRow {
  return row.map(([uid, value]) => [order[uid] as number, value] as const).sort(([a], [b]) => a - b);
}

function permute(input: EpochInput, order: readonly number[]): EpochInput {
  const move = <T>(values: readonly T[]) => {
    const moved: T[] = [];
    values.forEach((value, uid) => {
      moved[order[uid] as number] = value;
    });
    return moved;
  };
  return {
    ...input,
    ownerUid: input.ownerUid === null ? null : (order[input.ownerUid] as number),
    stakes: move(input.stakes),
    lastUpdate: move(input.lastUpdate),
    registeredAt: move(input.registeredAt),
    committedAt: move(input.committedAt),
    unrevealed: move(input.unrevealed),
    permits: move(input.permits),
    weights: move(input.weights.map((row) => permuteRow(row, order))),
    bonds: move(input.bonds.map((row) => permuteRow(row, order))),
    previousConsensus: move(input.previousConsensus),
  };
}
