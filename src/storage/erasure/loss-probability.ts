import { MillraceError } from '../../errors.ts';
import { type CodeShape, checkCode } from './reed-solomon.ts';

/** A file's code with its repair rule, and what happens to shards. Rates are of exponential laws. */
export interface LossModel extends CodeShape {
  /** Lost shards are repaired while fewer than this many are healthy; 0: never. */
  repairBelow: number;
  /** Expected losses of one shard in one hour. */
  failuresPerHour: number;
  /** Mean hours from the moment when a shard is lost, noticed or not, until another holder has proven it. */
  repairHours: number;
}

/** Hours of a year of 365 days. */
export const HOURS_PER_YEAR = 8760;

/**
 * Probability that a file that starts with all n shards falls below k healthy ones within so many hours: the transient
 * solution of the birth-death chain whose state is the number of lost shards. From state j a further shard is lost at rate
 * (n − j) × failuresPerHour; while n − j < repairBelow each lost shard is repaired at rate 1 / repairHours, side by side; state
 * n − k + 1 is final. It assumes that shards are lost independently of one another and that repairers are always found:
 * correlated failures make it worse (`simulateLosses` shows by how much).
 * Only non-negative numbers are added and multiplied, so even probabilities of 1e-30 have about seven right digits.
 * Source of the method: uniformisation (Jensen 1953) with repeated squaring.
 * @throws bad-erasure-code, bad-durability-input
 */
export function lossProbability(model: LossModel, hours: number): number {
  const { losses, repairs } = ratesOf(model);
  if (!(hours >= 0)) throw badInput('hours', hours, 'a number that is not negative');
  const fastest = Math.max(...losses.map((loss, state) => loss + (repairs[state] as number)));
  if (fastest === 0 || hours === 0) return 0;
  // One step is short enough that no state is left more than half the time: the diagonal then loses no digits.
  const squarings = Math.max(0, Math.ceil(Math.log2(2 * fastest * hours)));
  const stepHours = hours / 2 ** squarings;
  let step = transitionOf(losses, repairs, stepHours);
  for (let i = 0; i < squarings; i += 1) step = product(step, step);
  return Math.min(1, step[0]?.at(-1) as number);
}

/**
 * Mean hours until the file is lost: the closed sum for hitting times of a birth-death chain. With fast repair,
 * 1 − exp(−hours / this) is close to `lossProbability`.
 * @throws bad-erasure-code, bad-durability-input
 */
export function meanHoursToLoss(model: LossModel): number {
  const { losses, repairs } = ratesOf(model);
  let total = 0;
  let toNext = 0; // mean hours from state i to state i + 1
  for (const [state, loss] of losses.entries()) {
    toNext = (1 + (repairs[state] as number) * toNext) / loss;
    total += toNext;
  }
  return total;
}

/** Durability as a number of nines: 11 nines are a probability of loss of 1e-11. At most 30 are told. */
export function ninesOf(probability: number): number {
  return Math.min(30, -Math.log10(Math.max(probability, 1e-30)));
}

/** Rates of loss and of repair in each state but the final one. */
function ratesOf(model: LossModel): { losses: number[]; repairs: number[] } {
  const { k, n } = checkCode(model);
  const { repairBelow, failuresPerHour, repairHours } = model;
  if (!Number.isInteger(repairBelow) || repairBelow > n || (repairBelow !== 0 && repairBelow <= k)) {
    throw badInput('repairBelow', repairBelow, `0, or a whole number above ${k} and at most ${n}`);
  }
  if (!(failuresPerHour >= 0) || !Number.isFinite(failuresPerHour)) throw badInput('failuresPerHour', failuresPerHour, 'not negative');
  if (!(repairHours > 0) || !Number.isFinite(repairHours)) throw badInput('repairHours', repairHours, 'above zero');
  const states = Array.from({ length: n - k + 1 }, (_, lost) => lost);
  return {
    losses: states.map((lost) => (n - lost) * failuresPerHour),
    repairs: states.map((lost) => (n - lost < repairBelow ? lost / repairHours : 0)),
  };
}

/** Transition probabilities over a short time: the series of the exponential, all of whose terms are positive. */
function transitionOf(losses: readonly number[], repairs: readonly number[], hours: number): number[][] {
  const size = losses.length + 1;
  const matrix = () => Array.from({ length: size }, () => new Array<number>(size).fill(0));
  // exp(Qt) = exp(−u) × sum of (u P)^i / i!, with u P = Q t + u and u = 1/2 at least as large as any diagonal of −Q t.
  const uniform = 0.5;
  const generator = matrix();
  for (let state = 0; state < size; state += 1) {
    const row = generator[state] as number[];
    const [loss, repair] = [(losses[state] ?? 0) * hours, (repairs[state] ?? 0) * hours];
    row[state] = uniform - loss - repair;
    if (state + 1 < size) row[state + 1] = loss;
    if (state > 0) row[state - 1] = repair;
  }
  let sum = matrix();
  let term = matrix().map((row, state) => row.map((_, column) => (state === column ? Math.exp(-uniform) : 0)));
  for (let order = 1; order <= Math.max(40, size + 24); order += 1) {
    const added = term;
    sum = sum.map((row, state) => row.map((value, column) => value + (added[state]?.[column] as number)));
    term = product(term, generator).map((row) => row.map((value) => value / order));
  }
  return sum;
}

function product(left: readonly number[][], right: readonly number[][]): number[][] {
  return left.map((row) => {
    const result = new Array<number>(row.length).fill(0);
    row.forEach((factor, at) => {
      if (factor === 0) return;
      const other = right[at] as number[];
      for (let column = 0; column < result.length; column += 1)
        result[column] = (result[column] as number) + factor * (other[column] as number);
    });
    return result;
  });
}

function badInput(name: string, got: number, expected: string): MillraceError {
  return new MillraceError('bad-durability-input', {
    actor: 'caller',
    message: `Got ${name} ${got}, expected ${expected}`,
    values: { name, got, expected },
  });
}
