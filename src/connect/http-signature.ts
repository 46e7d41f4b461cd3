import { createHash, randomBytes } from 'node:crypto';
import { keccak_256 } from '@noble/hashes/sha3.js';
import { MillraceError } from '../errors.ts';

/** Signs a 32-byte digest with a secp256k1 key; the signature is 65 bytes `r ‖ s ‖ v` in hex. */
export interface RequestSigner {
  address: string;
  signDigest(digest: `0x${string}`): Promise<`0x${string}`>;
}

/** The parts of a request that a signature covers. Header names in lower case. */
export interface SignableRequest {
  method: string;
  /** Full URL, as the sender addresses it. */
  url: string;
  headers?: Record<string, string>;
}

/** Who signed a request, proven. */
export interface VerifiedRequest {
  address: `0x${string}`;
  createdAt: number;
  nonce: string;
}

/** Remembers nonces for as long as a signature may be replayed. */
export interface ReplayGuard {
  /** True the first time that a nonce of this signer is seen. */
  takeOnce(address: string, nonce: string, expiresAt: number): boolean;
}

const ALGORITHM = 'eip191-secp256k1-keccak256';
const TAG = 'millrace-v1';
const LIFETIME_SECONDS = 120;
const CLOCK_SKEW_SECONDS = 60;
const GUARD_ENTRIES_MAX = 100_000;

/**
 * The headers `Signature-Input` and `Signature` of RFC 9421 for a request: method, authority, path, query and the named
 * headers are covered, so a signature is good for one message to one node, once, for two minutes. The key is an
 * Ethereum key; the digest is EIP-191 over the signature base, so any wallet can sign.
 */
export async function signRequest(
  request: SignableRequest,
  signer: RequestSigner,
  options: { covered?: readonly string[]; nowSeconds?: number } = {},
): Promise<Record<string, string>> {
  const created = options.nowSeconds ?? Math.floor(Date.now() / 1000);
  const components = ['@method', '@authority', '@path', '@query', ...(options.covered ?? [])];
  const nonce = randomBytes(16).toString('base64url');
  const parameters = `(${components.map((name) => `"${name}"`).join(' ')});created=${created};expires=${created + LIFETIME_SECONDS};nonce="${nonce}";alg="${ALGORITHM}";keyid="${signer.address.toLowerCase()}";tag="${TAG}"`;
  const signature = await signer.signDigest(digestOf(signatureBase(request, components, parameters)));
  return { 'signature-input': `sig1=${parameters}`, signature: `sig1=:${Buffer.from(signature.slice(2), 'hex').toString('base64')}:` };
}

/**
 * Who signed a request. The covered components must contain method, authority, path and query and all of `required`.
 * `recover` gives the address of a digest's signer (native secp256k1); `guard` refuses replays.
 * @throws signature-missing, signature-malformed, signature-expired, signature-wrong, signature-replayed
 */
export function verifyRequest(
  request: SignableRequest,
  ports: { recover: (digest: `0x${string}`, signature: `0x${string}`) => string; guard: ReplayGuard },
  options: { required?: readonly string[]; nowSeconds?: number } = {},
): VerifiedRequest {
  const { components, parameters, signature, fields } = parseSignature(request.headers ?? {});
  const now = options.nowSeconds ?? Math.floor(Date.now() / 1000);
  for (const name of ['@method', '@authority', '@path', '@query', ...(options.required ?? [])]) {
    if (!components.includes(name)) throw refused('signature-malformed', `The signature does not cover ${name}`);
  }
  if (fields.alg !== ALGORITHM || fields.tag !== TAG)
    throw refused('signature-malformed', `Got algorithm "${fields.alg}" and tag "${fields.tag}", expected "${ALGORITHM}" and "${TAG}"`);
  const created = Number(fields.created);
  const expires = Number(fields.expires);
  const valid =
    Number.isSafeInteger(created) &&
    Number.isSafeInteger(expires) &&
    expires - created <= LIFETIME_SECONDS &&
    created <= now + CLOCK_SKEW_SECONDS &&
    now <= expires + CLOCK_SKEW_SECONDS;
  if (!valid) throw refused('signature-expired', `The signature was made for ${created} to ${expires}, now it is ${now}`);
  const address = recoverAddress(digestOf(signatureBase(request, components, parameters)), signature, ports.recover);
  if (address !== fields.keyid?.toLowerCase())
    throw refused('signature-wrong', `The signature is by ${address}, the request says ${fields.keyid}`);
  if (!ports.guard.takeOnce(address, fields.nonce ?? '', expires + CLOCK_SKEW_SECONDS))
    throw refused('signature-replayed', 'This signed request was already used');
  return { address: address as `0x${string}`, createdAt: created, nonce: fields.nonce ?? '' };
}

/** The `Content-Digest` header (RFC 9530) of a whole body. */
export function contentDigest(body: Uint8Array | string): string {
  return `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
}

/** A replay guard in memory; entries leave when their signature has expired. It never forgets early: when it is full, new nonces are refused. */
export function createReplayGuard(nowSeconds: () => number = () => Math.floor(Date.now() / 1000)): ReplayGuard {
  const seen = new Map<string, number>();
  return {
    takeOnce(address, nonce, expiresAt) {
      if (nonce === '' || nonce.length > 64) return false;
      if (seen.size >= GUARD_ENTRIES_MAX) for (const [key, expiry] of seen) if (expiry < nowSeconds()) seen.delete(key);
      const key = `${address.toLowerCase()} ${nonce}`;
      if (seen.has(key) || seen.size >= GUARD_ENTRIES_MAX) return false;
      seen.set(key, expiresAt);
      return true;
    },
  };
}

function signatureBase(request: SignableRequest, components: readonly string[], parameters: string): string {
  const url = new URL(request.url);
  const lines = components.map((name) => `"${name}": ${componentValue(name, request, url)}`);
  return [...lines, `"@signature-params": ${parameters}`].join('\n');
}

function componentValue(name: string, request: SignableRequest, url: URL): string {
  if (name === '@method') return request.method.toUpperCase();
  if (name === '@authority') return url.host.toLowerCase();
  if (name === '@path') return url.pathname;
  if (name === '@query') return url.search === '' ? '?' : url.search;
  const value = request.headers?.[name];
  if (value === undefined || name.startsWith('@'))
    throw refused('signature-malformed', `The signature covers "${name}", which the request does not have`);
  return value.trim();
}

function digestOf(base: string): `0x${string}` {
  const message = Buffer.from(base, 'utf8');
  const prefix = Buffer.from(`\x19Ethereum Signed Message:\n${message.length}`, 'utf8');
  return `0x${Buffer.from(keccak_256(Buffer.concat([prefix, message]))).toString('hex')}`;
}

function parseSignature(headers: Record<string, string>): {
  components: string[];
  parameters: string;
  signature: `0x${string}`;
  fields: Record<string, string>;
} {
  const input = headers['signature-input'];
  const raw = headers.signature;
  if (input === undefined || raw === undefined) throw refused('signature-missing', 'The request is not signed');
  const head = /^sig1=(\(((?:"[a-z0-9@-]{1,64}"(?: |(?=\))))*)\)((?:;[a-z]{1,16}=(?:"[^"\\]{0,128}"|\d{1,12}))*))$/.exec(input);
  const value = /^sig1=:([A-Za-z0-9+/]{86}[A-Za-z0-9+/=]{2}):$/.exec(raw);
  const signature = Buffer.from(value?.[1] ?? '', 'base64');
  // Base64 has several spellings of the same bytes, and recovery reads 65 of them: a signature has one form on the wire.
  const canonical = signature.length === 65 && raw === `sig1=:${signature.toString('base64')}:`;
  if (head === null || value === null || !canonical || input.length > 2048) {
    throw refused('signature-malformed', 'The signature headers cannot be read');
  }
  const fields: Record<string, string> = {};
  for (const part of (head[3] as string).split(';').slice(1)) {
    const at = part.indexOf('=');
    fields[part.slice(0, at)] = part.slice(at + 1).replace(/^"|"$/g, '');
  }
  const components = (head[2] as string)
    .split(' ')
    .filter((name) => name !== '')
    .map((name) => name.slice(1, -1));
  return { components, parameters: head[1] as string, signature: `0x${signature.toString('hex')}`, fields };
}

function recoverAddress(
  digest: `0x${string}`,
  signature: `0x${string}`,
  recover: (digest: `0x${string}`, signature: `0x${string}`) => string,
): string {
  try {
    return recover(digest, signature).toLowerCase();
  } catch (cause) {
    throw refused('signature-wrong', 'The signature is not a valid secp256k1 signature', cause);
  }
}

function refused(code: string, message: string, cause?: unknown): MillraceError {
  return new MillraceError(code, {
    actor: 'caller',
    message,
    hint: 'Sign each request anew, with a clock that is right to within a minute.',
    cause,
  });
}
