import { Graph, type GraphTensor } from '../language/graph.ts';
import { badModel, floatWeight, readTfjsModel, type TfjsAttribute, type TfjsModel, type TfjsNode } from './tfjs-weights.ts';

const SIDE = 300;
const CLASSES = 91; // of which the first means "nothing"
const HEADS = 6;
const FEATURES = 1280;

/** What a conversion works on: shapes are always known, as the input's size is fixed. */
interface Conversion {
  model: TfjsModel;
  graph: Graph;
  done: Map<string, GraphTensor>;
}

/**
 * The convolutional part of the SSDLite MobileNetV2 detector (TensorFlow.js graph of 641 operations, with loops for batches) as an ONNX
 * graph for one image: `image` [1, 3, 300, 300], RGB from -1 to 1, gives `scores` [1, 1917, 90], `boxes` [1, 1917, 4] (top, left, bottom,
 * right as parts of the image; decoded as in Liu et al. 2016 with the model's own anchors) and `features` [1, 1280].
 */
export function convertDetector(json: Uint8Array, fileOf: (path: string) => Uint8Array): Uint8Array {
  const model = readTfjsModel(json, fileOf);
  const graph = new Graph();
  const image = graph.input('image', [1, 3, SIDE, SIDE]);
  const conversion: Conversion = { model, graph, done: new Map([['Preprocessor/sub', image]]) };
  const boxes: GraphTensor[] = [];
  const classes: GraphTensor[] = [];
  for (let head = 0; head < HEADS; head += 1) {
    boxes.push(asRows(graph, inputOf(conversion, `BoxPredictor_${head}/Reshape`), 4));
    classes.push(asRows(graph, inputOf(conversion, `BoxPredictor_${head}/Reshape_1`), CLASSES));
  }
  const anchors = boxes.reduce((total, { shape }) => total + (shape[1] as number), 0);
  const all = graph.node('Concat', classes, [1, anchors, CLASSES], { attributes: { axis: 1 } });
  const chances = graph.node('Sigmoid', [all], [1, anchors, CLASSES]);
  const scores = graph.node(
    'Slice',
    [chances, graph.integers([1]), graph.integers([CLASSES]), graph.integers([2])],
    [1, anchors, CLASSES - 1],
  );
  graph.output(decodeBoxes(conversion, graph.node('Concat', boxes, [1, anchors, 4], { attributes: { axis: 1 } }), anchors), 'boxes');
  graph.output(scores, 'scores');
  const last = convert(conversion, 'FeatureExtractor/MobilenetV2/Conv_1/Relu6');
  const pooled = graph.node('GlobalAveragePool', [last], [1, FEATURES, 1, 1]);
  graph.output(graph.node('Flatten', [pooled], [1, FEATURES], { attributes: { axis: 1 } }), 'features');
  return graph.encode();
}

/** [1, C, H, W] as [1, H·W·C / length, length], channels last as the original has them. */
function asRows(graph: Graph, tensor: GraphTensor, length: number): GraphTensor {
  const [, channels, height, width] = tensor.shape as number[] as [number, number, number, number];
  const last = graph.node('Transpose', [tensor], [1, height, width, channels], { attributes: { perm: [0, 2, 3, 1] } });
  const rows = (height * width * channels) / length;
  return graph.node('Reshape', [last, graph.integers([1, rows, length])], [1, rows, length]);
}

function decodeBoxes({ model, graph }: Conversion, boxes: GraphTensor, anchors: number): GraphTensor {
  const { data } = floatWeight(model, 'Postprocessor/ExpandDims');
  const centres = new Float32Array(2 * anchors);
  const sizes = new Float32Array(2 * anchors);
  for (let at = 0; at < anchors; at += 1) {
    for (const axis of [0, 1]) {
      const low = data[4 * at + axis] as number;
      const high = data[4 * at + axis + 2] as number;
      centres[2 * at + axis] = (low + high) / 2;
      sizes[2 * at + axis] = high - low;
    }
  }
  const factor = (name: string) => graph.scalar(floatWeight(model, `ConstantFolding/Postprocessor/Decode/${name}`).data[0] as number);
  const size = graph.constant(sizes, [1, anchors, 2]);
  const pair = (first: number) =>
    graph.node('Slice', [boxes, graph.integers([first]), graph.integers([first + 2]), graph.integers([2])], [1, anchors, 2]);
  const binary = (operator: string, one: GraphTensor, other: GraphTensor) => graph.node(operator, [one, other], [1, anchors, 2]);
  const offset = binary('Mul', binary('Mul', pair(0), factor('div_recip')), size);
  const centre = binary('Add', offset, graph.constant(centres, [1, anchors, 2]));
  const growth = graph.node('Exp', [binary('Mul', pair(2), factor('div_2_recip'))], [1, anchors, 2]);
  const half = binary('Mul', binary('Mul', growth, size), graph.scalar(0.5));
  return graph.node('Concat', [binary('Sub', centre, half), binary('Add', centre, half)], [1, anchors, 4], { attributes: { axis: 2 } });
}

function inputOf(conversion: Conversion, name: string): GraphTensor {
  return convert(conversion, nodeOf(conversion.model, name).input?.[0] as string);
}

/** The tensor that an operation of the original gives, converted with all that it needs. */
function convert(conversion: Conversion, reference: string): GraphTensor {
  const name = plain(reference);
  const known = conversion.done.get(name);
  if (known !== undefined) return known;
  const node = nodeOf(conversion.model, name);
  const tensor = convertNode(conversion, node);
  conversion.done.set(name, tensor);
  return tensor;
}

function convertNode(conversion: Conversion, node: TfjsNode): GraphTensor {
  const { graph } = conversion;
  const inputs = node.input ?? [];
  switch (node.op) {
    case 'Conv2D':
    case 'DepthwiseConv2dNative':
      return convolve(conversion, node);
    case 'FusedBatchNorm':
      return scaleAndShift(conversion, node);
    case 'BiasAdd':
    case 'Add':
    case 'AddN':
      return combine(conversion, 'Add', inputs);
    case 'Mul':
      return combine(conversion, 'Mul', inputs);
    case 'Relu6': {
      const input = convert(conversion, inputs[0] as string);
      return graph.node('Clip', [input, graph.scalar(0), graph.scalar(6)], input.shape);
    }
    case 'Identity':
    case 'Squeeze':
      return convert(conversion, inputs[0] as string);
    default:
      throw badModel(`the operation ${node.op} (${node.name}) is not known`);
  }
}

/** Weights from [height, width, in, out] to [out, in, height, width]; `SAME` padding puts the odd pixel at the end, as TensorFlow does. */
function convolve({ model, graph, done }: Conversion, node: TfjsNode): GraphTensor {
  const input = convert({ model, graph, done }, node.input?.[0] as string);
  const { shape, data } = floatWeight(model, plain(node.input?.[1] as string));
  const [kernelHeight, kernelWidth, from, to] = shape as [number, number, number, number];
  const isDepthwise = node.op !== 'Conv2D';
  const outputs = isDepthwise ? from * to : to;
  const perGroup = isDepthwise ? 1 : from;
  const kernel = new Float32Array(data.length);
  for (let at = 0; at < data.length; at += 1) {
    const [out, channel, place] = [at % to, Math.floor(at / to) % from, Math.floor(at / (to * from))];
    const output = isDepthwise ? channel * to + out : out;
    kernel[(output * perGroup + (isDepthwise ? 0 : channel)) * kernelHeight * kernelWidth + place] = data[at] as number;
  }
  const stride = Number(node.attr.strides?.list?.i?.[1] ?? 1);
  const [, , height, width] = input.shape as number[] as [number, number, number, number];
  const isSame = textOf(node.attr.padding) === 'SAME';
  const [rows, columns] = [
    isSame ? Math.ceil(height / stride) : Math.floor((height - kernelHeight) / stride) + 1,
    isSame ? Math.ceil(width / stride) : Math.floor((width - kernelWidth) / stride) + 1,
  ];
  const down = isSame ? Math.max(0, (rows - 1) * stride + kernelHeight - height) : 0;
  const across = isSame ? Math.max(0, (columns - 1) * stride + kernelWidth - width) : 0;
  return graph.node('Conv', [input, graph.constant(kernel, [outputs, perGroup, kernelHeight, kernelWidth])], [1, outputs, rows, columns], {
    attributes: {
      strides: [stride, stride],
      pads: [down >> 1, across >> 1, down - (down >> 1), across - (across >> 1)],
      kernel_shape: [kernelHeight, kernelWidth],
      group: isDepthwise ? from : 1,
    },
  });
}

/** Batch normalisation with fixed statistics is one factor and one summand for each channel. */
function scaleAndShift(conversion: Conversion, node: TfjsNode): GraphTensor {
  const { model, graph } = conversion;
  const input = convert(conversion, node.input?.[0] as string);
  const [gain, offset, mean, variance] = (node.input ?? []).slice(1, 5).map((name) => floatWeight(model, plain(name)).data) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const channels = input.shape[1] as number;
  const epsilon = node.attr.epsilon?.f ?? 0;
  const scale = Float32Array.from({ length: channels }, (_, at) => (gain[at] as number) / Math.sqrt((variance[at] as number) + epsilon));
  const shift = scale.map((factor, at) => (offset[at] as number) - (mean[at] as number) * factor);
  const scaled = graph.node('Mul', [input, graph.constant(scale, [1, channels, 1, 1])], input.shape);
  return graph.node('Add', [scaled, graph.constant(shift, [1, channels, 1, 1])], input.shape);
}

function combine(conversion: Conversion, operator: 'Add' | 'Mul', inputs: readonly string[]): GraphTensor {
  const { model, graph } = conversion;
  const names = inputs.map(plain);
  const at = names.findIndex((name) => !model.weights.has(name));
  const tensor = convert(conversion, names[at] as string);
  const other = names[1 - at] as string;
  const right = model.weights.has(other) ? channelWeight(graph, floatWeight(model, other).data) : convert(conversion, other);
  return graph.node(operator, [tensor, right], tensor.shape);
}

function channelWeight(graph: Graph, data: Float32Array<ArrayBuffer>): GraphTensor {
  return data.length === 1 ? graph.constant(data, []) : graph.constant(data, [1, data.length, 1, 1]);
}

function nodeOf(model: TfjsModel, name: string): TfjsNode {
  const node = model.nodes.get(plain(name));
  if (node === undefined) throw badModel(`there is no operation ${name}`);
  return node;
}

/** A reference without the number of the output. */
function plain(reference: string): string {
  return reference.split(':')[0] as string;
}

function textOf(attribute: TfjsAttribute | undefined): string {
  const { s } = attribute ?? {};
  return typeof s === 'string' ? Buffer.from(s, 'base64').toString() : Buffer.from(s ?? []).toString();
}
