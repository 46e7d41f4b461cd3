import { readFileSync, statSync } from 'node:fs';
import { keccak_256 } from '@noble/hashes/sha3.js';
import { type Address, bytesToHex, getAddress, type Hex, hashMessage } from 'viem';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import { recoverAddress, type Signer } from './signer.ts';

/** One deployed contract: where it is, keccak256 of its code there, and the block from which its events exist. */
export interface ManifestModule {
  address: Address;
  codeHash: Hex;
  deployBlock: number;
}

/** A token of the network, as a wallet shows it. */
export interface ManifestToken {
  address: Address;
  name: string;
  symbol: string;
  decimals: number;
}

/** Where seeds come from; `history` is how the contract checks old headers. */
export interface ManifestRandomness {
  source: 'prev-randao' | 'trusted-operator' | 'beacon';
  beacon: Address | null;
  history: 'eip-2935' | 'blockhash';
}

/** A manifest before it is signed. Times in seconds. */
export interface UnsignedManifest {
  version: 1;
  /** Name of the network: lower-case letters, digits and hyphens. */
  name: string;
  chainId: number;
  /** Hash of block 0: two chains may share a chain id, never this. */
  genesisHash: Hex;
  profile: string;
  /** True for profiles that are functional but not secure. */
  notSecure: boolean;
  /** Protocol time 0: the start of period 0. */
  genesis: number;
  randomness: ManifestRandomness;
  /** By module name. Additive: a reader keeps names that it does not know. */
  modules: Record<string, ManifestModule>;
  /** `network` and `stable`; additive. */
  tokens: Record<string, ManifestToken>;
  deployer: Address;
}

/**
 * `network.json`: all that a node needs to join a network. Its id is its hash ({@link manifestId}); the deployer signs the id (EIP-191).
 */
export interface Manifest extends UnsignedManifest {
  signature: Hex;
}

const FILE_BYTES_MAX = 262_144;
const KEYS = [
  'version',
  'name',
  'chainId',
  'genesisHash',
  'profile',
  'notSecure',
  'genesis',
  'randomness',
  'modules',
  'tokens',
  'deployer',
];

/** The id of a network: keccak256 of the manifest without its signature as JSON with sorted keys and no white space. */
export function manifestId(manifest: UnsignedManifest): Hex {
  const { signature: _, ...unsigned } = manifest as Manifest;
  return bytesToHex(keccak_256(new TextEncoder().encode(canonicalJson(unsigned))));
}

/** Signs a manifest with the deployer's key. @throws manifest-invalid */
export async function signManifest(manifest: UnsignedManifest, signer: Signer): Promise<Manifest> {
  const plain = parseUnsigned({ ...manifest } as Record<string, unknown>);
  return parseManifest({ ...plain, signature: await signer.signDigest(hashMessage({ raw: manifestId(plain) })) });
}

/**
 * A manifest from untrusted JSON: exact keys, exact types, addresses with a right checksum or none, signature by `deployer`.
 * @param expectedId when given, the manifest must be this one
 * @throws manifest-invalid, wrong-network
 */
export function parseManifest(value: unknown, expectedId?: Hex): Manifest {
  const object = record(value, 'manifest');
  const { signature, ...rest } = object;
  const manifest: Manifest = {
    ...parseUnsigned(rest),
    signature: text(signature, 'signature', /^0x[0-9a-f]{130}$/) as Hex,
  };
  const id = manifestId(manifest);
  let signer: Address | undefined;
  try {
    signer = recoverAddress(hashMessage({ raw: id }), manifest.signature);
  } catch {
    // reported below
  }
  if (signer !== manifest.deployer) throw invalid('signature', signer ?? 'no signer', `a signature by deployer ${manifest.deployer}`);
  if (expectedId !== undefined && id !== expectedId) {
    throw new MillraceError('wrong-network', {
      actor: 'caller',
      message: `Got the manifest of network ${id}, expected ${expectedId}`,
      values: { got: id, expected: expectedId },
      hint: 'Use the network.json of the network that you mean.',
    });
  }
  return manifest;
}

/**
 * Reads and checks `network.json`.
 * @throws manifest-missing, manifest-invalid, wrong-network
 */
export function readManifest(path: string, expectedId?: Hex): Manifest {
  let content: string;
  try {
    if (statSync(path).size > FILE_BYTES_MAX) throw invalid('file', 'a larger file', `at most ${FILE_BYTES_MAX} bytes`);
    content = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError('manifest-missing', {
      actor: 'caller',
      message: `Cannot read the network manifest ${path}: ${(error as Error).message}`,
      values: { path },
      hint: 'Start a network with "millrace up" or "millrace deploy", or get network.json from whoever runs one.',
      cause: error,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch {
    throw invalid('file', path, 'JSON');
  }
  return parseManifest(value, expectedId);
}

/** Writes `network.json` atomically, readable by all. */
export function writeManifest(path: string, manifest: Manifest): void {
  writeFileDurably(path, `${JSON.stringify(parseManifest(manifest), null, 2)}\n`, { mode: 0o644 });
}

function parseUnsigned(object: Record<string, unknown>): UnsignedManifest {
  if (object.version !== 1) {
    throw invalid('version', object.version, '1', 'The manifest was written by another version of Millrace; update it.');
  }
  exactKeys(object, KEYS, 'manifest');
  return {
    version: 1,
    name: text(object.name, 'name', /^[a-z0-9][a-z0-9-]{0,31}$/),
    chainId: whole(object.chainId, 'chainId', 1),
    genesisHash: hash(object.genesisHash, 'genesisHash'),
    profile: text(object.profile, 'profile', /^[a-z][a-z0-9-]{0,31}$/),
    notSecure: flag(object.notSecure, 'notSecure'),
    genesis: whole(object.genesis, 'genesis', 0),
    randomness: parseRandomness(object.randomness),
    modules: entries(object.modules, 'modules', parseModule),
    tokens: entries(object.tokens, 'tokens', parseToken),
    deployer: address(object.deployer, 'deployer'),
  };
}

/** JSON with sorted keys and no white space (RFC 8785 for strings, whole numbers, booleans, null, arrays and objects). */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const keys = Object.keys(value).sort();
    return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalJson((value as Record<string, unknown>)[key])}`).join(',')}}`;
  }
  return JSON.stringify(value);
}

function parseModule(value: unknown, field: string): ManifestModule {
  const object = record(value, field);
  exactKeys(object, ['address', 'codeHash', 'deployBlock'], field);
  return {
    address: address(object.address, `${field}.address`),
    codeHash: hash(object.codeHash, `${field}.codeHash`),
    deployBlock: whole(object.deployBlock, `${field}.deployBlock`, 0),
  };
}

function parseToken(value: unknown, field: string): ManifestToken {
  const object = record(value, field);
  exactKeys(object, ['address', 'name', 'symbol', 'decimals'], field);
  const decimals = whole(object.decimals, `${field}.decimals`, 0);
  if (decimals > 255) throw invalid(`${field}.decimals`, decimals, 'at most 255');
  return {
    address: address(object.address, `${field}.address`),
    name: text(object.name, `${field}.name`, /^[\x20-\x7e]{1,64}$/),
    symbol: text(object.symbol, `${field}.symbol`, /^[\x21-\x7e]{1,16}$/),
    decimals,
  };
}

function parseRandomness(value: unknown): ManifestRandomness {
  const object = record(value, 'randomness');
  exactKeys(object, ['source', 'beacon', 'history'], 'randomness');
  const source = text(object.source, 'randomness.source', /^(prev-randao|trusted-operator|beacon)$/) as ManifestRandomness['source'];
  const beacon = object.beacon === null ? null : address(object.beacon, 'randomness.beacon');
  if ((source === 'beacon') !== (beacon !== null))
    throw invalid('randomness.beacon', beacon, `an address exactly when the source is beacon`);
  return { source, beacon, history: text(object.history, 'randomness.history', /^(eip-2935|blockhash)$/) as ManifestRandomness['history'] };
}

function entries<T>(value: unknown, field: string, parse: (item: unknown, field: string) => T): Record<string, T> {
  const object = record(value, field);
  const names = Object.keys(object);
  if (names.length === 0 || names.length > 64) throw invalid(field, `${names.length} entries`, '1 to 64');
  const parsed: Record<string, T> = {};
  for (const name of names) {
    text(name, `${field}.${name.slice(0, 40)}`, /^[a-z][a-zA-Z0-9]{0,30}$/);
    if (name === 'constructor') throw invalid(field, name, 'another name');
    parsed[name] = parse(object[name], `${field}.${name}`);
  }
  return parsed;
}

function record(value: unknown, field: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(field, value === null ? 'null' : typeof value, 'an object');
  return value as Record<string, unknown>;
}

function exactKeys(object: Record<string, unknown>, keys: readonly string[], field: string): void {
  for (const key of Object.keys(object))
    if (!keys.includes(key)) throw invalid(`${field}.${key.slice(0, 40)}`, 'an unknown key', keys.join(', '));
  for (const key of keys) if (!Object.hasOwn(object, key)) throw invalid(`${field}.${key}`, 'nothing', 'a value');
}

function text(value: unknown, field: string, pattern: RegExp): string {
  if (typeof value !== 'string' || !pattern.test(value)) throw invalid(field, value, String(pattern));
  return value;
}

function whole(value: unknown, field: string, min: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min) throw invalid(field, value, `a whole number from ${min}`);
  return value;
}

function flag(value: unknown, field: string): boolean {
  if (typeof value !== 'boolean') throw invalid(field, value, 'true or false');
  return value;
}

function hash(value: unknown, field: string): Hex {
  return text(value, field, /^0x[0-9a-f]{64}$/) as Hex;
}

function address(value: unknown, field: string): Address {
  const plain = text(value, field, /^0x[0-9a-fA-F]{40}$/);
  const checked = getAddress(plain.toLowerCase());
  if (plain !== checked && plain !== plain.toLowerCase()) throw invalid(field, plain, `checksum ${checked}`);
  return checked;
}

function invalid(field: string, got: unknown, expected: string, hint?: string): MillraceError {
  const shown = String(got).slice(0, 120);
  return new MillraceError('manifest-invalid', {
    actor: 'caller',
    message: `The network manifest is not valid: ${field} is ${shown}, expected ${expected}`,
    values: { field, got: shown, expected },
    hint: hint ?? 'Get network.json again from whoever runs the network; do not edit it.',
  });
}
