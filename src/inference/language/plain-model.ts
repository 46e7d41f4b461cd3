import { setImmediate } from 'node:timers/promises';
import type { LanguageModel, Reading } from './language-model.ts';
import type { ModelFile } from './model-file.ts';
import { headWidth, type ModelShape, NORM_EPSILON, rotaryTables } from './model-shape.ts';

/**
 * The model in plain TypeScript, one byte at a time: sums in 64-bit floats in one fixed order, `exp` and `cos` of the engine's portable
 * library. It needs no native code and gives the same bits on every processor, so it can referee where ONNX Runtime's last bits differ.
 */
export function createPlainModel(file: ModelFile): LanguageModel {
  return { shape: file.shape, open: () => openReading(file), close: async () => {} };
}

function openReading({ shape, weights }: ModelFile): Reading {
  const { width, heads, layers, context } = shape;
  const tables = rotaryTables(shape);
  const cache = Array.from({ length: layers }, () => ({
    keys: new Float32Array(context * width),
    contents: new Float32Array(context * width),
  }));
  const weight = (name: string) => weights[`${name}.weight`] as Float32Array;
  let place = 0;
  let streams: Float32Array[] = [];

  const attend = (layer: number, before: Float32Array): Float32Array => {
    const { keys, contents } = cache[layer] as (typeof cache)[number];
    const queries = rotate(times(weight(`blk.${layer}.attn_q`), before), place, shape, tables);
    keys.set(rotate(times(weight(`blk.${layer}.attn_k`), before), place, shape, tables), place * width);
    contents.set(times(weight(`blk.${layer}.attn_v`), before), place * width);
    const read = new Float32Array(width);
    for (let head = 0; head < heads; head += 1) readHead(read, { queries, keys, contents, head, places: place + 1, shape });
    return times(weight(`blk.${layer}.attn_output`), read);
  };
  const next = (id: number): Float32Array => {
    streams = [];
    let stream = weight('token_embd').slice(id * width, (id + 1) * width);
    for (let layer = 0; layer < layers; layer += 1) {
      stream = plus(stream, attend(layer, normalise(stream, weight(`blk.${layer}.attn_norm`))));
      const normal = normalise(stream, weight(`blk.${layer}.ffn_norm`));
      const inner = times(weight(`blk.${layer}.ffn_up`), normal);
      const gate = times(weight(`blk.${layer}.ffn_gate`), normal);
      for (let at = 0; at < inner.length; at += 1)
        inner[at] = ((inner[at] as number) * (gate[at] as number)) / (1 + Math.exp(-(gate[at] as number)));
      stream = plus(stream, times(weight(`blk.${layer}.ffn_down`), inner));
      streams.push(stream.slice());
    }
    place += 1;
    return times(weight('output'), normalise(stream, weight('output_norm')));
  };
  return {
    async start(ids) {
      place = 0;
      let logits = new Float32Array();
      for (const id of ids) logits = next(id) as Float32Array<ArrayBuffer>;
      return logits;
    },
    async append(id) {
      await setImmediate(); // others may want the thread, or this one to stop
      return next(id);
    },
    streams: () => streams,
  };
}

/** A matrix `[outputs, inputs]` times a vector, each row summed by four running sums. */
function times(matrix: Float32Array, vector: Float32Array): Float32Array {
  const inputs = vector.length;
  const result = new Float32Array(matrix.length / inputs);
  for (let row = 0, at = 0; row < result.length; row += 1) {
    let [first, second, third, fourth] = [0, 0, 0, 0];
    for (let column = 0; column < inputs; column += 4, at += 4) {
      first += (matrix[at] as number) * (vector[column] as number);
      second += (matrix[at + 1] as number) * (vector[column + 1] as number);
      third += (matrix[at + 2] as number) * (vector[column + 2] as number);
      fourth += (matrix[at + 3] as number) * (vector[column + 3] as number);
    }
    result[row] = first + second + (third + fourth);
  }
  return result;
}

function plus(one: Float32Array<ArrayBuffer>, other: Float32Array): Float32Array<ArrayBuffer> {
  for (let at = 0; at < one.length; at += 1) one[at] = (one[at] as number) + (other[at] as number);
  return one;
}

function normalise(stream: Float32Array, gains: Float32Array): Float32Array {
  let total = 0;
  for (const value of stream) total += value * value;
  const inverse = 1 / Math.sqrt(total / stream.length + NORM_EPSILON);
  return stream.map((value, at) => value * inverse * (gains[at] as number));
}

function rotate(vector: Float32Array, place: number, shape: ModelShape, tables: ReturnType<typeof rotaryTables>): Float32Array {
  const width = headWidth(shape);
  const result = new Float32Array(vector.length);
  for (let at = 0; at < vector.length; at += 2) {
    const cosine = tables.cosines[place * width + (at % width)] as number;
    const sine = tables.sines[place * width + (at % width)] as number;
    const [even, odd] = [vector[at] as number, vector[at + 1] as number];
    result[at] = even * cosine - odd * sine;
    result[at + 1] = odd * cosine + even * sine;
  }
  return result;
}

function readHead(
  into: Float32Array,
  parts: { queries: Float32Array; keys: Float32Array; contents: Float32Array; head: number; places: number; shape: ModelShape },
): void {
  const { queries, keys, contents, head, places, shape } = parts;
  const width = headWidth(shape);
  const start = head * width;
  const shares = new Float64Array(places);
  let highest = Number.NEGATIVE_INFINITY;
  for (let place = 0; place < places; place += 1) {
    let score = 0;
    for (let at = start; at < start + width; at += 1) score += (queries[at] as number) * (keys[place * shape.width + at] as number);
    shares[place] = score / Math.sqrt(width);
    highest = Math.max(highest, shares[place] as number);
  }
  let total = 0;
  for (let place = 0; place < places; place += 1) {
    shares[place] = Math.exp((shares[place] as number) - highest);
    total += shares[place] as number;
  }
  for (let at = start; at < start + width; at += 1) {
    let sum = 0;
    for (let place = 0; place < places; place += 1) sum += (shares[place] as number) * (contents[place * shape.width + at] as number);
    into[at] = sum / total;
  }
}
