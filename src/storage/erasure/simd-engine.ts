import type { Recoder, RecodingEngine } from './engine.ts';
import { multiply } from './gf256.ts';
import { assembleKernels, KERNEL_STEP_BYTES, type Kernel, kernelName, TABLE_BYTES, TABLE_ROWS_MAX } from './recoding-kernel.ts';
import { webAssembly } from './wasm-assembler.ts';

/** Bytes of each shard that are worked on at a time: small enough that all of them stay in the processor's cache. */
const BLOCK_BYTES = 16_384;
/** Blocks do not lie a power of two apart, else they would compete for the same lines of the cache. */
const STRIDE_BYTES = BLOCK_BYTES + 64;
const SHARDS_MAX = 255;
const PAGE_BYTES = 65_536;
/** A matrix has at most as many coefficients as a 128-of-255 code has between data and parity. */
const TABLES_BYTES = 128 * 128 * TABLE_BYTES;
const INPUTS_AT = TABLES_BYTES;
const OUTPUTS_AT = INPUTS_AT + SHARDS_MAX * STRIDE_BYTES;
const MEMORY_BYTES = OUTPUTS_AT + (TABLE_ROWS_MAX + 1) * STRIDE_BYTES;

/** Outputs that are computed in one pass over the inputs. */
interface Pass {
  kernel: Kernel;
  rows: number[];
  tablesAt: number;
  count: number;
}

/**
 * The engine in WebAssembly SIMD; its module is assembled here when it is first asked for. Undefined on hosts without SIMD.
 * Its memory (about 4.6 MiB) is shared by all codes of the process, which is safe because recoding never waits.
 */
export function simdEngine(): RecodingEngine | undefined {
  loaded ??= load();
  return loaded === 'absent' ? undefined : loaded;
}

let loaded: RecodingEngine | 'absent' | undefined;

function load(): RecodingEngine | 'absent' {
  const code = [true, false].map(assembleKernels).find((bytes) => webAssembly.validate(bytes));
  if (code === undefined) return 'absent';
  const memory = new webAssembly.Memory({ initial: Math.ceil(MEMORY_BYTES / PAGE_BYTES) });
  const kernels = new webAssembly.Instance(new webAssembly.Module(code), { host: { memory } }).exports as Record<string, Kernel>;
  const bytes = new Uint8Array(memory.buffer);
  return { name: 'simd', prepare: (matrix) => prepare(matrix, kernels, bytes) };
}

function prepare(matrix: readonly Uint8Array[], kernels: Record<string, Kernel>, memory: Uint8Array): Recoder {
  const { passes, tables } = planPasses(matrix, kernels);
  return (inputs, outputs) => {
    memory.set(tables);
    const length = inputs[0]?.length ?? 0;
    for (let from = 0; from < length; from += BLOCK_BYTES) {
      const bytes = Math.min(BLOCK_BYTES, length - from);
      const rounded = Math.ceil(bytes / KERNEL_STEP_BYTES) * KERNEL_STEP_BYTES;
      for (let i = 0; i < inputs.length; i += 1) {
        memory.set((inputs[i] as Uint8Array).subarray(from, from + bytes), INPUTS_AT + i * STRIDE_BYTES);
      }
      for (const { kernel, rows, tablesAt, count } of passes) {
        kernel(INPUTS_AT, OUTPUTS_AT, tablesAt, count, STRIDE_BYTES, rounded);
        for (let i = 0; i < rows.length; i += 1) {
          const at = OUTPUTS_AT + i * STRIDE_BYTES;
          (outputs[rows[i] as number] as Uint8Array).set(memory.subarray(at, at + bytes), from);
        }
      }
    }
  };
}

/** Divides the rows into passes; a row of ones needs no tables and goes with others. */
function planPasses(matrix: readonly Uint8Array[], kernels: Record<string, Kernel>): { passes: Pass[]; tables: Uint8Array } {
  const numbers = matrix.map((_, row) => row);
  const isSum = (row: number) => (matrix[row] as Uint8Array).every((factor) => factor === 1);
  const sums = numbers.filter(isSum);
  const others = numbers.filter((row) => !isSum(row));
  const count = matrix[0]?.length ?? 0;
  const tables = new Uint8Array(others.length * count * TABLE_BYTES);
  const passes: Pass[] = [];
  let tablesAt = 0;
  const passesNeeded = Math.max(sums.length, Math.ceil(others.length / TABLE_ROWS_MAX));
  for (let pass = 0; pass < passesNeeded; pass += 1) {
    const sum = sums.slice(pass, pass + 1);
    // Even shares: two passes of three rows are faster than one of four and one of two.
    const share = Math.ceil((others.length - tablesAt / (count * TABLE_BYTES)) / (passesNeeded - pass));
    const first = tablesAt / (count * TABLE_BYTES);
    const tabled = others.slice(first, first + share);
    fillTables(tables.subarray(tablesAt), matrix, tabled, count);
    passes.push({ kernel: kernels[kernelName(sum.length > 0, tabled.length)] as Kernel, rows: [...sum, ...tabled], tablesAt, count });
    tablesAt += tabled.length * count * TABLE_BYTES;
  }
  return { passes, tables };
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
