import { keccak_256 } from '@noble/hashes/sha3.js';
import { type Hex, hexToBytes } from 'viem';

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
  const key = keyOf(seed, round);
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

function forward(key: Buffer, half: number, place: number): number {
  const mask = 2 ** half - 1;
  let [left, right] = [place >> half, place & mask];
  for (let step = 0; step < STEPS; step += 1) [left, right] = [right, left ^ (mix(key, step, right) & mask)];
  return (left << half) | right;
}

function backward(key: Buffer, half: number, place: number): number {
  const mask = 2 ** half - 1;
  let [left, right] = [place >> half, place & mask];
  for (let step = STEPS - 1; step >= 0; step -= 1) [left, right] = [right ^ (mix(key, step, left) & mask), left];
  return (left << half) | right;
}

/** A round's key, followed by room for what is mixed under it. */
function keyOf(seed: Hex, round: number): Buffer {
  const words = Buffer.alloc(64);
  words.set(hexToBytes(seed));
  words.writeUInt32BE(round, 60);
  const key = Buffer.alloc(64);
  key.set(keccak_256(words));
  return key;
}

/** The low 32 bits of keccak256(key ‖ step:u128 ‖ part:u128); seats have fewer. */
function mix(key: Buffer, step: number, part: number): number {
  key.writeUInt32BE(step, 44);
  key.writeUInt32BE(part, 60);
  const hash = keccak_256(key);
  return ((hash[28] as number) << 24) | ((hash[29] as number) << 16) | ((hash[30] as number) << 8) | (hash[31] as number);
}
