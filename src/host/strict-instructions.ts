import { badImage } from './executor.ts';
import type { ModuleReader } from './wasm-module.ts';

/** What a float instruction leaves on the stack whose NaN bits the machine may choose; undefined where nothing is left to choice. */
export type FloatShape = 'f32' | 'f64' | 'f32x4' | 'f64x2';

/** One instruction of a function, its bytes copied as they are. */
export interface Instruction {
  opcode: number;
  /** Number behind a prefix (0xfc, 0xfd); undefined without one. */
  sub: number | undefined;
  bytes: Uint8Array;
  /** The shape of its result, where that may be a NaN of any bits. */
  makes: FloatShape | undefined;
  /** The shape of an operand on top of the stack whose NaN bits it lets nobody see. */
  absorbs: FloatShape | undefined;
}

/** Opcodes that the strict engine knows by name (WebAssembly core specification 3.0, 5.4). */
export const OPCODE = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  brTable: 0x0e,
  return: 0x0f,
  globalSet: 0x24,
  bulk: 0xfc,
  vector: 0xfd,
} as const;

/** Behind the prefix 0xfc: what copies and fills memory. */
export const BULK = { copy: 10, fill: 11 } as const;

/** Types of values: i32, i64, f32, f64, v128. There are no references. */
export const VALUE_TYPES = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;

const EMPTY_BLOCK = 0x40;
const ALIGNMENT_MAX = 4;
const VECTOR_BYTES = 16;
const BRANCH_TARGETS_MAX = 65_520;

/** Ranges of opcodes by what follows them; what is not here is refused. */
const PLAIN: readonly [number, number][] = [
  [0x00, 0x01],
  [0x05, 0x05],
  [0x0b, 0x0b],
  [0x0f, 0x0f],
  [0x1a, 0x1b],
  [0x45, 0xc4],
];
const ONE_NUMBER: readonly [number, number][] = [
  [0x0c, 0x0d],
  [0x10, 0x10],
  [0x20, 0x24],
];
const BLOCKS: readonly [number, number][] = [[0x02, 0x04]];
const MEMORY_ACCESS: readonly [number, number][] = [[0x28, 0x3e]];
const MEMORY_SIZE: readonly [number, number][] = [[0x3f, 0x40]];

/** Vector instructions that never were, or that are relaxed in all but name. */
const VECTOR_HOLES = [154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208, 210, 211, 212, 226, 238];
/** From here on relaxed vector instructions begin, whose results differ between machines. */
const RELAXED_LEAST = 256;

/** Results of these may be NaNs of any sign and payload (core specification 4.3.3, NaN propagation). */
const MAKES: Record<FloatShape, readonly [number, number][]> = {
  f32: [
    [0x8d, 0x97],
    [0xb6, 0xb6],
  ],
  f64: [
    [0x9b, 0xa5],
    [0xbb, 0xbb],
  ],
  f32x4: [
    [0x67, 0x6a],
    [0xe3, 0xe9],
    [0x5e, 0x5e],
  ],
  f64x2: [
    [0x74, 0x75],
    [0x7a, 0x7a],
    [0x94, 0x94],
    [0xef, 0xf5],
    [0x5f, 0x5f],
  ],
};
/** These take such a value and show nothing of a NaN's bits: arithmetic, comparisons, conversions to integers. */
const ABSORBS: Record<FloatShape, readonly [number, number][]> = {
  f32: [
    [0x5b, 0x60],
    [0x8d, 0x97],
    [0xa8, 0xa9],
    [0xae, 0xaf],
    [0xbb, 0xbb],
  ],
  f64: [
    [0x61, 0x66],
    [0x9b, 0xa5],
    [0xaa, 0xab],
    [0xb0, 0xb1],
    [0xb6, 0xb6],
  ],
  f32x4: [
    [0x41, 0x46],
    [0x67, 0x6a],
    [0xe3, 0xe9],
  ],
  f64x2: [
    [0x47, 0x4c],
    [0x74, 0x75],
    [0x7a, 0x7a],
    [0x94, 0x94],
    [0xef, 0xf5],
  ],
};

const SCALARS: readonly FloatShape[] = ['f32', 'f64'];
const VECTORS: readonly FloatShape[] = ['f32x4', 'f64x2'];
const within = (ranges: readonly [number, number][], code: number) => ranges.some(([first, last]) => code >= first && code <= last);
const shapeIn = (table: Record<FloatShape, readonly [number, number][]>, shapes: readonly FloatShape[], code: number) =>
  shapes.find((shape) => within(table[shape], code));

/**
 * The next instruction, if it means the same on every machine. Refused are threads, relaxed vector instructions, references, exceptions, tail
 * calls, and what changes tables or drops segments (they would be state that no one sees).
 * @throws bad-image
 */
export function readInstruction(reader: ModuleReader): Instruction {
  const start = reader.position;
  const opcode = reader.byte();
  const isPrefix = opcode === OPCODE.bulk || opcode === OPCODE.vector;
  const sub = isPrefix ? reader.number() : undefined;
  if (opcode === OPCODE.bulk) skipBulk(reader, sub as number);
  else if (opcode === OPCODE.vector) skipVector(reader, sub as number);
  else skipPlain(reader, opcode);
  const shapes = opcode === OPCODE.vector ? VECTORS : isPrefix ? [] : SCALARS;
  const code = sub ?? opcode;
  return {
    opcode,
    sub,
    bytes: reader.since(start),
    makes: shapeIn(MAKES, shapes, code),
    absorbs: opcode === OPCODE.bulk && code < 8 ? (code % 4 < 2 ? 'f32' : 'f64') : shapeIn(ABSORBS, shapes, code),
  };
}

function skipPlain(reader: ModuleReader, opcode: number): void {
  if (within(PLAIN, opcode)) return;
  if (within(ONE_NUMBER, opcode)) reader.number();
  else if (within(BLOCKS, opcode)) skipBlockType(reader);
  else if (within(MEMORY_ACCESS, opcode)) skipMemoryArgument(reader);
  else if (within(MEMORY_SIZE, opcode)) skipZero(reader);
  else if (opcode === OPCODE.brTable) for (let left = targetsOf(reader); left >= 0; left -= 1) reader.number();
  else if (opcode === 0x11) [reader.number(), reader.number()];
  else if (opcode === 0x1c) for (let left = targetsOf(reader); left > 0; left -= 1) checkValueType(reader.byte());
  else if (opcode === 0x41 || opcode === 0x42) skipSigned(reader);
  else if (opcode === 0x43) reader.take(4);
  else if (opcode === 0x44) reader.take(8);
  else throw badImage(`the instruction 0x${opcode.toString(16)} is not strict`);
}

function targetsOf(reader: ModuleReader): number {
  const count = reader.number();
  if (count > BRANCH_TARGETS_MAX) throw badImage(`a branch has ${count} targets, at most ${BRANCH_TARGETS_MAX} are taken`);
  return count;
}

function skipBulk(reader: ModuleReader, sub: number): void {
  if (sub < 8) return;
  if (sub === BULK.copy) skipZero(reader, 2);
  else if (sub === BULK.fill) skipZero(reader);
  else throw badImage(`the instruction 0xfc ${sub} is not strict: it changes tables or drops segments`);
}

function skipVector(reader: ModuleReader, sub: number): void {
  if (sub >= RELAXED_LEAST || VECTOR_HOLES.includes(sub)) throw badImage(`the vector instruction ${sub} is relaxed or unknown`);
  if (sub <= 11 || (sub >= 84 && sub <= 93)) skipMemoryArgument(reader);
  if (sub === 12 || sub === 13) reader.take(VECTOR_BYTES);
  if ((sub >= 21 && sub <= 34) || (sub >= 84 && sub <= 91)) reader.byte();
}

function skipMemoryArgument(reader: ModuleReader): void {
  const alignment = reader.number();
  if (alignment > ALIGNMENT_MAX) throw badImage('an access names another memory than the first');
  reader.number();
}

function skipBlockType(reader: ModuleReader): void {
  const first = reader.peek();
  if (first === EMPTY_BLOCK) reader.byte();
  else if (first >= 0x40 && first < 0x80) checkValueType(reader.byte());
  else skipSigned(reader);
}

function skipZero(reader: ModuleReader, count = 1): void {
  for (const byte of reader.take(count)) if (byte !== 0) throw badImage('an instruction names another memory than the first');
}

function skipSigned(reader: ModuleReader): void {
  for (let bytes = 0; bytes < 10; bytes += 1) if (reader.byte() < 0x80) return;
  throw badImage('a number of the module has no end');
}

/** @throws bad-image for references and what is no type */
export function checkValueType(type: number): number {
  if (!(Object.values(VALUE_TYPES) as number[]).includes(type)) {
    throw badImage(`a value is of the type 0x${type.toString(16)}; allowed are i32, i64, f32, f64 and v128`);
  }
  return type;
}
