import { MillraceError } from '../errors.ts';
import type { LocalAnswer, LocalRequest } from './local-server.ts';
import type { ObjectHeaders, ObjectIndex } from './object-index.ts';
import type { NewData } from './object-publisher.ts';
import type { ObjectStaging } from './object-staging.ts';
import type { S3Body } from './s3-body.ts';
import { badArgument, checkKey } from './s3-limits.ts';
import { decodePart } from './s3-signature.ts';
import { type XmlValue, xmlDocument } from './xml.ts';

/** What operations work on. */
export interface S3Store {
  index: ObjectIndex;
  staging: ObjectStaging;
  /** Bytes `from` to `to` (exclusive) of a datum, from this machine or from the network, verified. */
  read(dataId: string, from: number, to: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Says that there is something new to store. With `untilStored` it resolves when the network holds it. */
  publish(data: NewData, untilStored: boolean): Promise<void>;
  nowMs(): number;
  limits: S3Limits;
  /** A PutObject is answered when providers hold the object, not already when it is durable here. */
  acknowledgeStored: boolean;
}

/** Sizes that S3's users expect; tests make them smaller. */
export interface S3Limits {
  objectBytesMax: number;
  partBytesMin: number;
}

/** A request whose signature was right. */
export interface S3Request {
  request: LocalRequest;
  bucket: string;
  key: string;
  query: Map<string, string>;
  body: S3Body;
  store: S3Store;
}

const METADATA_BYTES_MAX = 8192;
const KEPT_HEADERS = ['cache-control', 'content-disposition', 'content-encoding', 'content-language', 'expires'];

/** Bucket and key of a path, percent-decoded; a key is a text and never a path on a disk. @throws bad-object-key */
export function resourceOf(rawPath: string): { bucket: string; key: string } {
  const path = rawPath.replace(/^https?:\/\/[^/]*/, '').replace(/^\//, '');
  const cut = path.indexOf('/');
  const bucket = decodePart(cut === -1 ? path : path.slice(0, cut));
  return { bucket, key: checkKey(cut === -1 ? '' : decodePart(path.slice(cut + 1))) };
}

/** An answer with an XML document. */
export function xmlAnswer(root: string, value: XmlValue, headers: Record<string, string> = {}): LocalAnswer {
  return { status: 200, headers: { 'content-type': 'application/xml', ...headers }, body: xmlDocument(root, value) };
}

/** A whole number in the query. @throws bad-s3-argument */
export function numberIn(query: Map<string, string>, name: string, range: { least: number; most: number; otherwise?: number }): number {
  const text = query.get(name);
  if (text === undefined && range.otherwise !== undefined) return range.otherwise;
  const value = /^\d{1,10}$/.test(text ?? '') ? Number(text) : Number.NaN;
  if (value >= range.least && value <= range.most) return value;
  throw badArgument(name, text ?? '', `a whole number from ${range.least} to ${range.most}`);
}

/** What a client says about an object in the headers of its upload. @throws metadata-too-big */
export function objectHeadersOf(headers: Record<string, string>): ObjectHeaders {
  const others: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!KEPT_HEADERS.includes(name) && !name.startsWith('x-amz-meta-')) continue;
    // Framing is not a property of the object.
    const kept =
      name === 'content-encoding'
        ? value
            .split(',')
            .map((word) => word.trim())
            .filter((word) => word !== 'aws-chunked')
            .join(', ')
        : value;
    if (kept !== '') others[name] = kept;
  }
  const contentType = (headers['content-type'] ?? 'binary/octet-stream').slice(0, 200);
  const size = JSON.stringify(others).length;
  if (size > METADATA_BYTES_MAX) {
    throw new MillraceError('metadata-too-big', {
      actor: 'caller',
      message: `The metadata takes ${size} bytes, at most ${METADATA_BYTES_MAX} are kept`,
      values: { got: size, limit: METADATA_BYTES_MAX },
    });
  }
  return { contentType, others };
}

/** Time as XML shows it. */
export function isoTime(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

/** Time as headers show it. */
export function httpTime(timeMs: number): string {
  return new Date(timeMs).toUTCString();
}
