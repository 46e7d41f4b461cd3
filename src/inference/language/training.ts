import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import { floats, type GraphSession, integers, openGraph, type TensorValue } from './graph-session.ts';
import { trainingGraph } from './model-graph.ts';
import { initialWeights, LANGUAGE_MODEL, type ModelShape, parameterShapes, type Weights } from './model-shape.ts';
import { newOptimiserState, type OptimiserState, stepWeights } from './optimiser.ts';
import { decodeTensors, encodeTensors } from './safetensors.ts';
import { seededRandom } from './seeded-random.ts';

/** All that decides what a training run gives, beside the text and the kind of processor. */
export interface TrainingPlan {
  shape: ModelShape;
  seed: number;
  /** Windows of text per step, and bytes per window. */
  batch: number;
  length: number;
  steps: number;
  learningRateMax: number;
  warmupSteps: number;
}

/** The run that made the committed model: 4.9 million bytes read, with windows of the whole context. */
export const LANGUAGE_PLAN: TrainingPlan = {
  shape: LANGUAGE_MODEL,
  seed: 1851,
  batch: 8,
  length: LANGUAGE_MODEL.context,
  steps: 2400,
  learningRateMax: 3e-3,
  warmupSteps: 50,
};

/** A run between two steps. */
export interface TrainingState {
  plan: TrainingPlan;
  weights: Weights;
  optimiser: OptimiserState;
}

/** Where a run begins. */
export function startTraining(plan: TrainingPlan): TrainingState {
  const weights = initialWeights(plan.shape, plan.seed);
  return { plan, weights, optimiser: newOptimiserState(weights) };
}

/** A step's learning rate: up in a line, then down along a cosine to a twentieth of the highest. */
export function learningRateAt(plan: TrainingPlan, step: number): number {
  const warm = Math.min(1, (step + 1) / plan.warmupSteps);
  return plan.learningRateMax * warm * (0.05 + 0.475 * (1 + Math.cos((Math.PI * step) / plan.steps)));
}

/** The windows of one step: drawn from the seed and the step's number alone, so that any step can be repeated by itself. */
export function batchOf(plan: TrainingPlan, text: Uint8Array, step: number): { ids: TensorValue; targets: TensorValue } {
  const random = seededRandom(Math.imul(plan.seed, 0x9e3779b1) ^ Math.imul(step + 1, 0x85ebca6b));
  const { batch, length } = plan;
  const starts = Array.from({ length: batch }, () => Math.floor(random() * (text.length - length)));
  const read = (shift: number) => {
    const data = new Uint8Array(batch * length);
    for (const [row, start] of starts.entries()) data.set(text.subarray(start + shift, start + shift + length), row * length);
    return integers(data, [batch, length]);
  };
  return { ids: read(0), targets: read(1) };
}

/**
 * Makes the steps that are left, in place. After each, `onStep` gets its loss (nats per byte, before the step) and may keep a checkpoint;
 * when the signal aborts, it ends between two steps.
 */
export async function train(
  state: TrainingState,
  text: Uint8Array,
  options: { signal?: AbortSignal; onStep?: (step: { number: number; loss: number }) => void | Promise<void> } = {},
): Promise<void> {
  const { plan, weights, optimiser } = state;
  const session = await openGraph(trainingGraph(plan.shape, plan.batch, plan.length));
  try {
    while (optimiser.steps < plan.steps && options.signal?.aborted !== true) {
      const number = optimiser.steps;
      const { loss, gradients } = await gradientsOf(session, state, batchOf(plan, text, number));
      stepWeights(weights, gradients, optimiser, { learningRate: learningRateAt(plan, number) });
      await options.onStep?.({ number, loss });
    }
  } finally {
    await session.close();
  }
}

/** The weights as inputs of a training or loss graph. */
export function weightInputs(shape: ModelShape, weights: Weights): Record<string, TensorValue> {
  return Object.fromEntries(
    Object.entries(parameterShapes(shape)).map(([name, lengths]) => [name, floats(weights[name] as Float32Array, lengths)]),
  );
}

/** 0x-less SHA-256 over all weights in the order of files: the name of what was trained. */
export function weightsHash(weights: Weights): string {
  const hash = createHash('sha256');
  for (const data of Object.values(weights)) hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return hash.digest('hex');
}

/** A run between two steps as one file (safetensors). */
export function encodeCheckpoint({ plan, weights, optimiser }: TrainingState): Uint8Array {
  const named = (prefix: string, values: Weights) =>
    Object.fromEntries(Object.entries(values).map(([name, data]) => [prefix + name, data]));
  const tensors = { ...weights, ...named('mean.', optimiser.means), ...named('square.', optimiser.squares) };
  return encodeTensors({ tensors, shapes: {}, notes: { plan: JSON.stringify(plan), steps: String(optimiser.steps) } });
}

/** Reads a checkpoint of this very plan. @throws tensor-file-malformed, checkpoint-of-another-plan */
export function decodeCheckpoint(bytes: Uint8Array, plan: TrainingPlan): TrainingState {
  const { tensors, notes } = decodeTensors(bytes);
  if (notes.plan !== JSON.stringify(plan)) {
    throw new MillraceError('checkpoint-of-another-plan', {
      actor: 'caller',
      message: `Got a checkpoint of plan ${notes.plan}, expected ${JSON.stringify(plan)}`,
      values: { plan: notes.plan },
      hint: 'Finish that run with the settings it began with, or begin anew in another folder.',
    });
  }
  const state = startTraining(plan);
  for (const [prefix, values] of [
    ['', state.weights],
    ['mean.', state.optimiser.means],
    ['square.', state.optimiser.squares],
  ] as const) {
    for (const [name, data] of Object.entries(values)) data.set(tensors[prefix + name] as Float32Array);
  }
  state.optimiser.steps = Number(notes.steps);
  return state;
}

async function gradientsOf(
  session: GraphSession,
  { plan, weights }: TrainingState,
  batch: { ids: TensorValue; targets: TensorValue },
): Promise<{ loss: number; gradients: Weights }> {
  const results = await session.run({ ...batch, ...weightInputs(plan.shape, weights) });
  const gradients = Object.fromEntries(Object.keys(weights).map((name) => [name, results[`gradient.${name}`]?.data as Float32Array]));
  return { loss: Number(results.loss?.data[0]), gradients };
}
