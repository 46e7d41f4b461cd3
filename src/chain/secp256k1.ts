import { createRequire } from 'node:module';
import { secp256k1 as noble } from '@noble/curves/secp256k1.js';

/**
 * ECDSA over secp256k1 on 32-byte digests. Every engine gives the same bytes: deterministic nonces (RFC 6979) and low s (EIP-2).
 * `null` from `recover` means that no public key fits; engines never throw on hostile signatures.
 */
export interface Secp256k1Engine {
  readonly name: 'native' | 'noble';
  /** Whether 32 bytes are a private key (1 to n - 1). */
  isPrivateKey(privateKey: Uint8Array): boolean;
  /** The uncompressed public key, 65 bytes. */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /** `r || s`, 64 bytes, and the recovery bit. */
  sign(digest: Uint8Array, privateKey: Uint8Array): { signature: Uint8Array; recovery: number };
  /** The uncompressed public key, 65 bytes. */
  recover(digest: Uint8Array, signature: Uint8Array, recovery: number): Uint8Array | null;
}

/** Pure JavaScript, present everywhere; about 30 times slower than the native engine. */
export const nobleEngine: Secp256k1Engine = {
  name: 'noble',
  isPrivateKey: (privateKey) => noble.utils.isValidSecretKey(privateKey),
  publicKey: (privateKey) => noble.getPublicKey(privateKey, false),
  sign(digest, privateKey) {
    const bytes = noble.sign(digest, privateKey, { prehash: false, format: 'recovered', lowS: true });
    return { signature: bytes.subarray(1), recovery: bytes[0] as number };
  },
  recover(digest, signature, recovery) {
    const bytes = new Uint8Array(65);
    bytes[0] = recovery;
    bytes.set(signature, 1);
    try {
      return noble.Signature.fromBytes(bytes, 'recovered').recoverPublicKey(digest).toBytes(false);
    } catch {
      return null;
    }
  },
};

/** libsecp256k1 by its prebuilt addon; `undefined` where there is none for this platform. */
export const nativeEngine: Secp256k1Engine | undefined = loadNative();

/** The fastest engine of this machine. */
export const secp256k1Engine: Secp256k1Engine = nativeEngine ?? nobleEngine;

function loadNative(): Secp256k1Engine | undefined {
  try {
    // Not the package's main file: that one falls back to elliptic, which we do not want to depend on.
    const addon = createRequire(import.meta.url)('secp256k1/bindings.js') as typeof import('secp256k1');
    return {
      name: 'native',
      isPrivateKey: (privateKey) => privateKey.length === 32 && addon.privateKeyVerify(privateKey),
      publicKey: (privateKey) => addon.publicKeyCreate(privateKey, false),
      sign(digest, privateKey) {
        const { signature, recid } = addon.ecdsaSign(digest, privateKey);
        return { signature, recovery: recid };
      },
      recover(digest, signature, recovery) {
        try {
          return addon.ecdsaRecover(signature, recovery, digest, false);
        } catch {
          return null;
        }
      },
    };
  } catch {
    return undefined;
  }
}
