import { MillraceError } from '../../errors.ts';
import { decodeGguf, encodeGguf, type GgufValue } from './gguf.ts';
import { headWidth, type ModelShape, NORM_EPSILON, parameterShapes, ROPE_BASE, type Weights } from './model-shape.ts';

/** A model out of its file. */
export interface ModelFile {
  shape: ModelShape;
  weights: Weights;
}

const KEYS = {
  vocabulary: 'llama.vocab_size',
  width: 'llama.embedding_length',
  layers: 'llama.block_count',
  heads: 'llama.attention.head_count',
  hidden: 'llama.feed_forward_length',
  context: 'llama.context_length',
} as const;

/** A model as a GGUF file: matrices rounded to 16-bit floats, norms as 32-bit ones, which llama.cpp asks for; one token per byte. */
export function encodeModel({ shape, weights }: ModelFile): Uint8Array {
  const metadata: Record<string, GgufValue> = {
    'general.architecture': 'llama',
    'general.name': 'millrace-moby-dick',
    'general.license': 'apache-2.0',
    'general.file_type': 1,
    ...Object.fromEntries(Object.entries(KEYS).map(([part, key]) => [key, shape[part as keyof ModelShape]])),
    'llama.attention.head_count_kv': shape.heads,
    'llama.attention.layer_norm_rms_epsilon': { float: NORM_EPSILON },
    'llama.rope.dimension_count': headWidth(shape),
    'llama.rope.freq_base': { float: ROPE_BASE },
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'default',
    'tokenizer.ggml.tokens': byteNames(),
    'tokenizer.ggml.token_type': byteNames().map(() => 1),
    'tokenizer.ggml.merges': [],
    'tokenizer.ggml.bos_token_id': 0,
    'tokenizer.ggml.eos_token_id': 0,
    'tokenizer.ggml.add_bos_token': false,
  };
  const tensors = Object.entries(parameterShapes(shape)).map(([name, lengths]) => [
    name,
    { shape: lengths, data: weights[name] as Float32Array, type: lengths.length === 1 ? ('F32' as const) : ('F16' as const) },
  ]);
  return encodeGguf({ metadata, tensors: Object.fromEntries(tensors) });
}

/** Reads a model that `encodeModel` wrote, or any of its form. @throws gguf-malformed, model-unreadable */
export function decodeModel(bytes: Uint8Array): ModelFile {
  const { metadata, tensors } = decodeGguf(bytes);
  if (metadata['general.architecture'] !== 'llama')
    throw unreadable(`architecture ${String(metadata['general.architecture'])}, expected llama`);
  const number = (key: string) => {
    const value = metadata[key];
    if (typeof value !== 'number' || !(value >= 1) || value > 1 << 16) throw unreadable(`${key} is ${String(value)}`);
    return value;
  };
  const shape = Object.fromEntries(Object.entries(KEYS).map(([part, key]) => [part, number(key)])) as unknown as ModelShape;
  if (shape.vocabulary !== 256) throw unreadable(`${shape.vocabulary} tokens, expected the 256 bytes`);
  if (shape.width % (4 * shape.heads) !== 0 || shape.hidden % 4 !== 0) throw unreadable(`width ${shape.width} with ${shape.heads} heads`);
  if (number('llama.attention.head_count_kv') !== shape.heads) throw unreadable('keys are shared between heads');
  const weights = Object.entries(parameterShapes(shape)).map(([name, lengths]): [string, Float32Array] => {
    const tensor = tensors[name];
    if (tensor === undefined || `${tensor.shape}` !== `${lengths}`)
      throw unreadable(`${name} is [${tensor?.shape}], expected [${lengths}]`);
    return [name, tensor.data];
  });
  return { shape, weights: Object.fromEntries(weights) };
}

/** The names that GPT-2's tokeniser gives to the 256 bytes: themselves where printable, else letters from U+0100 on. */
function byteNames(): string[] {
  const isPrintable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let spare = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    if (isPrintable(byte)) return String.fromCodePoint(byte);
    spare += 1;
    return String.fromCodePoint(spare - 1);
  });
}

function unreadable(what: string): MillraceError {
  return new MillraceError('model-unreadable', {
    actor: 'caller',
    message: `Not a model over bytes of this form: ${what}`,
    values: { what },
  });
}
