/**
 * Multiplies a matrix over GF(2^8) with shards: `outputs[r] = sum of matrix[r][j] * inputs[j]`, byte by byte. All inputs and
 * outputs have the same length, every row has as many coefficients as there are inputs, outputs do not overlap inputs.
 */
export interface RecodingEngine {
  readonly name: 'simd' | 'javascript';
  /** Prepares a matrix once for many windows of shards. */
  prepare(matrix: readonly Uint8Array[]): Recoder;
  /** Zeroed buffers in which this engine works without copying, as long as all buffers of a call are from one allocation. */
  allocate(count: number, bytes: number): Uint8Array[];
}

/** One prepared matrix: writes the outputs from the inputs. */
export type Recoder = (inputs: readonly Uint8Array[], outputs: readonly Uint8Array[]) => void;
