import { assembleModule, type Code, type WasmFunction, wasm } from './wasm-assembler.ts';

/** The most rows with tables that one pass computes: more would not fit the sixteen vector registers. */
export const TABLE_ROWS_MAX = 4;
/** Positions are advanced by at most this many bytes, so lengths must be multiples of it. */
export const KERNEL_STEP_BYTES = 64;
/** Bytes of the tables of one coefficient: its products with the low and with the high halves of a byte. */
export const TABLE_BYTES = 32;

/**
 * One pass over `count` inputs: it writes bytes [from, to) of each output. `inputs` and `outputs` are places where the
 * addresses of the shards stand, four bytes each. `tables` has those of the first input's rows, then the second's. With a sum
 * the first output is the plain sum of all inputs and has no tables.
 */
export type Kernel = (inputs: number, outputs: number, tables: number, count: number, from: number, to: number) => void;

/** Name of the kernel for a pass of so many rows. */
export function kernelName(hasSum: boolean, tableRows: number): string {
  return `${hasSum ? 'sum' : 'rows'}${tableRows}`;
}

/**
 * The module with a kernel for every kind of pass: products by two 16-entry tables for the halves of a byte, looked up
 * sixteen at a time. Source: Plank, Greenan, Miller, "Screaming Fast Galois Field Arithmetic Using Intel SIMD
 * Instructions", FAST 2013. `isRelaxed` takes the relaxed look-up, which gives the same for indices below 16.
 */
export function assembleKernels(isRelaxed: boolean): Uint8Array<ArrayBuffer> {
  const functions: WasmFunction[] = [];
  for (const hasSum of [false, true]) {
    for (let tableRows = hasSum ? 0 : 1; tableRows <= TABLE_ROWS_MAX; tableRows += 1) {
      functions.push(buildKernel({ hasSum, tableRows, isRelaxed }));
    }
  }
  return assembleModule(functions);
}

const [INPUTS, OUTPUTS, TABLES, COUNT, POSITION, END, INPUT, POINTER, TABLE, LEFT] = Array.from({ length: 10 }, (_, i) => i) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];
const FIRST_VECTOR = 10;

function buildKernel(kind: { hasSum: boolean; tableRows: number; isRelaxed: boolean }): WasmFunction {
  const { hasSum, tableRows } = kind;
  const rows = tableRows + (hasSum ? 1 : 0);
  const width = vectorsAtOnce(rows);
  const mask = FIRST_VECTOR;
  const raw = (vector: number) => mask + 1 + vector;
  const high = (vector: number) => mask + 1 + width + vector;
  const low = mask + 1 + 2 * width;
  const sums = (row: number, vector: number) => low + 2 + row * width + vector;
  const vectors = Array.from({ length: width }, (_, vector) => vector);
  const allRows = Array.from({ length: rows }, (_, row) => row);
  const { get, set } = wasm;
  const swizzle = kind.isRelaxed ? wasm.relaxedSwizzle : wasm.swizzle;
  const [lowTable, highTable] = [low, low + 1];

  const split = vectors.map((vector) => [
    vector > 0 ? [] : [get(INPUT), wasm.load32(), get(POSITION), wasm.add, set(POINTER)],
    [get(POINTER), wasm.load128(16 * vector), set(raw(vector))],
    hasSum ? [get(sums(0, vector)), get(raw(vector)), wasm.xor128, set(sums(0, vector))] : [],
    tableRows === 0 ? [] : [get(raw(vector)), wasm.i32(4), wasm.shiftRight16, get(mask), wasm.and128, set(high(vector))],
    tableRows === 0 ? [] : [get(raw(vector)), get(mask), wasm.and128, set(raw(vector))],
  ]);
  const look = (table: number, indices: number): Code => [get(table), get(indices), swizzle];
  const accumulate = Array.from({ length: tableRows }, (_, tableRow) => {
    const row = tableRow + (hasSum ? 1 : 0);
    return [
      [get(TABLE), wasm.load128(TABLE_BYTES * tableRow), set(lowTable)],
      [get(TABLE), wasm.load128(TABLE_BYTES * tableRow + 16), set(highTable)],
      vectors.map((vector) => [
        [get(sums(row, vector)), look(lowTable, raw(vector)), wasm.xor128],
        [look(highTable, high(vector)), wasm.xor128, set(sums(row, vector))],
      ]),
    ];
  });
  const advance: Code = [
    [get(INPUT), wasm.i32(4), wasm.add, set(INPUT)],
    [get(TABLE), wasm.i32(TABLE_BYTES * tableRows), wasm.add, set(TABLE)],
    [get(LEFT), wasm.i32(1), wasm.subtract, set(LEFT)],
  ];
  const start: Code = [
    allRows.map((row) => vectors.map((vector) => [wasm.splat(0), set(sums(row, vector))])),
    [get(INPUTS), set(INPUT), get(TABLES), set(TABLE), get(COUNT), set(LEFT)],
  ];
  const store: Code = [
    allRows.map((row) => [
      [get(OUTPUTS), wasm.load32(4 * row), get(POSITION), wasm.add, set(POINTER)],
      vectors.map((vector) => [get(POINTER), get(sums(row, vector)), wasm.store128(16 * vector)]),
    ]),
    [get(POSITION), wasm.i32(16 * width), wasm.add, set(POSITION)],
  ];
  const block: Code = [start, wasm.repeatWhile([split, accumulate, advance], get(LEFT)), store];
  return {
    name: kernelName(hasSum, tableRows),
    parameters: 6,
    i32Locals: 4,
    v128Locals: sums(rows, 0) - FIRST_VECTOR,
    body: [wasm.splat(0x0f), set(mask), wasm.repeatWhile(block, [get(POSITION), get(END), wasm.isLessUnsigned])],
  };
}

/** Vectors of 16 bytes handled together, so that sums, halves and tables stay in registers. */
function vectorsAtOnce(rows: number): number {
  return rows <= 2 ? 4 : 2;
}
