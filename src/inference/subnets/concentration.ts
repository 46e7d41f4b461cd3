import type { SparseRow } from '../consensus/epoch-input.ts';

/** How counted stake lies in few hands. */
export interface Concentration {
  /** Herfindahl–Hirschman index of the shares: 1 is one holder, 1/n is n equal ones. */
  herfindahl: number;
  /** The fewest holders that together have more than kappa of the stake: they decide consensus alone. */
  coalition: bigint[];
  /** Their share. */
  coalitionShare: number;
}

/** Two validators that say the same: copied, or agreed on. */
export interface Resemblance {
  uids: [number, number];
  /** Cosine of their rows of weights, 0 to 1. */
  likeness: number;
}

/**
 * Who could decide a subnet's consensus alone. Holders are operators: the uids of one operator are one holder.
 * @param kappa share of stake, 0 to 1, above which consensus follows
 */
export function concentrationOf(stakes: ReadonlyMap<bigint, bigint>, kappa: number): Concentration {
  const holders = [...stakes].filter(([, stake]) => stake > 0n).sort(([, one], [, other]) => (one < other ? 1 : one > other ? -1 : 0));
  const total = holders.reduce((sum, [, stake]) => sum + stake, 0n);
  const share = (stake: bigint) => (total === 0n ? 0 : Number((stake * 1_000_000_000n) / total) / 1e9);
  const coalition: bigint[] = [];
  let coalitionShare = 0;
  for (const [operatorId, stake] of holders) {
    if (coalitionShare > kappa) break;
    coalition.push(operatorId);
    coalitionShare += share(stake);
  }
  return { herfindahl: holders.reduce((sum, [, stake]) => sum + share(stake) ** 2, 0), coalition, coalitionShare };
}

/** Pairs of rows by likeness, the likest first; rows without entries are like nothing. */
export function resemblances(rows: ReadonlyMap<number, SparseRow>): Resemblance[] {
  const uids = [...rows.keys()];
  const pairs = uids.flatMap((one, at) => uids.slice(at + 1).map((other): [number, number] => [one, other]));
  return pairs
    .map((pair): Resemblance => ({ uids: pair, likeness: likeness(rows.get(pair[0]) ?? [], rows.get(pair[1]) ?? []) }))
    .sort((left, right) => right.likeness - left.likeness);
}

function likeness(left: SparseRow, right: SparseRow): number {
  const others = new Map(right);
  const dot = left.reduce((sum, [uid, weight]) => sum + weight * (others.get(uid) ?? 0), 0);
  const length = (row: SparseRow) => Math.sqrt(row.reduce((sum, [, weight]) => sum + weight * weight, 0));
  return dot === 0 ? 0 : Math.min(1, dot / (length(left) * length(right)));
}
