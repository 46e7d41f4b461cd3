import type { webcrypto } from 'node:crypto';
import type { CipherSuite } from '@hpke/core';
import { bytesToHex, type Hex, hexToBytes, type TypedDataDefinition } from 'viem';
import { MillraceError } from '../../errors.ts';

/** An X25519 key pair to which jobs, inputs and outputs are sealed. The secret key is never printed or logged. */
export interface BoxKeyPair {
  /** 32 bytes. */
  publicKey: Hex;
  secretKey: Uint8Array;
}

/** What the key's owner must be able to do. */
interface TypedDataSigner {
  address: Hex;
  signTypedData(typedData: TypedDataDefinition): Promise<Hex>;
}

const MAGIC = Buffer.from('MRB1');
const KEY_BYTES = 32;
const TAG_BYTES = 16;
const CHUNK_BYTES = 1 << 20;
const LENGTH_BYTES = 4;
const PURPOSE = 'This signature is the key to the jobs that are sealed to this account on Millrace. Sign it only in Millrace itself.';
const MORE = Uint8Array.of(0);
const LAST = Uint8Array.of(1);

/**
 * The box key of an account: derived from its signature of one fixed message that names its purpose, so that the account's key alone gives it
 * again anywhere. Not the key to its stored files.
 */
export async function boxKeyOf(signer: TypedDataSigner): Promise<BoxKeyPair> {
  const signature = await signer.signTypedData({
    domain: { name: 'Millrace', version: '1' },
    types: {
      JobKeys: [
        { name: 'purpose', type: 'string' },
        { name: 'account', type: 'address' },
      ],
    },
    primaryType: 'JobKeys',
    message: { purpose: PURPOSE, account: signer.address },
  });
  const { kem } = await suite();
  const pair = await kem.deriveKeyPair(bufferOf(hexToBytes(signature).subarray(0, 2 * KEY_BYTES)));
  return {
    publicKey: bytesToHex(new Uint8Array(await kem.serializePublicKey(pair.publicKey))),
    secretKey: new Uint8Array(await kem.serializePrivateKey(pair.privateKey)),
  };
}

/**
 * Seals a stream to a public key (RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode): a head with the encapsulated
 * key, then chunks of at most 1 MiB, each with its length in front, the last one marked, so that none can be dropped, moved or added.
 * @param context what the content belongs to, e.g. `job 0x12… input data`; it opens under the same context only
 * @throws bad-box-key
 */
export async function* seal(
  plain: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  { recipient, context }: { recipient: Hex; context: string },
): AsyncGenerator<Uint8Array> {
  const hpke = await suite();
  const recipientPublicKey = await importKey(hpke, hexToBytes(recipient), true);
  const sender = await hpke.createSenderContext({ recipientPublicKey, info: bufferOf(Buffer.from(context)) });
  yield Buffer.concat([MAGIC, new Uint8Array(sender.enc)]);
  let waiting: Buffer = Buffer.alloc(0);
  const sealed = async (chunk: Uint8Array, mark: Uint8Array) => {
    const bytes = new Uint8Array(await sender.seal(bufferOf(chunk), bufferOf(mark)));
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(bytes.length);
    return Buffer.concat([length, bytes]);
  };
  for await (const part of plain) {
    waiting = waiting.length === 0 ? Buffer.from(part) : Buffer.concat([waiting, part]);
    for (; waiting.length > CHUNK_BYTES; waiting = waiting.subarray(CHUNK_BYTES)) yield sealed(waiting.subarray(0, CHUNK_BYTES), MORE);
  }
  yield sealed(waiting, LAST);
}

/**
 * Opens what `seal` gave; every chunk is checked before it is handed on, and the end only counts when the last chunk says so: who writes to a
 * file uses it after the stream ended.
 * @throws box-damaged, bad-box-key
 */
export async function* open(
  sealed: AsyncIterable<Uint8Array>,
  { key, context }: { key: BoxKeyPair; context: string },
): AsyncGenerator<Uint8Array> {
  const hpke = await suite();
  const reader = readerOf(sealed);
  const head = await reader.take(MAGIC.length + KEY_BYTES);
  if (head === undefined || !MAGIC.equals(head.subarray(0, MAGIC.length))) throw damaged('it does not begin as one');
  const recipientKey = await importKey(hpke, key.secretKey, false);
  const recipient = await hpke
    .createRecipientContext({ recipientKey, enc: bufferOf(head.subarray(MAGIC.length)), info: bufferOf(Buffer.from(context)) })
    .catch((cause) => Promise.reject(damaged('its key cannot be read', cause)));
  for (let isLast = false; !isLast; ) {
    const length = (await reader.take(LENGTH_BYTES))?.readUInt32BE(0);
    if (length === undefined) throw damaged('it ends early');
    if (length < TAG_BYTES || length > CHUNK_BYTES + TAG_BYTES) throw damaged(`a chunk has ${length} bytes`);
    const chunk = await reader.take(length);
    if (chunk === undefined) throw damaged('it ends early');
    isLast = await reader.isOver();
    try {
      yield new Uint8Array(await recipient.open(bufferOf(chunk), bufferOf(isLast ? LAST : MORE)));
    } catch (cause) {
      throw damaged('it was sealed to another key or for something else, cut off, or changed', cause);
    }
  }
}

/** A short message, sealed; at most a few MiB. @throws bad-box-key */
export async function sealBytes(plain: Uint8Array, to: { recipient: Hex; context: string }): Promise<Uint8Array> {
  return Buffer.concat(await allOf(seal([plain], to)));
}

/** A short message, opened. @throws box-damaged, bad-box-key */
export async function openBytes(sealed: Uint8Array, as: { key: BoxKeyPair; context: string }): Promise<Uint8Array> {
  const one = async function* () {
    yield sealed;
  };
  return Buffer.concat(await allOf(open(one(), as)));
}

async function suite(): Promise<CipherSuite> {
  const { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } = await import('@hpke/core');
  return new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
}

async function importKey(hpke: CipherSuite, bytes: Uint8Array, isPublic: boolean): Promise<webcrypto.CryptoKey> {
  try {
    return await hpke.kem.importKey('raw', bufferOf(bytes), isPublic);
  } catch (cause) {
    throw new MillraceError('bad-box-key', {
      actor: 'caller',
      message: `Got a key of ${bytes.length} bytes to seal to, expected an X25519 key of ${KEY_BYTES} bytes`,
      values: { bytes: bytes.length },
      cause,
    });
  }
}

/** Takes exact numbers of bytes out of a stream; undefined when it ends before. */
function readerOf(stream: AsyncIterable<Uint8Array>): { take(count: number): Promise<Buffer | undefined>; isOver(): Promise<boolean> } {
  const source = stream[Symbol.asyncIterator]();
  let parts: Buffer[] = [];
  let held = 0;
  const fill = async (count: number): Promise<boolean> => {
    while (held < count) {
      const next = await source.next();
      if (next.done === true) return false;
      parts.push(Buffer.from(next.value));
      held += next.value.length;
    }
    return true;
  };
  return {
    async take(count) {
      if (!(await fill(count))) return undefined;
      const all = Buffer.concat(parts);
      parts = [all.subarray(count)];
      held -= count;
      return all.subarray(0, count);
    },
    isOver: async () => !(await fill(1)),
  };
}

async function allOf(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

function bufferOf(bytes: Uint8Array): ArrayBuffer {
  return Uint8Array.from(bytes).buffer;
}

function damaged(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('box-damaged', {
    actor: 'peer',
    message: `A sealed message cannot be opened: ${reason}`,
    values: { reason },
    hint: 'Ask for it again; when that does not help, its sender sealed it to another key.',
    cause,
  });
}
