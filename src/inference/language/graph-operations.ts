import { MillraceError } from '../../errors.ts';
import { type Dimension, fixedShape, type Graph, type GraphTensor, sizeOf } from './graph.ts';

/** a + b, with NumPy's broadcasting. @throws graph-shape-mismatch */
export function add(graph: Graph, a: GraphTensor, b: GraphTensor): GraphTensor {
  const result = graph.node('Add', [a, b], broadcastShape(a, b));
  return graph.record(result, [a, b], (gradient) => [sumTo(graph, gradient, a.shape), sumTo(graph, gradient, b.shape)]);
}

/** a − b, with NumPy's broadcasting. @throws graph-shape-mismatch */
export function subtract(graph: Graph, a: GraphTensor, b: GraphTensor): GraphTensor {
  const result = graph.node('Sub', [a, b], broadcastShape(a, b));
  return graph.record(result, [a, b], (gradient) => [
    sumTo(graph, gradient, a.shape),
    b.needsGradient ? sumTo(graph, graph.node('Neg', [gradient], gradient.shape), b.shape) : undefined,
  ]);
}

/** a · b, element by element, with NumPy's broadcasting. @throws graph-shape-mismatch */
export function multiply(graph: Graph, a: GraphTensor, b: GraphTensor): GraphTensor {
  const result = graph.node('Mul', [a, b], broadcastShape(a, b));
  const part = (gradient: GraphTensor, other: GraphTensor, to: GraphTensor) =>
    to.needsGradient ? sumTo(graph, graph.node('Mul', [gradient, other], result.shape), to.shape) : undefined;
  return graph.record(result, [a, b], (gradient) => [part(gradient, b, a), part(gradient, a, b)]);
}

/** a times a fixed number. */
export function scale(graph: Graph, a: GraphTensor, factor: number): GraphTensor {
  return multiply(graph, a, graph.scalar(factor));
}

/** max(a, 0). The slope at 0 counts as 0. */
export function relu(graph: Graph, a: GraphTensor): GraphTensor {
  const result = graph.node('Relu', [a], a.shape);
  return graph.record(result, [a], (gradient) => {
    const isAbove = graph.node('Greater', [a, graph.scalar(0)], a.shape, { type: 'bool' });
    const mask = graph.node('Cast', [isAbove], a.shape, { attributes: { to: 1 } });
    return [graph.node('Mul', [gradient, mask], a.shape)];
  });
}

/** a · sigmoid(a), the gate of SwiGLU (Shazeer 2020). */
export function silu(graph: Graph, a: GraphTensor): GraphTensor {
  const sigmoid = graph.node('Sigmoid', [a], a.shape);
  const result = graph.node('Mul', [a, sigmoid], a.shape);
  return graph.record(result, [a], (gradient) => {
    const one = graph.scalar(1);
    const bend = graph.node('Mul', [a, graph.node('Sub', [one, sigmoid], a.shape)], a.shape);
    const slope = graph.node('Mul', [sigmoid, graph.node('Add', [one, bend], a.shape)], a.shape);
    return [graph.node('Mul', [gradient, slope], a.shape)];
  });
}

/** The axes in another order: axis i of the result is axis `order[i]` of a. */
export function transpose(graph: Graph, a: GraphTensor, order: readonly number[]): GraphTensor {
  const shape = order.map((axis) => a.shape[axis] as Dimension);
  const result = graph.node('Transpose', [a], shape, { attributes: { perm: order } });
  return graph.record(result, [a], (gradient) => {
    const perm = order.map((_, axis) => order.indexOf(axis));
    return [graph.node('Transpose', [gradient], a.shape, { attributes: { perm } })];
  });
}

/** The same elements in another shape; at most one length of it may be known only at a run. @throws graph-shape-mismatch */
export function reshape(graph: Graph, a: GraphTensor, shape: readonly Dimension[]): GraphTensor {
  const isFixed = [...shape, ...a.shape].every((length) => typeof length === 'number');
  if (shape.filter((length) => typeof length === 'string').length > 1 || (isFixed && sizeOf(shape) !== sizeOf(a.shape))) {
    throw mismatch('reshape', a.shape, shape);
  }
  const target = (lengths: readonly Dimension[]) => graph.integers(lengths.map((length) => (typeof length === 'number' ? length : -1)));
  const result = graph.node('Reshape', [a, target(shape)], shape);
  return graph.record(result, [a], (gradient) => [graph.node('Reshape', [gradient, target(a.shape)], a.shape)]);
}

/**
 * Matrix product over the last two axes. `b` is a matrix, or has the same leading axes as `a`. A fixed batch of matrices times one matrix
 * is computed as one tall matrix, which is faster in both directions. @throws graph-shape-mismatch
 */
export function matmul(graph: Graph, a: GraphTensor, b: GraphTensor): GraphTensor {
  const isPlain = b.shape.length === 2;
  if (a.shape.at(-1) !== b.shape.at(-2) || (!isPlain && `${a.shape.slice(0, -2)}` !== `${b.shape.slice(0, -2)}`)) {
    throw mismatch('matmul', a.shape, b.shape);
  }
  const shape = [...a.shape.slice(0, -1), b.shape.at(-1) as Dimension];
  if (isPlain && a.shape.length > 2 && a.shape.every((length) => typeof length === 'number')) {
    const flat = reshape(graph, a, [sizeOf(a.shape.slice(0, -1)), a.shape.at(-1) as number]);
    return reshape(graph, matmul(graph, flat, b), shape);
  }
  const result = graph.node('MatMul', [a, b], shape);
  return graph.record(result, [a, b], (gradient) => {
    const isFlat = a.shape.length === 2;
    const left = () =>
      isFlat
        ? graph.node('Gemm', [gradient, b], a.shape, { attributes: { transB: 1 } })
        : graph.node('MatMul', [gradient, swapLast(graph, b)], a.shape);
    const right = () =>
      isFlat
        ? graph.node('Gemm', [a, gradient], b.shape, { attributes: { transA: 1 } })
        : graph.node('MatMul', [swapLast(graph, a), gradient], b.shape);
    return [a.needsGradient ? left() : undefined, b.needsGradient ? right() : undefined];
  });
}

/** The rows of `a` through a layer of weights `[outputs, inputs]`, as model files store them: a · weightᵀ. @throws graph-shape-mismatch */
export function linear(graph: Graph, a: GraphTensor, weight: GraphTensor): GraphTensor {
  const [rows, inputs] = a.shape;
  const [outputs, width] = weight.shape as readonly [Dimension, Dimension];
  if (a.shape.length !== 2 || weight.shape.length !== 2 || inputs !== width) throw mismatch('linear', a.shape, weight.shape);
  const result = graph.node('Gemm', [a, weight], [rows as Dimension, outputs], { attributes: { transB: 1 } });
  return graph.record(result, [a, weight], (gradient) => [
    a.needsGradient ? graph.node('Gemm', [gradient, weight], a.shape) : undefined,
    weight.needsGradient ? graph.node('Gemm', [gradient, a], weight.shape, { attributes: { transA: 1 } }) : undefined,
  ]);
}

/** exp(a) over its sum along the last axis. */
export function softmax(graph: Graph, a: GraphTensor): GraphTensor {
  const result = graph.node('Softmax', [a], a.shape, { attributes: { axis: -1 } });
  return graph.record(result, [a], (gradient) => {
    const weighted = graph.node('Mul', [gradient, result], a.shape);
    const total = reduceLast(graph, 'ReduceSum', weighted);
    return [graph.node('Mul', [graph.node('Sub', [gradient, total], a.shape), result], a.shape)];
  });
}

/** a over the root of its mean square along the last axis, times a weight per element (Zhang and Sennrich 2019). */
export function rmsNorm(graph: Graph, a: GraphTensor, weight: GraphTensor, epsilon: number): GraphTensor {
  if (`${weight.shape}` !== `${a.shape.at(-1)}`) throw mismatch('rmsNorm', a.shape, weight.shape);
  const square = reduceLast(graph, 'ReduceMean', graph.node('Mul', [a, a], a.shape));
  const root = graph.node('Sqrt', [graph.node('Add', [square, graph.scalar(epsilon)], square.shape)], square.shape);
  const inverse = graph.node('Reciprocal', [root], square.shape);
  const normal = graph.node('Mul', [a, inverse], a.shape);
  const result = graph.node('Mul', [normal, weight], a.shape);
  return graph.record(result, [a, weight], (gradient) => {
    const forWeight = sumTo(graph, graph.node('Mul', [gradient, normal], a.shape), weight.shape);
    const scaled = graph.node('Mul', [gradient, weight], a.shape);
    const mean = reduceLast(graph, 'ReduceMean', graph.node('Mul', [scaled, normal], a.shape));
    const rest = graph.node('Sub', [scaled, graph.node('Mul', [normal, mean], a.shape)], a.shape);
    return [graph.node('Mul', [rest, inverse], a.shape), forWeight];
  });
}

/** The rows of a table `[rows, width]` that integer ids name: `[...ids, width]`. */
export function embedding(graph: Graph, ids: GraphTensor, table: GraphTensor): GraphTensor {
  const [rows, width] = fixedShape(table.shape) as [number, number];
  const result = graph.node('Gather', [table, ids], [...ids.shape, width], { attributes: { axis: 0 } });
  return graph.record(result, [table], (gradient) => {
    const count = sizeOf(ids.shape);
    const flat = graph.node('Reshape', [gradient, graph.integers([count, width])], [count, width]);
    return [graph.node('Gemm', [oneHot(graph, ids, rows), flat], table.shape, { attributes: { transA: 1 } })];
  });
}

/** The mean over all rows of −log softmax(logits)[target], in nats; logits `[n, classes]`, integer targets of n elements. */
export function crossEntropy(graph: Graph, logits: GraphTensor, targets: GraphTensor): GraphTensor {
  const [count, classes] = fixedShape(logits.shape) as [number, number];
  if (sizeOf(targets.shape) !== count) throw mismatch('crossEntropy', logits.shape, targets.shape);
  const wanted = oneHot(graph, targets, classes);
  const logs = graph.node('LogSoftmax', [logits], logits.shape, { attributes: { axis: -1 } });
  const picked = graph.node('ReduceSum', [graph.node('Mul', [logs, wanted], logits.shape)], [], { attributes: { keepdims: 0 } });
  const result = graph.node('Mul', [picked, graph.scalar(-1 / count)], []);
  return graph.record(result, [logits], (gradient) => {
    const error = graph.node('Sub', [graph.node('Exp', [logs], logits.shape), wanted], logits.shape);
    return [graph.node('Mul', [error, graph.node('Mul', [gradient, graph.scalar(1 / count)], [])], logits.shape)];
  });
}

/** The sum of all elements, of no dimensions. */
export function sum(graph: Graph, a: GraphTensor): GraphTensor {
  const result = graph.node('ReduceSum', [a], [], { attributes: { keepdims: 0 } });
  return graph.record(result, [a], (gradient) => [graph.node('Expand', [gradient, graph.integers(fixedShape(a.shape))], a.shape)]);
}

/** A matrix with a one in each row, at the id's column. */
function oneHot(graph: Graph, ids: GraphTensor, classes: number): GraphTensor {
  const count = sizeOf(ids.shape);
  const flat = graph.node('Reshape', [ids, graph.integers([count])], [count], { type: 'int64' });
  const values = graph.constant(Float32Array.of(0, 1), [2]);
  return graph.node('OneHot', [flat, graph.integers([classes]), values], [count, classes], { attributes: { axis: -1 } });
}

function reduceLast(graph: Graph, operator: 'ReduceSum' | 'ReduceMean', a: GraphTensor): GraphTensor {
  return graph.node(operator, [a, graph.integers([a.shape.length - 1])], [...a.shape.slice(0, -1), 1], { attributes: { keepdims: 1 } });
}

function swapLast(graph: Graph, a: GraphTensor): GraphTensor {
  const rank = a.shape.length;
  const perm = [...Array(rank - 2).keys(), rank - 1, rank - 2];
  return graph.node(
    'Transpose',
    [a],
    perm.map((axis) => a.shape[axis] as Dimension),
    { attributes: { perm } },
  );
}

/** Undoes broadcasting: sums a gradient over the axes that were stretched. */
function sumTo(graph: Graph, gradient: GraphTensor, shape: readonly Dimension[]): GraphTensor {
  const extra = gradient.shape.length - shape.length;
  const axes = gradient.shape.flatMap((length, axis) => (axis < extra || (shape[axis - extra] === 1 && length !== 1) ? [axis] : []));
  if (axes.length === 0) return gradient;
  const kept = gradient.shape.map((length, axis) => (axes.includes(axis) ? 1 : length));
  const total = graph.node('ReduceSum', [gradient, graph.integers(axes)], kept, { attributes: { keepdims: 1 } });
  return extra === 0 ? total : graph.node('Reshape', [total, graph.integers(fixedShape(shape))], shape);
}

function broadcastShape(a: GraphTensor, b: GraphTensor): Dimension[] {
  const rank = Math.max(a.shape.length, b.shape.length);
  return Array.from({ length: rank }, (_, axis) => {
    const one = a.shape[a.shape.length - rank + axis] ?? 1;
    const other = b.shape[b.shape.length - rank + axis] ?? 1;
    if (one !== other && one !== 1 && other !== 1) throw mismatch('broadcast', a.shape, b.shape);
    return one === 1 ? other : one;
  });
}

function mismatch(operation: string, one: readonly Dimension[], other: readonly Dimension[]): MillraceError {
  return new MillraceError('graph-shape-mismatch', {
    actor: 'bug',
    message: `${operation} cannot take shapes [${one.join(', ')}] and [${other.join(', ')}] together`,
    values: { operation, one: one.map(String), other: other.map(String) },
  });
}
