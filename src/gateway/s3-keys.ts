import { randomInt } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import type { S3Credentials } from './s3-signature.ts';

const UPPER = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const ALL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/**
 * The keys in a file that only its owner can read, made when it does not exist: 20 letters, and a secret of 40 (238 bits).
 * @throws bad-s3-keys
 */
export function openS3Keys(path: string): S3Credentials & { isNew: boolean } {
  if (!existsSync(path)) {
    const made = { accessKey: `MR${randomText(UPPER, 18)}`, secretKey: randomText(ALL, 40) };
    writeFileDurably(path, `${JSON.stringify(made)}\n`, { mode: 0o600 });
    return { ...made, isNew: true };
  }
  try {
    const { accessKey, secretKey } = JSON.parse(readFileSync(path, 'utf8')) as S3Credentials;
    if (/^[A-Z0-9]{16,128}$/.test(accessKey) && secretKey.length >= 32) return { accessKey, secretKey, isNew: false };
  } catch {
    // falls through to the typed error
  }
  throw new MillraceError('bad-s3-keys', {
    actor: 'host',
    message: `${path} does not hold the keys of the S3 endpoint`,
    values: { path },
    hint: 'Delete the file; the next start makes new keys. Objects are not affected.',
  });
}

function randomText(alphabet: string, length: number): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('');
}
