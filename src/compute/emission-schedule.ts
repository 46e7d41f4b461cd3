/** All that the compute token's emission ever brings, base units: 300 million above the 500 million of launch. */
export const EMISSION_TOTAL = 300_000_000n * 10n ** 18n;
/** The hour whose end completes {@link EMISSION_TOTAL}; hours count from 1. */
export const LAST_HOUR = 175_319;

const ONE = 1n << 128n;
const KEPT = (ONE * (10n ** 19n - 138_869_523_959_793n)) / 10n ** 19n;
const LIMIT_NUMERATOR = 4n * 10n ** 44n;
const LIMIT_DENOMINATOR = 8_760n * 138_869_523_959_793n;

/**
 * What the first `hours` hours of the compute token's emission bring together, base units, as
 * contracts/src/compute/ComputeSchedule.sol says it: hour 1 brings 500 million * 8 % / 8,760, each hour after it
 * (1 - 138869523959793 / 10^19) times the hour before, and the sum is rounded down and ends at 300 million.
 * Source: docs.iog.net/docs/token-emission-schedule; decision 0028.
 */
export function emittedBy(hours: number): bigint {
  if (hours >= LAST_HOUR) return EMISSION_TOTAL;
  let power = ONE;
  let square = KEPT;
  for (let exponent = hours; exponent > 0; exponent >>= 1) {
    if (exponent & 1) power = (power * square) >> 128n;
    square = (square * square) >> 128n;
  }
  return (LIMIT_NUMERATOR * (ONE - power)) / (LIMIT_DENOMINATOR << 128n);
}
