import { randomBytes } from 'node:crypto';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { LocalAnswer, LocalRequest } from './local-server.ts';
import { s3Body } from './s3-body.ts';
import { createBucket, deleteBucket, describeBucket, headBucket, listBuckets, notInSubset } from './s3-buckets.ts';
import { s3ErrorAnswer } from './s3-errors.ts';
import { listObjectsV1, listObjectsV2, listUploads } from './s3-listing.ts';
import { abortUpload, completeUpload, createUpload, listParts, uploadPart, uploadPartCopy } from './s3-multipart.ts';
import { copyObject, deleteObject, deleteObjects, getObject, putObject } from './s3-objects.ts';
import { resourceOf, type S3Request, type S3Store } from './s3-request.ts';
import { authorizeS3, parseQuery, type S3Credentials } from './s3-signature.ts';

type Operation = (call: S3Request) => LocalAnswer | Promise<LocalAnswer>;

/** Subresources that name an operation of their own; others in the query are options. */
const BUCKET_DETAILS = ['location', 'versioning', 'acl'];
const SUBRESOURCES =
  /^(accelerate|acl|analytics|attributes|cors|encryption|intelligent-tiering|inventory|legal-hold|lifecycle|logging|metrics|notification|object-lock|ownershipControls|policy|policyStatus|publicAccessBlock|replication|requestPayment|restore|retention|select|tagging|torrent|versionId|versions|website)$/;

/** Answers signed S3 requests in path style from a store. Every answer carries a request ID; errors are S3's XML. */
export function createS3Endpoint(options: {
  store: S3Store;
  credentials: S3Credentials;
  log: Logger;
}): (request: LocalRequest) => Promise<LocalAnswer> {
  const { store, credentials, log } = options;
  return async (request) => {
    const requestId = randomBytes(8).toString('hex').toUpperCase();
    const withId = (answer: LocalAnswer): LocalAnswer => ({
      ...answer,
      headers: { server: 'Millrace', 'x-amz-request-id': requestId, ...answer.headers },
    });
    try {
      const entries = parseQuery(request.rawQuery);
      const authorization = authorizeS3(request, entries, credentials, store.nowMs());
      const body = s3Body(request, authorization);
      const call = { request, ...resourceOf(request.rawPath), query: new Map(entries), body, store };
      return withId(await operationOf(call)(call));
    } catch (error) {
      const known = toMillraceError(error);
      if (known.actor !== 'caller')
        log.warn('s3-failed', {
          requestId,
          code: known.code,
          reason: known.message,
          stack: known.actor === 'bug' ? known.stack : undefined,
        });
      return withId(s3ErrorAnswer(known, request.rawPath.slice(0, 1200), requestId));
    }
  };
}

function operationOf(call: S3Request): Operation {
  const { bucket, key, query } = call;
  const foreign = [...query.keys()].find((name) => SUBRESOURCES.test(name) && !(key === '' && BUCKET_DETAILS.includes(name)));
  if (foreign !== undefined) throw notInSubset(`?${foreign}`);
  const method = call.request.method;
  const found = bucket === '' ? serviceOperation(method) : key === '' ? bucketOperation(method, query) : objectOperation(call);
  if (found !== undefined) return found;
  throw new MillraceError('method-not-allowed', {
    actor: 'caller',
    message: `Got ${method.slice(0, 20)}, which does nothing here`,
    values: { method: method.slice(0, 20) },
  });
}

function serviceOperation(method: string): Operation | undefined {
  return method === 'GET' ? listBuckets : undefined;
}

function bucketOperation(method: string, query: Map<string, string>): Operation | undefined {
  if (method === 'PUT') return createBucket;
  if (method === 'DELETE') return deleteBucket;
  if (method === 'HEAD') return headBucket;
  if (method === 'POST') return query.has('delete') ? deleteObjects : undefined;
  if (method !== 'GET') return undefined;
  if (BUCKET_DETAILS.some((name) => query.has(name))) return describeBucket;
  if (query.has('uploads')) return listUploads;
  return query.get('list-type') === '2' ? listObjectsV2 : listObjectsV1;
}

function objectOperation({ request, query }: S3Request): Operation | undefined {
  const { method } = request;
  const isCopy = request.headers['x-amz-copy-source'] !== undefined;
  if (method === 'PUT' && query.has('uploadId')) return isCopy ? uploadPartCopy : uploadPart;
  if (method === 'PUT') return isCopy ? copyObject : putObject;
  if (method === 'GET' && query.has('uploadId')) return listParts;
  if (method === 'GET' || method === 'HEAD') return getObject;
  if (method === 'DELETE') return query.has('uploadId') ? abortUpload : deleteObject;
  if (method === 'POST' && query.has('uploads')) return createUpload;
  return method === 'POST' && query.has('uploadId') ? completeUpload : undefined;
}
