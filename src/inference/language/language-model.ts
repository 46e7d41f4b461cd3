import { floats, type GraphSession, integers, openGraph, type TensorValue } from './graph-session.ts';
import type { ModelFile } from './model-file.ts';
import { generationGraph } from './model-graph.ts';
import { headWidth, type ModelShape } from './model-shape.ts';

/** One text being read: logits `[vocabulary]` of the byte that comes next. */
export interface Reading {
  /** Forgets what was read and reads a text of 1 to `context` bytes. */
  start(ids: readonly number[]): Promise<Float32Array>;
  /** Reads one byte more; the text so far must be shorter than `context`. */
  append(id: number): Promise<Float32Array>;
  /** The stream after each layer at the byte that was read last; only of a reading that was opened with it. */
  streams(): readonly Float32Array[];
}

/** A model that reads any number of texts side by side, one step after another. */
export interface LanguageModel {
  readonly shape: ModelShape;
  open(options?: { hasStreams: boolean }): Reading;
  close(): Promise<void>;
}

/** The model on ONNX Runtime, one thread; each step blocks the thread while it computes. */
export async function openOnnxModel({ shape, weights }: ModelFile): Promise<LanguageModel> {
  const session = await openGraph(generationGraph(shape, weights));
  return { shape, open: (options) => openReading(shape, session, options?.hasStreams ?? false), close: () => session.close() };
}

function openReading(shape: ModelShape, session: GraphSession, hasStreams: boolean): Reading {
  const layers = Array.from({ length: shape.layers }, (_, layer) => layer);
  const caches = layers.flatMap((layer) => [`${layer}.key`, `${layer}.value`]);
  const streamNames = hasStreams ? layers.map((layer) => `stream.${layer}`) : [];
  const outputs = ['logits', ...caches.map((name) => `present.${name}`), ...streamNames];
  let streams: Float32Array[] = [];
  let cache: Record<string, TensorValue> = {};
  let place = 0;
  const read = async (ids: readonly number[]): Promise<Float32Array> => {
    const positions = ids.map((_, at) => place + at);
    const results = await session.run({ input_ids: integers(ids), position_ids: integers(positions), ...cache }, outputs);
    place += ids.length;
    cache = Object.fromEntries(caches.map((name) => [`past.${name}`, results[`present.${name}`] as TensorValue]));
    streams = streamNames.map((name) => lastRow(results[name], shape.width));
    return lastRow(results.logits, shape.vocabulary);
  };
  return {
    start(ids) {
      const nothing = floats(new Float32Array(), [shape.heads, 0, headWidth(shape)]);
      cache = Object.fromEntries(caches.map((name) => [`past.${name}`, nothing]));
      place = 0;
      return read(ids);
    },
    append: (id) => read([id]),
    streams: () => streams,
  };
}

function lastRow(value: TensorValue | undefined, width: number): Float32Array {
  return (value as { data: Float32Array }).data.slice(-width);
}
