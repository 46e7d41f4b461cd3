import { gunzipSync } from 'node:zlib';
import { MillraceError } from '../../errors.ts';

/** What a tarball may be at most; beyond it reading stops with an error. */
export interface TarballLimits {
  /** Of the unpacked archive, in bytes. */
  unpackedBytesMax: number;
  entriesMax: number;
}

const BLOCK_BYTES = 512;
const DEFAULT_LIMITS: TarballLimits = { unpackedBytesMax: 256 << 20, entriesMax: 5_000 };

/**
 * The wanted files of a gzipped tar archive (POSIX ustar, IEEE 1003.1, with pax and GNU names), by their paths in it. Nothing is written
 * anywhere; links, devices, absolute paths, `..` and oversized archives are refused whole, also where they were not asked for.
 * @throws bad-tarball
 */
export function readTarball(
  bytes: Uint8Array,
  wanted: ReadonlySet<string>,
  limits: Partial<TarballLimits> = {},
): Map<string, Uint8Array<ArrayBuffer>> {
  const { unpackedBytesMax, entriesMax } = { ...DEFAULT_LIMITS, ...limits };
  const archive = unpack(bytes, unpackedBytesMax);
  const found = new Map<string, Uint8Array<ArrayBuffer>>();
  let entries = 0;
  let longName: string | undefined;
  for (let at = 0; at + BLOCK_BYTES <= archive.length; ) {
    const header = archive.subarray(at, at + BLOCK_BYTES);
    if (header.every((byte) => byte === 0)) break;
    if (++entries > entriesMax) throw badTarball(`it has more than ${entriesMax} entries`);
    checkSum(header);
    const size = octal(header, 124, 12);
    const body = archive.subarray(at + BLOCK_BYTES, at + BLOCK_BYTES + size);
    if (body.length !== size) throw badTarball('it ends in the middle of a file');
    at += BLOCK_BYTES + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
    const type = String.fromCharCode(header[156] as number);
    if (type === 'g') continue;
    if (type === 'x' || type === 'L') {
      longName = type === 'x' ? paxPath(body) : text(body, 0, body.length);
      continue;
    }
    const path = checkPath(longName ?? nameOf(header));
    longName = undefined;
    if (type === '5') continue;
    if (type !== '0' && type !== '\0') throw badTarball(`${path} is a link or a device (type ${JSON.stringify(type)})`);
    if (wanted.has(path)) found.set(path, new Uint8Array(body));
  }
  return found;
}

function unpack(bytes: Uint8Array, maxOutputLength: number): Uint8Array {
  try {
    return gunzipSync(bytes, { maxOutputLength });
  } catch (cause) {
    const reason =
      (cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE' ? `it unpacks to more than ${maxOutputLength} bytes` : '';
    throw badTarball(reason || 'it is not a gzip file, or is cut off', cause);
  }
}

function checkSum(header: Uint8Array): void {
  const stated = octal(header, 148, 8);
  let sum = 0;
  for (let at = 0; at < BLOCK_BYTES; at += 1) sum += at >= 148 && at < 156 ? 32 : (header[at] as number);
  if (sum !== stated) throw badTarball('a header has a wrong checksum');
}

function octal(header: Uint8Array, at: number, length: number): number {
  const digits = text(header, at, length).trim();
  if (!/^[0-7]{1,11}$/.test(digits)) throw badTarball(`a header holds ${JSON.stringify(digits)} where an octal number is due`);
  return Number.parseInt(digits, 8);
}

function nameOf(header: Uint8Array): string {
  const prefix = text(header, 257, 5) === 'ustar' ? text(header, 345, 155) : '';
  return prefix === '' ? text(header, 0, 100) : `${prefix}/${text(header, 0, 100)}`;
}

/** The `path` record of a pax header: lines of `length key=value`. */
function paxPath(body: Uint8Array): string | undefined {
  return /(?:^|\n)\d+ path=([^\n]*)\n/.exec(Buffer.from(body).toString('utf8'))?.[1];
}

function checkPath(path: string): string {
  const parts = path.replace(/\/$/, '').split('/');
  const isBad = path.startsWith('/') || /[\\\0]/.test(path) || parts.some((part) => part === '' || part === '..' || part === '.');
  if (isBad) throw badTarball(`it holds the path ${JSON.stringify(path.slice(0, 200))}`);
  return path;
}

function text(bytes: Uint8Array, at: number, length: number): string {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  return Buffer.from(end === -1 ? field : field.subarray(0, end)).toString('utf8');
}

function badTarball(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-tarball', {
    actor: 'peer',
    message: `The package's archive cannot be used: ${reason}`,
    values: { reason },
    hint: 'Fetch it again, or from another registry.',
    cause,
  });
}
