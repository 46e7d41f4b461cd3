/** Random numbers that a seed repeats; for simulations and tests, not for secrets. */
export interface SeededRandom {
  /** A fraction in [0, 1). */
  fraction(): number;
  /** An integer from `least` to `greatest`, both included. */
  integer(least: number, greatest: number): number;
  /** One of the values. */
  pick<T>(values: readonly T[]): T;
  /** A value of the normal distribution with mean 0 and deviation 1 (Box and Muller). */
  normal(): number;
}

/** The generator splitmix32 (G. Steele, D. Lea, C. Flood 2014, in 32 bits), started at `seed`. */
export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const fraction = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
  const integer = (least: number, greatest: number) => least + Math.floor(fraction() * (greatest - least + 1));
  return {
    fraction,
    integer,
    pick: (values) => values[integer(0, values.length - 1)] as (typeof values)[number],
    normal: () => Math.sqrt(-2 * Math.log(1 - fraction())) * Math.cos(2 * Math.PI * fraction()),
  };
}
