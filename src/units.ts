import { MillraceError } from './errors.ts';

const SIZE_UNITS: Record<string, bigint> = {
  '': 1n,
  b: 1n,
  kib: 1n << 10n,
  mib: 1n << 20n,
  gib: 1n << 30n,
  tib: 1n << 40n,
  pib: 1n << 50n,
  kb: 10n ** 3n,
  mb: 10n ** 6n,
  gb: 10n ** 9n,
  tb: 10n ** 12n,
};
const DURATION_UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, y: 31_536_000 };

/**
 * Bytes of a size such as `64MiB`, `1.5 GB` or `4096`; fractions round down to whole bytes.
 * @throws bad-size
 */
export function parseSize(text: string): bigint {
  const match = /^\s*(\d+)(?:\.(\d+))?\s*([a-zA-Z]*)\s*$/.exec(text);
  const unit = match === null ? undefined : SIZE_UNITS[(match[3] ?? '').toLowerCase()];
  if (match === null || unit === undefined) {
    throw new MillraceError('bad-size', {
      actor: 'caller',
      message: `Got size "${text}", expected a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB`,
      values: { got: text },
      hint: 'For example 64MiB.',
    });
  }
  const fraction = match[2] ?? '';
  return BigInt(match[1] as string) * unit + (fraction === '' ? 0n : (BigInt(fraction) * unit) / 10n ** BigInt(fraction.length));
}

/** A size for people, with binary units and at most one decimal, rounded down: `1.5 MiB`. */
export function formatSize(sizeBytes: bigint | number): string {
  const bytes = BigInt(sizeBytes);
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let index = 0;
  while (index < names.length - 1 && bytes >= 1n << BigInt(10 * (index + 1))) index += 1;
  if (index === 0) return `${bytes} B`;
  const tenths = (bytes * 10n) >> BigInt(10 * index);
  return tenths % 10n === 0n ? `${tenths / 10n} ${names[index]}` : `${tenths / 10n}.${tenths % 10n} ${names[index]}`;
}

/**
 * Whole seconds of a duration such as `30s`, `5m`, `1d` or `90`.
 * @throws bad-duration
 */
export function parseDuration(text: string): number {
  const match = /^\s*(\d{1,12})\s*([smhdwy]?)\s*$/.exec(text);
  if (match === null) {
    throw new MillraceError('bad-duration', {
      actor: 'caller',
      message: `Got duration "${text}", expected a whole number with s, m, h, d, w or y`,
      values: { got: text },
      hint: 'For example 30s or 1d.',
    });
  }
  return Number(match[1]) * (DURATION_UNITS[match[2] === '' ? 's' : (match[2] as string)] as number);
}

/** A duration for people in its two largest units: `1d 2h`, `45s`. */
export function formatDuration(seconds: number): string {
  const parts: string[] = [];
  let rest = Math.max(0, Math.floor(seconds));
  for (const [name, size] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count}${name}`);
  }
  return parts.slice(0, 2).join(' ') || '0s';
}

/** Decimals of the tokens that a network deploys for itself: its token and its stake token. */
export const TOKEN_DECIMALS = 18;
/** Decimals of the usual stable tokens (USDC, USDT), and of the one that a network deploys for trying. */
export const STABLE_DECIMALS = 6;

/** A token amount in base units as a decimal string without trailing zeros: 1500000n with 6 decimals is `1.5`. */
export function formatAmount(amount: bigint, decimals: number): string {
  const sign = amount < 0n ? '-' : '';
  const digits = (amount < 0n ? -amount : amount).toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = decimals === 0 ? '' : digits.slice(-decimals).replace(/0+$/, '');
  return sign + whole + (fraction === '' ? '' : `.${fraction}`);
}

/**
 * Base units of a decimal token amount; more decimals than the token has are refused, never rounded.
 * @throws bad-amount
 */
export function parseAmount(text: string, decimals: number): bigint {
  const match = /^\s*(\d+)(?:\.(\d+))?\s*$/.exec(text);
  const fraction = match?.[2] ?? '';
  if (match === null || fraction.length > decimals) {
    throw new MillraceError('bad-amount', {
      actor: 'caller',
      message: `Got amount "${text}", expected a decimal number with at most ${decimals} decimals`,
      values: { got: text, decimals },
    });
  }
  return BigInt(match[1] as string) * 10n ** BigInt(decimals) + BigInt(fraction.padEnd(decimals, '0') || '0');
}

/** The lesser of two amounts; `Math.min` knows no bigint. */
export function lesser(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}

/** The greater of two amounts. */
export function greater(left: bigint, right: bigint): bigint {
  return left > right ? left : right;
}
