import { httpStatusOf, type MillraceError, toMillraceError } from '../errors.ts';
import { xmlError } from './xml.ts';

/** What S3 calls an error of ours, and its HTTP status. */
const S3_ERRORS: Record<string, readonly [name: string, status: number]> = {
  'no-such-bucket': ['NoSuchBucket', 404],
  'no-such-key': ['NoSuchKey', 404],
  'no-such-upload': ['NoSuchUpload', 404],
  'bucket-exists': ['BucketAlreadyOwnedByYou', 409],
  'bucket-not-empty': ['BucketNotEmpty', 409],
  'bad-bucket-name': ['InvalidBucketName', 400],
  'bad-object-key': ['KeyTooLongError', 400],
  'bad-s3-argument': ['InvalidArgument', 400],
  'bad-s3-digest': ['BadDigest', 400],
  'bad-part': ['InvalidPart', 400],
  'bad-part-order': ['InvalidPartOrder', 400],
  'part-too-small': ['EntityTooSmall', 400],
  'object-too-big': ['EntityTooLarge', 400],
  'body-cut': ['IncompleteBody', 400],
  'body-too-big': ['MaxMessageLengthExceeded', 400],
  'body-too-slow': ['RequestTimeout', 400],
  'metadata-too-big': ['MetadataTooLarge', 400],
  'malformed-xml': ['MalformedXML', 400],
  'precondition-failed': ['PreconditionFailed', 412],
  'range-not-satisfiable': ['InvalidRange', 416],
  'method-not-allowed': ['MethodNotAllowed', 405],
  'not-in-s3-subset': ['NotImplemented', 501],
  'access-key-unknown': ['InvalidAccessKeyId', 403],
  'access-denied-s3': ['AccessDenied', 403],
  'signature-mismatch': ['SignatureDoesNotMatch', 403],
  'request-time-skewed': ['RequestTimeTooSkewed', 403],
  'request-expired': ['AccessDenied', 403],
  'authorization-malformed': ['AuthorizationHeaderMalformed', 400],
  'payload-hash-mismatch': ['XAmzContentSHA256Mismatch', 400],
  'staging-full': ['SlowDown', 503],
  'endpoint-stopping': ['ServiceUnavailable', 503],
};

/** The name, the status, the header and the XML body with which an error is answered. Defects keep their message to the log. */
export function s3ErrorAnswer(
  error: unknown,
  resource: string,
  requestId: string,
): { status: number; headers: Record<string, string>; body: string } {
  const known = toMillraceError(error);
  const [name, status] = s3ErrorOf(known);
  const message = known.actor === 'bug' ? 'Something went wrong inside the endpoint; its log says what.' : known.message;
  const text = known.hint === undefined || known.actor === 'bug' ? message : `${message}. ${known.hint}`;
  return {
    status,
    headers: { 'content-type': 'application/xml', 'x-millrace-error': known.code },
    body: xmlError({ Code: name, Message: text, Resource: resource, RequestId: requestId }),
  };
}

/** S3's name of an error and its HTTP status. */
export function s3ErrorOf(error: MillraceError): readonly [name: string, status: number] {
  const status = httpStatusOf(error);
  return S3_ERRORS[error.code] ?? [status >= 500 ? (status === 503 ? 'ServiceUnavailable' : 'InternalError') : 'InvalidRequest', status];
}
