import { MillraceError } from '../../errors.ts';
import type { RecodingEngine } from './engine.ts';
import { recodingMatrix } from './gf256.ts';
import { javascriptEngine } from './javascript-engine.ts';
import { simdEngine } from './simd-engine.ts';

/** The most shards of one code, a limit of the field; what an order may ask for is less. */
export const SHARDS_MAX = 255;

/** A code: any `k` of its `n` shards give back all; shards 0 to k − 1 are the data itself, the rest is parity. */
export interface CodeShape {
  k: number;
  n: number;
}

/** A shard's place in the code and its bytes. */
export interface ShardBytes {
  index: number;
  bytes: Uint8Array;
}

/** A Reed-Solomon code over GF(2^8). All shards of one call have the same length. */
export interface ReedSolomon extends CodeShape {
  readonly engine: RecodingEngine['name'];
  /** Zeroed shard buffers that this code's engine works in without copying when all buffers of a call are from one allocation. */
  allocate(count: number, bytes: number): Uint8Array[];
  /** Writes all n − k parity shards from all data shards. @throws bad-shard-sizes */
  encode(data: readonly Uint8Array[], parity: readonly Uint8Array[]): void;
  /** The k data shards from any k shards or more; shards that are there are given back as they are. @throws too-few-shards, bad-shard-sizes, bad-shard-index */
  decode(given: readonly ShardBytes[]): Uint8Array[];
  /** One shard, data or parity, from any k others. @throws too-few-shards, bad-shard-sizes, bad-shard-index */
  rebuild(given: readonly ShardBytes[], index: number): Uint8Array;
  /**
   * Prepares once how shards `wanted` follow from exactly k shards `given`, for many windows: the function writes the wanted
   * ones, in that order, from the given ones, in that order.
   * @throws too-few-shards, bad-shard-index; the function bad-shard-sizes
   */
  recoder(given: readonly number[], wanted: readonly number[]): (inputs: readonly Uint8Array[], outputs: readonly Uint8Array[]) => void;
}

/**
 * The systematic code with 1 ≤ k ≤ n ≤ 255; its matrix is that of `generatorRow`. The engine is WebAssembly SIMD where the
 * host has it, else plain JavaScript; both give the same bytes.
 * @throws bad-erasure-code
 */
export function createReedSolomon(shape: CodeShape, engine: RecodingEngine = simdEngine() ?? javascriptEngine): ReedSolomon {
  const { k, n } = checkCode(shape);
  const dataIndices = Array.from({ length: k }, (_, index) => index);
  const parityIndices = Array.from({ length: n - k }, (_, index) => k + index);

  const recoder: ReedSolomon['recoder'] = (given, wanted) => {
    checkIndices(given, n);
    for (const index of wanted) checkIndices([index], n);
    if (given.length !== k) throw tooFewShards(k, given);
    const recode = engine.prepare(recodingMatrix({ k, given, wanted }));
    return (inputs, outputs) => {
      checkSizes(inputs, outputs, k, wanted.length);
      if (wanted.length > 0) recode(inputs, outputs);
    };
  };
  const recover = (given: readonly ShardBytes[], wanted: readonly number[]): Uint8Array[] => {
    checkIndices(
      given.map(({ index }) => index),
      n,
    );
    if (given.length < k)
      throw tooFewShards(
        k,
        given.map(({ index }) => index),
      );
    // Data first: fewer products, and the first parity is a plain sum.
    const used = [...given].sort((a, b) => a.index - b.index).slice(0, k);
    const outputs = wanted.map(() => new Uint8Array(used[0]?.bytes.length ?? 0));
    recoder(
      used.map(({ index }) => index),
      wanted,
    )(
      used.map(({ bytes }) => bytes),
      outputs,
    );
    return outputs;
  };
  const encodeAll = recoder(dataIndices, parityIndices);

  return {
    k,
    n,
    engine: engine.name,
    allocate: engine.allocate,
    encode: encodeAll,
    decode(given) {
      const present = new Map(given.map(({ index, bytes }) => [index, bytes]));
      const missing = dataIndices.filter((index) => !present.has(index));
      const recovered = recover(given, missing);
      return dataIndices.map((index) => present.get(index) ?? (recovered[missing.indexOf(index)] as Uint8Array));
    },
    rebuild: (given, index) =>
      recover(
        given.filter((shard) => shard.index !== index),
        [index],
      )[0] as Uint8Array,
    recoder,
  };
}

/**
 * A code within the limits, unchanged.
 * @throws bad-erasure-code
 */
export function checkCode(shape: CodeShape, limit = SHARDS_MAX): CodeShape {
  const { k, n } = shape;
  if (Number.isInteger(k) && Number.isInteger(n) && k >= 1 && k <= n && n <= limit) return shape;
  throw new MillraceError('bad-erasure-code', {
    actor: 'caller',
    message: `Got a code of ${k} of ${n} shards, expected whole numbers with 1 ≤ k ≤ n ≤ ${limit}`,
    values: { k, n, limit },
    hint: 'For example 10+4: ten data shards and four parity shards, any ten of which give the file back.',
  });
}

/** The error for less than k usable shards; `unusable` says of the others what is wrong. */
export function tooFewShards(k: number, given: readonly number[], unusable: readonly string[] = []): MillraceError {
  return new MillraceError('too-few-shards', {
    actor: 'peer',
    message: `Got ${given.length} usable shards (${given.join(', ') || 'none'}), need ${k}${unusable.length === 0 ? '' : `; ${unusable.join('; ')}`}`,
    values: { given: given.map(String), needed: k, unusable },
    hint: 'Wait until more holders answer, or until a repair is done; the file is not lost while k shards exist.',
  });
}

function checkIndices(indices: readonly number[], n: number): void {
  const wrong = indices.find((index, at) => !Number.isInteger(index) || index < 0 || index >= n || indices.indexOf(index) !== at);
  if (wrong === undefined) return;
  throw new MillraceError('bad-shard-index', {
    actor: 'caller',
    message: `Got shard ${wrong}, expected different whole numbers below ${n}`,
    values: { got: wrong, limit: n },
  });
}

function checkSizes(inputs: readonly Uint8Array[], outputs: readonly Uint8Array[], inputCount: number, outputCount: number): void {
  const length = inputs[0]?.length;
  const areEqual = [...inputs, ...outputs].every((shard) => shard.length === length);
  if (inputs.length === inputCount && outputs.length === outputCount && areEqual) return;
  throw new MillraceError('bad-shard-sizes', {
    actor: 'caller',
    message:
      `Got ${inputs.length} shards in and ${outputs.length} out, of ${[...new Set([...inputs, ...outputs].map((shard) => shard.length))].join(', ')} bytes; ` +
      `expected ${inputCount} and ${outputCount} of one length`,
    values: { inputs: inputs.length, outputs: outputs.length, inputsExpected: inputCount, outputsExpected: outputCount },
  });
}
