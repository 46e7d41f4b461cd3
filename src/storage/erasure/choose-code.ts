import { MillraceError } from '../../errors.ts';
import type { MeasuredRates } from './durability-record.ts';
import { lossProbability, ninesOf } from './loss-probability.ts';
import type { CodeShape } from './reed-solomon.ts';
import { FILE_SHARDS_MAX, layoutShards } from './shard-layout.ts';

/** A code with its repair rule and what may be expected of it over a deal. */
export interface CodeChoice extends CodeShape {
  /** Repair starts when fewer than this many shards are healthy; 0: never. */
  repairBelow: number;
  /** Probability that the file is lost before the deal ends. */
  lossProbability: number;
  nines: number;
  /** About how many shards will be repaired, for the reserve. */
  repairsExpected: number;
  /** Stored bytes of all shards for each byte of the file's CAR. */
  expansion: number;
  /** What `quote` said, in base units; undefined without one. */
  price: bigint | undefined;
}

/** What is wanted and what there is. */
export interface CodeWishes {
  carSize: number;
  /** Length of the deal. */
  hours: number;
  rates: MeasuredRates;
  /** Different operators that could take a shard each. */
  operators: number;
  /** Price of the whole file with a code, in base units. Without it the least storage is the best. */
  quote?: (choice: CodeShape & { shardCarSize: number; repairBelow: number; repairsExpected: number }) => bigint;
}

/** The most data shards that are chosen by itself: more spread costs more requests and a little less storage. */
const DATA_SHARDS_MAX = 20;
/** A data shard is not made smaller than this: each one costs a deal and proofs, whatever its size. */
const SHARD_BYTES_MIN = 256 << 10;

/**
 * The cheapest code that is durable enough: among all k and n that the operators allow, with the lowest repair threshold
 * that reaches the wanted nines. Durability is that of the independent model (`lossProbability`) at the given rates, and the
 * diversity of operators is what keeps it near the truth.
 * @throws durability-unreachable with the best that there is, too-expensive
 */
export function chooseCode(wishes: CodeWishes & { nines: number; budget?: bigint }): CodeChoice {
  const { carSize, operators, nines, budget } = wishes;
  const countMax = Math.min(operators, FILE_SHARDS_MAX);
  const dataMax = Math.max(1, Math.min(DATA_SHARDS_MAX, countMax, Math.floor(carSize / SHARD_BYTES_MIN)));
  let best: CodeChoice | undefined;
  let nearest: CodeChoice | undefined;
  for (let k = 1; k <= dataMax; k += 1) {
    const found = leastCode({ ...wishes, k, countMax });
    if (found === undefined) continue;
    if (nearest === undefined || found.nines > nearest.nines) nearest = found;
    if (found.nines >= nines && (best === undefined || isBetter(found, best))) best = found;
  }
  if (best === undefined) throw unreachable(nines, operators, nearest);
  if (budget !== undefined && best.price !== undefined && best.price > budget) throw tooExpensive(best, budget);
  return best;
}

/** What may be expected of a given code; `repairBelow` as stated, else the threshold that a bid has by itself. */
export function describeCode(wishes: CodeWishes, code: CodeShape & { repairBelow: number }): CodeChoice {
  const { k, n, repairBelow } = code;
  const { rates, hours, carSize } = wishes;
  const probability = lossProbability({ ...rates, k, n, repairBelow }, hours);
  // Of all losses, the last n − repairBelow + 1 are never repaired.
  const repairsExpected = repairBelow === 0 ? 0 : Math.max(0, n * rates.failuresPerHour * hours - (n - repairBelow));
  const { shardCarSize } = layoutShards(carSize, code);
  const price = wishes.quote?.({ k, n, shardCarSize, repairBelow, repairsExpected });
  const expansion = (shardCarSize * n) / carSize;
  return { k, n, repairBelow, lossProbability: probability, nines: ninesOf(probability), repairsExpected, expansion, price };
}

/** For one k: the smallest n, and for it the lowest threshold, that reach the nines; else the most durable there is. */
function leastCode(wishes: CodeWishes & { nines: number; k: number; countMax: number }): CodeChoice | undefined {
  const { k, countMax, nines } = wishes;
  let best: CodeChoice | undefined;
  for (let n = k; n <= countMax; n += 1) {
    best = describeCode(wishes, { k, n, repairBelow: n === k ? 0 : n });
    if (best.nines < nines) continue;
    for (let repairBelow = k + 1; repairBelow < n; repairBelow += 1) {
      const lazier = describeCode(wishes, { k, n, repairBelow });
      if (lazier.nines >= nines) return lazier;
    }
    return best;
  }
  return best;
}

function isBetter(one: CodeChoice, other: CodeChoice): boolean {
  if (one.price !== undefined && other.price !== undefined && one.price !== other.price) return one.price < other.price;
  return one.expansion < other.expansion;
}

function unreachable(nines: number, operators: number, nearest: CodeChoice | undefined): MillraceError {
  const most = nearest === undefined ? 'none' : `${nearest.nines.toFixed(1)} nines with ${nearest.k} of ${nearest.n}`;
  return new MillraceError('durability-unreachable', {
    actor: 'caller',
    message: `${nines} nines cannot be had with ${operators} operators at the failure rate and repair time seen; the most is ${most}`,
    values: { wanted: nines, operators, reachable: nearest?.nines, k: nearest?.k, n: nearest?.n },
    hint: 'Ask for less, for a shorter time, or wait for more operators or faster repairs.',
  });
}

function tooExpensive(choice: CodeChoice, budget: bigint): MillraceError {
  return new MillraceError('too-expensive', {
    actor: 'caller',
    message: `The cheapest code that is durable enough, ${choice.k} of ${choice.n}, costs ${choice.price} base units in all, the limit is ${budget}`,
    values: { total: choice.price, limit: budget, k: choice.k, n: choice.n },
    hint: 'Raise the limit, or ask for less durability or a shorter time.',
  });
}
