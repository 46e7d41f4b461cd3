import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import { badImage } from './executor.ts';

/** One member of a tar archive. `content` must be read to its end before the next member is asked for; unread, it is skipped. */
export interface TarEntry {
  path: string;
  type: 'file' | 'folder' | 'symlink' | 'link' | 'other';
  mode: number;
  /** Of its content. */
  sizeBytes: number;
  /** Of a link. */
  target: string;
  content(): AsyncGenerator<Uint8Array>;
}

const BLOCK_BYTES = 512;
const GZIP_MAGIC = 0x1f8b;
/** Of a long name or a pax header. */
const HEADER_BYTES_MAX = 64 << 10;
const TYPES: Record<string, TarEntry['type']> = { '0': 'file', '\0': 'file', '7': 'file', '1': 'link', '2': 'symlink', '5': 'folder' };

/**
 * The members of a tar archive (POSIX ustar with pax and GNU long names), plain or gzipped, one after another: never more of it in memory than
 * one piece. Paths are as the archive has them; whoever writes them somewhere has to judge them.
 * @throws bad-image
 */
export async function* readTarEntries(path: string): AsyncGenerator<TarEntry> {
  const source = await openBytes(path);
  try {
    let long: { path?: string; target?: string; sizeBytes?: number } = {};
    for (;;) {
      const header = await source.take(BLOCK_BYTES);
      if (header.length === 0 || header.every((byte) => byte === 0)) return;
      if (header.length < BLOCK_BYTES) throw badImage('the archive is cut off');
      checkSum(header);
      const code = String.fromCharCode(header[156] as number);
      const stated = long.sizeBytes ?? octal(header, 124, 12);
      if ('xgLK'.includes(code)) {
        if (octal(header, 124, 12) > HEADER_BYTES_MAX) throw badImage('a header of the archive is too long');
        const body = await source.take(octal(header, 124, 12));
        await source.skip(padding(octal(header, 124, 12)));
        if (code === 'x') long = { ...long, ...readPax(body) };
        if (code === 'L') long.path = text(body, 0, body.length);
        if (code === 'K') long.target = text(body, 0, body.length);
        continue;
      }
      const type = TYPES[code] ?? 'other';
      const sizeBytes = type === 'file' ? stated : 0;
      let left = type === 'file' || type === 'other' ? stated : 0;
      const rest = padding(left);
      const content = async function* (): AsyncGenerator<Uint8Array> {
        while (left > 0) {
          const piece = await source.some(left);
          if (piece.length === 0) throw badImage('the archive is cut off');
          left -= piece.length;
          yield piece;
        }
      };
      yield {
        path: long.path ?? nameOf(header),
        target: long.target ?? text(header, 157, 100),
        type,
        mode: octal(header, 100, 8),
        sizeBytes,
        content,
      };
      long = {};
      for await (const _ of content());
      await source.skip(rest);
    }
  } finally {
    await source.close();
  }
}

const padding = (size: number) => (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;

interface ByteSource {
  /** Exactly so many bytes, fewer at the end. */
  take(count: number): Promise<Uint8Array>;
  /** At least one byte and at most so many; none at the end. */
  some(count: number): Promise<Uint8Array>;
  skip(count: number): Promise<void>;
  close(): Promise<void>;
}

async function openBytes(path: string): Promise<ByteSource> {
  const file = await open(path);
  const magic = Buffer.alloc(2);
  await file.read(magic, 0, 2, 0);
  const plain = file.createReadStream({ start: 0, autoClose: false });
  const stream = magic.readUInt16BE(0) === GZIP_MAGIC ? plain.pipe(createGunzip()) : plain;
  plain.on('error', (error) => stream.destroy(error));
  const pieces = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  let held: Uint8Array = new Uint8Array();
  const some = async (count: number) => {
    if (held.length === 0) held = await nextPiece(pieces);
    const piece = held.subarray(0, count);
    held = held.subarray(piece.length);
    return piece;
  };
  const take = async (count: number) => {
    const parts: Uint8Array[] = [];
    for (let left = count; left > 0; ) {
      const piece = await some(left);
      if (piece.length === 0) break;
      parts.push(piece);
      left -= piece.length;
    }
    return Buffer.concat(parts);
  };
  return {
    some,
    take,
    skip: async (count) => void (await take(count)),
    close: async () => {
      stream.destroy();
      plain.destroy();
      await file.close();
    },
  };
}

async function nextPiece(pieces: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  try {
    const { value, done } = await pieces.next();
    return done === true ? new Uint8Array() : value;
  } catch (error) {
    throw badImage('it is not a whole gzip file', error);
  }
}

function checkSum(header: Uint8Array): void {
  const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
  if (sum !== octal(header, 148, 8)) throw badImage('it is no tar archive: a header has a wrong checksum');
}

function octal(header: Uint8Array, at: number, length: number): number {
  const digits = text(header, at, length).trim();
  if (!/^[0-7]{0,11}$/.test(digits)) throw badImage(`a header holds ${JSON.stringify(digits)} where an octal number is due`);
  return digits === '' ? 0 : Number.parseInt(digits, 8);
}

function nameOf(header: Uint8Array): string {
  const prefix = text(header, 257, 6) === 'ustar' ? text(header, 345, 155) : '';
  return prefix === '' ? text(header, 0, 100) : `${prefix}/${text(header, 0, 100)}`;
}

/** Lines of `length key=value`, where the length counts the whole line in bytes. */
function readPax(body: Uint8Array): { path?: string; target?: string; sizeBytes?: number } {
  const found: { path?: string; target?: string; sizeBytes?: number } = {};
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(0x20, at);
    const length = Number(Buffer.from(body.subarray(at, space)).toString('latin1'));
    if (!Number.isSafeInteger(length) || length <= space - at || at + length > body.length) throw badImage('a pax header is malformed');
    const [key, value] = splitOnce(Buffer.from(body.subarray(space + 1, at + length - 1)).toString('utf8'));
    if (key === 'path') found.path = value;
    if (key === 'linkpath') found.target = value;
    if (key === 'size') found.sizeBytes = Number(value);
    at += length;
  }
  if (found.sizeBytes !== undefined && !(Number.isSafeInteger(found.sizeBytes) && found.sizeBytes >= 0))
    throw badImage('a pax size is no number');
  return found;
}

function splitOnce(line: string): [string, string] {
  const at = line.indexOf('=');
  return at === -1 ? [line, ''] : [line.slice(0, at), line.slice(at + 1)];
}

function text(bytes: Uint8Array, at: number, length: number): string {
  const value = bytes.subarray(at, at + length);
  const end = value.indexOf(0);
  return Buffer.from(end === -1 ? value : value.subarray(0, end)).toString('utf8');
}
