import { keccak_256 } from '@noble/hashes/sha3.js';
import secp256k1 from 'secp256k1';
import type { Hex } from 'viem';
import { MillraceError } from '../errors.ts';

/** What ties a storage signature to one market on one chain: EIP-712 domain "Millrace Storage", version "1". */
export interface StorageDomain {
  chainId: number;
  market: Hex;
}

/** A member of a flat EIP-712 struct: every member of ours is one word (integers, addresses, bytes32). */
export type Word = bigint | number | Hex;

const encoder = new TextEncoder();
const DOMAIN_TYPE_HASH = keccak_256(encoder.encode('EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)'));
const NAME_HASH = keccak_256(encoder.encode('Millrace Storage'));
const VERSION_HASH = keccak_256(encoder.encode('1'));
const separators = new Map<string, Uint8Array>();

/** The hash of an EIP-712 type string such as `Activation(uint64 dealId)`. */
export function typeHash(type: string): Uint8Array {
  return keccak_256(encoder.encode(type));
}

/**
 * The EIP-712 digest of a flat struct, packed by hand: 15 times faster than a general encoder, and equal to it
 * (a test compares). Members come in the order of the type string.
 */
export function structDigest(domain: StorageDomain, hashOfType: Uint8Array, members: readonly Word[]): Hex {
  const body = new Uint8Array(32 * (members.length + 1));
  body.set(hashOfType, 0);
  for (const [index, member] of members.entries()) writeWord(body, 32 * (index + 1), member);
  const envelope = new Uint8Array(66);
  envelope[0] = 0x19;
  envelope[1] = 0x01;
  envelope.set(domainSeparator(domain), 2);
  envelope.set(keccak_256(body), 34);
  return `0x${Buffer.from(keccak_256(envelope)).toString('hex')}`;
}

/**
 * The address that made a 65-byte signature over a digest, by native libsecp256k1; undefined when the signature is
 * malformed. High-s signatures are refused, as OpenZeppelin's ECDSA refuses them.
 */
export function recoverSigner(digest: Hex, signature: Hex): Hex | undefined {
  if (!/^0x[0-9a-fA-F]{130}$/.test(signature)) return undefined;
  const bytes = Buffer.from(signature.slice(2), 'hex');
  const recovery = (bytes[64] as number) - 27;
  if (recovery !== 0 && recovery !== 1) return undefined;
  const compact = new Uint8Array(bytes.subarray(0, 64));
  try {
    if (!Buffer.from(secp256k1.signatureNormalize(Uint8Array.from(compact))).equals(compact)) return undefined;
    const key = secp256k1.ecdsaRecover(compact, recovery, Buffer.from(digest.slice(2), 'hex'), false);
    return `0x${Buffer.from(keccak_256(key.subarray(1))).toString('hex', 12)}`;
  } catch {
    return undefined;
  }
}

/** Whether `signature` over `digest` is `signer`'s. Only plain accounts: contract wallets are judged on chain. */
export function isSignedBy(signer: Hex, digest: Hex, signature: Hex): boolean {
  return recoverSigner(digest, signature) === signer.toLowerCase();
}

function domainSeparator(domain: StorageDomain): Uint8Array {
  const key = `${domain.chainId}:${domain.market.toLowerCase()}`;
  const known = separators.get(key);
  if (known !== undefined) return known;
  const body = new Uint8Array(160);
  body.set(DOMAIN_TYPE_HASH, 0);
  body.set(NAME_HASH, 32);
  body.set(VERSION_HASH, 64);
  writeWord(body, 96, domain.chainId);
  writeWord(body, 128, domain.market);
  const separator = keccak_256(body);
  separators.set(key, separator);
  return separator;
}

function writeWord(target: Uint8Array, offset: number, value: Word): void {
  const hex = typeof value === 'string' ? value.slice(2) : BigInt(value).toString(16);
  if (hex.length > 64 || hex.startsWith('-')) {
    throw new MillraceError('bad-word', { actor: 'bug', message: `${value} does not fit in 256 bits`, values: { got: String(value) } });
  }
  target.set(Buffer.from(hex.padStart(64, '0'), 'hex'), offset);
}
