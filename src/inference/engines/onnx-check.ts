import { fromBinary } from '@bufbuild/protobuf';
import { type AttributeProto, type GraphProto, type ModelProto, ModelProtoSchema, type NodeProto, type TensorProto } from 'onnx-buf';
import { MillraceError } from '../../errors.ts';

/** What an ONNX file may hold at most. */
export interface OnnxLimits {
  fileBytesMax: number;
  nodesMax: number;
  tensorsMax: number;
  /** Of one tensor, also of one that a graph would make from a constant shape. */
  tensorBytesMax: number;
  /** Graphs within graphs (branches of `If`). */
  depthMax: number;
}

const DEFAULT_LIMITS: OnnxLimits = { fileBytesMax: 1 << 30, nodesMax: 20_000, tensorsMax: 20_000, tensorBytesMax: 512 << 20, depthMax: 4 };
const RANK_MAX = 8;
const DOMAINS = new Set(['', 'ai.onnx']);
const VERSION_MAX = 26n;

/** Operations that run as long as the file likes; no embedded model needs them. */
const ENDLESS = new Set(['Loop', 'Scan', 'SequenceMap']);

/** Bytes of one element by ONNX's number of the type; types of less than a byte count as one, strings are refused. */
const ELEMENT_BYTES: Record<number, number> = {
  1: 4, // float
  2: 1, // uint8
  3: 1, // int8
  4: 2, // uint16
  5: 2, // int16
  6: 4, // int32
  7: 8, // int64
  9: 1, // bool
  10: 2, // float16
  11: 8, // double
  12: 4, // uint32
  13: 8, // uint64
  16: 2, // bfloat16
};

interface Walk {
  limits: OnnxLimits;
  nodes: number;
  tensors: number;
}

/**
 * Parses an ONNX file and refuses what must not reach the runtime: data outside the file, operations of unknown domains or without an end,
 * functions, training parts, sparse or string tensors, tensors whose stated size is absurd or is not that of their data. What passes is
 * loaded from these very bytes, never from a path, so that the runtime opens no other file. Run it where memory is limited.
 * @throws bad-model
 */
export function checkOnnx(bytes: Uint8Array, limits: Partial<OnnxLimits> = {}): ModelProto {
  const walk: Walk = { limits: { ...DEFAULT_LIMITS, ...limits }, nodes: 0, tensors: 0 };
  if (bytes.length > walk.limits.fileBytesMax) throw badOnnx(`it has ${bytes.length} bytes, at most ${walk.limits.fileBytesMax} are read`);
  const model = parse(bytes);
  if (model.graph === undefined) throw badOnnx('it holds no graph');
  if (model.functions.length > 0) throw badOnnx('it defines functions of its own');
  if (model.trainingInfo.length > 0) throw badOnnx('it holds a training part');
  for (const { domain, version } of model.opsetImport) {
    // A file may import a domain that it never uses; its operations are refused one by one.
    if (DOMAINS.has(domain) && (version < 1n || version > VERSION_MAX)) throw badOnnx(`it wants version ${version} of the operations`);
  }
  checkGraph(model.graph, walk, 0);
  return model;
}

function parse(bytes: Uint8Array): ModelProto {
  try {
    return fromBinary(ModelProtoSchema, bytes);
  } catch (cause) {
    throw badOnnx('it is not a protocol buffer of the ONNX schema, or is cut off', cause);
  }
}

function checkGraph(graph: GraphProto, walk: Walk, depth: number): void {
  if (depth > walk.limits.depthMax) throw badOnnx(`graphs lie more than ${walk.limits.depthMax} deep in one another`);
  if (graph.sparseInitializer.length > 0) throw badOnnx('it holds sparse tensors');
  const shapes = new Map<string, TensorProto>();
  for (const tensor of graph.initializer) {
    checkTensor(tensor, walk);
    if (tensor.dataType === 7) shapes.set(tensor.name, tensor);
  }
  for (const info of [...graph.input, ...graph.output, ...graph.valueInfo]) {
    if (info.type?.value.case !== 'tensorType') continue;
    const { elemType, shape } = info.type.value.value;
    const dims = (shape?.dim ?? []).map(({ value }) => (value.case === 'dimValue' ? value.value : 1n));
    sizeOf(info.name, dims, elemType === 8 ? 1 : elementBytes(info.name, elemType), walk.limits);
  }
  for (const node of graph.node) checkNode(node, shapes, walk, depth);
}

function checkNode(node: NodeProto, shapes: Map<string, TensorProto>, walk: Walk, depth: number): void {
  walk.nodes += 1;
  if (walk.nodes > walk.limits.nodesMax) throw badOnnx(`it has more than ${walk.limits.nodesMax} operations`);
  if (!DOMAINS.has(node.domain)) throw badOnnx(`the operation ${node.opType} is of the domain ${node.domain.slice(0, 80)}`);
  if (ENDLESS.has(node.opType)) throw badOnnx(`the operation ${node.opType} may run without end`);
  for (const attribute of node.attribute) checkAttribute(attribute, walk, depth);
  const shape = node.opType === 'ConstantOfShape' || node.opType === 'Expand' ? shapes.get(node.input.at(-1) ?? '') : undefined;
  if (shape !== undefined) sizeOf(node.name || node.opType, integersOf(shape), 8, walk.limits);
}

function checkAttribute(attribute: AttributeProto, walk: Walk, depth: number): void {
  if (attribute.sparseTensor !== undefined || attribute.sparseTensors.length > 0) throw badOnnx('it holds sparse tensors');
  if (attribute.refAttrName !== '') throw badOnnx('it holds an attribute of a function');
  for (const tensor of [attribute.t, ...attribute.tensors]) if (tensor !== undefined) checkTensor(tensor, walk);
  for (const graph of [attribute.g, ...attribute.graphs]) if (graph !== undefined) checkGraph(graph, walk, depth + 1);
}

function checkTensor(tensor: TensorProto, walk: Walk): void {
  const name = tensor.name.slice(0, 80) || 'a constant';
  walk.tensors += 1;
  if (walk.tensors > walk.limits.tensorsMax) throw badOnnx(`it has more than ${walk.limits.tensorsMax} tensors`);
  if (tensor.dataLocation !== 0 || tensor.externalData.length > 0) throw badOnnx(`the data of ${name} lies outside the file`);
  if (tensor.segment !== undefined) throw badOnnx(`${name} is a segment of a tensor`);
  if (tensor.stringData.length > 0) throw badOnnx(`${name} holds strings`);
  const unit = elementBytes(name, tensor.dataType);
  const stated = sizeOf(name, tensor.dims, unit, walk.limits);
  const numbers =
    tensor.floatData.length + tensor.int32Data.length + tensor.int64Data.length + tensor.doubleData.length + tensor.uint64Data.length;
  const held = tensor.rawData.length > 0 ? tensor.rawData.length : numbers * unit;
  if (held !== stated) throw badOnnx(`${name} states ${stated} bytes and holds ${held}`);
}

function elementBytes(name: string, dataType: number): number {
  const unit = ELEMENT_BYTES[dataType];
  if (unit === undefined) throw badOnnx(`${name} has elements of type ${dataType}`);
  return unit;
}

function sizeOf(name: string, dims: readonly bigint[], unit: number, limits: OnnxLimits): number {
  if (dims.length > RANK_MAX) throw badOnnx(`${name} has ${dims.length} dimensions`);
  let bytes = BigInt(unit);
  for (const length of dims) {
    if (length < 0n) throw badOnnx(`${name} has a dimension of ${length}`);
    bytes *= length;
    if (bytes > BigInt(limits.tensorBytesMax)) throw badOnnx(`${name} would take more than ${limits.tensorBytesMax} bytes`);
  }
  return Number(bytes);
}

function integersOf(tensor: TensorProto): bigint[] {
  if (tensor.rawData.length === 0) return tensor.int64Data;
  const view = new DataView(tensor.rawData.buffer, tensor.rawData.byteOffset, tensor.rawData.byteLength);
  return Array.from({ length: Math.min(RANK_MAX + 1, tensor.rawData.length >> 3) }, (_, at) => view.getBigInt64(8 * at, true));
}

function badOnnx(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-model', {
    actor: 'caller',
    message: `This ONNX file is not loaded: ${reason}`,
    values: { format: 'onnx', reason },
    hint: 'Export the model as one self-contained file with standard operations.',
    cause,
  });
}
