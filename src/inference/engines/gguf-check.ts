import { MillraceError } from '../../errors.ts';

/** What a GGUF header says, once it has been found sound. */
export interface GgufSummary {
  version: number;
  architecture: string | undefined;
  alignment: number;
  tensors: number;
  metadata: number;
  /** Where the tensors' data begins, in bytes from the start of the file. */
  dataAt: number;
}

/** What a GGUF header may hold at most. */
export interface GgufLimits {
  tensorsMax: number;
  metadataMax: number;
  textBytesMax: number;
  elementsMax: number;
  alignmentMax: number;
}

const DEFAULT_LIMITS: GgufLimits = {
  tensorsMax: 16_384,
  metadataMax: 4_096,
  textBytesMax: 1 << 20,
  elementsMax: 2_000_000,
  alignmentMax: 4_096,
};
const MAGIC = 0x46554747; // "GGUF", little-endian
const KEY_BYTES_MAX = 256;
const NAME_BYTES_MAX = 63;
const DIMENSIONS_MAX = 4;

/** Bytes of the metadata types of fixed size: u8 i8 u16 i16 u32 i32 f32 bool, then u64 i64 f64. */
const SCALAR_BYTES: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const TEXT_TYPE = 8;
const ARRAY_TYPE = 9;
const U32_TYPE = 4;

/** [elements in a block, bytes of a block] of ggml's tensor types. */
const BLOCKS: Record<number, readonly [number, number]> = {
  0: [1, 4], // F32
  1: [1, 2], // F16
  2: [32, 18], // Q4_0
  3: [32, 20], // Q4_1
  6: [32, 22], // Q5_0
  7: [32, 24], // Q5_1
  8: [32, 34], // Q8_0
  10: [256, 84], // Q2_K
  11: [256, 110], // Q3_K
  12: [256, 144], // Q4_K
  13: [256, 176], // Q5_K
  14: [256, 210], // Q6_K
  24: [1, 1], // I8
  25: [1, 2], // I16
  26: [1, 4], // I32
  27: [1, 8], // I64
  28: [1, 8], // F64
  30: [1, 2], // BF16
};

/**
 * Checks the header of a GGUF file (ggml's `docs/gguf.md`, versions 2 and 3): counts, text lengths, types, dimensions without overflow,
 * alignment, and that the tensors' data lies in the file without overlapping. `head` holds the start of the file, at least the header.
 * Run it before a native parser sees the file; several of them trust these numbers.
 * @throws bad-model
 */
export function checkGguf(head: Uint8Array, fileBytes: number, limits: Partial<GgufLimits> = {}): GgufSummary {
  const reader = readerOf(head, { ...DEFAULT_LIMITS, ...limits });
  if (reader.u32() !== MAGIC) throw badGguf('it does not begin with "GGUF"');
  const version = reader.u32();
  if (version !== 2 && version !== 3) throw badGguf(`it is of version ${version}; 2 and 3 are known`);
  const tensors = reader.count('tensors', reader.limits.tensorsMax);
  const metadata = reader.count('metadata entries', reader.limits.metadataMax);
  const { alignment, architecture } = readMetadata(reader, metadata);
  const ranges = readTensors(reader, tensors, alignment);
  const dataAt = Math.ceil(reader.at() / alignment) * alignment;
  let end = 0n;
  for (const { name, offset, size } of ranges.sort((one, other) => (one.offset < other.offset ? -1 : one.offset > other.offset ? 1 : 0))) {
    if (offset < end) throw badGguf(`the tensor ${name} overlaps another`);
    end = offset + size;
  }
  if (BigInt(dataAt) + end > BigInt(fileBytes)) throw badGguf(`its tensors end at byte ${BigInt(dataAt) + end} of ${fileBytes}`);
  return { version, architecture, alignment, tensors, metadata, dataAt };
}

type Reader = ReturnType<typeof readerOf>;

function readerOf(head: Uint8Array, limits: GgufLimits) {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  let position = 0;
  const take = (bytes: number) => {
    if (position + bytes > head.length) throw badGguf('its header is cut off');
    position += bytes;
    return position - bytes;
  };
  const u64 = () => view.getBigUint64(take(8), true);
  const count = (what: string, max: number) => {
    const stated = u64();
    if (stated > BigInt(max)) throw badGguf(`it states ${stated} ${what}, at most ${max} are read`);
    return Number(stated);
  };
  return {
    limits,
    u32: () => view.getUint32(take(4), true),
    u64,
    count,
    skip: (bytes: number) => void take(bytes),
    text(max: number): string {
      const length = count('bytes of text', max);
      const from = take(length);
      return Buffer.from(head.subarray(from, from + length)).toString('utf8');
    },
    at: () => position,
  };
}

function readMetadata(reader: Reader, entries: number): { alignment: number; architecture: string | undefined } {
  const keys = new Set<string>();
  let alignment = 32;
  let architecture: string | undefined;
  for (let entry = 0; entry < entries; entry += 1) {
    const key = reader.text(KEY_BYTES_MAX);
    if (keys.has(key)) throw badGguf(`the key ${key.slice(0, 80)} stands twice`);
    keys.add(key);
    const type = reader.u32();
    if (key === 'general.alignment') {
      if (type !== U32_TYPE) throw badGguf('its alignment is not a 32-bit number');
      alignment = reader.u32();
      const isPower = alignment > 0 && (alignment & (alignment - 1)) === 0;
      if (!isPower || alignment > reader.limits.alignmentMax) throw badGguf(`its alignment is ${alignment}`);
    } else if (key === 'general.architecture' && type === TEXT_TYPE) architecture = reader.text(KEY_BYTES_MAX);
    else skipValue(reader, type);
  }
  return { alignment, architecture };
}

function skipValue(reader: Reader, type: number): void {
  if (type === TEXT_TYPE) return void reader.text(reader.limits.textBytesMax);
  if (type !== ARRAY_TYPE) return reader.skip(scalarBytes(type));
  const inner = reader.u32();
  const elements = reader.count('elements of an array', reader.limits.elementsMax);
  if (inner === ARRAY_TYPE) throw badGguf('it holds an array of arrays');
  if (inner !== TEXT_TYPE) return reader.skip(scalarBytes(inner) * elements);
  for (let element = 0; element < elements; element += 1) reader.text(reader.limits.textBytesMax);
}

function scalarBytes(type: number): number {
  const bytes = SCALAR_BYTES[type];
  if (bytes === undefined) throw badGguf(`it holds a value of type ${type}`);
  return bytes;
}

function readTensors(reader: Reader, tensors: number, alignment: number): { name: string; offset: bigint; size: bigint }[] {
  const names = new Set<string>();
  return Array.from({ length: tensors }, () => {
    const name = reader.text(NAME_BYTES_MAX);
    if (names.has(name)) throw badGguf(`the tensor ${name} stands twice`);
    names.add(name);
    const dimensions = reader.u32();
    if (dimensions < 1 || dimensions > DIMENSIONS_MAX) throw badGguf(`the tensor ${name} has ${dimensions} dimensions`);
    const lengths = Array.from({ length: dimensions }, () => reader.u64());
    const type = reader.u32();
    const block = BLOCKS[type];
    if (block === undefined) throw badGguf(`the tensor ${name} is of type ${type}`);
    const elements = lengths.reduce((product, length) => product * length, 1n);
    if (elements < 1n || elements > 1n << 40n) throw badGguf(`the tensor ${name} states ${elements} elements`);
    if ((lengths[0] as bigint) % BigInt(block[0]) !== 0n) throw badGguf(`a row of the tensor ${name} is no whole number of blocks`);
    const offset = reader.u64();
    if (offset % BigInt(alignment) !== 0n || offset > 1n << 48n) throw badGguf(`the data of the tensor ${name} begins at ${offset}`);
    return { name, offset, size: (elements / BigInt(block[0])) * BigInt(block[1]) };
  });
}

function badGguf(reason: string): MillraceError {
  return new MillraceError('bad-model', {
    actor: 'caller',
    message: `This GGUF file is not loaded: ${reason}`,
    values: { format: 'gguf', reason },
    hint: "Write the file anew with llama.cpp's converter.",
  });
}
