import { MillraceError } from '../errors.ts';
import type { LocalAnswer } from './local-server.ts';
import { s3BodyText } from './s3-body.ts';
import { checkBucketName } from './s3-limits.ts';
import { isoTime, type S3Request, xmlAnswer } from './s3-request.ts';
import { parseXml } from './xml.ts';

const OWNER = { ID: 'millrace', DisplayName: 'millrace' };
const BUCKETS_MAX = 1000;
const BODY_BYTES_MAX = 64 << 10;
/** The header with which a bucket is made public: `x-amz-acl: public-read`, as S3 tools send it. */
const PUBLIC_ACL = 'public-read';

/** ListBuckets. */
export function listBuckets({ store }: S3Request): LocalAnswer {
  const buckets = store.index.buckets().sort((one, other) => (one.name < other.name ? -1 : 1));
  const rows = buckets.map(({ name, createdAtMs }) => ({ Name: name, CreationDate: isoTime(createdAtMs) }));
  return xmlAnswer('ListAllMyBucketsResult', { Owner: OWNER, Buckets: { Bucket: rows } });
}

/** CreateBucket; with `x-amz-acl: public-read` its objects are stored unencrypted. @throws bucket-exists, bad-bucket-name, too-many-buckets */
export async function createBucket({ request, bucket, body, store }: S3Request): Promise<LocalAnswer> {
  const text = await s3BodyText(body, BODY_BYTES_MAX);
  if (text !== '') parseXml(text);
  const acl = request.headers['x-amz-acl'] ?? 'private';
  if (acl !== 'private' && acl !== PUBLIC_ACL) throw notInSubset(`the ACL ${acl.slice(0, 40)}`);
  checkBucketName(bucket);
  const known = store.index.buckets();
  if (known.some(({ name }) => name === bucket)) {
    throw new MillraceError('bucket-exists', { actor: 'caller', message: `The bucket ${bucket} exists already`, values: { bucket } });
  }
  if (known.length >= BUCKETS_MAX) {
    throw new MillraceError('too-many-buckets', {
      actor: 'caller',
      message: `There are ${known.length} buckets, the limit is ${BUCKETS_MAX}`,
      values: { limit: BUCKETS_MAX },
    });
  }
  await store.index.change([{ op: 'bucket', bucket: { name: bucket, isPublic: acl === PUBLIC_ACL, createdAtMs: store.nowMs() } }]);
  return { status: 200, headers: { location: `/${bucket}` } };
}

/** DeleteBucket, of an empty one. @throws bucket-not-empty */
export async function deleteBucket({ bucket, store }: S3Request): Promise<LocalAnswer> {
  store.index.bucket(bucket);
  const [first] = store.index.keysFrom(bucket, '');
  if (first !== undefined || store.index.uploads().some((upload) => upload.bucket === bucket)) {
    throw new MillraceError('bucket-not-empty', {
      actor: 'caller',
      message: `The bucket ${bucket} holds ${first === undefined ? 'unfinished uploads' : 'objects'}`,
      values: { bucket },
      hint: 'Empty it first: `aws s3 rb --force`.',
    });
  }
  await store.index.change([{ op: 'bucket-gone', name: bucket }]);
  return { status: 204, headers: {} };
}

/** HeadBucket. */
export function headBucket({ bucket, store }: S3Request): LocalAnswer {
  const { isPublic } = store.index.bucket(bucket);
  return { status: 200, headers: { 'x-amz-bucket-region': 'us-east-1', 'x-millrace-public': String(isPublic) } };
}

/** GetBucketLocation, GetBucketVersioning and GetBucketAcl, which tools ask for before they work. */
export function describeBucket({ bucket, query, store }: S3Request): LocalAnswer {
  const { isPublic } = store.index.bucket(bucket);
  if (query.has('location')) return xmlAnswer('LocationConstraint', '');
  if (query.has('versioning')) return xmlAnswer('VersioningConfiguration', '');
  const grants = [
    { Grantee: OWNER, Permission: 'FULL_CONTROL' },
    ...(isPublic ? [{ Grantee: { URI: 'AllUsers' }, Permission: 'READ' }] : []),
  ];
  return xmlAnswer('AccessControlPolicy', { Owner: OWNER, AccessControlList: { Grant: grants } });
}

/** An operation or option of S3 that this endpoint does not have. */
export function notInSubset(what: string): MillraceError {
  return new MillraceError('not-in-s3-subset', {
    actor: 'caller',
    message: `This endpoint does not have ${what}`,
    values: { what },
    hint: 'It has the everyday subset of S3: see docs/decisions/0015-s3-and-links.md.',
  });
}
