import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { lossOf } from './held-out-loss.ts';
import type { ModelShape } from './model-shape.ts';
import { newOptimiserState, stepWeights } from './optimiser.ts';
import { decodeTensors, encodeTensors } from './safetensors.ts';
import {
  batchOf,
  decodeCheckpoint,
  encodeCheckpoint,
  learningRateAt,
  startTraining,
  type TrainingPlan,
  train,
  weightsHash,
} from './training.ts';

const SHAPE: ModelShape = { vocabulary: 256, width: 16, layers: 2, heads: 2, hidden: 32, context: 16 };
const PLAN: TrainingPlan = { shape: SHAPE, seed: 3, batch: 4, length: 16, steps: 40, learningRateMax: 1e-2, warmupSteps: 4 };
const TEXT = Buffer.from('the whale swam round the ship and the ship sailed round the whale. '.repeat(40));

test('a run that is broken off and goes on from its checkpoint gives the same bits as one that was left alone', async () => {
  const whole = startTraining(PLAN);
  await train(whole, TEXT);
  const broken = startTraining(PLAN);
  const stop = new AbortController();
  await train(broken, TEXT, { signal: stop.signal, onStep: ({ number }) => (number === 16 ? stop.abort() : undefined) });
  assert.equal(broken.optimiser.steps, 17);
  const resumed = decodeCheckpoint(encodeCheckpoint(broken), PLAN);
  await train(resumed, TEXT);
  assert.equal(weightsHash(resumed.weights), weightsHash(whole.weights));
  assert.deepEqual(resumed.optimiser, whole.optimiser);
  assert.notEqual(weightsHash(startTraining({ ...PLAN, seed: 4 }).weights), weightsHash(startTraining(PLAN).weights));
});

test('training lowers the loss, and a text that was never seen shows it', async () => {
  const state = startTraining(PLAN);
  const unseen = Buffer.from('the ship swam round the whale and the whale sailed round the ship. '.repeat(8));
  const before = await lossOf(SHAPE, state.weights, unseen);
  await train(state, TEXT);
  const after = await lossOf(SHAPE, state.weights, unseen);
  assert.ok(before > 5.4 && after < 3, `${before} to ${after} nats/byte`);
});

test('a batch depends on the seed and the step alone, and its targets are the bytes that follow', () => {
  const { ids, targets } = batchOf(PLAN, TEXT, 7);
  assert.deepEqual(batchOf(PLAN, TEXT, 7), { ids, targets });
  assert.notDeepEqual(batchOf(PLAN, TEXT, 8).ids, ids);
  const row = (data: Float32Array | BigInt64Array, at: number) => Array.from(data.slice(at * 16, (at + 1) * 16), Number);
  for (let at = 0; at < PLAN.batch; at += 1) {
    assert.deepEqual(row(ids.data, at).slice(1), row(targets.data, at).slice(0, -1));
    assert.ok(TEXT.includes(Buffer.from(row(targets.data, at))));
  }
});

test('the learning rate rises in a line and falls to a twentieth', () => {
  const rates = Array.from({ length: PLAN.steps + 1 }, (_, step) => learningRateAt(PLAN, step) / PLAN.learningRateMax);
  assert.ok(Math.abs((rates[0] as number) - 0.25) < 0.01 && Math.max(...rates) > 0.97 && Math.abs((rates.at(-1) as number) - 0.05) < 1e-9);
});

test('a checkpoint of another plan is refused', () => {
  const bytes = encodeCheckpoint(startTraining(PLAN));
  assert.throws(() => decodeCheckpoint(bytes, { ...PLAN, steps: 41 }), { code: 'checkpoint-of-another-plan' });
});

test('the first step moves each weight by the learning rate against its slope, decay aside', () => {
  const weights = { 'a_norm.weight': Float32Array.of(1, 2, 3), 'b.weight': Float32Array.of(4) };
  const state = newOptimiserState(weights);
  stepWeights(weights, { 'a_norm.weight': Float32Array.of(3e3, -5e3, 0), 'b.weight': Float32Array.of(1e3) }, state, { learningRate: 0.1 });
  const expected = { 'a_norm.weight': [0.9, 2.1, 3], 'b.weight': [4 - 0.1 * (1 + 0.1 * 4)] };
  for (const [name, values] of Object.entries(expected)) {
    for (const [at, value] of values.entries()) {
      const got = (weights as Record<string, Float32Array>)[name]?.[at] as number;
      assert.ok(Math.abs(got - value) < 1e-5, `${name} ${got}`);
    }
  }
});

test('tensors come back from their file bit for bit, and a damaged file is refused or read, never worse', () => {
  const anyFloats = fc.array(fc.float(), { maxLength: 9 }).map((values) => Float32Array.from(values));
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__' && name !== '__proto__'),
        anyFloats,
      ),
      fc.nat(),
      fc.nat(255),
      (tensors, at, byte) => {
        const bytes = encodeTensors({ tensors, shapes: {}, notes: { kind: 'test' } });
        const read = decodeTensors(bytes);
        assert.deepEqual(Object.entries(read.tensors).sort(), Object.entries(tensors).sort());
        assert.equal(read.notes.kind, 'test');
        bytes[at % bytes.length] = byte;
        try {
          decodeTensors(bytes);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'tensor-file-malformed');
        }
      },
    ),
  );
});
