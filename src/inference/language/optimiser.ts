import type { Weights } from './model-shape.ts';

/** What an optimiser remembers between steps: the running means of gradients and of their squares, and how many steps were made. */
export interface OptimiserState {
  means: Weights;
  squares: Weights;
  steps: number;
}

/** How a step is made; the learning rate is given with each step. */
export interface OptimiserSettings {
  meanDecay: number;
  squareDecay: number;
  /** Share of a matrix that is taken away, times the learning rate; norms and the embedding keep theirs. */
  weightDecay: number;
  /** The longest gradient; a longer one is shortened to it. */
  lengthMax: number;
}

/** The settings of the language model's training. */
export const ADAMW: OptimiserSettings = { meanDecay: 0.9, squareDecay: 0.95, weightDecay: 0.1, lengthMax: 1 };

const TINY = 1e-8;

/** The state before the first step. */
export function newOptimiserState(weights: Weights): OptimiserState {
  const zeros = () => Object.fromEntries(Object.entries(weights).map(([name, { length }]) => [name, new Float32Array(length)]));
  return { means: zeros(), squares: zeros(), steps: 0 };
}

/**
 * One step of AdamW (Loshchilov and Hutter 2019) with the gradient's length clipped, in place. Only additions, products, quotients and
 * roots, in one order: the result is the same bits on every machine for the same gradients.
 */
export function stepWeights(
  weights: Weights,
  gradients: Weights,
  state: OptimiserState,
  options: { learningRate: number; settings?: OptimiserSettings },
): void {
  const settings = options.settings ?? ADAMW;
  state.steps += 1;
  const shrink = Math.min(1, settings.lengthMax / (lengthOf(weights, gradients) + 1e-6));
  const meanShare = 1 - power(settings.meanDecay, state.steps);
  const squareShare = 1 - power(settings.squareDecay, state.steps);
  for (const [name, weight] of Object.entries(weights)) {
    const gradient = gradients[name] as Float32Array;
    const mean = state.means[name] as Float32Array;
    const square = state.squares[name] as Float32Array;
    const decay = /norm|token_embd/.test(name) ? 0 : settings.weightDecay;
    const { meanDecay, squareDecay } = settings;
    const { learningRate } = options;
    for (let at = 0; at < weight.length; at += 1) {
      const slope = (gradient[at] as number) * shrink;
      const value = weight[at] as number;
      const newMean = meanDecay * (mean[at] as number) + (1 - meanDecay) * slope;
      const newSquare = squareDecay * (square[at] as number) + (1 - squareDecay) * slope * slope;
      mean[at] = newMean;
      square[at] = newSquare;
      weight[at] = value - learningRate * (newMean / meanShare / (Math.sqrt(newSquare / squareShare) + TINY) + decay * value);
    }
  }
}

function lengthOf(weights: Weights, gradients: Weights): number {
  let total = 0;
  for (const name of Object.keys(weights)) {
    const gradient = gradients[name] as Float32Array;
    for (let at = 0; at < gradient.length; at += 1) total += (gradient[at] as number) ** 2;
  }
  return Math.sqrt(total);
}

/** By products alone: `Math.pow` may differ in its last bit between engines. */
function power(base: number, exponent: number): number {
  let product = 1;
  for (let count = 0; count < exponent && product > 1e-300; count += 1) product *= base;
  return product;
}
