import { createHash, generateKeyPairSync, randomBytes, sign, X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';

/** A node's TLS key and self-signed certificate, and the fingerprint that the chain stores for it. */
export interface TransportIdentity {
  /** SHA-256 of the DER SubjectPublicKeyInfo, 0x-prefixed: `transportKey` of the operator on chain. */
  transportKey: `0x${string}`;
  keyPem: string;
  certificatePem: string;
}

const CERTIFICATE_YEARS = 20;

/**
 * The identity kept in `folder` (`transport.key`, mode 0600, and `transport.crt`); made on first use. P-256, since every
 * TLS library speaks it. The certificate names nobody: peers trust its key by the chain, not by a name.
 * @throws transport-identity-unreadable
 */
export async function openTransportIdentity(folder: string): Promise<TransportIdentity> {
  const keyPath = join(folder, 'transport.key');
  const certificatePath = join(folder, 'transport.crt');
  if (!existsSync(keyPath) || !existsSync(certificatePath)) createIdentity(keyPath, certificatePath);
  try {
    const certificatePem = readFileSync(certificatePath, 'utf8');
    return { keyPem: readFileSync(keyPath, 'utf8'), certificatePem, transportKey: fingerprintOf(certificatePem) };
  } catch (cause) {
    throw new MillraceError('transport-identity-unreadable', {
      actor: 'host',
      message: `Cannot read the TLS key or certificate in ${folder}`,
      values: { folder },
      hint: 'Restore transport.key and transport.crt, or delete both and publish the new key with `millrace provider endpoint`.',
      cause,
    });
  }
}

function createIdentity(keyPath: string, certificatePath: string): void {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const certificate = selfSigned(spki, (bytes) => sign('sha256', bytes, privateKey));
  const pem = `-----BEGIN CERTIFICATE-----\n${(certificate.toString('base64').match(/.{1,64}/g) as string[]).join('\n')}\n-----END CERTIFICATE-----\n`;
  writeFileDurably(certificatePath, pem, { mode: 0o644 });
  writeFileDurably(keyPath, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
}

/** The smallest X.509 v3 certificate (RFC 5280, 4.1): one name, no extensions, signed by its own key. */
function selfSigned(spki: Buffer, signBytes: (bytes: Buffer) => Buffer): Buffer {
  const algorithm = der(0x30, Buffer.from('06082a8648ce3d040302', 'hex')); // ecdsa-with-SHA256
  const name = der(0x30, der(0x31, der(0x30, Buffer.from('0603550403', 'hex'), der(0x0c, Buffer.from('millrace-node')))));
  const year = new Date().getUTCFullYear();
  const validity = der(
    0x30,
    der(0x18, Buffer.from(`${year - 1}0101000000Z`)),
    der(0x18, Buffer.from(`${year + CERTIFICATE_YEARS}0101000000Z`)),
  );
  const version = der(0xa0, der(0x02, Buffer.from([2])));
  const serial = der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(15)]));
  const body = der(0x30, version, serial, algorithm, name, validity, name, spki);
  return der(0x30, body, algorithm, der(0x03, Buffer.from([0]), signBytes(body)));
}

/** One DER value: tag, length, contents. */
function der(tag: number, ...contents: Buffer[]): Buffer {
  const value = Buffer.concat(contents);
  const length =
    value.length < 0x80 ? [value.length] : value.length < 0x100 ? [0x81, value.length] : [0x82, value.length >> 8, value.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), value]);
}

function fingerprintOf(certificatePem: string): `0x${string}` {
  const spki = new X509Certificate(certificatePem).publicKey.export({ type: 'spki', format: 'der' });
  return `0x${createHash('sha256').update(spki).digest('hex')}`;
}
