import { MillraceError } from '../errors.ts';
import type { StorageProviderOptions } from '../storage/index.ts';
import { parseAmount, parseSize, TOKEN_DECIMALS } from '../units.ts';

type StoragePolicy = StorageProviderOptions['policy'];

/** What an operator may set of its ask, as texts from flags, environment or `config.json`; what is absent has its default. */
export type AskSettings = { [name in keyof typeof ASK_DEFAULTS]?: string };

/** The ask of a storage provider that sets nothing: money in tokens, sizes with units, collateral in percent of a deal's price, at the order book and for repairs in tokens per GiB. */
export const ASK_DEFAULTS = {
  askPrice: '0.01',
  askMinPrice: '0.000001',
  askMinSize: '127B',
  askMaxSize: '32GiB',
  askMinPeriods: '1',
  askMaxPeriods: '100000',
  askCollateral: '50',
  askMinCollateral: '0.1',
  askBond: '0.01',
  askBookCollateral: '2',
  askRepairCost: '0.001',
} as const;

const PERIODS_MAX = 4_294_967_295;
/** One ask on the order book takes at most this many shards, and promises half of room and stake for a day. */
const BOOK_DEALS_MAX = 128;
const BOOK_PART_BPS = 5_000;
const BOOK_LIFETIME_SECONDS = 86_400;
/** Ten times the price: more would only keep clients away. */
const COLLATERAL_PERCENT_MAX = 1000;

/**
 * The policy of every storage provider, on a developer's machine or an operator's: one place for prices and limits.
 * @throws bad-ask, bad-amount, bad-size
 */
export function storagePolicy(options: { quotaBytes: bigint; ask?: AskSettings }): StoragePolicy {
  const given = { ...ASK_DEFAULTS, ...options.ask };
  const ask: StoragePolicy['ask'] = {
    pricePerGibPeriod: parseAmount(given.askPrice, TOKEN_DECIMALS),
    minPricePerPeriod: parseAmount(given.askMinPrice, TOKEN_DECIMALS),
    minSizeBytes: parseSize(given.askMinSize),
    maxSizeBytes: parseSize(given.askMaxSize),
    minPeriods: periods('askMinPeriods', given.askMinPeriods),
    maxPeriods: periods('askMaxPeriods', given.askMaxPeriods),
    collateralBps: percentInBps(given.askCollateral),
    minCollateral: parseAmount(given.askMinCollateral, TOKEN_DECIMALS),
    bond: parseAmount(given.askBond, TOKEN_DECIMALS),
  };
  if (ask.minSizeBytes > ask.maxSizeBytes) throw badAsk('askMinSize', given.askMinSize, `at most askMaxSize, ${given.askMaxSize}`);
  if (ask.minPeriods > ask.maxPeriods) throw badAsk('askMinPeriods', given.askMinPeriods, `at most askMaxPeriods, ${given.askMaxPeriods}`);
  return {
    quotaBytes: options.quotaBytes,
    openDealsMax: 256,
    openDealsPerClientMax: 64,
    askLifetimeSeconds: 3600,
    offerSecondsMin: 30,
    offerSecondsMax: 7200,
    ask,
    orders: {
      collateralPerGiB: parseAmount(given.askBookCollateral, TOKEN_DECIMALS),
      dealsMax: BOOK_DEALS_MAX,
      roomBps: BOOK_PART_BPS,
      stakeBps: BOOK_PART_BPS,
      lifetimeSeconds: BOOK_LIFETIME_SECONDS,
    },
    repairs: { costPerGiB: parseAmount(given.askRepairCost, TOKEN_DECIMALS), minPrice: ask.pricePerGibPeriod },
  };
}

function periods(name: string, text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= PERIODS_MAX) return value;
  throw badAsk(name, text, `a whole number from 1 to ${PERIODS_MAX}`);
}

function percentInBps(text: string): number {
  const match = /^(\d{1,4})(?:\.(\d{1,2}))?\s*%?$/.exec(text.trim());
  const bps = match === null ? Number.NaN : Number(match[1]) * 100 + Number((match[2] ?? '').padEnd(2, '0'));
  if (bps <= COLLATERAL_PERCENT_MAX * 100) return bps;
  throw badAsk('askCollateral', text, `a percentage from 0 to ${COLLATERAL_PERCENT_MAX} with at most two decimals`);
}

function badAsk(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-ask', {
    actor: 'caller',
    message: `Got ${name} "${got.slice(0, 40)}", expected ${expected}`,
    values: { name, got: got.slice(0, 40), expected },
    hint: 'See `millrace provider run --help`.',
  });
}
