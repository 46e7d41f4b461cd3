import type { LocalAnswer } from './local-server.ts';
import { compareKeys, type StoredObject } from './object-index.ts';
import { notInSubset } from './s3-buckets.ts';
import { badArgument } from './s3-limits.ts';
import { isoTime, numberIn, type S3Request, xmlAnswer } from './s3-request.ts';
import { encodePart } from './s3-signature.ts';

/** One page of a listing: objects and common prefixes in the order of their keys. */
interface Page {
  objects: { key: string; object: StoredObject }[];
  prefixes: string[];
  /** The last key or prefix of the page when more follow. */
  last: string | undefined;
}

const KEYS_MAX = 1000;
const LAST_CHARACTER = '\u{10ffff}';

/** ListObjectsV2. */
export function listObjectsV2(call: S3Request): LocalAnswer {
  const { query, bucket } = call;
  const token = query.get('continuation-token');
  const after = token === undefined ? (query.get('start-after') ?? '') : decodeToken(token);
  const limit = numberIn(query, 'max-keys', { least: 0, most: 1e9, otherwise: KEYS_MAX });
  const page = pageOf(call, after, limit);
  const { encode, common } = shownBy(call, page, limit);
  return xmlAnswer('ListBucketResult', {
    Name: bucket,
    Prefix: encode(query.get('prefix') ?? ''),
    ...common,
    KeyCount: page.objects.length + page.prefixes.length,
    ContinuationToken: token,
    NextContinuationToken: page.last === undefined ? undefined : Buffer.from(page.last).toString('base64url'),
    StartAfter: query.has('start-after') ? encode(query.get('start-after') as string) : undefined,
  });
}

/** ListObjects, the older form. */
export function listObjectsV1(call: S3Request): LocalAnswer {
  const { query, bucket } = call;
  const marker = query.get('marker') ?? '';
  const limit = numberIn(query, 'max-keys', { least: 0, most: 1e9, otherwise: KEYS_MAX });
  const page = pageOf(call, marker, limit);
  const { encode, common } = shownBy(call, page, limit);
  return xmlAnswer('ListBucketResult', {
    Name: bucket,
    Prefix: encode(query.get('prefix') ?? ''),
    Marker: encode(marker),
    NextMarker: page.last === undefined ? undefined : encode(page.last),
    ...common,
  });
}

function shownBy({ query }: S3Request, page: Page, limit: number) {
  const encoding = query.get('encoding-type');
  if (encoding !== undefined && encoding !== 'url') throw badArgument('encoding-type', encoding, 'url');
  const encode = (text: string) => (encoding === 'url' ? encodePart(text).replaceAll('%2F', '/') : text);
  const owner = query.get('fetch-owner') === 'true' ? { ID: 'millrace', DisplayName: 'millrace' } : undefined;
  const delimiter = query.get('delimiter');
  const common = {
    Delimiter: delimiter === undefined ? undefined : encode(delimiter),
    MaxKeys: limit,
    EncodingType: encoding,
    IsTruncated: page.last !== undefined,
    Contents: page.objects.map(({ key, object }) => ({
      Key: encode(key),
      LastModified: isoTime(object.modifiedAtMs),
      ETag: `"${object.etag}"`,
      Size: object.sizeBytes,
      StorageClass: 'STANDARD',
      Owner: owner,
    })),
    CommonPrefixes: page.prefixes.map((prefix) => ({ Prefix: encode(prefix) })),
  };
  return { encode, common };
}

function pageOf({ query, bucket, store }: S3Request, after: string, limit: number): Page {
  const prefix = query.get('prefix') ?? '';
  const delimiter = query.get('delimiter') ?? '';
  const most = Math.min(limit, KEYS_MAX);
  const page: Page = { objects: [], prefixes: [], last: undefined };
  store.index.bucket(bucket);
  if (most === 0) return page;
  let last: string | undefined;
  // After a common prefix the listing goes on behind all that it stands for.
  const isPrefix = delimiter !== '' && after.endsWith(delimiter) && after.startsWith(prefix) && after.length > prefix.length;
  let start = isPrefix ? after + LAST_CHARACTER : after;
  for (let isEnd = false; !isEnd; ) {
    isEnd = true;
    for (const key of store.index.keysFrom(bucket, compareKeys(start, prefix) > 0 ? start : prefix)) {
      if (key === after) continue;
      if (!key.startsWith(prefix)) return page;
      if (page.objects.length + page.prefixes.length >= most) return { ...page, last };
      const cut = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
      if (cut === -1) {
        page.objects.push({ key, object: store.index.object(bucket, key) as StoredObject });
        last = key;
        continue;
      }
      last = key.slice(0, cut + delimiter.length);
      page.prefixes.push(last);
      start = last + LAST_CHARACTER;
      isEnd = false;
      break;
    }
  }
  return page;
}

function decodeToken(token: string): string {
  const text = Buffer.from(token, 'base64url').toString('utf8');
  if (Buffer.from(text).toString('base64url') !== token) throw badArgument('continuation-token', token, 'one that a listing gave');
  return text;
}

/** ListMultipartUploads: all that have begun in a bucket, at most a thousand. */
export function listUploads({ bucket, query, store }: S3Request): LocalAnswer {
  store.index.bucket(bucket);
  if (query.has('delimiter')) throw notInSubset('a delimiter for uploads');
  const prefix = query.get('prefix') ?? '';
  const uploads = store.index.uploads().filter((upload) => upload.bucket === bucket && upload.key.startsWith(prefix));
  return xmlAnswer('ListMultipartUploadsResult', {
    Bucket: bucket,
    Prefix: prefix,
    MaxUploads: KEYS_MAX,
    IsTruncated: uploads.length > KEYS_MAX,
    Upload: uploads
      .slice(0, KEYS_MAX)
      .map(({ key, uploadId, startedAtMs }) => ({ Key: key, UploadId: uploadId, Initiated: isoTime(startedAtMs) })),
  });
}
