import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { bls12_381 as curve } from '@noble/curves/bls12-381.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { MillraceError } from '../../errors.ts';

/**
 * Time-lock encryption to a round of a drand beacon of the scheme `bls-unchained-g1-rfc9380` (quicknet's): identity-based encryption of
 * Boneh and Franklin with the Fujisaki-Okamoto transform, the same hashes as drand's `tlock` (eprint 2023/189); the payload itself is
 * AES-256-GCM under the 16-byte key that is locked. Nobody can open it before the round's signature is out; whoever holds the beacon's key
 * can at any time.
 */
const SIGNATURE_DST = 'BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_';
const VERSION = 1;
const KEY_BYTES = 16;
const POINT_BYTES = 96;
const ROUND_BYTES = 8;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + ROUND_BYTES + POINT_BYTES + 2 * KEY_BYTES;
const NO_NONCE = new Uint8Array(12); // each key is used once

const { Point: G1, hashToCurve } = curve.G1;
const { Point: G2 } = curve.G2;
const { Fp12, Fr } = curve.fields;
type Gt = ReturnType<typeof curve.pairing>;

/** How many bytes {@link sealUntil} adds to a payload. */
export const SEAL_BYTES = HEAD_BYTES + TAG_BYTES;

/** The message that a beacon signs for a round. */
export function roundMessage(round: bigint): Uint8Array {
  const bytes = new Uint8Array(ROUND_BYTES);
  new DataView(bytes.buffer).setBigUint64(0, round);
  return sha256(bytes);
}

/** The public key, 96 bytes on G2, of a beacon's secret. */
export function beaconPublicKey(secret: bigint): Uint8Array {
  return G2.BASE.multiply(secret).toBytes();
}

/** A beacon's signature of a round, 48 bytes on G1: what opens everything that was sealed until it. */
export function signRound(secret: bigint, round: bigint): Uint8Array {
  return roundPoint(round).multiply(secret).toBytes();
}

/** Whether a signature is the beacon's for a round. Never throws. */
export function isPulse(publicKey: Uint8Array, round: bigint, signature: Uint8Array): boolean {
  try {
    const left = curve.pairing(G1.fromBytes(signature), G2.BASE);
    return Fp12.eql(left, curve.pairing(roundPoint(round), G2.fromBytes(publicKey)));
  } catch {
    return false;
  }
}

/**
 * Seals a payload until a round.
 * @throws bad-beacon-key
 */
export function sealUntil(options: { publicKey: Uint8Array; round: bigint; payload: Uint8Array }): Uint8Array {
  const { publicKey, round, payload } = options;
  const key = randomBytes(KEY_BYTES);
  const sigma = randomBytes(KEY_BYTES);
  const r = scalarOf(sigma, key);
  const shared = Fp12.pow(curve.pairing(roundPoint(round), keyPoint(publicKey)), r);
  const head = new Uint8Array(1 + ROUND_BYTES);
  head[0] = VERSION;
  new DataView(head.buffer).setBigUint64(1, round);
  const locked = [G2.BASE.multiply(r).toBytes(), xor(sigma, hashOf('IBE-H2', pairingBytes(shared))), xor(key, hashOf('IBE-H4', sigma))];
  const cipher = createCipheriv('aes-256-gcm', payloadKey(key), NO_NONCE).setAAD(head);
  return Buffer.concat([head, ...locked, cipher.update(payload), cipher.final(), cipher.getAuthTag()]);
}

/** The round until which something was sealed. @throws broken-seal */
export function sealedRound(sealed: Uint8Array): bigint {
  if (sealed.length < SEAL_BYTES || sealed[0] !== VERSION) throw brokenSeal('it is no sealed payload of this version');
  return new DataView(sealed.buffer, sealed.byteOffset).getBigUint64(1);
}

/**
 * Opens what was sealed, with the beacon's signature of its round.
 * @throws broken-seal when the bytes are garbage, or the signature is of another round or beacon
 */
export function openSealed(sealed: Uint8Array, signature: Uint8Array): Uint8Array {
  sealedRound(sealed);
  const head = sealed.subarray(0, 1 + ROUND_BYTES);
  const body = sealed.subarray(HEAD_BYTES, sealed.length - TAG_BYTES);
  try {
    const key = unlockKey(sealed.subarray(head.length, HEAD_BYTES), signature);
    const decipher = createDecipheriv('aes-256-gcm', payloadKey(key), NO_NONCE).setAAD(head);
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
    return Buffer.concat([decipher.update(body), decipher.final()]);
  } catch (error) {
    throw error instanceof MillraceError ? error : brokenSeal('its bytes fit no key', error);
  }
}

/** The 16-byte key that tlock's U, V and W hold, one after another. @throws broken-seal, and what a bad point throws */
export function unlockKey(locked: Uint8Array, signature: Uint8Array): Uint8Array {
  const point = G2.fromBytes(locked.subarray(0, POINT_BYTES));
  const shared = curve.pairing(G1.fromBytes(signature), point);
  const sigma = xor(locked.subarray(POINT_BYTES, POINT_BYTES + KEY_BYTES), hashOf('IBE-H2', pairingBytes(shared)));
  const key = xor(locked.subarray(POINT_BYTES + KEY_BYTES, POINT_BYTES + 2 * KEY_BYTES), hashOf('IBE-H4', sigma));
  if (!G2.BASE.multiply(scalarOf(sigma, key)).equals(point)) throw brokenSeal('the signature does not open it');
  return key;
}

function roundPoint(round: bigint) {
  return hashToCurve(roundMessage(round), { DST: SIGNATURE_DST });
}

function keyPoint(publicKey: Uint8Array) {
  try {
    const point = G2.fromBytes(publicKey);
    if (!point.equals(G2.ZERO)) return point;
  } catch {
    // reported below
  }
  throw new MillraceError('bad-beacon-key', {
    actor: 'caller',
    message: `Got ${publicKey.length} bytes that are no public key of a beacon, expected a point of ${POINT_BYTES} bytes`,
    values: { bytes: publicKey.length },
    hint: 'The subnet declares its beacon; its owner can declare another.',
  });
}

/** tlock's H3: a scalar from sigma and message, drawn again until it is below the group's order. */
function scalarOf(sigma: Uint8Array, message: Uint8Array): bigint {
  let digest: Uint8Array = sha256(Buffer.concat([Buffer.from('IBE-H3'), sigma, message]));
  for (let i = 1; i < 65_535; i += 1) {
    digest = sha256(Buffer.concat([Buffer.from([i & 0xff, i >> 8]), digest]));
    digest[0] = (digest[0] as number) >> 1;
    const scalar = BigInt(`0x${Buffer.from(digest).toString('hex')}`);
    if (scalar < Fr.ORDER && scalar !== 0n) return scalar;
  }
  throw brokenSeal('no scalar was found');
}

function hashOf(label: string, data: Uint8Array): Uint8Array {
  return sha256(Buffer.concat([Buffer.from(label), data])).subarray(0, KEY_BYTES);
}

function payloadKey(key: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', key, '', 'Millrace sealed weights', 32));
}

/** A pairing's value as kilic's library writes it, which drand uses: coefficients from the highest, big-endian. */
function pairingBytes(value: Gt): Uint8Array {
  const six = [value.c1, value.c0].flatMap(({ c0, c1, c2 }) => [c2, c1, c0]);
  return Buffer.concat(six.flatMap(({ c0, c1 }) => [c1, c0]).map((n) => Buffer.from(n.toString(16).padStart(96, '0'), 'hex')));
}

function xor(one: Uint8Array, other: Uint8Array): Uint8Array {
  return one.map((byte, at) => byte ^ (other[at] as number));
}

function brokenSeal(why: string, cause?: unknown): MillraceError {
  return new MillraceError('broken-seal', {
    actor: 'peer',
    message: `A sealed payload cannot be opened: ${why}`,
    values: {},
    hint: 'Only who made it can say what is in it.',
    cause,
  });
}
