import { createCipheriv, createDecipheriv, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import { FILE_KEY_BYTES, type ShareKeyPair, unwrapFileKey, WRAPPED_KEY_BYTES, wrapFileKey } from './key-wrap.ts';

/**
 * The sealed container, version 1. All integers big-endian.
 *   magic "MILLRACE" (8) | version 1 (1) | suite 1 = AES-256-GCM in STREAM framing (1) | log2 of chunk bytes (1) | wraps n (1)
 *   salt (32) | key commitment (32) | n wrapped file keys (80 each)
 *   chunks: each `2^log2` bytes of ciphertext and tag together, the last one shorter
 * Keys: HKDF-SHA256 of the file key with the salt, one info per purpose. Nonce of chunk i: 7 derived bytes, i (4), 1 for
 * the last chunk else 0 (STREAM, Hoang, Reyhanitabar, Rogaway and Vizár 2015). Every chunk is bound to the whole header.
 */
const MAGIC = Buffer.from('MILLRACE');
const VERSION = 1;
const SUITE = 1;
const CORE_BYTES = 76;
const TAG_BYTES = 16;
const WRAPS_MAX = 16;
const CHUNK_LOG2 = 18;
const CHUNKS_MAX = 2 ** 32;

/** The most bytes that a header can have: reading so many from the start of a container is always enough. */
export const SEALED_HEADER_BYTES_MAX = CORE_BYTES + WRAPS_MAX * WRAPPED_KEY_BYTES;

/** A container's header, parsed: its bytes are bound to every chunk. */
export interface SealedHeader {
  bytes: Uint8Array;
  /** The part that wraps are bound to: everything before the wrapped keys. */
  core: Uint8Array;
  chunkBytes: number;
  wraps: Uint8Array[];
}

/** A container's geometry and keys, to seal or open any chunk of it by index. */
export interface Container {
  header: SealedHeader;
  plainBytes: number;
  sealedBytes: number;
  chunks: number;
  /** Plaintext bytes of a full chunk. */
  chunkPlainBytes: number;
  /** Where chunk i lies in the container: `[start, end)`. */
  rangeOf(index: number): { start: number; end: number };
  /** The ciphertext and the tag of a chunk, to be written one after the other. */
  seal(index: number, plain: Uint8Array): [Buffer, Buffer];
  /** @throws container-damaged */
  open(index: number, sealed: Uint8Array): Buffer;
}

/** A new file key: 32 random bytes. One key seals one content, once. */
export function newFileKey(): Uint8Array {
  return randomBytes(FILE_KEY_BYTES);
}

/** A new header for a file key, with the key wrapped to each recipient (the owner's wallet first). */
export async function createHeader(options: { fileKey: Uint8Array; recipients: Uint8Array[] }): Promise<SealedHeader> {
  const { fileKey, recipients } = options;
  if (recipients.length > WRAPS_MAX) {
    throw new MillraceError('too-many-recipients', {
      actor: 'caller',
      message: `Got ${recipients.length} recipients, the limit is ${WRAPS_MAX}`,
      values: { got: recipients.length, limit: WRAPS_MAX },
      hint: 'Share with the others afterwards: `millrace share CID --to KEY`.',
    });
  }
  const salt = randomBytes(32);
  const core = Buffer.concat([
    MAGIC,
    Buffer.from([VERSION, SUITE, CHUNK_LOG2, recipients.length]),
    salt,
    deriveKey(fileKey, salt, 'commitment', 32),
  ]);
  const wraps = await Promise.all(recipients.map((recipient) => wrapFileKey({ fileKey, recipient, context: core })));
  return { bytes: Buffer.concat([core, ...wraps]), core, chunkBytes: 2 ** CHUNK_LOG2, wraps };
}

/** True when bytes start as a sealed container does. */
export function isSealed(start: Uint8Array): boolean {
  return start.length >= MAGIC.length && MAGIC.equals(start.subarray(0, MAGIC.length));
}

/**
 * Parses the header from the first bytes of a container.
 * @throws container-damaged, container-version-unknown
 */
export function parseHeader(start: Uint8Array): SealedHeader {
  if (!isSealed(start) || start.length < CORE_BYTES) throw damaged('it has no header');
  const [version, suite, chunkLog2, count] = start.subarray(8, 12) as unknown as [number, number, number, number];
  if (version !== VERSION || suite !== SUITE) {
    throw new MillraceError('container-version-unknown', {
      actor: 'caller',
      message: `The content is sealed in version ${version}, suite ${suite}; this program knows version ${VERSION}, suite ${SUITE}`,
      values: { version, suite },
      hint: 'Use a newer Millrace.',
    });
  }
  const length = CORE_BYTES + count * WRAPPED_KEY_BYTES;
  if (chunkLog2 < 12 || chunkLog2 > 24 || count > WRAPS_MAX || start.length < length) throw damaged('its header is malformed');
  const bytes = Uint8Array.from(start.subarray(0, length));
  const wraps = Array.from({ length: count }, (_, i) =>
    bytes.subarray(CORE_BYTES + i * WRAPPED_KEY_BYTES, CORE_BYTES + (i + 1) * WRAPPED_KEY_BYTES),
  );
  return { bytes, core: bytes.subarray(0, CORE_BYTES), chunkBytes: 2 ** chunkLog2, wraps };
}

/** The file key of a container for whoever it was wrapped to, or undefined when none of the wraps is for this key. */
export async function fileKeyFor(header: SealedHeader, key: ShareKeyPair): Promise<Uint8Array | undefined> {
  for (const wrapped of header.wraps) {
    const fileKey = await unwrapFileKey({ wrapped, key, context: header.core });
    if (fileKey !== undefined) return fileKey;
  }
  return undefined;
}

/** Bytes of the container for so many bytes of plaintext. */
export function sealedSize(header: SealedHeader, plainBytes: number): number {
  const perChunk = header.chunkBytes - TAG_BYTES;
  return header.bytes.length + plainBytes + TAG_BYTES * Math.max(1, Math.ceil(plainBytes / perChunk));
}

/**
 * The container of a header, a file key and one of the two sizes. Checks the key's commitment: a wrong key, or a key made
 * to open to something else, is refused before any chunk is.
 * @throws wrong-file-key, container-damaged
 */
export function openContainer(
  input: { header: SealedHeader; fileKey: Uint8Array } & ({ plainBytes: number } | { sealedBytes: number }),
): Container {
  const { header, fileKey } = input;
  const salt = header.core.subarray(12, 44);
  if (fileKey.length !== FILE_KEY_BYTES || !timingSafeEqual(deriveKey(fileKey, salt, 'commitment', 32), header.core.subarray(44, 76))) {
    throw new MillraceError('wrong-file-key', {
      actor: 'caller',
      message: 'The key does not belong to this content',
      hint: 'Use the wallet that stored it, or a grant that was made for you and for this CID.',
    });
  }
  const perChunk = header.chunkBytes - TAG_BYTES;
  const body = 'plainBytes' in input ? sealedSize(header, input.plainBytes) - header.bytes.length : input.sealedBytes - header.bytes.length;
  const chunks = Math.ceil(body / header.chunkBytes);
  const plainBytes = body - chunks * TAG_BYTES;
  const lastBytes = body - (chunks - 1) * header.chunkBytes;
  if (body < TAG_BYTES || chunks > CHUNKS_MAX || lastBytes < TAG_BYTES || (chunks > 1 && lastBytes === TAG_BYTES))
    throw damaged('it is truncated');
  const key = deriveKey(fileKey, salt, 'payload', 32);
  const noncePrefix = deriveKey(fileKey, salt, 'nonce', 7);
  const nonceOf = (index: number): Buffer => {
    const nonce = Buffer.alloc(12);
    noncePrefix.copy(nonce);
    nonce.writeUInt32BE(index, 7);
    nonce[11] = index === chunks - 1 ? 1 : 0;
    return nonce;
  };
  return {
    header,
    plainBytes,
    sealedBytes: header.bytes.length + body,
    chunks,
    chunkPlainBytes: perChunk,
    rangeOf(index) {
      const start = header.bytes.length + index * header.chunkBytes;
      return { start, end: Math.min(start + header.chunkBytes, header.bytes.length + body) };
    },
    seal(index, plain) {
      const cipher = createCipheriv('aes-256-gcm', key, nonceOf(index));
      cipher.setAAD(header.bytes);
      const sealed = cipher.update(plain);
      cipher.final();
      return [sealed, cipher.getAuthTag()];
    },
    open(index, sealed) {
      if (sealed.length < TAG_BYTES) throw damaged(`chunk ${index} is truncated`);
      const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(index), { authTagLength: TAG_BYTES });
      decipher.setAAD(header.bytes);
      decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
      const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
      try {
        decipher.final();
      } catch (cause) {
        throw damaged(`chunk ${index} was changed, moved or cut`, cause);
      }
      return plain;
    },
  };
}

function deriveKey(fileKey: Uint8Array, salt: Uint8Array, purpose: string, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', fileKey, salt, `Millrace container 1 ${purpose}`, length));
}

function damaged(why: string, cause?: unknown): MillraceError {
  return new MillraceError('container-damaged', {
    actor: 'peer',
    message: `The sealed content cannot be opened: ${why}`,
    values: { why },
    hint: 'The content behind this CID was damaged or forged before it was stored; another CID of the same data may be whole.',
    cause,
  });
}
