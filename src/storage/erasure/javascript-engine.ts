import type { RecodingEngine } from './engine.ts';
import { multiply } from './gf256.ts';

/** The engine in plain JavaScript: the reference, and the way on hosts whose WebAssembly has no SIMD. */
export const javascriptEngine: RecodingEngine = {
  name: 'javascript',
  allocate: (count, bytes) => Array.from({ length: count }, () => new Uint8Array(bytes)),
  prepare(matrix) {
    return (inputs, outputs) => {
      for (const [row, output] of outputs.entries()) {
        output.fill(0);
        for (const [column, input] of inputs.entries()) {
          const products = productsOf((matrix[row] as Uint8Array)[column] as number);
          for (let i = 0; i < output.length; i += 1) {
            output[i] = (output[i] as number) ^ (products[input[i] as number] as number);
          }
        }
      }
    };
  },
};

const tables = new Map<number, Uint8Array>();

/** The products of a factor with every byte. */
function productsOf(factor: number): Uint8Array {
  let table = tables.get(factor);
  if (table === undefined) {
    table = Uint8Array.from({ length: 256 }, (_, value) => multiply(factor, value));
    tables.set(factor, table);
  }
  return table;
}
