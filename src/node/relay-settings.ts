import type { RelayTerms } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { parseAmount, parseSize, TOKEN_DECIMALS } from '../units.ts';

/** What an operator may set of its relay, as texts from flags, environment or `config.json`; what is absent has its default. */
export type RelaySettings = { [name in keyof typeof RELAY_DEFAULTS]?: string };

/**
 * The terms of a relay that sets nothing: free, for 64 nodes, each with 128 connections at once and 16 MiB a second. And what a node that
 * is relayed pays at most: nothing. Prices are tokens for a GiB.
 */
export const RELAY_DEFAULTS = {
  relayPrice: '0',
  relayTunnels: '64',
  relayStreams: '128',
  relayBandwidth: '16MiB',
  relayMaxPrice: '0',
} as const;

/** By whom a node lets itself be relayed: by nobody, by whoever is best when it is not reached directly, or by these operators. */
export type RelayedBy = 'none' | 'auto' | readonly bigint[];

/** What a relay carries before it is acknowledged and paid, so the most that it can lose to a node: 16 MiB. */
const CHUNK_BYTES = 16 << 20;
const BANDWIDTH_MIN = 65_536n;
const BANDWIDTH_MAX = 1n << 40n;

/** The terms that settings mean. @throws bad-relay-setting, bad-amount, bad-size */
export function relayTerms(operatorId: bigint, settings: RelaySettings = {}): RelayTerms {
  const given = { ...RELAY_DEFAULTS, ...settings };
  const bandwidth = parseSize(given.relayBandwidth);
  if (bandwidth < BANDWIDTH_MIN || bandwidth > BANDWIDTH_MAX) throw bad('relayBandwidth', given.relayBandwidth, '64KiB to 1TiB a second');
  return {
    operatorId,
    pricePerGib: parseAmount(given.relayPrice, TOKEN_DECIMALS),
    chunkBytes: CHUNK_BYTES,
    streamsMax: count('relayStreams', given.relayStreams, 512),
    bytesPerSecond: Number(bandwidth),
    tunnelsMax: count('relayTunnels', given.relayTunnels, 10_000),
  };
}

/** The most that a node pays a relay for a GiB carried, base units. @throws bad-amount */
export function relayPriceMax(settings: RelaySettings = {}): bigint {
  return parseAmount(settings.relayMaxPrice ?? RELAY_DEFAULTS.relayMaxPrice, TOKEN_DECIMALS);
}

/** Reads `none`, `auto` or the numbers of operators, `3,5`. @throws bad-relay-setting */
export function relayedBy(text: string): RelayedBy {
  if (text === 'none' || text === 'auto') return text;
  const numbers = text.split(',');
  if (numbers.length <= 16 && numbers.every((number) => /^[1-9]\d{0,18}$/.test(number))) return numbers.map(BigInt);
  throw bad('relay', text, 'none, auto, or numbers of operators such as 3,5');
}

function count(name: string, text: string, max: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= max) return value;
  throw bad(name, text, `a whole number from 1 to ${max}`);
}

function bad(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-relay-setting', {
    actor: 'caller',
    message: `Got ${name} "${got.slice(0, 40)}", expected ${expected}`,
    values: { name, got: got.slice(0, 40), expected },
    hint: 'See `millrace provider run --help`.',
  });
}
