import { exactMatching } from './matcher-exact.ts';
import { fillInOrder, type MatchProblem, prepareProblem, type Solution } from './matcher-fill.ts';
import { type BatchTimes, type Book, type Matching, packAssignment } from './matching-rules.ts';

/** How far the search goes. The result depends on these and on the book alone, unless `isOver` cuts it short. */
export interface MatcherLimits {
  /** Shards in one matching: more do not fit into one transaction. */
  shardsMax: number;
  /** Asks looked at in all, about 20 million a second. */
  steps: number;
  /** Books of at most this many bids and asks are searched exhaustively, as long as the steps last. */
  exactBids: number;
  exactAsks: number;
  /** Ends the search with what was found so far; looked at now and then. */
  isOver?: () => boolean;
}

/** The best matching found. `isExact`: no other has a greater score. */
export interface MatcherResult {
  matching: Matching;
  score: bigint;
  isExact: boolean;
}

/** Limits for a node that has other work too: about two seconds. */
export const MATCHER_LIMITS: MatcherLimits = { shardsMax: 240, steps: 20_000_000, exactBids: 10, exactAsks: 20 };

/**
 * Finds a matching of a great score under the rules of the order book: each bid wholly or not at all, one price between all
 * matched asks and bids, capacities, diversity. Pure and deterministic. Small books are solved exactly by branch and bound;
 * larger ones by filling bids in order at each possible price, then improving the order step by step.
 * Undefined when nothing can be matched.
 */
export function solveMatching(options: { book: Book; times: BatchTimes; limits?: Partial<MatcherLimits> }): MatcherResult | undefined {
  const limits = { ...MATCHER_LIMITS, ...options.limits };
  const problem = prepareProblem(options.book, options.times, limits);
  let best = improve(problem, fillAtEachPrice(problem), limits);
  let isExact = problem.bids.length === 0;
  if (problem.bids.length <= limits.exactBids && problem.asks.length <= limits.exactAsks) {
    const exact = exactMatching(problem, best);
    best = exact.solution;
    isExact = exact.isComplete;
  }
  if (best.placed.size === 0) return undefined;
  return { matching: matchingOf(problem, best), score: best.score, isExact };
}

/** Orders in which bids are served first: highest price, greatest worth, hardest to place. */
function orders(problem: MatchProblem): number[][] {
  const all = problem.bids.map((_, index) => index);
  const by = (key: (index: number) => bigint) =>
    all.toSorted((left, right) => {
      const [a, b] = [key(left), key(right)];
      return a === b ? left - right : a > b ? -1 : 1;
    });
  const bidOf = (index: number) => problem.bids[index] as MatchProblem['bids'][number];
  return [
    by((index) => bidOf(index).bid.maxPrice),
    by((index) => bidOf(index).worthMax),
    by((index) => BigInt(bidOf(index).bid.count - bidOf(index).fits.length)),
    by((index) => -bidOf(index).bid.shardSize),
  ];
}

interface Found extends Solution {
  order: number[];
  price: bigint;
}

function fillAtEachPrice(problem: MatchProblem): Found {
  let best: Found = { score: 0n, placed: new Map(), order: problem.bids.map((_, index) => index), price: 0n };
  const tried = orders(problem);
  for (const price of spread(problem.prices)) {
    for (const order of tried) {
      if (problem.budget.isSpent()) return best;
      const solution = fillInOrder(problem, order, price);
      if (solution.score > best.score) best = { ...solution, order, price };
    }
  }
  return best;
}

/** All prices, from the middle outwards: the best is rarely at an end, and the steps may not last for all. */
function spread(prices: readonly bigint[]): bigint[] {
  const strides = [16, 4, 1];
  const seen = new Set<number>();
  const found: bigint[] = [];
  for (const stride of strides) {
    for (let index = stride >> 1; index < prices.length; index += stride) {
      if (seen.has(index)) continue;
      seen.add(index);
      found.push(prices[index] as bigint);
    }
  }
  return found;
}

/** Moves a bid to another place in the order, or takes another price, and keeps what is not worse. */
function improve(problem: MatchProblem, start: Found, limits: MatcherLimits): Solution {
  const { bids, prices, budget } = problem;
  if (bids.length < 2 || start.placed.size === 0) return start;
  const random = createDraw(0x9e3779b9);
  let best = start;
  const rounds = 40 * bids.length;
  for (let round = 0, idle = 0; round < rounds && idle < 12 * bids.length && !budget.isSpent(); round += 1, idle += 1) {
    if (limits.isOver?.() === true) break;
    const order = [...best.order];
    const [moved] = order.splice(random(order.length), 1) as [number];
    order.splice(random(2) === 0 ? 0 : random(order.length + 1), 0, moved);
    const near = prices.indexOf(best.price) + random(3) - 1;
    const price = prices[near] ?? best.price;
    const solution = fillInOrder(problem, order, price);
    if (solution.score > best.score) idle = 0;
    if (solution.score >= best.score) best = { ...solution, order, price };
  }
  return best;
}

/** A small generator (xorshift32): the same numbers each time, so that anybody can repeat a search. */
function createDraw(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function matchingOf(problem: MatchProblem, solution: Solution): Matching {
  const byBid = [...solution.placed].sort(([left], [right]) => compare(bidIdOf(problem, left), bidIdOf(problem, right)));
  const used = [...new Set(byBid.flatMap(([, asks]) => asks))].sort((left, right) =>
    compare(askIdOf(problem, left), askIdOf(problem, right)),
  );
  const place = new Map(used.map((ask, index) => [ask, index]));
  return {
    bids: byBid.map(([bid]) => bidIdOf(problem, bid)),
    asks: used.map((ask) => askIdOf(problem, ask)),
    assignment: packAssignment(byBid.flatMap(([, asks]) => asks.map((ask) => place.get(ask) as number))),
  };
}

function bidIdOf(problem: MatchProblem, index: number): bigint {
  return problem.bids[index]?.bid.bidId as bigint;
}

function askIdOf(problem: MatchProblem, index: number): bigint {
  return problem.asks[index]?.ask.askId as bigint;
}

function compare(left: bigint, right: bigint): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
