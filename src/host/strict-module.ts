import { badImage } from './executor.ts';
import { rewriteFunction } from './strict-code.ts';
import { checkValueType, type FloatShape, VALUE_TYPES } from './strict-instructions.ts';
import { encodeNumber, ModuleReader } from './wasm-module.ts';

/** A module that does the same on every machine, and what of it is state. */
export interface StrictModule {
  bytes: Uint8Array;
  /** Types of the mutable globals, which are exported as `global0`, `global1`…, in order. */
  globals: ('i32' | 'i64' | 'f32' | 'f64')[];
}

/**
 * What of the rules is part of every result: a module run by other rules is another job. Goes into the specification of a job, so into its hash.
 */
export const STRICT_RUNTIME = 'millrace-strict-2';

const MODULE_BYTES_MAX = 16 << 20;
const HEADER = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const SECTION = {
  type: 1,
  import: 2,
  function: 3,
  table: 4,
  memory: 5,
  global: 6,
  export: 7,
  start: 8,
  element: 9,
  code: 10,
  data: 11,
  dataCount: 12,
};
const ORDER = [1, 3, 4, 5, 6, 7, 9, 10, 11];
const KIND = { function: 0, memory: 2, global: 3 };
const FUNCTION_TYPE = 0x60;
const FUNCTION_REFERENCE = 0x70;
const END = 0x0b;
const PAGE_BYTES = 65_536;
const TABLE_ENTRIES_MAX = 100_000;
const ENTRIES_MAX = 100_000;
const PARAMETERS_MAX = 1000;
const HAS_MAXIMUM = 1;
/** The functions of a strict job: parameters and result. */
const CALLS: Record<string, { parameters: string; result: string }> = {
  allocate: { parameters: 'i', result: 'i' },
  begin: { parameters: 'iii', result: '' },
  segment: { parameters: 'i', result: '' },
  output: { parameters: '', result: 'I' },
};
const LETTERS: Record<number, string> = { 127: 'i', 126: 'I', 125: 'f', 124: 'F', 123: 'V' };
const CONSTANTS: Record<number, { type: number; bytes: number | undefined }> = {
  65: { type: VALUE_TYPES.i32, bytes: undefined },
  66: { type: VALUE_TYPES.i64, bytes: undefined },
  67: { type: VALUE_TYPES.f32, bytes: 4 },
  68: { type: VALUE_TYPES.f64, bytes: 8 },
};
const NAMES = { 127: 'i32', 126: 'i64', 125: 'f32', 124: 'f64' } as const;

interface FunctionType {
  parameters: string;
  result: number | undefined;
}

/**
 * A module written again so that all its state is its memory and its mutable globals, that its memory has one size for its whole life, and that
 * all arithmetic is the same everywhere (`rewriteFunction`). It must export `allocate(bytes) → pointer`, `begin(pointer, bytes, segments)`,
 * `segment(index)` and `output() → pointer << 32 | bytes`; nothing is imported.
 * @param memoryBytes what its memory has from the beginning and never more, a multiple of 64 KiB.
 * @throws bad-image for what another machine could do otherwise
 */
export function makeStrict(bytes: Uint8Array, memoryBytes: number): StrictModule {
  const sections = readSections(bytes);
  const section = (id: number) => new ModuleReader(sections.get(id) ?? Uint8Array.of(0), 0);
  const types = readTypes(section(SECTION.type));
  const functions = readVector(section(SECTION.function), (reader) => typeAt(types, reader.number()));
  const globals = readVector(section(SECTION.global), readGlobal);
  const calls = readExports(section(SECTION.export), functions);
  const start = sections.has(SECTION.start) ? readStart(section(SECTION.start), functions) : undefined;
  const mutable = globals.flatMap(({ isMutable, type }, index) => (isMutable ? [{ type, index }] : []));
  const [fuelGlobal, depthGlobal] = [globals.length, globals.length + 1];
  const floatGlobals = new Map(mutable.flatMap(({ type, index }) => floatOf(type).map((shape): [number, FloatShape] => [index, shape])));
  const code = readVector(section(SECTION.code), (reader) => reader.take(reader.number()));
  if (code.length !== functions.length) throw badImage(`it has ${functions.length} functions and the code of ${code.length}`);
  const bodies = code.map((body, index) => {
    const { parameters, result } = functions[index] as FunctionType;
    const context = { parameters: parameters.length, result, globals: globals.length, fuelGlobal, depthGlobal, floatGlobals };
    return sized(rewriteFunction(body, context));
  });
  const exported = [
    ...Object.entries({ ...calls, ...(start === undefined ? {} : { start }) }).map(([name, index]) => exportOf(name, KIND.function, index)),
    exportOf('memory', KIND.memory, 0),
    ...mutable.map(({ index }, order) => exportOf(`global${order}`, KIND.global, index)),
    exportOf('fuel', KIND.global, fuelGlobal),
    exportOf('depth', KIND.global, depthGlobal),
  ];
  checkSegments(section(SECTION.element), section(SECTION.data));
  sections.set(SECTION.memory, fixMemory(section(SECTION.memory), memoryBytes));
  sections.set(SECTION.table, fixTable(section(SECTION.table)));
  sections.set(SECTION.global, vector([...globals.map((global) => global.bytes), ...OWN_GLOBALS]));
  sections.set(SECTION.export, vector(exported));
  sections.set(SECTION.code, vector(bodies));
  const parts = ORDER.filter((id) => sections.has(id)).flatMap((id) => [Uint8Array.of(id), sized(sections.get(id) as Uint8Array)]);
  return {
    bytes: Buffer.concat([Uint8Array.from(HEADER), ...parts]),
    globals: mutable.map(({ type }) => NAMES[type as keyof typeof NAMES]),
  };
}

/** Fuel and depth: mutable, nothing at first. */
const OWN_GLOBALS = [Uint8Array.of(VALUE_TYPES.i64, 1, 0x42, 0, END), Uint8Array.of(VALUE_TYPES.i32, 1, 0x41, 0, END)];

function readSections(bytes: Uint8Array): Map<number, Uint8Array> {
  if (bytes.length > MODULE_BYTES_MAX) throw badImage(`it has more than ${MODULE_BYTES_MAX} bytes`);
  if (!Buffer.from(bytes.subarray(0, HEADER.length)).equals(Uint8Array.from(HEADER))) throw badImage('it is no WebAssembly module');
  const sections = new Map<number, Uint8Array>();
  const reader = new ModuleReader(bytes, HEADER.length);
  while (!reader.isAtEnd()) {
    const id = reader.byte();
    const body = reader.take(reader.number());
    if (id === 0) continue;
    if (sections.has(id) || !Object.values(SECTION).includes(id)) throw badImage(`its section ${id} is there twice, or unknown`);
    sections.set(id, body);
  }
  if ((sections.get(SECTION.import)?.[0] ?? 0) !== 0) throw badImage('a strict module imports nothing');
  return sections;
}

function readVector<T>(reader: ModuleReader, read: (reader: ModuleReader) => T): T[] {
  const count = reader.number();
  if (count > ENTRIES_MAX) throw badImage(`one of its sections has ${count} entries, at most ${ENTRIES_MAX} are taken`);
  const items = Array.from({ length: count }, () => read(reader));
  if (!reader.isAtEnd()) throw badImage('one of its sections is malformed');
  return items;
}

function readTypes(reader: ModuleReader): FunctionType[] {
  return readVector(reader, () => {
    if (reader.byte() !== FUNCTION_TYPE) throw badImage('it has types that are no plain functions');
    const [parameters, results] = [readValueTypes(reader), readValueTypes(reader)];
    if (results.length > 1) throw badImage('a type gives more than one result');
    return { parameters: parameters.map((type) => LETTERS[type]).join(''), result: results[0] };
  });
}

function readValueTypes(reader: ModuleReader): number[] {
  const count = reader.number();
  if (count > PARAMETERS_MAX) throw badImage(`a type has ${count} parameters, at most ${PARAMETERS_MAX} are taken`);
  return Array.from({ length: count }, () => checkValueType(reader.byte()));
}

function typeAt(types: readonly FunctionType[], index: number): FunctionType {
  const type = types[index];
  if (type === undefined) throw badImage(`it names the type ${index} of ${types.length}`);
  return type;
}

function readGlobal(reader: ModuleReader): { type: number; isMutable: boolean; bytes: Uint8Array } {
  const start = reader.position;
  const type = checkValueType(reader.byte());
  const isMutable = reader.byte() === 1;
  if (isMutable && type === VALUE_TYPES.v128) throw badImage('it has a mutable global of the type v128, which cannot be kept');
  const value = readConstant(reader, type);
  const isNumber = type === VALUE_TYPES.f32 ? !Number.isNaN(value.getFloat32(0, true)) : !Number.isNaN(value.getFloat64(0, true));
  if (isMutable && (type === VALUE_TYPES.f32 || type === VALUE_TYPES.f64) && !isNumber)
    throw badImage('a mutable global begins as no number');
  return { type, isMutable, bytes: reader.since(start) };
}

/** A constant expression of one instruction; its bytes where it is a float. */
function readConstant(reader: ModuleReader, type: number): DataView {
  const opcode = reader.byte();
  const rule = CONSTANTS[opcode];
  let bytes = new Uint8Array(8);
  if (type === VALUE_TYPES.v128 && opcode === 0xfd && reader.number() === 12) reader.take(16);
  else if (rule?.type !== type) throw badImage('a constant expression is more than one constant of its type');
  else if (rule.bytes === undefined) while (reader.byte() >= 0x80);
  else bytes = Uint8Array.from([...reader.take(rule.bytes), ...new Uint8Array(8 - rule.bytes)]);
  if (reader.byte() !== END) throw badImage('a constant expression is more than one constant');
  return new DataView(bytes.buffer);
}

function readExports(reader: ModuleReader, functions: readonly FunctionType[]): Record<string, number> {
  const found: Record<string, number> = {};
  readVector(reader, () => {
    const name = Buffer.from(reader.take(reader.number())).toString('utf8');
    const kind = reader.byte();
    const index = reader.number();
    if (kind === KIND.function && Object.hasOwn(CALLS, name)) found[name] = index;
  });
  for (const [name, rule] of Object.entries(CALLS)) {
    const type = functions[found[name] ?? -1];
    const shown = `${name}(${rule.parameters}) → (${rule.result})`;
    if (type === undefined) throw badImage(`it does not export the function ${shown}; i is i32, I is i64`);
    const result = type.result === undefined ? '' : LETTERS[type.result];
    if (type.parameters !== rule.parameters || result !== rule.result) {
      throw badImage(`its function ${name} is (${type.parameters}) → (${result}); due is ${shown}`);
    }
  }
  return found;
}

function readStart(reader: ModuleReader, functions: readonly FunctionType[]): number {
  const index = reader.number();
  const type = functions[index];
  if (type === undefined || type.parameters !== '' || type.result !== undefined) throw badImage('its start function takes or gives values');
  return index;
}

/** Only segments that are put in place when the module begins: passive ones could be dropped, which no one would see. */
function checkSegments(elements: ModuleReader, data: ModuleReader): void {
  readVector(elements, (reader) => {
    if (reader.number() !== 0) throw badImage('an element segment is passive, or of references');
    readConstant(reader, VALUE_TYPES.i32);
    for (let left = reader.number(); left > 0; left -= 1) reader.number();
  });
  readVector(data, (reader) => {
    if (reader.number() !== 0) throw badImage('a data segment is passive, or of another memory');
    readConstant(reader, VALUE_TYPES.i32);
    reader.take(reader.number());
  });
}

/** One memory that begins and ends with the same size, so that growing it fails on every machine. */
function fixMemory(reader: ModuleReader, memoryBytes: number): Uint8Array {
  if (memoryBytes % PAGE_BYTES !== 0) throw badImage(`its memory is to have ${memoryBytes} bytes, which is no multiple of ${PAGE_BYTES}`);
  const [stated, another] = readVector(reader, (each) => readLimits(each));
  if (stated === undefined || another !== undefined) throw badImage('it must have one memory of its own');
  const pages = memoryBytes / PAGE_BYTES;
  if (stated.least > pages) throw badImage(`its memory begins with ${stated.least} pages; its limits allow ${pages}`);
  return vector([Uint8Array.from([HAS_MAXIMUM, ...encodeNumber(pages), ...encodeNumber(pages)])]);
}

function fixTable(reader: ModuleReader): Uint8Array {
  const tables = readVector(reader, (each) => {
    if (each.byte() !== FUNCTION_REFERENCE) throw badImage('it has a table of something else than functions');
    return readLimits(each);
  });
  if (tables.length > 1 || (tables[0]?.least ?? 0) > TABLE_ENTRIES_MAX) throw badImage('it has more than one table, or one too large');
  const fixed = tables.map(({ least }) =>
    Uint8Array.from([FUNCTION_REFERENCE, HAS_MAXIMUM, ...encodeNumber(least), ...encodeNumber(least)]),
  );
  return vector(fixed);
}

function readLimits(reader: ModuleReader): { least: number } {
  const flags = reader.byte();
  if (flags > HAS_MAXIMUM) throw badImage('its memory or table is shared, or of 64 bits');
  const least = reader.number();
  if (flags === HAS_MAXIMUM) reader.number();
  return { least };
}

function floatOf(type: number): FloatShape[] {
  return type === VALUE_TYPES.f32 ? ['f32'] : type === VALUE_TYPES.f64 ? ['f64'] : [];
}

const sized = (bytes: Uint8Array) => Buffer.concat([encodeNumber(bytes.length), bytes]);
const vector = (items: readonly Uint8Array[]) => Buffer.concat([encodeNumber(items.length), ...items]);
const exportOf = (name: string, kind: number, index: number) =>
  Buffer.concat([sized(Buffer.from(name)), Uint8Array.of(kind), encodeNumber(index)]);
