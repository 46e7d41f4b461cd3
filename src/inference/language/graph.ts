import { create, toBinary } from '@bufbuild/protobuf';
import {
  type AttributeProto,
  AttributeProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  TensorShapeProto_DimensionSchema,
  TensorShapeProtoSchema,
  TypeProto_TensorSchema,
  ValueInfoProtoSchema,
} from 'onnx-buf';
import { MillraceError } from '../../errors.ts';

/** A length along one axis: a number, or the name of one that is known only when the graph runs. */
export type Dimension = number | string;

/** What a tensor's elements are. */
export type ElementType = 'float32' | 'int64' | 'bool';

/** A value of a graph. `needsGradient`: it is, or depends on, a parameter. */
export interface GraphTensor {
  readonly name: string;
  readonly shape: readonly Dimension[];
  readonly type: ElementType;
  readonly needsGradient: boolean;
}

/** An attribute of an ONNX operator. A number becomes an integer; `{ float }` becomes a float. */
export type Attribute = number | readonly number[] | string | { float: number };

/** From the gradient of an operation's result to those of its inputs; undefined where none is wanted. */
export type Backward = (gradient: GraphTensor) => readonly (GraphTensor | undefined)[];

/** One differentiable operation, as the tape holds it. */
export interface TapeStep {
  result: GraphTensor;
  inputs: readonly GraphTensor[];
  backward: Backward;
}

const OPSET = 18n;
const IR_VERSION = 9n;
const ELEMENT_CODES: Record<ElementType, number> = { float32: 1, int64: 7, bool: 9 };
const ATTRIBUTE_CODES = { float: 1, int: 2, string: 3, ints: 7 };
const SHARED_VALUES_MAX = 16;

/**
 * A graph under construction, which becomes one ONNX file (opset 18): inputs, constants, operators, outputs. Differentiable operations are
 * kept on a tape, so that `gradients` can add the backward pass as more operators of the same graph. It holds no user code and no
 * external data: its bytes are all that a worker needs to repeat a computation.
 */
export class Graph {
  readonly tape: TapeStep[] = [];
  readonly #nodes: NodeProto[] = [];
  readonly #constants: TensorProto[] = [];
  readonly #inputs: GraphTensor[] = [];
  readonly #outputs: GraphTensor[] = [];
  readonly #shared = new Map<string, GraphTensor>();
  #count = 0;

  /** A value that the caller gives at each run. */
  input(name: string, shape: readonly Dimension[], type: ElementType = 'float32'): GraphTensor {
    const tensor = { name, shape, type, needsGradient: false };
    this.#inputs.push(tensor);
    return tensor;
  }

  /** An input that gradients can be taken of. */
  parameter(name: string, shape: readonly number[]): GraphTensor {
    const tensor = { name, shape, type: 'float32' as const, needsGradient: true };
    this.#inputs.push(tensor);
    return tensor;
  }

  /** Numbers that lie in the file. Short unnamed ones are kept once. */
  constant(data: Float32Array | BigInt64Array, shape: readonly number[], name?: string): GraphTensor {
    const key = name === undefined && data.length <= SHARED_VALUES_MAX ? `${data.constructor.name} ${shape} ${data}` : undefined;
    const known = key === undefined ? undefined : this.#shared.get(key);
    if (known !== undefined) return known;
    const type = data instanceof Float32Array ? 'float32' : 'int64';
    const tensor: GraphTensor = { name: name ?? this.#newName('constant'), shape, type, needsGradient: false };
    const rawData = new Uint8Array(data.slice().buffer);
    this.#constants.push(create(TensorProtoSchema, { name: tensor.name, dims: shape.map(BigInt), dataType: ELEMENT_CODES[type], rawData }));
    if (key !== undefined) this.#shared.set(key, tensor);
    return tensor;
  }

  /** One float, of no dimensions. */
  scalar(value: number): GraphTensor {
    return this.constant(Float32Array.of(value), []);
  }

  /** A list of integers: axes, a shape. */
  integers(values: readonly number[]): GraphTensor {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length]);
  }

  /** Adds an operator whose result has the given shape; it is not on the tape: no gradient flows through it. */
  node(
    operator: string,
    inputs: readonly GraphTensor[],
    shape: readonly Dimension[],
    options: { attributes?: Record<string, Attribute>; type?: ElementType } = {},
  ): GraphTensor {
    const name = this.#newName(operator.toLowerCase());
    const attribute = Object.entries(options.attributes ?? {}).map(([key, value]) => attributeOf(key, value));
    this.#nodes.push(
      create(NodeProtoSchema, { opType: operator, input: inputs.map((each) => each.name), output: [name], name, attribute }),
    );
    return { name, shape, type: options.type ?? 'float32', needsGradient: false };
  }

  /** Puts an operation on the tape: gradients flow through it to those of its inputs that need one. */
  record(result: GraphTensor, inputs: readonly GraphTensor[], backward: Backward): GraphTensor {
    if (!inputs.some((each) => each.needsGradient)) return result;
    const recorded = { ...result, needsGradient: true };
    this.tape.push({ result: recorded, inputs, backward });
    return recorded;
  }

  /** Gives a value out under a name of the caller's. */
  output(tensor: GraphTensor, name: string): void {
    this.#nodes.push(create(NodeProtoSchema, { opType: 'Identity', input: [tensor.name], output: [name], name: `output_${name}` }));
    this.#outputs.push({ ...tensor, name });
  }

  /** The ONNX file. The same calls give the same bytes. */
  encode(): Uint8Array {
    const graph = create(GraphProtoSchema, {
      name: 'millrace',
      node: this.#nodes,
      initializer: this.#constants,
      input: this.#inputs.map(valueInfoOf),
      output: this.#outputs.map(valueInfoOf),
    });
    const opsetImport = [{ domain: '', version: OPSET }];
    return toBinary(ModelProtoSchema, create(ModelProtoSchema, { irVersion: IR_VERSION, producerName: 'millrace', opsetImport, graph }));
  }

  #newName(kind: string): string {
    this.#count += 1;
    return `${kind}_${this.#count}`;
  }
}

/** How many elements a shape has. @throws graph-shape-unknown when a length is known only at a run */
export function sizeOf(shape: readonly Dimension[]): number {
  return fixedShape(shape).reduce((product, length) => product * length, 1);
}

/** A shape whose lengths are all numbers. @throws graph-shape-unknown when one is known only at a run */
export function fixedShape(shape: readonly Dimension[]): readonly number[] {
  if (shape.every((length) => typeof length === 'number')) return shape;
  throw new MillraceError('graph-shape-unknown', {
    actor: 'bug',
    message: `Got shape [${shape.join(', ')}], expected numbers: this operation needs every length when the graph is built`,
    values: { shape: shape.map(String) },
  });
}

function attributeOf(name: string, value: Attribute): AttributeProto {
  if (typeof value === 'string') {
    return create(AttributeProtoSchema, { name, type: ATTRIBUTE_CODES.string, s: new TextEncoder().encode(value) });
  }
  if (typeof value === 'number') return create(AttributeProtoSchema, { name, type: ATTRIBUTE_CODES.int, i: BigInt(value) });
  if ('float' in value) return create(AttributeProtoSchema, { name, type: ATTRIBUTE_CODES.float, f: value.float });
  return create(AttributeProtoSchema, { name, type: ATTRIBUTE_CODES.ints, ints: value.map(BigInt) });
}

function valueInfoOf({ name, shape, type }: GraphTensor) {
  const dim = shape.map((length) =>
    create(TensorShapeProto_DimensionSchema, {
      value: typeof length === 'string' ? { case: 'dimParam', value: length } : { case: 'dimValue', value: BigInt(length) },
    }),
  );
  const tensor = create(TypeProto_TensorSchema, { elemType: ELEMENT_CODES[type], shape: create(TensorShapeProtoSchema, { dim }) });
  return create(ValueInfoProtoSchema, { name, type: { value: { case: 'tensorType', value: tensor } } });
}
