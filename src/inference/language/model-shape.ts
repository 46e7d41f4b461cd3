import { sizeOf } from './graph.ts';
import { seededRandom } from './seeded-random.ts';

/** The sizes of a Llama-style model over bytes. `width` is a multiple of twice `heads`; `context` is how many bytes it attends to. */
export interface ModelShape {
  vocabulary: number;
  width: number;
  layers: number;
  heads: number;
  hidden: number;
  context: number;
}

/** Named arrays of floats, row by row, in the shapes of `parameterShapes`. */
export type Weights = Record<string, Float32Array>;

/** The model that this project trains: 869,504 weights. */
export const LANGUAGE_MODEL: ModelShape = { vocabulary: 256, width: 128, layers: 4, heads: 4, hidden: 352, context: 256 };

/** Added to a mean square before its root. */
export const NORM_EPSILON = 1e-5;

/** The longest wavelength of the rotary positions, over 2π. */
export const ROPE_BASE = 10_000;

const SPREAD = 0.04;

/**
 * Every weight of a model by the name and in the layout that llama.cpp gives it in a GGUF file: a matrix is `[outputs, inputs]`.
 * The order is the order in files.
 */
export function parameterShapes({ vocabulary, width, layers, hidden }: ModelShape): Record<string, readonly number[]> {
  const blocks = Array.from({ length: layers }, (_, layer): [string, number[]][] => [
    [`blk.${layer}.attn_norm.weight`, [width]],
    [`blk.${layer}.attn_q.weight`, [width, width]],
    [`blk.${layer}.attn_k.weight`, [width, width]],
    [`blk.${layer}.attn_v.weight`, [width, width]],
    [`blk.${layer}.attn_output.weight`, [width, width]],
    [`blk.${layer}.ffn_norm.weight`, [width]],
    [`blk.${layer}.ffn_gate.weight`, [hidden, width]],
    [`blk.${layer}.ffn_up.weight`, [hidden, width]],
    [`blk.${layer}.ffn_down.weight`, [width, hidden]],
  ]);
  return Object.fromEntries([
    ['token_embd.weight', [vocabulary, width]],
    ...blocks.flat(),
    ['output_norm.weight', [width]],
    ['output.weight', [vocabulary, width]],
  ]);
}

/** The width of one attention head. */
export function headWidth({ width, heads }: ModelShape): number {
  return width / heads;
}

/** Weights to start training from, the same for a seed: normal with spread 0.04, less where a block writes into the stream, norms 1. */
export function initialWeights(shape: ModelShape, seed: number): Weights {
  const random = seededRandom(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Object.fromEntries(
    Object.entries(parameterShapes(shape)).map(([name, lengths]) => {
      const values = new Float32Array(sizeOf(lengths));
      if (lengths.length === 1) return [name, values.fill(1)];
      const spread = /attn_output|ffn_down/.test(name) ? SPREAD / Math.sqrt(2 * shape.layers) : SPREAD;
      return [name, values.map(() => normal() * spread)];
    }),
  );
}

/** Cosines and sines of the rotary positions (Su et al. 2021), each `[positions, head width]`; neighbours 2i and 2i + 1 turn together. */
export function rotaryTables(shape: ModelShape): { cosines: Float32Array; sines: Float32Array } {
  const width = headWidth(shape);
  const angle = (at: number) => Math.floor(at / width) / ROPE_BASE ** ((2 * Math.floor((at % width) / 2)) / width);
  const cosines = new Float32Array(shape.context * width).map((_, at) => Math.cos(angle(at)));
  const sines = new Float32Array(shape.context * width).map((_, at) => Math.sin(angle(at)));
  return { cosines, sines };
}
