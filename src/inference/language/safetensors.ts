import { MillraceError } from '../../errors.ts';
import type { Weights } from './model-shape.ts';

const HEADER_BYTES_MAX = 1 << 20;

/** Named float arrays, their shapes, and notes. */
export interface TensorFile {
  tensors: Weights;
  shapes: Record<string, readonly number[]>;
  notes: Record<string, string>;
}

/** A safetensors file (8 bytes of length, JSON, raw little-endian numbers) with 32-bit floats alone. */
export function encodeTensors({ tensors, shapes, notes }: TensorFile): Uint8Array {
  let end = 0;
  const entries = Object.entries(tensors).map(([name, data]) => {
    const start = end;
    end += data.byteLength;
    return [name, { dtype: 'F32', shape: Object.hasOwn(shapes, name) ? shapes[name] : [data.length], data_offsets: [start, end] }];
  });
  const text = Buffer.from(JSON.stringify({ __metadata__: notes, ...Object.fromEntries(entries) }));
  const header = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const parts = Object.values(tensors).map((data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  return Buffer.concat([length, header, ...parts]);
}

/** Reads what `encodeTensors` wrote. @throws tensor-file-malformed for anything else, whatever its lengths claim */
export function decodeTensors(bytes: Uint8Array): TensorFile {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < 8) throw malformed(`${buffer.length} bytes are no file`);
  const length = buffer.readBigUInt64LE();
  if (length > HEADER_BYTES_MAX || length > buffer.length - 8) throw malformed(`a header of ${length} bytes, at most ${HEADER_BYTES_MAX}`);
  const start = 8 + Number(length);
  const { __metadata__: notes = {}, ...entries } = parseHeader(buffer.toString('utf8', 8, start));
  const file: TensorFile = { tensors: {}, shapes: {}, notes: notes as Record<string, string> };
  for (const [name, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets: range } = (entry ?? {}) as { dtype?: unknown; shape?: number[]; data_offsets?: unknown };
    if (dtype !== 'F32' || !Array.isArray(shape) || !isRange(range, buffer.length - start)) throw malformed(`tensor ${name}`);
    const [from, to] = range;
    const count = shape.reduce((product, each) => product * each, 1);
    if (count * 4 !== to - from) throw malformed(`tensor ${name} of ${to - from} bytes for ${count} floats`);
    file.tensors[name] = new Float32Array(new Uint8Array(buffer.subarray(start + from, start + to)).buffer);
    file.shapes[name] = shape;
  }
  return file;
}

function isRange(range: unknown, most: number): range is [number, number] {
  if (!Array.isArray(range) || range.length !== 2 || !range.every(Number.isSafeInteger)) return false;
  return range[0] >= 0 && range[1] >= range[0] && range[1] <= most;
}

function parseHeader(text: string): Record<string, unknown> {
  try {
    const header: unknown = JSON.parse(text);
    if (typeof header === 'object' && header !== null && !Array.isArray(header)) return header as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw malformed('a header that is no JSON object');
}

function malformed(what: string): MillraceError {
  return new MillraceError('tensor-file-malformed', {
    actor: 'caller',
    message: `Not a safetensors file of 32-bit floats: ${what}`,
    values: { what },
  });
}
