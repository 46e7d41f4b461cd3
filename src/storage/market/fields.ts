import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';

/**
 * Reads untrusted JSON one field at a time: every getter names the field, what it got and what it expected.
 * Integers travel as decimal strings, because JSON numbers lose digits.
 * @throws bad-field
 */
export interface Fields {
  uint(name: string, bits: number): bigint;
  small(name: string, bits: 8 | 16 | 32): number;
  hex(name: string, sizeBytes: number): Hex;
  bytes(name: string, maxBytes: number): Hex;
  object(name: string): Fields;
  /** The value as it is, unchecked. */
  raw(name: string): unknown;
}

/**
 * Opens a parsed JSON value as fields of one object.
 * @throws bad-field when it is not an object
 */
export function readFields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badField(what, value, 'a JSON object');
  const record = value as Record<string, unknown>;
  const get = (name: string): unknown => (Object.hasOwn(record, name) ? record[name] : undefined);
  const uint = (name: string, bits: number): bigint => {
    const raw = get(name);
    if (typeof raw === 'string' && /^\d{1,78}$/.test(raw)) {
      const number = BigInt(raw);
      if (number >> BigInt(bits) === 0n) return number;
    }
    throw badField(`${what}.${name}`, raw, `a decimal string below 2^${bits}`);
  };
  const text = (name: string, pattern: RegExp, expected: string): Hex => {
    const raw = get(name);
    if (typeof raw === 'string' && pattern.test(raw)) return raw.toLowerCase() as Hex;
    throw badField(`${what}.${name}`, raw, expected);
  };
  return {
    uint,
    small: (name, bits) => Number(uint(name, bits)),
    hex: (name, sizeBytes) => text(name, new RegExp(`^0x[0-9a-fA-F]{${sizeBytes * 2}}$`), `${sizeBytes} bytes in hexadecimal`),
    bytes: (name, maxBytes) => text(name, new RegExp(`^0x(?:[0-9a-fA-F]{2}){0,${maxBytes}}$`), `at most ${maxBytes} bytes in hexadecimal`),
    raw: get,
    object: (name) => readFields(get(name), `${what}.${name}`),
  };
}

function badField(field: string, got: unknown, expected: string): MillraceError {
  const shown = (JSON.stringify(got) ?? 'nothing').slice(0, 80);
  return new MillraceError('bad-field', {
    actor: 'caller',
    message: `Got ${shown} for ${field}, expected ${expected}`,
    values: { field, got: shown, expected },
  });
}
