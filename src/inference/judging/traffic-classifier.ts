/** A request as a miner sees it, as numbers: which features there are, and how strongly. */
export type Features = ReadonlyMap<number, number>;

/** One example and what it was. */
export interface Example {
  features: Features;
  isProbe: boolean;
}

const ROUNDS = 40;
const RATE = 0.1;
const DECAY = 1e-4;

/** Trains a logistic regression by gradient steps with a little decay; gives what tells probes, higher for more likely ones. */
export function trainLogistic(examples: readonly Example[], size: number): (features: Features) => number {
  const weights = new Float64Array(size + 1);
  const scoreOf = (features: Features) => {
    let score = weights[size] as number;
    for (const [at, value] of features) score += (weights[at] as number) * value;
    return score;
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { features, isProbe } of examples) {
      const miss = Number(isProbe) - 1 / (1 + Math.exp(-scoreOf(features)));
      const step = (RATE / (1 + round / 8)) * miss;
      for (const [at, value] of features) weights[at] = (weights[at] as number) * (1 - DECAY) + step * value;
      weights[size] = (weights[size] as number) + step;
    }
  }
  return scoreOf;
}

/** Trains naive Bayes on which features are there (present when above 0). */
export function trainBayes(examples: readonly Example[], size: number): (features: Features) => number {
  const counts = [new Float64Array(size).fill(1), new Float64Array(size).fill(1)];
  const totals = [2, 2];
  for (const { features, isProbe } of examples) {
    const side = Number(isProbe);
    totals[side] = (totals[side] as number) + 1;
    for (const [at, value] of features)
      if (value > 0) (counts[side] as Float64Array)[at] = ((counts[side] as Float64Array)[at] as number) + 1;
  }
  const shareOf = (side: number, at: number) => ((counts[side] as Float64Array)[at] as number) / (totals[side] as number);
  return (features) => {
    let score = 0;
    for (const [at, value] of features) if (value > 0) score += Math.log(shareOf(1, at)) - Math.log(shareOf(0, at));
    return score;
  };
}

/** Area under the ROC curve: how often a probe scores above a user's request, ties counting half. 0.5 is guessing. */
export function areaUnderCurve(scores: readonly { score: number; isProbe: boolean }[]): number {
  const sorted = [...scores].sort((one, other) => one.score - other.score);
  let rankSum = 0;
  for (let from = 0; from < sorted.length; ) {
    let to = from;
    while (to < sorted.length && sorted[to]?.score === sorted[from]?.score) to += 1;
    for (let at = from; at < to; at += 1) if (sorted[at]?.isProbe === true) rankSum += (from + to + 1) / 2;
    from = to;
  }
  const probes = sorted.filter(({ isProbe }) => isProbe).length;
  const others = sorted.length - probes;
  return probes === 0 || others === 0 ? 0.5 : (rankSum - (probes * (probes + 1)) / 2) / (probes * others);
}
