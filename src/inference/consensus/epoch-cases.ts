import { DEFAULT_EPOCH_PARAMETERS } from './default-parameters.ts';
import type { EpochInput, EpochParameters, SparseRow } from './epoch-input.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';

/** What a random epoch is made to look like; `randomEpoch` goes through them in turn. */
export const EPOCH_SHAPES = [
  'ordinary',
  'liquid',
  'empty',
  'single',
  'zero-stake',
  'tied',
  'degenerate',
  'extreme',
  'rotated',
  'fresh',
  'capped',
  'owner',
] as const;

/** One of the looks of a random epoch. */
export type EpochShape = (typeof EPOCH_SHAPES)[number];

/** An epoch of uids that are all active, old and alike: what is not given is neutral. */
export function plainEpoch(
  given: Partial<Omit<EpochInput, 'parameters'>> & { stakes: readonly bigint[]; parameters?: Partial<EpochParameters> },
): EpochInput {
  const fill = <T>(value: T) => given.stakes.map(() => value);
  return {
    now: 1000,
    lastEpochAt: 900,
    ownerUid: null,
    lastUpdate: fill(950),
    registeredAt: fill(1),
    committedAt: fill(0),
    unrevealed: fill(false),
    permits: given.stakes.map((stake) => stake > 0n),
    weights: fill([]),
    bonds: fill([]),
    previousConsensus: fill(0),
    totalEmission: 10n ** 18n,
    ...given,
    parameters: { ...DEFAULT_EPOCH_PARAMETERS, ...given.parameters },
  };
}

/**
 * The random epoch of a seed: the same for ever, one of the shapes in turn, small enough for a differential test on chain (at most 24
 * uids).
 */
export function randomEpoch(seed: number): EpochInput {
  const shape = EPOCH_SHAPES[seed % EPOCH_SHAPES.length] as EpochShape;
  return epochOfShape(shape, seededRandom(seed));
}

/** The largest epoch that a contract takes: 64 validators, 256 uids, 64 entries a row, bonds to other uids than weights. */
export function maximalEpoch(seed: number, parameters: Partial<EpochParameters> = {}): EpochInput {
  const random = seededRandom(seed);
  const uids = 256;
  const isValidator = (uid: number) => uid < 64;
  const rowOf = (validator: number, from: number): SparseRow =>
    Array.from({ length: 64 }, (_, place) => [(from + place * 4 + (validator % 4)) % uids, random.integer(1, 65_535)] as const).sort(
      ([a], [b]) => a - b,
    );
  return plainEpoch({
    stakes: Array.from({ length: uids }, (_, uid) => (isValidator(uid) ? randomStake(random) : 0n)),
    weights: Array.from({ length: uids }, (_, uid) => (isValidator(uid) ? rowOf(uid, 0) : [])),
    bonds: Array.from({ length: uids }, (_, uid) => (isValidator(uid) ? rowOf(uid, 1) : [])),
    previousConsensus: Array.from({ length: uids }, () => random.integer(0, 2000)),
    parameters,
  });
}

/**
 * An epoch of up to 256 uids, most of them validators, with rows of up to 64 entries that are equal, nearly equal, powers of two or random:
 * many rows in a column, ties at every cut, and bonds with and without weights.
 */
export function crowdedEpoch(seed: number): EpochInput {
  const random = seededRandom(seed);
  const uids = random.integer(40, 256);
  const look = random.pick(['equal', 'near', 'powers', 'random'] as const);
  const rows = () => Array.from({ length: uids }, () => crowdedRow(uids, look, random));
  const input = ordinaryEpoch(uids, random.pick(['ordinary', 'liquid'] as const), random);
  return { ...input, weights: rows(), bonds: rows(), parameters: { ...input.parameters, bondRowCap: random.pick([0, 16, 64]) } };
}

function crowdedRow(uids: number, look: 'equal' | 'near' | 'powers' | 'random', random: SeededRandom): SparseRow {
  const values = { equal: [7, 7], near: [200, 203], powers: [0, 16], random: [0, 65_535] }[look] as [number, number];
  const row: [number, number][] = [];
  const chance = 64 / uids;
  for (let uid = 0; uid < uids && row.length < 64; uid++) {
    if (random.fraction() >= chance) continue;
    const value = random.integer(...values);
    row.push([uid, look === 'powers' ? Math.min(2 ** value, 65_535) : value]);
  }
  return row;
}

function epochOfShape(shape: EpochShape, random: SeededRandom): EpochInput {
  const uids = shape === 'empty' ? 0 : shape === 'single' ? 1 : random.integer(2, 24);
  const input = ordinaryEpoch(uids, shape, random);
  const list = <T>(make: (uid: number) => T) => Array.from({ length: uids }, (_, uid) => make(uid));
  const { parameters } = input;
  switch (shape) {
    case 'single':
      return { ...input, ownerUid: random.pick([null, 0]), permits: [true], weights: [[[0, 65_535]]] };
    case 'zero-stake':
      return { ...input, stakes: list(() => 0n), permits: list(() => random.pick([true, false])) };
    case 'tied':
      return { ...input, stakes: list((uid) => (uid % 2 === 0 ? 10n ** 18n : 0n)), weights: list((uid) => tiedRow(uid, uids)) };
    case 'degenerate':
      return random.pick([
        { ...input, permits: list(() => false) },
        { ...input, weights: list(() => []) },
        { ...input, lastUpdate: list(() => 0), parameters: { ...parameters, activityCutoff: 1 } },
        { ...input, unrevealed: list(() => true) },
        { ...input, weights: list((uid) => [[uid, 1]] as const) },
        { ...input, totalEmission: BigInt(random.integer(0, 30)) },
      ]);
    case 'extreme':
      return { ...input, stakes: list(() => extremeAmount(random)), totalEmission: extremeAmount(random), parameters: extremes(random) };
    case 'rotated':
      return { ...input, bonds: list(() => randomRow(uids, 0.5, random)), parameters: { ...parameters, mode: 'yuma3-liquid' } };
    case 'fresh':
      return {
        ...input,
        registeredAt: list(() => random.integer(850, 1000)),
        committedAt: list(() => random.pick([0, 0, random.integer(850, 1000)])),
        unrevealed: list(() => random.fraction() < 0.2),
      };
    case 'capped':
      return {
        ...input,
        parameters: {
          ...parameters,
          bondRowCap: random.integer(1, 4),
          maxValidators: random.integer(1, 4),
          stakeCapPercentile: random.integer(1, 99),
        },
      };
    case 'owner':
      return {
        ...input,
        ownerUid: random.integer(0, uids - 1),
        weights: list(() => randomRow(uids, 0.9, random)),
        parameters: { ...parameters, stakeThreshold: 2n ** 60n, maxValidators: random.integer(1, uids) },
      };
    default:
      return input;
  }
}

function ordinaryEpoch(uids: number, shape: EpochShape, random: SeededRandom): EpochInput {
  const list = <T>(make: (uid: number) => T) => Array.from({ length: uids }, (_, uid) => make(uid));
  const density = random.pick([0.2, 0.6, 1]);
  return plainEpoch({
    stakes: list(() => (random.fraction() < 0.6 ? randomStake(random) : 0n)),
    permits: list(() => random.fraction() < 0.8),
    lastUpdate: list(() => (random.fraction() < 0.9 ? random.integer(901, 1000) : 100)),
    weights: list(() => randomRow(uids, density, random)),
    bonds: list(() => randomRow(uids, density, random)),
    previousConsensus: list(() => random.pick([0, random.integer(0, 65_535 / Math.max(1, uids))])),
    totalEmission: randomStake(random),
    parameters: {
      mode: shape === 'liquid' ? 'yuma3-liquid' : random.pick(['yuma2', 'yuma3', 'yuma3-liquid'] as const),
      kappa: random.pick([32_767, random.integer(1, 65_534)]),
      bondsPenalty: random.pick([0, 65_535, random.integer(0, 65_535)]),
      bondsMovingAverage: random.pick([900_000, 975_000, random.integer(0, 1_000_000)]),
      alphaSteepness: random.pick([1000, random.integer(0, 2000)]),
      consensusMode: random.pick(['previous', 'current', 'auto'] as const),
      activityCutoff: 500,
      bondRowCap: random.pick([0, 8]),
    },
  });
}

function extremes(random: SeededRandom): EpochParameters {
  const alphaLow = random.pick([0, 65_535, 32_768]);
  return {
    ...DEFAULT_EPOCH_PARAMETERS,
    mode: random.pick(['yuma2', 'yuma3', 'yuma3-liquid'] as const),
    kappa: random.pick([1, 65_534, 32_767]),
    bondsPenalty: random.pick([0, 1, 65_534, 65_535]),
    bondsMovingAverage: random.pick([0, 1, 999_999, 1_000_000]),
    alphaLow,
    alphaHigh: random.pick([alphaLow, 65_535]),
    alphaSteepness: random.pick([0, 1, 2000]),
    stakeThreshold: random.pick([0n, 1n, 2n ** 127n]),
    stakeCapPercentile: random.pick([0, 1, 50, 99]),
    bondRowCap: random.pick([0, 1, 65_535]),
  };
}

function extremeAmount(random: SeededRandom): bigint {
  return random.pick([0n, 1n, 2n ** 32n - 1n, 2n ** 64n, 2n ** 127n, 2n ** 128n - 1n]);
}

/** Up to 2^100, of all magnitudes. */
function randomStake(random: SeededRandom): bigint {
  return (BigInt(random.integer(1, 2 ** 32 - 1)) << BigInt(random.integer(0, 68))) + BigInt(random.integer(0, 1000));
}

function randomRow(uids: number, density: number, random: SeededRandom): SparseRow {
  const row: [number, number][] = [];
  for (let uid = 0; uid < uids; uid++) {
    if (random.fraction() < density) row.push([uid, random.pick([0, 1, 65_535, random.integer(0, 65_535), random.integer(0, 65_535)])]);
  }
  return row;
}

function tiedRow(validator: number, uids: number): SparseRow {
  return Array.from({ length: uids }, (_, uid) => [uid, uid === validator ? 0 : 1000] as const);
}
