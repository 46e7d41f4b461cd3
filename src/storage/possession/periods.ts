/** The clock of a Possession contract; all in seconds, `genesis` is a timestamp. */
export interface PeriodClock {
  genesis: bigint;
  period: number;
  window: number;
  freeze: number;
}

/** The period in which a timestamp falls. */
export function periodAt(clock: PeriodClock, timestamp: bigint): bigint {
  return (timestamp - clock.genesis) / BigInt(clock.period);
}

/** When a period starts. */
export function periodStart(clock: PeriodClock, period: bigint): bigint {
  return clock.genesis + period * BigInt(clock.period);
}

/** When the seed of a period is drawn; its proof is accepted from then to the end of the period. */
export function seedTime(clock: PeriodClock, period: bigint): bigint {
  return periodStart(clock, period + 1n) - BigInt(clock.window);
}

/** From here to the end of the period the table that must be proven takes no change. */
export function freezeTime(clock: PeriodClock, period: bigint): bigint {
  return seedTime(clock, period) - BigInt(clock.freeze);
}
