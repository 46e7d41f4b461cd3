import { create, toBinary } from '@bufbuild/protobuf';
import { type ModelProto, ModelProtoSchema, ValueInfoProtoSchema } from 'onnx-buf';
import type { InferenceSession as Session } from 'onnxruntime-node';
import { checkOnnx } from './onnx-check.ts';
import { bytesOf, type WitnessRecord } from './witness.ts';

// Read once, before the native library starts; the pinned version sends nothing either way.
process.env.ORT_DISABLE_TELEMETRY = '1';
const { InferenceSession, Tensor } = (await import('onnxruntime-node')).default;

/** A tensor as a graph takes and gives it. */
export interface TensorData {
  data: Float32Array | BigInt64Array | Int32Array | Uint8Array;
  shape: readonly number[];
}

/** An ONNX graph that can be run; a run blocks its thread until it is done. */
export interface TensorGraph {
  /** With a record, intermediate tensors that it names are computed once more and taken into it. */
  run(inputs: Record<string, TensorData>, record?: WitnessRecord): Promise<Record<string, TensorData>>;
}

/** One thread and the same optimisations at every run: then the answers are the same bits on one kind of processor. */
const SESSION_OPTIONS: Session.SessionOptions = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  logSeverityLevel: 3,
  // Memory goes back after each run: inputs of many sizes would otherwise leave an arena as large as the largest.
  enableCpuMemArena: false,
};

/**
 * Checks an ONNX file and opens it from its bytes.
 * @throws bad-model
 */
export async function openTensorGraph(name: string, bytes: Uint8Array): Promise<TensorGraph> {
  const places = outputsWithin(checkOnnx(bytes));
  const session = await InferenceSession.create(bytes, SESSION_OPTIONS);
  let tapped: { key: string; taps: string[]; session: Session } | undefined;

  const openTapped = async (record: WitnessRecord) => {
    const taps = record.pick(name, places.length).map((at) => places[at] as string);
    const key = taps.join('\n');
    if (tapped?.key === key) return tapped;
    await tapped?.session.release();
    tapped = { key, taps, session: await InferenceSession.create(withOutputs(checkOnnx(bytes), taps), SESSION_OPTIONS) };
    return tapped;
  };

  return {
    async run(inputs, record) {
      const feeds = Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key, tensorOf(value)]));
      const outputs = dataOf(await session.run(feeds));
      if (record !== undefined) {
        const { taps, session: second } = await openTapped(record);
        const values = dataOf(await second.run(feeds, taps));
        for (const tap of taps) {
          const { data, shape } = values[tap] as TensorData;
          record.add(`${name}:${tap}`, shape, bytesOf(data));
        }
      }
      return outputs;
    },
  };
}

/** The names of the values between inputs and outputs, at the top level of the graph. */
function outputsWithin({ graph }: ModelProto): string[] {
  const constants = new Set(['Constant', 'Shape', 'ConstantOfShape']);
  return (graph?.node ?? []).filter(({ opType }) => !constants.has(opType)).flatMap(({ output }) => output.filter((each) => each !== ''));
}

/** The same graph that gives out some intermediate values too; the runtime finds their types. */
function withOutputs(model: ModelProto, names: readonly string[]): Uint8Array {
  const given = new Set(model.graph?.output.map(({ name }) => name));
  for (const name of names) if (!given.has(name)) model.graph?.output.push(create(ValueInfoProtoSchema, { name }));
  return toBinary(ModelProtoSchema, model);
}

function tensorOf({ data, shape }: TensorData): InstanceType<typeof Tensor> {
  if (data instanceof Float32Array) return new Tensor('float32', data, shape);
  if (data instanceof BigInt64Array) return new Tensor('int64', data, shape);
  if (data instanceof Int32Array) return new Tensor('int32', data, shape);
  return new Tensor('uint8', data, shape);
}

function dataOf(values: Session.OnnxValueMapType): Record<string, TensorData> {
  return Object.fromEntries(Object.entries(values).map(([name, { data, dims }]) => [name, { data: data as Float32Array, shape: dims }]));
}
