import { createCipheriv, createDecipheriv, pbkdf2, randomBytes, randomUUID, scrypt, timingSafeEqual } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { scryptAsync as nobleScrypt } from '@noble/hashes/scrypt.js';
import { keccak_256 } from '@noble/hashes/sha3.js';
import type { Address, Hex } from 'viem';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import { createSigner, type Signer } from './signer.ts';

const PASSWORD_LENGTH_MIN = 8;
const FILE_BYTES_MAX = 16_384;
const KDF_MEMORY_BYTES_MAX = 512 << 20;
const KDF_ROUNDS_MAX = 10_000_000;
// standard: OWASP's scrypt setting (128 MiB, about half a second); light: geth's, for development networks
const SCRYPT = { standard: { n: 131_072, r: 8, p: 1 }, light: { n: 4096, r: 8, p: 6 } } as const;
const deriveScrypt = promisify(scrypt) as (password: string, salt: Buffer, length: number, options: object) => Promise<Buffer>;
const derivePbkdf2 = promisify(pbkdf2);

interface KeystoreCrypto {
  cipher: 'aes-128-ctr';
  ciphertext: string;
  cipherparams: { iv: string };
  kdf: string;
  kdfparams: Record<string, unknown>;
  mac: string;
}

/**
 * Creates a key (or takes `privateKey`) and keeps it encrypted in `path` as Web3 Secret Storage version 3 (scrypt, aes-128-ctr), file
 * mode 0600, written atomically. An existing file is never overwritten.
 * @param password at least 8 characters; passed by the caller from a prompt or a file, never from the command line
 * @throws weak-password, keystore-exists, bad-private-key
 */
export async function createKeystore(options: {
  path: string;
  password: string;
  privateKey?: Hex;
  strength?: keyof typeof SCRYPT;
}): Promise<Signer> {
  const { path, password } = options;
  if (password.length < PASSWORD_LENGTH_MIN) {
    throw new MillraceError('weak-password', {
      actor: 'caller',
      message: `Got a password of ${password.length} characters, expected at least ${PASSWORD_LENGTH_MIN}`,
      values: { length: password.length, lengthMin: PASSWORD_LENGTH_MIN },
    });
  }
  const privateKey = options.privateKey === undefined ? createPrivateKey() : hexBytes(options.privateKey.slice(2), 'privateKey', 32);
  const signer = createSigner(privateKey);
  const text = await encryptKey({ privateKey, address: signer.address, password, scryptCost: SCRYPT[options.strength ?? 'standard'] });
  try {
    writeFileDurably(path, text, { mode: 0o600, exclusive: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw keystoreIo(path, error);
    throw new MillraceError('keystore-exists', {
      actor: 'caller',
      message: `${path} holds a key already and is not overwritten`,
      values: { path },
      hint: 'Choose another name, or move the file away if you are sure.',
    });
  } finally {
    privateKey.fill(0);
  }
  return signer;
}

/**
 * Opens a keystore file of version 3 (scrypt or pbkdf2).
 * @throws wrong-password, keystore-missing, keystore-unreadable, bad-keystore, keystore-open-to-others
 */
export async function openKeystore(options: { path: string; password: string }): Promise<Signer> {
  const privateKey = await decryptKey(readKeystore(options.path), options.password);
  try {
    return createSigner(privateKey);
  } finally {
    privateKey.fill(0);
  }
}

/** The address of a keystore file, without its password; as the file says, unproven until it is opened. */
export function keystoreAddress(path: string): Address {
  const { address } = parseKeystore(readKeystore(path));
  return address;
}

/**
 * Takes over a keystore of another tool (its JSON text) after checking its password, re-encrypted in our form.
 * @throws wrong-password, bad-keystore, weak-password, keystore-exists
 */
export async function importKeystore(options: {
  text: string;
  password: string;
  path: string;
  newPassword?: string;
  strength?: keyof typeof SCRYPT;
}): Promise<Signer> {
  const privateKey = await decryptKey(options.text, options.password);
  try {
    const { path, strength } = options;
    const password = options.newPassword ?? options.password;
    return await createKeystore({ path, strength, password, privateKey: `0x${privateKey.toString('hex')}` });
  } finally {
    privateKey.fill(0);
  }
}

/**
 * The keystore's JSON text, still encrypted, for any wallet that reads version 3; its password is checked first.
 * @throws wrong-password, keystore-missing, bad-keystore
 */
export async function exportKeystore(options: { path: string; password: string }): Promise<string> {
  const text = readKeystore(options.path);
  (await decryptKey(text, options.password)).fill(0);
  return text;
}

function createPrivateKey(): Buffer {
  for (;;) {
    const candidate = randomBytes(32);
    try {
      createSigner(candidate);
      return candidate;
    } catch {
      // one in 2^128 is not below the order: draw again
    }
  }
}

async function encryptKey(options: {
  privateKey: Buffer;
  address: Address;
  password: string;
  scryptCost: { n: number; r: number; p: number };
}): Promise<string> {
  const salt = randomBytes(32);
  const iv = randomBytes(16);
  const kdfparams = { dklen: 32, salt: salt.toString('hex'), ...options.scryptCost };
  const derived = await deriveKey('scrypt', kdfparams, options.password);
  const cipher = createCipheriv('aes-128-ctr', derived.subarray(0, 16), iv);
  const ciphertext = Buffer.concat([cipher.update(options.privateKey), cipher.final()]);
  const crypto: KeystoreCrypto = {
    cipher: 'aes-128-ctr',
    ciphertext: ciphertext.toString('hex'),
    cipherparams: { iv: iv.toString('hex') },
    kdf: 'scrypt',
    kdfparams,
    mac: macOf(derived, ciphertext).toString('hex'),
  };
  derived.fill(0);
  return `${JSON.stringify({ version: 3, id: randomUUID(), address: options.address.slice(2).toLowerCase(), crypto }, null, 2)}\n`;
}

async function decryptKey(text: string, password: string): Promise<Buffer> {
  const { address, crypto } = parseKeystore(text);
  const derived = await deriveKey(crypto.kdf, crypto.kdfparams, password);
  const ciphertext = hexBytes(crypto.ciphertext, 'crypto.ciphertext', 32);
  if (!timingSafeEqual(macOf(derived, ciphertext), hexBytes(crypto.mac, 'crypto.mac', 32))) {
    throw new MillraceError('wrong-password', {
      actor: 'caller',
      message: `The password does not open the keystore of ${address}`,
      values: { address },
      hint: 'Try again; nobody can reset it.',
    });
  }
  const decipher = createDecipheriv('aes-128-ctr', derived.subarray(0, 16), hexBytes(crypto.cipherparams.iv, 'crypto.cipherparams.iv', 16));
  const privateKey = Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  derived.fill(0);
  if (createSigner(privateKey).address.toLowerCase() !== address.toLowerCase())
    throw badKeystore('address', 'the address of the key inside');
  return privateKey;
}

async function deriveKey(kdf: string, params: Record<string, unknown>, password: string): Promise<Buffer> {
  const salt = hexBytes(params.salt, 'crypto.kdfparams.salt');
  if (params.dklen !== 32) throw badKeystore('crypto.kdfparams.dklen', '32');
  if (kdf === 'scrypt') {
    const n = wholeNumber(params.n, 'crypto.kdfparams.n');
    const r = wholeNumber(params.r, 'crypto.kdfparams.r');
    const p = wholeNumber(params.p, 'crypto.kdfparams.p');
    // A hostile file must not take all memory or hours: limits before any work.
    if ((n & (n - 1)) !== 0 || 128 * n * r > KDF_MEMORY_BYTES_MAX || p > 16)
      throw badKeystore('crypto.kdfparams', 'scrypt within 512 MiB and p <= 16');
    // OpenSSL keeps RFC 7914's N < 2^(16 r), which the definition's own test vector (r = 1) does not.
    if (n >= 2 ** (16 * r))
      return Buffer.from(await nobleScrypt(password, salt, { N: n, r, p, dkLen: 32, maxmem: 2 * KDF_MEMORY_BYTES_MAX }));
    return deriveScrypt(password, salt, 32, { N: n, r, p, maxmem: 2 * KDF_MEMORY_BYTES_MAX });
  }
  if (kdf === 'pbkdf2' && params.prf === 'hmac-sha256') {
    const rounds = wholeNumber(params.c, 'crypto.kdfparams.c');
    if (rounds > KDF_ROUNDS_MAX) throw badKeystore('crypto.kdfparams.c', `at most ${KDF_ROUNDS_MAX}`);
    return derivePbkdf2(password, salt, rounds, 32, 'sha256');
  }
  throw badKeystore('crypto.kdf', 'scrypt, or pbkdf2 with hmac-sha256');
}

function macOf(derived: Buffer, ciphertext: Buffer): Buffer {
  return Buffer.from(keccak_256(Buffer.concat([derived.subarray(16, 32), ciphertext])));
}

function readKeystore(path: string): string {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw keystoreIo(path, error);
  }
  try {
    const { mode, size } = fstatSync(file);
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new MillraceError('keystore-open-to-others', {
        actor: 'host',
        message: `${path} has mode ${(mode & 0o777).toString(8)}, expected 600: other users of this machine can read it`,
        values: { path, mode: (mode & 0o777).toString(8) },
        hint: `Run: chmod 600 ${path}`,
      });
    }
    if (size > FILE_BYTES_MAX) throw badKeystore('file', `at most ${FILE_BYTES_MAX} bytes`);
    return readFileSync(file, 'utf8');
  } finally {
    closeSync(file);
  }
}

function parseKeystore(text: string): { address: Address; crypto: KeystoreCrypto } {
  let value: { version?: unknown; address?: unknown; crypto?: unknown; Crypto?: unknown };
  try {
    value = JSON.parse(text.slice(0, FILE_BYTES_MAX)) ?? {};
  } catch {
    throw badKeystore('file', 'JSON');
  }
  const crypto = (value.crypto ?? value.Crypto ?? {}) as Partial<KeystoreCrypto>;
  if (value.version !== 3) throw badKeystore('version', '3');
  if (crypto.cipher !== 'aes-128-ctr') throw badKeystore('crypto.cipher', 'aes-128-ctr');
  if (typeof crypto.kdf !== 'string' || typeof crypto.kdfparams !== 'object' || crypto.kdfparams === null)
    throw badKeystore('crypto.kdf', 'a key derivation');
  if (typeof crypto.cipherparams !== 'object' || crypto.cipherparams === null) throw badKeystore('crypto.cipherparams', 'an object');
  const address = `0x${hexBytes(String(value.address).replace(/^0x/, ''), 'address', 20).toString('hex')}` as Address;
  return { address, crypto: crypto as KeystoreCrypto };
}

function hexBytes(value: unknown, field: string, length?: number): Buffer {
  if (typeof value !== 'string' || !/^([0-9a-fA-F]{2})*$/.test(value)) throw badKeystore(field, 'hex digits');
  if (length !== undefined && value.length !== 2 * length) throw badKeystore(field, `${length} bytes`);
  return Buffer.from(value, 'hex');
}

function wholeNumber(value: unknown, field: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) throw badKeystore(field, 'a whole number from 1');
  return value;
}

function badKeystore(field: string, expected: string): MillraceError {
  return new MillraceError('bad-keystore', {
    actor: 'caller',
    message: `The keystore is not Web3 Secret Storage version 3: ${field} is wrong, expected ${expected}`,
    values: { field, expected },
    hint: 'Use a file made by "millrace wallet create", geth, or another wallet that writes version 3.',
  });
}

function keystoreIo(path: string, cause: unknown): MillraceError {
  if ((cause as NodeJS.ErrnoException).code === 'ENOENT') {
    return new MillraceError('keystore-missing', {
      actor: 'caller',
      message: `There is no keystore at ${path}`,
      values: { path },
      hint: 'Create one with "millrace wallet create".',
      cause,
    });
  }
  return new MillraceError('keystore-unreadable', {
    actor: 'host',
    message: `Cannot read or write the keystore ${path}: ${(cause as Error).message}`,
    values: { path },
    hint: 'Check the rights and the free space of the folder.',
    cause,
  });
}
