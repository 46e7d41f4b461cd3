import { createHmac } from 'node:crypto';
import type { SeededRandom } from '../consensus/seeded-random.ts';

/**
 * Random numbers that nobody without the seed can foretell from those already seen (HMAC-SHA-256 over a counter), and that the seed repeats: a
 * validator that starts again goes on with the same hidden plan. `purpose` keeps streams of one seed apart.
 */
export function secretRandom(seed: Uint8Array, purpose: string): SeededRandom {
  let counter = 0;
  const fraction = () => {
    counter += 1;
    const digest = createHmac('sha256', seed).update(`${purpose}|${counter}`).digest();
    return digest.readUIntBE(0, 6) / 2 ** 48;
  };
  const integer = (least: number, greatest: number) => least + Math.floor(fraction() * (greatest - least + 1));
  return {
    fraction,
    integer,
    pick: (values) => values[integer(0, values.length - 1)] as (typeof values)[number],
    normal: () => Math.sqrt(-2 * Math.log(1 - fraction())) * Math.cos(2 * Math.PI * fraction()),
  };
}
