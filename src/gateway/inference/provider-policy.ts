import { badRequest } from '../../inference/index.ts';

/** What a caller wants of the miners: the fields of OpenRouter's `provider` object, named as there. Prices in base units for 10^6 units. */
export interface ProviderPolicy {
  /** Operators to be tried first, in this order. */
  order: readonly string[];
  only: readonly string[] | undefined;
  ignore: readonly string[];
  allowFallbacks: boolean;
  requireParameters: boolean;
  /** Nothing may be kept: `data_collection: "deny"` and `zdr: true` are the same here. */
  zeroRetention: boolean;
  quantizations: readonly string[] | undefined;
  sort: 'price' | 'throughput' | 'latency' | undefined;
  maxPrice: { input: bigint | undefined; output: bigint | undefined; request: bigint | undefined };
  /** Units a second; slower miners come last. */
  throughputMin: number | undefined;
}

/** A caller who wants nothing special. */
export const ANY_MINER: ProviderPolicy = {
  order: [],
  only: undefined,
  ignore: [],
  allowFallbacks: true,
  requireParameters: false,
  zeroRetention: false,
  quantizations: undefined,
  sort: undefined,
  maxPrice: { input: undefined, output: undefined, request: undefined },
  throughputMin: undefined,
};

const FIELDS: ReadonlySet<string> = new Set([
  'order',
  'only',
  'ignore',
  'allow_fallbacks',
  'require_parameters',
  'data_collection',
  'zdr',
  'quantizations',
  'sort',
  'max_price',
  'preferred_min_throughput',
]);
const NAMES_MAX = 64;

/** Reads the `provider` object of a request (OpenRouter, "Provider routing"). Fields that are not known are refused: they might matter. @throws bad-request */
export function readProviderPolicy(value: unknown): ProviderPolicy {
  if (value === undefined || value === null) return ANY_MINER;
  if (typeof value !== 'object' || Array.isArray(value)) throw badRequest('provider', value, 'an object');
  const wanted = value as Record<string, unknown>;
  const unknown = Object.keys(wanted).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) throw badRequest('provider', unknown, [...FIELDS].join(', '));
  const collection = wanted.data_collection ?? 'allow';
  if (collection !== 'allow' && collection !== 'deny') throw badRequest('provider.data_collection', collection, 'allow or deny');
  return {
    order: names(wanted.order, 'order') ?? [],
    only: names(wanted.only, 'only'),
    ignore: names(wanted.ignore, 'ignore') ?? [],
    allowFallbacks: flag(wanted.allow_fallbacks, 'allow_fallbacks', true),
    requireParameters: flag(wanted.require_parameters, 'require_parameters', false),
    zeroRetention: collection === 'deny' || flag(wanted.zdr, 'zdr', false),
    quantizations: names(wanted.quantizations, 'quantizations'),
    sort: readSort(wanted.sort),
    maxPrice: readMaxPrice(wanted.max_price),
    throughputMin: readNumber(wanted.preferred_min_throughput),
  };
}

function names(value: unknown, field: string): string[] | undefined {
  if (value === undefined || value === null) return undefined;
  const isFine = Array.isArray(value) && value.length <= NAMES_MAX && value.every((name) => typeof name === 'string' && name.length <= 128);
  if (!isFine) throw badRequest(`provider.${field}`, value, `a list of at most ${NAMES_MAX} names`);
  return (value as string[]).map((name) => name.toLowerCase());
}

function flag(value: unknown, field: string, unset: boolean): boolean {
  if (value === undefined || value === null) return unset;
  if (typeof value === 'boolean') return value;
  throw badRequest(`provider.${field}`, value, 'true or false');
}

function readSort(value: unknown): ProviderPolicy['sort'] {
  if (value === undefined || value === null) return undefined;
  if (value === 'price' || value === 'throughput' || value === 'latency') return value;
  throw badRequest('provider.sort', value, 'price, throughput or latency');
}

function readNumber(value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'number' && value >= 0) return value;
  throw badRequest('provider.preferred_min_throughput', value, 'a number of units a second');
}

function readMaxPrice(value: unknown): ProviderPolicy['maxPrice'] {
  if (value === undefined || value === null) return ANY_MINER.maxPrice;
  if (typeof value !== 'object') throw badRequest('provider.max_price', value, 'an object');
  const { prompt, completion, request } = value as Record<string, unknown>;
  return { input: amount(prompt, 'prompt'), output: amount(completion, 'completion'), request: amount(request, 'request') };
}

function amount(value: unknown, field: string): bigint | undefined {
  if (value === undefined || value === null) return undefined;
  const text = String(value);
  if (/^(0|[1-9][0-9]{0,37})$/.test(text)) return BigInt(text);
  throw badRequest(`provider.max_price.${field}`, value, 'a whole number of base units');
}
