import assert from 'node:assert/strict';
import test from 'node:test';
import { bondSpeed } from './bond-speed.ts';
import { DEFAULT_EPOCH_PARAMETERS } from './default-parameters.ts';
import { epoch } from './epoch.ts';
import { plainEpoch, randomEpoch } from './epoch-cases.ts';
import type { EpochInput } from './epoch-input.ts';
import { exactEpoch, exactSigmoid, type Fraction, toNumber } from './exact-reference.ts';
import { ONE } from './fixed-point.ts';
import { seededRandom } from './seeded-random.ts';

const EPOCHS = process.env.MILLRACE_FULL === '1' ? 10_000 : 600;
const UIDS_MAX = 10;

/** The share of a pool that somebody got; a pool of 2^120 shows every bit of it. */
const shareOf = (amount: bigint, pool: bigint) => (pool === 0n ? 0 : Number((amount << 60n) / pool) / 2 ** 60);

/** Compares one epoch with its exact fractions; true if its own bound let anything be compared. */
function compareWithExact(drawn: EpochInput, name: string, boundMax: number): boolean {
  const input = { ...drawn, totalEmission: 1n << 120n, parameters: { ...drawn.parameters, bondRowCap: 0 } };
  const exact = exactEpoch(input);
  if (exact.margin <= exact.stakeBound) return false;
  const result = epoch(input);
  const pool = (input.totalEmission - result.ownerEmission) / 2n;
  const close = (got: number, wanted: Fraction | undefined, bound: number, what: string) => {
    const error = Math.abs(got - toNumber(wanted as Fraction));
    assert.ok(error <= Math.min(bound, boundMax), `${what} of ${name}: got ${got}, error ${error}, bound ${bound}`);
  };
  const isPaid = result.minerEmission.some((amount) => amount > 1n) && exact.incentiveBound < 0.1;
  const hasDividends = isPaid && exact.dividendBound < 0.1;
  for (let uid = 0; uid < input.stakes.length; uid++) {
    assert.ok(Math.abs((result.consensus[uid] as number) / 65_535 - toNumber(exact.consensus[uid] as Fraction)) <= 1 / 65_535 + 2 ** -31);
    if (isPaid) close(shareOf(result.minerEmission[uid] as bigint, pool), exact.incentive[uid], exact.incentiveBound, `incentive ${uid}`);
    if (hasDividends)
      close(shareOf(result.validatorEmission[uid] as bigint, pool), exact.dividends[uid], exact.dividendBound, `dividend ${uid}`);
    if (!result.permits[uid]) continue;
    const kept = new Map(result.bonds[uid]);
    exact.bonds[uid]?.forEach((bond, miner) => {
      const bound = (exact.bondBounds[miner] as number) + 1 / 65_535;
      if (bound < 0.1) assert.ok(Math.abs((kept.get(miner) ?? 0) / 65_535 - toNumber(bond)) <= bound, `bond ${uid} ${miner} of ${name}`);
    });
  }
  return hasDividends;
}

test(`${EPOCHS} random epochs agree with exact fractions within the bound of each`, () => {
  let compared = 0;
  for (let seed = 0; seed < EPOCHS; seed++) {
    const drawn = randomEpoch(seed);
    if (drawn.stakes.length <= UIDS_MAX && compareWithExact(drawn, `seed ${seed}`, 1)) compared += 1;
  }
  assert.ok(compared > EPOCHS / 8, `only ${compared} of ${EPOCHS} epochs had dividends to compare`);
});

test('ordinary subnets agree with exact fractions to 2^-24, with liquid alpha to 2^-16', () => {
  let compared = 0;
  const count = EPOCHS / 30;
  for (let seed = 0; seed < count; seed++) {
    const random = seededRandom(seed);
    const uids = random.integer(4, UIDS_MAX);
    const row = () => Array.from({ length: uids }, (_, uid) => [uid, random.integer(5000, 65_535)] as const);
    for (const mode of ['yuma2', 'yuma3', 'yuma3-liquid'] as const) {
      const input = plainEpoch({
        stakes: Array.from({ length: uids }, () => BigInt(random.integer(1e8, 1e9)) * 10n ** 12n),
        weights: Array.from({ length: uids }, row),
        bonds: Array.from({ length: uids }, row),
        previousConsensus: Array.from({ length: uids }, () => Math.floor(65_535 / uids)),
        parameters: { mode, bondsPenalty: random.integer(0, 65_535) },
      });
      if (compareWithExact(input, `${mode} of seed ${seed}`, mode === 'yuma3-liquid' ? 2 ** -16 : 2 ** -24)) compared += 1;
    }
  }
  assert.ok(compared > 2.7 * count, `${compared} of ${3 * count}: stakes of even drawn size are seldom tied`);
});

test('the table of the sigmoid is as near to the true one as decision 0019 says, at every slope, and rises', () => {
  const points = 2000;
  for (const steepness of [0, 1, 50, 300, 1000, 1500, 2000]) {
    const speedOf = bondSpeed({ ...DEFAULT_EPOCH_PARAMETERS, alphaLow: 0, alphaHigh: 65_535, alphaSteepness: steepness });
    const bound = (steepness / 100) ** 2 / 1_360_000 + 2 ** -30;
    let previous = 0;
    let greatest = 0;
    for (let point = 0; point <= points; point++) {
      const difference = Math.floor((ONE * point) / points);
      const speed = speedOf(difference);
      assert.ok(speed >= previous && speed <= ONE, `speed ${speed} after ${previous}`);
      previous = speed;
      const exact = toNumber(exactSigmoid(steepness, { top: BigInt(difference), bottom: BigInt(ONE) }));
      greatest = Math.max(greatest, Math.abs(speed / ONE - exact));
    }
    assert.ok(greatest <= bound, `slope ${steepness}: ${greatest} above ${bound}`);
  }
});

test('speeds stay between the slowest and the fastest, also where the two are one', () => {
  for (const [alphaLow, alphaHigh] of [
    [0, 0],
    [6553, 19_660],
    [65_535, 65_535],
  ] as const) {
    const speedOf = bondSpeed({ ...DEFAULT_EPOCH_PARAMETERS, alphaLow, alphaHigh });
    const bounds = [alphaLow, alphaHigh].map((value) => Math.floor((value * ONE) / 65_535)) as [number, number];
    for (const difference of [0, 1, ONE / 4, ONE / 2, ONE - 1, ONE]) {
      const speed = speedOf(difference);
      assert.ok(speed >= bounds[0] && speed <= bounds[1], `${speed} within ${bounds}`);
    }
  }
});
