import { keccak_256 } from '@noble/hashes/sha3.js';
import type { Hex, TypedDataDomain, TypedDataParameter } from 'viem';
import { bytesToHex, domainSeparator, hexToBytes } from 'viem';
import { MillraceError } from '../errors.ts';

/** An EIP-712 type and its domain. Define it once as a constant: what can be computed ahead is kept per definition object. */
export interface TypedDataShape {
  readonly domain: TypedDataDomain;
  readonly types: Readonly<Record<string, readonly TypedDataParameter[]>>;
  readonly primaryType: string;
}

type WordWriter = (value: unknown, into: Uint8Array, at: number) => void;
type StructHasher = (message: Record<string, unknown>) => Uint8Array;
type Hashers = { separator: Uint8Array; struct: StructHasher };

const hashersByShape = new WeakMap<TypedDataShape, Hashers>();
const text = new TextEncoder();

/**
 * The EIP-712 digest of a message: keccak256(0x1901 || domain separator || hashStruct(message)). The same value as viem's
 * `hashTypedData`, about ten times faster, because domain separator, type hashes and field layout are computed once per shape.
 * @throws bad-typed-data
 */
export function typedDataDigest(shape: TypedDataShape, message: Record<string, unknown>): Hex {
  let hashers = hashersByShape.get(shape);
  if (hashers === undefined) {
    hashers = { separator: hexToBytes(domainSeparator({ domain: shape.domain })), struct: structHasher(shape, shape.primaryType) };
    hashersByShape.set(shape, hashers);
  }
  const packed = new Uint8Array(66);
  packed[0] = 0x19;
  packed[1] = 0x01;
  packed.set(hashers.separator, 2);
  packed.set(hashers.struct(message), 34);
  return bytesToHex(keccak_256(packed));
}

function structHasher(shape: TypedDataShape, name: string): StructHasher {
  const fields = shape.types[name];
  if (fields === undefined) throw badTypedData(name, 'a type that is defined');
  const typeHash = keccak_256(text.encode(encodeType(shape, name)));
  const writers = fields.map((field) => [field.name, wordWriter(shape, field.type)] as const);
  const packedLength = 32 * (writers.length + 1);
  return (message) => {
    const packed = new Uint8Array(packedLength);
    packed.set(typeHash);
    let at = 32;
    for (const [field, write] of writers) {
      write(message[field], packed, at);
      at += 32;
    }
    return keccak_256(packed);
  };
}

/** `Primary(type name,…)Referenced(…)…`, referenced types sorted by name (EIP-712, "Definition of encodeType"). */
function encodeType(shape: TypedDataShape, primary: string): string {
  const found = new Set<string>();
  const visit = (name: string) => {
    if (found.has(name) || shape.types[name] === undefined) return;
    found.add(name);
    for (const field of shape.types[name]) visit(field.type.replace(/(\[\d*\])+$/, ''));
  };
  visit(primary);
  found.delete(primary);
  const line = (name: string) => `${name}(${(shape.types[name] ?? []).map((field) => `${field.type} ${field.name}`).join(',')})`;
  return [primary, ...[...found].sort()].map(line).join('');
}

function wordWriter(shape: TypedDataShape, type: string): WordWriter {
  const array = /^(.*)\[(\d*)\]$/.exec(type);
  if (array !== null) return arrayWriter(shape, array[1] as string, array[2] === '' ? undefined : Number(array[2]));
  if (shape.types[type] !== undefined) {
    let hash: StructHasher | undefined;
    return (value, into, at) => {
      hash ??= structHasher(shape, type);
      into.set(hash(value as Record<string, unknown>), at);
    };
  }
  if (type === 'string') return (value, into, at) => into.set(stringHash(expectString(value, type)), at);
  if (type === 'bytes') return (value, into, at) => into.set(keccak_256(hexBytes(value, type)), at);
  if (type === 'bool') {
    return (value, into, at) => {
      if (typeof value !== 'boolean') throw badTypedData(value, type);
      into[at + 31] = value ? 1 : 0;
    };
  }
  if (type === 'address') return (value, into, at) => into.set(hexBytes(value, type, 20), at + 12);
  const fixedBytes = /^bytes(\d+)$/.exec(type);
  if (fixedBytes !== null) return (value, into, at) => into.set(hexBytes(value, type, Number(fixedBytes[1])), at);
  const integer = /^(u?)int(\d*)$/.exec(type);
  if (integer !== null) return integerWriter(type, integer[1] === 'u', Number(integer[2] || 256));
  throw badTypedData(type, 'an EIP-712 type');
}

const STRING_HASHES_MAX = 1024;
const SHORT_CHARACTERS = 64;
const stringHashes = new Map<string, Uint8Array>();

/** Short texts of messages repeat (kinds, names, units): their hashes are kept, as far as there is room. */
function stringHash(value: string): Uint8Array {
  const known = stringHashes.get(value);
  if (known !== undefined) return known;
  const hash = keccak_256(text.encode(value));
  if (value.length <= SHORT_CHARACTERS) {
    if (stringHashes.size >= STRING_HASHES_MAX) stringHashes.clear();
    stringHashes.set(value, hash);
  }
  return hash;
}

function arrayWriter(shape: TypedDataShape, itemType: string, length: number | undefined): WordWriter {
  const write = wordWriter(shape, itemType);
  return (value, into, at) => {
    if (!Array.isArray(value) || (length !== undefined && value.length !== length)) throw badTypedData(value, `${itemType}[]`);
    const packed = new Uint8Array(32 * value.length);
    value.forEach((item, index) => {
      write(item, packed, 32 * index);
    });
    into.set(keccak_256(packed), at);
  };
}

function integerWriter(type: string, unsigned: boolean, bits: number): WordWriter {
  const limit = 1n << BigInt(unsigned ? bits : bits - 1);
  const low = unsigned ? 0n : -limit;
  return (value, into, at) => {
    if (typeof value !== 'bigint' && !(typeof value === 'number' && Number.isSafeInteger(value))) throw badTypedData(value, type);
    if (value < low || value >= limit) throw badTypedData(value, type);
    let rest = BigInt.asUintN(256, BigInt(value));
    const view = new DataView(into.buffer, into.byteOffset + at, 32);
    for (let offset = 24; offset >= 0 && rest !== 0n; offset -= 8) {
      view.setBigUint64(offset, rest & 0xffffffffffffffffn);
      rest >>= 64n;
    }
  };
}

function hexBytes(value: unknown, type: string, length?: number): Uint8Array {
  if (typeof value !== 'string' || !/^0x([0-9a-fA-F]{2})*$/.test(value)) throw badTypedData(value, type);
  if (length !== undefined && value.length !== 2 + 2 * length) throw badTypedData(value, type);
  return Buffer.from(value.slice(2), 'hex');
}

function expectString(value: unknown, type: string): string {
  if (typeof value !== 'string') throw badTypedData(value, type);
  return value;
}

function badTypedData(got: unknown, expected: string): MillraceError {
  const shown = typeof got === 'object' ? typeof got : String(got).slice(0, 80);
  return new MillraceError('bad-typed-data', {
    actor: 'caller',
    message: `Got ${shown} in typed data, expected ${expected}`,
    values: { got: shown, expected },
  });
}
