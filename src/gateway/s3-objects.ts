import { MillraceError } from '../errors.ts';
import type { LocalAnswer } from './local-server.ts';
import type { StoredObject } from './object-index.ts';
import { s3BodyText } from './s3-body.ts';
import { notInSubset } from './s3-buckets.ts';
import { s3ErrorOf } from './s3-errors.ts';
import { badArgument, checkKey } from './s3-limits.ts';
import { httpTime, isoTime, objectHeadersOf, resourceOf, type S3Request, xmlAnswer } from './s3-request.ts';
import { childText, parseXml, type XmlElement, type XmlValue } from './xml.ts';

const DELETE_BODY_BYTES_MAX = 4 << 20;
const DELETE_KEYS_MAX = 1000;
const NO_DATA = '';

/**
 * PutObject. Answered when the object is durable on this machine (or, with `acknowledgeStored`, held by providers); the
 * header `x-millrace-state` says which. Nothing is kept of a body whose digest is wrong.
 * @throws no-such-bucket, precondition-failed, staging-full, payload-hash-mismatch, bad-s3-digest
 */
export async function putObject(call: S3Request): Promise<LocalAnswer> {
  const { request, bucket, key, body, store } = call;
  store.index.bucket(bucket);
  const headers = objectHeadersOf(request.headers);
  const data = await store.staging.receive(body.bytes, { bytesMax: store.limits.objectBytesMax, check: body.check });
  const object = {
    ...headers,
    dataId: data.sizeBytes === 0 ? NO_DATA : data.dataId,
    sizeBytes: data.sizeBytes,
    etag: data.md5.toString('hex'),
    modifiedAtMs: store.nowMs(),
  };
  if (data.sizeBytes === 0) await store.staging.remove(data.dataId);
  try {
    await keep(call, key, object, () => checkWritable(call));
  } catch (error) {
    if (data.sizeBytes > 0) await store.staging.remove(data.dataId);
    throw error;
  }
  return { status: 200, headers: { etag: `"${object.etag}"`, ...stateHeaders(call, object) } };
}

/** Makes an object visible under a key, durably; frees the data that it replaces. */
export async function keep(call: S3Request, key: string, object: StoredObject, guard: () => void = () => {}): Promise<void> {
  const { bucket, store } = call;
  store.index.bucket(bucket);
  guard();
  const before = store.index.object(bucket, key);
  await store.index.change([{ op: 'object', bucket, key, object }]);
  await forget(call, before);
  const { dataId, sizeBytes } = object;
  if (sizeBytes > 0)
    await store.publish({ dataId, sizeBytes, key, isPublic: store.index.bucket(bucket).isPublic }, store.acknowledgeStored);
}

/** Removes the local copy of data that nothing names any more, unless it is being stored. */
async function forget({ store }: S3Request, object: StoredObject | undefined): Promise<void> {
  if (object === undefined || object.sizeBytes === 0 || store.index.isUsed(object.dataId)) return;
  if (store.index.bundleOf(object.dataId)?.state !== 'packed') await store.staging.remove(object.dataId);
}

/** GetObject and HeadObject, with Range, If-Match, If-None-Match, If-Modified-Since and If-Unmodified-Since. @throws no-such-key */
export function getObject(call: S3Request): LocalAnswer {
  const { request, query, store } = call;
  const object = objectAt(call);
  const { headers: asked } = request;
  const headers: Record<string, string> = {
    etag: `"${object.etag}"`,
    'last-modified': httpTime(object.modifiedAtMs),
    'accept-ranges': 'bytes',
    'content-type': object.contentType,
    ...object.others,
    ...stateHeaders(call, object),
  };
  for (const [name, value] of query) if (name.startsWith('response-')) headers[name.slice(9)] = value.replace(/[\r\n]/g, '');
  checkMatch(object, asked['if-match'], asked['if-unmodified-since']);
  if (isKnown(object, asked['if-none-match'], asked['if-modified-since'])) return { status: 304, headers };
  if (query.has('partNumber') && query.get('partNumber') !== '1') throw notInSubset('reading by part number');
  const range = asked['if-range'] === undefined || asked['if-range'] === headers.etag ? rangeOf(asked.range, object.sizeBytes) : undefined;
  const { from, to } = range ?? { from: 0, to: object.sizeBytes };
  headers['content-length'] = String(to - from);
  if (range !== undefined) headers['content-range'] = `bytes ${from}-${to - 1}/${object.sizeBytes}`;
  const body = request.method === 'HEAD' || to === from ? undefined : store.read(object.dataId, from, to, request.signal);
  return { status: range === undefined ? 200 : 206, headers, body };
}

/** DeleteObject; a key that is not there is deleted already. */
export async function deleteObject(call: S3Request): Promise<LocalAnswer> {
  call.store.index.bucket(call.bucket);
  await remove(call, call.key);
  return { status: 204, headers: {} };
}

/** DeleteObjects: up to a thousand keys. @throws malformed-xml */
export async function deleteObjects(call: S3Request): Promise<LocalAnswer> {
  call.store.index.bucket(call.bucket);
  const root = parseXml(await s3BodyText(call.body, DELETE_BODY_BYTES_MAX));
  const keys = root.children.filter(({ name }) => name === 'Object').map((element) => childText(element, 'Key') ?? '');
  if (root.name !== 'Delete' || keys.length === 0 || keys.length > DELETE_KEYS_MAX)
    throw badArgument('Delete', `${keys.length} keys`, `1 to ${DELETE_KEYS_MAX}`);
  const isQuiet = childText(root, 'Quiet') === 'true';
  const outcomes = await Promise.all(keys.map((key) => deleteOne(call, key)));
  const deleted = outcomes.flatMap(({ key, error }) => (error === undefined && !isQuiet ? [{ Key: key }] : []));
  return xmlAnswer('DeleteResult', { Deleted: deleted, Error: outcomes.flatMap(({ error }) => (error === undefined ? [] : [error])) });
}

async function deleteOne(call: S3Request, key: string): Promise<{ key: string; error?: XmlValue }> {
  try {
    await remove(call, checkKey(key));
    return { key };
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error;
    return { key, error: { Key: key, Code: s3ErrorOf(error)[0], Message: error.message } };
  }
}

async function remove(call: S3Request, key: string): Promise<void> {
  const { bucket, store } = call;
  const before = store.index.object(bucket, key);
  if (before === undefined) return;
  await store.index.change([{ op: 'object-gone', bucket, key }]);
  await forget(call, before);
}

/** CopyObject within this endpoint. Between buckets of one kind no bytes move; a sealed object is staged anew for a public bucket. */
export async function copyObject(call: S3Request): Promise<LocalAnswer> {
  const { request, bucket, key, store } = call;
  const source = sourceOf(request.headers['x-amz-copy-source'] ?? '');
  const object = objectAt({ ...call, ...source });
  const { headers } = request;
  checkMatch(object, headers['x-amz-copy-source-if-match'], undefined);
  if (isKnown(object, headers['x-amz-copy-source-if-none-match'], undefined)) throw preconditionFailed(object.etag);
  const isReplaced = headers['x-amz-metadata-directive'] === 'REPLACE';
  if (source.bucket === bucket && source.key === key && !isReplaced)
    throw badArgument('x-amz-copy-source', key, 'another key, or new metadata');
  const described = isReplaced ? objectHeadersOf(headers) : { contentType: object.contentType, others: object.others };
  const isSameKind = store.index.bucket(source.bucket).isPublic === store.index.bucket(bucket).isPublic;
  const dataId = isSameKind || object.sizeBytes === 0 ? object.dataId : await stageAgain(call, object);
  const copy = { ...object, ...described, dataId, modifiedAtMs: store.nowMs() };
  await keep(call, key, copy, () => {
    if (isSameKind && objectAt({ ...call, ...source }).dataId !== object.dataId) throw preconditionFailed(object.etag);
  });
  return xmlAnswer('CopyObjectResult', { ETag: `"${copy.etag}"`, LastModified: isoTime(copy.modifiedAtMs) }, stateHeaders(call, copy));
}

async function stageAgain({ store, request }: S3Request, object: StoredObject): Promise<string> {
  const bytes = store.read(object.dataId, 0, object.sizeBytes, request.signal);
  return (await store.staging.receive(bytes, { bytesMax: object.sizeBytes })).dataId;
}

/** The object that a copy is made of. @throws bad-s3-argument */
export function sourceOf(text: string): { bucket: string; key: string } {
  const [path, version] = text.split('?');
  if (version !== undefined) throw notInSubset('versions of objects');
  const source = resourceOf(path?.startsWith('/') ? path : `/${path}`);
  if (source.key === '') throw badArgument('x-amz-copy-source', text, 'BUCKET/KEY');
  return source;
}

/** The object of a call. @throws no-such-bucket, no-such-key */
export function objectAt({ bucket, key, store }: S3Request): StoredObject {
  const object = store.index.object(bucket, key);
  if (object !== undefined) return object;
  throw new MillraceError('no-such-key', {
    actor: 'caller',
    message: `There is no ${JSON.stringify(key.slice(0, 200))} in ${bucket}`,
    values: { bucket, key: key.slice(0, 200) },
  });
}

/**
 * Where the bytes of an object are: `staged` on this machine only, `stored` by providers that acknowledged it, `proven` on
 * chain; with the content's CID and the path inside it.
 */
export function stateHeaders({ store }: S3Request, object: StoredObject): Record<string, string> {
  if (object.sizeBytes === 0) return { 'x-millrace-state': 'empty' };
  const bundle = store.index.bundleOf(object.dataId);
  if (bundle?.cid === undefined) return { 'x-millrace-state': 'staged' };
  return { 'x-millrace-state': bundle.state, 'x-millrace-cid': bundle.cid, 'x-millrace-path': bundle.names[object.dataId] ?? '' };
}

function checkWritable({ request, bucket, key, store }: S3Request): void {
  const object = store.index.object(bucket, key);
  const { headers } = request;
  if (headers['if-none-match'] === '*' && object !== undefined) throw preconditionFailed(object.etag);
  if (headers['if-match'] !== undefined && (object === undefined || !matches(headers['if-match'], object.etag)))
    throw preconditionFailed(object?.etag);
}

function checkMatch(object: StoredObject, etags: string | undefined, since: string | undefined): void {
  if (etags !== undefined ? !matches(etags, object.etag) : since !== undefined && isLater(object, since))
    throw preconditionFailed(object.etag);
}

function isKnown(object: StoredObject, etags: string | undefined, since: string | undefined): boolean {
  return etags !== undefined ? matches(etags, object.etag) : since !== undefined && !isLater(object, since);
}

function isLater(object: StoredObject, date: string): boolean {
  const time = Date.parse(date);
  return Number.isNaN(time) || Math.floor(object.modifiedAtMs / 1000) * 1000 > time;
}

function matches(etags: string, etag: string): boolean {
  return etags.split(',').some((each) => each.trim() === '*' || each.trim().replace(/^W\//, '').replaceAll('"', '') === etag);
}

/** The bytes of a Range header; undefined for the whole, also when it is no range of bytes or several. @throws range-not-satisfiable */
export function rangeOf(text: string | undefined, size: number): { from: number; to: number } | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(text ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  const from = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const to = match[1] === '' || match[2] === '' ? size : Math.min(size, Number(match[2]) + 1);
  if (from < to) return { from, to };
  throw new MillraceError('range-not-satisfiable', {
    actor: 'caller',
    message: `Got range ${match[0]} of ${size} bytes`,
    values: { range: match[0], size },
  });
}

function preconditionFailed(etag: string | undefined): MillraceError {
  return new MillraceError('precondition-failed', {
    actor: 'caller',
    message: etag === undefined ? 'There is no such object' : `The object's ETag is "${etag}", which the request excludes`,
    values: { etag },
  });
}

/** The children of one name. */
export function childrenOf(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name);
}
