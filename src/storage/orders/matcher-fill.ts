import { type BatchTimes, type Book, type BookAsk, type BookBid, isInBatch, misfitOf } from './matching-rules.ts';

/** A bid of a problem, with the asks that could take a shard of it, cheapest first. */
export interface ProblemBid {
  bid: BookBid;
  fits: number[];
  /** Size times periods of one shard: what one unit of price is worth. */
  weight: bigint;
  /** The score of its cheapest fitting asks: never less than what it can bring. */
  worthMax: bigint;
}

/** An ask of a problem; parties, networks and regions as small numbers, equal where they are equal. */
export interface ProblemAsk {
  ask: BookAsk;
  operator: number;
  owner: number;
  beneficiary: number;
  network: number;
  region: number;
}

/** Steps that are left. */
export interface StepBudget {
  take(): void;
  isSpent(): boolean;
}

/** A book prepared for the search: asks by price, bids that can be filled at all, and the prices that may divide them. */
export interface MatchProblem {
  asks: ProblemAsk[];
  bids: ProblemBid[];
  /** Descending; at each, bids of at least this price meet asks of at most this price. */
  prices: bigint[];
  shardsMax: number;
  budget: StepBudget;
}

/** Which asks (by index) each filled bid (by index) has. */
export interface Solution {
  score: bigint;
  placed: Map<number, number[]>;
}

/** What is left of each ask while a solution is made. */
export interface Remains {
  bytes: bigint[];
  deals: number[];
}

/** Prepares the orders that a batch has. */
export function prepareProblem(book: Book, times: BatchTimes, limits: { shardsMax: number; steps: number }): MatchProblem {
  const inBatch = book.asks.filter((ask) => isInBatch(times, ask) && ask.freeDeals > 0 && ask.freeBytes > 0n);
  const sorted = inBatch.sort((left, right) => compare(left.minPrice, right.minPrice) || compare(left.askId, right.askId));
  const numbers = new Map<string, number>();
  const numberOf = (text: string) => {
    const known = numbers.get(text) ?? numbers.size;
    numbers.set(text, known);
    return known;
  };
  const asks = sorted.map((ask) => ({
    ask,
    operator: numberOf(`operator ${ask.operatorId}`),
    owner: numberOf(`party ${ask.owner.toLowerCase()}`),
    beneficiary: numberOf(`party ${ask.beneficiary.toLowerCase()}`),
    network: numberOf(`network ${ask.networkPrefix}`),
    region: numberOf(`region ${ask.region}`),
  }));
  const bids: ProblemBid[] = [];
  for (const bid of book.bids) {
    if (bid.filled || !isInBatch(times, bid) || bid.count > limits.shardsMax) continue;
    const fits = asks.flatMap(({ ask }, index) => (misfitOf(bid, ask) === undefined ? [index] : []));
    if (fits.length < bid.count) continue;
    const weight = bid.shardSize * BigInt(bid.periods);
    const worthMax = fits.slice(0, bid.count).reduce((sum, index) => sum + worthOf(bid, weight, asks[index] as ProblemAsk), 0n);
    bids.push({ bid, fits, weight, worthMax });
  }
  bids.sort((left, right) => compare(left.bid.bidId, right.bid.bidId));
  return { asks, bids, prices: dividingPrices(asks, bids), shardsMax: limits.shardsMax, budget: createBudget(limits.steps) };
}

/** The fewer of both: the lowest matched bid, like the highest matched ask, divides the two sides. */
function dividingPrices(asks: readonly ProblemAsk[], bids: readonly ProblemBid[]): bigint[] {
  const ofBids = new Set(bids.map(({ bid }) => bid.maxPrice));
  const ofAsks = new Set(bids.flatMap(({ fits }) => fits.map((index) => (asks[index] as ProblemAsk).ask.minPrice)));
  return [...(ofBids.size <= ofAsks.size ? ofBids : ofAsks)].sort((left, right) => compare(right, left));
}

function createBudget(steps: number): StepBudget {
  let left = steps;
  return {
    take() {
      left -= 1;
    },
    isSpent: () => left <= 0,
  };
}

/** Fills bids in the given order at a dividing price, each from its cheapest asks; what cannot be filled is left out. */
export function fillInOrder(problem: MatchProblem, order: readonly number[], price: bigint): Solution {
  const remains = remainsOf(problem);
  const placed = new Map<number, number[]>();
  let score = 0n;
  let shards = 0;
  for (const index of order) {
    const entry = problem.bids[index] as ProblemBid;
    const { bid, weight } = entry;
    if (bid.maxPrice < price || shards + bid.count > problem.shardsMax) continue;
    const chosen = chooseAsks(problem, entry, remains, price);
    if (chosen === undefined) continue;
    take(remains, bid, chosen);
    placed.set(index, chosen);
    shards += bid.count;
    for (const ask of chosen) score += worthOf(bid, weight, problem.asks[ask] as ProblemAsk);
  }
  return { score, placed };
}

/** The score of one shard of a bid at an ask. */
export function worthOf(bid: BookBid, weight: bigint, { ask }: ProblemAsk): bigint {
  return weight * (bid.maxPrice - ask.minPrice + 1n);
}

/** Everything that the asks of a problem offer. */
export function remainsOf(problem: MatchProblem): Remains {
  return { bytes: problem.asks.map(({ ask }) => ask.freeBytes), deals: problem.asks.map(({ ask }) => ask.freeDeals) };
}

/** Uses up what the shards of a bid need; `give` takes it back. */
export function take(remains: Remains, bid: BookBid, asks: readonly number[]): void {
  for (const ask of asks) {
    remains.bytes[ask] = (remains.bytes[ask] as bigint) - bid.shardSize;
    remains.deals[ask] = (remains.deals[ask] as number) - 1;
  }
}

/** The opposite of `take`. */
export function give(remains: Remains, bid: BookBid, asks: readonly number[]): void {
  for (const ask of asks) {
    remains.bytes[ask] = (remains.bytes[ask] as bigint) + bid.shardSize;
    remains.deals[ask] = (remains.deals[ask] as number) + 1;
  }
}

/** The cheapest asks that go together; where an early one stands in the way of the others, it is left out once. */
function chooseAsks(problem: MatchProblem, entry: ProblemBid, remains: Remains, price: bigint): number[] | undefined {
  const first = pick(problem, entry, remains, price, -1);
  if (first.length === entry.bid.count) return first;
  if (first.length === 0) return undefined;
  for (const without of first) {
    const chosen = pick(problem, entry, remains, price, without);
    if (chosen.length === entry.bid.count) return chosen;
    if (problem.budget.isSpent()) return undefined;
  }
  return undefined;
}

function pick(problem: MatchProblem, { bid, fits }: ProblemBid, remains: Remains, price: bigint, without: number): number[] {
  const chosen: number[] = [];
  for (const index of fits) {
    problem.budget.take();
    const entry = problem.asks[index] as ProblemAsk;
    if (entry.ask.minPrice > price) break;
    if (index === without || !hasRoom(remains, bid, index) || !goesWith(problem, bid, entry, chosen)) continue;
    chosen.push(index);
    if (chosen.length === bid.count) break;
  }
  return chosen;
}

/** Whether an ask can still take a shard of the bid. */
export function hasRoom(remains: Remains, bid: BookBid, index: number): boolean {
  return (remains.deals[index] as number) > 0 && (remains.bytes[index] as bigint) >= bid.shardSize;
}

/** Whether an ask may take a shard of the bid beside those chosen: the diversity rules of `MatchingRules`. */
export function goesWith(problem: MatchProblem, bid: BookBid, entry: ProblemAsk, chosen: readonly number[]): boolean {
  let inRegion = 1;
  for (const index of chosen) {
    const other = problem.asks[index] as ProblemAsk;
    if (entry.operator === other.operator || entry.owner === other.owner || entry.beneficiary === other.beneficiary) return false;
    if (entry.owner === other.beneficiary || entry.beneficiary === other.owner) return false;
    if (bid.distinctNetworks && entry.network === other.network) return false;
    if (entry.region === other.region) inRegion += 1;
  }
  return bid.regionMax === 0 || inRegion <= bid.regionMax;
}

function compare(left: bigint, right: bigint): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
