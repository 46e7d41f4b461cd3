/** What the chain has seen of shards in some last days, or what is assumed while it has seen little. */
export interface DurabilityRecord {
  /** Hours that all shards together were kept. */
  shardHours: number;
  /** Deals of shards that ended by a fault. */
  losses: number;
  /** Hours from a shard's loss to the activation of its repair, summed over `repairs` repairs. */
  repairHoursSum: number;
  repairs: number;
}

/**
 * What is assumed before anything is seen: each shard is lost once a year, a repair takes a day. It weighs as much as one
 * year of one shard and one repair, so a network of a few hundred shards speaks for itself after some days.
 */
export const PRIOR_RECORD: DurabilityRecord = { shardHours: 8760, losses: 1, repairHoursSum: 24, repairs: 1 };

/** Failure rate and repair time to reckon with, and how much of them was seen rather than assumed. */
export interface MeasuredRates {
  failuresPerHour: number;
  repairHours: number;
  /** What was seen, without the prior. */
  seen: DurabilityRecord;
  /** 0: all is assumed; near 1: all was measured. The share of seen shard-hours in the sum. */
  measuredShare: number;
}

/**
 * Rates from what was seen and the prior together (the mean of a gamma law after Poisson counts). `unnoticedHours` is the
 * mean time from a real loss to the end of the deal, in which the chain does not see it: half a proving period and the
 * periods of grace. It is part of the repair time.
 */
export function measureRates(seen: DurabilityRecord, unnoticedHours: number, prior: DurabilityRecord = PRIOR_RECORD): MeasuredRates {
  return {
    failuresPerHour: (seen.losses + prior.losses) / (seen.shardHours + prior.shardHours),
    repairHours: unnoticedHours + (seen.repairHoursSum + prior.repairHoursSum) / (seen.repairs + prior.repairs),
    seen,
    measuredShare: seen.shardHours / (seen.shardHours + prior.shardHours),
  };
}
