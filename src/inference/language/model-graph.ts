import { Graph, type GraphTensor } from './graph.ts';
import { gradients } from './graph-gradients.ts';
import {
  add,
  crossEntropy,
  embedding,
  linear,
  matmul,
  multiply,
  reshape,
  rmsNorm,
  scale,
  silu,
  softmax,
  transpose,
} from './graph-operations.ts';
import { headWidth, type ModelShape, NORM_EPSILON, parameterShapes, rotaryTables, type Weights } from './model-shape.ts';

/** Added to the scores of what a position may not see. */
const HIDDEN_SCORE = -1e9;

type Tensors = Record<string, GraphTensor>;
/** Attention of one layer: queries, keys and values `[rows, width]` to what was read `[rows, width]`. */
type Attend = (layer: number, queries: GraphTensor, keys: GraphTensor, values: GraphTensor) => GraphTensor;
type Rotate = (heads: GraphTensor) => GraphTensor;

/**
 * One training step as a graph. Inputs: `ids` and `targets` (int64 `[batch, length]`) and every weight by name. Outputs: `loss` (mean nats
 * per byte) and `gradient.<name>` of every weight.
 */
export function trainingGraph(shape: ModelShape, batch: number, length: number): Uint8Array {
  const { graph, loss, weights } = lossPart(shape, batch, length);
  const names = Object.keys(weights);
  const found = gradients(graph, loss, Object.values(weights));
  for (const [at, gradient] of found.entries()) graph.output(gradient, `gradient.${names[at]}`);
  return graph.encode();
}

/** The loss alone, with the inputs of `trainingGraph`. */
export function lossGraph(shape: ModelShape, batch: number, length: number): Uint8Array {
  return lossPart(shape, batch, length).graph.encode();
}

/**
 * The model with its weights inside, for generation. Inputs: `input_ids` and `position_ids` (int64 `[step]`), and for each layer what came
 * before, `past.<layer>.key` and `.value` (`[heads, past, head width]`). Outputs: `logits` (`[step, vocabulary]`),
 * `present.<layer>.key` and `.value`, past and new together, and `stream.<layer>` (`[step, width]`), what the layers up to this one made.
 * A position sees itself and those before it.
 */
export function generationGraph(shape: ModelShape, values: Weights): Uint8Array {
  const graph = new Graph();
  const ids = graph.input('input_ids', ['step'], 'int64');
  const positions = graph.input('position_ids', ['step'], 'int64');
  const weights = Object.fromEntries(
    Object.entries(parameterShapes(shape)).map(([name, lengths]) => [name, graph.constant(values[name] as Float32Array, lengths, name)]),
  );
  const rotate = rotation(graph, shape, positions);
  const width = headWidth(shape);
  const cached = (layer: number, kind: string, fresh: GraphTensor) => {
    const past = graph.input(`past.${layer}.${kind}`, [shape.heads, 'past', width]);
    const all = graph.node('Concat', [past, fresh], [shape.heads, 'total', width], { attributes: { axis: 1 } });
    graph.output(all, `present.${layer}.${kind}`);
    return all;
  };
  let mask: GraphTensor | undefined;
  const heads = (flat: GraphTensor) => transpose(graph, reshape(graph, flat, ['step', shape.heads, width]), [1, 0, 2]);
  const attend: Attend = (layer, queries, keys, contents) => {
    const allKeys = cached(layer, 'key', rotate(heads(keys)));
    const allContents = cached(layer, 'value', heads(contents));
    mask ??= maskByPosition(graph, allKeys, positions);
    const read = attention(graph, { queries: rotate(heads(queries)), keys: allKeys, contents: allContents, mask, shape });
    return reshape(graph, transpose(graph, read, [1, 0, 2]), ['step', shape.width]);
  };
  const give = (layer: number, stream: GraphTensor) => graph.output(stream, `stream.${layer}`);
  graph.output(logitsOf(graph, shape, { weights, ids, attend, give }), 'logits');
  return graph.encode();
}

function lossPart(shape: ModelShape, batch: number, length: number): { graph: Graph; loss: GraphTensor; weights: Tensors } {
  const graph = new Graph();
  const ids = graph.input('ids', [batch, length], 'int64');
  const targets = graph.input('targets', [batch, length], 'int64');
  const weights = Object.fromEntries(
    Object.entries(parameterShapes(shape)).map(([name, lengths]) => [name, graph.parameter(name, lengths)]),
  );
  const width = headWidth(shape);
  const hidden = new Float32Array(length * length).map((_, at) => (at % length > Math.floor(at / length) ? HIDDEN_SCORE : 0));
  const mask = graph.constant(hidden, [length, length], 'mask');
  const rotate = rotation(graph, { ...shape, context: length });
  const heads = (flat: GraphTensor) => transpose(graph, reshape(graph, flat, [batch, length, shape.heads, width]), [0, 2, 1, 3]);
  const attend: Attend = (_, queries, keys, contents) => {
    const parts = { queries: rotate(heads(queries)), keys: rotate(heads(keys)), contents: heads(contents) };
    const read = attention(graph, { ...parts, mask, shape });
    return reshape(graph, transpose(graph, read, [0, 2, 1, 3]), [batch * length, shape.width]);
  };
  const rows = graph.node('Reshape', [ids, graph.integers([batch * length])], [batch * length], { type: 'int64' });
  const loss = crossEntropy(graph, logitsOf(graph, shape, { weights, ids: rows, attend }), targets);
  graph.output(loss, 'loss');
  return { graph, loss, weights };
}

/** The layers (Touvron et al. 2023): normed attention and a normed SwiGLU, each added to the stream; then the norm and the output layer. */
function logitsOf(
  graph: Graph,
  shape: ModelShape,
  {
    weights,
    ids,
    attend,
    give,
  }: { weights: Tensors; ids: GraphTensor; attend: Attend; give?: (layer: number, stream: GraphTensor) => void },
): GraphTensor {
  const weight = (name: string) => weights[`${name}.weight`] as GraphTensor;
  let stream = embedding(graph, ids, weight('token_embd'));
  for (let layer = 0; layer < shape.layers; layer += 1) {
    const part = (name: string) => weight(`blk.${layer}.${name}`);
    const before = rmsNorm(graph, stream, part('attn_norm'), NORM_EPSILON);
    const [queries, keys, contents] = ['attn_q', 'attn_k', 'attn_v'].map((name) => linear(graph, before, part(name)));
    const read = attend(layer, queries as GraphTensor, keys as GraphTensor, contents as GraphTensor);
    stream = add(graph, stream, linear(graph, read, part('attn_output')));
    const normal = rmsNorm(graph, stream, part('ffn_norm'), NORM_EPSILON);
    const gate = silu(graph, linear(graph, normal, part('ffn_gate')));
    const inner = multiply(graph, gate, linear(graph, normal, part('ffn_up')));
    stream = add(graph, stream, linear(graph, inner, part('ffn_down')));
    give?.(layer, stream);
  }
  return linear(graph, rmsNorm(graph, stream, weight('output_norm'), NORM_EPSILON), weight('output'));
}

function attention(
  graph: Graph,
  parts: { queries: GraphTensor; keys: GraphTensor; contents: GraphTensor; mask: GraphTensor; shape: ModelShape },
): GraphTensor {
  const rank = parts.keys.shape.length;
  const turned = transpose(graph, parts.keys, [...Array(rank - 2).keys(), rank - 1, rank - 2]);
  const scores = scale(graph, matmul(graph, parts.queries, turned), 1 / Math.sqrt(headWidth(parts.shape)));
  return matmul(graph, softmax(graph, add(graph, scores, parts.mask)), parts.contents);
}

/** Turns each pair of a head by its position: x·cos + (x·R)·sin with R the quarter turn of every pair. */
function rotation(graph: Graph, shape: ModelShape, positions?: GraphTensor): Rotate {
  const width = headWidth(shape);
  const tables = rotaryTables(shape);
  const at = (data: Float32Array, name: string): GraphTensor => {
    const table = graph.constant(data, [shape.context, width], name);
    return positions === undefined ? table : embedding(graph, positions, table);
  };
  const cosines = at(tables.cosines, 'cosines');
  const sines = at(tables.sines, 'sines');
  const quarter = new Float32Array(width * width);
  for (let pair = 0; pair < width; pair += 2) {
    quarter[(pair + 1) * width + pair] = -1;
    quarter[pair * width + pair + 1] = 1;
  }
  const turn = graph.constant(quarter, [width, width], 'quarter_turn');
  return (heads) => add(graph, multiply(graph, heads, cosines), multiply(graph, matmul(graph, heads, turn), sines));
}

/** `[step, total]`: 0 where the key's place is not after the query's position, else the hidden score. */
function maskByPosition(graph: Graph, keys: GraphTensor, positions: GraphTensor): GraphTensor {
  const lengths = graph.node('Shape', [keys], [3], { type: 'int64' });
  const total = graph.node('Gather', [lengths, graph.constant(BigInt64Array.of(1n), [])], [], { type: 'int64' });
  const range = [graph.constant(BigInt64Array.of(0n), []), total, graph.constant(BigInt64Array.of(1n), [])];
  const places = graph.node('Range', range, ['total'], { type: 'int64' });
  const rows = graph.node('Unsqueeze', [positions, graph.integers([1])], ['step', 1], { type: 'int64' });
  const isLater = graph.node('Greater', [places, rows], ['step', 'total'], { type: 'bool' });
  const flags = graph.node('Cast', [isLater], ['step', 'total'], { attributes: { to: 1 } });
  return scale(graph, flags, HIDDEN_SCORE);
}
