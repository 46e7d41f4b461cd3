import { type Field, shown } from './field.ts';

const SIZE_UNITS: Readonly<Record<string, bigint>> = {
  '': 1n,
  b: 1n,
  ki: 1n << 10n,
  mi: 1n << 20n,
  gi: 1n << 30n,
  ti: 1n << 40n,
  pi: 1n << 50n,
  k: 10n ** 3n,
  m: 10n ** 6n,
  g: 10n ** 9n,
  t: 10n ** 12n,
  p: 10n ** 15n,
};
const SIZE_MAX = 1n << 50n;
const MILLIS_MAX = 1_024_000;
const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Bytes of a size (`512Mi`, `512MiB`, `1.5G`, `4096`), as Kubernetes and Akash write them and as we do; fractions of a byte are dropped. */
export function readSize(field: Field): number {
  const text = field.text(64);
  const [, whole = '', fraction = '', unit = ''] = /^(\d{1,18})(?:\.(\d{1,9}))?\s?([A-Za-z]{0,3})$/.exec(text) ?? [];
  const factor = SIZE_UNITS[unit.toLowerCase().replace(/^([kmgtp]i?)b$/, '$1')];
  if (whole === '' || factor === undefined) throw field.refuse(`got ${shown(text)}; due is a size such as 512Mi, 2GiB or 4096`);
  const bytes = BigInt(whole) * factor + (BigInt(fraction || '0') * factor) / 10n ** BigInt(fraction.length);
  if (bytes <= 0n || bytes > SIZE_MAX) throw field.refuse(`got ${shown(text)}; due is more than nothing and at most 1Pi`);
  return Number(bytes);
}

/** Thousandths of a core: `0.5`, `2`, `"500m"`; less than a thousandth is dropped. */
export function readCpuMillis(field: Field): number {
  const text = field.text(64);
  const [, whole = '', fraction = '', unit = ''] = /^(\d{1,9})(?:\.(\d{1,9}))?(m?)$/.exec(text) ?? [];
  if (whole === '') throw field.refuse(`got ${shown(text)}; due is a number of cores such as 0.5, 2 or 500m`);
  const millis = unit === 'm' ? Number(whole) : Number(whole) * 1000 + Number(fraction.padEnd(3, '0').slice(0, 3));
  if (millis < 1 || millis > MILLIS_MAX) throw field.refuse(`got ${shown(text)}; due is from 1m to ${MILLIS_MAX / 1000} cores`);
  return millis;
}

/** Whole seconds of `90`, `30s`, `10m`, `2h`, `1d`, from 1 to so many. */
export function readDuration(field: Field, secondsMax: number): number {
  const text = field.text(32);
  const [, digits = '', unit = ''] = /^(\d{1,9})([smhd]?)$/.exec(text) ?? [];
  const seconds = Number(digits || Number.NaN) * (SECONDS[unit || 's'] as number);
  if (!(seconds >= 1 && seconds <= secondsMax)) {
    throw field.refuse(`got ${shown(text)}; due is a time such as 90s, 10m, 2h or 1d, at most ${secondsMax} s`);
  }
  return seconds;
}
