import type { Recoder, RecodingEngine } from './engine.ts';
import { multiply } from './gf256.ts';
import { assembleKernels, KERNEL_STEP_BYTES, type Kernel, kernelName, TABLE_BYTES, TABLE_ROWS_MAX } from './recoding-kernel.ts';
import { webAssembly } from './wasm-assembler.ts';

/** Bytes of each shard that are worked on at a time: small enough that all of them stay in the processor's cache. */
const BLOCK_BYTES = 16_384;
/** Shards do not lie a power of two apart, else they would compete for the same lines of the cache. */
const GAP_BYTES = 64;
const SHARDS_MAX = 255;
const PAGE_BYTES = 65_536;
/** Each memory begins with the addresses of inputs and outputs, then has the tables. */
const OUTPUTS_AT = 4 * (SHARDS_MAX + 1);
const TABLES_AT = 2 * OUTPUTS_AT;
/** A matrix has at most as many coefficients as a 128-of-255 code has between data and parity. */
const SHARDS_AT = TABLES_AT + 128 * 128 * TABLE_BYTES;

/** Outputs that are computed in one pass over the inputs. */
interface Pass {
  kernel: string;
  rows: number[];
  tablesAt: number;
}

/** A matrix made ready: how many inputs, the passes over them, and their tables. */
interface Plan {
  count: number;
  passes: Pass[];
  tables: Uint8Array;
}

/** A memory and the code that works in it. */
interface Arena {
  kernels: Record<string, Kernel>;
  bytes: Uint8Array;
  addresses: Uint32Array;
  /** Whose tables are there now. */
  plan: Plan | undefined;
}

let loaded: RecodingEngine | 'absent' | undefined;
/** Memories by their buffers: shards that lie in one of them are worked on in place. */
const arenas = new WeakMap<ArrayBufferLike, Arena>();

/**
 * The engine in WebAssembly SIMD; its module is assembled here when it is first asked for. Undefined on hosts without SIMD.
 * Shards from anywhere are copied block by block through one memory (about 4.6 MiB), which all codes of the process share:
 * recoding never waits, so none meets another there. Shards of one allocation are worked on where they are.
 */
export function simdEngine(): RecodingEngine | undefined {
  loaded ??= load();
  return loaded === 'absent' ? undefined : loaded;
}

function load(): RecodingEngine | 'absent' {
  const code = [true, false].map(assembleKernels).find((bytes) => webAssembly.validate(bytes));
  if (code === undefined) return 'absent';
  const module = new webAssembly.Module(code);
  const stage = openArena(module, SHARDS_AT + (SHARDS_MAX + TABLE_ROWS_MAX + 1) * (BLOCK_BYTES + GAP_BYTES));
  return {
    name: 'simd',
    prepare: (matrix) => recoderOf(planPasses(matrix), stage),
    allocate(count, bytes) {
      const stride = Math.ceil(bytes / KERNEL_STEP_BYTES) * KERNEL_STEP_BYTES + GAP_BYTES;
      const arena = openArena(module, SHARDS_AT + count * stride);
      return Array.from({ length: count }, (_, index) =>
        arena.bytes.subarray(SHARDS_AT + index * stride, SHARDS_AT + index * stride + bytes),
      );
    },
  };
}

function openArena(module: object, sizeBytes: number): Arena {
  const memory = new webAssembly.Memory({ initial: Math.ceil(sizeBytes / PAGE_BYTES) });
  const kernels = new webAssembly.Instance(module, { host: { memory } }).exports as Record<string, Kernel>;
  const arena: Arena = {
    kernels,
    bytes: new Uint8Array(memory.buffer),
    addresses: new Uint32Array(memory.buffer, 0, TABLES_AT / 4),
    plan: undefined,
  };
  arenas.set(memory.buffer, arena);
  return arena;
}

function recoderOf(plan: Plan, stage: Arena): Recoder {
  return (inputs, outputs) => {
    const length = inputs[0]?.length ?? 0;
    const home = arenas.get(inputs[0]?.buffer as ArrayBuffer);
    const isAtHome = home !== undefined && [...inputs, ...outputs].every(({ buffer }) => buffer === home.bytes.buffer);
    // In place only whole steps: what is written beyond a shard's end could be somebody's.
    const inPlace = isAtHome ? length - (length % KERNEL_STEP_BYTES) : 0;
    if (inPlace > 0) recodeInPlace(plan, home as Arena, inputs, outputs, inPlace);
    if (inPlace < length) recodeByCopy(plan, stage, inputs, outputs, inPlace);
  };
}

function recodeInPlace(plan: Plan, arena: Arena, inputs: readonly Uint8Array[], outputs: readonly Uint8Array[], length: number): void {
  const { addresses, kernels } = arena;
  bringTables(arena, plan);
  for (let i = 0; i < inputs.length; i += 1) addresses[i] = (inputs[i] as Uint8Array).byteOffset;
  for (let from = 0; from < length; from += BLOCK_BYTES) {
    const to = Math.min(length, from + BLOCK_BYTES);
    for (const { kernel, rows, tablesAt } of plan.passes) {
      for (let i = 0; i < rows.length; i += 1) addresses[OUTPUTS_AT / 4 + i] = (outputs[rows[i] as number] as Uint8Array).byteOffset;
      (kernels[kernel] as Kernel)(0, OUTPUTS_AT, TABLES_AT + tablesAt, plan.count, from, to);
    }
  }
}

function recodeByCopy(plan: Plan, stage: Arena, inputs: readonly Uint8Array[], outputs: readonly Uint8Array[], start: number): void {
  const { addresses, bytes, kernels } = stage;
  const length = (inputs[0] as Uint8Array).length;
  const addressOf = (place: number) => SHARDS_AT + place * (BLOCK_BYTES + GAP_BYTES);
  bringTables(stage, plan);
  for (let i = 0; i < inputs.length; i += 1) addresses[i] = addressOf(i);
  for (let i = 0; i <= TABLE_ROWS_MAX; i += 1) addresses[OUTPUTS_AT / 4 + i] = addressOf(SHARDS_MAX + i);
  for (let from = start; from < length; from += BLOCK_BYTES) {
    const size = Math.min(BLOCK_BYTES, length - from);
    for (let i = 0; i < inputs.length; i += 1) bytes.set((inputs[i] as Uint8Array).subarray(from, from + size), addressOf(i));
    for (const { kernel, rows, tablesAt } of plan.passes) {
      (kernels[kernel] as Kernel)(0, OUTPUTS_AT, TABLES_AT + tablesAt, plan.count, 0, size);
      for (let i = 0; i < rows.length; i += 1) {
        const at = addressOf(SHARDS_MAX + i);
        (outputs[rows[i] as number] as Uint8Array).set(bytes.subarray(at, at + size), from);
      }
    }
  }
}

function bringTables(arena: Arena, plan: Plan): void {
  if (arena.plan === plan) return;
  arena.bytes.set(plan.tables, TABLES_AT);
  arena.plan = plan;
}

/** Divides the rows into passes; a row of ones needs no tables and goes with others. */
function planPasses(matrix: readonly Uint8Array[]): Plan {
  const numbers = matrix.map((_, row) => row);
  const isSum = (row: number) => (matrix[row] as Uint8Array).every((factor) => factor === 1);
  const sums = numbers.filter(isSum);
  const others = numbers.filter((row) => !isSum(row));
  const count = matrix[0]?.length ?? 0;
  const tables = new Uint8Array(others.length * count * TABLE_BYTES);
  const passes: Pass[] = [];
  const passesNeeded = Math.max(sums.length, Math.ceil(others.length / TABLE_ROWS_MAX));
  let done = 0;
  for (let pass = 0; pass < passesNeeded; pass += 1) {
    const sum = sums.slice(pass, pass + 1);
    // Even shares: two passes of three rows are faster than one of four and one of two.
    const tabled = others.slice(done, done + Math.ceil((others.length - done) / (passesNeeded - pass)));
    const tablesAt = done * count * TABLE_BYTES;
    fillTables(tables.subarray(tablesAt), matrix, tabled, count);
    passes.push({ kernel: kernelName(sum.length > 0, tabled.length), rows: [...sum, ...tabled], tablesAt });
    done += tabled.length;
  }
  return { count, passes, tables };
}

function fillTables(target: Uint8Array, matrix: readonly Uint8Array[], rows: readonly number[], count: number): void {
  for (let column = 0, at = 0; column < count; column += 1) {
    for (const row of rows) {
      const factor = (matrix[row] as Uint8Array)[column] as number;
      for (let half = 0; half < 16; half += 1) {
        target[at + half] = multiply(factor, half);
        target[at + 16 + half] = multiply(factor, half << 4);
      }
      at += TABLE_BYTES;
    }
  }
}
