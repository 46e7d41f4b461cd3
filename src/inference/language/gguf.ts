/// <reference lib="esnext.float16" />
import { MillraceError } from '../../errors.ts';

/** A value in a GGUF header: text, a 32-bit count, a float, a flag, a list of texts or of integers. */
export type GgufValue = string | boolean | number | { float: number } | readonly string[] | readonly number[];

/** A tensor of a GGUF file. `shape` is row by row, outermost first (the file itself writes it the other way round). */
export interface GgufTensor {
  shape: readonly number[];
  data: Float32Array;
  /** How it lies in the file; in memory it is always 32-bit. */
  type: 'F32' | 'F16';
}

/** What a GGUF file holds, in its order. */
export interface GgufFile {
  metadata: Record<string, GgufValue>;
  tensors: Record<string, GgufTensor>;
}

const MAGIC = 'GGUF';
const VERSION = 3;
const ALIGNMENT = 32;
const LIMITS = { entries: 1024, tensors: 4096, textBytes: 1 << 16, listLength: 1 << 18, axes: 4, elements: 1 << 28 };
const TENSOR_TYPES = { F32: { code: 0, bytes: 4 }, F16: { code: 1, bytes: 2 } } as const;
const VALUE_TYPES = { count: 4, integer: 5, float: 6, flag: 7, text: 8, list: 9 } as const;

/** Writes a GGUF file, version 3 (ggml's docs/gguf.md), little-endian, aligned to 32 bytes. */
export function encodeGguf({ metadata, tensors }: GgufFile): Uint8Array {
  const parts: Buffer[] = [Buffer.from(MAGIC), u32(VERSION), u64(Object.keys(tensors).length), u64(Object.keys(metadata).length)];
  for (const [key, value] of Object.entries(metadata)) parts.push(text(key), ...valueParts(value));
  let offset = 0;
  for (const [name, { shape, type, data }] of Object.entries(tensors)) {
    parts.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(TENSOR_TYPES[type].code), u64(offset));
    offset = aligned(offset + data.length * TENSOR_TYPES[type].bytes);
  }
  const head = Buffer.concat(parts);
  return Buffer.concat([padded(head), ...Object.values(tensors).map(({ data, type }) => padded(dataBytes(data, type)))]);
}

/**
 * Reads a GGUF file of 32- and 16-bit floats. Every length, count, type and offset is checked against the file before anything is read or
 * allocated.
 * @throws gguf-malformed
 */
export function decodeGguf(bytes: Uint8Array): GgufFile {
  const reader = new GgufReader(bytes);
  if (reader.take(4).toString('latin1') !== MAGIC) throw malformed('it does not begin with GGUF');
  if (reader.u32() !== VERSION) throw malformed(`version is not ${VERSION}`);
  const tensorCount = reader.count(LIMITS.tensors, 'tensors');
  const entryCount = reader.count(LIMITS.entries, 'entries');
  const metadata: Record<string, GgufValue> = Object.create(null);
  for (let entry = 0; entry < entryCount; entry += 1) {
    const key = reader.text();
    if (key in metadata) throw malformed(`key ${key} comes twice`);
    metadata[key] = reader.value(reader.u32());
  }
  if ((metadata['general.alignment'] ?? ALIGNMENT) !== ALIGNMENT) throw malformed(`alignment is not ${ALIGNMENT}`);
  const heads = Array.from({ length: tensorCount }, () => reader.tensorHead());
  const start = aligned(reader.at);
  const tensors: Record<string, GgufTensor> = Object.create(null);
  for (const { name, shape, type, offset } of heads) {
    if (name in tensors) throw malformed(`tensor ${name} comes twice`);
    tensors[name] = { shape, type, data: floatsAt(bytes, start + offset, shape, type) };
  }
  return { metadata, tensors };
}

class GgufReader {
  at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  take(length: number): Buffer {
    if (length > this.#bytes.length - this.at) throw malformed(`it ends at byte ${this.#bytes.length}`);
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  u32(): number {
    return this.take(4).readUInt32LE();
  }

  count(most: number, what: string): number {
    const value = this.take(8).readBigUInt64LE();
    if (value > BigInt(most)) throw malformed(`${value} ${what}, at most ${most}`);
    return Number(value);
  }

  text(): string {
    return this.take(this.count(LIMITS.textBytes, 'bytes of text')).toString('utf8');
  }

  value(type: number): GgufValue {
    if (type === VALUE_TYPES.count) return this.u32();
    if (type === VALUE_TYPES.integer) return this.take(4).readInt32LE();
    if (type === VALUE_TYPES.float) return { float: this.take(4).readFloatLE() };
    if (type === VALUE_TYPES.flag) return this.take(1)[0] === 1;
    if (type === VALUE_TYPES.text) return this.text();
    if (type !== VALUE_TYPES.list) throw malformed(`a value of type ${type}`);
    const inner = this.u32();
    const length = this.count(LIMITS.listLength, 'elements of a list');
    if (inner === VALUE_TYPES.text) return Array.from({ length }, () => this.text());
    if (inner === VALUE_TYPES.integer) return Array.from({ length }, () => this.take(4).readInt32LE());
    throw malformed(`a list of type ${inner}`);
  }

  tensorHead(): { name: string; shape: number[]; type: 'F32' | 'F16'; offset: number } {
    const name = this.text();
    const axes = this.u32();
    if (axes < 1 || axes > LIMITS.axes) throw malformed(`tensor ${name} with ${axes} axes`);
    const shape = Array.from({ length: axes }, () => this.count(LIMITS.elements, `elements of ${name}`)).reverse();
    const elements = shape.reduce((product, length) => product * length, 1);
    if (elements < 1 || elements > LIMITS.elements) throw malformed(`tensor ${name} of ${elements} elements`);
    const code = this.u32();
    const type = code === TENSOR_TYPES.F32.code ? 'F32' : code === TENSOR_TYPES.F16.code ? 'F16' : undefined;
    if (type === undefined) throw malformed(`tensor ${name} of type ${code}`);
    const offset = this.count(this.#bytes.length, `bytes to tensor ${name}`);
    if (offset % ALIGNMENT !== 0) throw malformed(`tensor ${name} is not aligned`);
    return { name, shape, type, offset };
  }
}

function floatsAt(bytes: Uint8Array, start: number, shape: readonly number[], type: 'F32' | 'F16'): Float32Array {
  const elements = shape.reduce((product, length) => product * length, 1);
  const end = start + elements * TENSOR_TYPES[type].bytes;
  if (end > bytes.length) throw malformed(`a tensor ends at byte ${end} of ${bytes.length}`);
  const { buffer } = new Uint8Array(bytes.subarray(start, end));
  return type === 'F32' ? new Float32Array(buffer) : Float32Array.from(new Float16Array(buffer));
}

function dataBytes(data: Float32Array, type: 'F32' | 'F16'): Buffer {
  const array = type === 'F32' ? data : Float16Array.from(data);
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

function valueParts(value: GgufValue): Buffer[] {
  if (typeof value === 'string') return [u32(VALUE_TYPES.text), text(value)];
  if (typeof value === 'boolean') return [u32(VALUE_TYPES.flag), Buffer.of(value ? 1 : 0)];
  if (typeof value === 'number') return [u32(VALUE_TYPES.count), u32(value)];
  if ('float' in value) return [u32(VALUE_TYPES.float), Buffer.from(Float32Array.of(value.float).buffer)];
  const isText = typeof value[0] !== 'number';
  const head = [u32(VALUE_TYPES.list), u32(isText ? VALUE_TYPES.text : VALUE_TYPES.integer), u64(value.length)];
  return [...head, ...value.map((each) => (typeof each === 'string' ? text(each) : Buffer.from(Int32Array.of(each).buffer)))];
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function u32(value: number): Buffer {
  return Buffer.from(Uint32Array.of(value).buffer);
}

function u64(value: number): Buffer {
  return Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
}

function aligned(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(aligned(bytes.length) - bytes.length)]);
}

function malformed(what: string): MillraceError {
  return new MillraceError('gguf-malformed', {
    actor: 'caller',
    message: `Not a GGUF file that can be read here: ${what}`,
    values: { what },
    hint: 'Version 3 with 32- and 16-bit floats is read.',
  });
}
