import { encodeAbiParameters, type Hex, hexToBigInt, keccak256, pad, toHex } from 'viem';

/** A seat without a partner in a round, as the contract says it. */
export const NOBODY = 0xffff_ffff;

const STEPS = 4;

/**
 * The partner of a seat in a round, undefined where it has none; who is whose partner holds both ways. The same as `HealthDraw.partnerOf`: a
 * Feistel network of four rounds of keccak256 over the next power of four, walked until it lies below the number of seats.
 * @param seed the hour's randomness
 */
export function partnerOf(seed: Hex, draw: { round: number; seat: number; seats: number }): number | undefined {
  const { round, seat, seats } = draw;
  if (seats < 2) return undefined;
  const key = keccak256(encodeAbiParameters([{ type: 'bytes32' }, { type: 'uint256' }], [seed, BigInt(round)]));
  const half = halfBits(seats);
  let place = seat;
  do place = forward(key, half, place);
  while (place >= seats);
  place ^= 1;
  if (place >= seats) return undefined;
  do place = backward(key, half, place);
  while (place >= seats);
  return place;
}

/** Half the bits of the smallest power of four that is at least `seats`. */
function halfBits(seats: number): number {
  let half = 1;
  while (4 ** half < seats) half += 1;
  return half;
}

function forward(key: Hex, half: number, place: number): number {
  const mask = 2 ** half - 1;
  let [left, right] = [place >> half, place & mask];
  for (let step = 0; step < STEPS; step += 1) [left, right] = [right, left ^ (mix(key, step, right) & mask)];
  return (left << half) | right;
}

function backward(key: Hex, half: number, place: number): number {
  const mask = 2 ** half - 1;
  let [left, right] = [place >> half, place & mask];
  for (let step = STEPS - 1; step >= 0; step -= 1) [left, right] = [right ^ (mix(key, step, left) & mask), left];
  return (left << half) | right;
}

/** The low 32 bits of the hash; seats have fewer. */
function mix(key: Hex, step: number, part: number): number {
  const word = (BigInt(step) << 128n) | BigInt(part);
  const hash = keccak256(`${key}${pad(toHex(word), { size: 32 }).slice(2)}`);
  return Number(hexToBigInt(hash) & 0xffff_ffffn) | 0;
}
