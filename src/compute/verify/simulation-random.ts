import { createHash } from 'node:crypto';
import type { Hex } from 'viem';

/** Numbers that a seed repeats; for simulations, not for secrets. */
export interface SimulationRandom {
  /** A fraction in [0, 1). */
  fraction(): number;
  /** 32 bytes. */
  word(): Hex;
}

/** SHA-256 of seed and count. */
export function simulationRandom(seed: number): SimulationRandom {
  let count = 0;
  const next = () => {
    count += 1;
    return createHash('sha256').update(`millrace simulation ${seed} ${count}`).digest();
  };
  return { fraction: () => next().readUInt32LE(0) / 2 ** 32, word: () => `0x${next().toString('hex')}` };
}
