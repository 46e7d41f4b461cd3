import { createHash, type Hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { MillraceError } from '../errors.ts';
import type { LocalRequest } from './local-server.ts';
import { chunkSignature, isSame, type S3Authorization } from './s3-signature.ts';

/** The bytes that a request carries, without framing; `check` throws when any digest that came with them is wrong. */
export interface S3Body {
  bytes: AsyncIterable<Uint8Array>;
  /** To be called after the last byte. @throws payload-hash-mismatch, bad-s3-digest, body-cut */
  check(): void;
}

const CHUNK_BYTES_MAX = 16 << 20;
const LINE_BYTES_MAX = 4096;
const TRAILERS_MAX = 16;

interface Digest {
  name: string;
  update(bytes: Uint8Array): void;
  /** In base64, but the payload's SHA-256 in hexadecimal. */
  finish(): string;
}

/**
 * The body of a signed request: plain, or in chunks with or without signatures and trailing headers. What was signed or
 * sent along (SHA-256 of the payload, each chunk's signature, Content-MD5, `x-amz-checksum-*`) is checked.
 */
export function s3Body(request: LocalRequest, { payload, chunks }: S3Authorization): S3Body {
  const { headers } = request;
  const expected = new Map<string, string>();
  for (const [name, value] of Object.entries(headers))
    if (/^x-amz-checksum-(crc32|crc32c|crc64nvme|sha1|sha256)$/.test(name)) expected.set(name, value);
  if (headers['content-md5'] !== undefined) expected.set('content-md5', headers['content-md5']);
  const announced = (headers['x-amz-trailer'] ?? '')
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const digests = [...new Set([...expected.keys(), ...announced])].map(digestOf);
  const isChunked = payload.startsWith('STREAMING-');
  const whole = isChunked || payload === 'UNSIGNED-PAYLOAD' ? undefined : createHash('sha256');
  let received = 0;
  async function* bytes(): AsyncGenerator<Uint8Array> {
    const plain = isChunked ? unframe(request.body, payload, chunks, (name, value) => expected.set(name, value)) : request.body;
    for await (const part of plain) {
      received += part.length;
      for (const digest of digests) digest.update(part);
      whole?.update(part);
      yield part;
    }
  }
  return {
    bytes: bytes(),
    check() {
      const length = headers['x-amz-decoded-content-length'];
      if (isChunked && length !== undefined && Number(length) !== received)
        throw bodyCut(`${received} bytes came, ${length.slice(0, 20)} were announced`);
      if (whole !== undefined && !isSame(whole.digest('hex'), payload.toLowerCase())) throw payloadMismatch();
      for (const name of announced) if (!expected.has(name)) throw bodyCut(`the trailing header ${name.slice(0, 50)} did not come`);
      for (const { name, finish } of digests) checkDigest(name, finish(), expected.get(name) ?? '');
    },
  };
}

/** A small body as text, checked. @throws body-too-big and what the check throws */
export async function s3BodyText(body: S3Body, bytesMax: number): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body.bytes) {
    size += part.length;
    if (size > bytesMax) {
      throw new MillraceError('body-too-big', {
        actor: 'caller',
        message: `The body is longer than ${bytesMax} bytes`,
        values: { limit: bytesMax },
      });
    }
    parts.push(part);
  }
  body.check();
  return Buffer.concat(parts).toString('utf8');
}

/** Takes the framing of `aws-chunked` away, checking each chunk's signature where chunks are signed. */
async function* unframe(
  source: AsyncIterable<Uint8Array>,
  payload: string,
  chunks: S3Authorization['chunks'],
  onTrailer: (name: string, value: string) => void,
): AsyncGenerator<Uint8Array> {
  const isSigned = payload.startsWith('STREAMING-AWS4-HMAC-SHA256-PAYLOAD');
  const hasTrailer = payload.endsWith('-TRAILER');
  if (!isSigned && payload !== 'STREAMING-UNSIGNED-PAYLOAD-TRAILER') throw unknownFraming(payload);
  const reader = createByteReader(source);
  let previous = chunks.seed;
  for (;;) {
    const [size, ...extensions] = (await reader.line()).split(';');
    const length = /^[0-9a-fA-F]{1,8}$/.test(size ?? '') ? Number.parseInt(size as string, 16) : Number.NaN;
    if (!(length <= CHUNK_BYTES_MAX)) throw bodyCut(`a chunk of at most ${CHUNK_BYTES_MAX} bytes was expected`);
    const given = extensions.find((each) => each.startsWith('chunk-signature='))?.slice(16) ?? '';
    const digest = createHash('sha256');
    for await (const part of reader.bytes(length)) {
      if (isSigned) digest.update(part);
      yield part;
    }
    if (length > 0) await reader.emptyLine();
    if (isSigned) {
      previous = chunkSignature(chunks, previous, { sha256: digest.digest('hex') });
      if (!isSame(previous, given)) throw payloadMismatch();
    }
    if (length === 0) break;
  }
  if (!hasTrailer) return reader.emptyLine();
  let trailers = '';
  for (let count = 0; ; count += 1) {
    const line = await reader.line();
    if (line === '') break;
    if (count >= TRAILERS_MAX) throw bodyCut('too many trailing headers');
    const [name, value] = line.split(/:(.*)/s, 2).map((part) => part.trim()) as [string, string | undefined];
    if (name.toLowerCase() === 'x-amz-trailer-signature') {
      const trailerSha256 = createHash('sha256').update(trailers).digest('hex');
      if (!isSame(chunkSignature(chunks, previous, { trailerSha256 }), value ?? '')) throw payloadMismatch();
      return;
    }
    trailers += `${name}:${value ?? ''}\n`;
    onTrailer(name.toLowerCase(), value ?? '');
  }
  if (isSigned) throw bodyCut('the trailing headers are not signed');
}

function createByteReader(source: AsyncIterable<Uint8Array>) {
  const parts = source[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array();
  const more = async (): Promise<void> => {
    const { done, value } = await parts.next();
    if (done === true) throw bodyCut('the last chunk did not come');
    rest = value;
  };
  return {
    async line(): Promise<string> {
      let text = '';
      for (;;) {
        const end = rest.indexOf(0x0a);
        text += Buffer.from(rest.subarray(0, end === -1 ? rest.length : end)).toString('latin1');
        if (text.length > LINE_BYTES_MAX) throw bodyCut(`a line is longer than ${LINE_BYTES_MAX} bytes`);
        if (end !== -1) {
          rest = rest.subarray(end + 1);
          return text.replace(/\r$/, '');
        }
        await more();
      }
    },
    async emptyLine(): Promise<void> {
      if ((await this.line()) !== '') throw bodyCut('a chunk is longer than it says');
    },
    async *bytes(length: number): AsyncGenerator<Uint8Array> {
      for (let left = length; left > 0; ) {
        if (rest.length === 0) await more();
        const part = rest.subarray(0, left);
        rest = rest.subarray(part.length);
        left -= part.length;
        yield part;
      }
    },
  };
}

function digestOf(name: string): Digest {
  const hashed = (hash: Hash): Digest => ({ name, update: (bytes) => void hash.update(bytes), finish: () => hash.digest('base64') });
  if (name === 'content-md5') return hashed(createHash('md5'));
  if (name === 'x-amz-checksum-sha1') return hashed(createHash('sha1'));
  if (name === 'x-amz-checksum-sha256') return hashed(createHash('sha256'));
  if (name === 'x-amz-checksum-crc32') return cyclic(name, crc32);
  if (name === 'x-amz-checksum-crc32c') return cyclic(name, crc32c);
  throw new MillraceError('not-in-s3-subset', {
    actor: 'caller',
    message: `Got ${name.slice(0, 60)}, which this endpoint cannot check`,
    values: { name: name.slice(0, 60) },
    hint: 'Use CRC32, CRC32C, SHA1 or SHA256: `aws configure set default.s3.checksum_algorithm CRC32`.',
  });
}

function cyclic(name: string, next: (bytes: Uint8Array, value: number) => number): Digest {
  let value = 0;
  return {
    name,
    update(bytes) {
      value = next(bytes, value);
    },
    finish() {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value >>> 0);
      return bytes.toString('base64');
    },
  };
}

const CASTAGNOLI = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** CRC-32C (RFC 3720, appendix B.4) of bytes, going on from an earlier value. */
export function crc32c(bytes: Uint8Array, value = 0): number {
  let rest = ~value;
  for (const byte of bytes) rest = (rest >>> 8) ^ (CASTAGNOLI[(rest ^ byte) & 0xff] as number);
  return ~rest >>> 0;
}

function checkDigest(name: string, got: string, expected: string): void {
  if (got === expected) return;
  throw new MillraceError('bad-s3-digest', {
    actor: 'caller',
    message: `The body has ${name} ${got}, ${expected.slice(0, 100)} was announced`,
    values: { name, got, expected: expected.slice(0, 100) },
    hint: 'The bytes changed on their way, or the tool computed the digest of something else. Nothing was stored.',
  });
}

function payloadMismatch(): MillraceError {
  return new MillraceError('payload-hash-mismatch', {
    actor: 'caller',
    message: 'The body is not the one that was signed',
    hint: 'The bytes changed on their way. Nothing was stored.',
  });
}

function bodyCut(why: string): MillraceError {
  return new MillraceError('body-cut', { actor: 'caller', message: `The body is incomplete or malformed: ${why}`, values: { why } });
}

function unknownFraming(payload: string): MillraceError {
  return new MillraceError('not-in-s3-subset', {
    actor: 'caller',
    message: `Got x-amz-content-sha256 ${payload.slice(0, 60)}, which this endpoint does not know`,
    values: { got: payload.slice(0, 60) },
  });
}
