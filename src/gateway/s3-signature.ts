import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import type { LocalRequest } from './local-server.ts';

/** The key with which tools sign. */
export interface S3Credentials {
  accessKey: string;
  secretKey: string;
}

/** A request whose signature was found right: how its body is protected, and what signs its chunks. */
export interface S3Authorization {
  /** `x-amz-content-sha256` as signed: a hash in hexadecimal, `UNSIGNED-PAYLOAD` or one of the `STREAMING-…` words. */
  payload: string;
  /** For signed chunks. */
  chunks: { key: Buffer; date: string; scope: string; seed: string };
}

/** The query of a request, decoded, in the order in which it came. */
export type QueryEntries = readonly (readonly [name: string, value: string])[];

const ALGORITHM = 'AWS4-HMAC-SHA256';
const SKEW_MS = 15 * 60_000;
const EXPIRES_SECONDS_MAX = 7 * 86_400;
const EMPTY_HASH = createHash('sha256').digest('hex');

interface Claim {
  accessKey: string;
  scope: string;
  day: string;
  region: string;
  signedHeaders: string[];
  signature: string;
  date: string;
  expiresSeconds: number | undefined;
  payload: string;
}

/**
 * Checks AWS Signature Version 4 of a request, in the Authorization header or in the query (presigned URL). Every `x-amz-`
 * header and Host must be signed. Any region is accepted; the service must be s3.
 * Rule: docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
 * @throws access-denied-s3, access-key-unknown, authorization-malformed, request-time-skewed, request-expired, signature-mismatch
 */
export function authorizeS3(request: LocalRequest, query: QueryEntries, credentials: S3Credentials, nowMs: number): S3Authorization {
  const isPresigned = query.some(([name]) => name === 'X-Amz-Signature');
  if (query.some(([name]) => name === 'AWSAccessKeyId'))
    throw malformed('Signature Version 2 is not accepted, set signature_version to s3v4');
  const claim = isPresigned ? claimOfQuery(query) : claimOfHeader(request);
  if (!isSame(claim.accessKey, credentials.accessKey)) {
    throw new MillraceError('access-key-unknown', {
      actor: 'caller',
      message: 'The access key is not the one of this endpoint',
      hint: 'See `millrace s3 keys`.',
    });
  }
  checkTime(claim, nowMs);
  const missing = Object.keys(request.headers).filter((name) => name.startsWith('x-amz-') && !claim.signedHeaders.includes(name));
  if (!claim.signedHeaders.includes('host') || missing.length > 0)
    throw malformed(`headers that must be signed are not: ${missing.join(', ') || 'host'}`);
  const canonical = [
    request.method,
    encodePath(request.rawPath),
    canonicalQuery(query),
    ...claim.signedHeaders.map((name) => `${name}:${(request.headers[name] ?? '').trim().replace(/ +/g, ' ')}`),
    '',
    claim.signedHeaders.join(';'),
    claim.payload,
  ].join('\n');
  const key = signingKey(credentials.secretKey, claim);
  const toSign = [ALGORITHM, claim.date, claim.scope, createHash('sha256').update(canonical).digest('hex')].join('\n');
  if (!isSame(hmac(key, toSign).toString('hex'), claim.signature)) {
    throw new MillraceError('signature-mismatch', {
      actor: 'caller',
      message: 'The signature of the request is not the one that the secret key gives',
      hint: 'Check the secret key (`millrace s3 keys`), and that no proxy changes the request.',
    });
  }
  return { payload: claim.payload, chunks: { key, date: claim.date, scope: claim.scope, seed: claim.signature } };
}

/** The signature of one chunk of a signed, chunked body; `trailer` is given for the trailing headers. */
export function chunkSignature(
  chunks: S3Authorization['chunks'],
  previous: string,
  content: { sha256: string } | { trailerSha256: string },
): string {
  const isTrailer = 'trailerSha256' in content;
  const lines = [`${ALGORITHM}-${isTrailer ? 'TRAILER' : 'PAYLOAD'}`, chunks.date, chunks.scope, previous];
  const rest = isTrailer ? [content.trailerSha256] : [EMPTY_HASH, content.sha256];
  return hmac(chunks.key, [...lines, ...rest].join('\n')).toString('hex');
}

/** The query as pairs, percent-decoded; a plus sign is a plus sign. @throws bad-s3-argument */
export function parseQuery(rawQuery: string): [string, string][] {
  return rawQuery
    .split('&')
    .filter((part) => part !== '')
    .map((part) => {
      const cut = part.indexOf('=');
      const [name, value] = cut === -1 ? [part, ''] : [part.slice(0, cut), part.slice(cut + 1)];
      return [decodePart(name), decodePart(value)];
    });
}

/** Percent-decodes UTF-8. @throws bad-s3-argument */
export function decodePart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new MillraceError('bad-s3-argument', {
      actor: 'caller',
      message: `Got ${text.slice(0, 100)}, expected percent-encoded UTF-8`,
      values: { got: text.slice(0, 100) },
      cause,
    });
  }
}

/** Percent-encodes all but the unreserved characters, as AWS does. */
export function encodePart(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** True when two texts are equal; takes as long whatever they share. */
export function isSame(one: string, other: string): boolean {
  const [left, right] = [one, other].map((text) => createHash('sha256').update(text).digest()) as [Buffer, Buffer];
  return timingSafeEqual(left, right);
}

function claimOfHeader({ headers }: LocalRequest): Claim {
  const text = headers.authorization;
  if (text === undefined) {
    throw new MillraceError('access-denied-s3', {
      actor: 'caller',
      message: 'The request is not signed',
      hint: 'Configure the tool with the keys of `millrace s3 keys`; public content is read by `millrace link`.',
    });
  }
  const match = /^AWS4-HMAC-SHA256\s+(.{1,4000})$/.exec(text);
  if (match === null) throw malformed('AWS Signature Version 4 is expected');
  const fields = new Map((match[1] as string).split(',').map((part) => part.trim().split(/=(.*)/s, 2) as [string, string]));
  const date = headers['x-amz-date'] ?? '';
  // Tools that leave the header away have signed the hash of an empty body; s3Body then refuses any other.
  const payload = headers['x-amz-content-sha256'] ?? EMPTY_HASH;
  return {
    ...credentialOf(fields.get('Credential')),
    signedHeaders: (fields.get('SignedHeaders') ?? '').split(';'),
    signature: fields.get('Signature') ?? '',
    date,
    expiresSeconds: undefined,
    payload,
  };
}

function claimOfQuery(query: QueryEntries): Claim {
  const value = (name: string) => query.find(([each]) => each === name)?.[1];
  if (value('X-Amz-Algorithm') !== ALGORITHM) throw malformed('AWS Signature Version 4 is expected');
  const expires = value('X-Amz-Expires') ?? '';
  if (!/^\d{1,6}$/.test(expires) || Number(expires) < 1 || Number(expires) > EXPIRES_SECONDS_MAX) throw malformed('X-Amz-Expires');
  return {
    ...credentialOf(value('X-Amz-Credential')),
    signedHeaders: (value('X-Amz-SignedHeaders') ?? '').split(';'),
    signature: value('X-Amz-Signature') ?? '',
    date: value('X-Amz-Date') ?? '',
    expiresSeconds: Number(expires),
    payload: 'UNSIGNED-PAYLOAD',
  };
}

function credentialOf(text: string | undefined): Pick<Claim, 'accessKey' | 'scope' | 'day' | 'region'> {
  const match = /^([A-Za-z0-9]{1,128})\/(\d{8})\/([A-Za-z0-9-]{1,64})\/s3\/aws4_request$/.exec(text ?? '');
  if (match === null) throw malformed('the credential is KEY/DATE/REGION/s3/aws4_request');
  const [, accessKey, day, region] = match as unknown as [string, string, string, string];
  return { accessKey, day, region, scope: `${day}/${region}/s3/aws4_request` };
}

function checkTime(claim: Claim, nowMs: number): void {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(claim.date);
  if (match === null || !claim.date.startsWith(claim.day)) throw malformed('x-amz-date is YYYYMMDDTHHMMSSZ of the credential’s day');
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [number, number, number, number, number, number];
  const signedAtMs = Date.UTC(year, month - 1, day, hour, minute, second);
  const isLate = claim.expiresSeconds === undefined ? nowMs > signedAtMs + SKEW_MS : nowMs > signedAtMs + claim.expiresSeconds * 1000;
  if (isLate && claim.expiresSeconds !== undefined) {
    throw new MillraceError('request-expired', {
      actor: 'caller',
      message: `The presigned URL was good for ${claim.expiresSeconds} s`,
      values: { expiresSeconds: claim.expiresSeconds },
      hint: 'Make a new one.',
    });
  }
  if (isLate || signedAtMs > nowMs + SKEW_MS) {
    throw new MillraceError('request-time-skewed', {
      actor: 'caller',
      message: `The request was signed at ${claim.date}, more than 15 minutes from now`,
      values: { date: claim.date, limitMs: SKEW_MS },
      hint: 'Set the clock of the machine.',
    });
  }
}

function signingKey(secretKey: string, { day, region }: Claim): Buffer {
  return ['s3', 'aws4_request'].reduce(hmac, hmac(hmac(Buffer.from(`AWS4${secretKey}`), day), region));
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

/** The path with each step encoded once, as AWS signs it for S3: no step is resolved. */
function encodePath(rawPath: string): string {
  return rawPath
    .split('/')
    .map((step) => encodePart(decodePart(step)))
    .join('/');
}

function canonicalQuery(query: QueryEntries): string {
  return query
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]) => [encodePart(name), encodePart(value)] as const)
    .sort(([oneName, oneValue], [otherName, otherValue]) =>
      oneName === otherName ? (oneValue < otherValue ? -1 : 1) : oneName < otherName ? -1 : 1,
    )
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

function malformed(why: string): MillraceError {
  return new MillraceError('authorization-malformed', {
    actor: 'caller',
    message: `The authorization of the request is not acceptable: ${why}`,
    values: { why },
  });
}
