import {
  give,
  goesWith,
  hasRoom,
  type MatchProblem,
  type ProblemAsk,
  type ProblemBid,
  remainsOf,
  type Solution,
  take,
  worthOf,
} from './matcher-fill.ts';

/**
 * Searches all matchings of a problem by branch and bound: at each dividing price, each bid is filled in every possible way
 * or left out; a branch ends when even the cheapest asks for all remaining bids would not beat the best.
 * @param start the best known so far
 * @returns `isComplete` false when the steps were spent before the end
 */
export function exactMatching(problem: MatchProblem, start: Solution): { solution: Solution; isComplete: boolean } {
  let best = start;
  for (const price of problem.prices) {
    const found = searchAt(problem, price, best);
    best = found;
    if (problem.budget.isSpent()) return { solution: best, isComplete: false };
  }
  return { solution: best, isComplete: true };
}

function searchAt(problem: MatchProblem, price: bigint, start: Solution): Solution {
  const open = problem.bids
    .map((entry, index) => ({ entry, index }))
    .filter(({ entry }) => entry.bid.maxPrice >= price)
    .sort((left, right) => (left.entry.worthMax > right.entry.worthMax ? -1 : 1));
  const boundFrom: bigint[] = [0n];
  for (const { entry } of open.toReversed()) boundFrom.unshift((boundFrom[0] as bigint) + entry.worthMax);
  const remains = remainsOf(problem);
  const placed = new Map<number, number[]>();
  let best = start;

  const visit = (at: number, score: bigint, shards: number): void => {
    if (score > best.score) best = { score, placed: new Map([...placed].map(([bid, asks]) => [bid, [...asks]])) };
    const next = open[at];
    if (next === undefined || score + (boundFrom[at] as bigint) <= best.score || problem.budget.isSpent()) return;
    if (shards + next.entry.bid.count <= problem.shardsMax) choose(at, next.index, next.entry, 0, [], score, shards);
    visit(at + 1, score, shards);
  };

  /** Extends the asks of one bid in every way that goes together. */
  const choose = (at: number, index: number, entry: ProblemBid, from: number, chosen: number[], score: bigint, shards: number): void => {
    const { bid, fits, weight } = entry;
    if (chosen.length === bid.count) {
      take(remains, bid, chosen);
      placed.set(index, chosen);
      visit(at + 1, score, shards + bid.count);
      placed.delete(index);
      give(remains, bid, chosen);
      return;
    }
    for (let fit = from; fit <= fits.length - (bid.count - chosen.length); fit += 1) {
      problem.budget.take();
      if (problem.budget.isSpent()) return;
      const ask = fits[fit] as number;
      const candidate = problem.asks[ask] as ProblemAsk;
      if (candidate.ask.minPrice > price) return;
      const worth = worthOf(bid, weight, candidate);
      // Asks come cheapest first: no later one is worth more for the shards that are missing.
      const missing = BigInt(bid.count - chosen.length);
      if (score + worth * missing + (boundFrom[at + 1] as bigint) <= best.score) return;
      if (!hasRoom(remains, bid, ask) || !goesWith(problem, bid, candidate, chosen)) continue;
      choose(at, index, entry, fit + 1, [...chosen, ask], score + worth, shards);
    }
  };

  visit(0, 0n, 0);
  return best;
}
