import type { Usage } from '../engines/engine.ts';

/** What a model's work costs, base units of the token for 10^6 units of input and of output, and for each request. */
export interface ModelPrice {
  unit: Usage['unit'];
  inputPerMillion: bigint;
  outputPerMillion: bigint;
  perRequest: bigint;
}

const MILLION = 1_000_000n;

/** The price of so many units, rounded up to a base unit, once for the request. */
export function priceUp(price: ModelPrice, units: { input: bigint; output: bigint }): bigint {
  const scaled = price.inputPerMillion * units.input + price.outputPerMillion * units.output;
  return price.perRequest + (scaled + MILLION - 1n) / MILLION;
}
