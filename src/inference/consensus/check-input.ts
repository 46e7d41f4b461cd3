import { MillraceError } from '../../errors.ts';
import type { EpochInput, EpochParameters, SparseRow } from './epoch-input.ts';

const UIDS_MAX = 512;
const AMOUNT_LIMIT = 1n << 128n;
const TIME_LIMIT = 2 ** 40;
const U16 = 65_535;

/** Least and greatest value of each numeric hyper-parameter: within them no arithmetic of an epoch can overflow (decision 0019). */
export const PARAMETER_BOUNDS = {
  kappa: [1, 65_534],
  bondsPenalty: [0, U16],
  bondsMovingAverage: [0, 1_000_000],
  alphaLow: [0, U16],
  alphaHigh: [0, U16],
  alphaSteepness: [0, 2000],
  stakeCapPercentile: [0, 99],
  maxValidators: [1, 64],
  activityCutoff: [0, TIME_LIMIT - 1],
  bondRowCap: [0, U16],
} as const satisfies Partial<Record<keyof EpochParameters, readonly [number, number]>>;

/** Refuses an input outside of the sizes for which an epoch is exact. @throws bad-epoch-input */
export function checkInput(input: EpochInput): void {
  const n = input.stakes.length;
  requireWithin('number of uids', n, [0, UIDS_MAX]);
  const { lastUpdate, registeredAt, committedAt, unrevealed, permits, weights, bonds, previousConsensus } = input;
  for (const [name, list] of Object.entries({
    lastUpdate,
    registeredAt,
    committedAt,
    unrevealed,
    permits,
    weights,
    bonds,
    previousConsensus,
  })) {
    if (list.length !== n) refuse(`${name} has ${list.length} entries`, `${n}, one per uid`);
  }
  for (const amount of [...input.stakes, input.totalEmission, input.parameters.stakeThreshold]) {
    if (amount < 0n || amount >= AMOUNT_LIMIT) refuse(`an amount of ${amount}`, 'at least 0 and below 2^128');
  }
  for (const time of [input.now, input.lastEpochAt, ...lastUpdate, ...registeredAt, ...committedAt])
    requireWithin('a time', time, [0, TIME_LIMIT - 1]);
  if (input.ownerUid !== null) requireWithin("the owner's uid", input.ownerUid, [0, n - 1]);
  for (const value of previousConsensus) requireWithin('a previous consensus', value, [0, U16]);
  for (const row of weights) checkRow(row, n);
  for (const row of bonds) checkRow(row, n);
  checkParameters(input.parameters);
}

function checkParameters(parameters: EpochParameters): void {
  for (const [name, bounds] of Object.entries(PARAMETER_BOUNDS)) {
    requireWithin(name, parameters[name as keyof typeof PARAMETER_BOUNDS], bounds);
  }
  if (parameters.alphaLow > parameters.alphaHigh) refuse(`alphaLow ${parameters.alphaLow}`, `at most alphaHigh ${parameters.alphaHigh}`);
}

function checkRow(row: SparseRow, n: number): void {
  let previous = -1;
  for (const [uid, value] of row) {
    if (!Number.isInteger(uid) || uid <= previous || uid >= n)
      refuse(`uid ${uid} after uid ${previous} in a row`, `ascending uids below ${n}`);
    requireWithin('a value of a row', value, [0, U16]);
    previous = uid;
  }
}

function requireWithin(what: string, value: number, [least, greatest]: readonly [number, number]): void {
  if (!Number.isInteger(value) || value < least || value > greatest)
    refuse(`${what} of ${value}`, `an integer from ${least} to ${greatest}`);
}

function refuse(got: string, expected: string): never {
  throw new MillraceError('bad-epoch-input', {
    actor: 'caller',
    message: `An epoch cannot be computed: got ${got}, expected ${expected}`,
    values: { got, expected },
    hint: 'The bounds of an epoch are in docs/decisions/0019-yuma.md.',
  });
}
