import type { Tensor as OrtTensor, InferenceSession as Session } from 'onnxruntime-node';
import { sizeOf } from './graph.ts';

/** Numbers with a shape, as a graph takes and gives them: floats, or 64-bit integers. */
export interface TensorValue {
  data: Float32Array | BigInt64Array;
  shape: readonly number[];
}

/** A graph that can be run. A run blocks the thread that calls it until it is done. */
export interface GraphSession {
  /** All outputs, or those named. */
  run(inputs: Record<string, TensorValue>, outputs?: readonly string[]): Promise<Record<string, TensorValue>>;
  close(): Promise<void>;
}

// ONNX Runtime reads this once, before its native library starts; the pinned version sends nothing either way.
process.env.ORT_DISABLE_TELEMETRY = '1';
const { InferenceSession, Tensor } = (await import('onnxruntime-node')).default;

/**
 * Opens an ONNX graph on the CPU. One thread by default: results are then the same bits at every run on one kind of processor, and a
 * second thread only spins on graphs this small. The bytes are trusted: graphs of strangers are checked by whoever takes them.
 */
export async function openGraph(bytes: Uint8Array, options: { threads?: number } = {}): Promise<GraphSession> {
  const session: Session = await InferenceSession.create(bytes, {
    executionProviders: ['cpu'],
    intraOpNumThreads: options.threads ?? 1,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  return {
    async run(inputs, outputs) {
      const feeds = Object.fromEntries(Object.entries(inputs).map(([name, { data, shape }]) => [name, tensorOf(data, shape)]));
      const results = await (outputs === undefined ? session.run(feeds) : session.run(feeds, outputs));
      return Object.fromEntries(
        Object.entries(results).map(([name, { data, dims }]) => [name, { data: data as Float32Array | BigInt64Array, shape: dims }]),
      );
    },
    close: () => session.release(),
  };
}

/** One float tensor. */
export function floats(data: Float32Array, shape: readonly number[]): TensorValue {
  return { data, shape };
}

/** Integers as the graph's 64-bit ones. */
export function integers(values: ArrayLike<number>, shape: readonly number[] = [values.length]): TensorValue {
  const data = new BigInt64Array(sizeOf(shape));
  for (let at = 0; at < data.length; at += 1) data[at] = BigInt(values[at] ?? 0);
  return { data, shape };
}

function tensorOf(data: Float32Array | BigInt64Array, shape: readonly number[]): OrtTensor {
  return data instanceof Float32Array ? new Tensor('float32', data, shape) : new Tensor('int64', data, shape);
}
