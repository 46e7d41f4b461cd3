import { MillraceError } from '../../errors.ts';
import { formatAmount, formatDuration } from '../../units.ts';
import type { CodeChoice } from './choose-code.ts';
import type { MeasuredRates } from './durability-record.ts';
import { type CodeShape, checkCode } from './reed-solomon.ts';
import { FILE_SHARDS_MAX } from './shard-layout.ts';

/** What `--durability` asks for: a code, or a number of nines for which one is chosen. */
export type DurabilityWish = CodeShape | { nines: number };

const NINES_MAX = 20;

/**
 * Reads `10+4` (ten data shards and four parity), `10of14` (the same) or `11nines` (one loss in 10^11).
 * @throws bad-durability, bad-erasure-code
 */
export function parseDurability(text: string): DurabilityWish {
  const sum = /^\s*(\d{1,3})\s*\+\s*(\d{1,3})\s*$/.exec(text);
  if (sum !== null) return checkCode({ k: Number(sum[1]), n: Number(sum[1]) + Number(sum[2]) }, FILE_SHARDS_MAX);
  const part = /^\s*(\d{1,3})\s*of\s*(\d{1,3})\s*$/i.exec(text);
  if (part !== null) return checkCode({ k: Number(part[1]), n: Number(part[2]) }, FILE_SHARDS_MAX);
  const nines = Number(/^\s*(\d{1,2}(?:\.\d)?)\s*nines?\s*$/i.exec(text)?.[1]);
  if (nines > 0 && nines <= NINES_MAX) return { nines };
  throw new MillraceError('bad-durability', {
    actor: 'caller',
    message: `Got durability "${text.slice(0, 40)}", expected such as 10+4, 10of14 or 11nines (at most ${NINES_MAX})`,
    values: { got: text.slice(0, 40) },
    hint: '10+4 stores ten data shards and four parity shards at fourteen operators; any ten of them give the file back.',
  });
}

/** What a client is shown of a file's durability and price, and what its JSON output has: the same numbers. */
export interface DurabilityView {
  k: number;
  n: number;
  repairBelow: number;
  hours: number;
  lossProbability: number;
  nines: number;
  expansion: number;
  repairsExpected: number;
  failuresPerShardYear: number;
  repairHours: number;
  /** Share of measurement in the failure rate; the rest is the stated assumption. */
  measuredShare: number;
  seenShardHours: number;
  seenLosses: number;
  seenRepairs: number;
  /** Base units, decimal. */
  price: string | undefined;
}

/** Durability and price with what they rest on, for JSON. */
export function viewDurability(choice: CodeChoice, rates: MeasuredRates, hours: number): DurabilityView {
  const { k, n, repairBelow, lossProbability, nines, expansion, repairsExpected, price } = choice;
  return {
    ...{ k, n, repairBelow, hours, lossProbability, nines, expansion, repairsExpected },
    failuresPerShardYear: rates.failuresPerHour * 8760,
    repairHours: rates.repairHours,
    measuredShare: rates.measuredShare,
    seenShardHours: rates.seen.shardHours,
    seenLosses: rates.seen.losses,
    seenRepairs: rates.seen.repairs,
    price: price?.toString(),
  };
}

/** The same for people, a line each: nothing is shown that was neither measured nor said to be assumed. */
export function renderDurability(view: DurabilityView, token: { symbol: string; decimals: number }): string[] {
  const repair = view.repairBelow === 0 ? 'never repaired' : `repaired when fewer than ${view.repairBelow} are healthy`;
  const span = formatDuration(view.hours * 3600);
  const basis =
    view.seenShardHours === 0
      ? 'assumed, nothing was measured yet'
      : `${Math.round(view.measuredShare * 100)} % measured: ${view.seenLosses} losses in ${Math.round(view.seenShardHours)} shard-hours, ${view.seenRepairs} repairs`;
  return [
    `any ${view.k} of ${view.n} shards give the file back; ${repair}; ${view.expansion.toFixed(2)} bytes stored for each byte`,
    `probability of loss in ${span}: ${formatProbability(view.lossProbability)} (${Math.floor(view.nines * 10) / 10} nines), if operators fail independently`,
    `at ${view.failuresPerShardYear.toPrecision(2)} losses of a shard per year and ${view.repairHours.toPrecision(2)} h to repair (${basis})`,
    ...(view.price === undefined
      ? []
      : [
          `price for ${span}: at most ${formatAmount(BigInt(view.price), token.decimals)} ${token.symbol}, about ${view.repairsExpected.toFixed(1)} repairs expected`,
        ]),
  ];
}

function formatProbability(probability: number): string {
  return probability < 1e-30 ? 'below 1e-30' : probability.toExponential(1);
}
