import type { webcrypto } from 'node:crypto';
import type { CipherSuite } from '@hpke/core';
import { base58btc } from 'multiformats/bases/base58';
import type { Hex, TypedDataDefinition } from 'viem';
import { MillraceError } from '../../errors.ts';

/** Bytes of a key wrapped by HPKE: 32 encapsulated, 32 encrypted, 16 tag. */
export const WRAPPED_KEY_BYTES = 80;
/** Bytes of a file key. */
export const FILE_KEY_BYTES = 32;

const ENCAPSULATED_BYTES = 32;
const INFO = new TextEncoder().encode('Millrace file key 1');
const X25519_MULTICODEC = [0xec, 0x01];
const PURPOSE =
  'This signature is the key to your encrypted files on Millrace. Sign it only in Millrace itself: whoever has it can read your files.';

/** An X25519 key pair to which file keys are wrapped. The secret key is never printed or logged. */
export interface ShareKeyPair {
  publicKey: Uint8Array;
  secretKey: Uint8Array;
}

/** What the wallet must be able to do: sign typed data, as every keystore, hardware or browser wallet can. */
export interface WalletSigner {
  address: Hex;
  signTypedData(typedData: TypedDataDefinition): Promise<Hex>;
}

/** DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. */
async function suite(): Promise<CipherSuite> {
  const { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } = await import('@hpke/core');
  return new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
}

/** The key pair for at least 32 bytes of secret input: `DeriveKeyPair` of RFC 9180, section 7.1.3. */
export async function deriveShareKey(secretInput: Uint8Array): Promise<ShareKeyPair> {
  const { kem } = await suite();
  const pair = await kem.deriveKeyPair(Uint8Array.from(secretInput).buffer);
  return {
    publicKey: new Uint8Array(await kem.serializePublicKey(pair.publicKey)),
    secretKey: new Uint8Array(await kem.serializePrivateKey(pair.privateKey)),
  };
}

/**
 * The share key of a wallet: derived from its signature (r and s) of one fixed message that names its purpose and the
 * address, on no chain in particular, so that the keystore alone gives it again anywhere. ECDSA by RFC 6979 is
 * deterministic; a wallet that is not is refused, because its files could not be opened again.
 * @throws wallet-not-deterministic
 */
export async function shareKeyOfWallet(signer: WalletSigner): Promise<ShareKeyPair> {
  const message: TypedDataDefinition = {
    domain: { name: 'Millrace', version: '1' },
    types: {
      FileKeys: [
        { name: 'purpose', type: 'string' },
        { name: 'wallet', type: 'address' },
      ],
    },
    primaryType: 'FileKeys',
    message: { purpose: PURPOSE, wallet: signer.address },
  };
  const [first, second] = [await signer.signTypedData(message), await signer.signTypedData(message)];
  const secret = Buffer.from(first.slice(2, 130), 'hex');
  if (secret.length !== 64 || !secret.equals(Buffer.from(second.slice(2, 130), 'hex'))) {
    throw new MillraceError('wallet-not-deterministic', {
      actor: 'caller',
      message: `Wallet ${signer.address} signs the same message differently each time`,
      values: { address: signer.address },
      hint: 'Use a wallet that signs by RFC 6979, such as a Millrace keystore; or store the file with --public.',
    });
  }
  return deriveShareKey(secret);
}

/** Wraps a file key to a recipient's public key (HPKE base mode). `context` is bound to it: the container's header core. */
export async function wrapFileKey(options: { fileKey: Uint8Array; recipient: Uint8Array; context: Uint8Array }): Promise<Uint8Array> {
  const hpke = await suite();
  const recipientPublicKey = await importKey(hpke, options.recipient, true);
  const sealed = await hpke.seal(
    { recipientPublicKey, info: Uint8Array.from(INFO).buffer },
    Uint8Array.from(options.fileKey).buffer,
    Uint8Array.from(options.context).buffer,
  );
  return Buffer.concat([new Uint8Array(sealed.enc), new Uint8Array(sealed.ct)]);
}

/** The file key in a wrap, or undefined when it was not wrapped to this key or for this context. */
export async function unwrapFileKey(options: {
  wrapped: Uint8Array;
  key: ShareKeyPair;
  context: Uint8Array;
}): Promise<Uint8Array | undefined> {
  if (options.wrapped.length !== WRAPPED_KEY_BYTES) return undefined;
  const hpke = await suite();
  try {
    const opened = await hpke.open(
      {
        recipientKey: await importKey(hpke, options.key.secretKey, false),
        enc: Uint8Array.from(options.wrapped.subarray(0, ENCAPSULATED_BYTES)).buffer,
        info: Uint8Array.from(INFO).buffer,
      },
      Uint8Array.from(options.wrapped.subarray(ENCAPSULATED_BYTES)).buffer,
      Uint8Array.from(options.context).buffer,
    );
    return new Uint8Array(opened);
  } catch {
    return undefined;
  }
}

/** A public share key as text: `z6LS…`, the multikey form that did:key uses. */
export function formatShareKey(publicKey: Uint8Array): string {
  return base58btc.encode(Uint8Array.from([...X25519_MULTICODEC, ...publicKey]));
}

/**
 * A public share key from text (`z6LS…`, with or without `did:key:`).
 * @throws bad-share-key
 */
export function parseShareKey(text: string): Uint8Array {
  try {
    const bytes = base58btc.decode(text.trim().replace(/^did:key:/, ''));
    if (bytes.length === 34 && bytes[0] === X25519_MULTICODEC[0] && bytes[1] === X25519_MULTICODEC[1]) return bytes.slice(2);
  } catch {
    // falls through to the typed error
  }
  throw new MillraceError('bad-share-key', {
    actor: 'caller',
    message: `Got "${text.slice(0, 80)}", expected a share key such as z6LS…`,
    values: { got: text.slice(0, 80) },
    hint: 'The recipient sees the share key with `millrace wallet show`.',
  });
}

async function importKey(hpke: CipherSuite, bytes: Uint8Array, isPublic: boolean): Promise<webcrypto.CryptoKey> {
  try {
    return await hpke.kem.importKey('raw', Uint8Array.from(bytes).buffer, isPublic);
  } catch (cause) {
    throw new MillraceError('bad-share-key', {
      actor: 'caller',
      message: `Got a share key of ${bytes.length} bytes, expected an X25519 key of 32 bytes`,
      values: { bytes: bytes.length },
      cause,
    });
  }
}
