import { createHash, randomBytes } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import type { LocalAnswer } from './local-server.ts';
import type { Upload, UploadedPart } from './object-index.ts';
import { s3BodyText } from './s3-body.ts';
import { badArgument } from './s3-limits.ts';
import { childrenOf, keep, objectAt, rangeOf, sourceOf, stateHeaders } from './s3-objects.ts';
import { isoTime, numberIn, objectHeadersOf, type S3Request, xmlAnswer } from './s3-request.ts';
import { childText, parseXml } from './xml.ts';

const PARTS_MAX = 10_000;
const UPLOADS_MAX = 1000;
const BODY_BYTES_MAX = 4 << 20;

/** CreateMultipartUpload. @throws too-many-uploads */
export async function createUpload({ request, bucket, key, store }: S3Request): Promise<LocalAnswer> {
  store.index.bucket(bucket);
  if (store.index.uploads().length >= UPLOADS_MAX) {
    throw new MillraceError('too-many-uploads', {
      actor: 'caller',
      message: `There are ${UPLOADS_MAX} unfinished uploads`,
      values: { limit: UPLOADS_MAX },
      hint: 'Complete or abort some: `aws s3api list-multipart-uploads`.',
    });
  }
  const uploadId = randomBytes(16).toString('hex');
  const upload = { uploadId, bucket, key, startedAtMs: store.nowMs(), ...objectHeadersOf(request.headers) };
  await store.index.change([{ op: 'upload', upload }]);
  return xmlAnswer('InitiateMultipartUploadResult', { Bucket: bucket, Key: key, UploadId: uploadId });
}

/** UploadPart: durable on this machine when answered. */
export async function uploadPart(call: S3Request): Promise<LocalAnswer> {
  const part = await receivePart(call, call.body.bytes, call.body.check);
  return { status: 200, headers: { etag: `"${part.etag}"` } };
}

/** UploadPartCopy, of an object or a range of one. */
export async function uploadPartCopy(call: S3Request): Promise<LocalAnswer> {
  const { request, store } = call;
  const object = objectAt({ ...call, ...sourceOf(request.headers['x-amz-copy-source'] ?? '') });
  const range = rangeOf(request.headers['x-amz-copy-source-range'], object.sizeBytes) ?? { from: 0, to: object.sizeBytes };
  const part = await receivePart(call, store.read(object.dataId, range.from, range.to, request.signal));
  return xmlAnswer('CopyPartResult', { ETag: `"${part.etag}"`, LastModified: isoTime(part.modifiedAtMs) });
}

async function receivePart(call: S3Request, bytes: AsyncIterable<Uint8Array>, check?: () => void): Promise<UploadedPart> {
  const { query, store } = call;
  const { uploadId } = uploadOf(call);
  const number = numberIn(query, 'partNumber', { least: 1, most: PARTS_MAX });
  const data = await store.staging.receive(bytes, { bytesMax: store.limits.objectBytesMax, check });
  const part = { number, dataId: data.dataId, sizeBytes: data.sizeBytes, etag: data.md5.toString('hex'), modifiedAtMs: store.nowMs() };
  try {
    uploadOf(call);
  } catch (error) {
    await store.staging.remove(data.dataId); // it was ended while the part came
    throw error;
  }
  const before = store.index.parts(uploadId).find((each) => each.number === number);
  await store.index.change([{ op: 'part', uploadId, part }]);
  if (before !== undefined) await store.staging.remove(before.dataId);
  return part;
}

/** CompleteMultipartUpload: the parts become one object, at once. @throws bad-part, bad-part-order, part-too-small */
export async function completeUpload(call: S3Request): Promise<LocalAnswer> {
  const { bucket, key, store, body } = call;
  const upload = uploadOf(call);
  const parts = chosenParts(call, await s3BodyText(body, BODY_BYTES_MAX));
  const digest = createHash('md5');
  for (const { etag } of parts) digest.update(Buffer.from(etag, 'hex'));
  async function* bytes() {
    for (const { dataId, sizeBytes } of parts) yield* store.staging.read(dataId, 0, sizeBytes);
  }
  const sizeBytes = parts.reduce((sum, part) => sum + part.sizeBytes, 0);
  const data = await store.staging.receive(bytes(), { bytesMax: sizeBytes });
  const { contentType, others } = upload;
  const object = {
    contentType,
    others,
    dataId: sizeBytes === 0 ? '' : data.dataId,
    sizeBytes,
    etag: `${digest.digest('hex')}-${parts.length}`,
    modifiedAtMs: store.nowMs(),
  };
  if (sizeBytes === 0) await store.staging.remove(data.dataId);
  try {
    await keep(call, key, object, () => void uploadOf(call));
  } catch (error) {
    if (!store.index.isUsed(data.dataId)) await store.staging.remove(data.dataId);
    throw error;
  }
  await endUpload(call, upload);
  return xmlAnswer(
    'CompleteMultipartUploadResult',
    { Location: `/${bucket}/${key}`, Bucket: bucket, Key: key, ETag: `"${object.etag}"` },
    stateHeaders(call, object),
  );
}

/** AbortMultipartUpload: its parts are gone. */
export async function abortUpload(call: S3Request): Promise<LocalAnswer> {
  await endUpload(call, uploadOf(call));
  return { status: 204, headers: {} };
}

/** ListParts. */
export function listParts(call: S3Request): LocalAnswer {
  const { bucket, key, query, store } = call;
  const { uploadId } = uploadOf(call);
  const after = numberIn(query, 'part-number-marker', { least: 0, most: PARTS_MAX, otherwise: 0 });
  const most = Math.min(1000, numberIn(query, 'max-parts', { least: 1, most: 1e9, otherwise: 1000 }));
  const following = store.index.parts(uploadId).filter(({ number }) => number > after);
  const shown = following.slice(0, most);
  return xmlAnswer('ListPartsResult', {
    Bucket: bucket,
    Key: key,
    UploadId: uploadId,
    PartNumberMarker: after,
    NextPartNumberMarker: shown.at(-1)?.number,
    MaxParts: most,
    IsTruncated: following.length > most,
    Part: shown.map((part) => ({
      PartNumber: part.number,
      LastModified: isoTime(part.modifiedAtMs),
      ETag: `"${part.etag}"`,
      Size: part.sizeBytes,
    })),
  });
}

async function endUpload({ store }: S3Request, { uploadId }: Upload): Promise<void> {
  const parts = store.index.parts(uploadId);
  await store.index.change([{ op: 'upload-gone', uploadId }]);
  for (const { dataId } of parts) await store.staging.remove(dataId);
}

function uploadOf({ bucket, key, query, store }: S3Request): Upload {
  store.index.bucket(bucket);
  const uploadId = query.get('uploadId') ?? '';
  const upload = store.index.upload(uploadId);
  if (upload !== undefined && upload.bucket === bucket && upload.key === key) return upload;
  throw new MillraceError('no-such-upload', {
    actor: 'caller',
    message: `There is no upload ${uploadId.slice(0, 64)} of ${JSON.stringify(key.slice(0, 200))}`,
    values: { uploadId: uploadId.slice(0, 64) },
  });
}

function chosenParts({ query, store }: S3Request, text: string): UploadedPart[] {
  const root = parseXml(text);
  const known = new Map(store.index.parts(query.get('uploadId') ?? '').map((part) => [part.number, part]));
  const wanted = childrenOf(root, 'Part').map((element) => ({
    number: Number(childText(element, 'PartNumber')),
    etag: childText(element, 'ETag') ?? '',
  }));
  if (root.name !== 'CompleteMultipartUpload' || wanted.length === 0 || wanted.length > PARTS_MAX)
    throw badArgument('Part', `${wanted.length} parts`, `1 to ${PARTS_MAX}`);
  for (const [index, { number }] of wanted.entries()) {
    const before = wanted[index - 1];
    if (before !== undefined && before.number >= number) {
      throw new MillraceError('bad-part-order', {
        actor: 'caller',
        message: `Part ${number} is named after part ${before.number}`,
        values: { number, after: before.number },
      });
    }
  }
  return wanted.map(({ number, etag }, index) => {
    const part = known.get(number);
    if (part === undefined || part.etag !== etag.replaceAll('"', '')) {
      throw new MillraceError('bad-part', {
        actor: 'caller',
        message: `Part ${number} did not come, or has another ETag`,
        values: { number, etag: etag.slice(0, 64) },
      });
    }
    if (index < wanted.length - 1 && part.sizeBytes < store.limits.partBytesMin) {
      throw new MillraceError('part-too-small', {
        actor: 'caller',
        message: `Part ${number} has ${part.sizeBytes} bytes, all but the last have at least ${store.limits.partBytesMin}`,
        values: { number, got: part.sizeBytes, limit: store.limits.partBytesMin },
      });
    }
    return part;
  });
}
