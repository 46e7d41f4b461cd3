/** The polynomial x^8 + x^4 + x^3 + x^2 + 1, with 2 as generator: the field of ISA-L, zfec and most Reed-Solomon storage codes. */
const POLYNOMIAL = 0x11d;

/** `POWERS[i]` is 2^i; doubled in length so that sums of two logarithms need no reduction. */
const POWERS = new Uint8Array(510);
const LOGARITHMS = new Uint8Array(256);
for (let i = 0, value = 1; i < 255; i += 1) {
  POWERS[i] = value;
  POWERS[i + 255] = value;
  LOGARITHMS[value] = i;
  value = value < 128 ? value << 1 : (value << 1) ^ POLYNOMIAL;
}

/** The product of two elements of GF(2^8). */
export function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : (POWERS[(LOGARITHMS[a] as number) + (LOGARITHMS[b] as number)] as number);
}

/** The quotient of two elements of GF(2^8); `b` is not zero. */
export function divide(a: number, b: number): number {
  return a === 0 ? 0 : (POWERS[(LOGARITHMS[a] as number) + 255 - (LOGARITHMS[b] as number)] as number);
}

/**
 * Row `index` of the systematic generator matrix of a k-of-n code: a unit row for a data shard, else the row of a Cauchy
 * matrix 1 / (x_i + y_j) with x_i = k + i, y_j = j, whose columns and then rows are scaled so that the first row and the
 * first column are all ones. Scaling keeps every square submatrix regular, so any k rows are independent. The first parity
 * is thus the sum of all data, and a 1-of-n code is n plain copies.
 * Source: Blömer et al. 1995 (Cauchy codes); Plank and Xu 2006, section 3 (scaling).
 */
export function generatorRow(k: number, index: number): Uint8Array {
  const row = new Uint8Array(k);
  if (index < k) {
    row[index] = 1;
    return row;
  }
  const scaled = (column: number) => divide(k ^ column, index ^ column);
  for (let column = 0; column < k; column += 1) row[column] = divide(scaled(column), scaled(0));
  return row;
}

/**
 * The matrix that gives shards `wanted` from the k shards `given`: one row of k coefficients for each wanted shard, in the
 * order of `given`. Indices are valid and `given` has k different ones.
 */
export function recodingMatrix(code: { k: number; given: readonly number[]; wanted: readonly number[] }): Uint8Array[] {
  const { k, given, wanted } = code;
  const toData = invert(given.map((index) => generatorRow(k, index)));
  return wanted.map((index) => {
    if (index < k) return toData[index] as Uint8Array;
    return combine(generatorRow(k, index), toData);
  });
}

/** The row vector times the matrix. */
function combine(row: Uint8Array, matrix: readonly Uint8Array[]): Uint8Array {
  const product = new Uint8Array(row.length);
  row.forEach((factor, index) => {
    if (factor !== 0) addMultiple(product, matrix[index] as Uint8Array, factor);
  });
  return product;
}

/** Gauss-Jordan on a regular matrix; the argument is used up. */
function invert(matrix: Uint8Array[]): Uint8Array[] {
  const size = matrix.length;
  const inverse = matrix.map((_, index) => {
    const row = new Uint8Array(size);
    row[index] = 1;
    return row;
  });
  for (let column = 0; column < size; column += 1) {
    const pivot = matrix.findIndex((row, index) => index >= column && row[column] !== 0);
    for (const rows of [matrix, inverse]) [rows[column], rows[pivot]] = [rows[pivot] as Uint8Array, rows[column] as Uint8Array];
    const left = matrix[column] as Uint8Array;
    const right = inverse[column] as Uint8Array;
    const factor = divide(1, left[column] as number);
    if (factor !== 1) for (const row of [left, right]) row.set(row.map((value) => multiply(value, factor)));
    for (let other = 0; other < size; other += 1) {
      const excess = (matrix[other] as Uint8Array)[column] as number;
      if (other === column || excess === 0) continue;
      addMultiple(matrix[other] as Uint8Array, left, excess);
      addMultiple(inverse[other] as Uint8Array, right, excess);
    }
  }
  return inverse;
}

function addMultiple(target: Uint8Array, row: Uint8Array, factor: number): void {
  for (let i = 0; i < row.length; i += 1) target[i] = (target[i] as number) ^ multiply(row[i] as number, factor);
}
