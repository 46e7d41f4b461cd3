/** The part of the host's WebAssembly that is used here; the compiler knows it only for browsers. */
export const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: {
    validate(module: Uint8Array): boolean;
    Module: new (module: Uint8Array) => object;
    Instance: new (module: object, imports: Record<string, Record<string, object>>) => { exports: Record<string, unknown> };
    Memory: new (size: { initial: number }) => { buffer: ArrayBuffer };
  };
};

/** WebAssembly code: bytes of instructions, nested as they were written. */
export type Code = readonly (number | Code)[];

/** A function to assemble: i32 parameters, further locals, and its instructions without the final `end`. */
export interface WasmFunction {
  name: string;
  parameters: number;
  i32Locals: number;
  v128Locals: number;
  body: Code;
}

/** Value type bytes. */
const I32 = 0x7f;
const V128 = 0x7b;

/** The instructions that the code of this folder uses, as WebAssembly core specification 2.0, section 5.4, encodes them. */
export const wasm = {
  get: (local: number): Code => [0x20, unsigned(local)],
  set: (local: number): Code => [0x21, unsigned(local)],
  i32: (value: number): Code => [0x41, signed(value)],
  add: [0x6a],
  subtract: [0x6b],
  multiply: [0x6c],
  /** Repeats `body` while `condition`, evaluated after each turn, is not zero. */
  repeatWhile: (body: Code, condition: Code): Code => [0x03, 0x40, body, condition, 0x0d, 0, 0x0b],
  isLessUnsigned: [0x49],
  load32: (offset = 0): Code => [0x28, 2, unsigned(offset)],
  load128: (offset = 0): Code => [0xfd, unsigned(0), 0, unsigned(offset)],
  store128: (offset = 0): Code => [0xfd, unsigned(11), 0, unsigned(offset)],
  /** A vector of 16 equal bytes. */
  splat: (byte: number): Code => [0xfd, unsigned(12), new Array<number>(16).fill(byte)],
  swizzle: [0xfd, 14],
  /** Relaxed SIMD: like `swizzle` where all indices are below 16, and one instruction on x86. */
  relaxedSwizzle: [0xfd, 0x80, 0x02],
  and128: [0xfd, unsigned(78)],
  xor128: [0xfd, unsigned(81)],
  /** Shifts eight 16-bit lanes right, without sign. */
  shiftRight16: [0xfd, unsigned(141)],
} satisfies Record<string, Code | ((...values: number[]) => Code) | ((body: Code, condition: Code) => Code)>;

/** The bytes of a module that imports the memory `host.memory` and exports the functions by their names. */
export function assembleModule(functions: readonly WasmFunction[]): Uint8Array<ArrayBuffer> {
  const arities = [...new Set(functions.map(({ parameters }) => parameters))];
  return Uint8Array.from(
    flatten([
      [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
      section(1, vector(arities.map((parameters) => [0x60, vector(new Array<number>(parameters).fill(I32).map(one)), vector([])]))),
      section(2, vector([[text('host'), text('memory'), 0x02, 0x00, unsigned(1)]])),
      section(3, vector(functions.map(({ parameters }) => unsigned(arities.indexOf(parameters))))),
      section(7, vector(functions.map(({ name }, index) => [text(name), 0x00, unsigned(index)]))),
      section(10, vector(functions.map(functionBody))),
    ]),
  );
}

function functionBody({ i32Locals, v128Locals, body }: WasmFunction): Code {
  const locals = vector([
    [unsigned(i32Locals), I32],
    [unsigned(v128Locals), V128],
  ]);
  const code = flatten([locals, body, 0x0b]);
  return [unsigned(code.length), code];
}

function section(id: number, content: Code): Code {
  const bytes = flatten(content);
  return [id, unsigned(bytes.length), bytes];
}

function vector(items: readonly Code[]): Code {
  return [unsigned(items.length), items];
}

function text(value: string): Code {
  return [unsigned(value.length), [...Buffer.from(value)]];
}

function one(value: number): Code {
  return [value];
}

/** LEB128 of an integer that is not negative. */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, unsigned(value >>> 7)];
}

/** LEB128 of a signed 32-bit integer. */
function signed(value: number): Code {
  return value >= -0x40 && value < 0x40 ? [value & 0x7f] : [(value & 0x7f) | 0x80, signed(value >> 7)];
}

function flatten(code: Code): number[] {
  const bytes: number[] = [];
  const add = (part: Code) => {
    for (const each of part) typeof each === 'number' ? bytes.push(each) : add(each);
  };
  add(code);
  return bytes;
}
