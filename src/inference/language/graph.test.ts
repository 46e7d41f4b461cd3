import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Graph, type GraphTensor, sizeOf } from './graph.ts';
import { gradients } from './graph-gradients.ts';
import { convolve, poolLargest } from './graph-image-operations.ts';
import * as operations from './graph-operations.ts';
import { floats, integers, openGraph, type TensorValue } from './graph-session.ts';
import { seededRandom } from './seeded-random.ts';

const STEP = 1e-2;

/** An operation under test: the shapes of its parameters, and what it makes of them; integers come as further inputs. */
interface Case {
  shapes: number[][];
  build: (graph: Graph, ...tensors: GraphTensor[]) => GraphTensor;
  ids?: number[];
}

const CASES: Record<string, Case> = {
  'a sum with broadcasting': {
    shapes: [
      [2, 3, 4],
      [3, 1],
    ],
    build: operations.add,
  },
  'a difference with broadcasting': { shapes: [[4], [2, 4]], build: operations.subtract },
  'a product with broadcasting': {
    shapes: [
      [2, 1, 4],
      [3, 1],
    ],
    build: operations.multiply,
  },
  'a product with itself': { shapes: [[5]], build: (graph, a) => operations.multiply(graph, a, a) },
  'a fixed multiple': { shapes: [[2, 2]], build: (graph, a) => operations.scale(graph, a, -1.5) },
  'a rectifier': { shapes: [[3, 5]], build: operations.relu },
  'a gate': { shapes: [[3, 5]], build: operations.silu },
  'a change of axes': { shapes: [[2, 3, 4]], build: (graph, a) => operations.transpose(graph, a, [2, 0, 1]) },
  'a change of shape': { shapes: [[2, 6]], build: (graph, a) => operations.reshape(graph, a, [3, 4]) },
  'a matrix product': {
    shapes: [
      [3, 4],
      [4, 2],
    ],
    build: operations.matmul,
  },
  'a batch of matrices times one': {
    shapes: [
      [2, 3, 4],
      [4, 2],
    ],
    build: operations.matmul,
  },
  'a batch of matrix products': {
    shapes: [
      [2, 3, 4],
      [2, 4, 2],
    ],
    build: operations.matmul,
  },
  'a layer': {
    shapes: [
      [3, 4],
      [2, 4],
    ],
    build: operations.linear,
  },
  'a softmax': { shapes: [[2, 5]], build: operations.softmax },
  'a norm': { shapes: [[3, 4], [4]], build: (graph, a, weight) => operations.rmsNorm(graph, a, weight, 1e-3) },
  'rows of a table': {
    shapes: [[5, 3]],
    build: (graph, table, ids) => operations.embedding(graph, ids as GraphTensor, table as GraphTensor),
    ids: [4, 0, 4],
  },
  'a cross entropy': {
    shapes: [[3, 4]],
    build: (graph, a, ids) => operations.crossEntropy(graph, a as GraphTensor, ids as GraphTensor),
    ids: [1, 3, 1],
  },
  'a convolution': {
    shapes: [
      [2, 3, 5, 5],
      [2, 3, 3, 3],
    ],
    build: (graph, a, b) => convolve(graph, a as GraphTensor, b as GraphTensor, { stride: 1, padding: 1 }),
  },
  'a convolution in strides': {
    shapes: [
      [2, 2, 6, 5],
      [3, 2, 3, 3],
    ],
    build: (graph, a, b) => convolve(graph, a as GraphTensor, b as GraphTensor, { stride: 2, padding: 1 }),
  },
  'the largest of squares': { shapes: [[1, 2, 4, 4]], build: poolLargest },
};

for (const [name, sample] of Object.entries(CASES)) {
  test(`the gradient of ${name} is the slope that small steps show`, () => holdsSlopes(sample, 11));
}

test('the gradient of a network drawn at random is the slope that small steps show', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('silu', 'softmax', 'square', 'norm', 'layer', 'twice', 'turn'), { minLength: 1, maxLength: 6 }),
      fc.integer(),
      (layers, seed) => holdsSlopes({ shapes: [[4, 4], [4, 4], [4]], build: (graph, ...parts) => chain(graph, layers, parts) }, seed),
    ),
    { numRuns: 25 },
  ));

test('a parameter that is used twice gets the sum of both gradients', async () => {
  const graph = new Graph();
  const a = graph.parameter('a', [1]);
  const loss = operations.sum(graph, operations.add(graph, operations.multiply(graph, a, a), operations.scale(graph, a, 3)));
  graph.output(gradients(graph, loss, [a])[0] as GraphTensor, 'slope');
  assert.deepEqual(await runOnce(graph, { a: floats(Float32Array.of(2), [1]) }, 'slope'), [7]);
});

test('the same calls write the same bytes, and repeated constants lie in the file once', () => {
  const build = () => {
    const graph = new Graph();
    const a = graph.parameter('a', [2]);
    const loss = operations.sum(graph, operations.scale(graph, operations.scale(graph, a, 2), 2));
    graph.output(gradients(graph, loss, [a])[0] as GraphTensor, 'slope');
    return graph.encode();
  };
  assert.deepEqual(build(), build());
  assert.ok(build().length < 700);
});

test('shapes that do not fit, a loss that is no number and a parameter without influence are named', () => {
  const graph = new Graph();
  const a = graph.parameter('a', [2, 3]);
  const b = graph.parameter('b', [2, 3]);
  for (const wrong of [
    () => operations.matmul(graph, a, b),
    () => operations.linear(graph, a, graph.input('c', [4, 2])),
    () => operations.add(graph, a, graph.input('d', [4])),
    () => operations.reshape(graph, a, [7]),
    () => operations.rmsNorm(graph, a, graph.input('e', [2]), 1e-5),
  ]) {
    assert.throws(wrong, { code: 'graph-shape-mismatch' });
  }
  assert.throws(() => gradients(graph, a, [a]), { code: 'graph-loss-not-scalar' });
  assert.throws(() => gradients(graph, operations.sum(graph, a), [b]), { code: 'graph-gradient-missing' });
  assert.throws(() => sizeOf(['step', 2]), { code: 'graph-shape-unknown' });
});

/** Compares the gradients of a weighted sum of the result with central differences, element by element. */
async function holdsSlopes({ shapes, build, ids }: Case, seed: number): Promise<void> {
  const random = seededRandom(seed);
  // Away from 0 and from one another by more than a step: there a rectifier and a maximum have no slope.
  const draw = (length: number) => {
    const order = Array.from({ length }, (_, at) => ({ at, key: random() })).sort((one, other) => one.key - other.key);
    return Float32Array.from(order, ({ at }) => ((at + 0.25) / length - 0.5) * Math.max(1, length * 5 * STEP));
  };
  const inputs: Record<string, TensorValue> = Object.fromEntries(shapes.map((shape, at) => [`p${at}`, floats(draw(sizeOf(shape)), shape)]));
  if (ids !== undefined) inputs.ids = integers(ids);
  const graph = new Graph();
  const parameters = shapes.map((shape, at) => graph.parameter(`p${at}`, shape));
  const result = build(graph, ...parameters, ...(ids === undefined ? [] : [graph.input('ids', [ids.length], 'int64')]));
  const weights = graph.constant(draw(sizeOf(result.shape)), result.shape as number[]);
  const loss = operations.sum(graph, operations.multiply(graph, result, weights));
  graph.output(loss, 'loss');
  for (const [at, gradient] of gradients(graph, loss, parameters).entries()) graph.output(gradient, `g${at}`);
  const session = await openGraph(graph.encode());
  const found = await session.run(inputs);
  for (const at of shapes.keys()) {
    const { data } = inputs[`p${at}`] as { data: Float32Array };
    for (let place = 0; place < data.length; place += 1) {
      const value = data[place] as number;
      const lossAt = async (shifted: number) => {
        data[place] = shifted;
        return Number((await session.run(inputs)).loss?.data[0]);
      };
      const slope = ((await lossAt(value + STEP)) - (await lossAt(value - STEP))) / (2 * STEP);
      data[place] = value;
      const claimed = Number(found[`g${at}`]?.data[place]);
      assert.ok(
        Math.abs(slope - claimed) < 5e-3 + 2e-2 * Math.abs(slope),
        `parameter ${at}, element ${place}: ${claimed}, steps show ${slope}`,
      );
    }
  }
  await session.close();
}

function chain(graph: Graph, layers: string[], [start, weight, gain]: GraphTensor[]): GraphTensor {
  let at = start as GraphTensor;
  for (const layer of layers) {
    if (layer === 'silu') at = operations.silu(graph, at);
    if (layer === 'softmax') at = operations.softmax(graph, at);
    if (layer === 'square') at = operations.scale(graph, operations.multiply(graph, at, at), 0.5);
    if (layer === 'norm') at = operations.rmsNorm(graph, at, gain as GraphTensor, 0.1);
    if (layer === 'layer') at = operations.linear(graph, at, weight as GraphTensor);
    if (layer === 'twice') at = operations.add(graph, at, start as GraphTensor);
    if (layer === 'turn') at = operations.transpose(graph, at, [1, 0]);
  }
  const used = operations.add(graph, at, operations.add(graph, weight as GraphTensor, gain as GraphTensor));
  return used;
}

async function runOnce(graph: Graph, inputs: Record<string, TensorValue>, output: string): Promise<number[]> {
  const session = await openGraph(graph.encode());
  const results = await session.run(inputs);
  await session.close();
  return Array.from(results[output]?.data as Float32Array);
}
