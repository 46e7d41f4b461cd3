import { MillraceError } from '../errors.ts';

const KEY_BYTES_MAX = 1024;

/** An argument of a request that is not acceptable. */
export function badArgument(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-s3-argument', {
    actor: 'caller',
    message: `Got ${name} ${JSON.stringify(got.slice(0, 100))}, expected ${expected}`,
    values: { name, got: got.slice(0, 100), expected },
  });
}

/** A key that is not too long. @throws bad-object-key */
export function checkKey(key: string): string {
  if (Buffer.byteLength(key) <= KEY_BYTES_MAX) return key;
  throw new MillraceError('bad-object-key', {
    actor: 'caller',
    message: `The key has ${Buffer.byteLength(key)} bytes, at most ${KEY_BYTES_MAX} are allowed`,
    values: { got: Buffer.byteLength(key), limit: KEY_BYTES_MAX },
  });
}

/** A bucket's name by S3's rules. @throws bad-bucket-name */
export function checkBucketName(name: string): string {
  const isRight = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name) && !name.includes('..') && !/^\d+\.\d+\.\d+\.\d+$/.test(name);
  if (isRight) return name;
  throw new MillraceError('bad-bucket-name', {
    actor: 'caller',
    message: `Got bucket name ${JSON.stringify(name.slice(0, 80))}, expected 3 to 63 lower-case letters, digits, dots and dashes`,
    values: { got: name.slice(0, 80) },
  });
}
