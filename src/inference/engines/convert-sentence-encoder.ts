import { Graph, type GraphTensor } from '../language/graph.ts';
import { floatWeight, readTfjsModel, type TfjsModel } from './tfjs-weights.ts';

const TOP = 'module_apply_default/Encoder_en/KonaTransformer/Encode';
const VARIABLES = 'module/Encoder_en/KonaTransformer/Encode';
const HEADS = 4;
const WIDTH = 512;
const LAYER_NORM_EPSILON = 9.999999974752427e-7;
const UNIT_LENGTH_EPSILON = 9.999999960041972e-13;

/**
 * The Universal Sentence Encoder lite (TensorFlow.js graph of 317 operations for padded batches) as an ONNX graph for one sentence:
 * `ids` [n] int64 (at most 128 pieces) and `positions` [n, 1] give `embedding` [1, 512] of length 1. Without a batch there is no padding, so
 * scattering and masking fall away, and an answer never depends on what was asked beside it.
 */
export function convertSentenceEncoder(json: Uint8Array, fileOf: (path: string) => Uint8Array): Uint8Array {
  const model = readTfjsModel(json, fileOf);
  const graph = new Graph();
  const ids = graph.input('ids', ['n'], 'int64');
  const positions = graph.input('positions', ['n', 1]);
  const words = graph.node('Gather', [weight(graph, model, 'module/Embeddings_en'), ids], ['n', 256]);
  const rates = weight(graph, model, `${TOP}/TransformerStack/Layer_0/AddTimingSignal/TimingSignal/ExpandDims_1`);
  const angles = graph.node('Mul', [positions, rates], ['n', 128]);
  const timing = graph.node('Concat', [graph.node('Sin', [angles], ['n', 128]), graph.node('Cos', [angles], ['n', 128])], ['n', 256], {
    attributes: { axis: 1 },
  });
  // The original adds the words once more to what it adds the timing signal to.
  let stream = add(graph, words, add(graph, words, timing, 256), 256);
  stream = layer(graph, model, stream, { index: 0, width: 256, query: 0.125 });
  stream = layer(graph, model, stream, { index: 1, width: WIDTH, query: 0.0883883461356163 });
  const mean = graph.node('ReduceMean', [stream, graph.integers([0])], [1, WIDTH], { attributes: { keepdims: 1 } });
  const hidden = dense(graph, mean, {
    kernel: weight(graph, model, 'module/Encoder_en/hidden_layers/tanh_layer_0/weights'),
    bias: weight(graph, model, 'module/Encoder_en/hidden_layers/tanh_layer_0/bias'),
    rows: 1,
    width: WIDTH,
  });
  const bounded = graph.node('Tanh', [hidden], [1, WIDTH]);
  const square = graph.node('ReduceSum', [graph.node('Mul', [bounded, bounded], [1, WIDTH]), graph.integers([1])], [1, 1], {
    attributes: { keepdims: 1 },
  });
  const length = graph.node('Sqrt', [graph.node('Max', [square, graph.scalar(UNIT_LENGTH_EPSILON)], [1, 1])], [1, 1]);
  graph.output(graph.node('Div', [bounded, length], [1, WIDTH]), 'embedding');
  return graph.encode();
}

/** One transformer layer with normalisation before each step (Vaswani et al. 2017; tensor2tensor's `layer_prepostprocess`). */
function layer(graph: Graph, model: TfjsModel, stream: GraphTensor, options: { index: number; width: number; query: number }): GraphTensor {
  const { index, width, query } = options;
  const own = (name: string) => weight(graph, model, `${TOP}/Layer_${index}/TransformerLayer/${name}/ConcatPartitions/concat`);
  const kernel = (name: string) =>
    weight(graph, model, `${VARIABLES}/Layer_${index}/TransformerLayer/MultiheadAttention/${name}/kernel/part_0`);
  const normal = normalise(graph, stream, {
    scale: own('layer_prepostprocess/layer_norm/layer_norm_scale'),
    bias: own('layer_prepostprocess/layer_norm/layer_norm_bias'),
    width,
  });
  const attention = attend(graph, normal, {
    kernel: kernel('qkv_transform_single'),
    bias: own('MultiheadAttention/qkv_transform_single/bias'),
    width,
    query,
  });
  const mixed = dense(graph, attention, {
    kernel: kernel('output_transform_single'),
    bias: own('MultiheadAttention/output_transform_single/bias'),
    rows: 'n',
    width: WIDTH,
  });
  const residual =
    width === WIDTH ? stream : dense(graph, stream, { kernel: own('dense/kernel'), bias: own('dense/bias'), rows: 'n', width: WIDTH });
  const after = add(graph, mixed, residual, WIDTH);
  const fed = normalise(graph, after, {
    scale: own('FFN/layer_prepostprocess/layer_norm/layer_norm_scale'),
    bias: own('FFN/layer_prepostprocess/layer_norm/layer_norm_bias'),
    width: WIDTH,
  });
  const folded = (name: string) =>
    weight(graph, model, `${TOP}/TransformerStack/Layer_${index}/TransformerLayer/FFN/${name}/Tensordot/Reshape_1`);
  const wide = dense(graph, fed, { kernel: folded('conv1'), bias: own('FFN/conv1/bias'), rows: 'n', width: 3 * WIDTH });
  const active = graph.node('Relu', [wide], ['n', 3 * WIDTH]);
  const narrow = dense(graph, active, { kernel: folded('conv2'), bias: own('FFN/conv2/bias'), rows: 'n', width: WIDTH });
  return add(graph, narrow, after, WIDTH);
}

function attend(
  graph: Graph,
  stream: GraphTensor,
  options: { kernel: GraphTensor; bias: GraphTensor; width: number; query: number },
): GraphTensor {
  const { kernel, bias, width, query } = options;
  const all = dense(graph, stream, { kernel, bias, rows: 'n', width: 3 * width });
  const [queries, keys, values] = [0, 1, 2].map((part) => {
    const slice = [graph.integers([part * width]), graph.integers([(part + 1) * width]), graph.integers([1])];
    const own = graph.node('Slice', [all, ...slice], ['n', width]);
    const split = graph.node('Reshape', [own, graph.integers([-1, HEADS, width / HEADS])], ['n', HEADS, width / HEADS]);
    const perm = part === 1 ? [1, 2, 0] : [1, 0, 2];
    const shape = part === 1 ? [HEADS, width / HEADS, 'n'] : [HEADS, 'n', width / HEADS];
    return graph.node('Transpose', [split], shape, { attributes: { perm } });
  }) as [GraphTensor, GraphTensor, GraphTensor];
  const scaled = graph.node('Mul', [queries, graph.scalar(query)], [HEADS, 'n', width / HEADS]);
  const weights = graph.node('Softmax', [graph.node('MatMul', [scaled, keys], [HEADS, 'n', 'n'])], [HEADS, 'n', 'n'], {
    attributes: { axis: -1 },
  });
  const joined = graph.node(
    'Transpose',
    [graph.node('MatMul', [weights, values], [HEADS, 'n', width / HEADS])],
    ['n', HEADS, width / HEADS],
    {
      attributes: { perm: [1, 0, 2] },
    },
  );
  return graph.node('Reshape', [joined, graph.integers([-1, width])], ['n', width]);
}

function normalise(graph: Graph, stream: GraphTensor, options: { scale: GraphTensor; bias: GraphTensor; width: number }): GraphTensor {
  const { scale, bias, width } = options;
  const mean = (tensor: GraphTensor) => graph.node('ReduceMean', [tensor, graph.integers([1])], ['n', 1], { attributes: { keepdims: 1 } });
  const centred = graph.node('Sub', [stream, mean(stream)], ['n', width]);
  const variance = mean(graph.node('Mul', [centred, centred], ['n', width]));
  const deviation = graph.node('Sqrt', [add(graph, variance, graph.scalar(LAYER_NORM_EPSILON), 1)], ['n', 1]);
  const unit = graph.node('Div', [centred, deviation], ['n', width]);
  return add(graph, graph.node('Mul', [unit, scale], ['n', width]), bias, width);
}

function dense(
  graph: Graph,
  input: GraphTensor,
  options: { kernel: GraphTensor; bias: GraphTensor; rows: number | string; width: number },
): GraphTensor {
  const product = graph.node('MatMul', [input, options.kernel], [options.rows, options.width]);
  return graph.node('Add', [product, options.bias], [options.rows, options.width]);
}

function add(graph: Graph, one: GraphTensor, other: GraphTensor, width: number): GraphTensor {
  return graph.node('Add', [one, other], ['n', width]);
}

/** A weight as a constant; the 1 x 1 convolutions of the original are matrices. */
function weight(graph: Graph, model: TfjsModel, name: string): GraphTensor {
  const { data, shape } = floatWeight(model, name);
  return graph.constant(data, shape.length === 4 ? shape.slice(2) : shape);
}
