/**
 * Q32: a number x stands for x / 2^32. All of it is done in doubles that hold integers below 2^53, which is exact and some fifty times
 * faster than bigints; each function says up to where. The same integers as `contracts/src/inference/Yuma.sol` (decision 0019).
 */
export const ONE = 4_294_967_296;

const U16 = 65_535;
const HALF_WORD = 65_536;

/** ⌊a·b / 2^32⌋ for a and b up to ONE: the product is split at 16 bits of a, so that no part exceeds 2^49. */
export function mul(a: number, b: number): number {
  const high = Math.floor(a / HALF_WORD);
  return Math.floor((high * b + Math.floor(((a - high * HALF_WORD) * b) / HALF_WORD)) / HALF_WORD);
}

/** ⌈a·b / 2^32⌉ for a and b up to ONE. */
export function mulUp(a: number, b: number): number {
  const high = Math.floor(a / HALF_WORD);
  const low = (a - high * HALF_WORD) * b;
  return Math.ceil((high * b + Math.ceil(low / HALF_WORD)) / HALF_WORD);
}

/**
 * ⌊a·2^32 / b⌋, and 0 for b = 0, for a ≤ b < 2^42. Long division in digits of 11, 11 and 10 bits: no dividend reaches 2^53, and below
 * that the rounded quotient of two integers never reaches the next integer.
 */
export function div(a: number, b: number): number {
  if (b === 0) return 0;
  const first = Math.floor((a * 2048) / b);
  const rest = a * 2048 - first * b;
  const second = Math.floor((rest * 2048) / b);
  const third = Math.floor(((rest * 2048 - second * b) * 1024) / b);
  return (first * 2048 + second) * 1024 + third;
}

/** v / 65,535 in Q32, rounded down. */
export function fromU16(value: number): number {
  return Math.floor((value * ONE) / U16);
}

/** x of at most ONE as u16 of one, rounded down. */
export function toU16(x: number): number {
  return Math.floor((x * U16) / ONE);
}

/** The plain sum; exact for 512 values of at most ONE. */
export function sumOf(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

/** Each value's share of the sum; zeros if the sum is 0. */
export function normalise(values: Float64Array): Float64Array {
  const sum = sumOf(values);
  return values.map((value) => div(value, sum));
}
