import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type https from 'node:https';
import { createSecureContext } from 'node:tls';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** The files of a server's certificate (with its chain) and private key, PEM. */
export interface TlsFiles {
  certPath: string;
  keyPath: string;
  /** How often they are looked at. Default 5,000 ms. */
  checkMs?: number;
}

/** What the files hold: options of `https.createServer`. */
export interface TlsPair {
  cert: Buffer;
  key: Buffer;
  minVersion: 'TLSv1.2';
}

const CHECK_MS = 5_000;
const FILE_BYTES_MAX = 1 << 20;

/** Reads a certificate and its key. @throws bad-tls-file */
export function readTlsPair({ certPath, keyPath }: TlsFiles): TlsPair {
  const pair = { cert: readPem(certPath), key: readPem(keyPath), minVersion: 'TLSv1.2' } as const;
  try {
    createSecureContext(pair);
    return pair;
  } catch (cause) {
    throw badFile(`${certPath} and ${keyPath} do not fit together: ${(cause as Error).message}`, certPath, cause);
  }
}

/**
 * Looks at the files again and again, and serves new connections with what is there; those that are open go on. While the files do not fit
 * together (one of them is being replaced), or cannot be read, the last pair stays. Gives the function that ends it.
 */
export function followTlsFiles(server: https.Server, first: TlsPair, { files, log }: { files: TlsFiles; log: Logger }): () => void {
  let current = first;
  let refused = '';
  warnOfExpiry(first, log);
  const look = () => {
    try {
      const found = readTlsPair(files);
      refused = '';
      if (found.cert.equals(current.cert) && found.key.equals(current.key)) return;
      server.setSecureContext(found);
      current = found;
      log.info('tls-certificate-replaced', { certPath: files.certPath, until: new X509Certificate(found.cert).validTo });
      warnOfExpiry(found, log);
    } catch (error) {
      const { message } = toMillraceError(error);
      // Said once, not every five seconds.
      if (message !== refused) log.warn('tls-files-refused', { reason: message.slice(0, 300), effect: 'the certificate before is served' });
      refused = message;
    }
  };
  const timer = setInterval(look, files.checkMs ?? CHECK_MS);
  timer.unref();
  return () => clearInterval(timer);
}

function warnOfExpiry({ cert }: TlsPair, log: Logger): void {
  const { validTo } = new X509Certificate(cert);
  if (Date.parse(validTo) < Date.now()) log.warn('tls-certificate-expired', { until: validTo });
}

function readPem(path: string): Buffer {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > 0 && bytes.length <= FILE_BYTES_MAX) return bytes;
  } catch (cause) {
    throw badFile(`${path} cannot be read: ${(cause as Error).message}`, path, cause);
  }
  throw badFile(`${path} is empty or longer than ${FILE_BYTES_MAX} bytes`, path);
}

function badFile(message: string, path: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-tls-file', {
    actor: 'caller',
    message,
    values: { path },
    hint: 'Name a PEM certificate (with its chain) and the PEM private key that belongs to it.',
    cause,
  });
}
