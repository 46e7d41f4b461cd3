import { createHmac, pbkdf2Sync } from 'node:crypto';
import { keccak_256 } from '@noble/hashes/sha3.js';
import type { Address, Hex, LocalAccount, TypedDataDefinition } from 'viem';
import { bytesToHex, hashMessage, hashTypedData, hexToBytes, keccak256, serializeTransaction } from 'viem';
import { toAccount } from 'viem/accounts';
import { MillraceError } from '../errors.ts';
import { type Secp256k1Engine, secp256k1Engine } from './secp256k1.ts';

/** A key that signs. The private key is in a closure: it is in no property, and printing a signer shows its address only. */
export interface Signer {
  readonly address: Address;
  /** Signs a 32-byte digest; gives `r || s || v` (65 bytes, v is 27 or 28). Deterministic (RFC 6979), low s. */
  signDigest(digest: Hex): Promise<Hex>;
  /** Signs EIP-712 typed data. */
  signTypedData(typedData: TypedDataDefinition): Promise<Hex>;
  /** The same key for viem's wallet functions. */
  readonly account: LocalAccount;
}

/** The mnemonic that every Ethereum developer tool knows. Anyone can spend what it holds. */
const DEVELOPMENT_MNEMONIC = 'test test test test test test test test test test test junk';
const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

/**
 * A signer for a private key of 32 bytes. Keep no other copy of the key.
 * @throws bad-private-key
 */
export function createSigner(privateKey: Hex | Uint8Array, engine: Secp256k1Engine = secp256k1Engine): Signer {
  const key = typeof privateKey === 'string' ? keyBytes(privateKey) : Uint8Array.from(privateKey);
  if (key.length !== 32 || !engine.isPrivateKey(key)) throw badPrivateKey();
  const address = addressOfPublicKey(engine.publicKey(key));
  const sign = (digest: Hex): Hex => {
    const { signature, recovery } = engine.sign(digestBytes(digest), key);
    return `${bytesToHex(signature)}${recovery === 0 ? '1b' : '1c'}`;
  };
  const account = toAccount({
    address,
    sign: async ({ hash }) => sign(hash),
    signMessage: async ({ message }) => sign(hashMessage(message)),
    signTypedData: async (typedData) => sign(hashTypedData(typedData as TypedDataDefinition)),
    async signTransaction(transaction, { serializer = serializeTransaction } = {}) {
      const signature = sign(keccak256(await serializer(transaction)));
      const r = signature.slice(0, 66) as Hex;
      const s = `0x${signature.slice(66, 130)}` as Hex;
      return serializer(transaction, { r, s, yParity: signature.endsWith('1b') ? 0 : 1 });
    },
  }) as unknown as LocalAccount;
  return {
    address,
    account,
    signDigest: async (digest) => sign(digest),
    signTypedData: async (typedData) => sign(hashTypedData(typedData)),
  };
}

/**
 * One of the publicly known development keys (BIP-44 account `index`). NOT SECURE: everybody has them.
 * @param profile the network's profile; anything but `dev` is refused
 * @throws development-key-refused
 */
export function developmentSigner(index: number, profile: string): Signer {
  if (profile !== 'dev') {
    throw new MillraceError('development-key-refused', {
      actor: 'caller',
      message: `The development mnemonic is public and works in profile dev only; this network's profile is ${profile}`,
      values: { profile, index },
      hint: 'Create a key with "millrace wallet create".',
    });
  }
  return createSigner(childKey(developmentAccounts(), index).key);
}

/** A private key with the code that its children are made with (BIP-32). */
interface ExtendedKey {
  key: Buffer;
  chainCode: Buffer;
}

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const HARDENED = 0x8000_0000;

let accounts: ExtendedKey | undefined;

/**
 * The key m/44'/60'/0'/0, below which the development accounts lie. By the native PBKDF2 and the engine of signatures: a command of a dev
 * network derives an account when it starts, and viem's wallets in JavaScript take 70 ms for that.
 */
function developmentAccounts(): ExtendedKey {
  if (accounts === undefined) {
    const seed = pbkdf2Sync(DEVELOPMENT_MNEMONIC, 'mnemonic', 2048, 64, 'sha512');
    accounts = [44 + HARDENED, 60 + HARDENED, HARDENED, 0].reduce(childKey, extendedKey('Bitcoin seed', seed));
  }
  return accounts;
}

function childKey({ key, chainCode }: ExtendedKey, index: number): ExtendedKey {
  const data = Buffer.alloc(37);
  data.set(index >= HARDENED ? key : compressed(secp256k1Engine.publicKey(key)), index >= HARDENED ? 1 : 0);
  data.writeUInt32BE(index, 33);
  const child = extendedKey(chainCode, data);
  // That the sum is no private key has a chance of 2^-127: BIP-32 goes on with the next index, createSigner would refuse it.
  const sum = (BigInt(`0x${child.key.toString('hex')}`) + BigInt(`0x${key.toString('hex')}`)) % ORDER;
  return { ...child, key: Buffer.from(sum.toString(16).padStart(64, '0'), 'hex') };
}

function extendedKey(secret: string | Buffer, data: Buffer): ExtendedKey {
  const bytes = createHmac('sha512', secret).update(data).digest();
  return { key: bytes.subarray(0, 32), chainCode: bytes.subarray(32) };
}

/** A public key of 65 bytes as 33: whether y is odd, and x. */
function compressed(publicKey: Uint8Array): Buffer {
  return Buffer.from([2 + ((publicKey[64] as number) & 1), ...publicKey.subarray(1, 33)]);
}

/**
 * The address that signed a digest. About 11,000 per CPU-second with the native engine.
 * @param signature `r || s || v`, 65 bytes, v 27 or 28; high s is refused, as OpenZeppelin's ECDSA does
 * @throws bad-signature
 */
export function recoverAddress(digest: Hex, signature: Hex, engine: Secp256k1Engine = secp256k1Engine): Address {
  if (/^0x[0-9a-fA-F]{130}$/.test(signature)) {
    const bytes = hexToBytes(signature);
    const recovery = (bytes[64] as number) - 27;
    const lowS = BigInt(`0x${signature.slice(66, 130)}`) <= HALF_ORDER;
    const publicKey =
      lowS && (recovery === 0 || recovery === 1) ? engine.recover(digestBytes(digest), bytes.subarray(0, 64), recovery) : null;
    if (publicKey !== null) return addressOfPublicKey(publicKey);
  }
  throw new MillraceError('bad-signature', {
    actor: 'peer',
    message: `Got a signature of ${(signature.length - 2) / 2} bytes that no key can have made, expected r, s (low) and v (27 or 28), 65 bytes`,
    values: { length: (signature.length - 2) / 2 },
  });
}

/** Whether `address` signed the digest. Never throws on a malformed signature. */
export function isSignedBy(address: Address, digest: Hex, signature: Hex): boolean {
  try {
    return recoverAddress(digest, signature).toLowerCase() === address.toLowerCase();
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'bad-signature') return false;
    throw error;
  }
}

const addressCache = new Map<string, Address>();

function addressOfPublicKey(publicKey: Uint8Array): Address {
  const plain = bytesToHex(keccak_256(publicKey.subarray(1)).subarray(12));
  const known = addressCache.get(plain);
  if (known !== undefined) return known;
  // The EIP-55 checksum costs a second hash; peers repeat, so it is kept for the last few thousand addresses.
  const digits = keccak_256(new TextEncoder().encode(plain.slice(2)));
  let text = '0x';
  for (let index = 0; index < 40; index += 1) {
    const nibble = ((digits[index >> 1] as number) >> (index % 2 === 0 ? 4 : 0)) & 15;
    const letter = plain[index + 2] as string;
    text += nibble >= 8 ? letter.toUpperCase() : letter;
  }
  if (addressCache.size >= 4096) addressCache.clear();
  addressCache.set(plain, text as Address);
  return text as Address;
}

function digestBytes(digest: Hex): Uint8Array {
  if (!/^0x[0-9a-fA-F]{64}$/.test(digest)) {
    throw new MillraceError('bad-digest', {
      actor: 'bug',
      message: `Got a digest of ${digest.length} characters, expected 0x and 64 hex digits`,
    });
  }
  return hexToBytes(digest);
}

function keyBytes(privateKey: string): Uint8Array {
  if (!/^0x[0-9a-fA-F]{64}$/.test(privateKey)) throw badPrivateKey();
  return hexToBytes(privateKey as Hex);
}

function badPrivateKey(): MillraceError {
  return new MillraceError('bad-private-key', {
    actor: 'caller',
    message: 'Got something that is no private key, expected 0x and 64 hex digits below the order of secp256k1',
    hint: 'The value is not shown, so that it is not logged.',
  });
}
